"""Every lowering gives what the float64 reference gives, for every kind of layer, masked or not, eagerly and traced."""

import functools
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from custom import Averaged
from keras import layers

from exporter.lower import block, loop, native, scan, unrolled, xla
from exporter.lower.lowering import LOWERINGS
from exporter.lower.plan import STEP_BY_STEP, Schedule
from exporter.memory.convert import convert
from exporter.memory.recurrence import Recurrence
from exporter.prove import reference

F, U = 3, 4
CLOSE = {"atol": 3e-6, "rtol": 1e-5}
TOTALS = (1, 2, 13, 14, 15, 113)  # around the loop's inner blocks and past the ones around them
SCHEDULES_TRIED = (Schedule(4, (8, 24)), Schedule(3, (6, 12, 24)), Schedule(1, (2, 4, 8, 16)))
"""Groups of steps in blocks that are small enough to be passed."""


def drawn(kind, gates, units=U, features=F, biases=1, **options):
    """Return a recurrence with random weights."""
    rng = np.random.default_rng(units)
    shapes = (features, gates * units), (units, gates * units), (biases, gates * units)
    kernel, recurrent, bias = (0.7 * rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    states = {"h": (units,), "c": (units,)} if kind == "lstm" else {"h": (units,)}
    bias = bias if biases == 2 else bias[0]
    return Recurrence(kind, kind, states, 0, kernel, recurrent, bias, **options)


def converted(layer, shape):
    layer.build((None, None, *shape))
    rng = np.random.default_rng(1)
    layer.set_weights([0.5 * rng.standard_normal(w.shape).astype(np.float32) for w in layer.get_weights()])
    return convert(layer, "layer")


def stack():
    cells = drawn("lstm", 4, 5), drawn("gru", 3, 2, 5, biases=2, reset_after=True), drawn("simple_rnn", 1, U, 2)
    return Recurrence("stack", "stack", {"0_h": (5,), "0_c": (5,), "1_h": (2,), "2_h": (U,)}, 3, cells=cells)


# name: (maker, shape of one time step)
KINDS = {
    "lstm": (lambda: drawn("lstm", 4), (F,)),
    "lstm hard": (lambda: drawn("lstm", 4, activation="softsign", recurrent_activation="hard_sigmoid"), (F,)),
    "lstm gelu": (lambda: drawn("lstm", 4, activation="gelu", recurrent_activation="keras2_hard_sigmoid"), (F,)),
    "gru": (lambda: drawn("gru", 3, biases=2, reset_after=True), (F,)),
    "gru reset before": (lambda: drawn("gru", 3, recurrent_activation="softmax"), (F,)),
    "simple_rnn": (lambda: drawn("simple_rnn", 1, activation="elu"), (F,)),
    "stack": (stack, (F,)),
    "cell": (lambda: converted(layers.RNN(Averaged()), (F,)), (F,)),
    "conv 1d": (lambda: converted(layers.ConvLSTM1D(2, 3, strides=2, padding="same"), (7, F)), (7, F)),
    "conv 2d": (lambda: converted(layers.ConvLSTM2D(2, (3, 2), dilation_rate=(1, 2)), (5, 6, F)), (5, 6, F)),
    "conv 3d": (lambda: converted(layers.ConvLSTM3D(2, 2), (3, 4, 3, 2)), (3, 4, 3, 2)),
}
NAMES = [name for name in LOWERINGS if name != "xla"]  # which compiles anew for each size
PAIRS = [(kind, name) for kind in KINDS for name in NAMES if name != "block" or kind == "lstm"]


@pytest.fixture(scope="module")
def recurrences():
    return {kind: make() for kind, (make, _) in KINDS.items()}


@pytest.fixture(scope="module")
def weights(recurrences):
    return {
        (kind, name): {key: tf.Variable(w) for key, w in LOWERINGS[name].weights(recurrences[kind]).items()}
        for kind, name in PAIRS
    }


@pytest.fixture(scope="module")
def looped(recurrences, weights):
    """Return a function that makes a graph of a loop, once for all tests that run it."""

    @functools.cache
    def graph_of(kind, rows, steps, schedule, masked):
        recurrence, w = recurrences[kind], weights[kind, "loop"]
        specs = [tf.TensorSpec([rows, steps, F]), *(tf.TensorSpec([rows, U]) for _ in recurrence.states)]
        specs += [tf.TensorSpec([rows, steps], tf.bool)] if masked else []

        @tf.function(input_signature=specs, autograph=False)
        def graph(x, *rest):
            states, valid = list(rest[: len(recurrence.states)]), rest[len(recurrence.states) :]
            return loop.lower(recurrence, x, states, valid[0] if valid else None, w, schedule)

        return graph

    return graph_of


@contextmanager
def as_it_is():
    """Run graphs without TensorFlow's optimizer, which no loop of TFLite meets and takes longer than all else."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def feeds(recurrence, rows, total, shape=(F,)):
    rng = np.random.default_rng(total)
    x = rng.standard_normal((rows, total, *shape)).astype(np.float32)
    return x, [rng.standard_normal((rows, *size)).astype(np.float32) for size in recurrence.states.values()]


def drawn_mask(kind, rows, total):
    """Return no mask; one with holes, the first step of row 0 masked; or one whose last row is all masked."""
    if kind == "none":
        return None
    mask = np.random.default_rng(total + 1).random((rows, total)) < 0.6
    mask[0, 0] = False
    mask[0, -1] = total > 1
    if kind == "a whole row":
        mask[-1] = False
    return mask


def close(got, expected):
    (sequences, states), (own, finals) = got, expected
    for ours, theirs in zip([sequences, *states], [own, *finals], strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def run(name, recurrence, x, states, mask, w):
    valid = None if mask is None else tf.constant(mask)
    return LOWERINGS[name].lower(recurrence, tf.constant(x), [tf.constant(s) for s in states], valid, w)


def test_the_block_boundaries_are_tried():
    inner, outer, _ = STEP_BY_STEP.blocks
    assert {inner - 1, inner, inner + 1, outer + 1} <= set(TOTALS)


@pytest.mark.parametrize("masked", ["none", "a whole row"])
@pytest.mark.parametrize("total", [1, 4, 9, 24, 26, 57])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES_TRIED)
@pytest.mark.parametrize(("kind", "rows"), [("lstm", 1), ("gru", 3)])
def test_groups_of_steps_give_what_single_ones_give(recurrences, looped, kind, rows, schedule, known, total, masked):
    """T ends inside a group, a block, both or neither; T is known when the graph is made, or not."""
    x, states = feeds(recurrences[kind], rows, total)
    mask = drawn_mask(masked, rows, total)
    graph = looped(kind, rows, total if known else None, schedule, mask is not None)
    with as_it_is():
        got = graph(x, *states, *([] if mask is None else [mask]))
    close(got, reference.run(recurrences[kind], x, states, mask))


@pytest.mark.parametrize("schedule", SCHEDULES_TRIED)
def test_a_loop_runs_states_whose_batch_only_x_knows(recurrences, weights, schedule):
    recurrence, w = recurrences["lstm"], weights["lstm", "loop"]
    x, states = feeds(recurrence, 2, 9)

    @tf.function(input_signature=[tf.TensorSpec([2, None, F]), *[tf.TensorSpec([None, U])] * 2], autograph=False)
    def graph(x, *states):
        return loop.lower(recurrence, x, list(states), None, w, schedule)

    close(graph(x, *states), reference.run(recurrence, x, states, None))


def test_every_kind_of_layer_is_tried(recurrences):
    assert {each.kind for each in recurrences.values()} == set(Recurrence.__annotations__["kind"].__args__)
    assert {"block": block, "unrolled": unrolled, "loop": loop, "scan": scan, "xla": xla} == LOWERINGS


@pytest.mark.parametrize("kind", ["none", "holes", "a whole row"])
@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_lowering_of_an_lstm_gives_what_the_reference_gives(recurrences, weights, name, rows, total, kind):
    recurrence = recurrences["lstm"]
    x, states = feeds(recurrence, rows, total)
    mask = drawn_mask(kind, rows, total)
    got = run(name, recurrence, x, states, mask, weights["lstm", name])
    close(got, reference.run(recurrence, x, states, mask))


@pytest.mark.parametrize("masked", ["none", "a whole row"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "stack", "cell", "conv 2d"])
def test_xla_gives_what_the_reference_gives(recurrences, weights, kind, masked):
    recurrence = recurrences[kind]
    x, states = feeds(recurrence, 3, 9, KINDS[kind][1])
    mask = drawn_mask(masked, 3, 9)
    got = run("xla", recurrence, x, states, mask, weights[kind, "scan"])
    close(got, reference.run(recurrence, x, states, mask))


@pytest.mark.parametrize("masked", ["none", "holes", "a whole row"])
@pytest.mark.parametrize("total", [1, 2, 33])
@pytest.mark.parametrize(("kind", "name"), [pair for pair in PAIRS if pair[0] != "lstm"])
def test_a_lowering_gives_what_the_reference_gives(recurrences, weights, kind, name, total, masked):
    recurrence = recurrences[kind]
    x, states = feeds(recurrence, 3, total, KINDS[kind][1])
    mask = drawn_mask(masked, 3, total)
    got = run(name, recurrence, x, states, mask, weights[kind, name])
    close(got, reference.run(recurrence, x, states, mask))


GRAPHS = [("lstm", name) for name in NAMES if name != "unrolled"]
GRAPHS += [(kind, name) for kind in ("gru", "stack", "cell", "conv 1d", "conv 3d") for name in ("loop", "scan")]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("kind", "name"), GRAPHS)
def test_one_graph_runs_any_batch_and_any_t(recurrences, weights, kind, name, masked):
    recurrence, shape = recurrences[kind], KINDS[kind][1]
    specs = [tf.TensorSpec([None, None, *shape])]
    specs += [tf.TensorSpec([None, *size]) for size in recurrence.states.values()]
    specs += [tf.TensorSpec([None, None], tf.bool)] if masked else []

    @tf.function(input_signature=specs, autograph=False)
    def graph(x, *rest):
        states, mask = rest[: len(recurrence.states)], rest[len(recurrence.states) :]
        return LOWERINGS[name].lower(recurrence, x, list(states), mask[0] if mask else None, weights[kind, name])

    for rows, total in ((1, 1), (3, 31), (2, 32), (1, 33), (3, 70)):
        x, states = feeds(recurrence, rows, total, shape)
        mask = drawn_mask("a whole row", rows, total) if masked else None
        close(graph(x, *states, *([mask] if masked else [])), reference.run(recurrence, x, states, mask))
    assert len(graph._list_all_concrete_functions()) == 1


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_static_graph_keeps_its_shapes(recurrences, weights, kind, name):
    recurrence, shape = recurrences[kind], KINDS[kind][1]
    specs = [tf.TensorSpec([2, 5, *shape]), *(tf.TensorSpec([2, *size]) for size in recurrence.states.values())]
    graph = tf.function(
        lambda x, *states: LOWERINGS[name].lower(recurrence, x, list(states), None, weights[kind, name]),
        input_signature=specs,
        autograph=False,
    )
    x, states = feeds(recurrence, 2, 5, shape)
    sequences, finals = expected = reference.run(recurrence, x, states, None)
    found, kept = graph.get_concrete_function().structured_outputs
    assert found.shape.as_list()[2:] == list(sequences.shape[2:])
    assert [each.shape.as_list()[1:] for each in kept] == [list(each.shape[1:]) for each in finals]
    close(graph(x, *states), expected)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_lowering_can_be_run_in_pieces(recurrences, weights, kind, name):
    recurrence, w = recurrences[kind], weights[kind, name]
    x, states = feeds(recurrence, 2, 40, KINDS[kind][1])
    whole, finals = run(name, recurrence, x, states, None, w)
    first, states = run(name, recurrence, x[:, :33], states, None, w)
    second, states = run(name, recurrence, x[:, 33:], states, None, w)
    close((tf.concat([first, second], axis=1), states), (whole.numpy(), [each.numpy() for each in finals]))


@pytest.mark.parametrize("option", ["reverse", "zero_masked"])
@pytest.mark.parametrize("name", NAMES)
def test_direction_and_zeros_are_seen_to_by_the_caller(recurrences, weights, name, option):
    x, states = feeds(recurrences["lstm"], 3, 7)
    args = x, states, drawn_mask("holes", 3, 7), weights["lstm", name]
    plain, _ = run(name, recurrences["lstm"], *args)
    other, _ = run(name, replace(recurrences["lstm"], **{option: True}), *args)
    np.testing.assert_array_equal(other, plain)


def nodes(function):
    definition = function.get_concrete_function().graph.as_graph_def()
    return len(definition.node) + sum(len(each.node_def) for each in definition.library.function)


@pytest.mark.parametrize("name", ["loop", "scan"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "stack"])
def test_a_loop_does_not_grow_with_t(recurrences, weights, kind, name):
    recurrence = recurrences[kind]

    def made(total):
        specs = [tf.TensorSpec([1, total, F]), *(tf.TensorSpec([1, *size]) for size in recurrence.states.values())]
        return tf.function(
            lambda x, *states: LOWERINGS[name].lower(recurrence, x, list(states), None, weights[kind, name]),
            input_signature=specs,
            autograph=False,
        )

    assert nodes(made(32)) == nodes(made(960))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_the_onnx_placeholder_keeps_shapes_and_refuses_to_run(count, masked):
    specs = [tf.TensorSpec([None, 7, F]), *[tf.TensorSpec([None, U])] * count]
    specs += [tf.TensorSpec([None, 7], tf.bool)] if masked else []
    tokens = []

    @tf.function(input_signature=specs, autograph=False)
    def graph(x, *rest):
        sequences, states, token = native.placeholder(x, list(rest[:count]), rest[count] if masked else None)
        tokens.append(token)
        return [sequences, *states]

    traced = graph.get_concrete_function()
    assert [each.shape.as_list() for each in traced.structured_outputs] == [[None, 7, U], *[[None, U]] * count]
    placeholders = [op for op in traced.graph.get_operations() if op.type == native.PLACEHOLDER]
    assert [op.get_attr("token") for op in placeholders] == tokens
    assert [len(op.inputs) for op in placeholders] == [1 + count + masked]
    x, states = np.zeros((2, 7, F), np.float32), [np.zeros((2, U), np.float32)] * count
    with pytest.raises(tf.errors.UnknownError, match="doesn't run in TensorFlow"):
        graph(x, *states, *([np.ones((2, 7), bool)] if masked else []))
