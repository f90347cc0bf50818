"""Run on the installed Keras: replacing the time loops changes nothing but what the loops are given and give."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import Input, layers, ops

from exporter import rewrite
from exporter.layers import convert
from exporter.rewrite import keras_loop
from signatures.contract import identifier

# Keras 3.15 itself trips over NumPy 2 while it reads arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

B, T, F = 3, 6, 3


def sequential():
    return keras.Sequential(
        [Input((None, F)), layers.LSTM(4, return_sequences=True, name="low"), layers.LSTM(2, name="high")]
    )


def functional():
    x = Input((None, F))
    y, h, c = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(
        layers.Dense(5, activation="tanh")(x)
    )
    return keras.Model(x, {"y": layers.Dense(2)(y), "h": h, "c": c})


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm = layers.LSTM(4, return_sequences=True, name="lstm")
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return self.head(ops.relu(self.lstm(x)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 2, F), np.float32))
    return model


def nested():
    x = Input((None, F))
    inner = keras.Model(x, layers.LSTM(4, return_sequences=True, name="lstm")(x), name="inner")
    outer = Input((None, F))
    return keras.Model(outer, layers.LSTM(2, name="lstm")(inner(outer)))


def shared():
    x = Input((None, F))
    twice = layers.LSTM(F, return_sequences=True, name="twice")
    return keras.Model(x, [twice(twice(x)), layers.LSTM(2, name="once")(x)])


def masked():
    return keras.Sequential([Input((None, F)), layers.Masking(), layers.LSTM(4, return_sequences=True, name="lstm")])


def dropped():
    return keras.Sequential([Input((None, F)), layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5, name="lstm")])


def stateful():
    return keras.Sequential([Input(batch_shape=(B, T, F)), layers.LSTM(4, stateful=True, name="lstm")])


def unrolled():
    return keras.Sequential([Input((T, F)), layers.LSTM(4, unroll=True, name="lstm")])


def encoder_decoder():
    x = Input((None, F))
    _, h, c = layers.LSTM(4, return_state=True, name="encoder")(x)
    return keras.Model(x, layers.LSTM(4, return_sequences=True, name="decoder")(x, initial_state=[h, c]))


class Twice(layers.Wrapper):
    def call(self, x):
        return self.layer(x) + self.layer(x)


def inside_wrappers():
    x = Input((None, F))
    outer = Input((None, 2, F))
    both = layers.Bidirectional(layers.LSTM(2), name="both")(x)
    each = layers.TimeDistributed(layers.LSTM(2, name="inner"), name="each")(outer)
    plain = layers.TimeDistributed(layers.Dense(2), name="plain")(x)
    own = Twice(layers.LSTM(2), name="own")(x)
    return keras.Model([x, outer], [both, each, plain, own, layers.GRU(2, name="gru")(x)])


KINDS = {
    "sequential": (sequential, ["low", "high"]),
    "functional": (functional, ["lstm"]),
    "subclassed": (subclassed, ["lstm"]),
    "nested": (nested, ["inner/lstm", "lstm"]),
    "shared": (shared, ["twice", "once"]),
    "masked": (masked, ["lstm"]),
    "dropout": (dropped, ["lstm"]),
    "stateful": (stateful, ["lstm"]),
    "unrolled": (unrolled, ["lstm"]),
    "encoder_decoder": (encoder_decoder, ["encoder", "decoder"]),
}


@pytest.fixture(scope="module")
def made(scramble):
    """Build each kind of model once."""
    return {kind: scramble(build()) for kind, (build, _) in KINDS.items()}


@pytest.fixture
def x():
    values = np.random.default_rng(1).standard_normal((B, T, F)).astype(np.float32)
    values[0, 2:4] = values[1, :2] = 0  # holes for a Masking layer, and a start
    return tf.constant(values)


def prefixed(model):
    found = {identifier(path): layer for path, layer in rewrite.recurrent_layers(model)}
    return {prefix: (layer, convert(layer, prefix)) for prefix, layer in found.items()}


def run(model, x, feeds=None, compute=keras_loop):
    return rewrite.call(model, prefixed(model), x, feeds or {}, compute)


def state_of(name, units, seed=5):
    rng = np.random.default_rng(seed)
    return {f"{name}_{s}_in": tf.constant(rng.standard_normal((B, units)).astype(np.float32)) for s in "hc"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"masked"}))
def test_from_zero_state_the_model_gives_what_it_gives_in_keras(made, x, kind):
    model = made[kind]
    if kind == "stateful":
        model.layers[0].reset_state()
    expected = keras.tree.flatten(model(x))
    outputs, calls = run(model, x)
    got = keras.tree.flatten(outputs)
    assert len(got) == len(expected)
    for ours, keras_own in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, keras_own)
    assert len(calls) >= len(KINDS[kind][1])


def test_a_masked_model_repeats_its_state_before_the_first_valid_step_and_is_else_as_in_keras(made, x):
    expected = made["masked"](x).numpy()
    (got, _), (again, _) = run(made["masked"], x), run(made["masked"], x, state := state_of("lstm", 4))
    np.testing.assert_array_equal(got, expected)  # the state is zero: repeating it is what Keras does
    np.testing.assert_array_equal(again[1, :2], np.tile(state["lstm_h_in"][1], (2, 1)))
    np.testing.assert_array_equal(again[0, 2:4], np.tile(again[0, 1], (2, 1)))
    assert np.abs(again - expected)[2].min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers_are_named_by_their_path(made, kind):
    assert [path for path, _ in rewrite.recurrent_layers(made[kind])] == KINDS[kind][1]


def test_a_wrapper_stands_for_the_recurrent_layer_in_it_unless_it_is_known_how_it_runs_it():
    model = inside_wrappers()
    assert [(path, type(layer).__name__) for path, layer in rewrite.recurrent_layers(model)] == [
        ("both/forward", "LSTM"),
        ("both/backward", "LSTM"),
        ("own", "Twice"),
        ("gru", "GRU"),
    ]
    assert [(path, type(layer).__name__) for path, layer in rewrite.repeated_layers(model)] == [("each/inner", "LSTM")]


def test_calls_tell_what_each_layer_was_given_and_gave(made, x):
    outputs, calls = run(made["shared"], x)
    assert sorted(call.name for call in calls) == ["once", "twice", "twice_1"]
    by_name = {call.name: call for call in calls}
    np.testing.assert_array_equal(by_name["twice"].sequences, x)
    np.testing.assert_array_equal(by_name["twice_1"].sequences, by_name["twice"].outputs[0])
    np.testing.assert_array_equal(by_name["twice_1"].outputs[0], outputs[0])
    np.testing.assert_array_equal(by_name["once"].outputs[1][0], outputs[1])
    assert by_name["twice"].recurrence is by_name["twice_1"].recurrence
    assert all(call.mask is None and call.continues for call in calls)


def test_a_layer_whose_state_the_model_gives_does_not_continue(made, x):
    _, calls = run(made["encoder_decoder"], x, state_of("decoder", 4))
    encoder, decoder = calls
    assert (encoder.continues, decoder.continues) == (True, False)
    for given, final in zip(decoder.states, encoder.outputs[1], strict=True):
        np.testing.assert_array_equal(given, final)


def test_state_from_the_feeds_is_where_the_loop_starts(made, x):
    model, state = made["functional"], state_of("lstm", 4)
    inner = next(each for each in model.layers if isinstance(each, layers.LSTM))
    before = next(each for each in model.layers if isinstance(each, layers.Dense))
    y, h, c = inner(before(x), initial_state=list(state.values()))
    outputs, _ = run(model, x, state)
    np.testing.assert_array_equal(outputs["h"], h)
    np.testing.assert_array_equal(outputs["c"], c)
    assert np.abs(outputs["h"] - model(x)["h"]).max() > 1e-3


def test_running_in_two_pieces_is_running_whole(made, x):
    for kind, names in (("sequential", ["low", "high"]), ("shared", ["twice", "twice_1", "once"])):
        whole, _ = run(made[kind], x)
        _, calls = run(made[kind], x[:, :4])
        assert sorted(call.name for call in calls) == sorted(names)
        state = {f"{call.name}_{s}_in": value for call in calls for s, value in zip("hc", call.outputs[1], strict=True)}
        rest, _ = run(made[kind], x[:, 4:], state)
        last = [keras.tree.flatten(each)[-1] for each in (whole, rest)]
        np.testing.assert_allclose(*last, atol=1e-6)


def test_a_stateful_layer_keeps_its_own_state_out_of_it(made, x):
    model = made["stateful"]
    model(x)  # leaves a state behind
    kept = [each.numpy() for each in model.layers[0].states]
    assert all(np.abs(each).max() > 0 for each in kept)
    outputs, _ = run(model, x)
    for before, after in zip(kept, model.layers[0].states, strict=True):
        np.testing.assert_array_equal(before, after)
    model.layers[0].reset_state()
    np.testing.assert_array_equal(outputs, model(x))


@pytest.mark.parametrize("kind", ["sequential", "nested", "unrolled", "stateful", "dropout"])
@pytest.mark.parametrize("raises", [False, True])
def test_nothing_is_left_on_the_layers_afterwards(made, x, kind, raises):
    model = made[kind]
    everything = [model, *(layer for _, layer in rewrite.sublayers(model))]
    watched = [dict(each.__dict__) for each in everything]

    def compute(call):
        if raises:
            raise RuntimeError("stopped on purpose")
        assert any(each.__dict__.keys() - before.keys() for each, before in zip(everything, watched, strict=True))
        return keras_loop(call)

    if raises:
        with pytest.raises(RuntimeError, match="stopped on purpose"):
            run(model, x, compute=compute)
    else:
        run(model, x, compute=compute)
    for each, before in zip(everything, watched, strict=True):
        assert each.__dict__.keys() == before.keys()
        assert all(
            each.__dict__[name] is before[name] for name in ("unroll", "stateful", "return_sequences") if name in before
        )


def test_what_compute_gives_is_what_the_model_goes_on_with(made, x):
    def constant(call):
        units = call.recurrence.units
        return tf.fill([B, T, units], 0.25), [tf.fill([B, units], 0.5), tf.fill([B, units], 0.75)]

    outputs, _ = run(made["functional"], x, compute=constant)
    head = made["functional"].layers[-1] if isinstance(made["functional"].layers[-1], layers.Dense) else None
    np.testing.assert_array_equal(outputs["h"], np.full((B, 4), 0.5))
    np.testing.assert_array_equal(outputs["c"], np.full((B, 4), 0.75))
    np.testing.assert_allclose(outputs["y"], head(tf.fill([B, T, 4], 0.25)), atol=1e-6)


@pytest.mark.parametrize("kind", ["sequential", "subclassed", "unrolled"])
def test_lengths_stop_each_sample(made, x, kind):
    model, lengths = made[kind], np.array([2, 0, T], np.int32)
    _, calls = run(model, x, {"lengths": tf.constant(lengths)})
    for row in (0, 2):
        _, cut = run(model, x[row : row + 1, : lengths[row]])
        for call, alone in zip(calls, cut, strict=True):
            for got, expected in zip(call.outputs[1], alone.outputs[1], strict=True):
                np.testing.assert_allclose(got[row], expected[0], atol=1e-6)
    for call in calls:
        assert [np.abs(final[1]).max() for final in call.outputs[1]] == [0, 0]


def test_lengths_and_the_models_own_mask_hold_together(made, x):
    _, calls = run(made["masked"], x, {"lengths": tf.constant([T, 3, 1])})
    own = np.array([[1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1], [1] * T], bool)
    np.testing.assert_array_equal(calls[0].mask, own & (np.arange(T) < np.array([[T], [3], [1]])))


def test_lengths_leave_no_mask_behind_on_the_callers_tensor(made, x):
    mine = tf.identity(x)
    run(made["sequential"], mine, {"lengths": tf.constant([1, 1, 1])})
    got, expected = made["sequential"](mine), made["sequential"](x)
    np.testing.assert_array_equal(got, expected)


def test_recorded_lists_every_innermost_layer_in_the_order_they_run(x):
    inner_x = Input((None, F))
    inner = keras.Model(inner_x, layers.LSTM(2, return_sequences=True, name="deep")(inner_x), name="inner")
    outer = Input((None, F))
    last = layers.LSTM(2, return_state=True, name="last")
    model = keras.Model(outer, last(inner(layers.Dense(F, name="first")(outer))))
    with rewrite.recorded(model) as record:
        outputs = model(x)
    model(x)  # is not watched any more
    layers_run = [what for what, _ in record if what.startswith("Layer") and "input" not in what]
    assert layers_run == ["Layer 'first'", "Layer 'inner/deep'", *["Layer 'last'"] * 3]
    assert record[0][0].startswith("An operation before layer")
    np.testing.assert_array_equal(record[0][1], x)
    for (_, recorded), output in zip(record[-3:], outputs, strict=True):
        np.testing.assert_array_equal(recorded, output)


def test_recorded_ends_with_the_layer_that_raised(x):
    class Picky(layers.Layer):
        def call(self, x):
            if x.shape[1] == T:
                raise ValueError("not for me")
            return x

    model = keras.Sequential(
        [Input((None, F)), layers.LSTM(2, return_sequences=True, name="lstm"), Picky(name="picky")]
    )
    with rewrite.recorded(model) as record, pytest.raises(ValueError, match="not for me"):
        model(x)
    assert record[-1] == ("Layer 'picky'", None)
    assert [what for what, _ in record if what.startswith("Layer")][-2] == "Layer 'lstm'"
    assert "call" not in model.layers[-1].__dict__


def test_time_distributed_layers_run_on_all_steps_at_once_when_lowered(scramble, x):
    inner = keras.Sequential([Input((F,)), layers.Dense(5, activation="tanh"), layers.Dense(2)])
    model = keras.Sequential([Input((None, F)), layers.TimeDistributed(inner), layers.LSTM(2, name="lstm")])
    scramble(model)
    lowered, calls = rewrite.call(model, prefixed(model), x, {}, keras_loop, lowered=True)
    np.testing.assert_allclose(lowered, model(x), atol=1e-6)
    np.testing.assert_allclose(calls[0].sequences, model.layers[0](x), atol=1e-6)

    found = prefixed(model)

    def loops(lowered):
        run = tf.function(
            lambda x: rewrite.call(
                model, found, x, {}, lambda call: (call.sequences, [call.sequences[:, -1]] * 2), lowered
            )[0],
            input_signature=[tf.TensorSpec([None, None, F])],
            autograph=False,
        )
        return [op.name for op in run.get_concrete_function().graph.get_operations() if op.type.endswith("While")]

    assert loops(False)
    assert not loops(True)


def test_lengths_are_no_mask_of_vectors_without_a_time_axis(scramble, x):
    frames, who, what = Input((None, F)), Input((2,)), Input((5,))
    vector = layers.Add()([layers.Dense(4)(who), layers.Dense(4)(what)])
    model = scramble(keras.Model([frames, who, what], layers.Add()([vector, layers.LSTM(4, name="lstm")(frames)])))
    feeds = [x, tf.ones([B, 2]), tf.ones([B, 5])]
    outputs, _ = run(model, feeds, {"lengths": tf.constant([T] * B)})
    np.testing.assert_allclose(outputs, model([tf.identity(each) for each in feeds]), atol=1e-6)
