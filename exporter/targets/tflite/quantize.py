"""Quantize a TFLite file that is whole and proven in float32.

float16   Given   a constant of 32-bit floats                 Result  the same in 16 bits and a DEQUANTIZE in each graph
dynamic   Given   FULLY_CONNECTED or CONV_2D of floats        Result  the same op on int8 weights, a scale an output
                  GATHER of a table of floats                         see embeddings.py
int8      see integers/
int16x8   see integers/

The kernels of `dynamic` quantize what comes row by row, so that one call of all steps and single steps give the same.
Both signatures read the same weights, in loops too; what inputs the weights see is watched in a stream through `step`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from signatures.contract import Contract
from signatures.ports import Array, Feeds
from signatures.runtimes.litert import METADATA, LiteRT
from signatures.stream import Stream

from ...lower.trace import Traced
from .. import TARGETS, nothing_to_store, rounding
from . import embeddings
from .integers import of_integers
from .write import add_buffer, code, embed, kind, packed

LEAST = 1024
"""Numbers of the smallest constant that is quantized: a smaller one saves less than its scales and its op take."""

CHANNELS = {
    schema.BuiltinOperator.FULLY_CONNECTED: 0,
    schema.BuiltinOperator.CONV_2D: 0,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
}
"""Op whose kernel takes int8 weights with floats -> the axis of its weights that counts outputs."""

MIXED = {
    schema.BuiltinOperator.FULLY_CONNECTED: 12,
    schema.BuiltinOperator.CONV_2D: 5,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 6,
}
"""Op -> the version since which its kernel takes these, a scale an output."""


def quantize(path: Path, traced: Traced, contract: Contract, recordings: Sequence[Feeds]) -> Contract:
    """Quantize a file in place; see Quantizer.quantize."""
    content, quantized = path.read_bytes(), contract.quantized
    assert quantized is not None
    if quantized.scheme in TARGETS["tflite"].integers:
        made = of_integers(content, contract, quantized.scheme, quantized.precise, recordings)
        content, contract = embed(*made)
        path.write_bytes(content)
        return contract
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    ops = len(model.operatorCodes)
    if quantized.scheme == "float16":
        _halve(model)
    else:
        round_products(model, content, contract, recordings)
        embeddings.narrow(model, LEAST)
    if len(model.operatorCodes) == ops:
        raise nothing_to_store(quantized.scheme, LEAST)
    model.metadata = [each for each in model.metadata if each.name.decode() != METADATA]
    content, contract = embed(packed(model), contract)
    path.write_bytes(content)
    return contract


def _halve(model: Any) -> None:
    """Store large constants in 16 bits and have every graph widen those that it reads."""
    dequantize = len(model.operatorCodes)
    halved: dict[int, int] = {}
    for graph in model.subgraphs:
        wide = {}
        for index, tensor in enumerate(list(graph.tensors)):
            data = model.buffers[tensor.buffer].data
            if tensor.type == schema.TensorType.FLOAT32 and data is not None and np.prod(tensor.shape) >= LEAST:
                if tensor.buffer not in halved:
                    halved[tensor.buffer] = add_buffer(model, np.clip(data.view(np.float32), *_ENDS).astype(np.float16))
                wide[index] = len(graph.tensors)
                graph.tensors.append(schema.TensorT(shape=tensor.shape, type=tensor.type, hasRank=True))
                tensor.type, tensor.buffer = schema.TensorType.FLOAT16, halved[tensor.buffer]
        for operator in graph.operators:
            operator.inputs = np.array([wide.get(int(index), int(index)) for index in operator.inputs], np.int32)
        widen = [
            schema.OperatorT(opcodeIndex=dequantize, inputs=np.array([a], np.int32), outputs=np.array([b], np.int32))
            for a, b in wide.items()
        ]
        graph.operators = [*widen, *graph.operators]
    if halved:
        model.operatorCodes.append(code(schema.BuiltinOperator.DEQUANTIZE, 1))


_ENDS = (np.finfo(np.float16).min, np.finfo(np.float16).max)


Key = tuple[int, int, tuple[int, ...]]


@dataclass
class Product:
    """An op that multiplies by constant weights.

    Attributes:
        graph: Where it is.
        operator: Itself.
        axis: That counts its outputs.
    """

    graph: Any
    operator: Any
    axis: int

    @property
    def weights(self) -> Any:
        """The tensor of its weights."""
        return self.graph.tensors[self.operator.inputs[1]]

    @property
    def key(self) -> Key:
        """What tells its weights from all others: their buffer, and how they lie in it."""
        return int(self.weights.buffer), self.axis, tuple(map(int, self.weights.shape))

    @property
    def bias(self) -> Any | None:
        """The tensor of its bias."""
        known = len(self.operator.inputs) > 2 and self.operator.inputs[2] >= 0
        return self.graph.tensors[self.operator.inputs[2]] if known else None


def _products(model: Any) -> Iterator[Product]:
    """Return every op of floats whose large constant weights nothing else reads."""
    for graph in model.subgraphs:
        read: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for operator in graph.operators:
            for place, index in enumerate(operator.inputs):
                read[int(index)].add((kind(model, operator), place))
        for operator in graph.operators:
            if (axis := CHANNELS.get(kind(model, operator))) is not None:
                tensor = graph.tensors[operator.inputs[1]]
                constant = model.buffers[tensor.buffer].data is not None and np.prod(tensor.shape) >= LEAST
                floats = tensor.type == schema.TensorType.FLOAT32
                if constant and floats and read[int(operator.inputs[1])] == {(kind(model, operator), 1)}:
                    yield Product(graph, operator, axis)


@dataclass
class Seen:
    """What weights were multiplied with, [n, K], and the keys of those whose products are added to theirs."""

    inputs: list[Array] = field(default_factory=list)
    beside: set[Key] = field(default_factory=set)


def _watched(content: bytes, contract: Contract, recordings: Sequence[Feeds]) -> dict[Key, Seen]:
    """Stream recordings through `step`.

    Returns:
        Key of a fully connected op's weights -> what it was multiplied with.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    [step] = [each for each in model.signatureDefs if each.signatureKey == b"step"]
    graph = model.subgraphs[step.subgraphIndex]
    inner = [
        each for each in _products(model) if each.graph is graph and each.axis == 0 and len(each.weights.shape) == 2
    ]
    watched = {}
    for index in dict.fromkeys(int(each.operator.inputs[0]) for each in inner):
        watched[index] = f"watched {index}"
        if index not in graph.outputs:
            graph.outputs = np.append(graph.outputs, np.int32(index))
        step.outputs.append(schema.TensorMapT(name=watched[index], tensorIndex=index))
    seen: dict[Key, Seen] = {each.key: Seen() for each in inner}
    for group in _added(model, graph, inner):
        for each in group:
            seen[each.key].beside |= {other.key for other in group}
    session = LiteRT(packed(model), 1)

    def run(signature: str, feeds: Feeds) -> dict[str, Array]:
        outputs = session.run(signature, feeds)
        for each in inner:
            rows = outputs[watched[int(each.operator.inputs[0])]]
            seen[each.key].inputs.append(rows.reshape(-1, each.weights.shape[1]).copy())
        return outputs

    [info] = contract.artifacts.values()
    signature, dims = contract.signatures["step"], info.dims
    stepped = replace(contract, signatures={"step": signature})
    batch = dims.get("batch", 1)
    for feeds in recordings:
        Stream(stepped, dims, run, batch).push(**signature.samples(feeds, np.zeros(batch, int)))
    return seen


def _added(model: Any, graph: Any, products: Sequence[Product]) -> Iterator[list[Product]]:
    """Return products that are added to each other, as those of a cell's input and its state are."""
    made_by = {int(index): operator for operator in graph.operators for index in operator.outputs}
    by_output = {int(each.operator.outputs[0]): each for each in products}

    def source(index: int) -> Product | None:
        made = made_by.get(index)
        if made is not None and kind(model, made) == schema.BuiltinOperator.RESHAPE:
            return source(int(made.inputs[0]))
        return by_output.get(index)

    for operator in graph.operators:
        if kind(model, operator) == schema.BuiltinOperator.ADD:
            terms = [found for index in operator.inputs if (found := source(int(index))) is not None]
            if len({term.key for term in terms}) == 2:
                yield terms


def round_products(model: Any, content: bytes, contract: Contract, recordings: Sequence[Feeds]) -> None:
    """Store the weights of products in 8 bits, and have biases make up for what that changes on average.

    Args:
        model: The file, which is changed.
        content: Its bytes, which stream the recordings.
        contract: Its ports.
        recordings: See Quantizer.quantize.
    """
    seen = _watched(content, contract, recordings) if recordings and "step" in contract.signatures else {}
    products = list(_products(model))
    floats = {each.key: _matrix(model, each) for each in products}
    biased = {each.key for each in products if each.bias and model.buffers[each.bias.buffer].data is not None}
    rounded, errors = _rounded(floats, seen, biased)
    stored = {key: add_buffer(model, np.moveaxis(found.values, -1, key[1])) for key, found in rounded.items()}
    versions: dict[int, int] = {}
    corrected: dict[tuple[Key, int], int] = {}
    for each, key in [(each, each.key) for each in products]:
        tensor, bias = each.weights, each.bias
        scale = rounded[key].scale
        tensor.type, tensor.buffer = schema.TensorType.INT8, stored[key]
        tensor.quantization = schema.QuantizationParametersT(
            scale=scale, zeroPoint=np.zeros(len(scale), np.int64), quantizedDimension=each.axis
        )
        if bias is not None and key in errors:
            both = key, int(bias.buffer)
            if both not in corrected:
                better = model.buffers[bias.buffer].data.view(np.float32) + errors[key].astype(np.float32)
                corrected[both] = add_buffer(model, better)
            new = len(each.graph.tensors)  # others may read the same constant
            each.operator.inputs = np.array([*each.operator.inputs[:2], new], np.int32)
            bias = schema.TensorT(shape=bias.shape, type=bias.type, buffer=corrected[both], hasRank=True)
            each.graph.tensors.append(bias)
        op = kind(model, each.operator)
        if op not in versions:
            versions[op] = len(model.operatorCodes)
            model.operatorCodes.append(code(op, MIXED[op]))
        each.operator.opcodeIndex = versions[op]


def _matrix(model: Any, product: Product) -> Array:
    """Return the weights of a product, its outputs along the last axis."""
    data = model.buffers[product.weights.buffer].data.view(np.float32)
    return np.moveaxis(data.reshape(product.weights.shape), product.axis, -1)


def _rounded(
    floats: Mapping[Key, Array], seen: Mapping[Key, Seen], biased: Set[Key]
) -> tuple[dict[Key, rounding.Rounded], dict[Key, Array]]:
    """Round weights: those whose inputs were seen so that products stay, together where they are added.

    Args:
        floats: Key -> weights [..., N].
        seen: Key -> what they were multiplied with.
        biased: Keys of weights that have a bias beside them.

    Returns:
        Key -> rounded, and key -> what its bias makes up for, [N].
    """
    made = {key: rounding.nearest(weights) for key, weights in floats.items() if key not in seen}
    errors: dict[Key, Array] = {}
    for key in (key for key in floats if key in seen):
        if key in made:
            continue
        beside = sorted(each for each in seen[key].beside - {key} if each in floats and each not in made)
        inputs = {each: np.concatenate(seen[each].inputs) for each in (key, *beside)}
        group = [each for each, rows in inputs.items() if len(rows) == len(inputs[key])]
        parts = rounding.compensated([floats[each] for each in group], [inputs[each] for each in group])
        made.update(zip(group, parts, strict=True))
        off = np.sum([rounding.mean_error(floats[each], made[each], inputs[each]) for each in group], axis=0)
        if first := next((each for each in group if each in biased), None):
            errors[first] = off
    return made, errors
