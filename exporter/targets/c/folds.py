"""Operators that make one number of many along an axis, and those that run along one."""

import math
from collections.abc import Mapping

import numpy as np

from .env import Emitter, Env, data_of, ends
from .graph import Operator, unknown
from .pointwise import C_TYPES, literal
from .text import Lines, copy, index, loops, packed

REDUCTIONS = {
    "SUM": (0, "{0} + {1}"),
    "MEAN": (0, "{0} + {1}"),
    "REDUCE_PROD": (1, "{0} * {1}"),
    "REDUCE_MAX": (-math.inf, "{0} < {1} ? {1} : {0}"),
    "REDUCE_MIN": (math.inf, "{0} > {1} ? {1} : {0}"),
    "REDUCE_ANY": (False, "{0} || {1}"),
    "REDUCE_ALL": (True, "{0} && {1}"),
}
"""Operator -> what it starts from, and what it makes of that and of one number more."""


def reduce(env: Env, operator: Operator) -> Lines:
    """One number of all along some axes; see REDUCTIONS."""
    x, _, source, into = ends(env, operator)
    axes = {int(a) % len(x.shape) for a in np.ravel(data_of(env, operator, operator.inputs[1], "the axis"))}
    apart = packed(x.shape)
    kept = [k for k in range(len(x.shape)) if k not in axes]
    first, step = REDUCTIONS[operator.kind]
    if math.isinf(first) and x.dtype != "float32":
        info = np.iinfo(x.dtype)
        first = info.min if first < 0 else info.max
    count = math.prod(x.shape[k] for k in axes)
    inner = sorted(axes)

    def outside(out: list[str]) -> Lines:
        used = sum(v != "0" for v in out)

        def inside(over: list[str]) -> Lines:
            at = index([*out, *over], [apart[k] for k in (*kept, *inner)])
            return [f"all = {step.format('all', source.at(at))};"]

        result = f"all / {literal(count, x.dtype)}" if operator.kind == "MEAN" else "all"
        target = into.at(index(out, packed([x.shape[k] for k in kept])))
        return [
            f"{C_TYPES[x.dtype]} all = {literal(first, x.dtype)};",
            *loops([x.shape[k] for k in inner], inside, used),
            f"{target} = {result};",
        ]

    lines = loops([x.shape[k] for k in kept], outside)
    return lines if lines[0].startswith("for ") else ["{", *("    " + line for line in lines), "}"]


def most(env: Env, operator: Operator) -> Lines:
    """ARG_MAX and ARG_MIN: the first of the largest or smallest along an axis."""
    x, _, source, into = ends(env, operator)
    axis = int(np.ravel(data_of(env, operator, operator.inputs[1], "the axis"))[0]) % len(x.shape)
    before, count, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    than = ">" if operator.kind == "ARG_MAX" else "<"

    def one(v: list[str]) -> Lines:
        start = index(v, [count * math.prod(after), 1])
        step = math.prod(after)
        old = source.at(f"{start} + {step} * best" if step > 1 else f"{start} + best")
        new = source.at(f"{start} + {step} * at" if step > 1 else f"{start} + at")
        return [
            "int best = 0;",
            f"for (int at = 1; at < {count}; at++)",
            f"    best = {new} {than} {old} ? at : best;",
            f"{into.at(index(v, [step, 1]))} = best;",
        ]

    lines = loops([math.prod(before), math.prod(after)], one)
    return lines if lines[0].startswith("for ") else ["{", *("    " + line for line in lines), "}"]


def running_sum(env: Env, operator: Operator) -> Lines:
    """CUMSUM along an axis, from its first number on."""
    x, _, source, into = ends(env, operator)
    if operator.options.get("exclusive") or operator.options.get("reverse"):
        raise unknown(env.graph, operator, "it is exclusive or runs backwards")
    axis = int(np.ravel(data_of(env, operator, operator.inputs[1], "the axis"))[0]) % len(x.shape)
    apart, count = math.prod(x.shape[axis + 1 :]), x.shape[axis]
    span = count * apart

    def one(v: list[str]) -> Lines:
        at, before = index([v[0], v[1], v[2]], [span, apart, 1]), index([v[0], v[1], v[2]], [span, apart, 1], -apart)
        return [f"{into.at(at)} = {source.at(at)} + ({v[1]} > 0 ? {into.at(before)} : {literal(0, x.dtype)});"]

    if count == 1:
        return [copy(into.pointer, source.pointer, x.size, C_TYPES[x.dtype])]
    return loops([math.prod(x.shape[:axis]), count, apart], one)


def one_hot(env: Env, operator: Operator) -> Lines:
    """ONE_HOT along a new last axis."""
    x, y, source, into = ends(env, operator)
    if operator.options["axis"] not in (-1, len(y.shape) - 1):
        raise unknown(env.graph, operator, "its new axis isn't the last one")
    on, off = (env.at(number).at("0") for number in operator.inputs[2:])
    depth = y.shape[-1]
    return loops(
        [x.size, depth],
        lambda v: [f"{into.at(index(v, [depth, 1]))} = {source.at(v[0])} == {v[1]} ? {on} : {off};"],
    )


FOLDS: Mapping[str, Emitter] = {
    "ARG_MAX": most,
    "ARG_MIN": most,
    "CUMSUM": running_sum,
    "ONE_HOT": one_hot,
    **dict.fromkeys(REDUCTIONS, reduce),
}
"""Operator -> what writes it."""
