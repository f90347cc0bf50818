"""Models whose rows, clocks or batch are not the plain ones: delivered artifacts against Keras itself, streamed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import Input, layers

import signatures
from exporter import export
from signatures.errors import UnsupportedModel

TARGETS = ("tflite", "onnx", "savedmodel")


def dual_path():
    """Over time for each of four bands, then across the bands, as speech models do."""
    x = Input((None, 4, 3), name="x")
    over_time = layers.TimeDistributed(layers.LSTM(5, return_sequences=True, name="l"), name="time")
    y = layers.Permute((2, 1, 3))(over_time(layers.Permute((2, 1, 3))(x)))
    return keras.Model(x, layers.Conv2D(2, (1, 3), padding="same", name="y")(y))


class Folded(layers.Layer):
    """[B, T, 4, F] -> [4 B, T, F], band after band."""

    def call(self, x):
        return tf.reshape(tf.transpose(x, (2, 0, 1, 3)), [-1, tf.shape(x)[1], x.shape[-1]])


class Unfolded(layers.Layer):
    """[4 B, T, F] -> [B, T, 4, F]."""

    def call(self, y):
        return tf.transpose(tf.reshape(y, [4, -1, tf.shape(y)[1], y.shape[-1]]), (1, 2, 0, 3))


def band_after_band():
    x = Input((None, 4, 3), name="x")
    y = layers.GRU(5, return_sequences=True, name="l")(Folded()(x))
    return keras.Model(x, layers.Dense(2, name="y")(Unfolded()(y)))


def attending():
    words, memory = Input((None, 3), name="x"), Input((None, 5), name="memory")
    y = layers.LSTM(5, return_sequences=True, name="l")(words)
    attended = layers.Attention(name="luong")([y, memory])
    return keras.Model([words, memory], layers.Dense(2, name="y")(layers.Concatenate()([y, attended])))


def of_two():
    """A model that relies on the batch that it declares."""
    x = Input(batch_shape=(2, None, 3), name="x")
    y = layers.LSTM(4, return_sequences=True, name="l")(x)
    return keras.Model(x, layers.Dense(2, name="y")(keras.ops.reshape(y, (2, -1, 2, 2))))


MODELS = {"dual path": dual_path, "band after band": band_after_band, "attending": attending, "of two": of_two}
SHAPES = {"dual path": (4, 3), "band after band": (4, 3), "attending": (3,), "of two": (3,)}
STATES = {"dual path": "batch * 4", "band after band": "4 * batch", "attending": "batch", "of two": "batch"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function: name -> (Keras model, its artifacts), exported and checked once."""
    known = {}

    def make(name):
        if name not in known:
            model = MODELS[name]()
            rng = np.random.default_rng(0)
            model.set_weights([0.5 * rng.standard_normal(w.shape).astype(w.dtype) for w in model.get_weights()])
            batch = None if name == "of two" else 2
            known[name] = model, export(model, "all", tmp_path_factory.mktemp("folded"), batch=batch)
        return known[name]

    return make


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_gives_what_keras_gives_whole(made, name):
    model, artifacts = made(name)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 11, *SHAPES[name])).astype(np.float32)
    whole = {"memory": rng.standard_normal((2, 6, 5)).astype(np.float32)} if name == "attending" else {}
    expected = model({"x": x, **whole} if whole else x)
    for artifact in artifacts:
        sequence = artifact.contract.signatures["sequence"]
        assert {p.shape[0] for p in sequence.inputs if p.role == "state"} == {STATES[name]}
        assert {check.check for check in artifact.parity.diffs} >= {"sequence", "steps", "chunks"}
        stream = signatures.open(artifact.path).stream(2)
        pieces = [stream.push(x=x[:, a:b], **whole)["y"] for a, b in ((0, 1), (1, 2), (2, 8), (8, 11))]
        np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5, err_msg=artifact.target)


def test_a_step_takes_the_whole_memory(made):
    _, artifacts = made("attending")
    step = artifacts[0].contract.signatures["step"]
    assert step.dims == {"time": 1}
    assert {port.name: port.sized(step.dims) for port in step.inputs}["memory"] == ("batch", "time_memory", 5)


def test_the_declared_batch_is_the_artifacts(made, tmp_path):
    model, artifacts = made("of two")
    assert [artifact.contract.artifacts[artifact.target].dims for artifact in artifacts] == [{"batch": 2}] * 3
    with pytest.raises(UnsupportedModel, match="batch 3 can't be had: the model relies on the 2 that its inputs"):
        export(model, "tflite", f"{tmp_path}/", batch=3)


@pytest.fixture(scope="module")
def with_lengths(made, tmp_path_factory):
    model, _ = made("band after band")
    artifacts = export(model, "all", tmp_path_factory.mktemp("lengths"), lengths=True, batch="any")
    return {artifact.target: artifact for artifact in artifacts}


@pytest.mark.parametrize("target", TARGETS)
def test_lengths_stop_every_row_of_a_sample(with_lengths, target):
    """Against the sample alone, cut at its length."""
    runner = signatures.open(with_lengths[target].path)
    sequence = runner.contract.signatures["sequence"]
    x = np.random.default_rng(2).standard_normal((3, 7, 4, 3)).astype(np.float32)
    lengths = np.array([7, 3, 5], np.int32)
    together = runner.run("sequence", {"x": x, "lengths": lengths, **sequence.initial_state(3)})
    for k, length in enumerate(lengths):
        feeds = {"x": x[[k], :length], "lengths": lengths[[k]], **sequence.initial_state(1)}
        np.testing.assert_allclose(together["l_h"][k::3], runner.run("sequence", feeds)["l_h"], atol=1e-6)


def test_an_output_that_begins_late_is_as_late_in_a_stream(tmp_path):
    x = Input((None, 3), name="x")
    y = layers.LSTM(4, return_sequences=True)(x)
    artifacts = export(keras.Model(x, {"y": layers.Dense(2)(y)[:, 10:]}), "all", f"{tmp_path}/")
    for artifact in artifacts:
        assert artifact.parity.ok
        sequence = artifact.contract.signatures["sequence"]
        assert (sequence.ports["y"].shape, sequence.delay) == (("batch", "time", 2), {"y": 10})
