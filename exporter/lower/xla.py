"""The loop of scan.py compiled by XLA, for SavedModel where it is asked for.

1.5 to 2.8 times as fast as BlockLSTMV2 up to 256 units and as fast beyond, but compiled at the first call with each
number of samples and time steps, 0.15 to 0.4 s each: it pays where these are fixed or few. The server must have XLA for
its CPU.
"""

from typing import Any

import tensorflow as tf

from ..memory.recurrence import Recurrence
from . import scan
from .cell import States, weights

__all__ = ["lower", "weights"]

Tensor = Any


def lower(
    recurrence: Recurrence, x: Tensor, states: States, mask: Tensor | None, w: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """Lower a recurrence over x [B, T, ...], any T; see Lowering."""

    def loop(x: Tensor, states: States, mask: Tensor | None) -> tuple[Tensor, States]:
        return scan.lower(recurrence, x, states, mask, w)

    sequences, finals = tf.function(loop, jit_compile=True, autograph=False)(x, states, mask)
    return sequences, finals
