"""Importing costs nothing heavy, and an artifact runs where TensorFlow and Keras are not installed."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from signatures import Carry, Contract, Port, Signature
from signatures.contract import ArtifactInfo

HEAVY = {"tensorflow", "keras", "onnxruntime", "ai_edge_litert", "onnx", "tf2onnx", "h5py"}
FEATURES, UNITS = 3, 4


def python(code, *arguments):
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def packages_after(code):
    """Return the top-level packages that are imported once the code has run."""
    return {name.partition(".")[0] for name in python(f"{code}\nimport sys\nprint(*sys.modules)").split()}


def test_a_heavy_import_would_be_seen():
    assert "h5py" in packages_after("import h5py")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("signatures", HEAVY | {"click", "rich", "exporter"}),
        ("signatures.runtimes", HEAVY | {"click", "rich", "exporter"}),
        ("exporter", HEAVY),
        ("exporter.cli", HEAVY),
        ("exporter.bench", HEAVY),
    ],
)
def test_an_import_is_light(module, unwanted):
    packages = packages_after(f"import {module}")
    assert module.partition(".")[0] in packages
    assert not packages & unwanted


def lstm_file(path):
    """Write an LSTM of random weights as ONNX, with its contract, by no other means than onnx itself."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * UNITS, FEATURES), "R": (1, 4 * UNITS, UNITS), "B": (1, 8 * UNITS)}
    weights = [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    axes = [helper.make_tensor(f"axis{k}", TensorProto.INT64, [1], [k]) for k in (0, 1)]
    lstm = ["x_by_time", "W", "R", "B", "", "h0", "c0"]
    nodes = [
        helper.make_node("Transpose", ["x"], ["x_by_time"], perm=[1, 0, 2]),
        *(helper.make_node("Unsqueeze", [f"memory_{s}_in", "axis0"], [f"{s}0"]) for s in "hc"),
        helper.make_node("LSTM", lstm, ["y", "h1", "c1"], hidden_size=UNITS),
        helper.make_node("Squeeze", ["y", "axis1"], ["y_by_time"]),
        helper.make_node("Transpose", ["y_by_time"], ["memory_sequences"], perm=[1, 0, 2]),
        *(helper.make_node("Squeeze", [f"{s}1", "axis0"], [f"memory_{s}"]) for s in "hc"),
    ]
    state = ("batch", UNITS)
    inputs = (
        Port("x", "input", ("batch", "time", FEATURES), time_axis=1),
        Port("memory_h_in", "state", state),
        Port("memory_c_in", "state", state),
    )
    outputs = (
        Port("memory_sequences", "sequences", ("batch", "time", UNITS), time_axis=1),
        Port("memory_h", "state", state),
        Port("memory_c", "state", state),
    )
    carries = (Carry("memory_h", "memory_h_in"), Carry("memory_c", "memory_c_in"))
    sequence = Signature("sequence", inputs, outputs, carries)
    artifacts = {"onnx": ArtifactInfo(path.name)}
    contract = Contract(
        {"name": "tiny", "sha256": None},
        ("memory_sequences",),
        {"sequence": sequence},
        example={"time": 6},
        artifacts=artifacts,
    )

    def values(ports):
        return [helper.make_tensor_value_info(port.name, TensorProto.FLOAT, port.shape) for port in ports]

    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), [*weights, *axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"export-lstm.contract": contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


ON_A_DEVICE = """
import sys

for blocked in ("tensorflow", "keras", "tf2onnx", "onnx", "h5py", "exporter", "click", "rich"):
    sys.modules[blocked] = None

import numpy as np
import signatures

artifact = signatures.open(sys.argv[1])
x = np.random.default_rng(1).normal(size=(1, 10, 3)).astype(np.float32)
whole = artifact.stream().push(x)
stream = artifact.stream()
pieces = [stream.push(x[:, a:b]) for a, b in ((0, 1), (1, 7), (7, 10))]
together = np.concatenate([piece["memory_sequences"] for piece in pieces], axis=1)
np.testing.assert_allclose(together, whole["memory_sequences"], atol=1e-6)
np.testing.assert_allclose(stream.state["memory_c_in"], whole["memory_c"], atol=1e-6)
assert whole["memory_c"].any()
report = signatures.check(artifact)
assert report.ok, report.summary()
print(*sorted({diff.check for diff in report.diffs}))
"""


def test_an_artifact_is_opened_streamed_and_checked_without_tensorflow_and_keras(tmp_path):
    lstm_file(tmp_path / "tiny.onnx")
    assert python(ON_A_DEVICE, tmp_path / "tiny.onnx").split() == ["chunks", "repeat", "reset"]
