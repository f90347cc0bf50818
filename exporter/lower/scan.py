"""One TensorFlow loop over the time steps, for the targets that have loops and cells that have no op of their own."""

from typing import Any

import tensorflow as tf

from ..memory.recurrence import Recurrence
from .cell import States, advance, first_output, project, time_major, weights

__all__ = ["lower", "weights"]

Tensor = Any


def lower(
    recurrence: Recurrence, x: Tensor, states: States, mask: Tensor | None, w: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """Lower a recurrence over x [B, T, ...], any T; see Lowering."""
    z = time_major(project(recurrence, x, w))
    valid = None if mask is None else tf.expand_dims(tf.transpose(mask), -1)
    total = tf.shape(z)[0]
    first = first_output(recurrence, z[0], states, w)

    def one(t: Tensor, output: Tensor, outputs: tf.TensorArray, *states: Tensor) -> tuple[Any, ...]:
        output, kept = advance(recurrence, z[t], list(states), output, None if valid is None else valid[t], w)
        return t + 1, output, outputs.write(t, output), *kept

    shape = first.shape
    outputs = tf.TensorArray(first.dtype, size=total, element_shape=shape)
    start = (tf.constant(0), first, outputs, *states)
    _, _, outputs, *states = tf.while_loop(lambda t, *_: t < total, one, start)
    sequences = outputs.stack()
    sequences.set_shape([x.shape[1], *shape])
    return time_major(sequences), states
