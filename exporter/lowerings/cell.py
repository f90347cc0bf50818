"""One LSTM time step in TensorFlow ops, and the weights as every lowering made of such steps wants them."""

from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from ..recurrence import Recurrence

Tensor = Any


def weights(recurrence: Recurrence) -> dict[str, NDArray[Any]]:
    """Return the arrays to store: kernel [F, 4U], recurrent_kernel [U, 4U], bias [4U], in Keras' gate order i f c o."""
    return {"kernel": recurrence.kernel, "recurrent_kernel": recurrence.recurrent_kernel, "bias": recurrence.bias}


def lstm_step(
    z: Tensor, h: Tensor, c: Tensor, recurrent_kernel: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Advance one LSTM cell by one time step.

    i, f, g, o = split(z + h @ recurrent_kernel)        i, f, o through sigmoid, g through tanh; gate order i f c o
    c' = f * c + i * g
    h' = o * tanh(c')

    Args:
        z: The input's share, x @ kernel + bias, [B, 4U].
        h: Hidden state, [B, U].
        c: Cell state, [B, U].
        recurrent_kernel: [U, 4U].
        valid: [B, 1] bool; where False both states stay as they are. None: everywhere True.

    Returns:
        (h', c'), both [B, U].

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    i, f, g, o = tf.split(z + tf.matmul(h, recurrent_kernel), 4, axis=-1)
    new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    new_h = tf.sigmoid(o) * tf.tanh(new_c)
    if valid is None:
        return new_h, new_c
    return tf.where(valid, new_h, h), tf.where(valid, new_c, c)
