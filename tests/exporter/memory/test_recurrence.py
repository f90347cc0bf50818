"""Gate blocks in another order: the one place where four orders meet."""

import numpy as np
import pytest

from exporter.memory.recurrence import GATES, Recurrence, reorder

BLOCKS = {"i": 1.0, "f": 2.0, "c": 3.0, "o": 4.0}


def blocks(order, rows=2, units=3):
    """Return [rows, 4 * units], each gate's block all its own number."""
    return np.concatenate([np.full((rows, units), BLOCKS[gate]) for gate in order], axis=1)


@pytest.mark.parametrize("order", ["ifco", "iofc", "icfo", "fico"])
def test_each_block_lands_at_its_place(order):
    np.testing.assert_array_equal(reorder(blocks("ifco"), "ifco", order), blocks(order))


def test_a_bias_is_reordered_alike_and_columns_stay_in_order_within_their_block():
    bias = np.arange(8)  # i: 0 1, f: 2 3, c: 4 5, o: 6 7
    np.testing.assert_array_equal(reorder(bias, "ifco", "iofc"), [0, 1, 6, 7, 2, 3, 4, 5])


def test_our_order_is_the_one_of_keras():
    """Drive one gate of a Keras cell at a time and see which of its blocks acts."""
    import keras

    cell = keras.layers.LSTMCell(1)
    cell.build((None, 1))

    def run(**bias):
        """Run from h = c = 1 with gates half open unless driven."""
        value = np.zeros(4, np.float32)
        for gate, pushed in bias.items():
            value[GATES["lstm"].index(gate)] = pushed
        cell.set_weights([np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32), value])
        one = np.ones((1, 1), np.float32)
        _, (h, c) = cell(one, [one, one])
        return float(h[0, 0]), float(c[0, 0])

    assert run(o=-100)[0] == pytest.approx(0)  # shut: nothing comes out, the cell lives on
    assert run(o=-100)[1] == pytest.approx(0.5)
    assert run(f=-100)[1] == pytest.approx(0)  # the cell forgets
    assert run(i=100, c=100)[1] == pytest.approx(1.5)  # half remembered, one added
    assert run(i=100)[1] == pytest.approx(0.5)  # a candidate of 0 adds nothing
    assert run(i=-100, c=100)[1] == pytest.approx(0.5)  # a shut input gate neither


def test_units_are_the_rows_of_the_recurrent_kernel():
    states = {"h": (3,), "c": (3,)}
    made = Recurrence("lstm", "lstm", states, 0, np.zeros((7, 12)), np.zeros((3, 12)), np.zeros(12))
    assert made.units == 3


def test_blocks_of_another_layer_have_their_own_order():
    gates = np.arange(6)  # z: 0 1, r: 2 3, h: 4 5
    np.testing.assert_array_equal(reorder(gates, "zrh", "hzr"), [4, 5, 0, 1, 2, 3])


@pytest.mark.parametrize("reset_after", [True, False])
def test_our_gru_order_is_the_one_of_keras(reset_after):
    """Drive one gate of a Keras cell at a time and see which of its blocks acts."""
    import keras

    cell = keras.layers.GRUCell(1, reset_after=reset_after)
    cell.build((None, 1))

    def run(recurrent=0.0, **bias):
        """Run from h = 1 with gates half open unless driven; the candidate is tanh(bias + r * h * recurrent)."""
        value = np.zeros(3, np.float32)
        for gate, pushed in bias.items():
            value[GATES["gru"].index(gate)] = pushed
        from_h = np.zeros((1, 3), np.float32)
        from_h[0, GATES["gru"].index("h")] = recurrent
        cell.set_weights([np.zeros((1, 3), np.float32), from_h, np.stack([value, 0 * value]) if reset_after else value])
        one = np.ones((1, 1), np.float32)
        return float(np.ravel(cell(one, [one])[0])[0])

    assert run(z=100) == pytest.approx(1)  # everything is kept
    assert run(z=-100) == pytest.approx(0)  # everything is the candidate, which is 0
    assert run(z=-100, h=100) == pytest.approx(1)
    assert run(h=-100) == pytest.approx(0)  # half of 1, half of -1
    assert run(recurrent=100, z=-100) == pytest.approx(1)  # the candidate sees h
    assert run(recurrent=100, z=-100, r=-200) == pytest.approx(0)  # the reset gate shuts h out
