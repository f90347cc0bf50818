"""The smallest recurrent artifacts there are, made without Keras: h' = h + the sum of x over time.

x [B, T, 3], total_h_in [B, 3] -> total_sequences [B, T, 3] (every step's h) and total_h [B, 3].
"""

from types import SimpleNamespace

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from signatures import Carry, Contract, Port, Signature
from signatures.contract import ArtifactInfo

METADATA = "export-lstm.contract"
SHAPES = {
    "x": ("batch", "time", 3),
    "total_h_in": ("batch", 3),
    "total_sequences": ("batch", "time", 3),
    "total_h": ("batch", 3),
}
TIMED = {"x": 1, "total_sequences": 1}


def contract_for(*targets):
    ports = {
        name: Port(name, "input" if name == "x" else "state", shape, time_axis=TIMED.get(name))
        for name, shape in SHAPES.items()
    }
    inputs, outputs = (ports["x"], ports["total_h_in"]), (ports["total_sequences"], ports["total_h"])
    sequence = Signature("sequence", inputs, outputs, (Carry("total_h", "total_h_in"),))
    artifacts = {target: ArtifactInfo(f"total.{target}") for target in targets}
    model = {"name": "total", "sha256": None}
    return Contract(model, ("total_h",), {"sequence": sequence}, example={"time": 6}, artifacts=artifacts)


def onnx_bytes(contract):
    """Return the graph as ONNX; `contract` is embedded text, None for a stranger's file."""
    nodes = [
        helper.make_node("CumSum", ["x", "one"], ["sums"]),
        helper.make_node("Unsqueeze", ["total_h_in", "ones"], ["before"]),
        helper.make_node("Add", ["before", "sums"], ["total_sequences"]),
        helper.make_node("ReduceSum", ["x", "ones"], ["sum"], keepdims=0),
        helper.make_node("Add", ["total_h_in", "sum"], ["total_h"]),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [], [1]),
        helper.make_tensor("ones", TensorProto.INT64, [1], [1]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in SHAPES.items()]
    graph = helper.make_graph(nodes, "total", values[:2], values[2:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if contract is not None:
        helper.set_model_props(model, {METADATA: contract})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tflite_bytes(contract):
    """Return the graph as TFLite; `contract` is embedded text, None for a stranger's file."""
    model = schema.ModelT()
    model.version, model.description, model.buffers = 3, "total", [schema.BufferT()]

    def buffer(content):
        made = schema.BufferT()
        made.data = np.frombuffer(content, np.uint8)
        model.buffers.append(made)
        return len(model.buffers) - 1

    def tensor(name, shape, kind=schema.TensorType.FLOAT32, content=None):
        made = schema.TensorT()
        made.name, made.type = name, kind
        made.shape = [1 if isinstance(d, str) else d for d in shape]
        made.shapeSignature = [-1 if isinstance(d, str) else d for d in shape]
        made.buffer = buffer(content) if content else 0
        return made

    def op(code, inputs, outputs, options=(0, None)):
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = CODES.index(code), inputs, outputs
        made.builtinOptionsType, made.builtinOptions = options
        return made

    ops, options = schema.BuiltinOperator, schema.BuiltinOptions
    CODES = [ops.CUMSUM, ops.EXPAND_DIMS, ops.ADD, ops.SUM]
    model.operatorCodes = []
    for code in CODES:
        made = schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode = code, min(code, 127)
        model.operatorCodes.append(made)

    graph = schema.SubGraphT()
    names = [*SHAPES, "axis", "sums", "before", "sum"]
    shapes = [*SHAPES.values(), (), SHAPES["x"], ("batch", 1, 3), ("batch", 3)]
    at = {name: k for k, name in enumerate(names)}
    graph.tensors = [
        tensor(n, s, *((schema.TensorType.INT32, np.int32(1).tobytes()) if n == "axis" else ()))
        for n, s in zip(names, shapes, strict=True)
    ]
    add, cumsum, reducer = schema.AddOptionsT(), schema.CumsumOptionsT(), schema.ReducerOptionsT()
    expand = schema.ExpandDimsOptionsT()
    graph.operators = [
        op(ops.CUMSUM, [at["x"], at["axis"]], [at["sums"]], (options.CumsumOptions, cumsum)),
        op(ops.EXPAND_DIMS, [at["total_h_in"], at["axis"]], [at["before"]], (options.ExpandDimsOptions, expand)),
        op(ops.ADD, [at["before"], at["sums"]], [at["total_sequences"]], (options.AddOptions, add)),
        op(ops.SUM, [at["x"], at["axis"]], [at["sum"]], (options.ReducerOptions, reducer)),
        op(ops.ADD, [at["total_h_in"], at["sum"]], [at["total_h"]], (options.AddOptions, add)),
    ]
    graph.inputs, graph.outputs = [0, 1], [2, 3]
    model.subgraphs = [graph]

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "sequence", 0
    maps = [schema.TensorMapT() for _ in SHAPES]
    for k, (each, name) in enumerate(zip(maps, SHAPES, strict=True)):
        each.name, each.tensorIndex = name, k
    signature.inputs, signature.outputs = maps[:2], maps[2:]
    model.signatureDefs = [signature]

    if contract is not None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = METADATA, buffer(contract.encode())
        model.metadata = [entry]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="session")
def total():
    """The artifact's makers: contract(*targets), onnx(text) and tflite(text), which return bytes."""
    return SimpleNamespace(contract=contract_for, onnx=onnx_bytes, tflite=tflite_bytes)
