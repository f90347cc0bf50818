"""Models that look like something they are not on short data: what is delivered must be what Keras gives at any T."""

import keras
import numpy as np
import pytest
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
        "a memory of 64": (keras.Model(x, dilated(y)), False),
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


@pytest.mark.parametrize(
    ("names", "ports"),
    [
        (("_x", "l", "L"), ["x_x", "l_h_in", "L_1_h_in"]),
        (("x", "9in", "my lstm #1"), ["x", "x9in_h_in", "my_lstm__1_h_in"]),
    ],
    ids=["case and underscore", "digit and spaces"],
)
def test_odd_names_become_ports(names, ports, tmp_path):
    source, first, second = names
    x = Input((None, 2), name=source)
    inner = layers.LSTM(3, return_sequences=True, name=first)(x)
    artifacts = export(keras.Model(x, layers.LSTM(2, name=second)(inner)), "all", f"{tmp_path}/")
    found = [port.name for port in artifacts[0].contract.signatures["step"].inputs]
    assert [name for name in found if not name.endswith("_c_in")] == ports


@pytest.mark.parametrize(
    "around", [layers.Dense(3), layers.TimeDistributed(layers.Dense(3))], ids=["dense", "repeated"]
)
def test_one_feature_before_a_dense_layer(around, tmp_path):
    """TFLite's converter takes such an input for a bias."""
    model = keras.Sequential([Input((None, 1)), around, layers.LSTM(2)])
    assert export(model, "tflite", f"{tmp_path}/")[0].parity.ok


def test_a_residual_of_one_feature(tmp_path):
    """keras.ops.add makes a BiasAdd of it, which TFLite lays out wrongly."""
    x = Input((9, 1))
    y = layers.LSTM(1, return_sequences=True)(x)
    model = keras.Model(x, layers.Add()([y, layers.Dense(1)(y)]))
    assert export(model, "tflite", f"{tmp_path}/")[0].parity.ok


def test_two_threads_may_export_one_model(tmp_path, golden_folder):
    from concurrent.futures import ThreadPoolExecutor

    model = keras.saving.load_model(golden_folder / "stacked" / "model.keras")
    before = {layer.name: set(layer.__dict__) for layer in model.layers}
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(export, model, "onnx", tmp_path / f"{k}.onnx") for k in range(2)]
        assert all(run.result()[0].parity.ok for run in runs)
    assert {layer.name: set(layer.__dict__) for layer in model.layers} == before


def test_force_replaces_an_artifact_but_never_a_folder_of_something_else(tmp_path, golden_folder):
    from signatures.errors import OutputError

    model = golden_folder / "stacked" / "model.keras"
    (tmp_path / "model.tflite").mkdir()
    (tmp_path / "model.tflite" / "keep.txt").write_text("mine")
    with pytest.raises(OutputError, match="is a folder, and not a SavedModel"):
        export(model, "tflite", f"{tmp_path}/", force=True)
    assert (tmp_path / "model.tflite" / "keep.txt").read_text() == "mine"
    for _ in range(2):
        export(model, "savedmodel", f"{tmp_path}/", force=True, check=False)
    (tmp_path / "other_savedmodel").write_text("a file")
    export(model, "savedmodel", tmp_path / "other_savedmodel", force=True, check=False)
    assert (tmp_path / "other_savedmodel" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"batch": True},
        {"time": 2.5},
        {"lowering": "foo"},
        {"signatures": ["foo"]},
        {"signatures": "step"},
    ],
    ids=str,
)
def test_options_that_no_export_has_are_refused(options, tmp_path, golden_folder):
    with pytest.raises(ValueError, match=next(iter(options))):
        export(golden_folder / "stacked" / "model.keras", "onnx", f"{tmp_path}/", **options)


@pytest.mark.parametrize("to", ["foo", [], None])
def test_targets_that_do_not_exist_are_refused(to, tmp_path):
    with pytest.raises(ValueError, match="give tflite, onnx, savedmodel"):
        export("model.keras", to, f"{tmp_path}/")


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
    stack += [layers.GlobalAveragePooling1D(name="mean"), layers.Dense(50, activation="softmax")]
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


def test_outputs_that_are_no_floats_are_witnessed(tmp_path):
    x = Input((None, 3))
    y = layers.LSTM(4, return_sequences=True)(x)
    model = keras.Model(x, {"hot": keras.ops.greater(y, 0.1), "y": y})
    [artifact] = export(model, "savedmodel", f"{tmp_path}/")
    assert {port.name: port.dtype for port in artifact.contract.signatures["sequence"].outputs}["hot"] == "bool"


class Sized(layers.Layer):
    """A cell that makes a tensor as large as its batch, which must be known."""

    state_size = 4

    def call(self, x, states):
        return states[0] + keras.ops.zeros([x.shape[0], 4]) + x[:, :1], [0.5 * states[0] + x[:, :1]]


def test_a_cell_may_need_to_know_its_batch(tmp_path):
    model = keras.Sequential([Input(batch_shape=(1, None, 5)), layers.RNN(Sized(), return_sequences=True)])
    [artifact] = export(model, "tflite", f"{tmp_path}/")
    assert artifact.parity.ok


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


def test_ports_of_stacked_cells_and_of_the_next_layer_differ(tmp_path):
    """Keras' own default names: rnn's second cell and rnn_1 would both be rnn_1_h."""
    keras.backend.clear_session()
    model = keras.Sequential(
        [Input((None, 2)), layers.RNN([layers.LSTMCell(3), layers.LSTMCell(3)], return_sequences=True)]
        + [layers.RNN(layers.LSTMCell(2))]
    )
    artifacts = export(model, "all", f"{tmp_path}/")
    names = [port.name for port in artifacts[0].contract.signatures["sequence"].inputs]
    assert len({name.lower() for name in names}) == len(names) == 7


def test_second_calls_keep_clear_of_other_layers(tmp_path):
    x = Input((None, 2), name="x")
    shared, other = (layers.LSTM(2, return_sequences=True, name=name) for name in ("lstm", "lstm_1"))
    model = keras.Model(x, other(shared(shared(x))))
    names = [port.name for port in export(model, "onnx", f"{tmp_path}/")[0].contract.signatures["step"].inputs]
    assert names == ["x", *(f"{layer}_{s}_in" for layer in ("lstm", "lstm_2", "lstm_1") for s in "hc")]


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


def test_steps_the_model_fixes_itself_can_be_unrolled(tmp_path):
    decoder = [layers.RepeatVector(5), layers.LSTM(3, return_sequences=True, name="decoder")]
    model = keras.Sequential([Input((4, 2)), layers.LSTM(3, name="encoder"), *decoder])
    [artifact] = export(model, "tflite", f"{tmp_path}/", lowering="unrolled")
    assert artifact.parity.ok
    assert "WHILE" not in artifact.ops


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
