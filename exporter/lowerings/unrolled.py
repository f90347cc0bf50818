"""One copy of the step for every time step: the fastest form of one step, for TFLite's `step` and short fixed T."""

from typing import Any

import tensorflow as tf

from .cell import lstm_step, weights

__all__ = ["lower", "weights"]

Tensor = Any


def lower(x: Tensor, h: Tensor, c: Tensor, mask: Tensor | None, w: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Lower a recurrence over x [B, T, F], T static; see Lowering."""
    z = tf.matmul(x, w["kernel"]) + w["bias"]
    valid = None if mask is None else tf.expand_dims(mask, -1)
    outputs = []
    for t in range(x.shape[1]):
        h, c = lstm_step(z[:, t], h, c, w["recurrent_kernel"], None if valid is None else valid[:, t])
        outputs.append(h)
    return tf.stack(outputs, axis=1), h, c
