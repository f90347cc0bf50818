"""The contract survives JSON, refuses what is not one, and makes names that every target takes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signatures import Carry, Contract, Port, Signature
from signatures.contract import ArtifactInfo, identifier, sequences_output, state_input, state_output, unique
from signatures.errors import ArtifactError
from signatures.schemes import Quantized

SEQUENCE = Signature(
    "sequence",
    (
        Port("x", "input", ("batch", "time", 3), time_axis=1),
        Port("word", "input", ("batch", "time"), "int32", below=50, time_axis=1),
        Port("h_in", "state", ("batch", 4)),
    ),
    (Port("h", "state", ("batch", 4)),),
    (Carry("h", "h_in"),),
)
STEP = Signature("step", SEQUENCE.inputs, SEQUENCE.outputs, SEQUENCE.carries, {"time": 1})
FULL = Contract(
    model={"name": "modèle", "sha256": "ab" * 32},
    outputs=("h",),
    signatures={"sequence": SEQUENCE, "step": STEP},
    example={"time": 7},
    artifacts={
        "tflite": ArtifactInfo("m.tflite", {"batch": 1}, {"memory": "two nested loops"}, "cd" * 32),
        "onnx": ArtifactInfo("m.onnx"),
    },
    provenance={"keras": "3.15.1"},
)
NO_STEP = Contract({"name": "m", "sha256": None}, ("h",), {"sequence": SEQUENCE}, no_step="layer 'flip' looks ahead.")
QUANTIZED = replace(FULL, quantized=Quantized("int16x8", 30.0, "recordings.npz (8 recordings)", True, "float"))

NAMES = st.text(max_size=12)


def test_a_carry_between_ports_that_do_not_exist_is_refused():
    lost = replace(SEQUENCE, carries=(Carry("h", "nope"),))
    with pytest.raises(ArtifactError, match="'sequence' carries a port that it doesn't have"):
        Contract.from_json(replace(NO_STEP, signatures={"sequence": lost}).to_json())


OVER_TIME = Port("y", "sequences", ("batch", "time", 4), time_axis=1)


@pytest.mark.parametrize("delay", [{"y": -1}, {"h": 1}, {"nope": 1}, {"y": True}, {"y": 1.5}, {"y": 10**12}])
def test_a_delay_that_no_output_can_have_is_refused(delay):
    late = replace(SEQUENCE, outputs=(*SEQUENCE.outputs, OVER_TIME), delay=delay)
    with pytest.raises(ArtifactError, match="not an export-lstm contract"):
        Contract.from_json(replace(NO_STEP, signatures={"sequence": late}).to_json())


@pytest.mark.parametrize("shape", [(), (4,), ("time", 4), (1, "batch")])
def test_a_port_without_its_batch_first_is_refused(shape):
    alone = replace(SEQUENCE, inputs=(*SEQUENCE.inputs, Port("alone", "input", shape)))
    with pytest.raises(ArtifactError, match="first axis of port 'alone' in the contract isn't the batch"):
        Contract.from_json(replace(NO_STEP, signatures={"sequence": alone}).to_json())


@pytest.mark.parametrize(("every", "step"), [(2, 1), (3, 3), (10_001, 10_001), (0, 0)])
def test_signatures_take_multiples_of_the_same_number(every, step):
    made = {"sequence": replace(SEQUENCE, every=every), "step": replace(STEP, every=step)}
    with pytest.raises(ArtifactError, match=r"takes no multiple of|not an export-lstm contract"):
        Contract.from_json(replace(FULL, signatures=made).to_json())
    assert Contract.from_json(FULL.to_json()) == FULL


def test_a_delay_and_how_many_steps_a_call_takes_survive():
    late = replace(SEQUENCE, outputs=(*SEQUENCE.outputs, OVER_TIME), delay={"y": 3}, every=2)
    read = Contract.from_json(replace(NO_STEP, signatures={"sequence": late}).to_json())
    assert read.signatures["sequence"] == late


@pytest.mark.parametrize(
    "changes",
    [
        {"initial": 10**400},
        {"initial": float("nan")},
        {"initial": 1e300, "scale": 1e-300},
        {"scale": 0.0},
        {"initial": 1e39},
        {"dtype": "int8", "zero_point": 300, "scale": 0.1},
        {"dtype": "int8", "initial": 1e30},
    ],
)
def test_a_state_that_cannot_start_so_is_refused(changes):
    data = json.loads(NO_STEP.to_json())
    data["signatures"]["sequence"]["inputs"][2].update(changes)
    with pytest.raises(ArtifactError, match="not an export-lstm contract"):
        Contract.from_json(json.dumps(data))


def test_a_stream_without_an_input_that_counts_time_steps_is_refused():
    untimed = replace(SEQUENCE, inputs=tuple(replace(port, time_axis=None) for port in SEQUENCE.inputs))
    assert Contract.from_json(replace(NO_STEP, signatures={"sequence": untimed}).to_json())
    with pytest.raises(ArtifactError, match="can be streamed, but none of its inputs counts time steps"):
        Contract.from_json(replace(NO_STEP, no_step=None, signatures={"sequence": untimed}).to_json())


@pytest.mark.parametrize("contract", [FULL, NO_STEP, QUANTIZED], ids=["full", "no_step", "quantized"])
@pytest.mark.parametrize("encode", [str, str.encode], ids=["text", "bytes"])
def test_json_round_trip(contract, encode):
    assert Contract.from_json(encode(contract.to_json())) == contract


def test_a_published_schema_describes_contracts_to_any_language():
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/contract.schema.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    for contract in (FULL, NO_STEP, QUANTIZED):
        data = json.loads(contract.to_json())
        check.validate(data)
        for part in (data, data["proven"], data["signatures"]["sequence"], data["signatures"]["sequence"]["inputs"][0]):
            assert check.is_valid(data)
            part["unknown"] = 1
            assert not check.is_valid(data)
            del part["unknown"]
    for name in Contract.__dataclass_fields__:
        assert name == "_" or name in schema["properties"]


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "int4"},
        {"gate": float("nan")},
        {"gate": "30"},
        {"precise": 1},
        {"io": "text"},
        {"calibration": 3},
        {"x": 1},
    ],
)
def test_a_contract_quantized_in_no_way_there_is_is_refused(changes):
    data = json.loads(QUANTIZED.to_json())
    assert Contract.from_json(json.dumps(data)) == QUANTIZED
    with pytest.raises(ArtifactError, match="not an export-lstm contract"):
        Contract.from_json(json.dumps({**data, "quantized": {**data["quantized"], **changes}}))
    del data["quantized"]  # of a version that didn't quantize
    assert Contract.from_json(json.dumps(data)) == FULL


@pytest.mark.parametrize("noise", [-1, "loud", None, float("nan")])
def test_noise_in_a_contract_is_a_number_from_0_up(noise):
    text = json.dumps({**json.loads(FULL.to_json()), "proven": {"noise": {"y": noise}}})
    with pytest.raises(ArtifactError, match="not an export-lstm contract"):
        Contract.from_json(text)


def test_json_is_for_other_languages_too():
    """Plain keys, lists and numbers; the text is indented and ends with a newline."""
    text = FULL.to_json()
    data = json.loads(text)
    assert text.endswith("}\n")
    assert '\n  "schema": 2' in text
    assert data["outputs"] == ["h"]
    assert data["signatures"]["step"]["dims"] == {"time": 1}
    assert data["signatures"]["sequence"]["carries"] == [{"output": "h", "input": "h_in"}]
    word = {"name": "word", "role": "input", "shape": ["batch", "time"], "dtype": "int32", "below": 50, "time_axis": 1}
    word |= {"initial": 0.0, "scale": None, "zero_point": None}
    assert data["signatures"]["sequence"]["inputs"][1] == word
    assert data["artifacts"]["tflite"]["dims"] == {"batch": 1}


def edited(**changes):
    return json.dumps({**json.loads(FULL.to_json()), **changes})


@pytest.mark.parametrize("schema", [3, 1, 0, "2", None])
def test_another_schema_is_refused_by_number(schema):
    with pytest.raises(ArtifactError, match=rf"has schema {schema!r}; this version of .* reads 2\. Export the Keras"):
        Contract.from_json(edited(schema=schema))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"contract"',
        "{}",
        '{"schema": 2}',
        b"\xff\xfe\x00",
        edited(outputs=None),
        edited(signatures=[]),
        edited(signatures={"sequence": {"name": "sequence"}}),
        edited(artifacts={"tflite": {"path": "m.tflite"}}),
        edited(colour="blue"),
    ],
)
def test_what_is_not_a_contract_is_refused_in_a_sentence(text):
    with pytest.raises(ArtifactError, match=r"^The text is not an export-lstm contract \(\w+: .+\)\.$"):
        Contract.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        edited(signatures={}),
        edited(artifacts={"tflite": {"file": "m.tflite", "dims": [1]}}),
        "[" * 100_000,
    ],
    ids=["no_signature", "dims_without_names", "deep"],
)
def test_what_looks_like_a_contract_but_cannot_be_used_is_refused(text):
    with pytest.raises(ArtifactError):
        Contract.from_json(text)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("lstm_1", "lstm_1"),
        ("outer/inner", "outer_inner"),
        ("input.layer-1", "input_layer_1"),
        ("1st", "x1st"),
        ("", "x"),
        ("_x", "x_x"),
        ("état", "x_tat"),
        ("x:0", "x_0"),
        ("٣", "x_"),
    ],
)
def test_identifier(name, clean):
    assert identifier(name) == clean


@given(NAMES)
def test_identifier_is_one_in_every_target(name):
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", identifier(name), re.ASCII)


@given(NAMES)
def test_identifier_leaves_its_own_result_alone(name):
    assert identifier(identifier(name)) == identifier(name)


@pytest.mark.parametrize(
    ("taken", "result"),
    [([], "h"), (["c"], "h"), (["h"], "h_1"), (["h", "h_1", "h_2"], "h_3"), (["h", "h_2"], "h_1"), (["h", "h"], "h_1")],
)
def test_unique_is_the_first_that_is_free(taken, result):
    assert unique("h", taken) == result
    assert unique("h", iter(taken)) == result


@given(st.lists(st.sampled_from(["a", "a_1", "a_2", "a_3", "a_1_1", "b"])), st.sampled_from(["a", "a_1", "b"]))
def test_unique_is_never_taken(taken, name):
    assert unique(name, taken) not in taken


def test_unique_tells_no_names_apart_by_case():
    """SavedModel's and TFLite's signatures don't."""
    assert unique("L", ["l"]) == "L_1"


def test_the_names_of_a_layers_ports():
    states = [make("memory", state) for make in (state_output, state_input) for state in "hc"]
    assert [*states, sequences_output("memory")] == [
        "memory_h",
        "memory_c",
        "memory_h_in",
        "memory_c_in",
        "memory_sequences",
    ]
