"""What strangers send: files that look like models, with a payload that leaves a marker if it ever runs.

Published holes of Keras, ONNX and TFLite, and where relatives of them are tried:

code in a configuration      CVE-2024-3660, 2025-1550, 2025-8747, 2025-9906, 2025-49655, 2026-1462    test_code.py
the same in HDF5             CVE-2025-9905                                       test_code.py, the kinds .h5 and old.h5
a guard that is lost         CVE-2026-12481                                      test_code.py, models in models
files by path or address     CVE-2025-12058, 2025-12060                          test_code.py
names that are paths         GHSA-hqp4-2352-xf5r, CVE-2026-12479                 test_code.py; test_files.py, archives
HDF5 that lies elsewhere     CVE-2026-1669, 2026-12480, GHSA-27f4-p4xq-cxg8      test_files.py
bombs                        CVE-2026-0897                                       test_files.py
ONNX that lies elsewhere     CVE-2025-51480, 2026-27489, 2026-34446, 2026-34447  test_artifacts.py
damaged flatbuffers          CVE-2021-37688, 2021-37689                          test_artifacts.py
"""

import base64
import io
import json
import marshal
import os
import resource
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from exporter.read import loading
from exporter.read.loading import load, require_keras
from signatures.errors import ExportLSTMError, LoadError, UnsafeModel

SECONDS = 1.0
"""Of the processor, for a refusal; importing Keras and TensorFlow takes some 4 of the 5 that it may take in all."""
BYTES = 400 << 20
"""Beyond what the process holds already; Keras and TensorFlow hold 600 MB."""
KINDS = (".keras", ".h5", "old.h5")
"""A file of Keras 3, an HDF5 file of Keras 3 and one of Keras 2."""


def processes():
    """Return this process and the one that reads files before it."""
    lookout = loading._LOOKOUT._child
    return [os.getpid(), *([lookout._process.pid] if lookout else [])]


def peak():
    """Return the most bytes that these processes have held, each since `forget_peak`."""
    status = [Path(f"/proc/{pid}/status").read_text() for pid in processes()]
    return sum(1024 * int(each.split("VmHWM:")[1].split()[0]) for each in status)


def forget_peak():
    for pid in processes():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak()


def seconds_taken():
    """Return the processor's time that these processes have taken."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in processes()]
    return sum(int(each[11]) + int(each[12]) for each in stats) / os.sysconf("SC_CLK_TCK")


@contextmanager
def within_budget(seconds=SECONDS, most=BYTES):
    """Hold what runs inside to its time and memory, and stop it where it would take all there is."""
    require_keras()
    loading._LOOKOUT.start()
    before, start = forget_peak(), seconds_taken()
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    virtual = 1024 * int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
    resource.setrlimit(resource.RLIMIT_DATA, (virtual + 8 * most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    took, held = seconds_taken() - start, peak() - before
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
