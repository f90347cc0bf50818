"""How a recurrence becomes ops of one target: the same call, one module each.

block      TensorFlow's BlockLSTMV2                          savedmodel
unrolled   one copy of the step for each time step           tflite, `step` and short fixed T
loop       two nested loops over blocks of time steps        tflite, any T
native     the target's own LSTM op                          onnx
"""

from typing import Any, Protocol

from numpy.typing import NDArray

from ..recurrence import Recurrence
from . import block, loop, unrolled


class Lowering(Protocol):
    """A module of this folder that writes a recurrence in TensorFlow ops."""

    def weights(self, recurrence: Recurrence, /) -> dict[str, NDArray[Any]]:
        """Return the arrays to store, by name."""

    def lower(self, x: Any, h: Any, c: Any, mask: Any, w: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Write the ops.

        Args:
            x: Inputs, [B, T, F].
            h: Initial hidden state, [B, U].
            c: Initial cell state, [B, U].
            mask: Valid steps, [B, T] bool, or None when all are. A masked step keeps the state and repeats h.
            w: What `weights` returned, as variables.

        Returns:
            Sequences [B, T, U], final h [B, U], final c [B, U].
        """


LOWERINGS: dict[str, Lowering] = {"block": block, "unrolled": unrolled, "loop": loop}
"""What plan.py may choose by name; native is the ONNX target's own, see there."""
