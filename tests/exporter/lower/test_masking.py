"""Masks without a loop, against plain NumPy loops over random masks."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exporter.lower.masking import last_valid, pack, unpack
from exporter.memory.masks import silence, started

masks = st.tuples(st.integers(1, 3), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))
tried = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def steps_of(mask, units=2):
    """Return values that differ everywhere, [B, T, units], and an initial value [B, units] below them all."""
    values = np.arange(mask.size * units, dtype=np.float32).reshape(*mask.shape, units)
    return values, -1 - np.arange(len(mask) * units, dtype=np.float32).reshape(len(mask), units)


@tried
@given(masks)
def test_pack_moves_the_valid_steps_to_the_front_in_their_order(mask):
    x, _ = steps_of(mask)
    packed, counts = pack(tf.constant(x), tf.constant(mask))
    assert packed.shape == x.shape
    np.testing.assert_array_equal(counts, [sum(row) for row in mask])
    for row, count in enumerate(counts):
        valid = [x[row, t] for t in range(mask.shape[1]) if mask[row, t]]
        others = [x[row, t] for t in range(mask.shape[1]) if not mask[row, t]]
        np.testing.assert_array_equal(packed[row, :count], np.reshape(valid, (-1, 2)))
        np.testing.assert_array_equal(packed[row, count:], np.reshape(others, (-1, 2)))


@tried
@given(masks)
def test_unpack_repeats_the_output_before_each_hole(mask):
    outputs, initial = steps_of(mask)
    got = unpack(tf.constant(outputs), tf.constant(initial), tf.constant(mask))
    for row in range(len(mask)):
        seen, last = 0, initial[row]
        for t in range(mask.shape[1]):
            if mask[row, t]:
                last, seen = outputs[row, seen], seen + 1
            np.testing.assert_array_equal(got[row, t], last)


@tried
@given(masks)
def test_last_valid_is_the_last_of_the_counted_steps(mask):
    outputs, initial = steps_of(mask)
    counts = mask.sum(axis=1)
    got = last_valid(tf.constant(outputs), tf.constant(initial), tf.constant(counts, tf.int32))
    for row, count in enumerate(counts):
        np.testing.assert_array_equal(got[row], outputs[row, count - 1] if count else initial[row])


@tried
@given(masks)
def test_only_outputs_before_the_first_valid_step_are_silenced(mask):
    outputs, _ = steps_of(mask)
    outputs += 1  # no value is zero by itself
    got = silence(tf.constant(outputs), started(tf.constant(mask)))
    for row in range(len(mask)):
        for t in range(mask.shape[1]):
            expected = outputs[row, t] if mask[row, : t + 1].any() else [0, 0]
            np.testing.assert_array_equal(got[row, t], expected)


@tried
@given(masks, st.integers(1, 3))
def test_silenced_steps_are_zero_and_the_others_untouched_whatever_their_rank(mask, axes):
    shape = (*mask.shape, *[2] * axes)
    outputs = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    got = silence(tf.constant(outputs), tf.constant(mask))
    np.testing.assert_array_equal(got.numpy()[mask], outputs[mask])
    assert not got.numpy()[~mask].any()


@pytest.mark.parametrize("total", [1, 40, 300])
def test_a_long_mask_is_packed_in_order_too(total):
    mask = np.random.default_rng(total).random((2, total)) < 0.5
    x, _ = steps_of(mask)
    packed, counts = pack(tf.constant(x), tf.constant(mask))
    for row in range(2):
        np.testing.assert_array_equal(packed[row, : counts[row]], x[row][mask[row]])
