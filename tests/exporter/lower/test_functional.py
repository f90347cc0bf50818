"""exporter.lstm computes what keras.layers.LSTM computes, in and out of a tf.function."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import exporter
from signatures.errors import FeedError

B, F, S, U = 3, 4, 2, 5
CLOSE = {"atol": 2e-6, "rtol": 1e-5}
PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")


def draw(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def layer(scramble):
    made = keras.layers.LSTM(U, return_sequences=True, return_state=True)
    made.build((None, None, F))
    return scramble(made)


@pytest.fixture(scope="module")
def state():
    return draw(B, U, seed=2), draw(B, U, seed=3)


@pytest.mark.parametrize("total", [1, 2, 7])
@pytest.mark.parametrize("state_given", [False, True])
def test_it_equals_keras_and_the_equations(layer, by_numbers, state, total, state_given):
    x = draw(B, total, F)
    start = state if state_given else (np.zeros((B, U)), np.zeros((B, U)))
    got = exporter.lstm(x, *layer.get_weights(), initial_state=state if state_given else None)
    in_keras = layer(x, initial_state=list(state) if state_given else None)
    for ours, keras_own, own in zip(got, in_keras, by_numbers(x, *start, *layer.get_weights()), strict=True):
        np.testing.assert_allclose(ours, keras_own, **CLOSE)
        np.testing.assert_allclose(ours, own, **CLOSE)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_it_returns_what_the_layer_with_the_same_options_returns(scramble, return_sequences, return_state, use_bias):
    options = {"return_sequences": return_sequences, "return_state": return_state}
    layer = keras.layers.LSTM(U, use_bias=use_bias, **options)
    layer.build((None, None, F))
    weights = scramble(layer, 4).get_weights()
    x = draw(B, 7, F)
    got = exporter.lstm(x, *weights, *([] if use_bias else [None]), **options)
    assert isinstance(got, tuple) == return_state
    got, expected = (tf.nest.flatten(each) for each in (got, layer(x)))
    assert [each.shape for each in got] == [each.shape for each in expected]
    for ours, keras_own in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, keras_own, **CLOSE)


@pytest.mark.parametrize("lengths", [(7, 0, 3), (1, 7, 7), (0, 0, 0)])
def test_a_sample_stops_at_its_length_as_a_mask_stops_it_in_keras(layer, state, lengths):
    x = draw(B, 7, F)
    got = exporter.lstm(x, *layer.get_weights(), initial_state=state, sequence_lengths=np.array(lengths))
    mask = np.arange(7) < np.array(lengths)[:, None]
    in_keras = layer(x, initial_state=list(state), mask=tf.constant(mask))
    for ours, keras_own in zip(got, in_keras, strict=True):
        np.testing.assert_allclose(ours, keras_own, **CLOSE)


def test_a_sample_stops_as_if_it_had_been_cut_to_its_length(layer, state):
    x, lengths = draw(B, 7, F), (7, 0, 3)
    sequences, h, c = exporter.lstm(x, *layer.get_weights(), initial_state=state, sequence_lengths=lengths)
    for row, length in enumerate(lengths):
        own_h, own_c = (each[row : row + 1] for each in state)
        if length:
            cut, own_h, own_c = layer(x[row : row + 1, :length], initial_state=[own_h, own_c])
            np.testing.assert_allclose(sequences[row, :length], cut[0], **CLOSE)
            np.testing.assert_allclose(sequences[row, length:], np.tile(cut[0, -1], (7 - length, 1)), **CLOSE)
        else:
            np.testing.assert_array_equal(sequences[row], np.zeros((7, U)))
        np.testing.assert_allclose(h[row], own_h[0], **CLOSE)
        np.testing.assert_allclose(c[row], own_c[0], **CLOSE)


def test_zeroing_the_padded_inputs_is_not_the_same_as_lengths(layer):
    x, lengths = draw(B, 7, F), np.array([2, 5, 7])
    zeroed = x * (np.arange(7) < lengths[:, None])[..., None]
    _, h, _ = exporter.lstm(x, *layer.get_weights(), sequence_lengths=lengths)
    _, from_zeros, _ = exporter.lstm(zeroed, *layer.get_weights())
    assert np.abs(h[:2] - from_zeros[:2]).min(axis=-1).max() > 1e-3
    np.testing.assert_allclose(h[2], from_zeros[2], **CLOSE)


def test_what_stands_in_the_padding_is_never_seen(layer):
    x, lengths = draw(B, 7, F), np.array([2, 0, 7])
    other = np.where((np.arange(7) < lengths[:, None])[..., None], x, 1e30).astype(np.float32)
    got, again = (exporter.lstm(each, *layer.get_weights(), sequence_lengths=lengths) for each in (x, other))
    for first, second in zip(got, again, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def wide(scramble):
    """A layer over F + S features."""
    made = keras.layers.LSTM(U, return_sequences=True, return_state=True)
    made.build((None, None, F + S))
    return scramble(made, 5)


def test_static_inputs_equal_the_vector_joined_to_every_time_step(wide, state):
    x, static = draw(B, 7, F), draw(B, S, seed=6)
    joined = np.concatenate([x, np.repeat(static[:, None], 7, axis=1)], axis=-1)
    got = exporter.lstm(x, *wide.get_weights(), initial_state=state, static_inputs=static)
    for ours, keras_own in zip(got, wide(joined, initial_state=list(state)), strict=True):
        np.testing.assert_allclose(ours, keras_own, **CLOSE)


def test_static_inputs_are_multiplied_once_and_not_in_the_loop(wide):
    specs, weights = [tf.TensorSpec([None, None, F]), tf.TensorSpec([None, S])], wide.get_weights()
    run = tf.function(lambda x, s: exporter.lstm(x, *weights, static_inputs=s), input_signature=specs, autograph=False)
    definition = run.get_concrete_function().graph.as_graph_def()
    outside = [node.name for node in definition.node if node.op in PRODUCTS]
    inside = [n.name for each in definition.library.function for n in each.node_def if n.op in PRODUCTS]
    assert len(outside) == 2  # one for all time steps, one for the vector
    assert len(inside) == 1  # the state's


@pytest.mark.parametrize("with_lengths", [False, True])
def test_it_runs_in_a_function_with_unknown_batch_and_time(layer, state, with_lengths):
    specs = [
        tf.TensorSpec([None, None, F]),
        tf.TensorSpec([None, U]),
        tf.TensorSpec([None, U]),
        tf.TensorSpec([None], tf.int32),
    ]
    weights = layer.get_weights()

    @tf.function(input_signature=specs, autograph=False)
    def run(x, h, c, n):
        extra = {"sequence_lengths": n} if with_lengths else {}
        return exporter.lstm(x, *weights, initial_state=(h, c), **extra)

    assert [each.shape.as_list() for each in run.get_concrete_function().structured_outputs] == [
        [None, None, U],
        [None, U],
        [None, U],
    ]
    for rows, total in ((1, 1), (2, 2), (B, 7)):
        x, (h, c) = draw(rows, total, F), (each[:rows] for each in state)
        n = np.arange(rows, dtype=np.int32) % (total + 1)
        mask = tf.sequence_mask(n, total) if with_lengths else None
        for ours, keras_own in zip(run(x, h, c, n), layer(x, initial_state=[h, c], mask=mask), strict=True):
            np.testing.assert_allclose(ours, keras_own, **CLOSE)


def test_float64_inputs_are_computed_in_float64(layer, by_numbers, state):
    x = draw(B, 7, F).astype(np.float64) / 3
    got = exporter.lstm(x, *layer.get_weights(), initial_state=state)
    for ours, own in zip(got, by_numbers(x, *state, *layer.get_weights()), strict=True):
        assert ours.dtype == tf.float64
        np.testing.assert_allclose(ours, own, atol=1e-13, rtol=1e-12)


def test_gradients_equal_those_of_keras(layer):
    x = tf.constant(draw(B, 7, F))
    weights = [tf.Variable(each) for each in layer.get_weights()]
    mix = draw(B, 7, U, seed=7)
    with tf.GradientTape() as tape:
        tape.watch(x)
        sequences, h, c = exporter.lstm(x, *weights)
        loss = tf.reduce_sum(sequences * mix) + tf.reduce_sum(h * h) + tf.reduce_sum(tf.sin(c))
    ours = tape.gradient(loss, [x, *weights])
    with tf.GradientTape() as tape:
        tape.watch(x)
        sequences, h, c = layer(x)
        loss = tf.reduce_sum(sequences * mix) + tf.reduce_sum(h * h) + tf.reduce_sum(tf.sin(c))
    in_keras = tape.gradient(loss, [x, *(variable.value for variable in layer.trainable_variables)])
    assert len(ours) == len(in_keras) == 4
    for got, expected in zip(ours, in_keras, strict=True):
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"inputs": (B, F)}, "[batch, time, features]"),
        ({"kernel": (F + 1, 4 * U)}, f"[{F}, {4 * U}]"),
        ({"kernel": (F, 3 * U)}, f"[{F}, {4 * U}]"),
        ({"recurrent_kernel": (U, 3 * U)}, "[units, 4 * units]"),
        ({"static_inputs": (B, S)}, f"[{F + S}, {4 * U}]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, said):
    fitting = {"inputs": (B, 7, F), "kernel": (F, 4 * U), "recurrent_kernel": (U, 4 * U), "bias": (4 * U,)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in {**fitting, **shapes}.items()}
    with pytest.raises(FeedError) as refused:
        exporter.lstm(**arrays)
    assert str(refused.value).startswith("lstm: ")
    assert said in str(refused.value)


OTHER_SIZES = {
    "initial_state h": {"initial_state": (draw(B, U + 1), draw(B, U))},
    "initial_state c": {"initial_state": (draw(B, U), draw(B + 1, U))},
    "bias": {"bias": np.zeros(1, np.float32)},
    "sequence_lengths": {"sequence_lengths": np.array([7] * (B + 1))},
}


@pytest.mark.parametrize("named", OTHER_SIZES)
def test_a_state_bias_or_lengths_of_another_size_are_named(layer, named):
    kernel, recurrent_kernel, bias = layer.get_weights()
    given = {"inputs": draw(B, 7, F), "kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": bias}
    with pytest.raises(FeedError, match=f"lstm: {named} has shape"):
        exporter.lstm(**{**given, **OTHER_SIZES[named]})


def test_static_inputs_need_kernel_rows_of_their_own(wide):
    with pytest.raises(FeedError, match=rf"kernel has shape .* here \[{F}, "):
        exporter.lstm(draw(B, 7, F), *wide.get_weights())
