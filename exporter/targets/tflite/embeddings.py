"""Store tables that rows are looked up in, those of Embedding layers, in 8 bits.

Given   y = GATHER(table [V, D] of floats, rows)
Result  y = MUL(CAST(GATHER(table of int8, rows)), scale [D])
"""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .. import rounding
from .write import add_buffer, code, kind

Builtin = schema.BuiltinOperator


def narrow(model: Any, least: int) -> None:
    """Narrow every table in place.

    Args:
        model: The file.
        least: Numbers of the smallest table that is narrowed.
    """
    stored: dict[int, tuple[int, int]] = {}
    codes: dict[int, int] = {}
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            operators.append(operator)
            table = graph.tensors[operator.inputs[0]] if kind(model, operator) == Builtin.GATHER else None
            if table is None or not _is_large(model, operator, table, least):
                continue
            if not codes:
                for each, version in ((Builtin.GATHER, 2), (Builtin.CAST, 1), (Builtin.MUL, 1)):
                    codes[each] = len(model.operatorCodes)
                    model.operatorCodes.append(code(each, version))
            if table.buffer not in stored:
                found = rounding.nearest(model.buffers[table.buffer].data.view(np.float32).reshape(table.shape))
                stored[table.buffer] = add_buffer(model, found.values), add_buffer(model, found.scale)
            values, scale = stored[table.buffer]
            [y], shape = operator.outputs, graph.tensors[operator.outputs[0]]
            narrow_table = _add(graph, copy.copy(table), type=schema.TensorType.INT8, buffer=values)
            factors = _add(graph, copy.copy(table), shape=table.shape[-1:], buffer=scale, shapeSignature=None)
            rows = _add(graph, copy.copy(shape), type=schema.TensorType.INT8, name=None)
            wide = _add(graph, copy.copy(shape), name=None)
            operator.opcodeIndex = codes[Builtin.GATHER]
            operator.inputs = np.array([narrow_table, *operator.inputs[1:]], np.int32)
            operator.outputs = np.array([rows], np.int32)
            operators.append(_op(codes[Builtin.CAST], [rows], [wide]))
            times = _op(codes[Builtin.MUL], [wide, factors], [y])
            times.builtinOptionsType, times.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
            operators.append(times)
        graph.operators = operators


def _is_large(model: Any, operator: Any, table: Any, least: int) -> bool:
    """Whether an op looks whole rows up in a large constant of floats."""
    constant = table.type == schema.TensorType.FLOAT32 and model.buffers[table.buffer].data is not None
    options = operator.builtinOptions
    rows = options is None or (options.axis == 0 and options.batchDims == 0)
    return bool(constant and rows and len(table.shape) == 2 and np.prod(table.shape) >= least)


def _add(graph: Any, tensor: Any, **facts: Any) -> int:
    """Add a tensor with some facts changed and return its number."""
    for name, value in facts.items():
        setattr(tensor, name, value)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _op(index: int, inputs: list[int], outputs: list[int]) -> Any:
    return schema.OperatorT(opcodeIndex=index, inputs=np.array(inputs, np.int32), outputs=np.array(outputs, np.int32))
