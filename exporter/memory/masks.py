"""What a recurrent layer gives on masked time steps, whoever computes the others."""

from typing import Any

import tensorflow as tf

from .recurrence import Recurrence

Tensor = Any


def as_layer(recurrence: Recurrence, sequences: Tensor, mask: Tensor | None, continues: bool) -> Tensor:
    """Return sequences with zeros where the layer gives them: on masked steps, or only before the first valid one.

    Args:
        recurrence: The layer.
        sequences: A lowering's, [B, T, ...].
        mask: In the order the steps are run.
        continues: Whether steps before the first valid one repeat the state given instead.
    """
    if mask is not None and recurrence.zero_masked:
        return silence(sequences, mask)
    return sequences if mask is None or continues else silence(sequences, started(mask))


def reversed_mask(mask: Tensor | None) -> Tensor | None:
    """Return a mask [B, T] from the last time step to the first; None stays None."""
    return None if mask is None else tf.reverse(mask, [1])


def silence(sequences: Tensor, keep: Tensor) -> Tensor:
    """Return sequences [B, T, ...] with zeros where keep [B, T] is False."""
    return tf.where(spread(tf.expand_dims(keep, -1), sequences), sequences, tf.zeros_like(sequences))


def started(mask: Tensor) -> Tensor:
    """Return where a valid step has been seen, [B, T]: Keras gives zeros before it, unless the call continues."""
    return tf.cumsum(tf.cast(mask, tf.float32), axis=1) > 0


def spread(valid: Tensor, like: Tensor) -> Tensor:
    """Return valid [B, 1] (or [B, T, 1]) with as many axes as another tensor."""
    for _ in range(len(like.shape) - len(valid.shape)):
        valid = tf.expand_dims(valid, -1)
    return valid
