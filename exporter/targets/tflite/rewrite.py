"""What a float32 graph is before it is quantized: the same numbers, by ops whose integer kernels round less.

Each function below takes a graph, says what it changes as Given and Result, and leaves what it doesn't find as it is.
"""

import copy
from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Array, Graph, Op, Tensor, constant

BIASED = {"FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Products that needn't have a bias -> where it stands among the inputs."""

BROADCASTS = {"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"}
"""Ops of two tensors of which one may have fewer axes, or axes of 1."""

ENDLESS = 1e18
"""Beyond it nothing of a quantized graph can be."""


def rewritten(graph: Graph) -> Graph:
    """Return the graph with all of these, in an order in which each sees what it needs."""
    graph = Graph(graph.inputs, graph.outputs, [replace(op, inputs=list(op.inputs)) for op in graph.ops])
    for change in (without_guards, without_reshapes, split_first, mixed, biases_apart):
        change(graph)
        graph = graph.pruned()
    return graph


def without_guards(graph: Graph) -> None:
    """Leave out what keeps infinity from a LOGISTIC.

    Given   y = MINIMUM(x, 1e18)
    Result  x
    """
    for op in graph.ops:
        if op.kind in ("MINIMUM", "MAXIMUM"):
            x, limit = op.reads if op.reads[1].data is not None else op.reads[::-1]
            sign = 1 if op.kind == "MINIMUM" else -1
            if limit.floating and limit.data is not None and np.all(sign * limit.data >= ENDLESS):
                graph.replace(op.outputs[0], x)


def without_reshapes(graph: Graph) -> None:
    """Leave out what only takes axes of 1 off, before an op that puts them on again.

    LiteRT has a RESHAPE give the memory that it reads, and an ADD, too: which then overwrites what others still read.

    Given   y = ADD(a [1, 1, 6], RESHAPE(x [1, 1, 6]) [6])
    Result  y = ADD(a, x)
    """
    for op in [op for op in graph.ops if op.kind in BROADCASTS]:
        for k, each in enumerate(op.reads):
            reshape = graph.maker(each)
            if reshape is None or reshape.kind != "RESHAPE":
                continue
            x = reshape.reads[0]
            others = [read.shape for j, read in enumerate(op.reads) if j != k]
            stripped = [tuple(np.trim_zeros(np.array(t.shape) - 1, "f")) for t in (each, x)]
            if stripped[0] == stripped[1] and np.broadcast_shapes(x.shape, *others) == op.outputs[0].shape:
                op.inputs[k] = x


def split_first(graph: Graph) -> None:
    """Part the gates before their function is taken: each part is then as fine as its function allows.

    Given   parts = SPLIT(LOGISTIC(x));  t = STRIDED_SLICE(x), one of the parts of x
    Result  xs = SPLIT(x); parts = LOGISTIC of each of xs; t is one of xs
    """
    for split in [op for op in graph.ops if op.kind == "SPLIT"]:
        logistic = graph.maker(split.reads[1])
        if logistic is None or logistic.kind != "LOGISTIC":
            continue
        [x] = logistic.reads
        parts = [Tensor(part.shape, x.dtype) for part in split.outputs]
        axis = split.reads[0].data
        where = np.split(_places(x), len(parts), axis=int(np.ravel(axis)[0])) if axis is not None else []
        first = graph.ops.index(split)
        ops = [Op("SPLIT", [split.reads[0], x], parts, split.options, split.version)]
        ops += [
            Op("LOGISTIC", [part], [output], logistic.options, logistic.version)
            for part, output in zip(parts, split.outputs, strict=True)
        ]
        for slicing in [op for op in graph.readers(x) if op.kind == "STRIDED_SLICE"]:
            found = _sliced(slicing, _places(x))
            for part, places in zip(parts, where, strict=False):
                if found is not None and np.array_equal(places, found):
                    graph.replace(slicing.outputs[0], part)
        graph.ops[first : first + 1] = ops


def _places(x: Tensor) -> Array:
    """Return the numbers of a tensor's elements, in its shape."""
    return np.arange(int(np.prod(x.shape))).reshape(x.shape)


def _sliced(op: Op, x: Array) -> Array | None:
    """Return what a STRIDED_SLICE gives for x; None where it does more than to cut each axis."""
    begins, ends, strides = (each.data for each in op.reads[1:4])
    o = op.options
    if begins is None or ends is None or strides is None or o.ellipsisMask or o.newAxisMask or o.shrinkAxisMask:
        return None
    cuts = tuple(
        slice(None if o.beginMask >> axis & 1 else int(begin), None if o.endMask >> axis & 1 else int(end), int(stride))
        for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True))
    )
    return x[cuts]


def mixed(graph: Graph) -> None:
    """Have a state that is kept in part be made by one product more instead of 1 - u, whose rounding it would take.

    Given   u * a + (1 - u) * b
    Result  u * a + (b - u * b)
    """
    for total in [op for op in graph.ops if op.kind == "ADD"]:
        makers = [graph.maker(each) for each in total.reads]
        if any(maker is None or maker.kind != "MUL" for maker in makers) or total.options.fusedActivationFunction:
            continue
        for kept, rest in (makers, makers[::-1]):
            assert kept is not None
            assert rest is not None
            for u, a in (kept.reads, kept.reads[::-1]):
                b = next((other for k, other in enumerate(rest.reads[::-1]) if _is_rest(graph, rest.reads[k], u)), None)
                if b is None:
                    continue
                share, left = Tensor(b.shape, b.dtype), Tensor(b.shape, b.dtype)
                at = graph.ops.index(total)
                graph.ops[at:at] = [
                    Op("MUL", [u, b], [share], copy.copy(rest.options), rest.version),
                    Op("SUB", [b, share], [left], schema.SubOptionsT(), 1),
                ]
                total.inputs = [left if each is rest.outputs[0] else each for each in total.inputs]
                gate = graph.maker(u)
                if gate is not None and gate.kind == "LOGISTIC":
                    total.outputs[0].mix = (a, b)


def _is_rest(graph: Graph, tensor: Tensor, u: Tensor) -> bool:
    """Whether a tensor is 1 - u."""
    op = graph.maker(tensor)
    if op is None or op.kind != "SUB" or op.reads[1] is not u:
        return False
    one = op.reads[0].data
    return one is not None and bool(np.all(one == 1))


def biases_apart(graph: Graph) -> None:
    """Add a bias by an op of its own: a product's kernel with an int64 bias takes two to three times as long.

    Given   y = relu(x @ w + b), one FULLY_CONNECTED
    Result  y = relu(ADD(FULLY_CONNECTED(x, w), b))
    """
    ops: list[Op] = []
    for op in graph.ops:
        ops.append(op)
        if op.kind not in BIASED:
            continue
        where = BIASED[op.kind]
        bias = op.inputs[where] if where < len(op.inputs) else None
        function = op.options.fusedActivationFunction
        if bias is None and not function:
            continue
        [y] = op.outputs
        op.outputs = [Tensor(y.shape, y.dtype)]
        op.options = copy.copy(op.options)
        op.options.fusedActivationFunction = 0
        op.inputs = op.inputs[:where]
        added = constant(np.zeros(y.shape[-1]), "float32") if bias is None else bias
        ops.append(Op("ADD", [op.outputs[0], added], [y], schema.AddOptionsT(fusedActivationFunction=function)))
    graph.ops = ops
