"""The float64 reference against three witnesses.

The equations number by number, ONNX's own reference evaluator, and Keras' own layers in float64.
"""

from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
from custom import Averaged, Echo
from keras import layers
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from exporter.memory.convert import convert
from exporter.memory.recurrence import Recurrence
from exporter.prove import reference

B, T, F, U = 3, 6, 4, 3
STATES = {"h": (U,), "c": (U,)}


def run(x, h, c, recurrence, mask=None, continues=True):
    """Run an LSTM; return sequences, h and c."""
    sequences, states = reference.run(recurrence, x, [h, c], mask, continues)
    return sequences, *states


@pytest.fixture(scope="module")
def recurrence():
    """Weights with four gate blocks that differ in size as well, so that no two can be taken for each other."""
    rng = np.random.default_rng(0)
    scale = np.repeat([0.3, 0.6, 0.9, 1.2], U)
    kernel, recurrent = (rng.standard_normal((rows, 4 * U)) * scale for rows in (F, U))
    bias = rng.standard_normal(4 * U) + np.repeat([0.5, -0.5, 1, -1], U)
    return Recurrence("lstm", "lstm", STATES, kernel=kernel, recurrent_kernel=recurrent, bias=bias)


@pytest.fixture(scope="module")
def feeds():
    rng = np.random.default_rng(1)
    return rng.standard_normal((B, T, F)), rng.standard_normal((B, U)), rng.standard_normal((B, U))


def onnx_lstm(x, h, c, recurrence):
    """Run ONNX's reference of its LSTM op (float32), whose gate order is i o f c and whose axes are [T, B, F]."""
    columns = [gate * U + u for gate in (0, 3, 1, 2) for u in range(U)]  # Keras' blocks are i f c o
    arrays = {
        "x": np.transpose(x, (1, 0, 2)),
        "w": recurrence.kernel[:, columns].T[None],
        "r": recurrence.recurrent_kernel[:, columns].T[None],
        "b": np.concatenate([recurrence.bias[columns], np.zeros(4 * U)])[None],
        "h": h[None],
        "c": c[None],
    }
    node = helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "y_h", "y_c"], hidden_size=U)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in arrays.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "lstm", inputs, outputs), opset_imports=[onnx.helper.make_opsetid("", 14)]
    )
    y, y_h, y_c = ReferenceEvaluator(model).run(None, {name: each.astype(np.float32) for name, each in arrays.items()})
    return np.transpose(y[:, 0], (1, 0, 2)), y_h[0], y_c[0]


def test_it_is_what_the_equations_say(recurrence, feeds, by_numbers):
    weights = recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias
    for got, expected in zip(run(*feeds, recurrence), by_numbers(*feeds, *weights), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_it_is_what_onnx_defines(recurrence, feeds):
    for got, expected in zip(run(*feeds, recurrence), onnx_lstm(*feeds, recurrence), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_float32_weights_and_inputs_are_computed_in_float64(recurrence, feeds, by_numbers):
    narrow = [
        each.astype(np.float32) for each in (*feeds, recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)
    ]
    got = run(*narrow[:3], Recurrence("lstm", "lstm", STATES, 0, *narrow[3:]))
    for ours, expected in zip(got, by_numbers(*narrow), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-13)


MASK = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], bool)  # holes; masked from the start; all


@pytest.mark.parametrize("continues", [True, False])
def test_masked_steps_keep_the_state_and_repeat_the_output(recurrence, feeds, by_numbers, continues):
    weights = recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias
    sequences, h, c = by_numbers(*feeds, *weights, MASK)
    if not continues:
        for row in range(B):
            for t in range(T):
                if not MASK[row, : t + 1].any():
                    sequences[row, t] = 0
    got = run(*feeds, recurrence, MASK, continues)
    for ours, expected in zip(got, (sequences, h, c), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-13)


def test_a_call_that_continues_starts_from_h_on_masked_steps(recurrence, feeds):
    _, h, c = feeds
    sequences, last_h, last_c = run(*feeds, recurrence, MASK)
    np.testing.assert_array_equal(sequences[1, :2], np.tile(h[1], (2, 1)))
    np.testing.assert_array_equal(sequences[2], np.tile(h[2], (T, 1)))
    np.testing.assert_array_equal(last_h[2], h[2])
    np.testing.assert_array_equal(last_c[2], c[2])
    fresh, last_h, last_c = run(*feeds, recurrence, MASK, continues=False)
    np.testing.assert_array_equal(fresh[2], np.zeros((T, U)))
    np.testing.assert_array_equal(last_h[2], h[2])
    np.testing.assert_array_equal(last_c[2], c[2])


def test_a_masked_step_is_as_if_it_were_not_there(recurrence, feeds):
    x, h, c = (each[:1] for each in feeds)
    _, last_h, last_c = run(x, h, c, recurrence, MASK[:1])
    _, cut_h, cut_c = run(x[:, MASK[0]], h, c, recurrence)
    np.testing.assert_array_equal(last_h, cut_h)
    np.testing.assert_array_equal(last_c, cut_c)


def test_huge_inputs_saturate_without_overflow(recurrence, feeds):
    x, h, c = feeds
    with np.errstate(all="raise", under="ignore"):
        sequences, last_h, last_c = run(1e6 * x, h, c, recurrence)
    assert np.isfinite(last_c).all()
    assert np.abs(sequences).max() <= 1
    assert np.abs(last_h).max() > 0.5


def film(layer, **options):
    """Return a maker of a ConvLSTM layer that doesn't run the same weights by chance."""
    return lambda **common: layer(2, **{"kernel_size": 3, **options, **common})


def stack(**common):
    dtype = common["dtype"]
    cells = [layers.LSTMCell(U, dtype=dtype), layers.GRUCell(2, dtype=dtype), layers.SimpleRNNCell(5, dtype=dtype)]
    return layers.RNN(layers.StackedRNNCells(cells, dtype=dtype), **common)


def ends_in_lstm(**common):
    dtype = common["dtype"]
    inner = layers.StackedRNNCells([layers.LSTMCell(2, dtype=dtype), layers.LSTMCell(U, dtype=dtype)], dtype=dtype)
    return layers.RNN(inner, **common)


# name: (maker, shape of one time step)
KERAS_LAYERS = {
    "lstm": (lambda **o: layers.LSTM(U, **o), (F,)),
    "lstm hard": (lambda **o: layers.LSTM(U, activation="softsign", recurrent_activation="hard_sigmoid", **o), (F,)),
    "lstm no bias": (lambda **o: layers.LSTM(U, use_bias=False, activation="elu", **o), (F,)),
    "gru": (lambda **o: layers.GRU(U, **o), (F,)),
    "gru reset before": (lambda **o: layers.GRU(U, reset_after=False, **o), (F,)),
    "gru no bias": (lambda **o: layers.GRU(U, use_bias=False, recurrent_activation="relu6", **o), (F,)),
    "gru before, silu": (lambda **o: layers.GRU(U, reset_after=False, activation="silu", **o), (F,)),
    "simple_rnn": (lambda **o: layers.SimpleRNN(U, **o), (F,)),
    "simple_rnn softplus": (lambda **o: layers.SimpleRNN(U, activation="softplus", **o), (F,)),
    "rnn of a gru cell": (lambda **o: layers.RNN(layers.GRUCell(U, dtype=o["dtype"]), **o), (F,)),
    "stack": (stack, (F,)),
    "stack that ends in lstm": (ends_in_lstm, (F,)),
    "cell": (lambda **o: layers.RNN(Averaged(dtype=o["dtype"]), **o), (F,)),
    "cell, echo": (lambda **o: layers.RNN(Echo(dtype=o["dtype"]), **o), (F,)),
    "conv 1d": (film(layers.ConvLSTM1D), (8, 3)),
    "conv 1d strided": (film(layers.ConvLSTM1D, strides=3, padding="same", kernel_size=4), (8, 3)),
    "conv 1d dilated": (film(layers.ConvLSTM1D, dilation_rate=2), (8, 3)),
    "conv 2d": (film(layers.ConvLSTM2D, kernel_size=(3, 2)), (5, 6, 3)),
    "conv 2d same, strided": (film(layers.ConvLSTM2D, strides=(2, 1), padding="same", kernel_size=(3, 4)), (5, 6, 3)),
    "conv 2d strided": (film(layers.ConvLSTM2D, strides=(1, 2), activation="relu6"), (5, 6, 3)),
    "conv 2d dilated": (film(layers.ConvLSTM2D, kernel_size=2, dilation_rate=(2, 3), padding="same"), (5, 6, 3)),
    "conv 3d": (film(layers.ConvLSTM3D, kernel_size=2), (3, 4, 5, 2)),
    "conv 3d same, strided": (film(layers.ConvLSTM3D, strides=(1, 2, 3), padding="same"), (3, 4, 5, 2)),
}
HOLES = MASK
RUNS = {
    "plain": ({}, None),
    "holes": ({}, HOLES),
    "zeros where masked": ({"zero_output_for_mask": True}, HOLES),
    "backwards": ({"go_backwards": True}, None),
    "backwards, holes": ({"go_backwards": True}, HOLES),
    "backwards, holes, zeros": ({"go_backwards": True, "zero_output_for_mask": True}, HOLES),
}


@pytest.mark.parametrize("way", RUNS)
@pytest.mark.parametrize("kind", KERAS_LAYERS)
def test_it_is_what_keras_gives_in_float64(kind, way):
    make, shape = KERAS_LAYERS[kind]
    options, mask = RUNS[way]
    narrow = make(dtype="float32", return_sequences=True, **options)
    wide = make(dtype="float64", return_sequences=True, return_state=True, **options)
    rng = np.random.default_rng(3)
    for layer in (narrow, wide):
        layer.build((None, None, *shape))
    weights = [rng.standard_normal(w.shape).astype(np.float32) for w in narrow.get_weights()]
    weights = [(0.5 if kind.startswith("conv") else 0.8) * w for w in weights]
    for layer in (narrow, wide):
        layer.set_weights(weights)
    recurrence = convert(narrow, "layer")
    x = rng.standard_normal((B, T, *shape))
    states = [rng.standard_normal((B, *size)) for size in recurrence.states.values()]
    given = keras.tree.pack_sequence_as(wide.get_initial_state(B), states)
    expected = keras.tree.flatten(wide(x, initial_state=given, mask=mask))
    got, finals = reference.run(recurrence, x, states, mask, continues=False)
    # A cell of one's own is the Keras cell itself, in float32.
    tolerance = {"atol": 2e-6, "rtol": 1e-6} if kind.startswith("cell") else {"atol": 1e-12, "rtol": 1e-11}
    for ours, keras_own in zip([got, *finals], expected, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, keras_own, **tolerance)


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_is_what_onnx_defines(reset_after):
    """ONNX's gates are z r h too; linear_before_reset is Keras' reset_after."""
    rng = np.random.default_rng(5)
    kernel, recurrent, bias = (rng.standard_normal(shape) for shape in ((F, 3 * U), (U, 3 * U), (2, 3 * U)))
    bias = bias if reset_after else bias * [[1], [0]]
    made = Recurrence(
        "gru", "gru", {"h": (U,)}, 0, kernel, recurrent, bias if reset_after else bias[0], reset_after=reset_after
    )
    x, h = rng.standard_normal((B, T, F)), rng.standard_normal((B, U))
    arrays = {"x": np.transpose(x, (1, 0, 2)), "w": kernel.T[None], "r": recurrent.T[None], "b": bias.reshape(1, -1)}
    arrays["h"] = h[None]
    node = helper.make_node(
        "GRU", ["x", "w", "r", "b", "", "h"], ["y", "y_h"], hidden_size=U, linear_before_reset=int(reset_after)
    )
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in arrays.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "gru", inputs, outputs), opset_imports=[onnx.helper.make_opsetid("", 14)]
    )
    y, y_h = ReferenceEvaluator(model).run(None, {name: each.astype(np.float32) for name, each in arrays.items()})
    got, [final] = reference.run(made, x, [h])
    np.testing.assert_allclose(got, np.transpose(y[:, 0], (1, 0, 2)), atol=1e-5)
    np.testing.assert_allclose(final, y_h[0], atol=1e-5)


def test_a_backward_call_that_continues_repeats_its_state_until_its_first_valid_step(recurrence, feeds):
    x, h, c = feeds
    backward = replace(recurrence, reverse=True)
    got = run(x, h, c, backward, MASK)
    for ours, expected in zip(got, run(x[:, ::-1], h, c, recurrence, MASK[:, ::-1]), strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(got[0][0, :2], np.tile(h[0], (2, 1)))  # row 0 ends in two masked steps


def test_a_masked_output_that_is_zero_leaves_the_state_alone(recurrence, feeds):
    zeroed = run(*feeds, replace(recurrence, zero_masked=True), MASK)
    plain = run(*feeds, recurrence, MASK)
    np.testing.assert_array_equal(zeroed[0], np.where(MASK[:, :, None], plain[0], 0))
    for ours, expected in zip(zeroed[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_steps_carry_the_state_to_the_same_end_as_a_run(recurrence, feeds):
    x, *states = feeds
    for t in range(T):
        output, states = reference.step(recurrence, x[:, t], states)
    sequences, h, c = run(*feeds, recurrence)
    np.testing.assert_array_equal(output, sequences[:, -1])
    np.testing.assert_array_equal(states[0], h)
    np.testing.assert_array_equal(states[1], c)
