"""TFLM: the same numbers as LiteRT, C++ that compiles and carries the state, an arena of the size that is told."""

import re
import shutil
import subprocess
from dataclasses import replace

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import Input, layers

import signatures
from exporter import export, targets
from exporter.targets.tflite import graph as graphs
from exporter.targets.tflm import kernels, sources, tried
from signatures.errors import MissingRuntime, UnsupportedModel
from signatures.stream import Stream

F, STEPS = 5, 300
SCHEMES = {
    "float32": {},
    "int16x8": {"quantize": "int16x8"},
    "precise": {"quantize": "int16x8", "precise": True, "check": False},
}


def recording(seed):
    noise = np.random.default_rng(seed).normal(size=(STEPS + 4, F))
    x = sum(noise[k : k + STEPS] for k in range(4)).astype(np.float32) / 2
    x[40:44] = 0  # masked
    return x


def listener():
    """Masks, two recurrent layers, a convolution and a maximum."""
    x = Input((None, F), name="double")  # a word of C++
    h = layers.LSTM(12, return_sequences=True, name="low")(layers.Masking()(x))
    h = layers.LSTM(8, return_sequences=True, name="high")(h)
    y = layers.Conv1D(6, 3, padding="causal", activation="relu", name="conv")(x)
    joined = layers.Concatenate()([layers.GlobalMaxPooling1D(name="most")(y), layers.GlobalAveragePooling1D()(h)])
    return keras.Model(x, layers.Dense(3, "softmax", name="y")(joined))


@pytest.fixture(scope="module")
def made(tmp_path_factory, scramble):
    """Return scheme -> the folder's artifact, checked on delivery."""
    model = scramble(listener())
    model.set_weights([0.4 * w for w in model.get_weights()])
    folder = tmp_path_factory.mktemp("tflm")
    data = [recording(seed) for seed in range(6)]
    return {
        scheme: export(
            model, "tflm", folder / f"{scheme}_tflm", **options, **({"calibration": data} if options else {})
        )[0]
        for scheme, options in SCHEMES.items()
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_folder_is_checked_in_its_own_runtime(scheme, made):
    artifact = made[scheme]
    runner = signatures.open(artifact.path)
    assert (runner.target, list(runner.contract.signatures)) == ("tflm", ["step"])
    assert signatures.check(runner).ok
    assert scheme == "precise" or artifact.parity.ok
    assert scheme != "int16x8" or artifact.quality.worst.sqnr > 34
    assert {file.name for file in artifact.path.iterdir()} == {
        "export-lstm.tflite",
        "main.cc",
        f"{scheme}.h",
        f"{scheme}_model.cc",
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_litert_gives_the_same(scheme, made):
    """Bit for bit where all products are of int16."""
    artifact = made[scheme]
    lite = Interpreter(model_path=str(artifact.path / "export-lstm.tflite")).get_signature_runner("step")
    contract = artifact.contract
    streams = [
        Stream(contract, {"batch": 1}, run, quantized=True)
        for run in (lambda _, feeds: dict(lite(**feeds)), signatures.open(artifact.path).run)
    ]
    litert, tflm = (stream.push(recording(9)[None]) for stream in streams)
    for name, expected in litert.items():
        if scheme == "precise":
            np.testing.assert_array_equal(tflm[name], expected)
        elif expected.dtype.kind == "f":
            np.testing.assert_allclose(tflm[name], expected, atol=2e-3 if scheme == "int16x8" else 1e-5)
        else:
            assert np.abs(tflm[name].astype(int) - expected).max() < 300, name


def test_ops_are_those_that_tflm_has(made):
    ops = made["float32"].ops
    assert "REDUCE_ANY" not in ops
    assert ops["SELECT_V2"] == 5  # h and c of two layers, and what the mean sees: not the masked input once more
    assert not made["int16x8"].ops["REDUCE_MAX"] > 1  # of one row that is the row
    assert made["precise"].ops["BATCH_MATMUL"] == 5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_arena_that_is_told_is_what_it_takes(scheme, made):
    path = made[scheme].path
    content = (path / "export-lstm.tflite").read_bytes()
    [told] = map(int, re.findall(r"kArenaBytes = (\d+);", (path / f"{scheme}.h").read_text()))
    inputs = len(made[scheme].contract.signatures["step"].inputs)
    assert tried._ran(content, told, inputs)[0] == 0
    assert tried._ran(content, int(told * 0.95), inputs)[0] != 0


def test_the_header_tells_scales_and_places(made):
    artifact = made["int16x8"]
    text = (artifact.path / "int16x8.h").read_text()
    order = artifact.contract.artifacts["tflm"].tensors["step"]
    for side, get in (("inputs", "input"), ("outputs", "output")):
        for place, name in enumerate(order[side]):
            port = artifact.contract.signatures["step"].ports[name]
            words = "".join(part.capitalize() for part in name.split("_"))
            [found] = re.findall(rf"constexpr Tensor k{words}\{{(\d+), (\d+), ([\d.e-]+)f, (-?\d+)\}};", text)
            assert int(found[0]) == place
            assert float(found[2]) == (port.scale or 0)
            assert f"interpreter.{get}({place})->data.data" in text


FAKE = """
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteTensor { struct { void* data; } data; };
namespace tflite {
struct Model {};
inline const Model* GetModel(const void*) { static Model model; return &model; }
template <unsigned int N> struct MicroMutableOpResolver {
  unsigned int count = 0;
  TfLiteStatus Add() { return ++count <= N ? kTfLiteOk : kTfLiteError; }
METHODS
};
// Adds 1 to what is carried, and uses the memory of its inputs for something else, as the real one does.
class MicroInterpreter {
 public:
  template <class R> MicroInterpreter(const Model*, const R&, void*, std::size_t) {}
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteTensor* input(int k) { return &in[k]; }
  TfLiteTensor* output(int k) { return &out[k]; }
  TfLiteStatus Invoke() {
    for (auto& carry : carries) {
      int16_t value;
      std::memcpy(&value, memory[carry[1]], sizeof value);
      ++value;
      std::memcpy(memory[64 + carry[0]], &value, sizeof value);
    }
    for (int k = 0; k < 64; ++k) std::memset(memory[k], 0x5a, sizeof memory[k]);
    return kTfLiteOk;
  }
  MicroInterpreter() { for (int k = 0; k < 64; ++k) in[k].data.data = memory[k], out[k].data.data = memory[64 + k]; }
  std::vector<std::vector<int>> carries;
 private:
  char memory[128][8192];
  TfLiteTensor in[64], out[64];
};
}
"""


def compiled(folder, place, main):
    """Compile a program beside headers that stand in for TFLM's; return it."""
    if not shutil.which("g++"):
        pytest.skip("there is no g++")
    ops = sorted({op for text in folder.glob("*.h") for op in re.findall(r"resolver\.(\w+)\(\)", text.read_text())})
    methods = "\n".join(f"  TfLiteStatus {op}() {{ return Add(); }}" for op in ops)
    for header in ("micro/micro_interpreter.h", "micro/micro_mutable_op_resolver.h", "schema/schema_generated.h"):
        file = place / "tensorflow" / "lite" / header
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            FAKE.replace("METHODS", methods) if "interpreter" in header else '#include "../micro/micro_interpreter.h"\n'
        )
    [array] = folder.glob("*_model.cc")
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", str(place), "-I", str(folder)]
    ran = subprocess.run([*command, str(main), str(array), "-o", str(place / "a.out")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return place / "a.out"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_program_compiles_without_a_warning(scheme, made, tmp_path):
    compiled(made[scheme].path, tmp_path, made[scheme].path / "main.cc")


def test_names_are_apart_and_an_output_may_be_a_state(tmp_path):
    x = keras.Input((None, 3), name="x")
    h = layers.GRU(4, return_sequences=True, name="gru")(x)
    outputs = [layers.Dense(2, name=name)(h) for name in ("dense_1", "dense1", "model", "ops")]
    model = keras.Model(x, [*outputs, layers.GlobalMaxPooling1D(name="most")(h)])
    [artifact] = export(model, "tflm", f"{tmp_path}/index_tflm")
    assert artifact.parity.ok
    assert "most" in artifact.contract.outputs
    compiled(artifact.path, tmp_path, artifact.path / "main.cc")


def test_the_state_is_carried_and_nothing_else_is_relied_on(made, tmp_path):
    artifact = made["precise"]
    order = artifact.contract.artifacts["tflm"].tensors["step"]
    step = artifact.contract.signatures["step"]
    carried = [c for c in step.carries if step.ports[c.input].dtype == "int16"]
    carries = ", ".join(f"{{{order['outputs'].index(c.output)}, {order['inputs'].index(c.input)}}}" for c in carried)
    checks = " || ".join(
        f"state.{c.input}[0] != {step.ports[c.input].at_start({'batch': 1}).ravel()[0] + 7}" for c in carried
    )
    (tmp_path / "main.cc").write_text(
        '#include "precise.h"\nint main() { static tflite::MicroInterpreter interpreter;\n'
        f"  interpreter.carries = {{{carries}}};\n"
        "  static precise::Inputs inputs; static precise::State state; static precise::Outputs outputs;\n"
        "  precise::Reset(state);\n"
        "  for (int k = 0; k < 7; ++k) if (precise::Step(interpreter, inputs, state, outputs) != kTfLiteOk) return 2;\n"
        f"  return {checks}; }}\n"
    )
    program = compiled(artifact.path, tmp_path, tmp_path / "main.cc")
    assert subprocess.run([program], check=False).returncode == 0


def test_the_array_is_the_model(made, tmp_path):
    path = made["int16x8"].path
    found = re.findall(r"0x([0-9a-f]{2})", (path / "int16x8_model.cc").read_text())
    assert bytes.fromhex("".join(found)) == (path / "export-lstm.tflite").read_bytes()


@pytest.mark.parametrize(
    ("op", "method"),
    [("FULLY_CONNECTED", "AddFullyConnected"), ("CONV_2D", "AddConv2D"), ("SELECT_V2", "AddSelectV2"),
     ("PADV2", "AddPadV2"), ("BATCH_MATMUL", "AddBatchMatMul"), ("RELU6", "AddRelu6"),
     ("GATHER_ND", "AddGatherNd"), ("CUMSUM", "AddCumSum")],
)  # fmt: skip
def test_ops_are_called_as_resolvers_call_them(op, method):
    assert sources.method(op) == method


def test_names_are_those_that_cpp_takes():
    assert [sources.namespace(stem) for stem in ("model", "2.1 Small-Model", "class")] == [
        "model",
        "model_2_1_small_model",
        "class_",
    ]


def test_an_op_without_a_kernel_is_named(tmp_path):
    x, y = graphs.Tensor((1, 4), "int16", scale=0.1), graphs.Tensor((1, 2), "int16", scale=0.1)
    at = graphs.Tensor((2,), "int32")
    gather = graphs.Op("GATHER", [x, at], [y], schema.GatherOptionsT(axis=1), 4)
    with pytest.raises(
        UnsupportedModel, match=r"TFLM has no kernel for GATHER of the model: Type 'INT16' is not supported"
    ):
        tried.arena(graphs.written(graphs.Graph({"x": x, "at": at}, {"y": y}, [gather]), "step"))


def test_rows_and_remainders_are_spelled_in_kernels_it_has():
    x = graphs.Tensor((1, 6, 2), "float32")
    rows, left, least = (
        graphs.Tensor((1, 1, 3, 2), "float32"),
        graphs.Tensor((1,), "int32"),
        graphs.Tensor((1, 2), "float32"),
    )
    at, one = graphs.Tensor((1,), "int32"), graphs.Tensor((1, 1, 2), "float32")
    ops = [
        graphs.Op("GATHER", [x, graphs.constant([[2, 3, 4]], "int32")], [rows], schema.GatherOptionsT(axis=1)),
        graphs.Op("FLOOR_MOD", [at, graphs.constant(5, "int32")], [left]),
        graphs.Op("REDUCE_MIN", [one, graphs.constant([1], "int32")], [least], schema.ReducerOptionsT()),
    ]
    spelled = kernels.spelled(
        graphs.Graph({"x": x, "at": at, "one": one}, {"rows": rows, "left": left, "least": least}, ops)
    )
    assert {op.kind for op in spelled.ops} == {"SLICE", "RESHAPE", "DIV", "MUL", "SUB"}
    content = graphs.written(spelled, "step")
    assert tried.arena(content) > 0
    feeds = {
        "x": np.arange(12, dtype=np.float32).reshape(1, 6, 2),
        "at": np.int32([13]),
        "one": np.float32([[[7, -2]]]),
    }
    got = Interpreter(model_content=content).get_signature_runner("step")(**feeds)
    np.testing.assert_array_equal(got["rows"][0, 0], feeds["x"][0, 2:5])
    assert got["left"] == 3
    np.testing.assert_array_equal(got["least"], [[7, -2]])


def test_without_its_package_one_sentence_says_so(monkeypatch, tmp_path):
    there = replace(targets.TARGETS["tflm"], extra="no-such-package")
    monkeypatch.setitem(targets.TARGETS, "tflm", there)
    told = r"takes no-such-package, which isn't installed.\n  Install it: pip install 'export-lstm\[tflm\]'"
    with pytest.raises(MissingRuntime, match=told):
        export(listener(), "tflm", f"{tmp_path}/")
    assert "tflm" not in targets.for_all()
