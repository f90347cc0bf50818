"""A target is a folder and a line, a runtime a module and a line."""

import keras
import pytest
from keras import layers

import signatures
from exporter import export, targets
from exporter.request import named_targets
from signatures import runtimes

FACTS = "from exporter.targets.onnx.facts import graphs, plan\n"
WRITE = "from exporter.targets.onnx.write import SPELLINGS, faults, ops, write\n"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Add a target: ONNX by another name."""
    folder = tmp_path / "targets" / "toy"
    folder.mkdir(parents=True)
    for name, text in {"__init__": "", "facts": FACTS, "write": WRITE}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(targets, "__path__", [*targets.__path__, str(folder.parent)])
    monkeypatch.setitem(targets.TARGETS, "toy", targets.Target("toy", ".toy", ("onnx",), ("float32",), 1))
    monkeypatch.setitem(runtimes.RUNTIMES, "toys", runtimes.Runtime("toys", "toy", ".toy", "onnxruntime", "ort"))


def test_a_target_is_a_folder_and_a_line(toy, tmp_path):
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, layers.LSTM(4, return_sequences=True)(x))
    [made] = export(model, "toy", tmp_path / "m.toy")
    assert made.parity.ok
    assert made.ops["LSTM"] == 1
    runner = signatures.open(made.path)
    assert (runner.target, runner.dims, list(made.contract.artifacts)) == ("toy", {"batch": 1}, ["toy"])
    assert [target.name for target in named_targets("all")] == ["tflite", "onnx", "savedmodel", "toy"]


def test_every_runtime_reads_a_target_and_every_target_has_one():
    assert {runtime.reads for runtime in runtimes.RUNTIMES.values()} == set(targets.TARGETS)
    for name, target in targets.TARGETS.items():
        runtime = runtimes.own(name)
        assert (runtime.suffix, bool(runtime.marker)) == (("", True) if target.folder else (target.suffix, False))


def test_all_is_what_any_machine_with_our_packages_can_check():
    assert targets.for_all() == ("tflite", "onnx", "savedmodel")
    assert [target.name for target in named_targets(["c", "all"])] == ["c", "tflite", "onnx", "savedmodel"]


def test_a_runtime_that_reads_other_files_is_refused(exported):
    path = exported("one_layer")["onnx"].path
    assert signatures.open(path, runtime="onnxruntime", threads=2).target == "onnx"
    with pytest.raises(signatures.errors.ArtifactError, match="'litert' doesn't read onnx; onnxruntime does"):
        signatures.open(path, runtime="litert")
