"""What a model computes in: as its layers say, or as asked for."""

import keras
import numpy as np
import pytest
from custom import Around
from keras import Input, layers, ops

import signatures
from exporter import export


@pytest.mark.filterwarnings("ignore:.*float16:UserWarning")
def test_a_mixed_precision_model_is_exported_in_float32_when_asked_for(tmp_path):
    from signatures.errors import UnsupportedModel

    cells = layers.RNN([layers.LSTMCell(3, dtype="mixed_float16"), layers.GRUCell(2, dtype="mixed_float16")])
    cells.dtype_policy = "mixed_float16"
    model = keras.Sequential(
        [Input((None, 5)), layers.LSTM(6, return_sequences=True, dtype="mixed_float16"), cells, layers.Dense(2)]
    )
    with pytest.raises(UnsupportedModel, match="'lstm.*' computes in float16, which the tflite runtime doesn't"):
        export(model, "tflite", f"{tmp_path}/")
    [artifact] = export(model, "onnx", f"{tmp_path}/", dtype="float32")
    assert artifact.parity.ok
    assert model.layers[0].compute_dtype == "float16"
    x = np.random.default_rng(0).standard_normal((2, 7, 5)).astype(np.float32)
    plain = keras.Sequential(
        [Input((None, 5)), layers.LSTM(6, return_sequences=True), layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])]
        + [layers.Dense(2)]
    )
    plain.set_weights(model.get_weights())
    got = signatures.open(artifact.path).stream(2).push(x)[artifact.contract.outputs[0]]
    np.testing.assert_allclose(got, plain(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*float16:UserWarning")
@pytest.mark.parametrize(
    ("stored", "asked", "target", "port"),
    [
        ("float64", "float32", "tflite", "float32"),
        ("float16", "float32", "tflite", "float32"),
        ("float32", "float16", "savedmodel", "float32"),
        ("float32", "float64", "onnx", "float64"),
        ("bfloat16", None, "savedmodel", "float32"),
    ],
)
def test_a_model_computes_in_the_type_asked_for_whatever_its_weights_are_stored_in(
    stored, asked, target, port, tmp_path
):
    options = {"return_sequences": True, "recurrent_initializer": "glorot_uniform", "dtype": stored}
    # (the default initializer is orthogonal, for which TensorFlow has no bfloat16)
    model = keras.Sequential(
        [Input((None, 5), dtype=stored), layers.Masking(dtype=stored), layers.LSTM(3, name="l", **options)]
    )
    [artifact] = export(model, target, f"{tmp_path}/", dtype=asked)
    computed = asked or stored
    assert (artifact.contract.scheme, artifact.parity.tolerance) == (computed, signatures.Tolerance.of(computed))
    assert {p.dtype for s in artifact.contract.signatures.values() for p in (*s.inputs, *s.outputs)} == {port}
    h = signatures.open(artifact.path).stream().push(np.ones((1, 4, 5), port))["l_h"]
    bits = {"float16": 10, "bfloat16": 7}.get(computed)
    if bits:  # every number that comes out is one the type has
        mantissa, _ = np.frexp(h)
        assert np.array_equal(mantissa * 2 ** (bits + 1), np.round(mantissa * 2 ** (bits + 1)))
    else:  # and one that the next coarser type does not have
        coarser = {"float32": np.float16, "float64": np.float32}[computed]
        assert not np.array_equal(h, h.astype(coarser).astype(h.dtype))


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_a_quantized_model_computes_in_its_own_type_only(tmp_path):
    from signatures.errors import UnsupportedModel

    model = keras.Sequential([Input((None, 8)), layers.LSTM(4, name="l"), layers.Dense(3, name="head")])
    model.quantize("int8")
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    [artifact] = export(model, "savedmodel", f"{tmp_path}/")
    got = signatures.open(artifact.path).stream(2).push(x)["head"]
    np.testing.assert_allclose(got, model(x), atol=1e-5)
    with pytest.raises(UnsupportedModel, match=r"is quantized \(int8\): it can't compute in float64"):
        export(model, "savedmodel", f"{tmp_path}/", dtype="float64", force=True)


@pytest.mark.filterwarnings("ignore:.*float16:UserWarning")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_hide_no_broken_law(dtype, tmp_path):
    """A mean of a softmax's inputs moves little: less than 16-bit rounding may."""
    stack = [layers.LSTM(4, return_sequences=True), layers.Dense(3, activation="tanh")]
    stack += [Around(lambda y: ops.mean(y, axis=1), name="mean"), layers.Dense(50, activation="softmax")]
    model = keras.Sequential([Input((None, 3)), *stack])
    [artifact] = export(model, "savedmodel", f"{tmp_path}/", dtype=dtype)
    assert list(artifact.contract.signatures) == ["sequence"]
    assert "'mean'" in artifact.contract.no_step


@pytest.mark.filterwarnings("ignore:.*float16:UserWarning")
def test_a_cell_s_own_type_counts(tmp_path):
    from signatures.errors import UnsupportedModel

    model = keras.Sequential([Input((None, 3)), layers.RNN(layers.LSTMCell(4, dtype="float16"), name="rnn")])
    with pytest.raises(UnsupportedModel, match="'rnn' computes in float16, which the tflite runtime doesn't"):
        export(model, "tflite", f"{tmp_path}/")
    [artifact] = export(model, "savedmodel", f"{tmp_path}/")
    assert artifact.contract.scheme == "float16"
