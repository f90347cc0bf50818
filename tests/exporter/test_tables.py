"""What people see: true, and as it is written, whatever names files hold."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import tables
from exporter.bench import Timing
from exporter.pipeline import Artifact
from signatures import Contract, Port, Signature
from signatures.contract import ArtifactInfo
from signatures.golden import Tolerance
from signatures.parity import ParityReport, PortDiff

TRICKY = "\x1b[2J[bold]\r\x07:bomb:\u202e"
SHOWN = r"\x1b[2J[bold]\r\x07:bomb:\u202e"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TRICKY, SHOWN),
        ("a\nb\tc\x7f\x9b", r"a\nb\tc\x7f\x9b"),
        ("Modèle 模型\u3000é", "Modèle 模型\u3000é"),
        ("\u2028\u200b\ud800", r"\u2028\u200b\ud800"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_out(text, told):
    assert tables.shown(text) == told


def test_a_text_of_several_lines_keeps_them():
    assert tables.shown("a\n  b\r\n", lines=True) == "a\n  b\\r\n"


def signature(*inputs, **dims):
    return Signature("sequence", inputs, (), (), dims)


def artifact(dims, *inputs, path="m.onnx", step=None):
    contract = Contract(
        {}, (), {"sequence": signature(*inputs)}, no_step=step, artifacts={"onnx": ArtifactInfo(path, dims)}
    )
    return Artifact("onnx", Path(path), contract, Path("m.contract.json"), Counter(LSTM=1), 1234, "ab", None, {})


X = Port("x", "input", ("batch", "time", 3), time_axis=1)
WORDS = Port("words", "input", ("batch", "time_words", 3), time_axis=1)
FLAT = Port("flat", "input", ("batch", 12))


@pytest.mark.parametrize(
    ("dims", "inputs", "told"),
    [
        ({}, [X], "any"),
        ({"time": 16}, [X], "16"),
        ({}, [FLAT], "none"),
        ({"batch": 1}, [FLAT, X], "any"),
        ({"time_words": 7}, [X, WORDS], "any, 7"),
    ],
)
def test_the_time_steps_of_an_artifact_are_those_of_its_time_axes(capsys, dims, inputs, told):
    tables.print_artifacts([artifact(dims, *inputs)])
    header, row = capsys.readouterr().out.splitlines()[:2]
    place = header.index("time")
    assert row[place : header.index("ops")].strip() == told


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("any", "takes any number of time steps"),
        ({"time": 6}, "takes 6 time steps"),
        ({"time_a": 6, "time_b": 7}, "takes 6 (time_a) and 7 (time_b) time steps"),
        ({}, "has no time axis among its inputs"),
    ],
)
def test_the_time_steps_of_a_model(capsys, time, told):
    nothing = {"recurrent_layers": [], "memories": [], "as_keras_up_to": None, "proven": {}, "signatures": {}}
    facts = {"model": "m", "time": time, "can_be_stepped": True, **nothing}
    tables.print_facts(facts)
    assert capsys.readouterr().out.startswith(f"m: {told}\n")


def test_a_call_without_a_time_axis_is_not_divided_into_steps(capsys):
    timing = Timing(Path("m.onnx"), "sequence", 1, None, 12e-6, None)
    tables.print_timings([timing, replace(timing, total=4)])
    header, without, _, with_steps, *_ = capsys.readouterr().out.splitlines()
    place = header.index("batch")
    assert (without[place:].split(), with_steps[place:].split()) == (["1", "none", "12.0"], ["1", "4", "12.0", "3.00"])
    assert tables.timing_facts(timing)["us_per_step"] is None


def facts():
    port = {"name": TRICKY, "role": TRICKY, "shape": [TRICKY, 3], "dtype": TRICKY}
    sides = {"inputs": [port], "outputs": [port], "carries": {TRICKY: TRICKY}, "every": 2, "late": {TRICKY: 1.0}}
    layer = {"name": TRICKY, "kind": TRICKY, "states": {TRICKY: [3]}, "initial_state": TRICKY}
    memory = {**layer, "rows": [{"time_steps": 2.0, "delay": 1}]}
    common = {"proven": {}, "can_be_stepped": False, "no_step_because": TRICKY, "signatures": {TRICKY: sides}}
    model = {
        "model": TRICKY,
        "recurrent_layers": [layer],
        "memories": [memory],
        "as_keras_up_to": 64,
        "time": {TRICKY: 1, "time": 2},
        **common,
    }
    made = {"artifact": TRICKY, "target": TRICKY, "bytes": 1, "made_with": {TRICKY: TRICKY}}
    return model, {**made, "lowerings": {TRICKY: TRICKY}, "ops": {TRICKY: 1}, **common}


def report(ok):
    return ParityReport(TRICKY, TRICKY, Tolerance(), (PortDiff("sequence", TRICKY, TRICKY, ok=ok, note=TRICKY),))


@pytest.mark.parametrize(
    "show",
    [
        lambda: tables.print_facts(facts()[0]),
        lambda: tables.print_facts(facts()[1]),
        lambda: tables.print_report(report(True), Path(TRICKY)),
        lambda: tables.print_report(report(False), Path(TRICKY)),
        lambda: tables.print_artifacts([artifact({}, X, path=TRICKY, step=TRICKY)]),
    ],
)
def test_no_name_out_of_a_file_reaches_the_terminal_as_it_is(capsys, show):
    show()
    seen = capsys.readouterr().out
    assert SHOWN in seen
    assert not any(character != "\n" and not character.isprintable() for character in seen)
