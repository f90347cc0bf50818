"""Recurrent calls on arrays, quickly: what a survey of a model runs them with."""

import hashlib
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from ..memory.recurrence import Recurrence
from ..model.swap import Call
from .lowering import LOWERINGS, run
from .plan import in_tensorflow


class InOnePiece:
    """Computes a call as SavedModel has it: by BlockLSTMV2, or by a loop that is traced once for any sizes.

    A model is read again for each type that it is tried in: recurrences of the same numbers share what is made.
    """

    def __init__(self) -> None:
        """Start with nothing made."""
        self._known: dict[int, tuple[Recurrence, Any]] = {}
        self._weights: dict[Any, dict[str, Any]] = {}
        self._traced: dict[Any, Any] = {}

    def __call__(self, made: Call) -> tuple[Any, list[Any]]:
        """Return the sequences [B, T, ...] and the final states of a call."""
        recurrence, x, mask = made.recurrence, made.sequences, made.mask
        chosen = in_tensorflow(recurrence)
        if id(recurrence) not in self._known:  # kept with what has that id
            self._known[id(recurrence)] = recurrence, _numbers(recurrence) or id(recurrence)
        same = self._known[id(recurrence)][1]
        if same not in self._weights:  # made once: they are copies
            self._weights[same] = LOWERINGS[chosen.lowering].weights(recurrence)
        compute = partial(run, chosen, recurrence, w=self._weights[same])
        if chosen.lowering == "block":
            return compute(x, made.states, mask, made.continues)
        batch = x.shape[0] if same == id(recurrence) else None  # a cell may make tensors of its size
        key = same, (batch, *x.shape[2:]), mask is None, made.continues  # features that don't suit come, too
        if key not in self._traced:
            specs = [tf.TensorSpec([batch, None, *x.shape[2:]], x.dtype)]
            specs += [tf.TensorSpec([batch, *state.shape[1:]], state.dtype) for state in made.states]
            specs += [] if mask is None else [tf.TensorSpec([batch, None], tf.bool)]
            count = len(made.states)

            def loop(x: Any, *rest: Any) -> tuple[Any, list[Any]]:
                return compute(x, list(rest[:count]), rest[count] if rest[count:] else None, made.continues)

            self._traced[key] = tf.function(loop, input_signature=specs, autograph=False)
        sequences, states = self._traced[key](x, *made.states, *([] if mask is None else [mask]))
        return sequences, states


def _numbers(recurrence: Recurrence) -> tuple[Any, ...] | None:
    """Return what a recurrence computes, whatever it is called, to compare; None where it holds a cell of Keras."""
    cells = [_numbers(cell) for cell in recurrence.cells]
    if recurrence.cell is not None or None in cells:
        return None
    values = {each.name: getattr(recurrence, each.name) for each in fields(recurrence)}
    arrays = [value for value in values.values() if isinstance(value, np.ndarray)]
    digests = [hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest() for value in arrays]
    options = [value for name, value in values.items() if isinstance(value, (str, bool)) and name != "name"]
    shapes = [value.shape for value in arrays]
    return (*options, recurrence.output, *recurrence.states.items(), *shapes, *digests, *cells)
