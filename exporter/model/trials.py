"""Run a model on random data of several sizes, to see what it takes.

The axes of its inputs that may count time are found first, then numbers of time steps that it runs with: the most
clocks that its inputs can have.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from signatures.errors import UnsupportedModel, one_line

from . import reach, swap
from .function import Axis, Model
from .swap import Call

WHOLE = (240, 720)
"""Multiples of many numbers, for a model that takes multiples of one."""

TRIALS = ((5, 37), (24, 101), (128, 301), (512, 1025))
"""Pairs of T to run a model with: the first pair it takes tells which axes change with T.

They lie far apart, so that a pooling by a few steps doesn't make them one.
"""

ROWS = (3, 2, 2)
"""Samples of the three runs, where the model doesn't declare how many."""

FEW = 4
"""Inputs up to which every way is tried in which some of them may share a clock: 15 ways."""

Axes = Sequence[Axis]


@dataclass(frozen=True)
class Trial:
    """One eager run of the model.

    Attributes:
        sizes: Time axis of an input -> how many steps it had.
        rows: How many samples.
        numbers: How many numbers all its layers gave for one time step of one sample, about.
    """

    sizes: Mapping[Axis, int]
    rows: int
    outputs: list[tuple[str, Any]]
    calls: list[Call]
    numbers: int


def time_axes(model: Model) -> list[Axis]:
    """Return the axes of inputs that may count time; none where the recurrent layers run on something of a fixed size.

    They are those that the inputs leave open; else the ones that, when they are doubled, make the recurrent layers run
    longer; else, for a model that takes one T only, those as long as a recurrent layer runs.
    """
    if wide := [each for each in model.inputs if each.shape[1:].count(None) > 1]:
        raise UnsupportedModel(
            f"input {wide[0].name!r} has shape {list(wide[0].shape)}: only batch and time may be open.\n"
            "  Give the feature axes a fixed size in the model's Input."
        )
    if found := [(each.name, each.shape.index(None, 1)) for each in model.inputs if None in each.shape[1:]]:
        return found
    if not model.layers:
        return _longer_inputs(model)
    steps = _recurrent_steps(model, {})
    sizes = {(i.name, axis): int(size or 1) for i in model.inputs for axis, size in enumerate(i.shape) if axis}
    rank = {each.name: len(each.shape) for each in model.inputs}
    for group in _alike(sizes, rank):
        doubled = {axis: 2 * sizes[axis] for axis in group}
        longer = _recurrent_steps(model, doubled)
        if longer and longer != steps:
            rest = {axis: {k: v for k, v in doubled.items() if k != axis} for axis in doubled}
            return [axis for axis in doubled if len(group) == 1 or _recurrent_steps(model, rest[axis]) != longer]
    whole = {each.name: len(each.shape) > 2 or each.dtype.startswith("int") for each in model.inputs}
    long = [axis for axis, size in sizes.items() if size in (steps or []) and whole[axis[0]]]
    return list({name: (name, axis) for name, axis in reversed(long)}.values())[::-1]


def _longer_inputs(model: Model) -> list[Axis]:
    """Return the axes 1 of all inputs with more axes, or tokens: those that count time where nothing is recurrent."""
    return [(each.name, 1) for each in model.inputs if len(each.shape) > (1 if each.dtype.startswith("int") else 2)]


def _alike(sizes: Mapping[Axis, int], rank: Mapping[str, int]) -> Iterator[list[Axis]]:
    """Yield the axes that may count time together: on one place and of one size, or one alone; axis 1 first."""
    for place in range(1, max(rank.values(), default=1)):
        here = {axis: size for axis, size in sizes.items() if axis[1] == place}
        alike = [[axis for axis in here if here[axis] == size] for size in dict.fromkeys(here.values())]
        yield from alike
        yield from ([axis for axis in group if rank[axis[0]] > 2] for group in alike)
        yield from ([axis] for axis in here)


def _recurrent_steps(model: Model, sizes: Mapping[Axis, int]) -> list[int] | None:
    """Return the T of each recurrent call when inputs have these sizes; None where that doesn't run."""
    try:
        ran = model.eagerly(model.draw(sizes, 2, np.random.default_rng(0)))
        return [made.sequences.shape[1] for made in ran.calls]
    except Exception:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
        return None


def declared(model: Model, axes: Collection[Axis]) -> dict[Axis, int]:
    """Return the sizes that inputs declare for some of their axes."""
    return {
        (each.name, axis): size
        for each in model.inputs
        for axis, size in enumerate(each.shape)
        if (each.name, axis) in axes and size is not None
    }


def run_trials(model: Model, axes: list[Axis]) -> tuple[Sequence[Axes], bool, list[Trial]]:
    """Find T the model runs with: the most clocks that its inputs can have, else the sizes they declare.

    Returns:
        (the axes that share a clock, for each; whether T is free; runs of different batch and T).
    """
    given = declared(model, axes)
    far = min(max(reach.named_steps(model.keras)), reach.MOST)
    found, reason = _of_two_sizes(model, axes, (*TRIALS, (far + 5, far + 37), (4 * far + 5, 5 * far + 37)), far)
    if found:
        return found
    if len(given) == len(axes):
        try:
            return [[axis] for axis in axes], False, [_trial(model, given, rows, k) for k, rows in enumerate(ROWS)]
        except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
            reason = one_line(error)
    found, _ = _of_two_sizes(model, axes, (WHOLE,), far)
    if found:
        return found
    raise UnsupportedModel(
        f"model {model.keras.name!r} can't be run on random data ({reason}).\n  Check that it predicts in Keras."
    )


def _of_two_sizes(
    model: Model, axes: list[Axis], pairs: Sequence[tuple[int, int]], far: int
) -> tuple[tuple[Sequence[Axes], bool, list[Trial]] | None, str]:
    """Return runs of two T, and a longer one, with the most clocks that can be had; None and why not."""
    reason = ""
    for clocks in _partitions(axes) if axes else ():
        for pair in pairs:
            try:
                first, second = (
                    _trial(model, {axis: t + s * k for k, clock in enumerate(clocks) for axis in clock}, rows, k)
                    for k, (t, s, rows) in enumerate(zip(pair, (11, 17), ROWS, strict=False))
                )
            except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
                reason = one_line(error)
                continue
            longer = _longer(model, clocks, max(far + 41, pair[1] + 24), second.numbers)
            return (clocks, True, [first, second, *longer]), reason
    return None, reason


def _trial(model: Model, sizes: Mapping[Axis, int], rows: int, seed: int) -> Trial:
    """Run the model once.

    Raises:
        ValueError: When an output is empty, which shows nothing.
    """
    every = model.memories.every
    sizes = {axis: -(-size // every) * every for axis, size in sizes.items()}
    feeds = {**model.draw(sizes, rows, np.random.default_rng(seed + 1)), **model.initial(rows)}
    with swap.recorded(model.keras, inside=True) as record:
        ran = model.eagerly(feeds)
    if empty := [name for name, value in ran.outputs if 0 in value.shape]:
        raise ValueError(f"its output {empty[0]!r} is empty for {max(sizes.values(), default=0)} time steps")
    rows = model.batch or rows
    given = sum(int(np.prod(value.shape)) for _, value in record if value is not None)
    return Trial(sizes, rows, ran.outputs, ran.calls, max(given // max(sizes.values(), default=1) // rows, 1))


def _longer(model: Model, clocks: Sequence[Axes], total: int, numbers: int) -> list[Trial]:
    """Return a run that is longer than every number in the model; none where it doesn't take that many steps."""
    total = min(total, reach.most_steps(model.keras, numbers))
    try:
        return [_trial(model, {axis: total + 23 * k for k, clock in enumerate(clocks) for axis in clock}, ROWS[2], 2)]
    except Exception:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
        return []


def _partitions(axes: list[Axis]) -> list[list[list[Axis]]]:
    """Return the ways in which axes may share clocks, those with the most clocks first."""

    def ways(rest: list[Axis]) -> list[list[list[Axis]]]:
        if not rest:
            return [[]]
        head, *tail = rest
        smaller = ways(tail)
        apart = [[[head], *way] for way in smaller]
        joined = [[*way[:k], [head, *way[k]], *way[k + 1 :]] for way in smaller for k in range(len(way))]
        return [*apart, *joined]

    if len(axes) > FEW:
        return [[[axis] for axis in axes], *([[axis], [a for a in axes if a != axis]] for axis in axes), [axes]]
    return sorted(ways(axes), key=len, reverse=True)
