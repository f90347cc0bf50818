"""Files saved by tf-keras, exported: each artifact gives what tf-keras itself predicted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import signatures
from exporter import export

FILES = Path(__file__).parent / "exporter" / "read" / "legacy"
# Every kind of file in one runtime; the ones with most in them in all.
TARGETS = {file.stem: "onnx" for file in sorted(FILES.glob("*.h5"))} | {"text": "all", "stacked": "all"}


@pytest.mark.parametrize("name", TARGETS)
def test_an_old_file_gives_what_it_gave(name, tmp_path):
    with np.load(FILES / f"{name}.npz") as data:
        inputs, expected = ([data[key] for key in sorted(data.files) if key[0] == letter] for letter in "xy")
    assert inputs
    assert expected
    for artifact in export(FILES / f"{name}.h5", TARGETS[name], f"{tmp_path}/", batch="any"):
        runner = signatures.open(artifact.path)
        signature = runner.contract.signatures["sequence"]
        own = [port for port in signature.inputs if port.role == "input"]
        feeds = {port.name: value.astype(port.dtype) for port, value in zip(own, inputs, strict=True)}
        outputs = runner.run("sequence", {**feeds, **signature.initial_state(len(inputs[0]))})
        for port, want in zip(runner.contract.outputs, expected, strict=True):
            np.testing.assert_allclose(outputs[port], want, atol=1e-5, rtol=1e-5)


def test_what_is_expected_is_what_tf_keras_predicts():
    """In a process of its own: tf-keras and Keras 3 share TensorFlow's state."""
    script = """
import pathlib, sys
import numpy as np
import tf_keras

for file in sorted(pathlib.Path(sys.argv[1]).glob("*.h5")):
    model = tf_keras.models.load_model(file, compile=False)
    model.run_eagerly = True  # a graph that runs once costs more than it saves
    model.reset_states()
    with np.load(file.with_suffix(".npz")) as data:
        inputs, expected = ([data[key] for key in sorted(data.files) if key[0] == letter] for letter in "xy")
    outputs = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    for got, want in zip(outputs if isinstance(outputs, list) else [outputs], expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6, err_msg=file.stem)
    print(file.stem)
"""
    done = subprocess.run([sys.executable, "-c", script, FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(file.stem for file in FILES.glob("*.h5"))


def test_the_old_hard_sigmoid_keeps_its_slope(tmp_path):
    """clip(0.2 x + 0.5): Keras 3's own would be off by far more than any tolerance."""
    import onnx

    [artifact] = export(FILES / "stacked.h5", "onnx", f"{tmp_path}/", check=False)
    nodes = [node for node in onnx.load(artifact.path).graph.node if node.op_type == "LSTM"]
    slopes = [a.floats[0] for node in nodes for a in node.attribute if a.name == "activation_alpha"]
    assert slopes
    np.testing.assert_allclose(slopes, 0.2, rtol=1e-6)
