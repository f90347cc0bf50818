"""`keras.layers.RNN` to a Recurrence: around a cell of Keras, as LSTM, GRU and SimpleRNN are, several, or one's own."""

from typing import Any

import keras
import numpy as np

from signatures.errors import UnsupportedModel, one_line

from ..recurrence import Kind, Recurrence
from .options import called, class_name, input_shape, over_time, read

CELLS: dict[str, tuple[Kind, str]] = {
    "keras.layers.LSTMCell": ("lstm", "hc"),
    "keras.layers.GRUCell": ("gru", "h"),
    "keras.layers.SimpleRNNCell": ("simple_rnn", "h"),
}
"""Cells whose equations are known here -> their kind and states; any other is known by calling it."""


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built RNN layer; see Converter."""
    x = np.random.default_rng(0).standard_normal((2, *input_shape(layer)[2:])).astype(layer.compute_dtype)
    return over_time(_cell(layer.cell, name, layer, x, layer.get_initial_state(2)), layer)


def _cell(cell: Any, name: str, layer: Any, x: Any, states: Any) -> Recurrence:
    """Read a cell; x [2, F] is an input for it, states what it starts from, nested as it takes them."""
    if class_name(cell) in CELLS:
        kind, shorts = CELLS[class_name(cell)]
        return read(cell, name, kind, dict.fromkeys(shorts, (cell.units,)))
    if class_name(cell) == "keras.layers.StackedRNNCells":
        return _stack(cell, name, layer, x, states)
    return _own(cell, name, layer, x, states)


def _stack(stack: Any, name: str, layer: Any, x: Any, states: Any) -> Recurrence:
    """Return cells run one after another in each time step; states are named by cell, `<layer>_0_h`."""
    cells = []
    for k, (cell, own) in enumerate(zip(stack.cells, states, strict=True)):
        cells.append(_cell(cell, f"{name}_{k}", layer, x, own))
        x, _ = called(cell, own)(x, keras.tree.flatten(own))
    if len(types := {cell.dtype for cell in cells}) > 1:
        raise UnsupportedModel(
            f"layer {layer.name!r} (RNN): its cells compute in {' and '.join(sorted(types))}.\n"
            "  Supported: cells of one type. Export with --dtype and one of them to compute in it."
        )
    named = {f"{k}_{short}": shape for k, cell in enumerate(cells) for short, shape in cell.states.items()}
    last = cells[-1]
    output = None if last.output is None else len(named) - len(last.states) + last.output
    return Recurrence(name, "stack", named, output, dtype=last.dtype, cells=tuple(cells))


def _own(cell: Any, name: str, layer: Any, x: Any, states: Any) -> Recurrence:
    """Return a cell of the user's own, found out by calling it once."""
    shapes = [tuple(state.shape[1:]) for state in keras.tree.flatten(states)]
    run = called(cell, states)
    drawn = [np.random.default_rng(k).standard_normal((2, *s)).astype(cell.compute_dtype) for k, s in enumerate(shapes)]
    try:
        output, new = run(x, drawn)
    except Exception as error:  # noqa: BLE001 - a cell raises what it likes
        raise UnsupportedModel(
            f"layer {layer.name!r} (RNN): its cell {type(cell).__name__} can't be called on a step:\n"
            f"  {one_line(error)}.\n"
            "  Supported: cells that take (inputs [B, F], states) and return (output, states)."
        ) from None
    same = [k for k, state in enumerate(new) if output is state]  # by identity: equal numbers may differ elsewhere
    named = {f"state_{k}" if len(shapes) > 1 else "state": shape for k, shape in enumerate(shapes)}
    return Recurrence(name, "cell", named, same[0] if same else None, dtype=cell.compute_dtype, cell=run)
