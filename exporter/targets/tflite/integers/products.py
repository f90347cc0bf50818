"""Products with constant weights as matrices: which of a graph are added up, and what goes into them."""

import math
from dataclasses import dataclass

import numpy as np

from ..graph import Array, Graph, Op, Tensor

WEIGHTS = {
    "FULLY_CONNECTED": (1, 0),
    "CONV_2D": (1, 0),
    "DEPTHWISE_CONV_2D": (1, 3),
    "TRANSPOSE_CONV": (1, 0),
}
"""Products with a constant -> where it stands among the inputs, and which of its axes counts outputs."""

SAME = 0
"""Of a convolution's option padding."""


@dataclass(frozen=True)
class Product:
    """An op y = x @ w.

    Attributes:
        op: The op.
    """

    op: Op

    @property
    def x(self) -> Tensor:
        """What goes in."""
        tensor = self.op.inputs[2 if self.op.kind == "TRANSPOSE_CONV" else 0]
        assert tensor is not None
        return tensor

    @property
    def weights(self) -> Tensor:
        """The constant."""
        tensor = self.op.inputs[1]
        assert tensor is not None
        return tensor

    @property
    def axis(self) -> int:
        """The axis of the weights that counts outputs."""
        return WEIGHTS[self.op.kind][1]

    @property
    def compensates(self) -> bool:
        """Whether all inputs go into each output, so that the weights of one can make up for those of another."""
        return self.op.kind in ("FULLY_CONNECTED", "CONV_2D")

    @property
    def matrix(self) -> Array:
        """The weights as [K, N], K inputs in the order of `rows`, N outputs."""
        assert self.weights.data is not None
        w = np.moveaxis(self.weights.data, self.axis, -1)
        return w.reshape(-1, w.shape[-1]).astype(np.float64)

    def shaped(self, matrix: Array) -> Array:
        """Return a matrix [K, N] in the shape of the weights."""
        shape = self.weights.shape
        rest = [size for axis, size in enumerate(shape) if axis != self.axis]
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(*rest, shape[self.axis]), -1, self.axis))

    @property
    def size(self) -> int:
        """How many inputs each output has."""
        return math.prod(self.weights.shape) // self.weights.shape[self.axis]

    def rows(self, x: Array) -> Array:
        """Return the inputs of each row of outputs side by side, [n, K].

        Args:
            x: What the op reads; a convolution's is [1, height, width, C].
        """
        if self.op.kind == "FULLY_CONNECTED":
            return x.reshape(-1, self.size)
        o, (_, high, wide, _) = self.op.options, self.weights.shape
        axes = ((high, o.strideH, o.dilationHFactor), (wide, o.strideW, o.dilationWFactor))
        pads, reach = [(0, 0)], []
        for size, (taps, stride, apart) in zip(x.shape[1:3], axes, strict=True):
            span = (taps - 1) * apart + 1
            missing = max((-(-size // stride) - 1) * stride + span - size, 0) if o.padding == SAME else 0
            pads.append((missing // 2, missing - missing // 2))
            reach.append(span)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, [*pads, (0, 0)]), reach, axis=(1, 2))
        taken = windows[:, :: axes[0][1], :: axes[1][1], :, :: axes[0][2], :: axes[1][2]]
        return np.moveaxis(taken, 3, -1).reshape(-1, self.size)


@dataclass(frozen=True)
class Sum:
    """Products that are added up: y = x_1 @ w_1 + x_2 @ w_2 + ... + bias, and there is nothing else in between.

    Attributes:
        products: One or more, with as many rows each.
        y: The sum.
        bias: The op that reads the constant that is added, and at which of its inputs; None where there is none.
    """

    products: tuple[Product, ...]
    y: Tensor
    bias: tuple[Op, int] | None

    @property
    def constant(self) -> Tensor | None:
        """The bias."""
        return None if self.bias is None else self.bias[0].inputs[self.bias[1]]

    @property
    def size(self) -> int:
        """How many inputs each output has."""
        return sum(each.size for each in self.products)

    @property
    def compensates(self) -> bool:
        """See Product."""
        return all(each.compensates for each in self.products)


def is_product(op: Op) -> bool:
    """Whether an op is a product with a constant."""
    return op.kind in WEIGHTS and op.inputs[1] is not None and op.inputs[1].data is not None


def sums(graph: Graph) -> list[Sum]:
    """Return every product of a graph, in sums as large as they are."""
    found: list[Sum] = []
    for op in reversed(graph.ops):
        if op.kind == "ADD" or is_product(op):
            products, biases = _added(graph, op)
            if products and not any(products[0].op is p.op for each in found for p in each.products):
                found.append(Sum(tuple(products), op.outputs[0], biases[0] if biases else None))
    return found


def _added(graph: Graph, op: Op) -> tuple[list[Product], list[tuple[Op, int]]]:
    """Return the products that an op is the sum of, and where constants are added; ([], []) where it is no sum."""
    if is_product(op):
        return [Product(op)], [(op, 2)] if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") else []
    if op.kind == "RESHAPE":
        return _part(graph, op.reads[0])
    if op.kind != "ADD":
        return [], []
    constants = [(op, k) for k, each in enumerate(op.reads) if each.data is not None]
    parts = [_part(graph, each) for each in op.reads if each.data is None]
    products = [each for part in parts for each in part[0]]
    biases = [each for part in parts for each in part[1]] + constants
    rows = {math.prod(each.op.outputs[0].shape[:-1]) for each in products}
    alike = len(rows) == 1 and (len(products) == 1 or all(each.compensates for each in products))
    if not all(part[0] for part in parts) or not alike or math.prod(op.outputs[0].shape[:-1]) != rows.pop():
        return [], []
    return products, biases


def _part(graph: Graph, tensor: Tensor) -> tuple[list[Product], list[tuple[Op, int]]]:
    """Return what a tensor is the sum of, where nothing else reads it."""
    maker = graph.maker(tensor)
    alone = len(graph.readers(tensor)) == 1 and not any(each is tensor for each in graph.outputs.values())
    if maker is None or not alone or _function(maker):
        return [], []
    return _added(graph, maker)


def _function(op: Op) -> bool:
    """Whether an op's outputs go through a function."""
    return bool(getattr(op.options, "fusedActivationFunction", 0))
