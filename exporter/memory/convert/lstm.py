"""`keras.layers.LSTM` and `LSTMCell` to a Recurrence: kernels and gate order i f c o are taken as they are."""

from typing import Any

from ..recurrence import Recurrence
from .options import activation, array, bias, over_time


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built LSTM layer; see Converter."""
    return over_time(cell(layer.cell, name), layer)


def cell(cell: Any, name: str) -> Recurrence:
    """Read a built LSTM cell."""
    kernel = array(cell.kernel, cell)
    states: dict[str, tuple[int, ...]] = {"h": (cell.units,), "c": (cell.units,)}
    return Recurrence(
        name,
        "lstm",
        states,
        kernel=kernel,
        recurrent_kernel=array(cell.recurrent_kernel, cell),
        bias=bias(cell, kernel),
        activation=activation(cell, "activation"),
        recurrent_activation=activation(cell, "recurrent_activation"),
        dtype=cell.compute_dtype,
    )
