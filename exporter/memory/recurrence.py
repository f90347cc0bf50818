"""One recurrent layer as plain data: what every lowering and the float64 reference start from. NumPy only."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["lstm", "gru", "simple_rnn", "conv_lstm", "stack", "cell"]

GATES = {"lstm": "ifco", "gru": "zrh", "simple_rnn": "h"}
"""The order of the gate blocks along the last axis of every kernel here, as in Keras.

lstm: input, forget, candidate, output (also BlockLSTMV2's; ONNX has i o f c). gru: update, reset, candidate (ONNX too).
"""


@dataclass(frozen=True)
class Convolution:
    """How a conv_lstm's input is convolved, one entry a spatial axis; its state is convolved "same", without stride."""

    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str


def _none() -> NDArray[Any]:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A recurrent layer: a cell and how it is run over time. G is the number of gates, see GATES.

    Attributes:
        name: Port prefix, made from the layer's path in the model.
        kind: Which equations. "stack" runs `cells` one after another in each time step; "conv_lstm" is an LSTM whose
            products are convolutions; "cell" is a cell of the user's own, known by calling it.
        states: Short name -> shape without the batch axis, in Keras' order.
        output: Which state the output of a time step is; None where it is something else.
        kernel: Input weights, [F, G U]; empty for stack and cell.
        recurrent_kernel: Recurrent weights, [U, G U].
        bias: [G U], zeros for a layer without one; gru with reset_after: [2, G U], input's and recurrent.
        activation: Keras' name of the function of the candidate (and, for lstm, of c).
        recurrent_activation: Keras' name of the gates' function.
        reset_after: gru: whether the reset gate acts after the recurrent product.
        reverse: Whether time steps are run from the last to the first; outputs are in the order they are run.
        zero_masked: Whether the output of a masked step is zeros instead of the previous output.
        convolution: conv_lstm: how its input is convolved.
        dtype: What it computes in: float32, float16, bfloat16 or float64; its weights are of that type.
        cells: stack: what it is made of, the first one first.
        cell: conv_lstm, cell: the Keras cell, called with (inputs, states).
    """

    name: str
    kind: Kind
    states: dict[str, tuple[int, ...]]
    output: int | None = 0
    kernel: NDArray[Any] = field(default_factory=_none)
    recurrent_kernel: NDArray[Any] = field(default_factory=_none)
    bias: NDArray[Any] = field(default_factory=_none)
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    reset_after: bool = False
    reverse: bool = False
    zero_masked: bool = False
    convolution: Convolution | None = None
    dtype: str = "float32"
    cells: tuple["Recurrence", ...] = ()
    cell: Any = None

    @property
    def units(self) -> int:
        """U: the size of h."""
        return int(self.recurrent_kernel.shape[0])


def port_dtype(dtype: str) -> str:
    """Return the type of the port for tensors of a type: 16-bit floats pass as float32, which holds them exactly."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def reorder(blocks: NDArray[Any], gates: str, order: str) -> NDArray[Any]:
    """Return an array [..., G U] with its gate blocks in another order.

    Args:
        blocks: Kernel or bias.
        gates: The order it has, "ifco".
        order: The wanted order, "iofc" for ONNX.
    """
    parts = dict(zip(gates, np.split(blocks, len(gates), axis=-1), strict=True))
    return np.concatenate([parts[gate] for gate in order], axis=-1)
