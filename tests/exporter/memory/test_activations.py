"""Every activation in its three forms: what Keras gives is what NumPy, TensorFlow and ONNX Runtime give."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

from exporter.memory.activations import ACTIVATIONS, in_tensorflow, name_of

GRID = np.concatenate([np.linspace(-8, 8, 161), [-700, -88, -30, -12, 12, 30, 88, 700], [-0.5, 0.5, 6, -1, 1, 3, -3]])
KERAS_2 = "keras2_hard_sigmoid"
SHIPPED = sorted(
    name
    for name, function in vars(keras.activations).items()
    if callable(function) and not name.startswith("_") and name not in ("get", "serialize", "deserialize")
)
NATIVE = sorted(name for name, each in ACTIVATIONS.items() if each.onnx)


def keras_own(name, x):
    """Return what Keras gives; the hard_sigmoid of Keras 2 by its documentation."""
    if name == KERAS_2:
        return np.where(x < -2.5, 0.0, np.where(x > 2.5, 1.0, 0.2 * x + 0.5))
    return np.asarray(keras.activations.get(name)(tf.constant(x)))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SHIPPED
        if name not in ("glu", "threshold")  # one halves the last axis, the other takes an argument
    ],
)
def test_every_activation_that_keras_ships_is_there(name):
    assert name_of(keras.activations.get(name)) in ACTIVATIONS


def test_nothing_else_is_there():
    assert set(ACTIVATIONS) - {KERAS_2} <= set(SHIPPED)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_numpys_form_is_keras_in_float64(name):
    x = np.stack([GRID, GRID[::-1]])  # softmax has an axis to run along
    x = np.minimum(x, 88) if name == "exponential" else x
    expected = keras_own(name, x)
    assert expected.dtype == np.float64
    with np.errstate(over="ignore", divide="ignore"):  # log_softmax of -700 beside 700
        got = ACTIVATIONS[name].numpy(x)
    finite = np.isfinite(got) if name == "log_softmax" else np.ones_like(got, bool)
    assert finite.mean() > 0.4
    rtol = 1e-6 if name in ("gelu", "leaky_relu") else 1e-9  # Keras has their constants in float32
    np.testing.assert_allclose(got[finite], expected[finite], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_tensorflows_form_is_keras_in_float32(name):
    x = np.stack([GRID, GRID[::-1]]).astype(np.float32)
    got = in_tensorflow(name)(tf.constant(x))
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, keras_own(name, x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {KERAS_2}))
def test_a_function_of_keras_has_its_name(name):
    assert name_of(getattr(keras.activations, name)) == name
    assert name_of(keras.activations.get(name)) == name


def test_other_functions_have_no_name():
    def tanh(x):
        return x

    assert name_of(tanh) is None
    assert name_of(lambda x: x) is None
    assert name_of(keras.layers.ReLU()) is None
    assert name_of(keras.activations.threshold) is None
    assert name_of(keras.activations.glu) is None


def onnx_lstm(x, names, h, c):
    """Run an LSTM op of one unit whose four gates each see x alone; return h and c after one step, [N]."""
    functions = [ACTIVATIONS[name].onnx for name in names]
    attributes = {"hidden_size": 1, "activations": [function[0] for function in functions]}
    for key, k in (("activation_alpha", 1), ("activation_beta", 2)):
        if values := [function[k] for function in functions if function[k] is not None]:
            attributes[key] = values
    arrays = {
        "x": x.reshape(1, -1, 1),
        "w": np.ones((1, 4, 1)),
        "r": np.zeros((1, 4, 1)),
        "b": np.zeros((1, 8)),
        "h": np.full((1, x.size, 1), h),
        "c": np.full((1, x.size, 1), c),
    }
    node = helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "y_h", "y_c"], **attributes)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in arrays.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    graph = helper.make_graph([node], "lstm", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    _, y_h, y_c = session.run(None, {name: each.astype(np.float32) for name, each in arrays.items()})
    return y_h.ravel(), y_c.ravel()


@pytest.mark.parametrize("place", ["gates", "candidate"])
@pytest.mark.parametrize("name", NATIVE)
def test_onnx_runtime_runs_an_activation_as_keras_does(name, place):
    """One step from c = 0.75: c' = gate(x) (0.75 + act(x)), h' = gate(x) act(c')."""
    x = GRID[np.abs(GRID) <= (30 if name in ("linear", "relu", "leaky_relu", "elu", "softplus") else 700)]
    gate, act = (name, "tanh") if place == "gates" else ("sigmoid", name)
    c = keras_own(gate, x) * (0.75 + keras_own(act, x))
    h = keras_own(gate, x) * keras_own(act, c)
    got_h, got_c = onnx_lstm(x, (gate, act, act), 0.0, 0.75)
    np.testing.assert_allclose(got_c, c, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(got_h, h, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("pair", [("hard_sigmoid", "elu"), (KERAS_2, "leaky_relu"), ("linear", "hard_sigmoid")])
def test_the_numbers_of_two_activations_are_not_mixed_up(pair):
    gate, act = pair
    x = np.linspace(-3, 3, 25)
    c = keras_own(gate, x) * (0.75 + keras_own(act, x))
    got_h, got_c = onnx_lstm(x, (gate, act, act), 0.0, 0.75)
    np.testing.assert_allclose(got_c, c, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(got_h, keras_own(gate, x) * keras_own(act, c), rtol=2e-6, atol=2e-6)


def test_the_steep_hard_sigmoid_is_not_keras_3s():
    assert ACTIVATIONS[KERAS_2].numpy(np.array(1.0)) == pytest.approx(0.7)
    assert ACTIVATIONS["hard_sigmoid"].numpy(np.array(1.0)) == pytest.approx(2 / 3)
