"""One copy of the step for every time step: the fastest form of one step, and for TFLite of a short fixed T."""

from typing import Any

import tensorflow as tf

from signatures.errors import UnsupportedModel

from ..memory.recurrence import Recurrence
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
    steps = _steps(project(recurrence, x, w))
    valids = [None] * len(steps) if mask is None else _steps(tf.expand_dims(mask, -1))
    output = first_output(recurrence, steps[0], states, w)
    outputs = []
    for z, valid in zip(steps, valids, strict=True):
        output, states = advance(recurrence, z, states, output, valid, w)
        outputs.append(output)
    return tf.stack(outputs, axis=1), states


def _steps(x: Tensor) -> list[Tensor]:
    """Return the time steps of x [B, T, ...], [B, ...] each, by slices and reshapes: XNNPACK doesn't take x[:, t]."""
    if x.shape[1] == 1:
        return [tf.squeeze(x, axis=1)]
    return [tf.squeeze(x[:, t : t + 1], axis=1) for t in range(x.shape[1])]
