"""One graph of a TFLite file as ops that hold their tensors: easy to change, and written back as a file of its own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from signatures.errors import UnsupportedModel

Array = NDArray[Any]

DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.UINT32: "uint32",
}
CODES = {name: code for code, name in DTYPES.items()}
KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


@dataclass(eq=False)
class Tensor:
    """A tensor of a graph, told from others by identity.

    Attributes:
        shape: Its sizes.
        dtype: NumPy's name of its type.
        data: What a constant holds, of this shape and type; None for one that is computed.
        scale: The number that 1 stands for, where it holds quantized numbers; an array with one for each channel.
            None where it holds numbers. 0 is stood for by 0: every type here is signed and symmetric.
        axis: The axis of the channels.
        mix: (a, b), where it is u * a + (1 - u) * b with u between 0 and 1: no larger than the larger of them.
    """

    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    scale: float | Array | None = None
    axis: int = 0
    mix: "tuple[Tensor, Tensor] | None" = None

    @property
    def floating(self) -> bool:
        """Whether it holds float32."""
        return self.dtype == "float32"


@dataclass(eq=False)
class Op:
    """An op of a graph.

    Attributes:
        kind: "FULLY_CONNECTED" and so on, TFLite's own names.
        inputs: What it reads; None for an optional input that it doesn't have.
        outputs: What it gives.
        options: TFLite's record of its options, `schema.AddOptionsT()` for an ADD; None where it has none.
        version: Of its kernel.
    """

    kind: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: Any = None
    version: int = 1

    @property
    def reads(self) -> list[Tensor]:
        """The inputs that it has."""
        return [each for each in self.inputs if each is not None]


@dataclass
class Graph:
    """A signature's graph.

    Attributes:
        inputs: Port -> tensor, in the order of the graph.
        outputs: Port -> tensor, in the order of the graph.
        ops: In an order in which they can be run.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    ops: list[Op] = field(default_factory=list)

    def readers(self, tensor: Tensor) -> list[Op]:
        """Return the ops that read a tensor."""
        return [op for op in self.ops if any(each is tensor for each in op.reads)]

    def maker(self, tensor: Tensor) -> Op | None:
        """Return the op that gives a tensor; None for a constant or an input."""
        return next((op for op in self.ops if any(each is tensor for each in op.outputs)), None)

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Have whatever reads a tensor, the graph's outputs too, read another one."""
        for op in self.ops:
            op.inputs = [new if each is old else each for each in op.inputs]
        self.outputs = {name: new if each is old else each for name, each in self.outputs.items()}

    def pruned(self) -> "Graph":
        """Return the graph without ops whose outputs nothing reads."""
        wanted, ops = {id(each) for each in self.outputs.values()}, []
        for op in reversed(self.ops):
            if any(id(each) in wanted for each in op.outputs):
                ops.append(op)
                wanted |= {id(each) for each in op.reads}
        return Graph(self.inputs, self.outputs, ops[::-1])

    def tensors(self) -> Iterator[Tensor]:
        """Yield each tensor once: inputs, then what each op reads and gives, then outputs that no op does."""
        seen: set[int] = set()
        within = (tensor for op in self.ops for tensor in (*op.reads, *op.outputs))
        for each in (*self.inputs.values(), *within, *self.outputs.values()):
            if id(each) not in seen:
                seen.add(id(each))
                yield each


def constant(data: Any, dtype: str, scale: float | Array | None = None, axis: int = 0) -> Tensor:
    """Return a tensor that holds an array."""
    array = np.asarray(data, dtype)
    return Tensor(array.shape, dtype, array, scale, axis)


def read(content: bytes, signature: str) -> Graph:
    """Return the graph of a signature.

    Raises:
        UnsupportedModel: When it holds a tensor of a type that no graph of ours has, or one of an open size.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    signed = next(each for each in model.signatureDefs if each.signatureKey.decode() == signature)
    graph = model.subgraphs[signed.subgraphIndex]
    tensors = [_tensor(model, each) for each in graph.tensors]
    names = [{each.tensorIndex: each.name.decode() for each in side} for side in (signed.inputs, signed.outputs)]
    inputs = {names[0][index]: tensors[index] for index in map(int, graph.inputs)}
    outputs = {each.name.decode(): tensors[each.tensorIndex] for each in signed.outputs}
    made = Graph(inputs, outputs)
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = KINDS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        reads = [tensors[index] if index >= 0 else None for index in map(int, op.inputs)]
        made.ops.append(Op(kind, reads, [tensors[int(k)] for k in op.outputs], op.builtinOptions, code.version))
    return made


def _tensor(model: Any, tensor: Any) -> Tensor:
    if tensor.type not in DTYPES or (tensor.shapeSignature is not None and -1 in tensor.shapeSignature):
        raise UnsupportedModel(
            "a graph with tensors of other types than float32, integers and bool, or of open sizes, has no integer"
            " form.\n  Leave --quantize out."
        )
    dtype, shape = DTYPES[tensor.type], tuple(map(int, tensor.shape if tensor.shape is not None else ()))
    data = model.buffers[tensor.buffer].data
    array = None if data is None else np.frombuffer(bytes(data), dtype).reshape(shape)
    scales = None if tensor.quantization is None else tensor.quantization.scale
    if scales is None:
        return Tensor(shape, dtype, array)
    scale = np.array(scales, np.float32) if len(scales) > 1 else float(scales[0])
    return Tensor(shape, dtype, array, scale, tensor.quantization.quantizedDimension)


def written(graph: Graph, signature: str) -> bytes:
    """Return a TFLite file with a graph as its only one, under the name of a signature.

    Tensors stand in the file in the order of `Graph.tensors`.
    """
    tensors = list(graph.tensors())
    place = {id(each): k for k, each in enumerate(tensors)}
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[], metadata=[])
    names = {id(each): name for side in (graph.inputs, graph.outputs) for name, each in side.items()}
    made = [_packed(model, each, names.get(id(each))) for each in tensors]
    codes: dict[tuple[str, int], int] = {}
    operators = []
    for op in graph.ops:
        code = getattr(schema.BuiltinOperator, op.kind)
        if (op.kind, op.version) not in codes:
            codes[op.kind, op.version] = len(codes)
            model.operatorCodes.append(
                schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=op.version)
            )
        operator = schema.OperatorT(
            opcodeIndex=codes[op.kind, op.version],
            inputs=_indexes(-1 if each is None else place[id(each)] for each in op.inputs),
            outputs=_indexes(place[id(each)] for each in op.outputs),
        )
        if op.options is not None:
            operator.builtinOptions = op.options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(op.options).__name__.removesuffix("T"))
        operators.append(operator)
    model.subgraphs = [
        schema.SubGraphT(
            tensors=made,
            inputs=_indexes(place[id(each)] for each in graph.inputs.values()),
            outputs=_indexes(place[id(each)] for each in graph.outputs.values()),
            operators=operators,
        )
    ]
    sides = (
        [schema.TensorMapT(name=name, tensorIndex=place[id(each)]) for name, each in side.items()]
        for side in (graph.inputs, graph.outputs)
    )
    model.signatureDefs = [schema.SignatureDefT(*sides, signatureKey=signature, subgraphIndex=0)]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _indexes(numbers: Iterable[int]) -> Array:
    return np.array(list(numbers), np.int32)


def _packed(model: Any, tensor: Tensor, name: str | None) -> Any:
    made = schema.TensorT(
        shape=np.array(tensor.shape, np.int32), type=CODES[tensor.dtype], name=name, buffer=0, hasRank=True
    )
    if tensor.scale is not None:
        scales = np.atleast_1d(np.asarray(tensor.scale, np.float32))
        made.quantization = schema.QuantizationParametersT(
            scale=scales, zeroPoint=np.zeros(len(scales), np.int64), quantizedDimension=tensor.axis
        )
    if tensor.data is not None:
        made.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT(data=np.frombuffer(tensor.data.tobytes(), np.uint8)))
    return made
