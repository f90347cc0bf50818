"""Integer ops for the ops of a float32 graph, with conversions where two of them need a tensor in two forms."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..graph import Array, Op, Tensor, constant
from .scales import PASSES, UNIT

VERSIONS = {
    "ADD": 3,
    "AVERAGE_POOL_2D": 3,
    "BATCH_MATMUL": 3,
    "BATCH_TO_SPACE_ND": 4,
    "BROADCAST_TO": 3,
    "CONCATENATION": 3,
    "CONV_2D": 4,
    "DEPTHWISE_CONV_2D": 5,
    "DEQUANTIZE": 3,
    "FULLY_CONNECTED": 7,
    "GATHER": 4,
    "GATHER_ND": 3,
    "LEAKY_RELU": 2,
    "LOGISTIC": 3,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MINIMUM": 4,
    "MIRROR_PAD": 3,
    "MUL": 4,
    "PACK": 3,
    "PAD": 3,
    "PADV2": 3,
    "QUANTIZE": 2,
    "REDUCE_MAX": 3,
    "REDUCE_MIN": 3,
    "RELU": 3,
    "RELU6": 3,
    "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "SLICE": 4,
    "SOFTMAX": 3,
    "SPACE_TO_BATCH_ND": 4,
    "SPLIT": 4,
    "SUB": 5,
    "TANH": 3,
    "TRANSPOSE": 5,
    "UNPACK": 4,
}
"""Op -> the version of its kernel that takes int16; 1 where it isn't named. After TensorFlow's op_version.cc."""

GIVES_UNIT = {"LOGISTIC", "TANH", "SOFTMAX"}
"""Ops whose kernel gives numbers on the scale UNIT, whatever is asked for."""

FREE = {"ADD", "BATCH_MATMUL", "LEAKY_RELU", "MEAN", "MUL", "RELU", "RELU6", "SUB"}
"""Ops whose kernels take and give int16 on any scales."""

COMPARISONS = {"EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"}

IN_FLOAT = COMPARISONS | {
    "ABS",
    "ARG_MAX",
    "ARG_MIN",
    "CAST",
    "CEIL",
    "COS",
    "CUMSUM",
    "DIV",
    "ELU",
    "EXP",
    "FLOOR",
    "FLOOR_DIV",
    "FLOOR_MOD",
    "GELU",
    "HARD_SWISH",
    "L2_NORMALIZATION",
    "LOG",
    "LOG_SOFTMAX",
    "NEG",
    "POW",
    "PRELU",
    "REDUCE_PROD",
    "RELU_N1_TO_1",
    "ROUND",
    "RSQRT",
    "SIGN",
    "SIN",
    "SQRT",
    "SQUARE",
    "SQUARED_DIFFERENCE",
    "SUM",
    "TOPK_V2",
}
"""Ops that are run in float32 between two conversions: int16 kernels don't exist or lose too much."""


@dataclass
class Emitter:
    """The graph that is made.

    Attributes:
        scales: Float tensor, by id -> what 1 stands for in its int16 form.
        ops: What was made so far.
        forms: (float tensor, by id, type, scale) -> the tensor that holds it so.
        native: Float tensor, by id -> the form in which its op gave it.
    """

    scales: Mapping[int, float]
    ops: list[Op] = field(default_factory=list)
    forms: dict[tuple[int, str, float | None], Tensor] = field(default_factory=dict)
    native: dict[int, Tensor] = field(default_factory=dict)

    def given(self, tensor: Tensor, form: Tensor) -> None:
        """Tell in which form a tensor of the float graph is there."""
        self.native.setdefault(id(tensor), form)
        self.forms.setdefault((id(tensor), form.dtype, _key(form.scale)), form)

    def in_float(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed in float32."""
        return tensor.data is None and tensor.floating and self.native[id(tensor)].floating

    def integer(self, tensor: Tensor, scale: float | None = None, dtype: str = "int16") -> Tensor:
        """Return the integers that stand for a float tensor, on its own scale unless another is given."""
        if not tensor.floating:
            return self.plain(tensor)
        if tensor.data is not None:
            most = float(np.abs(tensor.data).max(initial=0))
            return quantized(tensor.data, scale or float(np.float32(max(most, 1e-9) / 32767)), dtype)
        return self._formed(tensor, dtype, self.scales[id(tensor)] if scale is None else scale)

    def plain(self, tensor: Tensor) -> Tensor:
        """Return a tensor in float32, or the integers or truths that it is anyway."""
        if tensor.data is not None:
            return tensor
        return self._formed(tensor, "float32", None) if tensor.floating else self.native[id(tensor)]

    def _formed(self, tensor: Tensor, dtype: str, scale: float | None) -> Tensor:
        key = (id(tensor), dtype, _key(scale))
        if key not in self.forms:
            made = Tensor(tensor.shape, dtype, scale=scale)
            source = self.native[id(tensor)]
            if dtype == "float32":
                self.add("DEQUANTIZE", [source], [made], schema.DequantizeOptionsT())
            else:
                self.add("QUANTIZE", [source], [made], schema.QuantizeOptionsT())
            self.forms[key] = made
        return self.forms[key]

    def add(self, kind: str, inputs: list[Tensor | None], outputs: list[Tensor], options: Any = None) -> Tensor:
        """Make an op that has integers; return its first output."""
        version = VERSIONS.get(kind, 1)
        self.ops.append(Op(kind, inputs, outputs, options, version))
        return outputs[0]

    def computed(self, tensor: Tensor, scale: float | None = None) -> Tensor:
        """Return a new tensor for what an op gives for a float tensor, on its own scale unless another is given."""
        form = Tensor(tensor.shape, "int16", scale=self.scales[id(tensor)] if scale is None else scale)
        self.given(tensor, form)
        return form

    # What is made of each kind of op.

    def elementwise(self, op: Op) -> None:
        """Make an op that takes and gives any scales."""
        options = copy.copy(op.options)
        if hasattr(options, "potScaleInt16"):
            options.potScaleInt16 = False
        reads = [self.integer(each) if each is not None else None for each in op.inputs]
        self.add(op.kind, reads, [self.computed(op.outputs[0])], options)

    def unit(self, op: Op) -> None:
        """Make an op that gives the scale UNIT."""
        self.add(op.kind, [self.integer(op.reads[0])], [self.computed(op.outputs[0], UNIT)], op.options)

    def passing(self, op: Op) -> None:
        """Make an op that passes on what goes in: on the scale of what it gives."""
        scale = self.scales[id(op.outputs[0])]
        reads = [None if each is None else self.integer(each, scale) for each in op.inputs]
        self.add(op.kind, reads, [self.computed(each, scale) for each in op.outputs], op.options)

    def floating(self, op: Op) -> None:
        """Run an op in float32, or as it is where there are only integers and truths.

        What a constant is compared with has a largest value; the constant then is no larger.
        """
        reads = [None if each is None else self.plain(each) for each in op.inputs]
        if op.kind in COMPARISONS:
            for k, other in ((0, op.reads[1]), (1, op.reads[0])):
                read = reads[k]
                if read is not None and read.data is not None and read.floating and id(other) in self.scales:
                    reads[k] = constant(_held(read.data, self.scales[id(other)]), "float32")
        outputs = [Tensor(each.shape, each.dtype) for each in op.outputs]
        for tensor, form in zip(op.outputs, outputs, strict=True):
            self.given(tensor, form)
        self.ops.append(Op(op.kind, reads, outputs, op.options, op.version))


def _key(scale: float | Array | None) -> float | None:
    return None if scale is None else float(np.float32(scale))


def _held(data: Array, scale: float, dtype: str = "int16") -> Array:
    """Return numbers as integers can hold them."""
    return _integers(data, scale, dtype) * np.float32(scale)


def _integers(data: Array, scale: float, dtype: str) -> Array:
    limits = np.iinfo(dtype)
    return np.clip(np.round(data.astype(np.float64) / scale), limits.min, limits.max).astype(dtype)


def quantized(data: Array, scale: float, dtype: str = "int16") -> Tensor:
    """Return a constant as integers, as large as its type can hold at most."""
    return constant(_integers(data, scale, dtype), dtype, scale)


KNOWN = GIVES_UNIT | FREE | PASSES | IN_FLOAT
"""Ops on float32 that have a form among integers, but for products with constants."""


def make(emitter: Emitter, op: Op, *, floating: bool = False) -> None:
    """Make an op of KNOWN, or one of integers and truths.

    One that takes any scale stays in float32 after one that is: what a normalisation divides is small, and what it
    multiplies by then is large.

    Args:
        emitter: Where to.
        op: The op of the float32 graph.
        floating: Whether it has to be run in float32.
    """
    numbers = any(each.floating for each in (*op.reads, *op.outputs))
    after = op.kind in FREE | PASSES and any(emitter.in_float(each) for each in op.reads)
    if floating or not numbers or after or op.kind in IN_FLOAT:
        emitter.floating(op)
    elif op.kind in GIVES_UNIT:
        emitter.unit(op)
    elif op.kind in FREE:
        emitter.elementwise(op)
    else:
        emitter.passing(op)
