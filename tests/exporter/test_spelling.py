"""What a target writes otherwise, and tensors that a model holds, give what Keras gives where kernels differ.

Each model has them all as outputs around one LSTM, and is fed zeros, -0, infinities, ties and integers below zero.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import Input, layers, ops

import signatures
from exporter import export, law
from signatures.errors import UnsupportedModel

TARGETS = ("savedmodel", "onnx", "tflite")
ROWS = np.array(
    [
        *([0, 0, 0, 0], [-0.0, 0, -0.0, 0], [1, 1, 0, 1], [1e-30, -1e-30, 1e-30, 0], [100, -100, 20, -20]),
        *([1e-7, 1e-7, 0, 0], [1000, -1000, 88, -88], [2.5, -2.5, 0.5, 7], [-3, -5, -7, 3]),
    ],
    "float32",
)
FAR = np.array([[np.inf, -np.inf, 0, 1], [-np.inf, 0, 2, np.inf], [3, -1, 0, np.inf]] * 3, "float32")
WHOLE = np.array([[0, 1, -1, 2], [-2, 3, -3, 5], [-5, 7, -7, 8]] * 3, "int32")
BY = np.array([[3, -3, 3, 2], [-2, 2, 3, -3], [2, 2, -2, 4]] * 3, "int32")
FEEDS = {name: value[None] for name, value in {"x": ROWS, "far": FAR, "n": WHOLE, "m": BY}.items()}


def special():
    """Return the inputs and name -> tensor of what is spelled otherwise in a target."""
    x, far = (Input((None, 4), name=name) for name in ("x", "far"))
    n, m = (Input((None, 4), dtype="int32", name=name) for name in ("n", "m"))
    by = ops.where(ops.equal(m, 0), 1, m)  # random integers may be 0
    squares = ops.sum(ops.square(x), -1, keepdims=True)
    return [x, far, n, m], {
        "unit": layers.UnitNormalization()(x),
        "normalized": ops.normalize(x),
        "by_root": x * ops.rsqrt(squares + 1e-12),
        "by_no_more": x / ops.sqrt(squares),
        "rsqrt": ops.rsqrt(ops.abs(x)),
        "softplus": ops.softplus(x),
        "log_sigmoid": ops.log_sigmoid(x),
        "log": ops.log(ops.abs(far)),
        "log_of_softmax": ops.log(ops.softmax(x)),
        "infinite": ops.isinf(far),
        "above": ops.isposinf(far),
        "below": ops.isneginf(far),
        "zero": ops.equal(x, 0.0),
        "not_infinite": ops.not_equal(far, np.inf),
        "made_finite": ops.nan_to_num(far, posinf=5.0, neginf=-5.0),
        "floor": x // 2.5,
        "floor_by_zero": 2.5 // x,
        "modulo": x % -2.5,
        "floor_int": n // by,
        "modulo_int": n % by,
        "to_bool": ops.cast(ops.cast(x, "int32"), "bool"),
        "largest": ops.argmax(x, axis=-1),
        "smallest": ops.argmin(x, axis=-1),
        "sign": ops.signbit(x),
        "angle": ops.arctan2(x, ops.flip(x, axis=-1)),
    }


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


def exported(make, folder, targets="all"):
    """Export a model; whether it could be stepped is another test's business."""
    inputs, outputs = make()
    outputs["lstm"] = layers.LSTM(4, return_sequences=True)(layers.Dense(3)(ops.clip(inputs[0], -1, 1)))
    model = keras.Model({x.name: x for x in inputs}, outputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(law, "why_pieces_differ", lambda *args: "Not asked.")
        return model, export(model, targets, folder, check=False)


@pytest.mark.parametrize("make", [special, holding])
def test_numbers_are_those_of_keras(make, tmp_path):
    model, artifacts = exported(make, f"{tmp_path}/")
    want = model({name: tf.constant(FEEDS[name]) for name in model.input})
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


@pytest.mark.parametrize(("target", "named"), [("tflite", {"Erf", "Acos"}), ("onnx", {"Erfinv", "BitwiseAnd"})])
def test_refusals_name_every_operation(target, named, tmp_path):
    def refused():
        x, n = Input((None, 4), name="x"), Input((None, 4), dtype="int32", name="n")
        if target == "tflite":
            return [x, n], {"erf": ops.erf(x), "arccos": ops.arccos(x)}
        return [x, n], {"erfinv": ops.erfinv(x), "both": ops.bitwise_and(n, n + 1)}

    with pytest.raises(UnsupportedModel) as error:
        exported(refused, f"{tmp_path}/", target)
    assert set(str(error.value).split("\n")[0].split(": ")[1].rstrip(".").split(", ")) == named
