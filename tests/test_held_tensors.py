"""Tensors that a model holds, of every type, in nested models and wrappers, give what Keras gives.

What a target writes otherwise is held to Keras' numbers in tests/test_sweep.py.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import Input, layers, ops

import signatures
from exporter import export

ROWS = np.array(
    [
        *([0, 0, 0, 0], [-0.0, 0, -0.0, 0], [1, 1, 0, 1], [1e-30, -1e-30, 1e-30, 0], [100, -100, 20, -20]),
        *([1e-7, 1e-7, 0, 0], [1000, -1000, 88, -88], [2.5, -2.5, 0.5, 7], [-3, -5, -7, 3]),
    ],
    "float32",
)
WHOLE = np.array([[0, 1, -1, 2], [-2, 3, -3, 5], [-5, 7, -7, 8]] * 3, "int32")
FEEDS = {"x": ROWS[None], "n": WHOLE[None]}


def holding():
    """Return the inputs and name -> tensor of what a model holds: of every type, in nested models and wrappers."""
    x, n = Input((None, 4), name="x"), Input((None, 4), dtype="int32", name="n")
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).standard_normal((20, 7, 4)).astype("float32") * 3 + 1)

    def given():
        return layers.Normalization(mean=[1.0, 2, 3, 4], variance=[2.0, 1, 0, 2])

    return [x, n], {
        "adapted": adapted(x),
        "given": given()(x),
        "not_adapted": layers.Normalization()(x),
        "nested": keras.Sequential([given(), layers.Dense(3)])(x),
        "repeated": layers.TimeDistributed(given())(x),
        "counted": x * ops.arange(4, dtype="float32"),
        "integers": n * ops.arange(4),
        "booleans": ops.where(ops.array([True, False, True, False]), x, 0.0),
    }


def test_held_tensors_are_those_of_keras(tmp_path):
    inputs, outputs = holding()
    outputs["lstm"] = layers.LSTM(4, return_sequences=True)(layers.Dense(3)(ops.clip(inputs[0], -1, 1)))
    model = keras.Model({x.name: x for x in inputs}, outputs)
    artifacts = export(model, "all", tmp_path, check=False)
    want = model({name: tf.constant(FEEDS[name]) for name in model.input}, training=False)
    wrong = []
    for artifact in artifacts:
        runner = signatures.open(artifact.path)
        states = runner.contract.signatures["sequence"].initial_state(1)
        got = runner.run("sequence", {**{name: FEEDS[name] for name in model.input}, **states})
        for (name, value), port in zip(sorted(want.items()), runner.contract.outputs, strict=True):
            close = np.isclose(got[port], value, rtol=1e-5, atol=1e-5, equal_nan=True)
            if not close.all():
                place = tuple(np.argwhere(~close)[0])
                wrong.append(f"{artifact.target} {name} {place}: {got[port][place]}, Keras {value[place]}")
    assert [artifact.target for artifact in artifacts] == ["tflite", "onnx", "savedmodel"]
    assert not wrong, "\n".join(wrong)
