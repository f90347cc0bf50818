"""Nested loops over blocks of time steps, for TFLite sequences of any length.

    for each block of blocks[-1] steps:           T x U outputs carried
        ...
            for each block of blocks[0] steps:    blocks[1] x U outputs carried, one product for the block's inputs
                for each group of steps:          blocks[0] x U outputs carried, `unroll` copies of the step

What shapes it is how TFLite runs a WHILE. It copies every tensor it carries on each turn, so that one loop that carries
all T outputs takes time quadratic in T. And it gives XNNPACK only ops whose shapes it knows from the inputs'.
So sizes follow from x's shape alone, by slices that end where x ends (x[:112] has 112 rows, or T), and the last block
reads step T - 1 again and again instead of being shorter. Outputs are written with XlaDynamicUpdateSlice, which TFLite
has as its builtin DYNAMIC_UPDATE_SLICE.

Source: tensorflow/lite/kernels/while.cc and dynamic_update_slice.cc, TensorFlow 2.21.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice

from ..plan import STEP_BY_STEP, Schedule
from ..recurrence import Recurrence
from .cell import States, advance, first_output, project, weights

__all__ = ["lower", "weights"]

Tensor = Any


def lower(
    recurrence: Recurrence,
    x: Tensor,
    states: States,
    mask: Tensor | None,
    w: dict[str, Tensor],
    schedule: Schedule = STEP_BY_STEP,
) -> tuple[Tensor, States]:
    """Lower a recurrence over x [B, T, ...], any T; see Lowering. Where B isn't known steps are run one by one."""
    batch, total = x.shape[0], x.shape[1]
    unroll = schedule.unroll if batch else 1  # a model may change the number of samples on the way to a layer
    rows = unroll * (batch or 1)  # of one group, where B is known
    steps = tf.shape(x)[1] if total is None else tf.constant(total)
    last = steps - 1
    x = _other_major(x)
    valid = None if mask is None else tf.expand_dims(_other_major(mask), -1)
    first = first_output(recurrence, project(recurrence, x[0], w), states, w)
    count = len(states)

    whole = schedule.blocks
    sizes = [size // unroll for size in whole] or [-(-total // unroll)]  # in groups
    marks = _marks(x, unroll, batch, len(first.shape), known=total is not None)
    shape = [-1, rows, *first.shape[1:]] if batch else None
    groups = [marks[:size] for size in sizes] + ([marks] if whole else [])
    offsets = _offsets(groups[0], sizes[0] if total is not None else None, unroll)
    for k in range(1, len(groups)):  # the last block of each level may stick out
        groups[k] = tf.concat([groups[k], groups[k - 1]], axis=0)
    # Inside a group T may end, so the states of all its steps are kept, and the one at T is taken at the end.
    keep = unroll > 1 and (total is None or total % unroll > 0)
    carried = [tf.concat([state] * unroll, axis=0) for state in states] if keep else list(states)

    def block(base: Tensor, carried: list[Tensor]) -> list[Tensor]:
        """Run the steps of one innermost block from step `base`: its outputs [groups, rows, U], what is carried."""
        at = tf.minimum(offsets + base, last)
        z = _grouped(project(recurrence, tf.gather(x, at), w), unroll)
        ok = None if valid is None else _grouped(tf.gather(valid, at), unroll)

        def group(j: Tensor, buffer: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            states, output = [_split(state, unroll)[-1] if keep else state for state in carried[:count]], carried[-1]
            valids = [None] * unroll if ok is None else _split(tf.gather(ok, j), unroll)
            outputs, after = [], []
            for step, now in zip(_split(tf.gather(z, j), unroll), valids, strict=True):
                output, states = advance(recurrence, step, states, output, now, w)
                outputs.append(output)
                after.append(states)
            buffer = _put(buffer, _joined(outputs)[None], j)
            states = [_joined(list(each)) for each in zip(*after, strict=True)] if keep else states
            return j + 1, buffer, *states, *([output] if recurrence.output is None else [])

        turns = (tf.minimum(last - base, sizes[0] * unroll - 1) + unroll) // unroll
        start = (tf.constant(0), _blank(groups[0], shape, first), *carried)
        return list(tf.while_loop(lambda j, *_: j < turns, group, start)[1:])

    def level(k: int, base: Tensor, carried: list[Tensor]) -> list[Tensor]:
        """Run block k of the nest from step `base`, by blocks of the level below."""
        if k == 0:
            return block(base, carried)
        inner = whole[k - 1]
        ahead = steps if k == len(whole) else tf.minimum(steps - base, whole[k])

        def turn(j: Tensor, buffer: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            part, *now = level(k - 1, base + j * inner, list(carried))
            return j + 1, _put(buffer, part, j * (inner // unroll)), *now

        start = (tf.constant(0), _blank(groups[k], shape, first), *carried)
        return list(tf.while_loop(lambda j, *_: j * inner < ahead, turn, start)[1:])

    start = [*carried, *([first] if recurrence.output is None else [])]
    outputs, *carried = level(len(whole), tf.constant(0), start)
    if unroll > 1:
        outputs = tf.reshape(outputs, [-1, batch, *first.shape[1:]])
    states = carried[:count]
    if keep:
        states = [tf.reshape(state, [unroll, batch, *state.shape[1:]])[last % unroll] for state in states]
    # By tf.slice: TFLite's STRIDED_SLICE copies number by number.
    outputs = tf.slice(outputs, [0] * len(outputs.shape), [steps, *[-1] * (len(outputs.shape) - 1)])
    sequences = _other_major(outputs)
    sequences.set_shape([batch, total, *first.shape[1:]])
    return sequences, states


def _other_major(x: Tensor) -> Tensor:
    """Swap the first two axes, [B, T, ...] <-> [T, B, ...]: for one sample a reshape."""
    if x.shape[0] == 1:
        return tf.reshape(x, [-1, 1, *x.shape[2:]])
    if x.shape[1] == 1:
        return tf.reshape(x, [1, -1, *x.shape[2:]])
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def _marks(x: Tensor, unroll: int, batch: int | None, rank: int, known: bool) -> Tensor:
    """Return zeros, one for each group of steps in x [T, B, ...]: [T / unroll, 1]; B not known: [T, B, 1, ...].

    Where T is known they are written so that they aren't folded into a constant: a buffer made of it would be one.
    """
    if batch is not None:
        x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])[::unroll, :1]
        return x * 0 if known else tf.zeros_like(x)
    x = x[(..., *[slice(1)] * (len(x.shape) - 2))]
    x = x * 0 if known else tf.zeros_like(x)
    for _ in range(rank + 1 - len(x.shape)):
        x = tf.expand_dims(x, -1)
    return tf.squeeze(x, list(range(rank + 1, len(x.shape)))) if len(x.shape) > rank + 1 else x


def _blank(marks: Tensor, shape: list[int] | None, like: Tensor) -> Tensor:
    """Return a buffer [groups, rows, ...] of outputs [B, ...]; where B is known by two axes: TFLite is quick then."""
    if shape is None:
        return marks + tf.zeros([1, 1, *like.shape[1:]], like.dtype)
    return tf.reshape(marks + tf.zeros([1, int(np.prod(shape[1:]))], like.dtype), shape)


def _offsets(marks: Tensor, groups: int | None, unroll: int) -> Tensor:
    """Return 0, 1, 2, ... for the steps of one block, as many as there are groups in `marks` times `unroll`."""
    if groups is not None:
        return tf.range(groups * unroll)
    ones = marks[(slice(None), *[0] * (len(marks.shape) - 1))] + 1
    numbers = tf.cast(tf.cumsum(ones, exclusive=True), tf.int32)
    return numbers if unroll == 1 else tf.reshape(numbers[:, None] * unroll + np.arange(unroll, dtype=np.int32), [-1])


def _grouped(x: Tensor, unroll: int) -> Tensor:
    """Join steps [T, B, ...] to groups [T / unroll, unroll B, ...]."""
    return x if unroll == 1 else tf.reshape(x, [-1, unroll * x.shape[1], *x.shape[2:]])


def _split(x: Tensor, unroll: int) -> list[Tensor]:
    """Split a group [unroll B, ...] into its steps [B, ...], by slices: XNNPACK has no SPLIT into more than four."""
    if unroll == 1:
        return [x]
    rows = x.shape[0] // unroll
    return [tf.slice(x, [k * rows, 0], [rows, x.shape[1]]) for k in range(unroll)]


def _joined(parts: list[Tensor]) -> Tensor:
    """Join steps [B, ...] to a group [unroll B, ...], four at a time: XNNPACK concatenates no more than five."""
    while len(parts) > 1:
        parts = [tf.concat(parts[k : k + 4], axis=0) for k in range(0, len(parts), 4)]
    return parts[0]


def _put(buffer: Tensor, rows: Tensor, start: Tensor) -> Tensor:
    """Write rows into a buffer from a row on."""
    written = xla_dynamic_update_slice(buffer, rows, [start, *[0] * (len(buffer.shape) - 1)])
    written.set_shape(buffer.shape)
    return written
