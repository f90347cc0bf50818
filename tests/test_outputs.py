"""Models that look like something they are not on short data: what is delivered is what Keras gives at any T."""

import keras
import numpy as np
import pytest
from custom import Around
from keras import Input, layers, ops

import signatures
from exporter import export


def traps():
    """Return name -> (model, whether it can be stepped)."""
    x = Input((None, 3), name="x")
    y, h, c = layers.LSTM(3, return_sequences=True, return_state=True, name="l")(x)
    dilated = layers.Conv1D(2, 2, padding="causal", dilation_rate=64, name="dilated")
    return {
        "clipped far out": (keras.Model(x, ops.clip(y, -0.6, 0.6)), True),
        "the last five": (keras.Model(x, y[:, -5:]), False),
        "the fifth": (keras.Model(x, y[:, 4]), False),
        "c cut off": (keras.Model(x, [y, ops.minimum(c, 0.1)]), True),
        "h itself": (keras.Model(x, [h, y]), True),
        "a memory of 64": (keras.Model(x, dilated(y)), True),
    }


@pytest.mark.parametrize("name", list(traps()))
def test_outputs_are_the_models_own_at_any_length(name, tmp_path):
    model, stepped = traps()[name]
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).standard_normal(weight.shape))
    [artifact] = export(model, "onnx", tmp_path / "m.onnx")
    assert ("step" in artifact.contract.signatures) == stepped
    runner = signatures.open(artifact.path)
    sequence = runner.contract.signatures["sequence"]
    for total in (9, 120):
        feed = np.random.default_rng(total).standard_normal((2, total, 3)).astype(np.float32)
        got = runner.run("sequence", {"x": feed, **sequence.initial_state(2)})
        want = keras.tree.flatten(model(feed))
        for port, value in zip(runner.contract.outputs, want, strict=True):
            np.testing.assert_allclose(got[port], value, atol=1e-5)


@pytest.mark.parametrize("sequences", [True, False])
def test_a_branch_that_gives_a_state_now_and_then_is_no_state(sequences, tmp_path):
    """Where a run takes it, the output is the very tensor that is a port."""
    x = Input((None, 3), name="x")
    y = layers.LSTM(3, use_bias=False, return_sequences=sequences, name="l")(x)
    spoken = Around(lambda y: ops.cond(ops.max(ops.abs(y)) > 0.95, lambda: 0 * y, lambda: y))(y)
    model = keras.Model(x, spoken)
    model.set_weights([np.ones(w.shape, w.dtype) for w in model.get_weights()])
    for artifact in export(model, ["savedmodel", "onnx"], f"{tmp_path}/", signatures=["sequence"]):
        runner = signatures.open(artifact.path)
        state = runner.contract.signatures["sequence"].initial_state(1)
        for size in (-0.01, 9):
            feed = np.full((1, 9, 3), size, np.float32)
            got = runner.run("sequence", {"x": feed, **state})[runner.contract.outputs[0]]
            np.testing.assert_allclose(got, model(feed), atol=1e-5)
            assert bool(got.any()) == (size < 1)


def test_a_state_that_is_an_input_goes_on_under_a_mask(tmp_path):
    """A masked first step repeats the h the caller gave: a stream doesn't jump to zero at a chunk of padding."""
    x, h, c = Input((None, 3), name="x"), Input((4,), name="h0"), Input((4,), name="c0")
    valid = Input((None,), dtype="bool", name="valid")  # Keras passes no mask of its own beside an initial_state
    y = layers.LSTM(4, return_sequences=True, name="l")(x, initial_state=[h, c], mask=valid)
    [artifact] = export(keras.Model([x, h, c, valid], y), "tflite", tmp_path / "m.tflite")
    runner = signatures.open(artifact.path)
    state = {name: np.random.default_rng(3).standard_normal((1, 4)).astype(np.float32) for name in ("h0", "c0")}
    x = np.ones((1, 1, 3), np.float32)
    moved = runner.run("step", {"x": x, "valid": np.ones((1, 1), bool), **state})
    assert np.abs(moved["l_c"] - state["c0"]).max() > 0.01
    out = runner.run("step", {"x": x, "valid": np.zeros((1, 1), bool), **state})
    np.testing.assert_array_equal(out["l_sequences"][:, 0], state["h0"])
    np.testing.assert_array_equal(out["l_c"], state["c0"])


def test_outputs_that_are_no_floats_are_witnessed(tmp_path):
    x = Input((None, 3))
    y = layers.LSTM(4, return_sequences=True)(x)
    model = keras.Model(x, {"hot": keras.ops.greater(y, 0.1), "y": y})
    [artifact] = export(model, "savedmodel", f"{tmp_path}/")
    assert {port.name: port.dtype for port in artifact.contract.signatures["sequence"].outputs}["hot"] == "bool"


class Clipped(layers.Layer):
    """A cell whose output is its state only where that is small."""

    state_size = 3

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), initializer="ones")

    def call(self, x, states):
        h = states[0] + ops.matmul(x, self.kernel)
        return ops.clip(h, -8, 8), [h]


def test_a_cells_output_that_is_only_sometimes_its_state(tmp_path):
    model = keras.Sequential([Input((None, 2), name="x"), layers.RNN(Clipped(), name="own")])
    [artifact] = export(model, "savedmodel", f"{tmp_path}/")
    runner = signatures.open(artifact.path)
    x = np.full((1, 4, 2), 5, np.float32)
    outputs = runner.run("sequence", {"x": x, **runner.contract.signatures["sequence"].initial_state(1)})
    np.testing.assert_allclose(outputs[runner.contract.outputs[0]], model(x))
    assert outputs["own_state"].max() == 40


def test_lengths_leave_inputs_without_a_time_axis_alone(tmp_path):
    x, context = Input((None, 3), name="x"), Input((4, 2), name="context")
    pooled = layers.GlobalAveragePooling1D()(context)
    model = keras.Model([x, context], layers.Concatenate()([layers.LSTM(2, name="l")(x), pooled]))
    [artifact] = export(model, "onnx", f"{tmp_path}/", lengths=True)
    runner = signatures.open(artifact.path)
    feeds = {
        "x": np.ones((2, 5, 3), np.float32),
        "context": np.random.default_rng(0).standard_normal((2, 4, 2)).astype(np.float32),
        "lengths": np.array([5, 2], np.int32),
    }
    state = runner.contract.signatures["sequence"].initial_state(2)
    outputs = runner.run("sequence", {**feeds, **state})
    np.testing.assert_allclose(outputs[runner.contract.outputs[0]][:, 2:], feeds["context"].mean(axis=1), rtol=1e-5)


def test_an_output_without_a_batch_is_refused(tmp_path):
    from signatures.errors import UnsupportedModel

    x = Input((None, 2))
    model = keras.Model(x, ops.mean(layers.LSTM(3)(x)))
    with pytest.raises(UnsupportedModel, match="its first axis isn't the batch"):
        export(model, "onnx", f"{tmp_path}/")


def test_tokens_of_a_subclassed_model_are_integers(tmp_path):
    class Tokens(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding = layers.Embedding(9, 4, mask_zero=True)
            self.lstm = layers.LSTM(3)

        def call(self, x):
            return self.lstm(self.embedding(x))

    model = Tokens()
    model(np.ones((2, 6), np.int32))
    [artifact] = export(model, "onnx", f"{tmp_path}/")
    port = artifact.contract.signatures["step"].inputs[0]
    assert (port.dtype, port.below) == ("int32", 9)
