"""Every golden case in every runtime: the stored numbers, port by port, whole, stepped and in chunks."""

import numpy as np
import pytest

import signatures
from exporter import export
from signatures import Case
from signatures.errors import UnsupportedModel

CASES = (
    "one_layer",
    "stacked",
    "classifier",
    "masked",
    "tokens",
    "states_given",
    "encoder_decoder",
    "static_vector",
    "nested_twice",
    "lengths",
    "long",
    "saturated",
    "gated",
    "elman",
    "activations",
    "other_activations",
    "backwards",
    "zero_masked",
    "bidirectional",
    "cells",
    "convolutional",
    "repeated",
    "narrow",
    "wide",
    "own_cell",
)
TARGETS = ("tflite", "onnx", "savedmodel", "c")
SEQUENCES = TARGETS[:-1]
"""Targets with a signature `sequence`."""
CANT_BE_STEPPED = {"encoder_decoder", "backwards", "bidirectional"}


def opened(artifact):
    """Open an artifact of ours; of C, by our leave."""
    return signatures.open(artifact.path, trust=artifact.target == "c")


def test_every_golden_case_is_tested(golden_folder):
    assert sorted(CASES) == sorted(path.parent.name for path in golden_folder.glob("*/recipe.json"))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_golden(name, target, exported, golden_folder, tmp_path):
    case = Case.load(golden_folder / name)
    artifact = exported(name, lengths=name == "lengths").get(target)
    if artifact is None and name in CANT_BE_STEPPED:
        with pytest.raises(UnsupportedModel, match=f"target '{target}' has the signature 'step' alone"):
            export(golden_folder / name / "model.keras", target, f"{tmp_path}/")
        return
    if artifact is None:
        type_ = {"narrow": "float16", "wide": "float64"}[name]
        with pytest.raises(UnsupportedModel, match=f"computes in {type_}, which the {target} runtime doesn't"):
            export(golden_folder / name / "model.keras", target, f"{tmp_path}/")
        return
    report = signatures.check(opened(artifact), case)
    assert report.ok, report.summary()
    compared = {(diff.check, diff.run) for diff in report.diffs}
    ways = set() if name in CANT_BE_STEPPED else {"steps", "chunks"}
    ways |= {"sequence", "repeat"} if target in SEQUENCES else set()
    ways -= {"chunks"} if (name, target) == ("long", "c") else set()  # which are steps, too, and many
    assert compared >= {(way, run.name) for way in ways for run in case.runs}
    ports = {port.name for port in next(iter(artifact.contract.signatures.values())).outputs}
    assert {diff.port for diff in report.diffs} == ports


def test_the_case_of_a_cell_of_ones_own_is_its_equations(golden_folder):
    """Its second witness calls the cell itself, so here is a third one."""
    import keras

    case = Case.load(golden_folder / "own_cell")
    [kernel] = keras.saving.load_model(golden_folder / "own_cell" / "model.keras").get_weights()
    for run in case.runs:
        average, count = run.feeds["leaky_state_0_in"].astype(float), run.feeds["leaky_state_1_in"].astype(float)
        sequences = []
        for x in np.moveaxis(run.feeds["x"], 1, 0):
            average = 0.9 * average + 0.1 * x @ kernel
            sequences.append(np.tanh(average) / (1 + count))
            count = count + 1
        found = {"sequences": np.stack(sequences, axis=1), "state_0": average, "state_1": count}
        for port, value in found.items():
            np.testing.assert_allclose(run.expect[f"leaky_{port}"], value, atol=1e-5)


@pytest.mark.parametrize("target", SEQUENCES)
def test_any_batch_and_fixed_batch_give_the_same(target, exported, golden_folder):
    case = Case.load(golden_folder / "masked")
    for batch in ("any", 2):
        report = signatures.check(signatures.open(exported("masked", batch=batch)[target].path), case)
        assert report.ok, report.summary()


@pytest.mark.parametrize("target", TARGETS)
def test_a_case_of_another_model_fails(target, exported, golden_folder):
    """The harness can fail: the same ports with other weights."""
    report = signatures.check(opened(exported("one_layer")[target]), Case.load(golden_folder / "saturated"))
    assert not report.ok
    assert "differ" in report.summary()


@pytest.mark.parametrize("target", SEQUENCES)
def test_a_sample_stops_at_its_length(target, exported, golden_folder):
    """The final state with lengths is the one of the sample cut there: a witness that needs no mask at all."""
    runner = signatures.open(exported("lengths", lengths=True, batch="any")[target].path)
    rng = np.random.default_rng(5)
    signature = runner.contract.signatures["sequence"]
    x = rng.standard_normal((4, 9, 4)).astype(np.float32)
    state = {name: rng.standard_normal(v.shape).astype(np.float32) for name, v in signature.initial_state(4).items()}
    lengths = np.array([9, 5, 1, 0], np.int32)
    whole = runner.run("sequence", {"x": x, "lengths": lengths, **state})
    for row, length in enumerate(lengths):
        if length == 0:
            for carry in signature.carries:
                np.testing.assert_array_equal(whole[carry.output][row], state[carry.input][row])
            continue
        cut = {"x": x[row : row + 1, :length], "lengths": lengths[row : row + 1]}
        alone = runner.run("sequence", {**cut, **{name: value[row : row + 1] for name, value in state.items()}})
        for carry in signature.carries:
            np.testing.assert_allclose(whole[carry.output][row], alone[carry.output][0], atol=1e-6)
        np.testing.assert_allclose(whole["low_sequences"][row, :length], alone["low_sequences"][0], atol=1e-6)


def test_savedmodel_serves_without_state(exported, golden_folder):
    """`serving_default` takes the user's inputs only and gives what Keras gives."""
    import keras
    import tensorflow as tf

    loaded = tf.saved_model.load(str(exported("stacked")["savedmodel"].path))
    serve = loaded.signatures["serving_default"]
    x = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)
    assert set(serve.structured_input_signature[1]) == {"x"}
    model = keras.saving.load_model(golden_folder / "stacked" / "model.keras")
    np.testing.assert_allclose(serve(x=tf.constant(x))["y"], model(x), atol=1e-6)


def test_xla_where_it_is_asked_for(tmp_path, golden_folder):
    [artifact] = export(golden_folder / "masked" / "model.keras", "savedmodel", f"{tmp_path}/", lowering="xla", time=7)
    assert artifact.parity.ok
    assert "XLA" in artifact.contract.artifacts["savedmodel"].lowerings["low"]
    assert artifact.ops["BlockLSTMV2"] == 2  # of the step's two layers; sequences have none


@pytest.mark.parametrize("target", SEQUENCES)
def test_fixed_time(target, tmp_path, golden_folder):
    """A fixed number of time steps binds `sequence` alone: `step` and streams still run."""
    [artifact] = export(golden_folder / "one_layer" / "model.keras", target, f"{tmp_path}/", time=6)
    runner = signatures.open(artifact.path)
    assert {diff.check for diff in artifact.parity.diffs} >= {"sequence", "steps"}
    x = np.zeros((1, 5, 3), np.float32)
    with pytest.raises(signatures.errors.FeedError, match=r"\[1, 5, 3\].*6"):
        runner.run("sequence", {"x": x, **runner.contract.signatures["sequence"].initial_state(1)})
    assert runner.stream().push(x)["lstm_sequences"].shape == (1, 5, 5)
