"""TensorFlow's BlockLSTMV2: the whole sequence in one op, with Keras' gate order i f c o, for SavedModel."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..memory.recurrence import Recurrence
from .masking import last_valid, pack, unpack

Tensor = Any


def weights(recurrence: Recurrence) -> dict[str, NDArray[Any]]:
    """Return the arrays to store: both kernels in one, [F + U, 4U], and bias [4U]."""
    return {"kernels": np.concatenate([recurrence.kernel, recurrence.recurrent_kernel]), "bias": recurrence.bias}


def lower(
    recurrence: Recurrence, x: Tensor, states: list[Tensor], mask: Tensor | None, w: dict[str, Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Lower an LSTM with tanh and sigmoid over x [B, T, F]; see Lowering."""
    h, c = states
    packed, counts = (x, None) if mask is None else pack(x, mask)
    no_peephole = tf.zeros([h.shape[-1]], h.dtype)
    out = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.shape(x, tf.int64)[1],
        x=tf.transpose(packed, [1, 0, 2]),
        cs_prev=c,
        h_prev=h,
        w=w["kernels"],
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=w["bias"],
    )
    sequences = tf.transpose(out.h, [1, 0, 2])
    if counts is None:
        return sequences, [out.h[-1], out.cs[-1]]
    cells = tf.transpose(out.cs, [1, 0, 2])
    return unpack(sequences, h, mask), [last_valid(sequences, h, counts), last_valid(cells, c, counts)]
