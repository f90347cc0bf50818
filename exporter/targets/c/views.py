"""What operators take of arrays: parts that lie in them as they are, which needn't be copied, and others.

Given   %2 = RESHAPE(%1) of [1, 128]; %3, %4 = SPLIT(%2)
Result  aliases {%2: (%1, 0), %3: (%1, 0), %4: (%1, 64)}
"""

import math
from dataclasses import dataclass

import numpy as np

from .graph import Graph, Operator, Tensor, unknown

SAME_NUMBERS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
"""Operators whose output is their input by another shape."""


def aliases(graph: Graph) -> dict[int, tuple[int, int]]:
    """Return tensor -> (the tensor that it is a part of, at which number it begins), for all that needn't be copied."""
    found: dict[int, tuple[int, int]] = {}
    for operator in graph.operators:
        for output, start in _parts(graph, operator):
            whole, offset = found.get(operator.inputs[_source(operator)], (operator.inputs[_source(operator)], 0))
            found[output] = whole, offset + start
    return found


def _source(operator: Operator) -> int:
    """Return which input of an operator is the one that it takes parts of."""
    return 1 if operator.kind == "SPLIT" else 0


def _parts(graph: Graph, operator: Operator) -> list[tuple[int, int]]:
    """Return (output, where in the input it begins) if all outputs lie in the input as they are, else none."""
    source = graph.tensors[operator.inputs[_source(operator)]] if operator.inputs else Tensor((), "")
    if operator.kind in SAME_NUMBERS:
        return [(operator.outputs[0], 0)]
    corners = corners_of(graph, operator)
    if corners is None:
        return []
    found = []
    for output, begin in zip(operator.outputs, corners, strict=True):
        shape = graph.tensors[output].shape
        sizes = shape if len(shape) == len(source.shape) else None
        if operator.kind == "UNPACK":
            axis = operator.options["axis"] % len(source.shape)
            sizes = (*shape[:axis], 1, *shape[axis:])
        elif operator.kind in ("STRIDED_SLICE", "SLICE"):
            sizes = slice_of(graph, operator).sizes
        assert sizes is not None
        if not _lie_together(source.shape, sizes):
            return []
        found.append((output, sum(b * s for b, s in zip(begin, strides(source.shape), strict=True))))
    return found


def _lie_together(whole: tuple[int, ...], part: tuple[int, ...]) -> bool:
    """Whether a part of an array, of the same rank, lies in it without gaps."""
    cut = next((axis for axis, size in enumerate(part) if size != 1), len(part))
    return all(a == b for a, b in zip(whole[cut + 1 :], part[cut + 1 :], strict=True))


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many numbers apart the neighbours along each axis of an array are."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True)
class Slice:
    """What a slice takes of an array: from where, in steps of how many, how many; an entry an axis."""

    begin: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: tuple[int, ...]


def slice_of(graph: Graph, operator: Operator) -> Slice:
    """Return what a SLICE or STRIDED_SLICE takes.

    Raises:
        UnsupportedModel: When that isn't known before the call, or it makes new axes.
    """
    source = graph.tensors[operator.inputs[0]].shape
    given = [graph.tensors[number].data for number in operator.inputs[1:]]
    options = operator.options
    if any(each is None for each in given) or options.get("ellipsisMask") or options.get("newAxisMask"):
        raise unknown(graph, operator, "what it takes is only known while it runs")
    rows = [[int(value) for value in np.ravel(each)] for each in given if each is not None]
    if operator.kind == "SLICE":
        begin = tuple(rows[0])
        sizes = tuple(n - b if size < 0 else size for b, size, n in zip(*rows, source, strict=True))
        return Slice(begin, (1,) * len(source), sizes)
    begins, steps, sizes_ = [], [], []
    for axis, size in enumerate(source):
        cut = slice(
            None if options["beginMask"] >> axis & 1 else rows[0][axis],
            None if options["endMask"] >> axis & 1 else rows[1][axis],
            rows[2][axis],
        )
        if options["shrinkAxisMask"] >> axis & 1:
            cut = slice(rows[0][axis] % size, rows[0][axis] % size + 1, 1)
        taken = range(size)[cut]
        begins.append(taken.start)
        steps.append(taken.step)
        sizes_.append(len(taken))
    return Slice(tuple(begins), tuple(steps), tuple(sizes_))


def corners_of(graph: Graph, operator: Operator) -> list[tuple[int, ...]] | None:
    """Return where each output of an operator that cuts begins in its input; None for others, and for steps over it."""
    if operator.kind in ("STRIDED_SLICE", "SLICE"):
        cut = slice_of(graph, operator)
        return [cut.begin] if all(step == 1 or n == 1 for step, n in zip(cut.steps, cut.sizes, strict=True)) else None
    if operator.kind not in ("SPLIT", "SPLIT_V", "UNPACK"):
        return None
    source = graph.tensors[operator.inputs[_source(operator)]].shape
    axis = split_axis(graph, operator) % len(source)
    starts, at = [], 0
    for output in operator.outputs:
        starts.append(tuple(at if k == axis else 0 for k in range(len(source))))
        at += 1 if operator.kind == "UNPACK" else graph.tensors[output].shape[axis]
    return starts


def split_axis(graph: Graph, operator: Operator) -> int:
    """Return the axis along which SPLIT, SPLIT_V or UNPACK cuts."""
    if operator.kind == "UNPACK":
        return int(operator.options["axis"])
    data = graph.tensors[operator.inputs[0 if operator.kind == "SPLIT" else 2]].data
    if data is None:
        raise unknown(graph, operator, "its axis is only known while it runs")
    return int(np.ravel(data)[0])
