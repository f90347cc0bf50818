"""Two nested loops over blocks of time steps, for TFLite sequences of any length.

TFLite's WHILE copies every tensor it carries on each iteration, so one loop that carries all T outputs takes time
quadratic in T. Here the outer loop carries them and turns once a block; the inner loop carries one block only:

    for each block of BLOCK steps:      one product for the block's inputs, T x U outputs carried
        for each step in the block:     BLOCK x U outputs carried

The last block runs as many steps as are left, so there is one copy of the graph and any T works. Outputs are written
with XlaDynamicUpdateSlice, which TFLite has as its builtin DYNAMIC_UPDATE_SLICE.
"""

from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice

from .cell import lstm_step, weights

__all__ = ["BLOCK", "lower", "weights"]

Tensor = Any

BLOCK = 32
"""Time steps a block. 16 to 64 are alike up to T = 1000; larger ones pay off from T = 10000 on."""


def lower(x: Tensor, h: Tensor, c: Tensor, mask: Tensor | None, w: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Lower a recurrence over x [B, T, F], any T; see Lowering."""
    units = h.shape[-1]
    x = tf.transpose(x, [1, 0, 2])
    total = tf.shape(x)[0]
    padding = [[0, (-total) % BLOCK], [0, 0], [0, 0]]
    x = tf.pad(x, padding)
    mask = None if mask is None else tf.pad(tf.expand_dims(tf.transpose(mask), -1), padding)
    # Every row is overwritten. Made from an input: zeros of a known T would become a T x U constant in the file.
    outputs = tf.broadcast_to(x[:, :, :1], tf.concat([tf.shape(x)[:2], [units]], axis=0))
    outputs.set_shape([*x.shape[:2], units])

    def block(start: Tensor, h: Tensor, c: Tensor, outputs: Tensor) -> tuple[Tensor, ...]:
        z = tf.matmul(_rows(x, start, BLOCK), w["kernel"]) + w["bias"]
        valid = None if mask is None else _rows(mask, start, BLOCK)
        steps = tf.minimum(BLOCK, total - start)

        def step(t: Tensor, h: Tensor, c: Tensor, part: Tensor) -> tuple[Tensor, ...]:
            at = None if valid is None else _rows(valid, t, 1)[0]
            h, c = lstm_step(_rows(z, t, 1)[0], h, c, w["recurrent_kernel"], at)
            return t + 1, h, c, xla_dynamic_update_slice(part, h[None], [t, 0, 0])

        _, h, c, part = tf.while_loop(lambda t, *_: t < steps, step, (tf.constant(0), h, c, z[:, :, :units]))
        return start + BLOCK, h, c, xla_dynamic_update_slice(outputs, part, [start, 0, 0])

    _, h, c, outputs = tf.while_loop(lambda t, *_: t < total, block, (tf.constant(0), h, c, outputs))
    return tf.transpose(outputs[:total], [1, 0, 2]), h, c


def _rows(tensor: Tensor, start: Tensor, count: int) -> Tensor:
    """Return tensor[start : start + count] with a static first dimension."""
    rows = tf.slice(tensor, [start, 0, 0], [count, -1, tensor.shape[2]])
    rows.set_shape([count, tensor.shape[1], tensor.shape[2]])
    return rows
