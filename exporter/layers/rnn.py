"""`keras.layers.RNN` around a cell, a list of cells, StackedRNNCells or a cell of the user's own, to a Recurrence."""

from typing import Any

import keras
import numpy as np

from signatures.errors import UnsupportedModel

from ..recurrence import Recurrence
from . import gru, lstm, simple_rnn
from .options import called, class_name, over_time

CELLS = {
    "keras.layers.LSTMCell": lstm.cell,
    "keras.layers.GRUCell": gru.cell,
    "keras.layers.SimpleRNNCell": simple_rnn.cell,
}
"""Cells whose equations are known here; any other is known by calling it."""


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built RNN layer; see Converter."""
    return over_time(_cell(layer.cell, name, layer), layer)


def _cell(cell: Any, name: str, layer: Any) -> Recurrence:
    if class_name(cell) in CELLS:
        return CELLS[class_name(cell)](cell, name)
    if class_name(cell) == "keras.layers.StackedRNNCells":
        return _stack([_cell(inner, f"{name}_{k}", layer) for k, inner in enumerate(cell.cells)], name)
    return _own(cell, name, layer)


def _stack(cells: list[Recurrence], name: str) -> Recurrence:
    """Return cells run one after another in each time step; states are named by cell, `<layer>_0_h`."""
    states = {f"{k}_{short}": shape for k, cell in enumerate(cells) for short, shape in cell.states.items()}
    last = cells[-1]
    output = None if last.output is None else len(states) - len(last.states) + last.output
    return Recurrence(name, "stack", states, output, cells=tuple(cells))


def _own(cell: Any, name: str, layer: Any) -> Recurrence:
    """Return a cell of the user's own, found out by calling it once."""
    sizes = keras.tree.flatten(cell.state_size)
    shapes = keras.tree.map_structure(lambda size: (size,) if isinstance(size, int) else tuple(size), sizes)
    run = called(cell)
    features = layer.get_build_config()["input_shape"][2:]
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((2, *shape)).astype(np.float32) for shape in shapes]
    try:
        output, new = run(rng.standard_normal((2, *features)).astype(np.float32), states)
    except Exception as error:  # noqa: BLE001 - a cell raises what it likes
        raise UnsupportedModel(
            f"layer {layer.name!r} (RNN): its cell {type(cell).__name__} can't be called on one time step ({error}).\n"
            "  Supported: cells that take (inputs [B, F], states) and return (output, states)."
        ) from None
    same = [k for k, state in enumerate(new) if np.array_equal(np.asarray(output), np.asarray(state))]
    states_by_name = {f"state_{k}" if len(shapes) > 1 else "state": shape for k, shape in enumerate(shapes)}
    return Recurrence(name, "cell", states_by_name, same[0] if same else None, cell=run)
