"""The contenders: how the file of each is built, and how it is opened in a process of its own.

All run the same layers with the same weights on the same frames, batch-major, and give every time step's output
[B, T, U]. Files are built once, by whoever ships that way: export-lstm, Keras, or by hand with the runtime's own op.
"""

import ctypes
import importlib
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exporter.bench import Bound, burst, plain_feeds
from signatures import Contract
from signatures.ports import Array, Feeds
from signatures.runtimes import open as open_runner
from signatures.runtimes import own, target_of
from signatures.runtimes.c import compiler

LONGEST = 960
"""Time steps up to which Keras' conversion is given a fixed T, which is what runs fastest; beyond it takes too long."""


@dataclass(frozen=True)
class Shape:
    """Recurrent layers, one on top of the other: F -> U, then U -> U."""

    features: int
    units: int
    layers: int = 1

    def __str__(self) -> str:
        """Return it as people write it: 64->128."""
        return f"{self.features}->{self.units}" + (f"->{self.units}" * (self.layers - 1))


@dataclass(frozen=True)
class Problem:
    """What is computed: layers, samples, time steps."""

    shape: Shape
    batch: int
    total: int


@dataclass(frozen=True)
class Contender:
    """One way to run a problem.

    Attributes:
        name: What the tables call it.
        target: The format: "tflite", "onnx", "savedmodel" or "c"; "" where there is no file.
        build: Writes its file; None where there is none.
        open: Opens the file: what is timed, and the outputs [B, T, U] of the first call (None: nothing to compare).
        needs: What the file depends on besides the shape: "batch", "total".
        own: Whether export-lstm made it.
        same: The contender whose file it shares, by name.
        longest: Time steps beyond which it isn't built, None for any.
    """

    name: str
    target: str
    build: Callable[[Problem, Path], None] | None
    open: Callable[[Path, Problem], tuple[Bound, Array | None]]
    needs: tuple[str, ...] = ()
    own: bool = False
    same: str = ""
    longest: int | None = None

    def file(self, problem: Problem) -> str:
        """Return the name of its file for a problem."""
        words = [self.same or self.name, problem.shape, *(f"{need[0]}{getattr(problem, need)}" for need in self.needs)]
        suffix = f".{self.target}" if self.target in ("tflite", "onnx") else ""
        return "-".join("".join(c if c.isalnum() else "_" for c in str(word)) for word in words) + suffix


def weights(shape: Shape, gates: int = 4) -> list[list[Array]]:
    """Draw kernel [F, gU], recurrent kernel [U, gU] and bias of each layer, as Keras holds them; GRU: 3 gates."""
    rng = np.random.default_rng(shape.units)
    layers = []
    for k in range(shape.layers):
        features, units = (shape.units if k else shape.features), shape.units
        bias = [gates * units] if gates == 4 else [2, gates * units]
        sizes = ([features, gates * units], features**-0.5), ([units, gates * units], 0.5 * units**-0.5), (bias, 0.1)
        layers.append([(scale * rng.standard_normal(size)).astype(np.float32) for size, scale in sizes])
    return layers


def bytes_of_weights(shape: Shape) -> int:
    """Return the size of all weights of the LSTM layers."""
    return sum(array.nbytes for layer in weights(shape) for array in layer)


def frames(problem: Problem) -> Array:
    """Draw the input [B, T, F], as exporter.bench does."""
    sizes = problem.batch, problem.total, problem.shape.features
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


# What is built in a process that has TensorFlow.


def keras_model(
    shape: Shape, kind: str = "lstm", batch: int | None = None, total: int | None = None, unroll: bool = False
) -> Any:
    """Return the Keras model; kinds: lstm, masked (by a Masking layer), gru."""
    import keras

    x = y = keras.Input((total, shape.features), batch_size=batch, name="x")
    if kind == "masked":
        y = keras.layers.Masking()(y)
    layer = keras.layers.GRU if kind == "gru" else keras.layers.LSTM
    for k in range(shape.layers):
        y = layer(shape.units, return_sequences=True, unroll=unroll, name=f"layer_{k}")(y)
    model = keras.Model(x, y)
    model.set_weights([array for each in weights(shape, 3 if kind == "gru" else 4) for array in each])
    model(np.zeros([batch or 1, total or 1, shape.features], np.float32))  # export(format="onnx") asks for a call
    return model


def build_own(problem: Problem, path: Path, kind: str = "lstm", fixed: bool = False, target: str = "") -> None:
    """Export as a user does, all options at their defaults but those that name the problem."""
    import exporter

    model = keras_model(problem.shape, "lstm" if kind == "lengths" else kind)
    target = target or path.suffix[1:] or "savedmodel"
    exporter.export(
        model,
        target,
        path,
        batch=problem.batch if target in ("tflite", "c") and problem.batch != 1 else None,
        time=problem.total if fixed else None,
        lengths=kind == "lengths",
        check=False,  # the benchmark compares all contenders with each other
    )


def build_keras(problem: Problem, path: Path, kind: str = "lstm") -> None:
    """Let Keras export to ONNX or SavedModel, any batch and any T."""
    model = keras_model(problem.shape, kind)
    model.export(path, format="onnx" if path.suffix else "tf_saved_model", verbose=False)


def build_keras_tflite(problem: Problem, path: Path, unroll: bool = False) -> None:
    """Convert Keras' SavedModel of a fixed batch; with an open batch the conversion takes Flex ops."""
    import tensorflow as tf

    total = problem.total if unroll or problem.total <= LONGEST else None
    model = keras_model(problem.shape, batch=problem.batch, total=total, unroll=unroll)
    with tempfile.TemporaryDirectory() as folder:
        spec = tf.TensorSpec((problem.batch, total, problem.shape.features), tf.float32, name="x")
        model.export(folder, input_signature=[spec], verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


# What is built by hand.


def build_fused(problem: Problem, path: Path) -> None:
    """Write a TFLite file of UNIDIRECTIONAL_SEQUENCE_LSTM ops; T is 1 in the file and set when it is opened.

    Its inputs: x, four kernels [U, F], four recurrent kernels [U, U] (gates i f c o), no peepholes, four biases, no
    projection, the hidden states h and c as variables, no layer normalization.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    buffers = [schema.BufferT()]

    def tensor(name: str, shape: list[int], data: Array | None = None, variable: bool = False) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.isVariable, made.buffer = name, shape, variable, 0
        if data is not None:
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    units = problem.shape.units
    x = y = tensor("x", [problem.batch, 1, problem.shape.features])
    for k, layer in enumerate(weights(problem.shape)):
        kernels, recurrent, biases = (
            [tensor(f"{kind}_{k}_{gate}", list(part.shape), part) for gate, part in enumerate(np.split(array.T, 4))]
            for kind, array in zip(("kernel", "recurrent", "bias"), layer, strict=True)
        )
        states = [tensor(f"{state}_{k}", [problem.batch, units], variable=True) for state in "hc"]
        op = schema.OperatorT()
        op.inputs = [y, *kernels, *recurrent, -1, -1, -1, *biases, -1, -1, *states, -1, -1, -1, -1]
        y = tensor(f"sequences_{k}", [problem.batch, 1, units])
        op.outputs = [y]
        op.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
        op.builtinOptions = schema.UnidirectionalSequenceLSTMOptionsT()
        op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.TANH
        graph.operators.append(op)
    graph.inputs, graph.outputs = [x], [y]

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    code.version = 1
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = ([schema.TensorMapT()] for _ in range(2))
    signature.inputs[0].name, signature.inputs[0].tensorIndex = "x", x
    signature.outputs[0].name, signature.outputs[0].tensorIndex = "sequences", y
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def build_onnx(problem: Problem, path: Path) -> None:
    """Write an ONNX file of LSTM ops, h and c exposed, with nothing but what batch-major frames take: the floor."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    units, shape = problem.shape.units, problem.shape
    values = {"axis_0": np.array([0]), "axis_1": np.array([1])}
    nodes = [helper.make_node("Transpose", ["x"], ["y_0"], perm=[1, 0, 2])]
    states = [f"{state}_{k}" for k in range(shape.layers) for state in "hc"]
    for k, (kernel, recurrent, bias) in enumerate(weights(shape)):
        for name, array in ("W", kernel), ("R", recurrent), ("B", bias):
            i, f, c, o = np.split(array.T, 4)  # ONNX has the gates i o f c
            values[f"{name}_{k}"] = np.concatenate([i, o, f, c])[None]
        values[f"B_{k}"] = np.concatenate([values[f"B_{k}"], np.zeros((1, 4 * units), np.float32)], axis=1)
        inputs = [f"y_{k}", f"W_{k}", f"R_{k}", f"B_{k}", "", f"h_{k}_first", f"c_{k}_first"]
        outputs = [f"ys_{k}", f"h_{k}_last", f"c_{k}_last"]
        nodes += [helper.make_node("Unsqueeze", [f"{s}_{k}_in", "axis_0"], [f"{s}_{k}_first"]) for s in "hc"]
        nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=units))
        nodes += [helper.make_node("Squeeze", [f"{s}_{k}_last", "axis_0"], [f"{s}_{k}"]) for s in "hc"]
        nodes.append(helper.make_node("Squeeze", [f"ys_{k}", "axis_1"], [f"y_{k + 1}"]))
    nodes.append(helper.make_node("Transpose", [f"y_{shape.layers}"], ["sequences"], perm=[1, 0, 2]))

    def ports(sizes: dict[str, list[Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]

    state = ["batch", units]
    taken = ports({"x": ["batch", "time", shape.features], **{f"{name}_in": state for name in states}})
    given = ports({"sequences": ["batch", "time", units], **dict.fromkeys(states, state)})
    constants = [numpy_helper.from_array(array, name) for name, array in values.items()]
    graph = helper.make_graph(nodes, "lstm", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


# What runs in the process that is timed.


def opened(path: Path, signature: str, feeds: Feeds) -> tuple[Bound, dict[str, Array]]:
    """Open a signature of a file on one thread; return what is timed and the outputs of a call."""
    session = own(target_of(path)).load().session(path, 1)
    return session.bind(signature, feeds), session.run(signature, feeds)


def open_own(path: Path, problem: Problem, signature: str = "sequence") -> tuple[Bound, Array]:
    """Open what export-lstm wrote."""
    contract = Contract.from_json(path.with_name(f"{path.stem}.contract.json").read_bytes())
    [info] = contract.artifacts.values()
    called = contract.signatures[signature]
    sizes = {"batch": problem.batch, **info.dims, **called.dims}
    call, outputs = opened(path, signature, plain_feeds(called, sizes, problem.total))
    return call, outputs[contract.outputs[0]]


REPEAT = "void repeat(void (*call)(void), int count) { while (count-- > 0) call(); }"


def open_c(path: Path, problem: Problem) -> tuple[Bound, Array]:
    """Open a step in C, called from C for each time step in a row, as a program in C does."""
    contract = open_runner(path, trust=True).contract
    step, [info] = contract.signatures["step"], contract.artifacts.values()
    call, outputs = opened(path, "step", plain_feeds(step, {**info.dims, **step.dims}, 1))
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "repeat.c"), Path(folder, "repeat.so")
        source.write_text(REPEAT)
        subprocess.run([*compiler(), "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        repeat = ctypes.PyDLL(str(library)).repeat
    repeat.restype = None
    return partial(repeat, call, problem.total), outputs[contract.outputs[0]]


def open_peer(path: Path, problem: Problem) -> tuple[Bound, Array]:
    """Open a file with one input and one output."""
    session = own(target_of(path)).load().session(path, 1)
    [name] = session.takes("serving_default")
    feeds = {name: frames(problem)}
    [sequences] = session.run("serving_default", feeds).values()
    return session.bind("serving_default", feeds), sequences


def open_step(path: Path) -> tuple[Bound, None]:
    """Open the `step` of what export-lstm wrote, whatever the model."""
    contract = open_runner(path).contract
    [info] = contract.artifacts.values()
    step = contract.signatures["step"]
    call, _ = opened(path, "step", plain_feeds(step, {"batch": 1, **info.dims, **step.dims}, step.every))
    return call, None


def open_window(path: Path) -> tuple[Bound, None]:
    """Open a file that runs all time steps of a window, with one input."""
    [(name, shape)] = own(target_of(path)).load().session(path, 1).takes("serving_default").items()
    call, _ = opened(path, "serving_default", {name: np.ones([int(size) for size in shape], np.float32)})
    return call, None


def open_onnx_floor(path: Path, problem: Problem) -> tuple[Bound, Array]:
    """Open the graph written by hand, with zero state."""
    zeros = np.zeros((problem.batch, problem.shape.units), np.float32)
    states = {f"{state}_{k}_in": zeros for k in range(problem.shape.layers) for state in "hc"}
    call, outputs = opened(path, "", {"x": frames(problem), **states})
    return call, outputs["sequences"]


def open_limit(path: Path, problem: Problem) -> tuple[Bound, None]:
    """Return the products of a layer alone, by BLAS: x with the kernel at once, h with the recurrent kernel T times.

    The recurrent kernel lies in memory whichever way is faster. NumPy runs the T products in one call.
    """
    units, rows, block = problem.shape.units, problem.batch * problem.total, min(problem.total, 96)
    h = np.ones((block, problem.batch, units), np.float32)
    z = np.empty((block, problem.batch, 4 * units), np.float32)
    projected = np.empty((rows, 4 * units), np.float32)
    layers = [
        (np.ones((rows, len(kernel)), np.float32), kernel, recurrent) for kernel, recurrent, _ in weights(problem.shape)
    ]
    turned = [(x, kernel, np.ascontiguousarray(recurrent.T).T) for x, kernel, recurrent in layers]

    def run(layers: list[tuple[Array, Array, Array]]) -> None:
        for x, kernel, recurrent in layers:
            np.matmul(x, kernel, out=projected)
            for start in range(0, problem.total, block):
                steps = min(block, problem.total - start)
                np.matmul(h[:steps], recurrent, out=z[:steps])

    return partial(run, min((layers, turned), key=lambda either: burst(partial(run, either), 0.01))), None


TFLITE = Contender("export-lstm tflite", "tflite", build_own, open_own, ("batch",), own=True)
TFLITE_FIXED = Contender(
    "export-lstm tflite --time T", "tflite", partial(build_own, fixed=True), open_own, ("batch", "total"), own=True
)
TFLITE_STEP = Contender(
    "export-lstm tflite step", "tflite", build_own, partial(open_own, signature="step"), ("batch",), True, TFLITE.name
)
TFLITE_GRU_STEP = Contender(
    "export-lstm tflite step, GRU",
    "tflite",
    partial(build_own, kind="gru"),
    partial(open_own, signature="step"),
    own=True,
)
C_STEP = Contender("export-lstm c", "c", partial(build_own, target="c"), open_c, ("batch",), own=True)
C_GRU_STEP = Contender("export-lstm c, GRU", "c", partial(build_own, kind="gru", target="c"), open_c, own=True)
IN_A_ROW = 100
"""Time steps for which C is called at once: calls from Python take as long as a small step."""
FUSED = Contender("TFLite fused LSTM op", "tflite", build_fused, open_peer, ("batch",))
KERAS_TFLITE = Contender("Keras tflite", "tflite", build_keras_tflite, open_peer, ("batch", "total"))
KERAS_UNROLLED = Contender(  # of one step the zero state is folded away, and the recurrent kernel with it
    "Keras tflite unroll=True",
    "tflite",
    partial(build_keras_tflite, unroll=True),
    open_peer,
    ("batch", "total"),
    longest=96,  # 960 unrolled steps take over half a minute to convert
)
ONNX = Contender("export-lstm onnx", "onnx", build_own, open_own, own=True)
ONNX_FLOOR = Contender("ONNX LSTM op", "onnx", build_onnx, open_onnx_floor)
KERAS_ONNX = Contender("Keras onnx", "onnx", build_keras, open_peer)
SAVEDMODEL = Contender("export-lstm savedmodel", "savedmodel", build_own, open_own, own=True)
KERAS_SAVEDMODEL = Contender("Keras savedmodel", "savedmodel", build_keras, open_peer)
LIMIT = Contender("limit: products by BLAS", "", None, open_limit)
MASKED = Contender("export-lstm onnx, masked", "onnx", partial(build_own, kind="masked"), open_own, own=True)
LENGTHS = Contender("export-lstm onnx --lengths", "onnx", partial(build_own, kind="lengths"), open_own, own=True)
KERAS_MASKED = Contender("Keras onnx, masked", "onnx", partial(build_keras, kind="masked"), open_peer)
GRU = Contender("export-lstm onnx, GRU", "onnx", partial(build_own, kind="gru"), open_own, own=True)
KERAS_GRU = Contender("Keras onnx, GRU", "onnx", partial(build_keras, kind="gru"), open_peer)

COMPARED = {
    "lstm": (
        TFLITE,
        TFLITE_FIXED,
        FUSED,
        KERAS_TFLITE,
        KERAS_UNROLLED,
        ONNX,
        ONNX_FLOOR,
        KERAS_ONNX,
        SAVEDMODEL,
        KERAS_SAVEDMODEL,
        LIMIT,
    ),
    "step": (TFLITE_STEP, TFLITE, FUSED, ONNX, SAVEDMODEL, C_STEP, LIMIT),
    "masked": (MASKED, LENGTHS, KERAS_MASKED, ONNX_FLOOR),
    "gru": (GRU, KERAS_GRU),
    "gru_step": (TFLITE_GRU_STEP, C_GRU_STEP),
}
"""What is compared with what: all of a comparison give the same numbers."""

RUNTIME = {
    "tflite": "ai_edge_litert.interpreter",
    "onnx": "onnxruntime",
    "savedmodel": "tensorflow",
    "c": "ctypes",
    "": "numpy",
}


def built(contender: Contender, problem: Problem, path: Path) -> tuple[None, None]:
    """Build a contender's file, for a worker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert contender.build is not None
    contender.build(problem, path)
    return None, None


def imported(contender: Contender) -> tuple[None, None]:
    """Import a contender's runtime, for a worker."""
    importlib.import_module(RUNTIME[contender.target])
    return None, None
