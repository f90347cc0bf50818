"""The constants of products as integers, and the ops that multiply by them."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...rounding import Rounded, compensated, mean_error, nearest
from ..graph import Array, Op, Tensor, constant
from .emit import Emitter, quantized
from .products import Product, Sum


def rounded(found: Sequence[Sum], seen: Sequence[Sequence[Array]]) -> dict[int, Rounded]:
    """Round all weights to int8, and add to each bias what its sum of products is off by in the mean.

    Args:
        found: The sums of products of a graph.
        seen: What went into each product of each.

    Returns:
        The same by the id of a product's op.
    """
    made = {}
    for total, inputs in zip(found, seen, strict=True):
        matrices = [each.matrix for each in total.products]
        if total.compensates:
            parts = compensated(matrices, list(inputs))
            if total.bias is not None:
                errors = map(mean_error, matrices, parts, inputs)
                _correct(*total.bias, np.sum(list(errors), axis=0))
        else:
            parts = [nearest(each) for each in matrices]
        made.update({id(each.op): part for each, part in zip(total.products, parts, strict=True)})
    return made


def _correct(op: Op, place: int, error: Array) -> None:
    """Add what is missing in the mean to the bias that an op reads."""
    bias = op.inputs[place]
    assert bias is not None
    assert bias.data is not None
    op.inputs = [*op.inputs[:place], constant(bias.data + error, "float32"), *op.inputs[place + 1 :]]


def product(emitter: Emitter, made: Product, weights: Mapping[int, Rounded]) -> None:
    """Make a product with a constant: with its int8 weights, else with finer ones."""
    op = made.op
    if id(op) in weights:
        _in_8_bits(emitter, made, weights[id(op)], emitter.computed(op.outputs[0]))
    elif op.kind == "FULLY_CONNECTED":
        _in_16_bits(emitter, made)
    else:
        _in_two_parts(emitter, made)


def _in_8_bits(emitter: Emitter, made: Product, weights: Rounded, y: Tensor, part: int = 0) -> Tensor:
    """Make a product with int8 weights.

    Args:
        emitter: What it is made in.
        made: The product.
        weights: Its weights, or a part of them.
        y: What it gives.
        part: 0 for the whole; 1, 2 for a part that is added to another: the bias is in the first, a function in none.
    """
    op, x = made.op, emitter.integer(made.x)
    w = constant(made.shaped(weights.values), "int8", weights.scale, made.axis)
    reads: list[Tensor | None] = [x, w]
    if op.kind == "TRANSPOSE_CONV":
        reads = [op.inputs[0], w, x]
    elif op.kind != "FULLY_CONNECTED":
        found = op.inputs[2]
        assert found is not None
        assert found.data is not None
        assert isinstance(x.scale, float)
        scale = np.float32(x.scale) * weights.scale
        values = np.round(found.data / scale.astype(np.float64)) if part < 2 else np.zeros(found.shape)
        reads.append(constant(values, "int64", scale))
    options = copy.copy(op.options)
    if part:
        options.fusedActivationFunction = 0
    return emitter.add(op.kind, reads, [y], options)


def _in_two_parts(emitter: Emitter, made: Product) -> None:
    """Make a convolution with 16 bits of weights: one of what 8 bits give, one of what they leave, added up."""
    y = made.op.outputs[0]
    high = nearest(made.matrix)
    low = nearest(made.matrix - high.real)
    parts: list[Tensor | None] = []
    for part, weights in enumerate((high, low), start=1):
        given = Tensor(y.shape, "int16", scale=emitter.scales[id(y)])
        parts.append(_in_8_bits(emitter, made, weights, given, part))
    function = made.op.options.fusedActivationFunction
    options = schema.AddOptionsT(fusedActivationFunction=function, potScaleInt16=False)
    emitter.add("ADD", parts, [emitter.computed(y)], options)


def _in_16_bits(emitter: Emitter, made: Product) -> None:
    """Make a FULLY_CONNECTED of int16 weights: a BATCH_MATMUL, whose kernels all round alike.

    The weights are given as they lie, the other way round: TFLM would else copy them into its arena.
    """
    y, w = made.op.outputs[0], made.matrix.T
    weights = quantized(w, float(np.float32(np.abs(w).max(initial=1e-9) / 32767)))
    weights.shape = (1,) * (len(y.shape) - 2) + w.shape
    x = emitter.integer(made.x)
    shape = (*y.shape[:-1], made.size)
    if x.shape != shape:
        flat, to = Tensor(shape, "int16", scale=x.scale), constant(shape, "int32")
        x = emitter.add("RESHAPE", [x, to], [flat], schema.ReshapeOptionsT(newShape=np.array(shape, np.int32)))
    options = schema.BatchMatMulOptionsT(adjX=False, adjY=True)
    emitter.add("BATCH_MATMUL", [x, weights], [emitter.computed(y)], options)
