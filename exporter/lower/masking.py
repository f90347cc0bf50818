"""Masks without a loop: move the valid steps to the front, run the native op, move the results back.

    mask      1 0 1 1 0        packed    x0 x2 x3 ..   counts  3
    positions 0 0 1 2 2        sequences y0 y0 y1 y2 y2

A masked step repeats the output before it; the final state is the one at the last valid step.
"""

from typing import Any

import tensorflow as tf

Tensor = Any


def pack(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x with each sample's valid steps first [B, T, F], how many are valid [B])."""
    total = tf.shape(mask)[1]
    steps = tf.range(total)[None]
    _, order = tf.math.top_k(tf.where(mask, total - steps, -steps), k=total)  # valid first, each part in its order
    return tf.gather(x, order, batch_dims=1), tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)


def unpack(sequences: Tensor, initial: Tensor, mask: Tensor) -> Tensor:
    """Return the outputs of packed steps [B, T, U] at the places of the mask; initial [B, U] before the first."""
    seen = tf.cumsum(tf.cast(mask, tf.int32), axis=1)
    placed = tf.gather(sequences, tf.maximum(seen - 1, 0), batch_dims=1)
    return tf.where(tf.expand_dims(seen > 0, -1), placed, tf.expand_dims(initial, 1))


def last_valid(sequences: Tensor, initial: Tensor, counts: Tensor) -> Tensor:
    """Return each sample's value after its last valid step [B, U]; initial where there is none."""
    last = tf.gather(sequences, tf.maximum(counts - 1, 0), batch_dims=1)
    return tf.where(tf.expand_dims(counts > 0, 1), last, initial)
