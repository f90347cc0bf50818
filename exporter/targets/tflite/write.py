"""TFLite: both signatures in one file with builtin ops only, the weights stored once."""

import copy
import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python.convert import convert_saved_model

from signatures.contract import Contract
from signatures.errors import UnsupportedModel
from signatures.golden import Case
from signatures.ports import Array
from signatures.runtimes.litert import METADATA

from ...lower import spelling
from ...lower.plan import Plan
from ...lower.trace import Traced
from ...memory.recurrence import Recurrence
from .apart import without_reshapes

SPELLINGS: Mapping[str, spelling.Spelling] = {
    "Atan": spelling.atan,
    "BiasAdd": spelling.bias_add,
    "BitwiseAnd": spelling.bitwise_and,
    "Conv2D": spelling.convolution,
    "DepthwiseConv2dNative": spelling.convolution,
    "Equal": spelling.equal,
    "FloorDiv": spelling.floor_div,
    "IsInf": spelling.is_inf,
    "Log": spelling.log,
    "MatMul": spelling.of_two,
    "NotEqual": spelling.equal,
    "Roll": spelling.roll,
    "Rsqrt": spelling.root_of_squares,
    "Sigmoid": spelling.sigmoid,
    "Softplus": spelling.softplus,
    "Sqrt": spelling.root_of_squares,
    "TensorScatterUpdate": spelling.one_row,
}
"""What the converter makes something else of, or the kernel gets wrong: see Writer."""

HIDDEN_STATE = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def write(traced: Traced, contract: Contract, path: Path, golden: Case | None) -> Contract:
    """Write a TFLite file; see Writer.write."""
    content, contract = embed(converted(traced, path.parent), contract)
    path.write_bytes(content)
    return contract


def converted(traced: Traced, place: Path) -> bytes:
    """Return graphs as a TFLite file of TensorFlow's converter, names and all.

    Args:
        traced: The graphs.
        place: A folder for what is written on the way.

    Raises:
        UnsupportedModel: When TFLite has no builtin form for an operation of the model.
    """
    with tempfile.TemporaryDirectory(dir=place) as folder:
        try:
            # By way of a SavedModel: the converter's one path that keeps several signatures and freezes variables.
            tf.saved_model.save(traced.module, folder, signatures=traced.functions)
            return _converted(folder, list(traced.functions))
        except Exception as error:  # noqa: BLE001 - the converter raises ConverterError, ValueError, RuntimeError alike
            raise UnsupportedModel(
                f"TFLite has no builtin form for an operation of the model: {_reason(error)}.\n"
                "  Export to onnx or savedmodel, or replace that layer."
            ) from None


def _converted(folder: str, signatures: list[str]) -> bytes:
    """Return a SavedModel as a TFLite file, by TensorFlow's converter alone.

    TFLiteConverter calls it in the same way, but loads the SavedModel twice before and the file twice after it, which
    takes four times as long; and it has constants of infinity be finite.
    """
    content: bytes = convert_saved_model(
        saved_model_dir=folder,
        saved_model_version=1,
        saved_model_tags={tf.saved_model.SERVING},
        saved_model_exported_names=signatures,
        target_ops={tf.lite.OpsSet.TFLITE_BUILTINS},
        enable_composite_direct_lowering=True,
        canonicalizing_inf_as_min_max_float=False,
    )
    return content


def embed(content: bytes, contract: Contract) -> tuple[bytes, Contract]:
    """Return the file's bytes with the contract as a metadata buffer, and what that is."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    _without_rsqrt(model)
    without_reshapes(model)
    _slim(model)
    contract = contract.ordered({each.signatureKey.decode(): _order(model, each) for each in model.signatureDefs or []})
    model.metadata = [*(model.metadata or []), schema.MetadataT(name=METADATA, buffer=len(model.buffers))]
    model.buffers.append(schema.BufferT(data=np.frombuffer(contract.embedded().encode(), np.uint8)))
    return packed(model), contract


def packed(model: Any) -> bytes:
    """Return a model's flatbuffer."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _order(model: Any, signature: Any) -> dict[str, list[str]]:
    """Return the names of a signature's inputs and outputs in the order that its graph has them.

    Two outputs may be one tensor, which the graph then gives twice.
    """
    graph = model.subgraphs[signature.subgraphIndex]
    found = {}
    for side, order, named in (
        ("inputs", graph.inputs, signature.inputs),
        ("outputs", graph.outputs, signature.outputs),
    ):
        names: dict[int, list[str]] = {}
        for each in named:
            names.setdefault(int(each.tensorIndex), []).append(each.name.decode())
        found[side] = [names[int(index)].pop(0) for index in order if names.get(int(index))]
    return found


def _without_rsqrt(model: Any) -> None:
    """Write 1 / SQRT for RSQRT, whose kernel gives NaN for 0. The converter makes it of x / sqrt(y), too.

    Given   y = RSQRT(x)
    Result  root = SQRT(x); y = DIV(1, root)
    """
    kinds = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
    builtin = schema.BuiltinOperator
    if builtin.RSQRT not in kinds:
        return
    rsqrts, div, one = {k for k, kind in enumerate(kinds) if kind == builtin.RSQRT}, len(kinds), len(model.buffers)
    for rsqrt in rsqrts:
        model.operatorCodes[rsqrt] = code(builtin.SQRT, 1)
    model.operatorCodes.append(code(builtin.DIV, 1))
    model.buffers.append(schema.BufferT(data=np.frombuffer(np.float32(1).tobytes(), np.uint8)))
    for graph in model.subgraphs:
        number = len(graph.tensors)
        graph.tensors.append(schema.TensorT(shape=np.zeros(0, np.int32), buffer=one, hasRank=True))
        operators = []
        for operator in graph.operators:
            operators.append(operator)
            if operator.opcodeIndex in rsqrts:
                [y] = operator.outputs
                operator.outputs = np.array([len(graph.tensors)], np.int32)
                graph.tensors.append(copy.copy(graph.tensors[y]))
                division = schema.OperatorT(
                    opcodeIndex=div,
                    inputs=np.array([number, len(graph.tensors) - 1], np.int32),
                    outputs=np.array([y], np.int32),
                    builtinOptionsType=schema.BuiltinOptions.DivOptions,
                    builtinOptions=schema.DivOptionsT(),
                )
                operators.append(division)
        graph.operators = operators


def add_buffer(model: Any, values: Array) -> int:
    """Add a buffer and return its number: what lies in one that is there may be another tensor's, too."""
    model.buffers.append(schema.BufferT(data=np.ascontiguousarray(values).reshape(-1).view(np.uint8)))
    return len(model.buffers) - 1


def code(op: int, version: int) -> Any:
    """Return the entry of a builtin operator."""
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(op, 127), builtinCode=op, version=version)


def kind(model: Any, operator: Any) -> int:
    """Return which builtin operator one of a graph is."""
    entry = model.operatorCodes[operator.opcodeIndex]
    return int(max(entry.builtinCode, entry.deprecatedBuiltinCode))


def _slim(model: Any) -> None:
    """Take out what the converter writes for people and nobody reads: half of what a file has beyond its weights.

    Given   a name for every tensor; an empty buffer for every one without data, and data of some that no op reads; no
            scale for every one not quantized
    Result  names of the signatures' inputs and outputs; buffer 0, empty by the format's definition, for all of these

    Constants are stored once: what `step` reads lies where `sequence` reads it.
    """
    signed = {signature.subgraphIndex for signature in model.signatureDefs}
    for number, graph in enumerate(model.subgraphs):
        ports = {*map(int, graph.inputs), *map(int, graph.outputs)}
        named = ports if number in signed else set()
        read = ports | {int(index) for operator in graph.operators for index in operator.inputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in named:
                tensor.name = None
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None
            if index not in read or model.buffers[tensor.buffer].data is None:
                tensor.buffer = 0
    holders = [*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or [])]
    place, found, buffers = {0: 0}, {hashlib.sha256().digest(): 0}, [model.buffers[0]]
    for old in sorted({each.buffer for each in holders} - {0}):
        data = hashlib.sha256(model.buffers[old].data).digest()
        if data not in found:
            found[data] = len(buffers)
            buffers.append(model.buffers[old])
        place[old] = found[data]
    for each in holders:
        each.buffer = place[each.buffer]
    model.buffers = buffers


def ops(path: Path) -> Counter[str]:
    """Count the ops of all subgraphs, custom ones by their own name; see Writer.ops."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    codes = [model.OperatorCodes(k) for k in range(model.OperatorCodesLength())]
    names = [f"CUSTOM {custom.decode()}" if (custom := code.CustomCode()) else BUILTIN[_kind(code)] for code in codes]
    graphs = [model.Subgraphs(k) for k in range(model.SubgraphsLength())]
    return Counter(names[graph.Operators(k).OpcodeIndex()] for graph in graphs for k in range(graph.OperatorsLength()))


def _kind(code: Any) -> int:
    """Return the number of a builtin operator: those of old fit into one byte, the others have a field of their own."""
    return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))


def faults(ops: Counter[str], planned: Sequence[tuple[Recurrence, Plan]]) -> list[str]:
    """Require builtin ops and no hidden state; see Writer.faults."""
    return [f"it holds {ops[op]} {op} op(s)" for op in sorted(ops) if op.startswith("CUSTOM") or op in HIDDEN_STATE]


def _reason(error: Exception) -> str:
    """Return the ops that a converter's message names, with float64 where that is the trouble, else its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("TF Select ops:", "Custom ops:"))]
    wide = {line.partition("(")[0].removeprefix("tf.") for line in lines if line.startswith("tf.") and "f64" in line}
    found = [f"{op} of float64" if op in wide else op for names in named for op in names.split(", ")]
    return ", ".join(found) if found else (lines or [type(error).__name__])[0][:300]
