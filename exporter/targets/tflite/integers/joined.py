"""Two products that are added up, as one of both inputs side by side: half the ops, and half of what they keep."""

from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from signatures.ports import Array

from ...rounding import compensated
from ..graph import Graph, Op, Tensor, constant
from .calibrate import Calibration
from .products import Product, Sum

LOSS = 1.5
"""dB of noise that one step of the weights of both may add: those of an input of other numbers are of another size."""


def joined(
    graph: Graph, found: Sequence[Sum], calibration: Calibration, scales: Mapping[int, float]
) -> tuple[Graph, list[Sum], Calibration]:
    """Write sums of products whose inputs are on one scale as one product.

    Given   y = FULLY_CONNECTED(x, w) + FULLY_CONNECTED(h, r) + b, as in a layer above another
    Result  y = FULLY_CONNECTED(CONCATENATION(x, h), [w r]) + b

    Args:
        graph: It isn't changed.
        found: Its sums.
        calibration: What was seen in it.
        scales: What 1 stands for, by the id of a tensor.

    Returns:
        The same of the graph with these.
    """
    graph, most = Graph(graph.inputs, graph.outputs, list(graph.ops)), dict(calibration.most)
    sums, inputs = [], []
    for total, rows in zip(found, calibration.inputs, strict=True):
        one = _one(graph, total, rows, scales, most)
        sums.append(one or total)
        inputs.append([np.hstack(rows)] if one else rows)
    return graph.pruned(), sums, Calibration(most, inputs)


def _one(
    graph: Graph, total: Sum, rows: Sequence[Array], scales: Mapping[int, float], most: dict[int, float]
) -> Sum | None:
    """Write one sum as one product, if it is like that; return it."""
    if len(total.products) < 2 or any(each.op.kind != "FULLY_CONNECTED" for each in total.products):
        return None
    x = [each.x for each in total.products]
    if len({scales[id(each)] for each in x}) > 1 or len({each.shape[:-1] for each in x}) > 1:
        return None
    matrices = [each.matrix for each in total.products]
    if _noise([np.concatenate(matrices)], [np.hstack(rows)]) > _noise(matrices, rows) + LOSS:
        return None
    both = Tensor((*x[0].shape[:-1], total.size), "float32")
    most[id(both)] = max(most[id(each)] for each in x)
    weights = constant(np.concatenate(matrices).T, "float32")
    options = schema.FullyConnectedOptionsT(keepNumDims=len(total.y.shape) > 2)
    bias = total.constant
    product = Tensor(total.y.shape, "float32") if bias is not None else total.y
    ops = [
        Op("CONCATENATION", [*x], [both], schema.ConcatenationOptionsT(axis=len(both.shape) - 1)),
        Op("FULLY_CONNECTED", [both, weights], [product], options),
    ]
    if bias is not None and bias.data is not None:
        most[id(product)] = most[id(total.y)] + float(np.abs(bias.data).max())
        ops.append(Op("ADD", [product, bias], [total.y], schema.AddOptionsT()))
    at = next(k for k, op in enumerate(graph.ops) if total.y in op.outputs)
    graph.ops[at : at + 1] = ops
    return Sum((Product(ops[1]),), total.y, None if bias is None else (ops[2], 1))


def _noise(matrices: Sequence[Array], rows: Sequence[Array]) -> float:
    """Return the power of what rounding adds to a sum of products, in dB."""
    parts = compensated(list(matrices), list(rows))
    off = sum(x @ (w - part.real) for x, w, part in zip(rows, matrices, parts, strict=True))
    return float(10 * np.log10(np.square(off).mean() + 1e-30))
