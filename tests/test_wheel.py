"""The wheel: what it holds, and that an artifact opens, streams and checks where TensorFlow and Keras don't exist."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What `pip install --no-deps` of the wheel, then `pip install numpy click rich RUNTIME` brings.
COMMON = ("numpy", "numpy.libs", "click", "rich", "markdown_it", "mdurl", "pygments")
RUNTIME = {
    "tflite": ("ai_edge_litert", "flatbuffers", "google", "ml_dtypes", "tqdm", "typing_extensions.py", "backports"),
    "onnx": ("onnxruntime", "flatbuffers", "google", "packaging"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_both_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"exporter", "signatures"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert sum("/py.typed" in name for name in names) == 2


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_without_tensorflow(target, wheel, tmp_path, exported, golden_folder):
    """In an environment made of just those packages: a stream, a parity check and the command line."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    packages = Path(importlib.util.find_spec("numpy").origin).parent.parent
    for name in (*COMMON, *RUNTIME[target]):
        if (packages / name).exists():
            (site / name).symlink_to(packages / name)
    artifact = exported("masked")[target].path
    program = f"""
import importlib.util, json, sys
sys.path.insert(0, {str(site)!r})
assert not any(importlib.util.find_spec(name) for name in ("tensorflow", "keras", "tf2onnx", "h5py"))
import numpy as np, signatures
runner = signatures.open({str(artifact)!r})
stream = runner.stream()
shape = stream.push(np.ones((1, 3, 4), np.float32))["low_sequences"].shape
stream.push(np.ones((1, 1, 4), np.float32))
report = signatures.check(runner, signatures.Case.load({str(golden_folder / "masked")!r}))
from exporter.cli import main
code = 0
try:
    main(["check", {str(artifact)!r}], prog_name="export-lstm")
except SystemExit as exit:
    code = exit.code
print(json.dumps([shape, report.ok, len(report.diffs), code, sorted(stream.state)]))
"""
    # -I and -S: no user site, no site-packages, no environment variables; only what is linked above.
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": ""}
    script = tmp_path / "program.py"
    script.write_text(f"if __name__ == '__main__':\n    exec({program!r})\n")
    done = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    shape, ok, compared, code, state = json.loads(done.stdout.splitlines()[-1])
    assert shape == [1, 3, 5]
    assert ok
    assert compared > 100
    assert code in (0, None)
    assert state == ["high_c_in", "high_h_in", "low_c_in", "low_h_in"]
