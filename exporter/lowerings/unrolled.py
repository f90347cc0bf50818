"""One copy of the step for every time step: the fastest form of one step, and for TFLite of a short fixed T."""

from typing import Any

import tensorflow as tf

from signatures.errors import UnsupportedModel

from ..recurrence import Recurrence
from .cell import States, advance, first_output, project, weights

__all__ = ["lower", "weights"]

Tensor = Any


def lower(
    recurrence: Recurrence, x: Tensor, states: States, mask: Tensor | None, w: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """Lower a recurrence over x [B, T, ...], T static; see Lowering."""
    if x.shape[1] is None:
        raise UnsupportedModel(
            f"layer {recurrence.name!r} can't be unrolled: its number of time steps isn't known.\n"
            "  Export with --lowering loop."
        )
    z = project(recurrence, x, w)
    valid = None if mask is None else tf.expand_dims(mask, -1)
    output = first_output(recurrence, z[:, 0], states, w)
    outputs = []
    for t in range(x.shape[1]):
        output, states = advance(recurrence, z[:, t], states, output, None if valid is None else valid[:, t], w)
        outputs.append(output)
    return tf.stack(outputs, axis=1), states
