"""From a survey to the contract: which ports, carries and signatures there are, and what they are called."""

from dataclasses import replace

import pytest

from exporter.memory.recurrence import Recurrence
from exporter.model.boundary import contract
from exporter.model.survey import CallFacts, Survey
from signatures.contract import Proven
from signatures.errors import UnsupportedModel
from signatures.ports import Carry, Port

X = Port("x", "input", ("batch", "time", 3), time_axis=1)
Y = Port("y", "output", ("batch", "time", 2), time_axis=1)
LSTM = CallFacts("lstm", Recurrence("lstm", "lstm", {"h": (4,), "c": (4,)}), "time", (4,), True, {})
PLAIN = Survey((X,), {}, True, (LSTM,), (Y,), ("y",), {"time": (5, 7)}, None, True)


def made(survey, **options):
    return contract(survey, {"name": "m", "sha256": "0"}, {"keras": "3"}, **options)


def rows(ports):
    return [(port.name, port.role, port.shape) for port in ports]


def test_a_layer_with_its_own_state_takes_and_gives_it():
    found = made(PLAIN).signatures["sequence"]
    assert rows(found.inputs) == [
        ("x", "input", ("batch", "time", 3)),
        ("lstm_h_in", "state", ("batch", 4)),
        ("lstm_c_in", "state", ("batch", 4)),
    ]
    assert rows(found.outputs) == [
        ("y", "output", ("batch", "time", 2)),
        ("lstm_sequences", "sequences", ("batch", "time", 4)),
        ("lstm_h", "state", ("batch", 4)),
        ("lstm_c", "state", ("batch", 4)),
    ]
    assert set(found.carries) == {Carry("lstm_h", "lstm_h_in"), Carry("lstm_c", "lstm_c_in")}
    assert not found.dims


def test_step_is_the_same_call_of_one_time_step():
    found = made(PLAIN)
    assert list(found.signatures) == ["sequence", "step"]
    sequence, step = found.signatures.values()
    assert step == replace(sequence, name="step", dims={"time": 1})


def test_a_step_takes_one_step_of_every_time_axis():
    other = Port("other", "input", ("batch", "time_other", 3), time_axis=1)
    survey = replace(PLAIN, inputs=(X, other), tried={"time": (5, 7), "time_other": (16, 24)})
    assert made(survey).signatures["step"].dims == {"time": 1, "time_other": 1}


def test_the_contract_tells_what_it_was_made_of():
    found = made(replace(PLAIN, order=("y", "lstm_h")))
    assert found.model == {"name": "m", "sha256": "0"}
    assert found.provenance == {"keras": "3"}
    assert found.outputs == ("y", "lstm_h")
    assert found.no_step is None
    assert found.proven == Proven()
    assert made(replace(PLAIN, proven=2000)).proven == Proven(2000)
    assert dict(found.example) == {"time": 5}
    assert not found.artifacts


def test_states_that_are_inputs_of_the_model_are_the_ports_and_are_carried():
    given = replace(LSTM, own=False, given={"h": "h0", "c": "c0"})
    states = Port("c0", "input", ("batch", 4)), Port("h0", "input", ("batch", 4))
    found = made(replace(PLAIN, inputs=(X, *states), calls=(given,))).signatures["sequence"]
    assert rows(found.inputs) == [
        ("x", "input", ("batch", "time", 3)),
        ("c0", "state", ("batch", 4)),
        ("h0", "state", ("batch", 4)),
    ]
    assert set(found.carries) == {Carry("lstm_h", "h0"), Carry("lstm_c", "c0")}


def test_a_state_that_the_model_makes_is_given_but_not_taken():
    decoder = replace(LSTM, name="decoder", time="time_target", own=False)
    target = Port("target", "input", ("batch", "time_target", 2), time_axis=1)
    survey = replace(PLAIN, inputs=(X, target), calls=(LSTM, decoder), no_step="Because.", one_clock=False)
    found = made(survey)
    assert list(found.signatures) == ["sequence"]
    assert found.no_step == "Because."
    signature = found.signatures["sequence"]
    assert {port.name for port in signature.inputs} == {"x", "target", "lstm_h_in", "lstm_c_in"}
    gives = {port.name: port.shape for port in signature.outputs}
    assert gives["decoder_sequences"] == ("batch", "time_target", 4)
    assert {"decoder_h", "decoder_c"} <= set(gives)
    assert {carry.output for carry in signature.carries} == {"lstm_h", "lstm_c"}


def test_two_calls_of_one_layer_have_ports_each():
    second = replace(LSTM, name="lstm_1")
    found = made(replace(PLAIN, calls=(LSTM, second))).signatures["step"]
    assert [carry.input for carry in found.carries] == ["lstm_h_in", "lstm_c_in", "lstm_1_h_in", "lstm_1_c_in"]
    names = [port.name for port in (*found.inputs, *found.outputs)]
    assert len(set(names)) == len(names) == 1 + 4 + 1 + 6


def test_each_state_of_a_layer_has_its_own_ports_by_name_and_shape():
    frames = Recurrence("film", "conv_lstm", {"h": (5, 6, 2), "c": (5, 6, 2)})
    own = Recurrence("own", "cell", {"state_0": (3,), "state_1": (2, 2)}, None)
    calls = CallFacts("film", frames, "time", (5, 6, 2), True, {}), CallFacts("own", own, "time", (7,), True, {})
    found = made(replace(PLAIN, calls=calls)).signatures["sequence"]
    assert rows(found.inputs)[1:] == [
        ("film_h_in", "state", ("batch", 5, 6, 2)),
        ("film_c_in", "state", ("batch", 5, 6, 2)),
        ("own_state_0_in", "state", ("batch", 3)),
        ("own_state_1_in", "state", ("batch", 2, 2)),
    ]
    assert rows(found.outputs)[1:] == [
        ("film_sequences", "sequences", ("batch", "time", 5, 6, 2)),
        ("film_h", "state", ("batch", 5, 6, 2)),
        ("film_c", "state", ("batch", 5, 6, 2)),
        ("own_sequences", "sequences", ("batch", "time", 7)),
        ("own_state_0", "state", ("batch", 3)),
        ("own_state_1", "state", ("batch", 2, 2)),
    ]
    assert set(found.carries) == {
        Carry(name, f"{name}_in") for name in ("film_h", "film_c", "own_state_0", "own_state_1")
    }


def test_a_layer_that_runs_backwards_takes_and_gives_its_state_but_carries_none():
    backward = replace(LSTM, recurrence=replace(LSTM.recurrence, reverse=True))
    found = made(replace(PLAIN, calls=(backward,), no_step="Because.")).signatures["sequence"]
    assert [port.name for port in found.inputs] == ["x", "lstm_h_in", "lstm_c_in"]
    assert [port.name for port in found.outputs] == ["y", "lstm_sequences", "lstm_h", "lstm_c"]
    assert not found.carries


@pytest.mark.parametrize("asked", [("sequence",), ("step",), ("step", "sequence")])
def test_only_the_signatures_that_were_asked_for_are_made(asked):
    assert set(made(PLAIN, signatures=asked).signatures) == set(asked)


def test_asking_for_a_step_that_cannot_be_had_is_refused_with_the_reason():
    survey = replace(PLAIN, no_step="Layer 'pool' doesn't treat each time step alone.")
    with pytest.raises(UnsupportedModel, match="'step' can't be had: Layer 'pool' .*\n.*--signatures sequence"):
        made(survey, signatures=("sequence", "step"))
    assert list(made(survey, signatures=("sequence",)).signatures) == ["sequence"]


def test_lengths_are_one_more_input_of_every_signature():
    for signature in made(PLAIN, lengths=True).signatures.values():
        [port] = [port for port in signature.inputs if port.role == "lengths"]
        assert (port.name, port.shape, port.dtype) == ("lengths", ("batch",), "int32")
        assert "lengths" not in {carry.input for carry in signature.carries}


def test_lengths_need_one_clock():
    with pytest.raises(UnsupportedModel, match="lengths need one time axis"):
        made(replace(PLAIN, one_clock=False), lengths=True)
