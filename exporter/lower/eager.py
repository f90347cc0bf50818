"""Recurrent calls on arrays, quickly: what a survey of a model runs them with."""

from functools import partial
from typing import Any

import tensorflow as tf

from ..memory.recurrence import Recurrence
from ..model.swap import Call
from .lowering import LOWERINGS, run
from .plan import in_tensorflow


class InOnePiece:
    """Computes a call as SavedModel has it: by BlockLSTMV2, or by a loop that is traced once for any sizes."""

    def __init__(self) -> None:
        """Start with nothing made."""
        self._weights: dict[int, tuple[Recurrence, dict[str, Any]]] = {}
        self._traced: dict[Any, Any] = {}

    def __call__(self, made: Call) -> tuple[Any, list[Any]]:
        """Return the sequences [B, T, ...] and the final states of a call."""
        recurrence, x, mask = made.recurrence, made.sequences, made.mask
        chosen = in_tensorflow(recurrence)
        if id(recurrence) not in self._weights:  # made once: they are copies; kept with what has that id
            self._weights[id(recurrence)] = recurrence, LOWERINGS[chosen.lowering].weights(recurrence)
        compute = partial(run, chosen, recurrence, w=self._weights[id(recurrence)][1])
        if chosen.lowering == "block":
            return compute(x, made.states, mask, made.continues)
        batch = x.shape[0]  # a cell may make tensors of its size
        key = id(recurrence), batch, mask is None, made.continues
        if key not in self._traced:
            specs = [tf.TensorSpec([batch, None, *x.shape[2:]], x.dtype)]
            specs += [tf.TensorSpec(state.shape, state.dtype) for state in made.states]
            specs += [] if mask is None else [tf.TensorSpec([batch, None], tf.bool)]
            count = len(made.states)

            def loop(x: Any, *rest: Any) -> tuple[Any, list[Any]]:
                return compute(x, list(rest[:count]), rest[count] if rest[count:] else None, made.continues)

            self._traced[key] = tf.function(loop, input_signature=specs, autograph=False)
        sequences, states = self._traced[key](x, *made.states, *([] if mask is None else [mask]))
        return sequences, states
