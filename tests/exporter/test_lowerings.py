"""Every lowering gives what the float64 reference gives, masked or not, at any T, eagerly and traced."""

import numpy as np
import pytest
import tensorflow as tf

from exporter import reference
from exporter.lowerings import LOWERINGS, loop, native
from exporter.recurrence import Recurrence

F, U = 3, 4
CLOSE = {"atol": 3e-6, "rtol": 1e-5}
TOTALS = (1, 2, 31, 32, 33, 70)  # around the loop's block of 32 and past two of them


@pytest.fixture(scope="module")
def recurrence():
    rng = np.random.default_rng(0)
    shapes = (F, 4 * U), (U, 4 * U), (4 * U,)
    return Recurrence("lstm", "lstm", *(0.7 * rng.standard_normal(shape).astype(np.float32) for shape in shapes))


@pytest.fixture(scope="module")
def weights(recurrence):
    return {
        name: {key: tf.Variable(value) for key, value in lowering.weights(recurrence).items()}
        for name, lowering in LOWERINGS.items()
    }


def feeds(rows, total):
    rng = np.random.default_rng(total)
    shapes = (rows, total, F), (rows, U), (rows, U)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


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
    for ours, own in zip(got, expected, strict=True):
        assert ours.shape == own.shape
        np.testing.assert_allclose(ours, own, **CLOSE)


def test_the_block_boundaries_are_tried():
    assert {loop.BLOCK - 1, loop.BLOCK, loop.BLOCK + 1} <= set(TOTALS)
    assert max(TOTALS) > 2 * loop.BLOCK


@pytest.mark.parametrize("kind", ["none", "holes", "a whole row"])
@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", LOWERINGS)
def test_a_lowering_gives_what_the_reference_gives(recurrence, weights, name, rows, total, kind):
    x, h, c = feeds(rows, total)
    mask = drawn_mask(kind, rows, total)
    valid = None if mask is None else tf.constant(mask)
    got = LOWERINGS[name].lower(*map(tf.constant, (x, h, c)), valid, weights[name])
    close(got, reference.lstm(x, h, c, recurrence, mask))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", sorted(set(LOWERINGS) - {"unrolled"}))
def test_one_graph_runs_any_batch_and_any_t(recurrence, weights, name, masked):
    specs = [tf.TensorSpec([None, None, F]), tf.TensorSpec([None, U]), tf.TensorSpec([None, U])]
    specs += [tf.TensorSpec([None, None], tf.bool)] if masked else []

    @tf.function(input_signature=specs, autograph=False)
    def run(x, h, c, mask=None):
        return LOWERINGS[name].lower(x, h, c, mask, weights[name])

    for rows, total in ((1, 1), (3, 31), (2, 32), (1, 33), (3, 70)):
        x, h, c = feeds(rows, total)
        mask = drawn_mask("a whole row", rows, total) if masked else None
        close(run(x, h, c, *([mask] if masked else [])), reference.lstm(x, h, c, recurrence, mask))
    assert len(run._list_all_concrete_functions()) == 1


@pytest.mark.parametrize("name", LOWERINGS)
def test_a_static_graph_keeps_its_shapes(recurrence, weights, name):
    specs = [tf.TensorSpec([2, 5, F]), tf.TensorSpec([2, U]), tf.TensorSpec([2, U])]
    run = tf.function(
        lambda *args: LOWERINGS[name].lower(*args, None, weights[name]), input_signature=specs, autograph=False
    )
    assert [each.shape.as_list()[-1] for each in run.get_concrete_function().structured_outputs] == [U, U, U]
    x, h, c = feeds(2, 5)
    close(run(x, h, c), reference.lstm(x, h, c, recurrence))


@pytest.mark.parametrize("name", LOWERINGS)
def test_a_lowering_can_be_run_in_pieces(weights, name):
    x, h, c = feeds(2, 40)
    whole = LOWERINGS[name].lower(*map(tf.constant, (x, h, c)), None, weights[name])
    first, h, c = LOWERINGS[name].lower(*map(tf.constant, (x[:, :33], h, c)), None, weights[name])
    second, h, c = LOWERINGS[name].lower(tf.constant(x[:, 33:]), h, c, None, weights[name])
    close((tf.concat([first, second], axis=1), h, c), [each.numpy() for each in whole])


def test_the_loop_does_not_grow_with_t(weights):
    def nodes(total):
        specs = [tf.TensorSpec([1, total, F]), tf.TensorSpec([1, U]), tf.TensorSpec([1, U])]
        run = tf.function(
            lambda *args: loop.lower(*args, None, weights["loop"]), input_signature=specs, autograph=False
        )
        definition = run.get_concrete_function().graph.as_graph_def()
        return len(definition.node) + sum(len(each.node_def) for each in definition.library.function)

    assert nodes(32) == nodes(960)


@pytest.mark.parametrize("masked", [False, True])
def test_the_onnx_placeholder_keeps_shapes_and_refuses_to_run(masked):
    specs = [tf.TensorSpec([None, 7, F]), tf.TensorSpec([None, U]), tf.TensorSpec([None, U])]
    specs += [tf.TensorSpec([None, 7], tf.bool)] if masked else []
    tokens = []

    @tf.function(input_signature=specs, autograph=False)
    def run(x, h, c, mask=None):
        *made, token = native.placeholder(x, h, c, mask)
        tokens.append(token)
        return made

    graph = run.get_concrete_function()
    assert [each.shape.as_list() for each in graph.structured_outputs] == [[None, 7, U], [None, U], [None, U]]
    placeholders = [op for op in graph.graph.get_operations() if op.type == native.PLACEHOLDER]
    assert [op.get_attr("token") for op in placeholders] == tokens
    assert [len(op.inputs) for op in placeholders] == [3 + masked]
    x, h, c = feeds(2, 7)
    with pytest.raises(tf.errors.UnknownError, match="doesn't run in TensorFlow"):
        run(x, h, c, *([np.ones((2, 7), bool)] if masked else []))
