"""How a recurrence becomes ops of one target: the same call, one module each.

block      TensorFlow's BlockLSTMV2                          savedmodel, LSTM with tanh and sigmoid, small input kernel
native     ONNX's own LSTM, GRU and RNN ops                  onnx, activations that ONNX has, float32 and float16
unrolled   one copy of the step for each time step           one step; tflite with a short fixed T
loop       nested loops over blocks of time steps            tflite, any T
scan       one TensorFlow loop over the time steps           savedmodel and onnx, everything else
xla        the same, compiled by XLA                         savedmodel, where it is asked for
"""

from typing import Any, Protocol

import tensorflow as tf
from numpy.typing import NDArray

from ..memory.masks import as_layer, reversed_mask
from ..memory.recurrence import Recurrence
from . import block, loop, scan, unrolled, xla
from .plan import Plan


class Lowering(Protocol):
    """A module of this folder that writes a recurrence in TensorFlow ops."""

    def weights(self, recurrence: Recurrence, /) -> dict[str, NDArray[Any]]:
        """Return the arrays to store, by name."""

    def lower(
        self, recurrence: Recurrence, x: Any, states: list[Any], mask: Any, w: dict[str, Any]
    ) -> tuple[Any, list[Any]]:
        """Write the ops.

        Time runs forward: `reverse` and `zero_masked` are seen to by the caller, the same for every lowering.

        Args:
            recurrence: What to run.
            x: Inputs, [B, T, ...].
            states: Initial states, [B, ...] each.
            mask: Valid steps, [B, T] bool, or None when all are. A masked step keeps the states and repeats the output.
            w: What `weights` returned, as variables.

        Returns:
            Sequences [B, T, ...] and the final states.
        """


LOWERINGS: dict[str, Lowering] = {"block": block, "unrolled": unrolled, "loop": loop, "scan": scan, "xla": xla}
"""What plan.py may choose by name; native is the ONNX target's own, see there."""


def run(
    plan: Plan, recurrence: Recurrence, x: Any, states: list[Any], mask: Any, continues: bool, w: dict[str, Any]
) -> tuple[Any, list[Any]]:
    """Write a layer's ops as planned, in the layer's direction and with what it gives on masked steps.

    Args:
        plan: Which lowering, not native.
        recurrence: What to run.
        x: Inputs, [B, T, ...].
        states: Initial states, [B, ...] each.
        mask: Valid steps, [B, T] bool, or None when all are.
        continues: Whether the call goes on where another ended; see `as_layer`.
        w: The lowering's weights, as variables or arrays.

    Returns:
        Sequences [B, T, ...] in the order the steps are run, and the final states.
    """
    if recurrence.reverse:
        x, mask = tf.reverse(x, [1]), reversed_mask(mask)
    if plan.schedule is None:
        sequences, states = LOWERINGS[plan.lowering].lower(recurrence, x, states, mask, w)
    else:
        sequences, states = loop.lower(recurrence, x, states, mask, w, plan.schedule)
    return as_layer(recurrence, sequences, mask, continues), states
