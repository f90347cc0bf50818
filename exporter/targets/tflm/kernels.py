"""A graph of TFLite's ops as one of those that TFLM has kernels for, in the types that it has them for.

Each function below takes a graph, says what it changes as Given and Result, and leaves what it doesn't find as it is.
"""

import copy
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..tflite.graph import Array, Graph, Op, Tensor, constant

REDUCTIONS = {"MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"}
"""Ops that make one number of those along some axes."""


def spelled(graph: Graph) -> Graph:
    """Return the graph with all of these."""
    graph = Graph(graph.inputs, graph.outputs, list(graph.ops))
    for change in (
        masks_once,
        any_as_maximum,
        of_one,
        rows_in_order,
        remainders,
        biases_within,
        in_shape,
        shapes_told_once,
    ):
        change(graph)
        graph = graph.pruned()
    return graph


def of_one(graph: Graph) -> None:
    """Write a reduction along axes of 1 as what it is.

    Given   y = REDUCE_MIN(x [1, 1, 6], axis 1) [1, 6]
    Result  y = RESHAPE(x)
    """
    for k, op in enumerate(graph.ops):
        if op.kind in REDUCTIONS and math.prod(op.reads[0].shape) == math.prod(op.outputs[0].shape):
            graph.ops[k] = _reshape(op.reads[0], op.outputs[0])


def _reshape(x: Tensor, y: Tensor) -> Op:
    options = schema.ReshapeOptionsT(newShape=np.array(y.shape, np.int32))
    return Op("RESHAPE", [x, constant(y.shape, "int32")], [y], options)


def masks_once(graph: Graph) -> None:
    """Leave out what sets a row to 0 where all of it is.

    Given   y = SELECT_V2(REDUCE_ANY(NOT_EQUAL(x, 0)), x, 0)
    Result  x
    """
    for op in graph.ops:
        if op.kind != "SELECT_V2" or op.reads[2].data is None or np.any(op.reads[2].data):
            continue
        shown, differs = graph.maker(op.reads[0]), None
        if shown is not None and shown.kind == "REDUCE_ANY":
            differs = graph.maker(shown.reads[0])
        if differs is not None and differs.kind == "NOT_EQUAL" and _is_0(differs.reads[1]):
            source = graph.maker(differs.reads[0])
            origin = source.reads[0] if source is not None and source.kind == "DEQUANTIZE" else differs.reads[0]
            if origin is op.reads[1]:
                graph.replace(op.outputs[0], op.reads[1])


def any_as_maximum(graph: Graph) -> None:
    """Write whether any is true as a maximum: of a mask, whether a row has a number.

    Given   y = REDUCE_ANY(NOT_EQUAL(x, 0))                 y = REDUCE_ANY(b)
    Result  y = GREATER(REDUCE_MAX(ABS(x)), 0)              y = GREATER(REDUCE_MAX(CAST(b)), 0)
    """
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind != "REDUCE_ANY":
            ops.append(op)
            continue
        [x, axes], [y] = op.reads, op.outputs
        numbers, most = Tensor(x.shape, "float32"), Tensor(y.shape, "float32")
        differs = graph.maker(x)
        if differs is not None and differs.kind == "NOT_EQUAL" and _is_0(differs.reads[1]):
            first = Op("ABS", [differs.reads[0]], [numbers], schema.AbsOptionsT())
        else:
            types = schema.CastOptionsT(inDataType=schema.TensorType.BOOL, outDataType=schema.TensorType.FLOAT32)
            first = Op("CAST", [x], [numbers], types)
        zero = constant(0, "float32")
        greater = Op("GREATER", [most, zero], [y], schema.GreaterOptionsT())
        ops += [first, Op("REDUCE_MAX", [numbers, axes], [most], op.options), greater]
    graph.ops = ops


def _is_0(tensor: Tensor) -> bool:
    """Whether a tensor is a float constant of zeros."""
    return tensor.floating and tensor.data is not None and not np.any(tensor.data)


def rows_in_order(graph: Graph) -> None:
    """Write rows that are taken by constant numbers, one after the other, as a slice.

    Given   y = GATHER(x [1, 6, 8], [[2, 3, 4]], axis 1) [1, 1, 3, 8]
    Result  y = RESHAPE(SLICE(x, from 2, 3 rows))
    """
    ops: list[Op] = []
    for op in graph.ops:
        places = op.reads[1].data if op.kind == "GATHER" and not op.options.batchDims else None
        if places is None or not _in_order(places):
            ops.append(op)
            continue
        x, y, axis = op.reads[0], op.outputs[0], op.options.axis % len(op.reads[0].shape)
        begin, size = np.zeros(len(x.shape), np.int32), np.array(x.shape, np.int32)
        begin[axis], size[axis] = places.ravel()[0], places.size
        rows = Tensor(tuple(map(int, size)), x.dtype, scale=x.scale)
        reads: list[Tensor | None] = [x, constant(begin, "int32"), constant(size, "int32")]
        ops += [Op("SLICE", reads, [rows], schema.SliceOptionsT()), _reshape(rows, y)]
    graph.ops = ops


def _in_order(places: Array) -> bool:
    flat = places.ravel()
    return flat.size > 0 and bool(np.array_equal(flat, flat[0] + np.arange(flat.size))) and flat[0] >= 0


def remainders(graph: Graph) -> None:
    """Write the remainder of integers that aren't below 0, as places in a ring are, by a division.

    Given   y = FLOOR_MOD(x, n), n constant and above 0
    Result  y = SUB(x, MUL(DIV(x, n), n))
    """
    ops: list[Op] = []
    for op in graph.ops:
        n = op.reads[1].data if op.kind == "FLOOR_MOD" and op.outputs[0].dtype == "int32" else None
        if n is None or np.any(n <= 0):
            ops.append(op)
            continue
        [x, by], [y] = op.reads, op.outputs
        times, whole = Tensor(y.shape, y.dtype), Tensor(y.shape, y.dtype)
        ops += [
            Op("DIV", [x, by], [times], schema.DivOptionsT()),
            Op("MUL", [times, by], [whole], schema.MulOptionsT()),
            Op("SUB", [x, whole], [y], schema.SubOptionsT()),
        ]
    graph.ops = ops


def biases_within(graph: Graph) -> None:
    """Have a product of integers add its bias itself, which costs TFLM nothing, and an op less in its arena.

    Given   y = ADD(RESHAPE(FULLY_CONNECTED(x, w of int8)), b of int16)
    Result  y = FULLY_CONNECTED(x, w, b of int64)
    """
    for total in [op for op in graph.ops if op.kind == "ADD"]:
        bias = next((each for each in total.reads if each.data is not None and each.dtype == "int16"), None)
        if bias is None or len(bias.shape) != 1 or bias.data is None:
            continue
        made = graph.maker(next(each for each in total.reads if each is not bias))
        if made is not None and made.kind == "RESHAPE" and _alone(graph, made):
            made = graph.maker(made.reads[0])
        if made is None or made.kind != "FULLY_CONNECTED" or len(made.reads) > 2 or not _alone(graph, made):
            continue
        x, w = made.reads
        if w.dtype == "int8":
            scale = np.float32(x.scale) * np.asarray(w.scale, np.float32)
            values = np.round(bias.data * float(np.float32(bias.scale)) / scale.astype(np.float64))
            options = copy.copy(made.options)
            options.fusedActivationFunction = total.options.fusedActivationFunction
            options.keepNumDims = len(total.outputs[0].shape) > 2
            reads: list[Tensor | None] = [x, w, constant(values, "int64", scale)]
            graph.ops[graph.ops.index(total)] = Op(made.kind, reads, total.outputs, options, made.version)


def in_shape(graph: Graph) -> None:
    """Have a product give the shape that it is wanted in.

    Given   y = RESHAPE(FULLY_CONNECTED(x) [1, 1, 8]) [1, 8]
    Result  y = FULLY_CONNECTED(x)
    """
    for reshape in [op for op in graph.ops if op.kind == "RESHAPE"]:
        [y], made = reshape.outputs, graph.maker(reshape.reads[0])
        if made is None or made.kind != "FULLY_CONNECTED" or not _alone(graph, made):
            continue
        if len(y.shape) == 2 and y.shape[-1] == made.outputs[0].shape[-1]:
            options = copy.copy(made.options)
            options.keepNumDims = False
            graph.ops[graph.ops.index(made)] = Op(made.kind, made.inputs, [y], options, made.version)
            graph.ops.remove(reshape)


def _alone(graph: Graph, op: Op) -> bool:
    """Whether an op's output is read by one op and given by none."""
    [y] = op.outputs
    return len(graph.readers(y)) == 1 and not any(each is y for each in graph.outputs.values())


def shapes_told_once(graph: Graph) -> None:
    """Leave the shape of a RESHAPE to its options: as a tensor it takes room in the arena.

    Given   RESHAPE(x, shape)
    Result  RESHAPE(x)
    """
    for k, op in enumerate(graph.ops):
        if op.kind == "RESHAPE":
            [y] = op.outputs
            graph.ops[k] = Op(op.kind, op.inputs[:1], [y], _reshape(op.reads[0], y).options, op.version)
