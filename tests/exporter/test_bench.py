"""Timing side by side: what is fed, who takes turns with whom, how ratios are made; never how long anything takes."""

import json
import math
import os
import re
import time
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from exporter import bench, cli
from exporter.bench import ONE_THREAD, TOTALS, Ratio, Worker, plain_feeds, ratio, take_turns
from signatures import Contract, Port, Signature
from signatures.contract import ArtifactInfo
from signatures.errors import ArtifactError, ExportLSTMError, FeedError


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Two short turns are enough to see the form of what is told."""
    monkeypatch.setattr(bench, "BURST", 0.001)
    monkeypatch.setattr(bench.take_turns, "__defaults__", (2, None))


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


def told(worker, request, limit=60):
    worker.ask(request)
    return worker.answer(limit)


# One process.


def test_a_worker_has_one_thread_and_no_tensorflow(worker):
    seen = told(worker, partial(eval, "(None, (dict(__import__('os').environ), list(__import__('sys').modules)))"))
    assert {name: seen[0][name] for name in ONE_THREAD} == dict.fromkeys(ONE_THREAD, "1")
    assert not {"tensorflow", "keras", "onnxruntime", "ai_edge_litert"} & set(seen[1])


def test_starting_a_worker_leaves_the_environment_as_it_was(monkeypatch, worker):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    before = dict(os.environ)
    Worker().close()
    assert dict(os.environ) == before


def test_a_worker_repeats_what_it_opened_last(worker, tmp_path):
    for name in "ab":
        write = f"(lambda: open({str(tmp_path / name)!r}, 'a').write('.'), {name!r})"
        assert told(worker, partial(eval, write)) == name
    assert 0 < told(worker, 0.01) < 0.01
    assert not (tmp_path / "a").exists()
    assert len((tmp_path / "b").read_text()) > 3
    assert told(worker, 0) > 0  # at least once


def test_an_error_in_a_worker_is_one_line_and_the_worker_goes_on(worker):
    with pytest.raises(ExportLSTMError, match=r"^ZeroDivisionError: .*by zero$"):
        told(worker, partial(eval, "1 / 0"))
    assert told(worker, partial(eval, "(None, 1)")) == 1


def test_an_error_of_ours_keeps_its_kind(worker, tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        told(worker, partial(bench._read_contract, tmp_path / "none.tflite", False))


def test_a_crash_in_a_worker_is_told(worker):
    with pytest.raises(ExportLSTMError, match="crashed"):
        told(worker, partial(os.abort))
    with pytest.raises(ExportLSTMError, match="crashed"):
        told(worker, 0.01)


def test_a_worker_that_takes_too_long_is_ended(worker):
    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        told(worker, partial(time.sleep, 60), limit=0.1)
    assert worker._child._process.poll() is not None


# Turns and ratios.


def fakes(*seconds, takes=0.0):
    order = []

    def make(k, each):
        def answer():
            time.sleep(takes if k == 0 else 0)
            return each

        return SimpleNamespace(ask=lambda request: order.append(k), answer=answer)

    return [make(k, each) for k, each in enumerate(seconds)], order


def test_workers_take_turns_and_each_is_first_in_its_turn():
    workers, order = fakes(1.0, 2.0, 3.0)
    assert take_turns(workers, 3) == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert order == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_a_slow_worker_has_fewer_turns_but_at_least_one():
    workers, _ = fakes(1.0, 2.0, takes=0.01)
    slow, fast = take_turns(workers, 5, most=0.005)
    assert (len(slow), len(fast)) == (1, 5)


def test_a_ratio_is_the_median_over_the_turns_with_its_quartiles():
    assert ratio([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]) == Ratio(3, 2, 4)
    assert ratio([2, 9], [1]) == Ratio(2, 2, 2)
    assert ratio([4, 10, 6], [4, 5, 2]) == Ratio(2, 1, 3)


# Feeds.


def test_feeds_are_random_from_zero_state_and_every_step_is_valid():
    ports = (
        Port("x", "input", ("batch", "time", 3), time_axis=1),
        Port("words", "input", ("batch", "time_words"), "int32", 5, time_axis=1),
        Port("h_in", "state", ("batch", 4)),
        Port("lengths", "lengths", ("batch",), "int32"),
    )
    feeds = plain_feeds(Signature("sequence", ports, (), ()), {"batch": 2, "time_words": 7}, 50)
    assert {name: array.shape for name, array in feeds.items()} == {
        "x": (2, 50, 3),
        "words": (2, 7),
        "h_in": (2, 4),
        "lengths": (2,),
    }
    assert {name: array.dtype.name for name, array in feeds.items()} == {port.name: port.dtype for port in ports}
    assert feeds["x"].all()
    assert set(feeds["words"].flat) <= set(range(5))
    assert not feeds["h_in"].any()
    assert list(feeds["lengths"]) == [50, 50]


@pytest.mark.parametrize("target", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("case", "options"),
    [("tokens", {}), ("encoder_decoder", {}), ("static_vector", {}), ("lengths", {"lengths": True})],
)
def test_what_is_timed_is_what_the_artifact_computes(exported, target, case, options):
    import signatures
    from signatures.runtimes import own

    path = exported(case, **options)[target].path
    runner = signatures.open(path)
    signature, info = runner.contract.signatures["sequence"], runner.contract.artifacts[target]
    feeds = plain_feeds(signature, {"batch": 1, **info.dims, **signature.dims}, 6)
    session = own(target).load().session(path, 1)
    outputs, call = session.run("sequence", feeds), session.bind("sequence", feeds)
    expected = runner.run("sequence", feeds)
    assert set(expected) <= set(outputs)
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, atol=1e-6)
    call()


# Artifacts.


def test_artifacts_are_compared_with_the_first_for_each_number_of_steps(exported):
    made = exported("one_layer")
    paths = [made["tflite"].path, made["onnx"].path, made["tflite"].path]
    timings = bench.bench(paths, [3, 20])
    calls = [("sequence", 3), ("sequence", 20), ("step", 1)]
    assert [(t.signature, t.total, t.artifact, t.batch) for t in timings] == [
        (*call, path, 1) for call in calls for path in paths
    ]
    for k, timing in enumerate(timings):
        assert 0 < timing.seconds < 10
        if k % 3 == 0:
            assert timing.ratio is None
        else:
            assert 0 < timing.ratio.low <= timing.ratio.median <= timing.ratio.high < math.inf


def test_16_96_and_960_steps_are_timed_unless_the_artifact_is_fixed(exported):
    free, fixed = exported("stacked")["onnx"].path, exported("stacked", time=5)["tflite"].path
    timings = bench.bench([free, fixed])
    assert [(t.artifact, t.signature, t.total) for t in timings] == [
        (fixed, "sequence", 5),
        *((free, "sequence", total) for total in TOTALS),
        (free, "step", 1),
        (fixed, "step", 1),
    ]
    assert [t.ratio is None for t in timings] == [True] * 5 + [False]
    assert {(t.signature, t.total) for t in bench.bench([fixed], [5])} == {("sequence", 5), ("step", 1)}


def test_a_batch_is_taken_from_the_artifacts_or_asked_for(exported):
    free, one = exported("one_layer")["onnx"].path, exported("one_layer")["tflite"].path
    assert {t.batch for t in bench.bench([free], [2], 3)} == {3}
    assert {t.batch for t in bench.bench([free, one], [2])} == {1}


REFUSED = {
    "another time": (["fixed"], [7], None, FeedError, "it runs 5 time step(s) a call; 7 was asked"),
    "another batch": (["one"], [2], 8, FeedError, "it runs batches of 1, 8 was asked"),
    "two batch sizes": (["one", "two"], [2], None, FeedError, "it runs batches of 2, "),
    "a missing file": (["one", "missing.onnx"], [], None, ArtifactError, "missing.onnx: no such file"),
    "a damaged file": (["one", "damaged.tflite"], [], None, ArtifactError, "damaged.tflite: "),
    "a file without a contract": (["plain.tflite"], [], None, ArtifactError, "carries no export-lstm contract"),
    "something else": (["notes.txt"], [], None, ArtifactError, "notes.txt: not an artifact"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_timed_is_refused_in_a_sentence(exported, tmp_path, kind):
    names, times, batch, error, said = REFUSED[kind]
    one = exported("one_layer")["tflite"].path
    (tmp_path / "notes.txt").write_text("not an artifact")
    (tmp_path / "damaged.tflite").write_bytes(b"\0\0\0\0TFL3" + b"\x07" * 4000)
    (tmp_path / "plain.tflite").write_bytes(one.read_bytes().replace(b"export-lstm.contract", b"export-lstm.contrast"))
    known = {
        "one": one,
        "two": exported("masked", batch=2)["tflite"].path,
        "fixed": exported("stacked", time=5)["tflite"].path,
    }
    with pytest.raises(error) as caught:
        bench.bench([known.get(name, tmp_path / name) for name in names], times, batch)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_model_that_only_runs_whole_is_timed_at_its_own_length(tmp_path):
    """A contract without timed inputs, or with all of them fixed by the model, has one call."""
    sequence = Signature("sequence", (Port("x", "input", ("batch", 6, 3)),), (), ())
    contract = Contract({}, (), {"sequence": sequence}, no_step="why", artifacts={"onnx": ArtifactInfo("m.onnx")})
    assert list(bench._calls(Path("m.onnx"), contract, [])) == [("sequence", 1)]


# The command.


def run(*arguments):
    with warnings.catch_warnings():  # the command line silences the libraries for the whole process
        return CliRunner().invoke(cli.main, ["bench", *map(str, arguments)])


def test_the_command_tells_every_timing_as_json(exported):
    made = {
        to: artifact for to, artifact in exported("one_layer").items() if "sequence" in artifact.contract.signatures
    }
    result = run(*(artifact.path for artifact in made.values()), "--time", "4,8", "--time", "2", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    calls = [("sequence", 2), ("sequence", 4), ("sequence", 8), ("step", 1)]
    assert [(f["signature"], f["time"]) for f in facts] == [call for call in calls for _ in made]
    assert [f["artifact"] for f in facts] == [str(artifact.path) for artifact in made.values()] * 4
    for fact in facts:
        assert fact["batch"] == 1
        assert fact["us_per_step"] == pytest.approx(fact["us_per_call"] / fact["time"], abs=1e-3)
        first = fact["artifact"] == str(made["tflite"].path)
        assert (fact["ratio"] is None) == (fact["ratio_quartiles"] is None) == first
        if not first:
            low, high = fact["ratio_quartiles"]
            assert 0 < low <= fact["ratio"] <= high


def test_the_command_prints_a_table(exported):
    made = exported("one_layer")
    result = run(made["onnx"].path, made["tflite"].path, "--time", "4")
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()) == "artifact signature batch time us a call us a step to the first"
    *rows, _, by_onnx, by_tflite = lines[1:]
    shown = [line.split()[:4] for line in rows if line.strip()]
    paths = str(made["onnx"].path), str(made["tflite"].path)
    assert shown == [[path, name, "1", total] for name, total in (("sequence", "4"), ("step", "1")) for path in paths]
    assert [len(line.split()) for line in lines[1:3]] == [6, 10]
    for line, path in ((by_onnx, paths[0]), (by_tflite, paths[1])):
        assert re.fullmatch(rf"{re.escape(path)}: a step takes 1/[\d.]+ of recomputing a window of 4\.", line)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "ARTIFACT"),
        (("m.onnx", "--time", "0"), "'0' is not a number from 1 to"),
        (("m.onnx", "--time", "4,x"), "'4,x' is not a number from 1 to"),
        (("m.onnx", "--time", ""), "'' is not a number from 1 to"),
        (("m.onnx", "--batch", "0"), "--batch"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(arguments, said):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_refusal_is_a_sentence_with_exit_code_1(tmp_path):
    result = run(tmp_path / "none.onnx")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none.onnx: no such file" in result.stderr
