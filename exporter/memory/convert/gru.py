"""`keras.layers.GRU` and `GRUCell` to a Recurrence: kernels and gate order z r h are taken as they are."""

from typing import Any

import numpy as np

from ..recurrence import Recurrence
from .options import activation, array, bias, over_time


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built GRU layer; see Converter."""
    return over_time(cell(layer.cell, name), layer)


def cell(cell: Any, name: str) -> Recurrence:
    """Read a built GRU cell; with reset_after it has two biases, [2, 3U]: the input's and the recurrent one."""
    kernel = array(cell.kernel, cell)
    biases = bias(cell, kernel)
    if cell.reset_after and biases.ndim == 1:  # use_bias=False
        biases = np.stack([biases, biases])
    return Recurrence(
        name,
        "gru",
        {"h": (cell.units,)},
        kernel=kernel,
        recurrent_kernel=array(cell.recurrent_kernel, cell),
        bias=biases,
        activation=activation(cell, "activation"),
        recurrent_activation=activation(cell, "recurrent_activation"),
        reset_after=bool(cell.reset_after),
        dtype=cell.compute_dtype,
    )
