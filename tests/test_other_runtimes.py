"""ONNX artifacts in OpenVINO and OpenCV: the golden numbers, or a refusal that is listed here, but no other numbers."""

import re
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import openvino
import pytest
from keras import layers

import signatures
from exporter import export
from signatures import Case, Runner
from signatures.errors import ArtifactError

CASES = sorted(path.parent.name for path in (Path(__file__).parent.parent / "golden").glob("*/recipe.json"))


def in_openvino(path):
    """Return what runs an artifact's graph; in float32, which isn't its choice where a CPU has bfloat16."""
    core = openvino.Core()
    model = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    taken = {name for port in model.inputs for name in port.get_names()}

    def call(signature, feeds):
        results = model({name: value for name, value in feeds.items() if name in taken})
        return {name: np.array(value) for port, value in results.items() for name in port.get_names()}

    return call


def in_opencv(path, engine=cv2.dnn.ENGINE_NEW):
    graph = onnx.load(str(path)).graph
    names = [value.name for value in graph.output]
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        net = cv2.dnn.readNetFromONNX(str(path), engine)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if net.empty():
        raise cv2.error("an op isn't known: the network is empty")

    def call(signature, feeds):
        for value in graph.input:
            net.setInput(feeds[value.name], value.name)
        return dict(zip(names, map(np.array, net.forward(names)), strict=True))

    return call


OPEN = {"openvino": in_openvino, "opencv": in_opencv}
REFUSED = (RuntimeError, cv2.error, ArtifactError)

LOOP = r"Loop-\d+"  # OpenVINO takes no loop whose body reads what is outside it
NO_LOOP = "shareBuffer"
UNKNOWN = "the network is empty"  # OpenCV has no GRU, no RNN, no ReverseSequence, no hard_sigmoid or elu in an LSTM
CANT = {
    "openvino": {
        "activations": "Unknown activation function|Unsupported activation function",
        "cells": LOOP,
        "convolutional": LOOP,
        "elman": "Unknown activation function: softsign",
        "other_activations": LOOP,
        "own_cell": LOOP,
        "wide": LOOP,
    },
    "opencv": {
        "activations": UNKNOWN,
        "backwards": UNKNOWN,
        "bidirectional": UNKNOWN,
        "cells": NO_LOOP,
        "convolutional": NO_LOOP,
        "elman": UNKNOWN,
        "gated": UNKNOWN,
        "narrow": UNKNOWN,
        "other_activations": NO_LOOP,
        "own_cell": NO_LOOP,
        "repeated": UNKNOWN,
        "wide": NO_LOOP,
    },
}
"""Runtime -> the golden cases that it refuses -> its words."""

WRONG = {("narrow", "openvino"): "special"}
"""Golden case, runtime -> the one run of it that goes wrong there: OpenVINO's cast of 1e-30 to float16 isn't 0."""


def elsewhere(artifact, runtime):
    """Return an artifact opened in another runtime than its own."""
    return Runner(artifact.contract, "onnx", OPEN[runtime](artifact.path))


def given(contract, rows, total, seed=0):
    """Return feeds for a model of one input x: holes, padding, one row without a valid step, and random states."""
    rng = np.random.default_rng(seed)
    signature = contract.signatures["sequence"]
    dims = {"batch": rows, "time": total}
    feeds = {p.name: rng.standard_normal([dims.get(d, d) for d in p.shape]).astype(p.dtype) for p in signature.inputs}
    feeds["x"][rng.random((rows, total)) < 0.4] = 0
    feeds["x"][0, total // 2 :] = 0
    feeds["x"][-1] = 0
    return feeds


def close(got, expected):
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].shape == value.shape
        np.testing.assert_allclose(got[name], value, atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("runtime", OPEN)
@pytest.mark.parametrize("name", CASES)
def test_golden(name, runtime, exported, golden_folder):
    """Whole, step by step, in chunks and again, as in ONNX Runtime."""
    case = Case.load(golden_folder / name)
    artifact = exported(name, lengths=name == "lengths")["onnx"]
    try:
        report = signatures.check(elsewhere(artifact, runtime), case)
    except REFUSED as refused:  # OpenCV loads one or the other of them now and then: then its numbers must be right
        assert re.search(CANT[runtime][name], str(refused))  # noqa: PT017
        return
    wrong = {WRONG[name, runtime]} if (name, runtime) in WRONG else set()
    assert {diff.run for diff in report.failures} == wrong, report.summary()
    assert {diff.check for diff in report.diffs} >= {"sequence", "repeat"}


@pytest.mark.parametrize("runtime", OPEN)
def test_a_fixed_batch(runtime, exported, golden_folder):
    report = signatures.check(
        elsewhere(exported("masked", batch=2)["onnx"], runtime), Case.load(golden_folder / "masked")
    )
    assert report.ok, report.summary()


@pytest.mark.parametrize("runtime", OPEN)
@pytest.mark.parametrize("batch", ["any", 3])
def test_a_fixed_time(runtime, batch, golden_folder, tmp_path):
    """Where OpenVINO heeds sequence_lens: both must agree."""
    model = golden_folder / "encoder_decoder" / "model.keras"
    [artifact] = export(model, "onnx", tmp_path / "fixed.onnx", batch=batch, time=9, check=False)
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal((3, 9, size)).astype(np.float32) for n, size in (("source", 3), ("target", 2))}
    feeds["source"][0, 4:] = feeds["source"][1, ::2] = feeds["source"][2] = 0
    for name, zeros in artifact.contract.signatures["sequence"].initial_state(3).items():
        feeds[name] = rng.standard_normal(zeros.shape).astype(np.float32)
    close(elsewhere(artifact, runtime).run("sequence", feeds), signatures.open(artifact.path).run("sequence", feeds))


@pytest.mark.parametrize("runtime", ["onnxruntime", *OPEN])
def test_steps_beyond_a_length_are_never_read(runtime, exported):
    """NaN and infinity there show nowhere, and c stays bit for bit however many they are."""
    artifact = exported("lengths", lengths=True, batch="any")["onnx"]
    runner = signatures.open(artifact.path) if runtime == "onnxruntime" else elsewhere(artifact, runtime)
    rng = np.random.default_rng(3)
    signature = artifact.contract.signatures["sequence"]
    lengths, rows, total = np.array([1003, 5, 1, 0], np.int32), 4, 1003
    x = rng.standard_normal((rows, total, 4)).astype(np.float32)
    x[1, 5:], x[2, 1:], x[3, ::2] = np.nan, np.inf, -np.inf
    state = {n: rng.standard_normal(v.shape).astype(np.float32) for n, v in signature.initial_state(rows).items()}
    whole = runner.run("sequence", {"x": x, "lengths": lengths, **state})
    for row, length in enumerate(lengths):
        shown = max(length, 1)
        cut = {name: value[row : row + 1] for name, value in {"lengths": lengths, **state}.items()}
        alone = runner.run("sequence", {"x": np.nan_to_num(x[row : row + 1, :shown]), **cut})
        for carry in signature.carries:
            expected = alone[carry.output][0] if length else state[carry.input][row]
            np.testing.assert_allclose(whole[carry.output][row], expected, atol=1e-6)
            if not length:
                np.testing.assert_array_equal(whole[carry.output][row], expected)
        np.testing.assert_allclose(whole["low_sequences"][row, :length], alone["low_sequences"][0, :length], atol=1e-6)


def masked(layer):
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, layer(layers.Masking(name="masking")(x)))


def unmasked(layer):
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, layer(x))


ALL = {"return_sequences": True, "name": "layer"}
# name: (model, who refuses it)
MODELS = {
    "lstm relu": (lambda: masked(layers.LSTM(4, activation="relu", **ALL)), {"opencv"}),
    "lstm sigmoid": (lambda: masked(layers.LSTM(4, activation="sigmoid", **ALL)), set()),
    "lstm back zero": (
        lambda: masked(layers.LSTM(4, go_backwards=True, zero_output_for_mask=True, **ALL)),
        {"opencv"},
    ),
    "lstm both": (lambda: masked(layers.Bidirectional(layers.LSTM(4, return_sequences=True))), {"opencv"}),
    "lstm both, no mask": (lambda: unmasked(layers.Bidirectional(layers.LSTM(4, return_sequences=True))), {"opencv"}),
    "gru before": (lambda: masked(layers.GRU(4, reset_after=False, **ALL)), {"opencv"}),
    "gru zero": (lambda: masked(layers.GRU(4, zero_output_for_mask=True, **ALL)), {"opencv"}),
    "gru both": (lambda: masked(layers.Bidirectional(layers.GRU(4))), {"opencv"}),
    "rnn": (lambda: masked(layers.SimpleRNN(4, **ALL)), {"opencv"}),
    "rnn relu back": (lambda: masked(layers.SimpleRNN(4, activation="relu", go_backwards=True, **ALL)), {"opencv"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_no_golden_case_has(name, tmp_path):
    """ONNX Runtime's numbers, which were proven before."""
    make, refusing = MODELS[name]
    model, rng = make(), np.random.default_rng(0)
    model.set_weights([0.6 * rng.standard_normal(w.shape).astype(w.dtype) for w in model.get_weights()])
    [artifact] = export(model, "onnx", tmp_path / "model.onnx")
    feeds = given(artifact.contract, 4, 13)
    expected = signatures.open(artifact.path).run("sequence", feeds)
    for runtime in OPEN:
        if runtime in refusing:
            with pytest.raises(REFUSED, match=UNKNOWN):
                elsewhere(artifact, runtime)
        else:
            close(elsewhere(artifact, runtime).run("sequence", feeds), expected)


def test_a_gate_that_cant_be_held_is_told(tmp_path):
    """tanh is never 0 for a large input; OpenCV doesn't heed sequence_lens. ONNX Runtime does, and OpenVINO here."""
    model, rng = masked(layers.LSTM(4, recurrent_activation="tanh", **ALL)), np.random.default_rng(0)
    model.set_weights([0.6 * rng.standard_normal(w.shape).astype(w.dtype) for w in model.get_weights()])
    [artifact] = export(model, "onnx", tmp_path / "model.onnx")
    assert "OpenCV doesn't" in artifact.contract.artifacts["onnx"].lowerings["layer"]
    feeds = given(artifact.contract, 4, 13)
    expected = signatures.open(artifact.path).run("sequence", feeds)
    close(elsewhere(artifact, "openvino").run("sequence", feeds), expected)
    got = elsewhere(artifact, "opencv").run("sequence", feeds)
    np.testing.assert_allclose(got["layer_h"], expected["layer_h"], atol=1e-5)
    assert np.abs(got["layer_c"] - expected["layer_c"]).max() > 0.1


CLASSIC = {"one_layer": True, "states_given": True, "nested_twice": False, "masked": None}
"""Case -> what OpenCV's classic engine makes of it with a fixed batch: right; wrong; refused.

It must be asked for. It puts a layer's weights into another order in place: where two calls share them, both are wrong.
"""


@pytest.mark.parametrize("name", CLASSIC)
def test_opencvs_classic_engine(name, golden_folder, tmp_path):
    [artifact] = export(golden_folder / name / "model.keras", "onnx", tmp_path / "one.onnx", batch=1, check=False)
    if CLASSIC[name] is None:
        with pytest.raises(cv2.error):
            in_opencv(artifact.path, cv2.dnn.ENGINE_CLASSIC)
        return
    call = in_opencv(artifact.path, cv2.dnn.ENGINE_CLASSIC)
    fits = []
    for run in Case.load(golden_folder / name).runs:
        for row in range(len(next(iter(run.feeds.values())))):
            got = call("sequence", {port: value[row : row + 1] for port, value in run.feeds.items()})
            for port, value in run.expect.items():  # it leaves one axis more on a state
                fits.append(np.allclose(got[port].reshape(value[row].shape), value[row], atol=1e-5, rtol=1e-5))
    assert fits
    assert all(fits) == CLASSIC[name]
