"""The command line: what it prints, how it exits, and that it leaves nothing behind when it refuses."""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import Input, layers

from exporter import cli
from exporter.targets import TARGETS
from signatures import Case

F, U = 3, 4
COMMANDS = ("export", "check", "golden", "inspect", "bench")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scramble):
    """A folder with a good model and several bad ones."""
    here = tmp_path_factory.mktemp("models")

    def save(name, *stack, **options):
        model = keras.Sequential([Input((options.get("total"), F), name="x"), *stack], name=name)
        scramble(model).save(here / f"{name}.keras")

    save("good", layers.LSTM(U, return_sequences=True, name="lstm"), layers.Dense(2, name="y"))
    save("pooled", layers.LSTM(U, return_sequences=True, name="lstm"), layers.GlobalMaxPooling1D(name="pool"))
    recurrent = layers.LSTM(U, return_sequences=True, name="lstm")
    save("ahead", recurrent, layers.Conv1D(2, 3, padding="same", name="ahead"))
    save("plain", layers.Dense(2))
    keras.Sequential([Input((12,)), layers.Reshape((3, 4)), layers.LSTM(U)]).save(here / "axisless.keras")
    channels = layers.ConvLSTM1D(2, 1, data_format="channels_first", name="memory")
    keras.Sequential([Input((None, 3, 4)), channels]).save(here / "channels.keras")
    save("flat", layers.LSTM(U, return_sequences=True), layers.Flatten(), layers.Dense(2), total=6)
    save("code", layers.Lambda(lambda x: x * 2, output_shape=(None, F)), layers.LSTM(U))
    (here / "truncated.keras").write_bytes((here / "good.keras").read_bytes()[:2000])
    (here / "text.keras").write_text("not a model")
    (here / "weights.h5").write_text("not HDF5")
    (here / "good.pb").write_bytes((here / "good.keras").read_bytes())
    with zipfile.ZipFile(here / "zip.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    np.savez(here / "feeds.npz", x=np.ones((2, 5, F), np.float32))
    np.savez(here / "wrong.npz", y=np.ones((2, 5, F), np.float32))
    np.savez(here / "scalar.npz", x=np.float32(1))
    np.savez(here / "objects.npz", x=np.array([{}, []], object))
    return here


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capfd, without_children):
    """Run a command in an empty folder, the models by name; return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for variable in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(variable, os.environ.get(variable, "3"))

    def ran(*arguments):
        arguments = [str(folder / each) if (folder / str(each)).is_file() else str(each) for each in arguments]
        capfd.readouterr()
        with without_children(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(cli.main, arguments)
        native = capfd.readouterr().err  # errors go to the real stderr, past click's
        return result.exit_code, result.stdout, result.stderr + native

    return ran


def refused(result, code, *said):
    exit_code, stdout, stderr = result
    assert exit_code == code, stderr
    assert stdout == ""
    for each in said:
        assert each in stderr
    for never in ("Traceback", "bug in export-lstm", 'File "'):
        assert never not in stderr
    assert 0 < len(stderr.strip().splitlines()) <= (4 if code == 1 else 5)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory, without_children):
    """One export of the good model to all targets, through the command line."""
    out = tmp_path_factory.mktemp("exported")
    with without_children(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(
            cli.main, ["export", str(folder / "good.keras"), "--to", "all", "-o", str(out), "--json"]
        )
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_given_for_every_command(run, arguments, flag):
    exit_code, stdout, stderr = run(*arguments, flag)
    assert exit_code == 0
    assert stderr == ""
    assert stdout.startswith("Usage: ")
    for expected in COMMANDS if not arguments else ("--json", "--quiet", "--verbose"):
        assert expected in stdout


def test_the_command_line_offers_every_target_there_is():
    [to] = [option for option in cli.export.params if option.name == "to"]
    assert to.type(",".join((*TARGETS, "all")), to, None) == [*TARGETS, "all"]


def test_every_option_has_a_help_text():
    for command in (cli.main, *cli.main.commands.values()):
        assert command.help
        assert all(option.help for option in command.params if option.param_type_name == "option")


LOADING = {
    "no-such-file.keras": "does not exist",
    "text.keras": "not a .keras archive",
    "zip.keras": "config.json",
    "truncated.keras": "truncated",
    "weights.h5": "not an HDF5 file",
    "good.pb": "suffix '.pb'",
    "code.keras": "Lambda",
    "plain.keras": "no recurrent layer",
    "channels.keras": "'memory' (ConvLSTM1D)",
}


@pytest.mark.parametrize("command", ["export", "golden", "inspect"])
@pytest.mark.parametrize("model", LOADING)
def test_a_model_that_cannot_be_taken_is_refused_in_a_sentence(run, tmp_path, command, model):
    options = {"export": ("--to", "onnx", "-o", "new/"), "golden": ("-o", "case"), "inspect": ()}[command]
    refused(run(command, model, *options), 1, LOADING[model], model if model[0] in "nt" else "")
    assert not any(tmp_path.iterdir())


USAGE = {
    "no target": (("good.keras",), "--to"),
    "an empty target": (("good.keras", "--to", ""), "tflite"),
    "an unknown target": (
        ("good.keras", "--to", "coreml"),
        f"'coreml' is not one of {', '.join(TARGETS)}, all",
    ),
    "one unknown of two targets": (("good.keras", "--to", "onnx,coreml"), "'coreml'"),
    "batch 0": (("good.keras", "--to", "onnx", "--batch", "0"), "'0' is not a number from 1 to"),
    "time 0": (("good.keras", "--to", "onnx", "--time", "0"), "'0' is not a number from 1 to"),
    "time -1": (("good.keras", "--to", "onnx", "--time", "-1"), "'-1' is not"),
    "time 1.5": (("good.keras", "--to", "onnx", "--time", "1.5"), "'1.5' is not"),
    "nonsense signatures": (
        ("good.keras", "--to", "onnx", "--signatures", "stop"),
        "'stop' is not one of sequence, step",
    ),
    "nonsense lowering": (("good.keras", "--to", "onnx", "--lowering", "fused"), "'fused' is not one of"),
    "no model": (("export", "--to", "onnx"), "MODEL"),
    "an unknown option": (("good.keras", "--to", "onnx", "--fast"), "--fast"),
    "golden without a folder": (("golden", "good.keras"), "--out"),
}


@pytest.mark.parametrize("kind", USAGE)
def test_wrong_usage_is_told_with_exit_code_2(run, tmp_path, kind):
    arguments, said = USAGE[kind]
    refused(run(*arguments), 2, said)
    assert not any(tmp_path.iterdir())


REFUSED = {
    "a lowering of another target": (("good.keras", "--to", "onnx,tflite", "--lowering", "xla"), "by savedmodel only"),
    "a lowering of no target": (("good.keras", "--to", "onnx", "--lowering", "loop"), "by tflite only, not by onnx"),
    "a lowering that acts on nothing": (
        ("good.keras", "--to", "savedmodel", "--no-check", "--lowering", "xla", "--signatures", "step"),
        "lowering 'xla' has no use",
    ),
    "unrolling one step": (
        ("good.keras", "--to", "tflite", "--no-check", "--lowering", "unrolled", "--signatures", "step"),
        "lowering 'unrolled' has no use in the tflite artifact, whose calls are: one time step at a time",
    ),
    "time where no input has such an axis": (("axisless.keras", "--to", "onnx", "--time", "16"), "no input has a time"),
    "the suffix of another target": (("good.keras", "--to", "onnx", "-o", "a.tflite"), "a.tflite"),
    "a file for two targets": (("good.keras", "--to", "onnx,tflite", "-o", "a.tflite"), "a folder"),
    "a step that cannot be had": (("ahead.keras", "--to", "onnx", "--signatures", "step"), "'ahead'"),
    "another time than the model's": (("flat.keras", "--to", "onnx", "--time", "7"), "exactly 6"),
    "any time where it is fixed": (("flat.keras", "--to", "onnx", "--time", "any"), "exactly 6"),
    "unrolling any time": (("good.keras", "--to", "tflite", "--lowering", "unrolled", "--no-check"), "--time N"),
    "feeds that are missing": (("golden", "good.keras", "-o", "case", "--feeds", "no.npz"), "no.npz"),
    "feeds that are a model": (("golden", "good.keras", "-o", "case", "--feeds", "text.keras"), "it is no .npz"),
    "feeds with code in them": (
        ("golden", "good.keras", "-o", "case", "--feeds", "objects.npz"),
        "it is no .npy of plain numbers",
    ),
    "feeds of another name": (("golden", "good.keras", "-o", "case", "--feeds", "wrong.npz"), "'x'"),
    "feeds without a batch": (
        ("golden", "good.keras", "-o", "case", "--feeds", "scalar.npz"),
        "the batch as its first",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_had_is_refused_with_exit_code_1(run, tmp_path, kind):
    arguments, said = REFUSED[kind]
    refused(run(*arguments), 1, said)
    assert not any(tmp_path.iterdir())


def test_what_exists_is_only_replaced_by_force(run, tmp_path):
    (tmp_path / "good.onnx").write_text("mine")
    refused(run("good.keras", "--to", "onnx"), 1, "good.onnx", "exists already", "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["good.onnx"]
    assert (tmp_path / "good.onnx").read_text() == "mine"
    exit_code, _, _ = run("good.keras", "--to", "onnx", "--force", "--no-check", "--quiet")
    assert exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.contract.json", "good.onnx"]
    assert (tmp_path / "good.onnx").stat().st_size > 500


def test_a_case_is_never_recorded_over_a_folder(run, tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "mine").write_text("mine")
    refused(run("golden", "good.keras", "-o", "case"), 1, "case", "exists already")
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["mine"]


def test_a_refusal_after_the_conversion_leaves_nothing_behind(run, tmp_path, monkeypatch):
    from exporter.targets.onnx import write

    monkeypatch.setattr(write, "faults", lambda ops, recurrences: ["it holds 1 Loop"])
    refused(run("good.keras", "--to", "onnx", "--no-check", "-o", "new/deeper/"), 1, "it holds 1 Loop")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_artifact_that_differs_is_not_delivered(run, tmp_path, monkeypatch):
    from exporter.prove.witness import record

    def off(*args, **kwargs):
        case = record(*args, **kwargs)
        runs = [
            replace(run, expect={**run.expect, "lstm_h": run.expect["lstm_h"] + np.float32(1e-3)}) for run in case.runs
        ]
        return replace(case, runs=tuple(runs))

    monkeypatch.setattr("exporter.prove.witness.record", off)
    refused(run("good.keras", "--to", "onnx"), 1, "ParityError", "onnx artifact is not delivered", "'lstm_h'")
    assert not any(tmp_path.iterdir())


def test_a_surprise_is_told_as_a_bug_without_a_traceback(run, tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.pipeline.open_model", lambda *args: 1 / 0)
    exit_code, stdout, stderr = run("good.keras", "--to", "onnx")
    assert (exit_code, stdout) == (1, "")
    assert "This is a bug in export-lstm: ZeroDivisionError" in stderr
    assert "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_an_export_is_delivered_whole_and_told_as_json(exported):
    out, stdout = exported
    facts = json.loads(stdout)
    assert [each["target"] for each in facts] == ["tflite", "onnx", "savedmodel"]
    assert sorted(path.name for path in out.iterdir()) == [
        "good.contract.json",
        "good.onnx",
        "good.tflite",
        "good_savedmodel",
    ]
    for each in facts:
        assert each["parity"]["ok"]
        assert each["parity"]["comparisons"] > 20
        assert each["bytes"] > 500
        assert each["signatures"] == ["sequence", "step"]
    contract = json.loads((out / "good.contract.json").read_text())
    assert set(contract["artifacts"]) == {"tflite", "onnx", "savedmodel"}
    assert contract["outputs"] == ["y"]


def test_an_export_is_told_as_a_table_and_quiet_says_nothing(run, tmp_path):
    exit_code, stdout, stderr = run("good.keras", "--to", "savedmodel", "--no-check")
    assert (exit_code, stderr) == (0, "")
    assert "good_savedmodel" in stdout
    assert "unchecked" in stdout
    assert run("good.keras", "--to", "savedmodel", "--no-check", "--force", "-q") == (0, "", "")


def test_exports_of_one_model_share_a_contract_and_what_is_of_another_is_told(run, tmp_path, folder):
    for target in ("onnx", "savedmodel"):
        assert run("good.keras", "--to", target, "--no-check")[0] == 0
    contract = json.loads((tmp_path / "good.contract.json").read_text())
    assert set(contract["artifacts"]) == {"onnx", "savedmodel"}
    assert {"onnxruntime", "tensorflow"} <= set(contract["provenance"])
    assert run("check", "good.onnx", "-q") == run("check", "good_savedmodel", "-q") == (0, "", "")

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "good.keras").write_bytes((folder / "pooled.keras").read_bytes())
    other = (tmp_path / "other" / "good.keras", "--to", "onnx", "--no-check")
    (tmp_path / "good.onnx").unlink()
    refused(run(*other), 1, "good.contract.json", "good_savedmodel of another model, 'good' (sha256")
    exit_code, _, stderr = run(*other, "--force")
    assert (exit_code, stderr.count("\n")) == (0, 1)
    assert "good_savedmodel isn't what good.contract.json beside it tells of" in stderr
    assert set(json.loads((tmp_path / "good.contract.json").read_text())["artifacts"]) == {"onnx"}

    exit_code, stdout, stderr = run("check", "good_savedmodel", "--json")
    assert (exit_code, json.loads(stdout)["strays"]) == (1, [str(tmp_path / "good_savedmodel")])
    assert "good_savedmodel isn't what good.contract.json beside it tells of" in stderr
    exit_code, stdout, stderr = run("check", "good.onnx")
    assert exit_code == 0
    assert "good_savedmodel isn't" in stderr


def test_a_model_is_inspected(run):
    exit_code, stdout, stderr = run("inspect", "ahead.keras", "--json")
    assert (exit_code, stderr) == (0, "")
    facts = json.loads(stdout)
    assert facts["recurrent_layers"] == [
        {"name": "lstm", "kind": "lstm", "states": {"h": [U], "c": [U]}, "initial_state": "port"}
    ]
    assert facts["can_be_stepped"] is False
    assert "'ahead'" in facts["no_step_because"]
    assert list(facts["signatures"]) == ["sequence"]
    exit_code, stdout, _ = run("inspect", "good.keras")
    assert exit_code == 0
    for said in ("lstm_h_in", "lstm_sequences", "[batch, time, 4]", "step by step: yes"):
        assert said in stdout


def test_a_case_is_recorded_from_the_callers_feeds_and_holds_the_artifact(run, tmp_path, exported):
    exit_code, stdout, stderr = run("golden", "good.keras", "-o", "case", "--feeds", "feeds.npz", "--json")
    assert (exit_code, stderr) == (0, "")
    assert json.loads(stdout)["runs"] == ["feeds"]
    case = Case.load(tmp_path / "case")
    np.testing.assert_array_equal(case.runs[0].feeds["x"], np.ones((2, 5, F), np.float32))
    assert (tmp_path / "case" / "model.keras").is_file()
    exit_code, stdout, _ = run("check", exported[0] / "good.onnx", "--golden", "case", "--json")
    report = json.loads(stdout)
    assert exit_code == 0
    assert report["ok"]
    assert set(report["max_abs"]) == {"y", "lstm_sequences", "lstm_h", "lstm_c"}
    expected = tmp_path / "case" / "expect" / "feeds" / "y.npy"
    np.save(expected, np.load(expected) + np.float32(0.01))
    exit_code, stdout, _ = run("check", exported[0] / "good.onnx", "--golden", "case")
    assert exit_code == 1
    assert "differs" in stdout
    assert "'y'" in stdout


@pytest.mark.parametrize("option", [("--dtype", "float16"), ("--attention-cache", "8"), ("--lookahead",)], ids=str)
def test_an_option_that_an_artifact_has_no_use_for_is_refused(run, exported, option):
    refused(run("inspect", exported[0] / "good.onnx", *option), 1, "good.onnx", option[0])


def test_an_artifact_is_inspected_with_its_ops(run, exported):
    exit_code, stdout, _ = run("inspect", exported[0] / "good.onnx", "--json")
    facts = json.loads(stdout)
    assert exit_code == 0
    assert facts["ops"]["LSTM"] == 1
    assert facts["target"] == "onnx"
    assert set(facts["signatures"]) == {"sequence", "step"}


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign"])
def test_an_artifact_that_cannot_be_opened_is_refused_in_a_sentence(run, tmp_path, exported, kind):
    content = {"truncated": (exported[0] / "good.tflite").read_bytes()[:900], "foreign": b"not TFLite at all"}
    if kind in content:
        (tmp_path / "bad.tflite").write_bytes(content[kind])
    refused(run("check", tmp_path / "bad.tflite"), 1, "bad.tflite")


def test_a_case_that_is_none_is_refused_in_a_sentence(run, tmp_path, exported):
    refused(run("check", exported[0] / "good.onnx", "--golden", tmp_path), 1, "not a golden case")


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--version",), 0), (("nothing.keras", "--to", "onnx"), 1), (("--to",), 2)]
)
def test_the_installed_command_exits_alike(tmp_path, arguments, code):
    call = "import sys; from exporter.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", call, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert (done.stdout == "") == bool(code)
    assert (done.stderr == "") != bool(code)
    assert not any(tmp_path.iterdir())
