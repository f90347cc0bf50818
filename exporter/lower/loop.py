"""Nested loops over blocks of time steps, for TFLite sequences of any length.

    for each block of blocks[-1] steps:           T x U outputs carried
        ...
            for each block of blocks[0] steps:    blocks[1] x U outputs carried, one product for the block's inputs
                for each group of steps:          blocks[0] x U outputs carried, `unroll` copies of the step

What shapes it is how TFLite runs a WHILE. It copies every tensor it carries on each turn, so that one loop that carries
all T outputs takes time quadratic in T. And it gives XNNPACK only ops whose shapes it knows from the inputs'.
So sizes follow from x's shape alone, by slices that end where x ends (x[:112] has 112 rows, or T). The first block of
each loop is the one that may be shorter: what it leaves at its end is overwritten by the next, and the last one ends
where the outputs end. Outputs are written with XlaDynamicUpdateSlice, TFLite's builtin DYNAMIC_UPDATE_SLICE.

    T = 5 in blocks of 2    0 .          1 2          3 4          steps of the block
                            0 . . . .    0 1 2 . .    0 1 2 3 4    the outputs after it

Source: tensorflow/lite/kernels/while.cc and dynamic_update_slice.cc, TensorFlow 2.21.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice

from ..memory.recurrence import Recurrence
from .cell import States, advance, first_output, project, time_major, weights
from .plan import STEP_BY_STEP, Schedule

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
    steps = tf.shape(x)[1] if total is None else tf.constant(total)
    last = steps - 1
    if batch:  # which x may know and the states not
        states = [tf.reshape(state, [batch, *state.shape[1:]]) for state in states]
    first = first_output(recurrence, project(recurrence, x[:, 0], w), states, w)
    count = len(states)

    # Sizes are numbers of groups of `unroll` steps from here on; `base` and `last` are steps.
    sizes = [size // unroll for size in schedule.blocks] or [-(-total // unroll)]
    marks = _marks(x, unroll, len(first.shape))
    rows = [marks[:size] for size in sizes] + [marks]
    offsets = _offsets(rows[0], unroll) if total is None else tf.range(sizes[0] * unroll)
    # Inside the last group T may end, so the states of all its steps are kept, and the one at T is taken at the end;
    # but for the state that is the output, of which all steps are there anyway.
    over = unroll > 1 and (total is None or total % unroll > 0)
    kept = [over and k != recurrence.output for k in range(count)]
    carried = [
        tf.pad(state, [[(unroll - 1) * batch, 0], [0, 0]]) if keep else state
        for state, keep in zip(states, kept, strict=True)
    ]

    def block(base: Tensor, groups: Tensor, carried: list[Tensor]) -> list[Tensor]:
        """Run the groups of one innermost block from step `base`: its outputs, what is carried."""
        at = tf.minimum(offsets + base, last)
        z = _grouped(project(recurrence, time_major(tf.gather(x, at, axis=1)), w), unroll)
        ok = None if mask is None else _grouped(tf.expand_dims(time_major(tf.gather(mask, at, axis=1)), -1), unroll)

        def group(j: Tensor, buffer: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            output = carried[-1]
            states = [_split(state, unroll)[-1] if keep else state for state, keep in zip(carried, kept, strict=False)]
            valids = [None] * unroll if ok is None else _split(tf.gather(ok, j), unroll)
            outputs, after = [], []
            for step, now in zip(_split(tf.gather(z, j), unroll), valids, strict=True):
                output, states = advance(recurrence, step, states, output, now, w)
                outputs.append(output)
                after.append(states)
            buffer = _put(buffer, _row(_joined(outputs), buffer), j)
            states = [_joined([each[k] for each in after]) if kept[k] else states[k] for k in range(count)]
            return j + 1, buffer, *states, *([output] if recurrence.output is None else [])

        start = (tf.constant(0), _blank(rows[0], unroll, first), *carried)
        return list(tf.while_loop(lambda j, *_: j < groups, group, start)[1:])

    def level(k: int, base: Tensor, groups: Tensor, carried: list[Tensor]) -> list[Tensor]:
        """Run the groups of a block k loops above the innermost from step `base`, by blocks of the loop below."""
        if k == 0:
            return block(base, groups, carried)
        inner = sizes[k - 1]

        def turn(done: Tensor, buffer: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            now = (groups - done - 1) % inner + 1  # the remainder in the first turn, all of a block in the others
            part, *after = level(k - 1, base + done * unroll, now, list(carried))
            return done + now, _put(buffer, part, done), *after

        start = (tf.constant(0), _blank(rows[k], unroll, first), *carried)
        return list(tf.while_loop(lambda done, *_: done < groups, turn, start)[1:])

    start = [*carried, *([first] if recurrence.output is None else [])]
    outputs, *carried = level(len(schedule.blocks), tf.constant(0), last // unroll + 1, start)
    sequences = time_major(outputs if batch is None else tf.reshape(outputs, [-1, *first.shape]))
    if over:  # by tf.slice: TFLite's STRIDED_SLICE copies number by number
        sequences = tf.slice(sequences, [0] * len(sequences.shape), [-1, steps, *[-1] * (len(sequences.shape) - 2)])
    sequences.set_shape([batch, total, *first.shape[1:]])
    if not over:
        return sequences, carried[:count]
    return sequences, [  # with shapes that TFLite knows after slices whose sizes it doesn't
        tf.reshape(state, [unroll, *first.shape])[last % unroll] if keep else tf.reshape(sequences[:, -1], first.shape)
        for state, keep in zip(carried, kept, strict=False)
    ]


def _marks(x: Tensor, unroll: int, rank: int) -> Tensor:
    """Return zeros, one for each group of steps in x [B, T, ...]: [T / unroll, 1]; B not known: [T, B, 1, ...].

    Where T is known they are written so that they aren't folded into a constant: a buffer made of it would be one.
    They are NaN then where x isn't finite: no row of a buffer is read before it is written.
    """
    one = x[(..., *[0] * (len(x.shape) - 2))]
    if x.shape[0] is not None:
        marks = tf.reshape(one[:1, ::unroll], [-1, 1])
    else:
        marks = time_major(one)
        for _ in range(rank - 1):  # TFLite's converter takes no new axes in a slice of any B
            marks = tf.expand_dims(marks, -1)
    return tf.zeros_like(marks) if x.shape[1] is None else marks * 0


def _blank(marks: Tensor, unroll: int, like: Tensor) -> Tensor:
    """Return a buffer for the outputs [B, ...] of all steps, a row for each group; B not known: [T, B, ...]."""
    if like.shape[0] is None:
        return marks + tf.zeros([1, 1, *like.shape[1:]], like.dtype)
    return marks + tf.zeros([1, unroll * int(np.prod(like.shape))], like.dtype)


def _offsets(marks: Tensor, unroll: int) -> Tensor:
    """Return 0, 1, 2, ... for the steps of one block, as many as there are groups in `marks` times `unroll`."""
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


def _row(group: Tensor, buffer: Tensor) -> Tensor:
    """Return the outputs [rows, ...] of a group as a row of their buffer."""
    if buffer.shape[1] is None:
        return tf.expand_dims(group, 0)
    return tf.reshape(group, [1, buffer.shape[1]])


def _put(buffer: Tensor, rows: Tensor, start: Tensor) -> Tensor:
    """Write rows into a buffer from a row on."""
    written = xla_dynamic_update_slice(buffer, rows, [start, *[0] * (len(buffer.shape) - 1)])
    written.set_shape(buffer.shape)
    return written
