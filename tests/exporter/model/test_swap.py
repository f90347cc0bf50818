"""Run on the installed Keras: replacing the time loops changes nothing but what the loops are given and give."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from custom import Averaged
from keras import Input, layers, ops

from exporter.memory.convert import convert
from exporter.model import swap
from exporter.model.swap import keras_loop
from signatures.contract import identifier

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
    """Return the recurrent layers that have ports: here those that no TimeDistributed is around."""
    found = {identifier(path): layer for path, layer in swap.recurrent_layers(model)}
    inside = inner_of(model)
    return {prefix: (layer, convert(layer, prefix)) for prefix, layer in found.items() if prefix not in inside}


def inner_of(model):
    """Return the recurrent layers inside TimeDistributed."""
    outer = [path for path, layer in swap.sublayers(model) if isinstance(layer, layers.TimeDistributed)]
    found = {path: layer for path, layer in swap.recurrent_layers(model) if path.startswith(tuple(outer) or "?")}
    return {identifier(path): (layer, convert(layer, identifier(path))) for path, layer in found.items()}


def run(model, x, feeds=None, compute=keras_loop):
    return swap.call(model, prefixed(model), x, feeds or {}, compute)


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
    assert [path for path, _ in swap.recurrent_layers(made[kind])] == KINDS[kind][1]


def test_a_wrapper_stands_for_the_recurrent_layer_in_it_unless_it_is_known_how_it_runs_it():
    model = inside_wrappers()
    assert [(path, type(layer).__name__) for path, layer in swap.recurrent_layers(model)] == [
        ("both/forward", "LSTM"),
        ("both/backward", "LSTM"),
        ("each/inner", "LSTM"),
        ("own", "Twice"),
        ("gru", "GRU"),
    ]


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
    everything = [model, *(layer for _, layer in swap.sublayers(model))]
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
    with swap.recorded(model) as record:
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
    with swap.recorded(model) as record, pytest.raises(ValueError, match="not for me"):
        model(x)
    assert record[-1] == ("Layer 'picky'", None)
    assert [what for what, _ in record if what.startswith("Layer")][-2] == "Layer 'lstm'"
    assert "call" not in model.layers[-1].__dict__


def test_time_distributed_layers_run_on_all_steps_at_once_when_lowered(scramble, x):
    inner = keras.Sequential([Input((F,)), layers.Dense(5, activation="tanh"), layers.Dense(2)])
    model = keras.Sequential([Input((None, F)), layers.TimeDistributed(inner), layers.LSTM(2, name="lstm")])
    scramble(model)
    lowered, calls = swap.call(model, prefixed(model), x, {}, keras_loop, lowered=True)
    np.testing.assert_allclose(lowered, model(x), atol=1e-6)
    np.testing.assert_allclose(calls[0].sequences, model.layers[0](x), atol=1e-6)

    found = prefixed(model)

    def loops(lowered):
        run = tf.function(
            lambda x: swap.call(
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


def two_ways(merge_mode, **options):
    x = Input((None, F))
    own = {"return_sequences": True, **options}
    both = layers.Bidirectional(layers.LSTM(4, **own), merge_mode=merge_mode, name="both")(layers.Masking()(x))
    return keras.Model(x, both)


def halves_that_differ():
    x = Input((None, F))
    back = layers.GRU(2, return_sequences=True, go_backwards=True, activation="elu")
    both = layers.Bidirectional(layers.LSTM(4, return_sequences=True), backward_layer=back, name="both")(x)
    return keras.Model(x, both)


def backwards():
    x = Input((None, F))
    y = layers.Masking()(x)
    y, h, c = layers.LSTM(4, go_backwards=True, return_sequences=True, return_state=True, name="back")(y)
    return keras.Model(x, [y, h, c])


def cells():
    x = Input((None, F))
    first = layers.RNN(Averaged(), return_sequences=True, name="own")(x)
    one = layers.RNN(layers.GRUCell(3), name="one")(first)
    many = layers.RNN([layers.LSTMCell(2), layers.SimpleRNNCell(5)], return_state=True, name="many")(first)
    return keras.Model(x, [first, one, *keras.tree.flatten(many)])


def inside_time_distributed():
    x = Input((None, F))
    frames = layers.Reshape((-1, F, 1))(x)
    inner = keras.Sequential([Input((F, 1)), layers.GRU(2, return_sequences=True, name="low"), layers.LSTM(3)])
    y = layers.TimeDistributed(inner, name="each")(frames)
    return keras.Model(x, layers.SimpleRNN(2, name="top")(y))


MORE = {
    **{f"bidirectional {mode}": (lambda mode=mode: two_ways(mode)) for mode in ("concat", "sum", "mul", "ave", None)},
    "bidirectional state": lambda: two_ways("sum", return_state=True),
    "bidirectional last": lambda: two_ways("concat", return_sequences=False, zero_output_for_mask=True),
    "bidirectional different": halves_that_differ,
    "go_backwards": backwards,
    "cells": cells,
    "time distributed": inside_time_distributed,
}


@pytest.fixture(scope="module")
def more(scramble):
    """Build each model once, with the plain data of the layers inside TimeDistributed."""
    return {kind: scramble(build()) for kind, build in MORE.items()}


@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("kind", MORE)
def test_wrapped_layers_give_what_they_give_in_keras(more, x, kind, lowered):
    model = more[kind]
    expected = keras.tree.flatten(model(x))
    watched = [(each, set(each.__dict__)) for _, each in swap.sublayers(model)]
    outputs, calls = swap.call(model, prefixed(model), x, {}, keras_loop, lowered, inner_of(model))
    for ours, keras_own in zip(keras.tree.flatten(outputs), expected, strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)
    assert {made.name for made in calls} == set(prefixed(model))
    for each, before in watched:
        assert set(each.__dict__) == before


def test_the_halves_of_a_bidirectional_layer_are_two_calls_that_run_opposite_ways(more, x):
    _, calls = run(more["bidirectional different"], x)
    forward, backward = sorted(calls, key=lambda made: made.recurrence.reverse)
    assert (forward.name, backward.name) == ("both_forward", "both_backward")
    assert (forward.recurrence.kind, backward.recurrence.kind) == ("lstm", "gru")
    assert (forward.recurrence.reverse, backward.recurrence.reverse) == (False, True)
    for made in calls:
        np.testing.assert_array_equal(made.sequences, x)
        np.testing.assert_array_equal(made.outputs[0][:, -1], made.outputs[1][0])
        assert made.continues


def random_states(model, x):
    """Return a random value for every state port that a model has."""
    rng = np.random.default_rng(9)
    _, calls = run(model, x)
    return {
        f"{made.name}_{short}_in": tf.constant(rng.standard_normal((B, *shape)).astype(np.float32))
        for made in calls
        for short, shape in made.recurrence.states.items()
    }


def test_states_from_the_feeds_go_to_each_half(more, x):
    model = more["bidirectional different"]
    state = random_states(model, x)
    assert set(state) == {"both_forward_h_in", "both_forward_c_in", "both_backward_h_in"}
    given = [state["both_forward_h_in"], state["both_forward_c_in"]], [state["both_backward_h_in"]]
    both = model.layers[-1]
    ahead = both.forward_layer(x, initial_state=given[0])
    back = tf.reverse(both.backward_layer(x, initial_state=given[1]), [1])
    outputs, _ = run(model, x, state)
    np.testing.assert_allclose(outputs, tf.concat([ahead, back], -1), atol=1e-6)
    assert np.abs(outputs - model(x)).max() > 1e-2


def test_states_from_the_feeds_go_to_each_cell(more, x):
    model = more["cells"]
    state = random_states(model, x)
    names = ["own_state_0", "own_state_1", "one_h", "many_0_h", "many_0_c", "many_1_h"]
    assert sorted(state) == sorted(f"{name}_in" for name in names)
    own, one, many = (next(each for each in model.layers if each.name == name) for name in ("own", "one", "many"))
    value = {name: state[f"{name}_in"] for name in names}
    y = own(x, initial_state=[value["own_state_0"], value["own_state_1"]])
    expected = [y, one(y, initial_state=[value["one_h"]])]
    nested = [[value["many_0_h"], value["many_0_c"]], [value["many_1_h"]]]
    expected += keras.tree.flatten(many(y, initial_state=nested))
    outputs, calls = run(model, x, state)
    for ours, keras_own in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)
    finals = {made.name: made.outputs[1] for made in calls}
    for ours, keras_own in zip(finals["many"], expected[3:], strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)


def test_a_backward_layer_starts_from_the_feeds_at_the_end_of_the_sequence(more, x):
    model = more["go_backwards"]
    state = random_states(model, x)
    given = [state["back_h_in"], state["back_c_in"]]
    expected = model.layers[-1](x, initial_state=given, mask=tf.reduce_any(x != 0, -1))
    outputs, [made] = run(model, x, state)
    started = np.cumsum(np.flip(np.asarray(made.mask), 1), axis=1) > 0
    assert started.all()  # no row ends in masked steps: what Keras gives before the first one doesn't matter
    for ours, keras_own in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)


def test_a_backward_call_that_continues_repeats_its_state_where_the_end_is_masked(more, x):
    padded = np.array(x)
    padded[2, 4:] = 0
    state = random_states(more["go_backwards"], tf.constant(padded))
    (y, _, _), _ = run(more["go_backwards"], tf.constant(padded), state)
    np.testing.assert_array_equal(y[2, :2], np.tile(state["back_h_in"][2], (2, 1)))
    fresh, _ = run(more["go_backwards"], tf.constant(padded))
    np.testing.assert_array_equal(fresh[0][2, :2], np.zeros((2, 4)))


@pytest.mark.parametrize("given", ["model inputs", "another layer"])
def test_a_bidirectional_layer_whose_state_the_model_gives_does_not_continue(scramble, x, given):
    frames = Input((None, F))
    make = lambda name, **options: layers.Bidirectional(layers.LSTM(2, return_state=True), name=name, **options)  # noqa: E731
    if given == "another layer":
        _, *states = make("first")(frames)
        inputs = frames
    else:
        states = [Input((2,)) for _ in range(4)]
        inputs = [frames, *states]
    model = scramble(keras.Model(inputs, make("second")(frames, initial_state=states)))
    rng = np.random.default_rng(2)
    values = [tf.constant(rng.standard_normal((B, 2)).astype(np.float32)) for _ in range(4)]
    fed = x if given == "another layer" else [x, *values]
    outputs, calls = run(model, fed, random_states(model, fed) if given == "model inputs" else {})
    for ours, keras_own in zip(outputs, model(fed), strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-6)
    continues = {made.name: made.continues for made in calls}
    assert continues["second_forward"] is continues["second_backward"] is False
    if given == "model inputs":
        by_name = {made.name: made.states for made in calls}
        for state, value in zip(by_name["second_forward"] + by_name["second_backward"], values, strict=True):
            np.testing.assert_array_equal(state, value)
    else:
        assert continues["first_forward"] is continues["first_backward"] is True


def test_what_compute_gives_inside_time_distributed_is_what_the_model_goes_on_with(more, x):
    model, seen = more["time distributed"], []

    def constant(made):
        seen.append(made.name)
        rows, total = made.sequences.shape[:2]
        shapes = [(rows, *shape) for shape in made.recurrence.states.values()]
        sequences = tf.fill([rows, total, made.recurrence.units], 0.25)
        return sequences, [tf.fill(shape, 0.25) for shape in shapes]

    _, calls = swap.call(model, prefixed(model), x, {}, constant, True, inner_of(model))
    assert [made.name for made in calls] == ["top"]
    assert len(seen) == 3
    assert seen[-1] == "top"
    assert set(seen[:2]) == set(inner_of(model))
    np.testing.assert_array_equal(calls[0].sequences, np.full((B, T, 3), 0.25))


def test_layers_inside_time_distributed_start_anew_at_every_outer_step(more, x):
    model = more["time distributed"]
    states = []

    def watched(made):
        states.append((made.name, [np.asarray(state) for state in made.states], made.continues))
        return keras_loop(made)

    swap.call(model, prefixed(model), x, random_states(model, x), watched, True, inner_of(model))
    inner = [(given, continues) for name, given, continues in states if name != "top"]
    assert len(inner) == 2
    for given, continues in inner:
        assert not continues
        assert all(len(state) == B * T and not state.any() for state in given)
