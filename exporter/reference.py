"""The second witness: the recurrence in float64 NumPy, written from the equations, no code shared."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .recurrence import Recurrence

Array = NDArray[Any]


def lstm(
    x: Array, h: Array, c: Array, recurrence: Recurrence, mask: Array | None = None, continues: bool = True
) -> tuple[Array, Array, Array]:
    """Run an LSTM over a batch of sequences.

    i, f, o = sigmoid(x @ W + h @ R + b),  g = tanh(x @ W + h @ R + b)      gate order i f g o
    c' = f * c + i * g
    h' = o * tanh(c')

    A masked step changes neither h nor c and repeats the previous output.

    Args:
        x: Inputs, [B, T, F].
        h: Initial hidden state, [B, U].
        c: Initial cell state, [B, U].
        recurrence: Weights.
        mask: Valid steps, [B, T] bool; None when all are.
        continues: What the output before the first valid step is: h (the stream goes on) or, as in a Keras call with
            an initial_state of the model's own, zeros.

    Returns:
        Sequences [B, T, U], final h [B, U], final c [B, U], all float64.

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    kernel, recurrent, bias = (
        np.asarray(w, np.float64) for w in (recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)
    )
    x, h, c = (np.asarray(a, np.float64) for a in (x, h, c))
    units = h.shape[-1]
    output = h if continues else np.zeros_like(h)
    sequences = np.zeros((*x.shape[:2], units))
    for t in range(x.shape[1]):
        a = x[:, t] @ kernel + h @ recurrent + bias
        i, f, o = (_sigmoid(a[:, k * units : (k + 1) * units]) for k in (0, 1, 3))
        g = np.tanh(a[:, 2 * units : 3 * units])
        new_c = f * c + i * g
        new_h = o * np.tanh(new_c)
        valid = np.ones((len(x), 1), bool) if mask is None else np.asarray(mask, bool)[:, t : t + 1]
        h, c, output = np.where(valid, new_h, h), np.where(valid, new_c, c), np.where(valid, new_h, output)
        sequences[:, t] = output
    return sequences, h, c


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # the form that can't overflow
