"""Keep LiteRT's own kernels from overwriting what others still read.

They have a RESHAPE give the very memory that it reads, and an ADD write where its first input lies: so an ADD of a
reshaped tensor writes over the tensor itself. XNNPACK's kernels don't, but not every device has them.

Given   y = ADD(a [1, 1, 6], RESHAPE(x [1, 1, 6]) [6])
Result  y = ADD(a, x)
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

BROADCASTS = {
    getattr(schema.BuiltinOperator, name)
    for name in ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB")
}
"""Ops that stretch axes of 1, and may write where they read."""


def without_reshapes(model: Any) -> None:
    """Have ops read a tensor itself where a RESHAPE only takes axes of 1 off that they put on again; in place."""
    kinds = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
    for graph in model.subgraphs:
        reshaped = {
            int(operator.outputs[0]): int(operator.inputs[0])
            for operator in graph.operators
            if kinds[operator.opcodeIndex] == schema.BuiltinOperator.RESHAPE
        }
        kept = {*map(int, graph.outputs)}
        for operator in graph.operators:
            if kinds[operator.opcodeIndex] in BROADCASTS:
                inputs = [_source(graph, operator, k, reshaped) for k in range(len(operator.inputs))]
                operator.inputs = np.array(inputs, np.int32)
            kept |= {int(index) for index in operator.inputs}
        graph.operators = [
            operator
            for operator in graph.operators
            if kinds[operator.opcodeIndex] != schema.BuiltinOperator.RESHAPE or int(operator.outputs[0]) in kept
        ]


def _source(graph: Any, operator: Any, place: int, reshaped: dict[int, int]) -> int:
    """Return what an op may read at a place: what is reshaped there, where that gives the same, else what it reads."""
    read = int(operator.inputs[place])
    source = reshaped.get(read, read)
    others = [int(index) for k, index in enumerate(operator.inputs) if k != place]
    found = [_shape(graph, index) for index in (read, source, int(operator.outputs[0]), *others)]
    shapes = [shape for shape in found if shape is not None]
    if len(shapes) < len(found):
        return read
    stripped = [tuple(np.trim_zeros(np.array(shape) - 1, "f")) for shape in shapes[:2]]
    whole = len(shapes[1]) == len(shapes[2])  # LiteRT's kernels give one number the axes that they like
    same = whole and stripped[0] == stripped[1] and np.broadcast_shapes(shapes[1], *shapes[3:]) == shapes[2]
    return source if same else read


def _shape(graph: Any, index: int) -> tuple[int, ...] | None:
    """Return the shape of a tensor; None of one with an open size."""
    tensor = graph.tensors[index]
    if tensor.shapeSignature is not None and min(tensor.shapeSignature, default=0) < 0:
        return None
    return () if tensor.shape is None else tuple(map(int, tensor.shape))
