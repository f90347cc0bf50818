"""Operators that move numbers, of any type."""

import math
from collections.abc import Mapping

import numpy as np

from .env import Emitter, Env, data_of, ends, plus
from .graph import Operator
from .pointwise import C_TYPES, literal
from .text import Lines, Place, copied, copy, index, loops, packed
from .views import slice_of, split_axis


def whole(env: Env, operator: Operator) -> Lines:
    """COPY, which TFLite doesn't have: all numbers."""
    x, _, source, into = ends(env, operator)
    return [copy(into.pointer, source.pointer, x.size, C_TYPES[x.dtype])]


def concatenation(env: Env, operator: Operator) -> Lines:
    """CONCATENATION, and PACK along an axis of its own."""
    y, into = env.graph.tensors[operator.outputs[0]], env.at(operator.outputs[0])
    axis = operator.options["axis"] % len(y.shape)
    apart, at, lines = packed(y.shape), 0, Lines()
    for number in operator.inputs:
        size = 1 if operator.kind == "PACK" else env.graph.tensors[number].shape[axis]
        shape = (*y.shape[:axis], size, *y.shape[axis + 1 :])
        place = into.after(at * apart[axis])
        lines += copied(shape, place, apart, env.at(number), packed(shape), C_TYPES[y.dtype])
        at += size
    return lines


def cut(env: Env, operator: Operator) -> Lines:
    """SLICE and STRIDED_SLICE of what doesn't lie together."""
    x, y, source, into = ends(env, operator)
    taken, apart = slice_of(env.graph, operator), packed(x.shape)
    start = sum(b * a for b, a in zip(taken.begin, apart, strict=True))
    steps = [a * s for a, s in zip(apart, taken.steps, strict=True)]
    return copied(taken.sizes, into, packed(taken.sizes), source.after(start), steps, C_TYPES[y.dtype])


def split(env: Env, operator: Operator) -> Lines:
    """SPLIT, SPLIT_V and UNPACK of what doesn't lie together."""
    number = operator.inputs[1 if operator.kind == "SPLIT" else 0]
    x, source = env.graph.tensors[number], env.at(number)
    axis, apart, at, lines = split_axis(env.graph, operator) % len(x.shape), packed(x.shape), 0, Lines()
    for output in operator.outputs:
        size = 1 if operator.kind == "UNPACK" else env.graph.tensors[output].shape[axis]
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        place = source.after(at * apart[axis])
        lines += copied(shape, env.at(output), packed(shape), place, apart, C_TYPES[x.dtype])
        at += size
    return lines


def transpose(env: Env, operator: Operator) -> Lines:
    """TRANSPOSE."""
    x, y, source, into = ends(env, operator)
    order = np.ravel(data_of(env, operator, operator.inputs[1], "the order of axes"))
    apart = packed(x.shape)
    return copied(y.shape, into, packed(y.shape), source, [apart[k] for k in order], C_TYPES[y.dtype])


def reverse(env: Env, operator: Operator) -> Lines:
    """REVERSE_V2."""
    x, y, source, into = ends(env, operator)
    axes = {int(a) % len(x.shape) for a in np.ravel(data_of(env, operator, operator.inputs[1], "the axis"))}
    apart = packed(x.shape)
    start = sum((n - 1) * a for k, (n, a) in enumerate(zip(x.shape, apart, strict=True)) if k in axes)
    steps = [-a if k in axes else a for k, a in enumerate(apart)]
    return copied(y.shape, into, packed(y.shape), source.after(start), steps, C_TYPES[y.dtype])


def repeat(env: Env, operator: Operator) -> Lines:
    """TILE and BROADCAST_TO."""
    x, y, source, into = ends(env, operator)
    shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
    apart, lines_shape, lines_apart = packed(shape), list[int](), list[int]()
    for n, wanted, a in zip(shape, y.shape, apart, strict=True):
        lines_shape += [wanted // n, n]
        lines_apart += [0, a]
    return copied(lines_shape, into, packed(lines_shape), source, lines_apart, C_TYPES[y.dtype])


def pad(env: Env, operator: Operator) -> Lines:
    """PAD and PADV2: what is around, then what is inside."""
    x, y, source, into = ends(env, operator)
    around = data_of(env, operator, operator.inputs[1], "the padding").reshape(-1, 2)
    value = literal(0, y.dtype)
    if len(operator.inputs) > 2:
        value = env.at(operator.inputs[2]).at("0")
    apart = packed(y.shape)
    start = sum(int(n) * a for (n, _), a in zip(around, apart, strict=True))
    filled = loops([y.size], lambda v: [f"{into.at(v[0])} = {value};"])
    return [*filled, *copied(x.shape, into.after(start), apart, source, packed(x.shape), C_TYPES[y.dtype])]


def gather(env: Env, operator: Operator) -> Lines:
    """GATHER of rows by their numbers; one beyond the last, or below 0, is the last or first."""
    x, y, source, into = ends(env, operator)
    picks, numbers = env.at(operator.inputs[1]), env.graph.tensors[operator.inputs[1]]
    own = operator.options.get("batchDims", 0)  # axes along which other rows are taken each time
    axis = operator.options.get("axis", 0) % len(x.shape)
    before, count, row = math.prod(x.shape[own:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    samples = math.prod(x.shape[:own])
    each = numbers.size // samples

    def one(v: list[str]) -> Lines:
        pick = f"within({picks.at(index([v[0], v[2]], [each, 1]))}, {count})"
        start = index(v[:2], [before * count * row, count * row], source.offset)
        place = (f"{start} + " if start != "0" else "") + (f"{row} * " if row > 1 else "") + pick
        to = index(v, [before * each * row, each * row, row])
        if row == 1:
            return [f"{into.at(to)} = {source.array}[{place}];"]
        return [copy(plus(into, to), f"{source.array} + {place}", row, C_TYPES[y.dtype])]

    return loops([samples, before, each], one)


def gather_nd(env: Env, operator: Operator) -> Lines:
    """GATHER_ND: rows by their numbers along the first axes."""
    x, y, source, into = ends(env, operator)
    picks, numbers = env.at(operator.inputs[1]), env.graph.tensors[operator.inputs[1]]
    deep = numbers.shape[-1]
    apart, row = packed(x.shape), math.prod(x.shape[deep:])

    def one(v: list[str]) -> Lines:
        at = index(v, [deep])
        terms = [
            f"{apart[k]} * within({picks.at(f'{at} + {k}' if at != '0' else str(k))}, {x.shape[k]})"
            for k in range(deep)
        ]
        return [copy(plus(into, index(v, [row])), f"{source.pointer} + {' + '.join(terms)}", row, C_TYPES[y.dtype])]

    return loops([numbers.size // deep], one)


def scatter_nd(env: Env, operator: Operator) -> Lines:
    """SCATTER_ND: zeros, to which rows are added by their numbers along the first axes."""
    numbers, rows, _ = operator.inputs
    y, into = env.graph.tensors[operator.outputs[0]], env.at(operator.outputs[0])
    picks, count = env.at(numbers), env.graph.tensors[numbers]
    deep, source = count.shape[-1], env.at(rows)
    apart, row = packed(y.shape), math.prod(y.shape[deep:])

    def one(v: list[str]) -> Lines:
        at = index(v[:1], [deep])
        terms = [
            f"{apart[k]} * within({picks.at(f'{at} + {k}' if at != '0' else str(k))}, {y.shape[k]})"
            for k in range(deep)
        ]
        place = into.at(" + ".join([*terms, *([v[1]] if v[1] != "0" else [])]))
        return [f"{place} += {source.at(index(v, [row, 1]))};"]

    zeros = f"memset({into.pointer}, 0, {y.size} * sizeof({C_TYPES[y.dtype]}));"
    return [zeros, *loops([count.size // deep, row], one)]


def update(env: Env, operator: Operator) -> Lines:
    """DYNAMIC_UPDATE_SLICE: what was there, with another part; what is there already isn't copied."""
    _, part, start = operator.inputs
    x, y, source, into = ends(env, operator)
    shape, begin = env.graph.tensors[part].shape, env.at(start)
    c_type = C_TYPES[y.dtype]
    lines = [] if source == into else [copy(into.pointer, source.pointer, y.size, c_type)]
    terms = [
        f"{a} * within({begin.at(str(k))}, {n - m + 1})"
        for k, (n, m, a) in enumerate(zip(x.shape, shape, packed(x.shape), strict=True))
        if n != m
    ]
    where = f"{env.name(operator.outputs[0])}_at"
    at = f"{c_type} *const {where} = {into.pointer} + {' + '.join(terms) or '0'};"
    return [*lines, at, *copied(shape, Place(where), packed(x.shape), env.at(part), packed(shape), c_type)]


MOVES: Mapping[str, Emitter] = {
    "BROADCAST_TO": repeat,
    "CONCATENATION": concatenation,
    "COPY": whole,
    "DYNAMIC_UPDATE_SLICE": update,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "PACK": concatenation,
    "PAD": pad,
    "PADV2": pad,
    "REVERSE_V2": reverse,
    "SCATTER_ND": scatter_nd,
    "SLICE": cut,
    "SPLIT": split,
    "SPLIT_V": split,
    "STRIDED_SLICE": cut,
    "TILE": repeat,
    "TRANSPOSE": transpose,
    "UNPACK": split,
}
"""Operator -> what writes it."""
