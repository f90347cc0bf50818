"""`keras.layers.SimpleRNN` and `SimpleRNNCell` to a Recurrence."""

from typing import Any

from ..recurrence import Recurrence
from .options import activation, array, bias, over_time


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built SimpleRNN layer; see Converter."""
    return over_time(cell(layer.cell, name), layer)


def cell(cell: Any, name: str) -> Recurrence:
    """Read a built SimpleRNN cell; it has no gates, so the gates' function is the same one."""
    kernel, function = array(cell.kernel, cell), activation(cell, "activation")
    return Recurrence(
        name,
        "simple_rnn",
        {"h": (cell.units,)},
        kernel=kernel,
        recurrent_kernel=array(cell.recurrent_kernel, cell),
        bias=bias(cell, kernel),
        activation=function,
        recurrent_activation=function,
        dtype=cell.compute_dtype,
    )
