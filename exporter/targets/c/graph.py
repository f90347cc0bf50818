"""A subgraph of a TFLite file as plain data: tensors of known sizes, and operators in the order they run in.

Given   %3 = ADD(%1, %2) with fused RELU
Result  %4 = ADD(%1, %2); %3 = RELU(%4)
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from signatures.errors import UnsupportedModel
from signatures.ports import Array

BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
FUSED = {
    code: name for name, code in vars(schema.ActivationFunctionType).items() if isinstance(code, int) and name != "NONE"
}
TYPES = {
    getattr(schema.TensorType, name.upper()): name
    for name in ("float32", "int32", "int64", "bool", "int8", "uint8", "int16", "uint32")
}
"""Number of a tensor type in the format -> NumPy's name; others have no form in C."""


@dataclass(frozen=True)
class Tensor:
    """A tensor: its shape, NumPy's name of its type, its numbers if it is constant, and what TensorFlow called it.

    Attributes:
        rounded: Of weights that are stored so, the integers that `data` is made of and what 1 stands for in each row.
    """

    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    name: str = ""
    rounded: tuple[Array, Array] | None = None

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Operator:
    """A builtin operator; inputs that are left out are -1.

    Attributes:
        kind: Its name in the format.
        options: Its builtin options by the format's names.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """What a signature runs.

    Attributes:
        tensors: All of them, by number.
        operators: In the order they run in.
        inputs: Input port -> tensor.
        outputs: Output port -> tensor.
    """

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: dict[str, int]
    outputs: dict[str, int]

    def add(self, tensor: Tensor) -> int:
        """Add a tensor and return its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def place(self, operator: Operator) -> str:
        """Say which operator it is and where, by the first name there is: ADD of 'lstm/add_1'."""
        near = [number for number in (*operator.outputs, *operator.inputs) if number >= 0]
        name = next((name for number in near if (name := readable(self.tensors[number].name))), "")
        return f"{operator.kind} of {name!r}" if name else operator.kind


def read(content: bytes, signature: str) -> Graph:
    """Read the graph of a signature out of a TFLite file's bytes.

    Raises:
        UnsupportedModel: When a tensor has an open size or a type that C has no form for here.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    signed = next(each for each in model.signatureDefs if each.signatureKey.decode() == signature)
    subgraph = model.subgraphs[signed.subgraphIndex]
    kinds = [BUILTIN[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    graph = Graph(
        [_tensor(model, each) for each in subgraph.tensors],
        [],
        {each.name.decode(): each.tensorIndex for each in signed.inputs or []},
        {each.name.decode(): each.tensorIndex for each in signed.outputs},
    )
    for each in subgraph.operators:
        inputs, outputs = (tuple(map(int, ends)) if ends is not None else () for ends in (each.inputs, each.outputs))
        options = dict(vars(each.builtinOptions)) if each.builtinOptions is not None else {}
        operator = Operator(kinds[each.opcodeIndex], inputs, outputs, options)
        for number in (*inputs, *outputs):
            _check(graph, operator, number)
        fused = FUSED.get(options.get("fusedActivationFunction", 0))
        if fused is not None:
            before = graph.add(graph.tensors[outputs[0]])
            graph.operators += [replace(operator, outputs=(before,)), Operator(fused, (before,), outputs)]
        else:
            graph.operators.append(operator)
    return graph


def _tensor(model: Any, tensor: Any) -> Tensor:
    """Return a tensor; one of an open size or of another type is told by a type that isn't in TYPES."""
    shape = tuple(map(int, tensor.shape)) if tensor.shape is not None else ()
    open_ = tensor.shapeSignature is not None and min(tensor.shapeSignature, default=0) < 0
    dtype = "" if open_ else TYPES.get(tensor.type, "")
    data = model.buffers[tensor.buffer].data
    name = (tensor.name or b"").decode()
    if not dtype or data is None or len(data) == 0:
        return Tensor(shape, dtype, None, name)
    numbers = np.frombuffer(bytes(data), dtype).reshape(shape)
    if dtype != "int8" or tensor.quantization is None or tensor.quantization.scale is None:
        return Tensor(shape, dtype, numbers, name)
    scale, axis = np.asarray(tensor.quantization.scale, np.float32), tensor.quantization.quantizedDimension
    wide = numbers.astype(np.float32) * scale.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return Tensor(shape, "float32", wide, name, (numbers, scale) if axis == 0 else None)


def _check(graph: Graph, operator: Operator, number: int) -> None:
    if number >= 0 and not graph.tensors[number].dtype:
        raise UnsupportedModel(
            f"C has no form for {graph.place(operator)}: a tensor of it has an open size, or a type other than"
            f" {', '.join(TYPES.values())}.\n  Export to tflite, onnx or savedmodel."
        )


def readable(name: str) -> str:
    """Return what TensorFlow called a tensor as layer/operation: "model_1/lstm_1/MatMul_1;..." -> "lstm/MatMul_1".

    TensorFlow puts the model before it, and _1 behind the names of layers that it has traced once before.
    """
    if name.startswith(("StatefulPartitionedCall", "PartitionedCall")):
        return ""
    *layers, operation = name.partition(";")[0].split("/")
    return "/".join([*(re.sub("_1$", "", layer) for layer in layers[1:]), operation])


def unknown(graph: Graph, operator: Operator, why: str) -> UnsupportedModel:
    """Return the refusal of an operator."""
    return UnsupportedModel(
        f"C has no form for {graph.place(operator)}: {why}.\n"
        "  Export to tflite, onnx or savedmodel, or replace that layer."
    )
