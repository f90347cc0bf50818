"""The attributes and weights of ONNX's LSTM, GRU and RNN ops: ONNX Runtime runs them to what Keras gives."""

import keras
import numpy as np
import onnxruntime
import pytest
import tf2onnx
from keras import layers
from onnx import TensorProto, helper

from exporter import export
from exporter.memory.convert import convert
from exporter.targets.onnx.facts import ONNX_OPS, plan
from exporter.targets.onnx.write import OPSET, _attributes, _weights
from signatures import runtimes

B, T, F, U = 3, 5, 3, 4
GATES = ("sigmoid", "hard_sigmoid", "softsign")
ACTS = ("tanh", "relu", "linear", "elu", "softsign", "softplus", "leaky_relu", "hard_sigmoid", "sigmoid")


def in_onnx_runtime(recurrence, x, states):
    """Run one op of the recurrence's kind; return sequences [B, T, U] and the final states."""
    names = ["h", "c"][: len(states)]
    arrays = {"x": np.transpose(x, (1, 0, 2)), **dict(zip("wrb", _weights(recurrence), strict=True))}
    arrays.update({name: state[None] for name, state in zip(names, states, strict=True)})
    outputs = ["y", *(f"y_{name}" for name in names)]
    node = helper.make_node(
        ONNX_OPS[recurrence.kind], ["x", "w", "r", "b", "", *names], outputs, **_attributes(recurrence)
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in arrays.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, *finals = session.run(None, {name: each.astype(np.float32) for name, each in arrays.items()})
    return [np.transpose(y[:, 0], (1, 0, 2)), *(final[0] for final in finals)]


def compared(make, **options):
    """Return (what ONNX Runtime gives, what Keras gives in float64) for a layer of random weights."""
    rng = np.random.default_rng(0)
    narrow, wide = (make(U, dtype=dtype, return_sequences=True, **options) for dtype in ("float32", "float64"))
    wide.return_state = True
    narrow.build((None, None, F))
    wide.build((None, None, F))
    weights = [(0.6 * rng.standard_normal(w.shape)).astype(np.float32) for w in narrow.get_weights()]
    narrow.set_weights(weights)
    wide.set_weights(weights)
    recurrence = convert(narrow, "layer")
    assert plan(recurrence, None).lowering == "native"
    x = rng.standard_normal((B, T, F))
    states = [rng.standard_normal((B, U)) for _ in recurrence.states]
    expected = keras.tree.flatten(wide(x, initial_state=states))
    return in_onnx_runtime(recurrence, x, states), expected


def close(pair):
    for got, expected in zip(*pair, strict=True):
        np.testing.assert_allclose(got, expected, atol=5e-6, rtol=5e-6)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gate", GATES)
def test_an_lstm_op_is_keras(gate, act):
    close(compared(layers.LSTM, activation=act, recurrent_activation=gate))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gate", GATES)
def test_a_gru_op_is_keras(gate, act, reset_after):
    close(compared(layers.GRU, activation=act, recurrent_activation=gate, reset_after=reset_after))


@pytest.mark.parametrize("act", ACTS)
def test_an_rnn_op_is_keras(act):
    close(compared(layers.SimpleRNN, activation=act))


@pytest.mark.parametrize("make", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_an_op_without_a_bias_is_keras(make):
    close(compared(make, use_bias=False))


def test_what_a_where_leaves_out_does_not_show(tmp_path):
    """A sum of products, which tf2onnx writes for it, would give 0 * infinity."""
    x = keras.Input((None, F), name="x")
    logged = keras.ops.where(x > 0, keras.ops.log(x), 0.0)
    model = keras.Model(x, layers.LSTM(U, return_sequences=True)(logged))
    [artifact] = export(model, "onnx", tmp_path / "model.onnx", check=False)
    assert artifact.ops["Where"] == 1
    feeds = np.maximum(np.random.default_rng(0).standard_normal((B, T, F)), 0).astype(np.float32)
    assert (feeds == 0).any()
    got = runtimes.open(artifact.path).stream(B).push(feeds)
    np.testing.assert_allclose(got[artifact.contract.outputs[0]], model.predict(feeds, verbose=0), atol=5e-6, rtol=5e-6)


def test_a_where_of_booleans_runs(tmp_path):
    """ONNX Runtime has no Where for them."""
    x = keras.Input((None, F), name="x")
    on = keras.ops.where(x[..., :1] > 0, x > 0.5, x < -0.5)
    model = keras.Model(x, layers.LSTM(U, return_sequences=True)(keras.ops.cast(on, "float32")))
    [artifact] = export(model, "onnx", tmp_path / "model.onnx")
    assert artifact.parity.ok


@pytest.mark.parametrize("merge", ["sum", "mul"])
def test_no_pass_fails_on_a_transpose_that_gives_an_output(merge, tmp_path, monkeypatch):
    """Sequences that are a port and go into an operation; all passes would start again, slowly."""
    optimize, started = tf2onnx.optimizer.optimize_graph, []

    def counted(graph, catching, passes):
        started.append(catching)
        return optimize(graph, catching, passes)

    monkeypatch.setattr(tf2onnx.optimizer, "optimize_graph", counted)
    both = layers.Bidirectional(layers.SimpleRNN(U, return_sequences=True), merge_mode=merge)
    model = keras.Sequential([keras.Input((None, F)), both, layers.Conv1D(2, 2, padding="causal")])
    [artifact] = export(model, "onnx", tmp_path / "model.onnx")
    assert artifact.parity.ok
    assert started == [False]
