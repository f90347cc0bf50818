"""How a recurrence becomes ops of one target: the same call, one module each.

block      TensorFlow's BlockLSTMV2                          savedmodel, LSTM with tanh and sigmoid
native     ONNX's own LSTM, GRU and RNN ops                  onnx, activations that ONNX has
unrolled   one copy of the step for each time step           one step; tflite with a short fixed T
loop       two nested loops over blocks of time steps        tflite, any T
scan       one TensorFlow loop over the time steps           savedmodel and onnx, everything else
"""

from typing import Any, Protocol

from numpy.typing import NDArray

from ..recurrence import Recurrence
from . import block, loop, scan, unrolled


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


LOWERINGS: dict[str, Lowering] = {"block": block, "unrolled": unrolled, "loop": loop, "scan": scan}
"""What plan.py may choose by name; native is the ONNX target's own, see there."""
