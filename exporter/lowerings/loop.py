"""Two nested loops over blocks of time steps, for TFLite sequences of any length.

TFLite's WHILE copies every tensor it carries on each iteration, so one loop that carries all T outputs takes time
quadratic in T. Here the outer loop carries them and turns once a block; the inner loop carries one block only:

    for each block of BLOCK steps:      one product for the block's inputs, T x U outputs carried
        for each step in the block:     BLOCK x U outputs carried

The last block runs as many steps as are left, so there is one copy of the graph and any T works. Outputs are written
with XlaDynamicUpdateSlice, which TFLite has as its builtin DYNAMIC_UPDATE_SLICE.
"""

import math
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice

from ..recurrence import Recurrence
from .cell import States, advance, first_output, project, weights
from .scan import time_major

__all__ = ["BLOCK", "lower", "weights"]

Tensor = Any

BLOCK = 32
"""Time steps a block. 16 to 64 are alike up to T = 1000; larger ones pay off from T = 10000 on."""


def lower(
    recurrence: Recurrence, x: Tensor, states: States, mask: Tensor | None, w: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """Lower a recurrence over x [B, T, ...], any T; see Lowering."""
    x = time_major(x)
    total = tf.shape(x)[0]
    first = first_output(recurrence, project(recurrence, x[0], w), states, w)
    x = _padded(x, total)
    valid = None if mask is None else _padded(tf.expand_dims(tf.transpose(mask), -1), total)
    # Every row is overwritten. Made from an input: zeros of a known T would become a T x U constant in the file.
    outputs = _like(x, first)
    count = len(states)

    def block(start: Tensor, outputs: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
        z = project(recurrence, _rows(x, start, BLOCK), w)
        at = None if valid is None else _rows(valid, start, BLOCK)
        steps = tf.minimum(BLOCK, total - start)

        def one(t: Tensor, part: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            now = None if at is None else _rows(at, t, 1)[0]
            output, kept = advance(recurrence, _rows(z, t, 1)[0], list(carried[:count]), carried[-1], now, w)
            part = xla_dynamic_update_slice(part, output[None], [t, *[0] * len(first.shape)])
            return t + 1, part, *kept, *([output] if recurrence.output is None else [])

        start_of_block = (tf.constant(0), _like(z, first), *carried)
        _, part, *carried = tf.while_loop(lambda t, *_: t < steps, one, start_of_block)
        outputs = xla_dynamic_update_slice(outputs, part, [start, *[0] * len(first.shape)])
        return start + BLOCK, outputs, *carried

    start = (tf.constant(0), outputs, *states, *([first] if recurrence.output is None else []))
    _, outputs, *carried = tf.while_loop(lambda t, *_: t < total, block, start)
    return time_major(outputs[:total]), list(carried[:count])


def _padded(x: Tensor, total: Tensor) -> Tensor:
    """Fill the first axis up to whole blocks; by way of rank 3 where there are more axes than TFLite pads."""
    if len(x.shape) <= 4:
        return tf.pad(x, [[0, (-total) % BLOCK], *[[0, 0]] * (len(x.shape) - 1)])
    flat = tf.pad(tf.reshape(x, [total, -1, math.prod(x.shape[2:])]), [[0, (-total) % BLOCK], [0, 0], [0, 0]])
    padded = tf.reshape(flat, tf.concat([tf.shape(flat)[:2], x.shape[2:]], axis=0))
    padded.set_shape([None, *x.shape[1:]])
    return padded


def _like(x: Tensor, output: Tensor) -> Tensor:
    """Return a tensor [x's first axis, *output's shape] with any content."""
    steps = tf.reshape(x, [tf.shape(x)[0], -1])[:, :1]
    for _ in output.shape[1:]:
        steps = tf.expand_dims(steps, -1)
    made = tf.broadcast_to(tf.cast(steps, output.dtype), tf.concat([tf.shape(x)[:1], tf.shape(output)], axis=0))
    made.set_shape([x.shape[0], *output.shape])
    return made


def _rows(tensor: Tensor, start: Tensor, count: int) -> Tensor:
    """Return tensor[start : start + count] with a static first dimension."""
    rest = tensor.shape[1:]
    rows = tf.slice(tensor, [start, *[0] * len(rest)], [count, -1, *rest[1:]])
    rows.set_shape([count, *rest])
    return rows
