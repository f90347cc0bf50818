"""Code in a model's configuration is refused wherever it hides, in every kind of file, and never runs."""

import contextlib
import importlib

import keras
import numpy as np
import pytest

from exporter.read.loading import load
from signatures.errors import LoadError, UnsafeModel

KINDS = (".keras", ".h5", "old.h5")


def entry(name, **options):
    return {"module": "keras.layers", "class_name": name, "config": {"name": "memory", **options}}


def sequential(*layers, **more):
    first = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 3], "name": "i"}}
    config = {"name": "inner", "layers": [first, *layers], **more}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def functional(layer, **call):
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 3], "keras_history": ["i", 0, 0]}}
    first = {"module": "keras.layers", "class_name": "InputLayer", "name": "i", "inbound_nodes": []}
    first["config"] = {"batch_shape": [None, 3], "name": "i"}
    second = {**layer, "name": "twice", "inbound_nodes": [{"args": [tensor], "kwargs": call}]}
    ends = {"input_layers": [["i", 0, 0]], "output_layers": [["twice", 0, 0]]}
    return {"module": "keras", "class_name": "Functional", "config": {"layers": [first, second], **ends}}


def wrapped(name):
    return lambda memory, p: memory.update(entry(name, layer=p.layer))


def option(key):
    return lambda memory, p: memory["config"].update({key: p.function})


def plain(name, **config):
    """A value that isn't an object for Keras, with the code inside."""
    return lambda memory, p: memory["config"].update(
        bias_initializer={"class_name": name, "config": {**config, "value": p.function}}
    )


PLACES = {
    "a layer": lambda memory, p: memory.update(p.layer),
    "a layer by its own module": lambda memory, p: memory.update(p.layer, module="keras.src.layers.core.lambda_layer"),
    "a layer of a package": lambda memory, p: memory.update(p.layer, registered_name="mine>Lambda", module="mine"),
    "a nested Sequential": lambda memory, p: memory.update(sequential(p.layer)),
    "a nested functional model": lambda memory, p: memory.update(functional(p.layer)),
    "a model in a model in a model": lambda memory, p: memory.update(sequential(sequential(functional(p.layer)))),
    "TimeDistributed": wrapped("TimeDistributed"),
    "Bidirectional": wrapped("Bidirectional"),
    "the backward layer": lambda memory, p: memory.update(
        entry("Bidirectional", layer={**memory}, backward_layer=p.layer)
    ),
    "SpectralNormalization": wrapped("SpectralNormalization"),
    "a wrapper in a wrapper": lambda memory, p: memory.update(
        entry("TimeDistributed", layer=entry("Bidirectional", layer=p.layer))
    ),
    "a cell": lambda memory, p: memory.update(entry("RNN", cell=p.layer)),
    "one of stacked cells": lambda memory, p: memory.update(
        entry("RNN", cell=entry("StackedRNNCells", cells=[entry("LSTMCell", units=4), p.layer]))
    ),
    "an activation": option("activation"),
    "a recurrent activation": option("recurrent_activation"),
    "an Activation layer": lambda memory, p: memory.update(entry("Activation", activation=p.function)),
    "an initializer": option("kernel_initializer"),
    "a regularizer": option("recurrent_regularizer"),
    "an activity regularizer": option("activity_regularizer"),
    "a constraint": option("bias_constraint"),
    "a dtype policy": option("dtype"),
    "in a dtype policy": lambda memory, p: memory["config"].update(
        dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": p.function}}
    ),
    "an initial state": option("initial_state"),
    "what it was built with": lambda memory, p: memory.update(build_config={"input_shape": p.function}),
    "the loss of a nested model": lambda memory, p: memory.update(sequential(compile_config={"loss": p.function})),
    "a metric of a nested model": lambda memory, p: memory.update(
        {**sequential(), "compile_config": {"metrics": [[p.function]]}}
    ),
    "a call's keyword": lambda memory, p: memory.update(functional(entry("LSTM", units=4), initial_state=p.function)),
    "a call's tensor": lambda memory, p: memory.update(
        functional(entry("LSTM", units=4), mask={"class_name": "__keras_tensor__", "config": {"shape": p.function}})
    ),
    "a tensor's value": plain("__tensor__", dtype="float32"),
    "an array's value": plain("__numpy__", dtype="float32"),
    "a tuple": plain("__tuple__"),
    "a slice": plain("__slice__", start=0),
    "a list of lists": lambda memory, p: memory["config"].update(units=[[[{"x": [p.function]}]]]),
    "an option of nobody": option("colour"),
    "beside the options": lambda memory, p: memory.update(shared_object_id={"x": p.function}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_function_is_found_wherever_it_hides(make, payload, refused, kind, place):
    def hide(config):
        PLACES[place](config["config"]["layers"][1], payload)

    message = refused(make(kind, hide), UnsafeModel)
    assert "which would run code of the file's author" in message
    assert "exporter.export(model" in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Lambda", "__lambda__"])
def test_a_model_that_is_nothing_but_code(make, payload, refused, kind, name):
    assert "run code" in refused(make(kind, lambda config: {**payload.layer, "class_name": name}), UnsafeModel)


def test_the_payload_would_be_seen(make, payload):
    """Keras runs it when it is told to trust the file: the tests above can fail."""
    path = make(".keras", lambda config: config["config"]["layers"].insert(1, payload.layer))
    keras.saving.load_model(path, safe_mode=False).predict(np.zeros((1, 2, 3)), verbose=0)
    assert payload.marker.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_training_would_run_is_left_behind(make, payload, kind):
    """The outermost compile_config, and an optimizer's state beside the weights, are never looked at by Keras."""
    load(make(kind, lambda config: config.update(compile_config={"loss": payload.function, "optimizer": "adam"})))
    assert not payload.marker.exists()


GADGETS = {
    "a shell": ("function", "os", "system"),
    "an interpreter": ("function", "builtins", "exec"),
    "an interpreter without a module": ("function", None, "eval"),
    "a process": ("Popen", "subprocess", {"args": "true"}),
    "a pickle": ("loads", "pickle", {}),
    "a pickle of NumPy": ("function", "numpy", "load"),
    "a download": ("get_file", "keras.utils", {"fname": "x", "origin": "x"}),
    "a download as a function": ("function", "keras.utils", "get_file"),
    "another file": ("load_model", "keras.models", {"filepath": "x"}),
    "weights of another file": ("function", "keras.src.saving.saving_api", "load_weights"),
    "the guard itself": ("enable_unsafe_deserialization", "keras.config", {}),
    "the guard as a function": ("function", "keras.config", "enable_unsafe_deserialization"),
    "a scope of custom objects": ("CustomObjectScope", "keras.utils", {}),
    "a program of TensorFlow": ("TFSMLayer", "keras.layers", {"filepath": "."}),
    "a module of Torch": ("TorchModuleWrapper", "keras.layers", {"module": "AAAA"}),
    "a function of JAX": ("JaxLayer", "keras.layers", {}),
    "a module of Flax": ("FlaxLayer", "keras.layers", {}),
    "a class of nobody": ("Mystery", "mystery", {}),
    "a class beside the layers": ("FeatureSpace", "keras.utils", {}),
    "a path through modules": ("ZipFile", "keras.src.saving.saving_lib.zipfile", {"file": "x"}),
    "the loader of layers": ("deserialize", "keras.layers", {}),
    "an application that downloads": ("ResNet50", "keras.applications", {}),
    "a backend's function": ("function", "keras.backend", "clear_session"),
    "a callback that writes": ("CSVLogger", "keras.callbacks", {"filename": "x"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gadget", GADGETS)
def test_what_is_no_part_of_a_model_is_never_called(make, refused, monkeypatch, kind, gadget):
    name, module, config = GADGETS[gadget]
    if module and name == "function" and module.split(".")[0] in ("os", "numpy"):
        found = importlib.import_module(module)
        monkeypatch.setattr(found, config, lambda *args, **options: pytest.fail("it was called"))

    def use(model):
        options = model["config"]["layers"][1]["config"]
        options["activation"] = {"class_name": name, "module": module, "config": config, "registered_name": name}

    assert "layer '" in refused(make(kind, use)) or name == "FeatureSpace"  # a layer, that Keras can't make of this


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocabulary", "/etc/passwd"),
        ("filepath", "model.keras"),
        ("url", "x"),
        ("name", "file:///etc/passwd"),
        ("anything", "https://example.org/x"),
        ("anything", "gs://bucket/x"),
    ],
)
def test_no_file_or_address_is_read(make, refused, kind, key, value):
    def use(config):
        config["config"]["layers"][1]["config"][key] = value

    assert f"would read {key}=" in refused(make(kind, use), UnsafeModel)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["class_name", "name"])
def test_a_name_of_several_lines_makes_no_lines(make, refused, kind, place):
    def use(config):
        entry = config["config"]["layers"][1]
        (entry if place == "class_name" else entry["config"]).update({place: "a\nLoaded: all is well", "module": None})
        entry["config"]["colour"] = "blue"

    refused(make(kind, use))


@pytest.mark.parametrize("name", ["../../../outside", "/outside", "..", "a/../../b", "C:\\outside", "\x1b[2Jx\nb"])
def test_a_layers_name_is_no_path(make, tmp_path, name):
    """It may be refused or loaded; nothing is written or read under it."""
    before = sorted(tmp_path.parent.iterdir())

    def use(config):
        config["config"]["layers"][1]["config"]["name"] = name

    for kind in KINDS:
        with contextlib.suppress(LoadError):
            load(make(kind, use))
    assert sorted(tmp_path.parent.iterdir()) == before
