"""Keras' LSTM, GRU and SimpleRNN cells to a Recurrence: kernels and gate orders are taken as they are, see GATES."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..recurrence import Recurrence
from .options import read


def lstm(cell: Any, name: str) -> Recurrence:
    """Read a built LSTM cell."""
    return read(cell, name, "lstm", {"h": (cell.units,), "c": (cell.units,)})


def gru(cell: Any, name: str) -> Recurrence:
    """Read a built GRU cell; with reset_after it has two biases, [2, 3U]: the input's and the recurrent one."""
    made = read(cell, name, "gru", {"h": (cell.units,)})
    if cell.reset_after and made.bias.ndim == 1:  # use_bias=False
        made = replace(made, bias=np.stack([made.bias, made.bias]))
    return replace(made, reset_after=bool(cell.reset_after))


def simple_rnn(cell: Any, name: str) -> Recurrence:
    """Read a built SimpleRNN cell."""
    return read(cell, name, "simple_rnn", {"h": (cell.units,)})
