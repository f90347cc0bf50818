"""One recurrent layer as plain data: what every lowering and the float64 reference start from. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GATES = "ifco"
"""The order of the four gate blocks along the last axis of every kernel here: input, forget, candidate, output.

It is Keras' own and BlockLSTMV2's. ONNX has i o f c: see reorder.
"""


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A unidirectional LSTM with tanh and sigmoid.

    Attributes:
        name: Port prefix, made from the layer's path in the model.
        kind: "lstm".
        kernel: Input weights, [F, 4U], gate order i f c o.
        recurrent_kernel: Recurrent weights, [U, 4U].
        bias: [4U]; zeros for a layer without one.
    """

    name: str
    kind: str
    kernel: NDArray[Any]
    recurrent_kernel: NDArray[Any]
    bias: NDArray[Any]

    @property
    def units(self) -> int:
        """U: the size of h and of c."""
        return int(self.recurrent_kernel.shape[0])


def reorder(blocks: NDArray[Any], order: str) -> NDArray[Any]:
    """Return an array [..., 4U] with its gate blocks in another order than i f c o.

    Args:
        blocks: Kernel or bias in the order of GATES.
        order: The wanted order, "iofc" for ONNX.
    """
    gates = dict(zip(GATES, np.split(blocks, len(GATES), axis=-1), strict=True))
    return np.concatenate([gates[gate] for gate in order], axis=-1)
