"""Write TensorFlow operations otherwise while a graph is traced, for a target that has no form or a wrong one for them.

    Given   y = Expm1(x)                        whoever made it: a layer, keras.ops or a layer of the user's own
    Result  y = Tanh(x / 2) * (Exp(x) + 1)

A spelling gives the same numbers in TensorFlow, down to zeros, infinities and ties: tests/test_sweep.py
holds them to Keras' own.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.framework import tensor_util
from tensorflow.python.framework.func_graph import FuncGraph

from ..inside import replaced

Tensor = Any


@dataclass(frozen=True)
class Operation:
    """A TensorFlow operation that is about to be put into a graph.

    Attributes:
        kind: TensorFlow's name for it.
        attributes: Name -> AttrValue proto, those with a default that wasn't changed included.
    """

    kind: str
    attributes: Mapping[str, Any]


Spelling = Callable[..., Tensor | None]
"""(operation, *its inputs) -> its only output, made by other operations; None where it is right as it is."""


@contextmanager
def spelled(spellings: Mapping[str, Spelling]) -> Iterator[None]:
    """Have this thread put other operations in the place of some into every graph.

    Args:
        spellings: Name of an operation -> what stands for it; operations made there are left as they are.
    """
    make, thread = FuncGraph._create_op_internal, threading.get_ident()
    active = True

    def make_or_spell(
        graph: Any, op_type: str, inputs: Any, dtypes: Any = None, input_types: Any = None, name: Any = None,
        attrs: Any = None, *rest: Any, **more: Any,
    ) -> Any:  # fmt: skip
        nonlocal active
        spelled_here = active and threading.get_ident() == thread and op_type not in _KEPT.get()
        spelling = spellings.get(op_type) if spelled_here else None
        if spelling is not None:
            active = False
            try:
                with graph.as_default():
                    output = spelling(Operation(op_type, attrs or {}), *inputs)
                    if output is not None:
                        return tf.raw_ops.IdentityN(input=[output])[0].op
            finally:
                active = True
        return make(graph, op_type, inputs, dtypes, input_types, name, attrs, *rest, **more)

    with replaced(FuncGraph, {"_create_op_internal": make_or_spell}):
        yield


_KEPT: ContextVar[frozenset[str]] = ContextVar("_KEPT", default=frozenset())


@contextmanager
def kept(*kinds: str) -> Iterator[None]:
    """Leave some operations as they are for a while, where what another spelling costs is paid on every time step."""
    before = _KEPT.set(_KEPT.get() | set(kinds))
    try:
        yield
    finally:
        _KEPT.reset(before)


@contextmanager
def whole_convolutions() -> Iterator[None]:
    """Have a dilated convolution be one op, as TensorFlow, TFLite and ONNX have it.

    Given   SpaceToBatchND(x) -> Conv2D -> BatchToSpaceND       which tf.nn.convolution makes on a CPU
    Result  Conv2D(x) with dilations
    """
    convolution = tf.nn.convolution

    def whole(  # called by these names, too
        input: Tensor, filters: Tensor, strides: Any = None, padding: str = "VALID",  # noqa: A002
        data_format: str | None = None, dilations: Any = None, name: str | None = None,
    ) -> Tensor:  # fmt: skip
        x, spatial = input, len(input.shape) - 2
        apart, steps = (np.broadcast_to(1 if each is None else each, spatial) for each in (dilations, strides))
        last = data_format is None or data_format.endswith("C")
        if spatial not in (1, 2) or (apart == 1).all() or not last or x.shape[-1] != filters.shape[-2]:
            return convolution(x, filters, strides, padding, data_format, dilations, name)
        if padding == "SAME":  # which ONNX Runtime doesn't know for dilated ones; these have no strides
            wide = [int(d) * (k - 1) for d, k in zip(apart, filters.shape, strict=False)]
            x = tf.pad(x, [[0, 0], *([n // 2, n - n // 2] for n in wide), [0, 0]])
        x, kernel = (tf.expand_dims(x, 1), tf.expand_dims(filters, 0)) if spatial == 1 else (x, filters)
        rest = [1] * (3 - spatial)
        y = tf.nn.conv2d(x, kernel, [*rest, *steps, 1], "VALID", dilations=[*rest, *apart, 1], name=name)
        return tf.squeeze(y, [1]) if spatial == 1 else y

    with replaced(tf.nn, {"convolution": whole}):
        yield


def atan2(operation: Operation, y: Tensor, x: Tensor) -> Tensor:
    """Spell Atan2 by Atan, by quadrants: the sign of a zero counts."""
    rise, run = tf.abs(y), tf.abs(x)
    diagonal = tf.where(rise > 0, tf.constant(math.pi / 4, y.dtype), tf.zeros([], y.dtype))  # 0 / 0, inf / inf
    angle = tf.where(tf.equal(rise, run), diagonal, tf.atan(rise / run))
    angle = tf.where(_signed(x), math.pi - angle, angle)
    return tf.where(_signed(y), -angle, angle)


def _signed(x: Tensor) -> Tensor:
    """Return where x has a minus, that of -0 included."""
    return tf.logical_or(x < 0, 1 / x < 0)


def atan(operation: Operation, x: Tensor) -> Tensor:
    """Spell Atan by Atan2: TFLite has that one only."""
    return tf.atan2(x, tf.ones_like(x))


def bias_add(operation: Operation, x: Tensor, bias: Tensor) -> Tensor | None:
    """Spell BiasAdd along the second axis as Add: TFLite lays it out wrongly, tf2onnx where the bias is computed."""
    if operation.attributes["data_format"].s != b"NCHW" or x.shape.rank is None:
        return None
    return x + tf.reshape(bias, [-1, *[1] * (x.shape.rank - 2)])


def bitwise_and(operation: Operation, bits: Tensor, mask: Tensor) -> Tensor | None:
    """Spell the sign bit of floats by comparisons: Keras' signbit, argmax and argmin look at it."""
    made = getattr(bits, "op", None)  # a tensor that the model holds has none
    least = bits.dtype.min if bits.dtype.is_integer else None
    if made is None or made.type != "Bitcast" or not made.inputs[0].dtype.is_floating:
        return None
    if bits.shape.rank != made.inputs[0].shape.rank or tf.get_static_value(mask) != least:
        return None
    return tf.where(_signed(made.inputs[0]), tf.constant(least, bits.dtype), tf.zeros([], bits.dtype))


def convolution(operation: Operation, x: Tensor, kernel: Tensor) -> Tensor | None:
    """Spell Conv2D and DepthwiseConv2dNative of a tensor whose sizes TFLite's converter loses after a loop."""
    known = x.shape.as_list() if x.shape.rank else []
    if known.count(None) != 1 or known[-1] is None or not _after_a_loop(x):
        return None
    options = {name: [int(n) for n in operation.attributes[name].list.i] for name in ("strides", "dilations")}
    x = tf.reshape(x, [-1 if size is None else size for size in known])
    padding = operation.attributes["padding"].s.decode()
    convolve = getattr(tf.raw_ops, operation.kind)
    return convolve(input=x, filter=kernel, padding=padding, **options)


def _after_a_loop(x: Tensor) -> bool:
    """Whether a loop made what a tensor is made of."""
    waiting, seen = [x], {id(x)}
    while waiting:
        made = getattr(waiting.pop(), "op", None)  # a tensor that the model holds has none
        if made is not None and made.type in ("While", "StatelessWhile"):
            return True
        new = [each for each in (made.inputs if made is not None else ()) if id(each) not in seen]
        seen |= {id(each) for each in new}
        waiting += new
    return False


def expm1(operation: Operation, x: Tensor) -> Tensor:
    """Spell Expm1 as tanh(x / 2) (exp(x) + 1), which is as exact near 0."""
    return tf.tanh(x / 2) * (tf.exp(x) + 1)


def log1p(operation: Operation, x: Tensor) -> Tensor:
    """Spell Log1p by Log, scaled by what 1 + x has rounded away; Kahan's way."""
    u = 1 + x
    exact = tf.logical_or(tf.equal(u, 1), tf.equal(u, x))
    return tf.where(tf.equal(u, 1), x, tf.math.log(u) * tf.where(exact, tf.ones_like(x), x / (u - 1)))


def floor_div(operation: Operation, a: Tensor, b: Tensor) -> Tensor:
    """Spell FloorDiv by a division that rounds towards zero, of floats by one that doesn't round."""
    if not a.dtype.is_integer:
        return tf.floor(a / b)
    quotient = tf.truncatediv(a, b)
    rest = a - quotient * b
    below = tf.logical_and(tf.not_equal(rest, 0), tf.math.logical_xor(rest < 0, b < 0))
    return quotient - tf.cast(below, a.dtype)


def largest(operation: Operation, x: Tensor, axes: Tensor) -> Tensor | None:
    """Spell Max with -infinity where nothing is larger: ONNX Runtime's ReduceMax starts at the least float."""
    if not x.dtype.is_floating:
        return None
    keep = operation.attributes["keep_dims"].b
    none = tf.reduce_all(tf.equal(x, -math.inf), axes, keep)
    return tf.where(none, tf.constant(-math.inf, x.dtype), tf.reduce_max(x, axes, keep))


def of_two(operation: Operation, a: Tensor, b: Tensor) -> Tensor | None:
    """Spell a MatMul over one feature as one over two: TFLite's converter takes a product of 1 x 1 x 1 for a bias.

    Given   x [N, 1] @ kernel [1, U]
    Result  [x, 0] [N, 2] @ [kernel; 0] [2, U]
    """
    if a.shape[1] != 1 or any(operation.attributes[side].b for side in ("transpose_a", "transpose_b")):
        return None
    return tf.matmul(tf.pad(a, [[0, 0], [0, 1]]), tf.pad(b, [[0, 1], [0, 0]]))


def one_hot(operation: Operation, indices: Tensor, depth: Tensor, on: Tensor, off: Tensor) -> Tensor:
    """Spell OneHot of an index below zero, which has no place, as of one too large: ONNX counts it from the end."""
    indices = tf.cast(indices, tf.int64)
    beyond = tf.where(indices < 0, tf.cast(depth, tf.int64), indices)
    return tf.one_hot(beyond, depth, on, off, operation.attributes["axis"].i)


def one_row(operation: Operation, rows: Tensor, where: Tensor, row: Tensor) -> Tensor | None:
    """Spell a TensorScatterUpdate of one row of the only sample as what copies once: TFLite's DYNAMIC_UPDATE_SLICE."""
    if where.shape != (1, 2) or rows.shape[0] != 1:
        return None
    start = tf.concat([where[0], tf.zeros([rows.shape.rank - 2], where.dtype)], axis=0)
    return xla.dynamic_update_slice(rows, tf.expand_dims(row, 1), start)


def whole_product(operation: Operation, product: Tensor, shape: Tensor) -> Tensor | None:
    """Spell a Dense layer over more than two axes as one product, which ONNX has: not as a table of all its rows.

    Given   Reshape(MatMul(Reshape(x, [B T, F]), kernel), [B, T, U])        by tf.tensordot
    Result  BatchMatMul(x, kernel)
    """
    made = getattr(product, "op", None)
    if made is None or made.type != "MatMul" or not made.name.endswith("Tensordot/MatMul"):
        return None
    if product.dtype == tf.float16:  # ONNX Runtime 1.31 crashes while it joins such a one with a Transpose
        return None
    table, kernel = made.inputs
    x = table.op.inputs[0] if table.op.type == "Reshape" else table
    straight = not any(made.get_attr(side) for side in ("transpose_a", "transpose_b"))
    if not straight or kernel.shape.rank != 2 or x.shape.rank is None or x.shape[-1] != kernel.shape[0]:
        return None
    wanted = tensor_util.constant_value_as_shape(shape)
    same = wanted.is_compatible_with([*x.shape[:-1], kernel.shape[1]]) and wanted.rank == x.shape.rank
    return tf.matmul(x, kernel) if same and x.shape.rank > 2 and wanted[-1] == kernel.shape[1] else None


def roll(operation: Operation, x: Tensor, shifts: Tensor, axes: Tensor) -> Tensor | None:
    """Spell Roll by two slices an axis, which may be of any length."""
    known = tf.get_static_value(axes)
    if known is None:
        return None
    for shift, axis in zip(tf.unstack(tf.reshape(shifts, [-1])), np.ravel(known), strict=True):
        size = tf.shape(x)[axis]
        left = tf.math.floormod(tf.cast(-shift, tf.int32), tf.maximum(size, 1))
        x = tf.concat(tf.split(x, [left, size - left], axis)[::-1], axis)
    return x


def root_of_squares(operation: Operation, x: Tensor) -> Tensor | None:
    """Spell the root of a sum of squares as that of its absolute value, which it is.

    TFLite's converter makes one op of x / sqrt(sum(Square(x)) + e), with an e of its own.
    """
    root = {"Rsqrt": tf.math.rsqrt, "Sqrt": tf.sqrt}[operation.kind]
    return root(tf.abs(x)) if _sums_squares(x) else None


def _sums_squares(x: Tensor) -> bool:
    """Whether x is a sum of squares, perhaps with a constant added or as a lower bound."""
    made = getattr(x, "op", None)  # a tensor that the model holds has none
    if made is None or made.type in ("Add", "AddV2", "Maximum"):
        return made is not None and any(_sums_squares(each) for each in made.inputs)
    if made.type == "Sum":
        made = made.inputs[0].op
        return made.type == "Square" or (made.type == "Mul" and made.inputs[0] is made.inputs[1])
    return False


def sigmoid(operation: Operation, x: Tensor) -> Tensor:
    """Spell Sigmoid of bounded numbers: XNNPACK's is NaN beyond 1e26 on processors with AVX-512."""
    return tf.sigmoid(tf.clip_by_value(x, -(2.0**60), 2.0**60))


def softplus(operation: Operation, x: Tensor) -> Tensor:
    """Spell Softplus so that exp never overflows: TFLite's is log(exp(x) + 1), which ends at 88."""
    return tf.maximum(x, 0) + tf.math.log1p(tf.exp(-tf.abs(x)))


def is_inf(operation: Operation, x: Tensor) -> Tensor:
    """Spell IsInf as |x| > the largest number."""
    return tf.abs(x) > x.dtype.max


def log(operation: Operation, x: Tensor) -> Tensor:
    """Spell Log with infinity's own, as TFLite's ends at 88; see log_of_softmax."""
    inner = log_of_softmax(operation, x)
    return tf.where(x > x.dtype.max, x, tf.math.log(x) if inner is None else inner)


def log_of_softmax(operation: Operation, x: Tensor) -> Tensor | None:
    """Spell Log of a Softmax so that it isn't made a LogSoftmax, which is finite where Keras has the log of 0."""
    if getattr(x, "op", None) is None or x.op.type != "Softmax":
        return None
    return tf.math.log(tf.maximum(x, 0))


def equal(operation: Operation, a: Tensor, b: Tensor) -> Tensor | None:
    """Spell x == inf as x > the largest number: TFLite takes infinity for other than itself."""
    for x, other in ((a, b), (b, a)):
        sign = _infinite(other) if x.dtype.is_floating else 0
        if sign:
            same = tf.logical_and(sign * x > x.dtype.max, tf.ones_like(other, tf.bool))  # of the shape of both
            return same if operation.kind == "Equal" else tf.logical_not(same)
    return None


def _infinite(x: Tensor) -> int:
    """Return 1 or -1 for a constant that is infinity with that sign, else 0."""
    negated = getattr(x, "op", None) is not None and x.op.type == "Neg"
    value = tf.get_static_value(x.op.inputs[0] if negated else x)
    if value is None or not np.all(np.isinf(value)) or len(set(np.sign(value).flat)) != 1:
        return 0
    return int(np.sign(value).flat[0]) * (-1 if negated else 1)
