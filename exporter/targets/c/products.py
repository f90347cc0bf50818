"""Operators that multiply matrices, and softmax."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from signatures.ports import Array

from .env import Emitter, Env, bias_of, data_of, ends, plus, start
from .graph import Operator
from .pointwise import literal
from .text import Lines, Place, index, loops, packed

PANELS = (64, 48, 32)
"""Columns of a matrix that dense_f32 takes side by side: the most that there are, but 96 as twice 48."""

NARROW = (32,)
"""The same of dense_i8."""


def panels(matrix: Array, widths: Sequence[int] = PANELS) -> Array:
    """Return a matrix [in, out] in the order that dense_f32 reads it in: panels of columns, each by rows."""
    columns, at, parts = matrix.shape[1], 0, []
    while at < columns:
        left = columns - at
        width = 48 if left == 96 and 48 in widths else next((w for w in widths if w <= left), left)
        parts.append(matrix[:, at : at + width].ravel())
        at += width
    return np.concatenate(parts)


def dense(env: Env, operator: Operator) -> Lines:
    """FULLY_CONNECTED: y = bias + x1 W1 + x2 W2 ...; inputs x1, W1, bias, x2, W2, ..."""
    x1, w1, *more = operator.inputs
    y, into = env.graph.tensors[operator.outputs[0]], env.at(operator.outputs[0])
    pairs = [(x1, w1), *zip(more[1::2], more[2::2], strict=True)]
    columns, name = env.graph.tensors[w1].shape[0], env.name(operator.outputs[0])
    rows, bias = y.size // columns, bias_of(env, operator, 2)
    if env.graph.tensors[w1].data is None:
        return _product(env, x1, w1, operator.outputs[0], (rows, columns), (False, True), bias)

    def row(variables: list[str]) -> Lines:
        at = index(variables, [columns])
        lines = [start(into, bias, columns, at)]
        for k, (x, w) in enumerate(pairs):
            matrix, rounded = data_of(env, operator, w, "the kernel").T, env.graph.tensors[w].rounded
            which = f"_{k + 1}" * (len(pairs) > 1)
            ends = [plus(env.at(x), index(variables, [matrix.shape[0]])), plus(into, at)]
            if rounded is None:
                weights = env.constant(panels(matrix), f"{name}_weights{which}")
                lines.append(f"dense_f32({ends[0]}, {matrix.shape[0]}, {weights.pointer}, {columns}, {ends[1]});")
            else:
                weights = env.constant(panels(rounded[0].T, NARROW), f"{name}_weights{which}")
                scale = env.constant(rounded[1], f"{name}_scale{which}").pointer
                sizes = f"{matrix.shape[0]}, {weights.pointer}, {scale}, {columns}"
                lines.append(f"dense_i8({ends[0]}, {sizes}, {ends[1]});")
        return lines

    return loops([rows], row)


def _product(
    env: Env, a: int, b: int, y: int, sizes: tuple[int, int], turned: tuple[bool, bool], bias: Place | None = None
) -> Lines:
    """Return a product of two matrices that are computed, each by its rows or, turned, by its columns."""
    rows, columns = sizes
    inner = env.graph.tensors[a].shape[-2 if turned[0] else -1]
    a_apart = (1, rows) if turned[0] else (inner, 1)
    b_apart = (1, inner) if turned[1] else (columns, 1)
    numbers = ", ".join(map(str, (rows, inner, columns, *a_apart, *b_apart)))
    lines = loops([rows], lambda v: [start(env.at(y), bias, columns, index(v, [columns]))])
    return [*lines, f"matmul_f32({env.at(a).pointer}, {env.at(b).pointer}, {env.at(y).pointer}, {numbers});"]


def batch_matmul(env: Env, operator: Operator) -> Lines:
    """BATCH_MATMUL of tensors that are computed or constant."""
    [a, b], [y] = operator.inputs, operator.outputs
    tensors = env.graph.tensors
    turned = bool(operator.options["adjX"]), bool(operator.options["adjY"])
    shape = tensors[y].shape
    *batch, rows, columns = shape
    inner = tensors[a].shape[-2 if turned[0] else -1]
    a_apart = (1, rows) if turned[0] else (inner, 1)
    b_apart = (1, inner) if turned[1] else (columns, 1)
    spans = [_batch_apart(tensors[each].shape, len(batch)) for each in (a, b)]
    fixed = tensors[b].data

    def one(variables: list[str]) -> Lines:
        ends = [plus(env.at(e), index(variables, s)) for e, s in zip((a, b), spans, strict=True)]
        into = plus(env.at(y), index(variables, [rows * columns * n for n in packed(batch)]))
        numbers = ", ".join(map(str, (rows, inner, columns, *a_apart, *b_apart)))
        start = f"memset({into}, 0, {rows * columns} * sizeof(float));"
        return [start, f"matmul_f32({ends[0]}, {ends[1]}, {into}, {numbers});"]

    if fixed is None or turned[0] or any(n != 1 for n in tensors[b].shape[:-2]):
        return loops(batch, one)
    matrix = fixed.reshape(fixed.shape[-2:])
    weights = env.constant(panels(matrix.T if turned[1] else matrix), f"{env.name(y)}_weights")

    def row(variables: list[str]) -> Lines:
        ends = plus(env.at(a), index(variables, [inner])), plus(env.at(y), index(variables, [columns]))
        start = f"memset({ends[1]}, 0, {columns} * sizeof(float));"
        return [start, f"dense_f32({ends[0]}, {inner}, {weights.pointer}, {columns}, {ends[1]});"]

    return loops([tensors[y].size // columns], row)


def _batch_apart(shape: Sequence[int], axes: int) -> list[int]:
    """Return how far apart the matrices of a batch are along each of its axes; 0 where one is for all."""
    own = [1] * (axes - len(shape) + 2) + list(shape[:-2])
    return [0 if n == 1 else math.prod(shape[-2:]) * step for n, step in zip(own, packed(own), strict=True)]


def softmax(env: Env, operator: Operator) -> Lines:
    """SOFTMAX and LOG_SOFTMAX over the last axis."""
    x, y, source, into = ends(env, operator)
    count = x.shape[-1]
    beta = literal(operator.options.get("beta", 1.0), "float32")
    kernel = {"SOFTMAX": f"softmax_f32({{}}, {count}, {beta}, {{}});"}.get(
        operator.kind, f"log_softmax_f32({{}}, {count}, {{}});"
    )
    return loops(
        [y.size // count],
        lambda v: [kernel.format(plus(source, index(v, [count])), plus(into, index(v, [count])))],
    )


PRODUCTS: Mapping[str, Emitter] = {
    "BATCH_MATMUL": batch_matmul,
    "FULLY_CONNECTED": dense,
    "LOG_SOFTMAX": softmax,
    "SOFTMAX": softmax,
}
"""Operator -> what writes it, for float32."""
