"""Quantize an ONNX file that is whole and proven in float32.

float16   Given   W, a constant of 32-bit floats            Result  W = Cast(the same in 16 bits)
int8      Given   W, the weights of a product               Result  W = Mul(Cast(int8), scale), a scale an output
dynamic   Given   a large LSTM or MatMul                    Result  DynamicQuantizeLSTM, DynamicQuantizeMatMul
                  any other                                         as int8

Cast and Mul of constants are folded when ONNX Runtime opens the file, so that it computes in float32 as before. It
doesn't fold DequantizeLinear: a call took 1.1 to 2.7 times as long (1.31). The ops of `dynamic` are its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from signatures.contract import Contract
from signatures.ports import Array, Feeds, Signature
from signatures.runtimes.ort import METADATA, OnnxRuntime

from ...lower.trace import Traced
from .. import nothing_to_store, rounding

LEAST = 1024
"""Numbers of the smallest constant that is quantized."""

DYNAMIC = 1 << 16
"""Numbers of the smallest matrix that is multiplied in integers: smaller ones take longer so than in floats.

Measured with ONNX Runtime 1.31, one thread, one sample, 96 time steps: LSTM 16->32 1.30 of float32's time, 64->128
0.83, 257->512 0.25; unsigned weights are quicker than signed ones.
"""

OUTPUTS = {
    ("LSTM", 1): 1,
    ("LSTM", 2): 1,
    ("GRU", 1): 1,
    ("GRU", 2): 1,
    ("RNN", 1): 1,
    ("RNN", 2): 1,
    ("MatMul", 1): -1,
    ("Conv", 1): 0,
    ("Gather", 0): 0,
}
"""Op and place of an input that may be weights -> the axis that counts outputs, each of which has a scale."""

CELLS = ("LSTM", "GRU", "RNN")

SATURATES = 100
"""How many times the median weight of the other inputs one is that saturates gates; write.py gives it thousands."""

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Weights:
    """A large constant that one node reads as its weights.

    Attributes:
        node: Which.
        place: Of its inputs.
        tensor: The initializer.
        axis: That counts outputs.
    """

    node: Any
    place: int
    tensor: Any
    axis: int

    @property
    def array(self) -> Array:
        """The numbers, outputs along the last axis: of a cell [D, K, N]."""
        return np.moveaxis(numpy_helper.to_array(self.tensor), self.axis, -1)

    @property
    def signals(self) -> int:
        """How many inputs at the end of a cell's are no data: what holds the state at masked time steps is added last.

        Their weights saturate the gates, many times as large as any other, and stay floats.
        """
        if self.node.op_type not in CELLS or self.place != 1:
            return 0
        largest = np.abs(self.array).max(axis=(0, 2))
        return int(len(largest) > 1 and largest[-1] > SATURATES * max(float(np.median(largest[:-1])), 1.0))


def quantize(path: Path, traced: Traced, contract: Contract, recordings: Sequence[Feeds]) -> Contract:
    """Quantize a file in place; see Quantizer.quantize."""
    model = onnx.load(path)
    nodes = len(model.graph.node)
    scheme = None if contract.quantized is None else contract.quantized.scheme
    if scheme == "float16":
        _halve(model.graph)
    else:
        found = list(_weights(model.graph))
        seen = _watched(model, found, next(iter(contract.signatures.values())), recordings)
        for group in _groups(found):
            _round(model.graph, group, seen, scheme == "dynamic")
        _drop_unread(model.graph)
        if any(node.domain == MICROSOFT for node in model.graph.node):
            model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    if len(model.graph.node) == nodes and all(node.domain != MICROSOFT for node in model.graph.node):
        raise nothing_to_store(str(scheme), LEAST)
    helper.set_model_props(model, {METADATA: contract.embedded()})
    onnx.checker.check_model(model, full_check=all(node.domain != MICROSOFT for node in model.graph.node))
    path.write_bytes(model.SerializeToString())
    return contract


def _drop_unread(graph: Any) -> None:
    """Take out constants that no node reads any more."""
    read = {name for node in _inside(graph) for name in node.input} | {value.name for value in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _halve(graph: Any) -> None:
    """Store large constants in 16 bits."""
    ends = np.finfo(np.float16)
    for tensor in list(graph.initializer):
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= LEAST:
            narrow = np.clip(numpy_helper.to_array(tensor), ends.min, ends.max).astype(np.float16)
            name = f"{tensor.name}_float16"
            cast = helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
            graph.initializer.append(numpy_helper.from_array(narrow, name))
            graph.initializer.remove(tensor)
            graph.node.insert(0, cast)


def _weights(graph: Any) -> Iterator[Weights]:
    """Return every large constant that one node of the graph reads as weights, and nothing else."""
    readers = defaultdict(list)
    for node in _inside(graph):
        for place, name in enumerate(node.input):
            readers[name].append((node, place))
    own = {id(node) for node in graph.node}
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < LEAST:
            continue
        match readers[tensor.name]:
            case [(node, place)] if (node.op_type, place) in OUTPUTS and id(node) in own:
                if node.op_type != "MatMul" or len(tensor.dims) == 2:
                    yield Weights(node, place, tensor, OUTPUTS[node.op_type, place] % len(tensor.dims))


def _inside(graph: Any) -> Iterator[Any]:
    """Return the nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _inside(attribute.g)


def _watched(
    model: Any, weights: Sequence[Weights], signature: Signature, recordings: Sequence[Feeds]
) -> dict[str, Array]:
    """Run recordings.

    Returns:
        Name of a constant -> what it was multiplied with, [n, K]: for matrices, and cells that run forward.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    for each in weights:
        name, node = each.tensor.name, each.node
        if node.op_type == "MatMul":
            wanted[name] = (node.input[0],)
        elif node.op_type in CELLS and each.array.shape[0] == 1 and _forward(node) and node.output[0]:
            lengths, start = node.input[4], node.input[5]
            wanted[name] = (node.input[0], lengths) if each.place == 1 else (node.output[0], lengths, start)
    if not wanted:
        return {}
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    names = list(dict.fromkeys(name for each in wanted.values() for name in each if name))
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = OnnxRuntime(copy.SerializeToString(), 1)
    rows: dict[str, list[Array]] = {name: [] for name in wanted}
    for feeds in recordings:
        given = {**signature.initial_state(signature.count(feeds)), **feeds}
        values = {**given, **session.run(signature.name, given)}
        for name, sources in wanted.items():
            first = values[sources[0]]
            if len(sources) == 3:  # h of the step before: Y [T, 1, B, U], and where it starts from, [1, B, U]
                start = values[sources[2]] if sources[2] in values else np.zeros_like(first[0])
                first = np.concatenate([start[None], first[:-1]])
            flat = first.reshape(-1, first.shape[-1])
            if len(sources) > 1 and sources[1] in values:  # beyond its end a sample's rows are never written
                flat = flat[(np.arange(len(first))[:, None] < values[sources[1]]).reshape(-1)]
            rows[name].append(flat)
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _forward(node: Any) -> bool:
    """Whether a cell runs from the first time step to the last."""
    return all(each.s == b"forward" for each in node.attribute if each.name == "direction")


def _groups(weights: Sequence[Weights]) -> list[list[Weights]]:
    """Return what is rounded together: the two matrices of an LSTM or RNN, whose products are added."""
    groups: dict[Any, list[Weights]] = defaultdict(list)
    for each in weights:
        groups[id(each.node) if each.node.op_type in ("LSTM", "RNN") else each.tensor.name].append(each)
    return list(groups.values())


def _round(graph: Any, group: list[Weights], seen: dict[str, Array], dynamic: bool) -> None:
    """Store the weights of a group in 8 bits."""
    node, names = group[0].node, [each.tensor.name for each in group]
    data = [each.array[..., : each.array.shape[-2] - each.signals, :] for each in group]
    matrices = [each.reshape(-1, each.shape[-1]) for each in data]
    if all(name in seen for name in names):
        ran = _running(group, [seen[name] for name in names])
        inputs = [seen[name][ran, : len(matrix)] for name, matrix in zip(names, matrices, strict=True)]
        rounded = rounding.compensated(matrices, inputs)
        for each, matrix, found, rows in zip(group, matrices, rounded, inputs, strict=True):
            _correct(graph, each, rounding.mean_error(matrix, found, rows))
    else:
        rounded = [rounding.nearest(matrix) for matrix in matrices]
    large = dynamic and max(found.values.size for found in rounded) >= DYNAMIC and not any(e.signals for e in group)
    if large and node.op_type == "LSTM" and len(group) == 2:
        _dynamic_lstm(graph, group, rounded)
    elif large and node.op_type == "MatMul":
        _dynamic_product(graph, group[0], rounded[0])
    else:
        for each, found in zip(group, rounded, strict=True):
            _widened(graph, each, found)


def _running(group: list[Weights], inputs: list[Array]) -> Array:
    """Return which rows are of time steps that a cell runs: the others have a signal."""
    held = [rows[:, rows.shape[1] - each.signals :].any(axis=1) for each, rows in zip(group, inputs, strict=True)]
    return np.asarray(~np.any(held, axis=0))


def _correct(graph: Any, weights: Weights, error: Array) -> None:
    """Have a cell's bias make up for what its product is too small by on average, [N]; a MatMul has none."""
    node = weights.node
    known = {tensor.name: tensor for tensor in graph.initializer}
    if node.op_type == "MatMul" or len(node.input) < 4 or node.input[3] not in known:
        return
    bias = numpy_helper.to_array(known[node.input[3]]).copy()  # [1, input biases, then recurrent ones]
    half = bias.shape[1] // 2
    bias[0, (weights.place - 1) * half : weights.place * half] += error.astype(np.float32)
    node.input[3] = _constant(graph, f"{weights.tensor.name}_bias", bias)


def _constant(graph: Any, name: str, value: Array) -> str:
    """Add a constant and return its name."""
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _widened(graph: Any, weights: Weights, found: rounding.Rounded) -> None:
    """Store a matrix as int8 and have the graph make floats of it; signals stay floats."""
    name, whole, signals = weights.tensor.name, weights.array, weights.signals
    shape = [*whole.shape]
    shape[-2] -= signals
    sides = [1] * len(shape)
    sides[weights.axis] = len(found.scale)
    values = _constant(graph, f"{name}_int8", np.moveaxis(found.values.reshape(shape), -1, weights.axis))
    scale = _constant(graph, f"{name}_scale", found.scale.reshape(sides))
    made = f"{name}_data" if signals else name
    nodes = [
        helper.make_node("Cast", [values], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_float", scale], [made]),
    ]
    if signals:
        rest = _constant(graph, f"{name}_signals", np.moveaxis(whole[..., -signals:, :], -1, weights.axis).copy())
        nodes.append(helper.make_node("Concat", [made, rest], [name], axis=2))
    graph.initializer.remove(weights.tensor)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _unsigned(graph: Any, weights: Weights, found: rounding.Rounded, shape: tuple[int, ...]) -> tuple[str, str, str]:
    """Add a matrix as uint8 around 128 and return the names of its values, scales and zero points."""
    name = weights.tensor.name
    graph.initializer.remove(weights.tensor)
    values = (found.values.astype(np.int16) + 128).astype(np.uint8)
    scale = found.scale.reshape(*[1] * (len(shape) > 2), -1)
    scale = np.broadcast_to(scale, (*shape[:1], len(found.scale))).copy() if len(shape) > 2 else scale
    return (
        _constant(graph, f"{name}_uint8", values.reshape(shape)),
        _constant(graph, f"{name}_scale", scale),
        _constant(graph, f"{name}_zero", np.full(scale.shape, 128, np.uint8)),
    )


def _dynamic_lstm(graph: Any, group: list[Weights], rounded: list[rounding.Rounded]) -> None:
    """Make an LSTM multiply in integers: X, W [D, F, 4U], R [D, U, 4U], ..., scales and zero points [D, 4U] of both."""
    node = group[0].node
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    for each, found in sorted(zip(group, rounded, strict=True), key=lambda pair: pair[0].place):
        inputs[each.place], *more = _unsigned(graph, each, found, each.array.shape)
        inputs += more
    del node.input[:]
    node.input.extend(inputs)
    node.op_type, node.domain = "DynamicQuantizeLSTM", MICROSOFT


def _dynamic_product(graph: Any, weights: Weights, found: rounding.Rounded) -> None:
    """Make a MatMul multiply in integers: A, B [K, N], scale and zero point of each of its columns."""
    node = weights.node
    values, scale, zero = _unsigned(graph, weights, found, weights.array.shape)
    inputs = [node.input[0], values, scale, zero]
    del node.input[:]
    node.input.extend(inputs)
    node.op_type, node.domain = "DynamicQuantizeMatMul", MICROSOFT
