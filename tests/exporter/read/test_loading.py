"""Good files load and predict the same; every kind of bad file is refused in a sentence that says why."""

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from exporter.read import loading
from exporter.read.loading import load, require_keras
from signatures.errors import LoadError, UnsafeModel

FRAMES = np.linspace(-1, 1, 2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)


@pytest.fixture(scope="module")
def keras():
    return require_keras()


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    """One trained-looking LSTM model, saved as model.keras and model.h5, and what it predicts."""
    layers = [keras.Input((None, 3)), keras.layers.LSTM(4, name="memory"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential(layers, name="tiny")
    model.compile("adam", "mse")
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    return SimpleNamespace(folder=folder, outputs=model(FRAMES).numpy())


@pytest.fixture
def tamper(saved, tmp_path):
    """Copy the saved model with its configuration or its HDF5 content changed in place."""

    def tampered(suffix, change_config=None, change_hdf5=None):
        path = tmp_path / f"model{suffix}"
        if suffix == ".keras":
            members = read_members(saved.folder / "model.keras")
            config = json.loads(members["config.json"])
            weights = io.BytesIO(members["model.weights.h5"])
        else:
            shutil.copy(saved.folder / "model.h5", path)
            weights = path
        with h5py.File(weights, "r+") as file:
            if suffix != ".keras":
                config = json.loads(file.attrs["model_config"])
            if change_config:
                change_config(config)
            if change_hdf5:
                change_hdf5(file)
            if suffix != ".keras":
                file.attrs["model_config"] = json.dumps(config)
        if suffix == ".keras":
            new = {"config.json": json.dumps(config), "model.weights.h5": weights.getvalue()}
            write_members(path, {**members, **new})
        return path

    return tampered


def read_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refusal(path, error=LoadError):
    """Return the one-line message of the refusal without the path, after checking its class."""
    with pytest.raises(LoadError) as caught:
        load(path)
    message = str(caught.value)
    assert type(caught.value) is error, message
    assert "\n" not in message
    assert "Traceback" not in message
    assert str(path) in message
    return message.replace(str(path), "")


def set_memory(**changes):
    """Make a change of the LSTM layer's entry in a configuration."""

    def change(config):
        entry = next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == "memory")
        inner = changes.get("config", {})
        entry.update({**changes, "config": {**entry["config"], **inner} if isinstance(inner, dict) else inner})

    return change


class TestGoodFiles:
    @pytest.mark.parametrize("name", ["model.keras", "model.h5"])
    def test_predicts_the_same(self, saved, name):
        loaded = load(str(saved.folder / name))
        np.testing.assert_allclose(loaded.model(FRAMES).numpy(), saved.outputs, atol=1e-6)
        assert loaded.name == "model"
        assert not loaded.model.compiled
        assert load(saved.folder / name).sha256 == loaded.sha256

    @pytest.mark.parametrize("name", ["model.keras", "model.h5"])
    def test_is_quiet_and_in_safe_mode(self, keras, saved, monkeypatch, name):
        real = keras.saving.load_model

        def noisy(*args, **kwargs):
            assert kwargs == {"compile": False, "safe_mode": True}
            warnings.warn("noise of Keras", stacklevel=1)
            return real(*args, **kwargs)

        monkeypatch.setattr(keras.saving, "load_model", noisy)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load(saved.folder / name)
        assert not caught

    def test_hdf5_suffix_and_hash(self, saved, tmp_path):
        path = shutil.copy(saved.folder / "model.h5", tmp_path / "a.b.hdf5")
        loaded = load(path)
        assert loaded.name == "a.b"
        assert loaded.sha256 == subprocess.check_output(["sha256sum", path], text=True).split()[0]

    @pytest.mark.parametrize("backend", ["jax", "torch"])
    def test_trained_on_another_backend(self, saved, tamper, backend):
        path = tamper(".h5", change_hdf5=lambda file: file.attrs.update(backend=backend))
        np.testing.assert_allclose(load(path).model(FRAMES).numpy(), saved.outputs, atol=1e-6)

    def test_custom_loss_of_the_training_does_not_matter(self, tamper):
        custom = {"module": "mine", "class_name": "Loss", "config": {}, "registered_name": "mine>Loss"}
        load(tamper(".keras", lambda config: config.update(compile_config={"loss": custom, "optimizer": "adam"})))

    def test_operations_wrappers_and_policies(self, keras, tmp_path):
        inputs = keras.Input((5, 3))
        x = keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True, kernel_regularizer="l2"))(inputs)
        x = keras.layers.RNN([keras.layers.LSTMCell(2)], return_sequences=True)(keras.ops.log(x * x + 1.0)[:, 1:])
        x = keras.layers.TimeDistributed(keras.layers.Dense(2, activation="relu", dtype="mixed_float16"))(x)
        keras.Model(inputs, x).save(tmp_path / "model.keras")
        assert load(tmp_path / "model.keras").model.output_shape == (None, 4, 2)

    def test_vocabulary_inside_the_model(self, keras, tmp_path):
        words = keras.Input((1,), dtype="string")
        lookup = keras.layers.StringLookup(vocabulary=["/etc/passwd", "https://example.org"])
        keras.Model(words, lookup(words)).save(tmp_path / "model.keras")
        load(tmp_path / "model.keras")


class TestCustomObjects:
    @pytest.fixture
    def registered(self, keras, tmp_path):
        """A saved model with a registered layer and activation; their registration ends with the test."""

        @keras.saving.register_keras_serializable("loading_test")
        class Double(keras.layers.Layer):
            def call(self, inputs):
                return 2 * inputs

        @keras.saving.register_keras_serializable("loading_test")
        def halve(inputs):
            return inputs / 2

        layers = [keras.Input((3,)), Double(name="twice"), keras.layers.Activation(halve, name="half")]
        model = keras.Sequential(layers)
        for suffix in (".keras", ".h5"):
            model.save(tmp_path / f"model{suffix}")
        registry = keras.saving.get_custom_objects()
        yield registry
        for name in [name for name in registry if name.startswith("loading_test>")]:
            del registry[name]

    @pytest.mark.usefixtures("registered")
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_loads_when_registered(self, tmp_path, suffix):
        model = load(tmp_path / f"model{suffix}").model
        np.testing.assert_allclose(model(FRAMES[0]).numpy(), FRAMES[0])

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize(("name", "layer"), [("Double", "twice"), ("halve", "half")])
    def test_refused_when_not_registered(self, registered, tmp_path, suffix, name, layer):
        del registered[f"loading_test>{name}"]
        message = refusal(tmp_path / f"model{suffix}", UnsafeModel)
        for words in (name, repr(layer), "custom_objects", "exporter.export(model"):
            assert words in message

    @pytest.mark.parametrize(
        "entry",
        [
            {"module": "evil.code", "class_name": "LSTM", "registered_name": "LSTM"},
            {"module": "kerasevil.layers", "class_name": "LSTM"},
            {"module": "keras.layers", "class_name": "LSTM", "registered_name": "evil>LSTM"},
            {"module": None, "class_name": "Mystery", "registered_name": "Mystery"},
            {"module": "keras.utils", "class_name": "get_file"},
            {"module": "keras.models", "class_name": "load_model"},
            {"module": "keras", "class_name": "utils.FeatureSpace"},
            {"module": "keras.utils", "class_name": "CustomObjectScope"},
            {"module": "keras.src.saving.saving_lib.zipfile", "class_name": "ZipFile"},
            {"module": "keras.applications", "class_name": "function", "config": "ResNet50"},
            {"module": "os", "class_name": "function", "config": "system"},
            {"module": "keras.applications", "class_name": "function", "config": "relu"},
            {"module": "builtins", "class_name": "function", "config": "eval"},
            {"class_name": ["LSTM"]},
            {"class_name": "LSTM", "module": 1},
        ],
    )
    def test_foreign_entries(self, tamper, entry):
        message = refusal(tamper(".keras", set_memory(**entry)), UnsafeModel)
        assert "not part of Keras" in message

    @pytest.mark.parametrize("name", ["TFOpLambda", "deserialize", "os.system"])
    def test_unknown_class_in_h5(self, tamper, name):
        message = refusal(tamper(".h5", set_memory(class_name=name)), UnsafeModel)
        assert name in message
        assert "'memory'" in message
        assert "save as .keras" in message


class TestCodeAndFiles:
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_lambda(self, keras, tmp_path, suffix):
        path = tmp_path / f"model{suffix}"
        keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x, name="twice")]).save(path)
        message = refusal(path, UnsafeModel)
        for words in ("'twice'", "Lambda", "keras.ops", "exporter.export(model"):
            assert words in message

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
    def test_wrapped_programs(self, tamper, suffix, name):
        message = refusal(tamper(suffix, set_memory(class_name=name)), UnsafeModel)
        assert name in message
        assert "run code" in message

    def test_code_layer_by_another_name(self, keras, tamper, monkeypatch):
        monkeypatch.setattr(keras.layers, "Innocent", keras.layers.Lambda, raising=False)
        assert "Innocent" in refusal(tamper(".keras", set_memory(class_name="Innocent")), UnsafeModel)

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_bytecode(self, tamper, suffix):
        bytecode = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
        message = refusal(tamper(suffix, set_memory(config={"activation": bytecode})), UnsafeModel)
        assert "holds the bytecode" in message
        assert "'memory'" in message

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize(
        ("key", "value"), [("vocabulary", "/etc/passwd"), ("url", "x"), ("anything", "https://example.org/x")]
    )
    def test_paths_and_addresses(self, tamper, suffix, key, value):
        message = refusal(tamper(suffix, set_memory(config={key: value})), UnsafeModel)
        assert key in message
        assert value in message
        assert "'memory'" in message


def link_external(file):
    file["stolen"] = h5py.ExternalLink("/etc/hostname", "/x")


def link_soft(file):
    file.create_group("a")["b"] = h5py.SoftLink("/elsewhere")


def store_externally(file):
    file.create_dataset("a/stolen", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def make_virtual(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("stolen", layout)


class TestHDF5:
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (link_external, "/stolen is a ExternalLink"),
            (link_soft, "/a/b is a SoftLink"),
            (store_externally, "/a/stolen is external storage"),
            (make_virtual, "/stolen is a virtual dataset"),
        ],
    )
    def test_data_elsewhere(self, tamper, suffix, change, words):
        assert words in refusal(tamper(suffix, change_hdf5=change), UnsafeModel)

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize(
        ("shape", "words"),
        [((2**40,), "at most 4,294,967,296"), ((2**20,) * 4, "at most 4,294,967,296"), ((2**28,), "stores 0")],
    )
    def test_shape_bomb(self, tamper, suffix, shape, words):
        def swell(file):
            file.create_dataset("big", shape, "u1", chunks=(8,) * len(shape))

        message = refusal(tamper(suffix, change_hdf5=swell))
        assert "/big" in message
        assert words in message

    def test_datasets_too_large_together(self, tamper):
        def swell(file):
            for number in range(50):
                file.create_dataset(f"big{number}", (loading.EXPANSION_FLOOR,), "u1", chunks=(1024,))

        assert "the weights declares" in refusal(tamper(".h5", change_hdf5=swell))

    def test_group_in_itself_ends(self, tamper):
        load(tamper(".h5", change_hdf5=lambda file: file.__setitem__("again", file["/"])))


class TestArchive:
    @pytest.mark.parametrize("name", ["/etc/x", "../x", "assets/../../x", "assets\\..\\x", "C:/x"])
    def test_member_outside(self, saved, tmp_path, name):
        path = write_members(tmp_path / "m.keras", {**read_members(saved.folder / "model.keras"), name: "x"})
        assert "outside the archive" in refusal(path, UnsafeModel)

    def test_member_twice(self, saved, tmp_path):
        path = shutil.copy(saved.folder / "model.keras", tmp_path)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("config.json", "{}")
        assert "two members" in refusal(path)

    def test_bomb(self, saved, tmp_path):
        path = shutil.copy(saved.folder / "model.keras", tmp_path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("assets/zeros", bytes(loading.EXPANSION_FLOOR + 1))
        message = refusal(path)
        assert "'assets/zeros'" in message
        assert "exhaust memory" in message

    def test_members_too_large_together(self, saved, tmp_path, monkeypatch):
        path = shutil.copy(saved.folder / "model.keras", tmp_path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            for number in range(3):
                archive.writestr(f"assets/{number}", bytes(50_000))
        monkeypatch.setattr(loading, "MAX_BYTES", 100_000)
        assert "the archive declares 1" in refusal(path)

    def test_file_too_large(self, saved, monkeypatch):
        monkeypatch.setattr(loading, "MAX_BYTES", 1000)
        assert "at most 1,000 are accepted" in refusal(saved.folder / "model.h5")

    @pytest.mark.parametrize(
        ("missing", "words"),
        [("config.json", "only weights, no architecture"), ("model.weights.h5", "no model.weights.h5")],
    )
    def test_member_missing(self, saved, tmp_path, missing, words):
        members = read_members(saved.folder / "model.keras")
        del members[missing]
        assert words in refusal(write_members(tmp_path / "m.keras", members))

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ("{", "can't be read"),
            (b"\xff\xfe\xfd", "can't be read"),
            ("[" * 100_000, "can't be read"),
            ("[]", "describes no Keras model"),
            ('{"class_name": "Sequential"}', "describes no Keras model"),
        ],
    )
    def test_bad_config(self, saved, tmp_path, config, words):
        members = {**read_members(saved.folder / "model.keras"), "config.json": config}
        assert words in refusal(write_members(tmp_path / "m.keras", members))

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_config_too_large(self, saved, monkeypatch, suffix):
        monkeypatch.setattr(loading, "MAX_CONFIG_BYTES", 100)
        message = refusal(saved.folder / f"model{suffix}")
        assert "100 bytes" in message
        assert "config.json" in message or suffix == ".h5"

    def test_weights_that_are_not_hdf5(self, saved, tmp_path):
        members = {**read_members(saved.folder / "model.keras"), "model.weights.h5": b"nonsense"}
        assert "model.weights.h5 can't be read" in refusal(write_members(tmp_path / "m.keras", members))

    def test_flipped_byte(self, saved, tmp_path):
        content = bytearray((saved.folder / "model.keras").read_bytes())
        content[content.index(b'"Sequential"') + 1] ^= 1
        (path := tmp_path / "m.keras").write_bytes(content)
        assert "damaged" in refusal(path)


class TestPath:
    def test_missing(self, tmp_path):
        assert "does not exist" in refusal(tmp_path / "model.keras")

    def test_savedmodel_folder(self, tmp_path):
        (tmp_path / "saved_model.pb").touch()
        assert "SavedModel folder; the export needs the original .keras" in refusal(tmp_path)

    def test_other_folder(self, tmp_path):
        message = refusal(tmp_path)
        assert "is a folder" in message
        assert ".keras" in message

    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "model.keras")
        assert "it is a named pipe, not a file" in refusal(tmp_path / "model.keras")

    def test_empty(self, tmp_path):
        (path := tmp_path / "model.keras").touch()
        assert "is empty" in refusal(path)

    @pytest.mark.parametrize("name", ["model.onnx", "model", "model.KERAS"])
    def test_suffix(self, saved, tmp_path, name):
        message = refusal(shutil.copy(saved.folder / "model.keras", tmp_path / name))
        assert ".keras, .h5, .hdf5" in message
        assert repr(Path(name).suffix) in message

    def test_hdf5_named_keras(self, saved, tmp_path):
        message = refusal(shutil.copy(saved.folder / "model.h5", tmp_path / "model.keras"))
        assert "rename it to model.h5" in message

    def test_keras_named_h5(self, saved, tmp_path):
        message = refusal(shutil.copy(saved.folder / "model.keras", tmp_path / "model.h5"))
        assert "rename it to model.keras" in message

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
    def test_truncated(self, saved, tmp_path, suffix, part):
        content = (saved.folder / f"model{suffix}").read_bytes()
        (path := tmp_path / f"model{suffix}").write_bytes(content[: int(len(content) * part)])
        assert "truncated" in refusal(path)

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_garbage(self, tmp_path, suffix):
        (path := tmp_path / f"model{suffix}").write_bytes(b"not a model" * 99)
        assert "is not a" in refusal(path)

    def test_weights_only(self, saved, tmp_path):
        load(saved.folder / "model.keras").model.save_weights(path := tmp_path / "model.weights.h5")
        message = refusal(path)
        assert "only weights, no architecture" in message
        assert "save the whole model" in message


class TestKerasRefuses:
    def test_unknown_argument(self, tamper):
        message = refusal(tamper(".keras", set_memory(config={"colour": "blue"})))
        assert "colour" in message
        assert "exporter.export(model" in message

    def test_the_cause_is_told_not_the_wrapping(self, tamper):
        initializer = {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {"colour": "blue"}}
        message = refusal(tamper(".keras", set_memory(config={"bias_initializer": initializer})))
        assert "colour" in message
        assert "config=" not in message

    def test_keras_2(self, saved, tamper):
        def age(file):
            file.attrs["keras_version"] = "2.15.0"

        loaded = load(tamper(".h5", set_memory(config={"time_major": False}), age))
        np.testing.assert_allclose(loaded.model(FRAMES).numpy(), saved.outputs, atol=1e-6)
        message = refusal(tamper(".h5", set_memory(config={"time_major": True}), age))
        assert "saved by Keras 2: layer 'memory' (LSTM): time_major=True" in message

    def test_weights_that_do_not_fit(self, tamper):
        assert "can't load it" in refusal(tamper(".keras", set_memory(config={"units": 5})))

    def test_not_a_model(self, keras, saved, tmp_path):
        layer = json.dumps(keras.saving.serialize_keras_object(keras.layers.ReLU()))
        members = {**read_members(saved.folder / "model.keras"), "config.json": layer}
        assert "holds a ReLU, not a keras.Model" in refusal(write_members(tmp_path / "m.keras", members))


class TestRequireKeras:
    @staticmethod
    def fake(version="3.15.1", backend="tensorflow"):
        return SimpleNamespace(__version__=version, config=SimpleNamespace(backend=lambda: backend))

    def test_another_backend(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "keras", self.fake(backend="jax"))
        with pytest.raises(LoadError, match=r"jax backend.*Set KERAS_BACKEND=tensorflow before importing keras"):
            require_keras()

    @pytest.mark.parametrize("version", ["2.15.0", "3.12.4", "3.13.0", "3.14.9"])
    def test_too_old(self, monkeypatch, version):
        monkeypatch.setitem(sys.modules, "keras", self.fake(version))
        with pytest.raises(LoadError, match=rf"Keras {version} is installed.*3.15 is needed"):
            require_keras()

    @pytest.mark.parametrize("version", ["3.15.0", "3.15.0.dev1", "4.0.0"])
    def test_new_enough(self, monkeypatch, version):
        monkeypatch.setitem(sys.modules, "keras", self.fake(version))
        assert require_keras().__version__ == version

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "keras", None)
        with pytest.raises(LoadError, match=r"can't be imported.*pip install"):
            require_keras()

    def test_sets_the_backend(self, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setattr(importlib, "import_module", lambda _: self.fake(backend=os.environ["KERAS_BACKEND"]))
        require_keras()


def test_import_is_light():
    code = "import sys, exporter.read.loading; print({'keras', 'tensorflow', 'h5py'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "set()"
