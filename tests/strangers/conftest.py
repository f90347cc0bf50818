"""What strangers send: files that look like models, with a payload that leaves a marker if it ever runs."""

import base64
import io
import json
import marshal
import resource
import time
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from exporter.loading import load, require_keras
from signatures.errors import ExportLSTMError, LoadError, UnsafeModel

SECONDS = 1.0
"""Of the processor, for a refusal; importing Keras and TensorFlow takes some 4 of the 5 that it may take in all."""
BYTES = 400 << 20
"""Beyond what the process holds already; Keras and TensorFlow hold 600 MB."""
KINDS = (".keras", ".h5", "old.h5")
"""A file of Keras 3, an HDF5 file of Keras 3 and one of Keras 2."""


def peak():
    """Return the most bytes that this process has held since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


@contextmanager
def within_budget(seconds=SECONDS, most=BYTES):
    """Hold what runs inside to its time and memory, and stop it where it would take all there is."""
    require_keras()
    before, start = forget_peak(), time.process_time()
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    virtual = 1024 * int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
    resource.setrlimit(resource.RLIMIT_DATA, (virtual + 8 * most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    took, held = time.process_time() - start, peak() - before
    assert took < seconds, f"{took:.1f} s"
    assert held < most, f"{held >> 20} MB"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A small honest model in each kind of file: its configuration, and what else the file needs."""
    keras = require_keras()
    folder = tmp_path_factory.mktemp("base")
    layers = [keras.Input((None, 3)), keras.layers.LSTM(4, name="memory"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential(layers, name="tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras 3.15 trips over NumPy 2, and would rather have no .h5
        model.save(folder / "model.keras")
        model.save(folder / "model.h5")
    with zipfile.ZipFile(folder / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with h5py.File(folder / "model.h5") as file:
        h5_config = file.attrs["model_config"]
    return SimpleNamespace(folder=folder, members=members, h5_config=h5_config)


@pytest.fixture
def make(base, tmp_path):
    """Write the honest model with its configuration or its HDF5 content changed; return the path."""

    def made(kind, change_config=None, change_hdf5=None, text=None):
        path = tmp_path / f"model{kind}"
        config = json.loads(base.members["config.json"] if kind == ".keras" else base.h5_config)
        if change_config:
            config = change_config(config) or config
        weights = io.BytesIO(base.members["model.weights.h5"]) if kind == ".keras" else path
        if kind != ".keras":
            path.write_bytes((base.folder / "model.h5").read_bytes())
        with h5py.File(weights, "r+") as file:
            if change_hdf5:
                change_hdf5(file)
            if kind != ".keras":
                file.attrs["model_config"] = json.dumps(config) if text is None else text
                file.attrs["keras_version"] = "2.15.0" if kind == "old.h5" else "3.15.1"
        if kind == ".keras":
            text = json.dumps(config) if text is None else text
            write_archive(path, {**base.members, "config.json": text, "model.weights.h5": weights.getvalue()})
        return path

    return made


def write_archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def payload(tmp_path):
    """A function that leaves a marker when it runs, as Keras writes functions, and a Lambda layer of it."""
    marker = tmp_path / "marker"
    code = eval(f"lambda x: open({str(marker)!r}, 'w').close() or x").__code__
    config = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}
    function = {"class_name": "__lambda__", "config": config}
    options = {"name": "twice", "function": function, "output_shape": [None, 3], "trainable": True, "arguments": {}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": options, "registered_name": None}
    return SimpleNamespace(marker=marker, function=function, layer=layer)


@pytest.fixture
def refused(tmp_path):
    """Load a file within the budget and return why it is refused: one sentence, no marker, no bug."""

    def message(path, kind=(LoadError, UnsafeModel), opener=load):
        with within_budget(), pytest.raises(ExportLSTMError) as caught:
            opener(path)
        text = str(caught.value)
        assert isinstance(caught.value, kind), text
        assert not (tmp_path / "marker").exists()
        assert "\n" not in text
        for never in ("Traceback", "This is a bug"):
            assert never not in text
        return text.replace(str(path), "")

    return message
