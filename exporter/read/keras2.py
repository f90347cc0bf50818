"""Turn a whole-model `.h5` file of Keras 2 or tf.keras 2.x into the Keras 3 model that computes the same.

The configuration is translated first, dict to dict: options that Keras 3 doesn't know are dropped where they mean
nothing at inference, Keras 2's defaults are written out, and what has no equal is refused by layer and option. The
weights are then read in the order in which Keras 2 wrote them. What only training needs (initializers, regularizers,
constraints, frozen layers, optimizer, metrics) is left behind. That the file itself is safe to read is checked before,
in `exporter/read/loading.py`.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from signatures.errors import LoadError

Config: TypeAlias = dict[str, Any]


def hard_sigmoid(x: Any) -> Any:
    """Return clip(0.2 x + 0.5, 0, 1), Keras 2's hard sigmoid; Keras 3's is relu6(x + 3) / 6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


hard_sigmoid.__name__ = "keras2_hard_sigmoid"
keras.saving.register_keras_serializable("keras2")(hard_sigmoid)

FUNCTIONAL = ("Functional", "Model")
MODELS = ("Sequential", *FUNCTIONAL)
RENAMED = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"} | dict.fromkeys(
    ("BatchNormalizationV1", "BatchNormalizationV2"), "BatchNormalization"
)
CELLS = ("LSTM", "GRU", "LSTMCell", "GRUCell")
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
MERGES = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
# Layers that compute the same in Keras 2 and 3 once their options are translated.
LAYERS = frozenset(
    {"InputLayer", "Embedding", "Masking", "Dense", "Activation", "Flatten", "Reshape", "Permute", "RepeatVector"}
    | {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "GaussianNoise"}
    | {"AlphaDropout", "ActivityRegularization", "BatchNormalization", "LayerNormalization", "UnitNormalization"}
    | {"ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Dot", "Attention", "AdditiveAttention", "TimeDistributed"}
    | {"Conv1DTranspose", "Conv2DTranspose", "SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D"}
    | {f"{kind}{n}D" for kind in ("Conv", "MaxPooling", "AveragePooling", "GlobalMaxPooling") for n in (1, 2, 3)}
    | {f"{kind}{n}D" for kind in ("GlobalAveragePooling", "UpSampling", "ZeroPadding", "Cropping") for n in (1, 2, 3)}
    | {"SimpleRNNCell", "StackedRNNCells", "EinsumDense", *CELLS, *RECURRENT, *MERGES}
)
ACTIVATIONS = frozenset(
    {"elu", "exponential", "gelu", "linear", "mish", "relu", "selu", "sigmoid", "softmax", "softplus", "softsign"}
    | {"silu", "swish", "tanh"}
)
# Without a meaning at inference, or (the shapes) told by the InputLayer.
DROPPED = re.compile(
    r".*_(initializer|regularizer|constraint)|implementation|trainable|input_length|(batch_)?input_shape|batch_shape"
    r"|noise_shape|unit_forget_bias|build_input_shape"
)
# Options that Keras 3 doesn't have, and the value at which they do nothing.
NEUTRAL = {"time_major": False, "ragged": False, "sparse": False, "reverse_state_order": False, "groups": 1}
COMMON = frozenset({"name", "dtype"})  # options of every layer


class Keras2Mask(keras.Operation):  # type: ignore[misc]
    """The mask of merged tensors: valid where all are valid. In Keras 3 one valid tensor is enough.

    One operation with a name of its own: those of keras.ops may be named like a layer of the file.

    Args:
        axis: The axis that is concatenated; None where the merge is step by step.
    """

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        self.axis = axis

    def call(self, inputs: list[Any], masks: list[Any]) -> Any:
        """Return the mask. Where tensors are concatenated, one without a mask counts as all valid."""
        if self.axis is None:
            return keras.ops.all(keras.ops.stack([mask for mask in masks if mask is not None]), axis=0)
        full = [keras.ops.ones_like(x, dtype="bool") for x in inputs]
        for number, (ones, mask) in enumerate(zip(full, masks, strict=True)):
            if mask is not None:
                full[number] = ones & (mask if len(mask.shape) == len(ones.shape) else keras.ops.expand_dims(mask, -1))
        return keras.ops.all(keras.ops.concatenate(full, axis=self.axis), axis=-1)


def _merge_mask(self: Any, inputs: list[Any], mask: list[Any] | None = None) -> Any:
    """Compute the mask that a merging layer passes on, as Keras 2 does."""
    if mask is None or all(each is None for each in mask):
        return None
    return Keras2Mask(self.axis if isinstance(self, keras.layers.Concatenate) else None)(inputs, mask)


for _name in MERGES:
    _parent = getattr(keras.layers, _name)
    keras.saving.register_keras_serializable("keras2", _name)(type(_name, (_parent,), {"compute_mask": _merge_mask}))


def translate(config: Config) -> Config:
    """Return the Keras 3 configuration of a Keras 2 model.

    Args:
        config: `model_config` of the file, not changed.

    Raises:
        LoadError: Naming the layer and the option or class that Keras 3 has no equal for.
    """
    return _layer(config, masked=any(map(_makes_mask, _entries(config))))


def _makes_mask(entry: Config) -> bool:
    """Tell whether a layer makes a mask, or may make one as a class of the user's own."""
    name, options = entry["class_name"], entry["config"]
    return name == "Masking" or bool(options.get("mask_zero")) or _is_registered(name)


def _is_registered(name: Any) -> bool:
    """Tell whether this program has its own class or function of this name."""
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None


def _entries(node: Any) -> Iterator[Config]:
    """Yield every object in a configuration that has a class and options."""
    if isinstance(node, dict) and isinstance(node.get("class_name"), str) and isinstance(node.get("config"), dict):
        yield node
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _entries(inner)


def _refuse(entry: Config, what: str) -> LoadError:
    """Return the refusal of a layer."""
    options = entry["config"] if isinstance(entry["config"], dict) else {}
    return LoadError(f"layer {options.get('name', 'without a name')!r} ({entry['class_name']}): {what}")


def _layer(entry: Config, masked: bool) -> Config:
    """Translate a layer, cell or model.

    Args:
        entry: class_name and config, as Keras 2 wrote them.
        masked: Whether any layer of the whole model makes a mask.
    """
    old = entry["class_name"]
    name = RENAMED.get(old, old)
    if name in MODELS:
        if name == "Sequential":
            return {"module": "keras", "class_name": name, "config": _sequential(entry, masked)}
        module = "keras.src.models.functional"  # as Keras 3 itself writes it
        return {"module": module, "class_name": "Functional", "config": _functional(entry, masked)}
    if _is_registered(name):
        return {"module": None, "class_name": name, "config": entry["config"], "registered_name": name}
    if name not in LAYERS:
        raise _refuse(
            entry, "this class of a Keras 2 file has no known equal in Keras 3. Build the model anew in Keras 3."
        )
    options = _options(entry, name, masked)
    if masked and name in MERGES:
        return {"module": None, "class_name": name, "config": options, "registered_name": f"keras2>{name}"}
    return {"module": "keras.layers", "class_name": name, "config": options, "registered_name": None}


def _options(entry: Config, name: str, masked: bool) -> Config:
    """Translate the options of a layer that is no model; `name` is its class in Keras 3."""
    given = entry["config"]
    if name in CELLS and name == entry["class_name"] and "recurrent_activation" not in given:
        raise _refuse(entry, "its recurrent_activation is missing, and Keras 2's default was not always the same.")
    if name == "TimeDistributed" and masked and given["layer"]["class_name"] in (*MODELS, *RECURRENT, "Embedding"):
        raise _refuse(entry, f"masks around its {given['layer']['class_name']} differ in Keras 3.")
    if name == "Softmax" and masked:
        raise _refuse(entry, "whether it heeds masks depends on the version of Keras 2.")
    options = {k: v for k, v in given.items() if not DROPPED.fullmatch(k)}
    options |= {k: _activation(entry, k) for k in options if k.endswith("activation")}
    options |= {k: _inner(v, masked) for k, v in options.items() if not k.endswith("activation") and k != "dtype"}
    options["dtype"] = _dtype(entry)
    if name == "Embedding" and "int" in options["dtype"]:  # Keras 2.0 wrote the type of its input there
        options["dtype"] = "float32"
    options["name"] = _clean(given["name"]) if "name" in given else None
    if name == "InputLayer":
        options["batch_shape"] = _shape(entry)
    elif name in ("GRU", "GRUCell"):
        options["reset_after"] = entry["class_name"] == "CuDNNGRU" or given.get("reset_after", False)
    elif name == "BatchNormalization" and isinstance(axis := options.get("axis"), list) and len(axis) == 1:
        options["axis"] = axis[0]
    elif name == "LeakyReLU":
        options["negative_slope"] = options.pop("alpha", 0.3)
    parents = getattr(keras.layers, name).__mro__[:-1]
    known = COMMON.union(*(inspect.signature(parent.__init__).parameters for parent in parents)) - {"ragged", "sparse"}
    for option in options.keys() - known:
        if (value := options.pop(option)) != NEUTRAL.get(option, ...):
            raise _refuse(entry, f"{option}={value!r} has no equal in Keras 3.")
    return {k: v for k, v in options.items() if k != "name" or v is not None}


def _inner(value: Any, masked: bool) -> Any:
    """Translate layers and cells that an option holds, alone or in a list."""
    if isinstance(value, list):
        return [_inner(each, masked) for each in value]
    return _layer(value, masked) if isinstance(value, dict) and "class_name" in value else value


def _activation(entry: Config, option: str) -> Any:
    """Translate an activation: a name, a function or a layer."""
    value = entry["config"][option]
    if isinstance(value, dict) and value.get("class_name") != "function":
        return _layer(value, masked=False)
    name = value["config"] if isinstance(value, dict) else value
    if name == "hard_sigmoid":
        return keras.activations.serialize(hard_sigmoid)
    if name is None or name in ACTIVATIONS or _is_registered(name):
        return name
    raise _refuse(entry, f"{option}={name!r} is no activation of Keras 2 and not registered in this program.")


def _dtype(entry: Config) -> str:
    """Return the name of a layer's dtype policy, which may be a string or an object."""
    value = entry["config"].get("dtype") or "float32"
    name = value["config"].get("name") if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise _refuse(entry, f"dtype={value!r} names no type.")
    return name


def _clean(name: str) -> str:
    """Return a name without the slashes that Keras 3 refuses."""
    return name.replace("/", "_")


def _new_names(entries: list[Config]) -> list[str]:
    """Return one name a layer of a model, in order, each once; very old files hold models without a name."""
    names: list[str] = []
    for entry in entries:
        old = entry["config"].get("name") if isinstance(entry["config"], dict) else None
        name = wanted = _clean(old or entry["class_name"].lower())
        count = 1
        while name in names:
            name, count = f"{wanted}_{count}", count + 1
        names.append(name)
    return names


def _children(entry: Config) -> list[Config]:
    """Return the layers of a model's configuration; very old Sequentials are a list."""
    options = entry["config"]
    layers: list[Config] = options if isinstance(options, list) else options["layers"]
    return layers


def _named(made: Config, name: str) -> Config:
    """Return a translated layer under its new name."""
    return {**made, "config": {**made["config"], "name": name}}


def _shape(entry: Config) -> Any:
    """Return the input shape [batch, ...] that a layer declares, or None; a model declares its first layer's."""
    options = entry["config"]
    if entry["class_name"] not in MODELS:
        return options.get("batch_input_shape", options.get("batch_shape"))
    shape = _shape(_children(entry)[0])
    return options.get("build_input_shape") if shape is None and isinstance(options, dict) else shape


def _reader(entry: Config) -> Config:
    """Return the layer that reads what a layer is called on: of a Sequential its first."""
    while entry["class_name"] == "Sequential":
        entry = next(layer for layer in _children(entry) if layer["class_name"] != "InputLayer")
    return entry


def _input(entry: Config, readers: Iterable[Config]) -> Config:
    """Translate an InputLayer. What only Embeddings read becomes int32: Keras 2 declared float32 and cast it there."""
    made = _layer(entry, masked=False)
    embedded = {_reader(each)["class_name"] for each in readers} == {"Embedding"}
    if embedded and made["config"]["dtype"].startswith("float"):
        made["config"]["dtype"] = "int32"
    return made


def _sequential(entry: Config, masked: bool) -> Config:
    """Translate a Sequential model; one that starts without an InputLayer gets one."""
    layers = _children(entry)
    names = _new_names(layers)
    made = [_named(_layer(layer, masked), name) for layer, name in zip(layers, names, strict=True)]
    if layers[0]["class_name"] == "InputLayer":
        made[0]["config"]["dtype"] = _input(layers[0], layers[1:2])["config"]["dtype"]
    else:
        if (shape := _shape(entry)) is None:
            raise _refuse(entry, "it doesn't say its input shape. Build it anew in Keras 3 and set its weights.")
        first = layers[0]["config"]
        options = {"batch_input_shape": shape, "dtype": first.get("dtype") if isinstance(first, dict) else None}
        options["name"] = f"{names[0]}_input"
        made.insert(0, _input({"class_name": "InputLayer", "config": options}, layers[:1]))
    name = entry["config"].get("name") if isinstance(entry["config"], dict) else None
    return {"name": _clean(name or "sequential"), "layers": made}


def _functional(entry: Config, masked: bool) -> Config:
    """Translate a functional model, its nodes into the form of Keras 3."""
    options, layers = entry["config"], _children(entry)
    old = [layer.get("name", layer["config"].get("name")) for layer in layers]
    names = dict(zip(old, _new_names(layers), strict=True))
    classes = dict(zip(old, (layer["class_name"] for layer in layers), strict=True))
    ends = list(_references([layer["inbound_nodes"] for layer in layers] + [options["output_layers"]]))
    # In Keras 2 the first node of a nested model is its own, so that its first call may be number 1.
    first = {
        name: int(max((node for other, node, _ in ends if other == name), default=0) == len(layer["inbound_nodes"]) > 0)
        for name, layer in zip(old, layers, strict=True)
    }

    def tensor(reference: list[Any]) -> Config:
        name, node, index = reference[:3]
        history = [names[name], node - first[name], index]
        return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}

    def end(reference: list[Any]) -> list[Any]:  # Keras 3 counts from 1 for nested functional models, here alone
        name, node, index = reference
        return [names[name], node - first[name] + (classes[name] in FUNCTIONAL), index]

    made = []
    for name, layer in zip(old, layers, strict=True):
        readers = [each for each in layers if any(ref[0] == name for ref in _references(each["inbound_nodes"]))]
        new = _input(layer, readers) if layer["class_name"] == "InputLayer" else _layer(layer, masked)
        calls = [_node(layer, node, tensor) for node in layer["inbound_nodes"]]
        made.append({**_named(new, names[name]), "name": names[name], "inbound_nodes": calls})
    ports = {key: _map(_single(options[key]), end) for key in ("input_layers", "output_layers")}
    return {"name": _clean(options.get("name") or "model"), "layers": made, **ports}


def _is_reference(node: Any) -> bool:
    """Tell whether this is [layer, node, tensor], or that with the call's keywords."""
    if not isinstance(node, list) or len(node) not in (3, 4) or not isinstance(node[0], str):
        return False
    return all(type(number) is int for number in node[1:3]) and (len(node) == 3 or isinstance(node[3], dict))


def _references(node: Any) -> Iterator[tuple[str, int, int]]:
    """Yield every [layer, node, tensor] in a structure, those in keywords of calls too."""
    if _is_reference(node):
        yield node[0], node[1], node[2]
        node = node[3] if len(node) == 4 else {}
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _references(inner)


def _map(node: Any, change: Callable[[list[Any]], Any]) -> Any:
    """Return a structure with its references changed."""
    if _is_reference(node):
        return change(node)
    if isinstance(node, dict):
        return {key: _map(inner, change) for key, inner in node.items()}
    return [_map(inner, change) for inner in node] if isinstance(node, list) else node


def _single(node: Any) -> Any:
    """Return the one reference of a list of one: Keras 2 takes and gives it without the list."""
    return node[0] if isinstance(node, list) and len(node) == 1 else node


def _node(entry: Config, node: Any, tensor: Callable[[list[Any]], Config]) -> Config:
    """Translate one call of a layer. A recurrent layer's tensors after the first are its initial state."""
    references = [node] if _is_reference(node) else node
    if not isinstance(references, list) or not references or not all(map(_is_reference, references)):
        raise _refuse(entry, "it is called on something else than a tensor or a list of tensors.")
    if any(reference[0] == "_CONSTANT_VALUE" for reference in references):
        raise _refuse(entry, "it is called on a constant.")
    keywords = {k: v for k, v in (references[0][3] if len(references[0]) == 4 else {}).items() if v is not None}
    if keywords.pop("training", False):
        raise _refuse(entry, "it is called with training=True, which draws at random or uses statistics of the batch.")
    args = [tensor(reference) for reference in references]
    keywords = {key: _map(value, tensor) for key, value in keywords.items()}
    if len(args) > 1 and RENAMED.get(entry["class_name"], entry["class_name"]) in RECURRENT:
        return {"args": args[:1], "kwargs": {**keywords, "initial_state": args[1:]}}
    return {"args": [_single(args)], "kwargs": keywords}


@dataclass(frozen=True)
class Slot:
    """A place for one array of the file.

    Args:
        variable: Of the Keras 3 model.
        decode: The file's array to the variable's.
        trainable: Whether Keras 2 counts it as such.
    """

    variable: Any
    decode: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray
    trainable: bool = True


def load_weights(model: Any, config: Config, file: Any) -> None:
    """Set every weight of a model from the file.

    Args:
        model: Made from `translate(config)`.
        config: `model_config` of the file.
        file: h5py.File, open and checked.

    Raises:
        LoadError: When the file's arrays are not exactly the model's, in number, shape and name.
    """
    groups = file.get("model_weights", file)
    if groups.attrs.get("backend") in ("theano", b"theano") and any(
        "Conv" in entry["class_name"] for entry in _entries(config)
    ):
        raise LoadError("it was trained with Theano, which flips the kernels of convolutions.")
    stored = {name: _names(_group(groups, name), "weight_names") for name in _names(groups, "layer_names")}
    stored = {name: weights for name, weights in stored.items() if weights}
    own = "top_level_model_weights"
    if own in groups and _names(_group(groups, own), "weight_names"):
        raise LoadError("the model itself, beside its layers, has weights; Keras 3 has no place for them.")
    slots = {}
    for number, (layer, entry) in enumerate(_pairs(model, config)):
        if places := _slots(layer, entry):
            name = entry["config"].get("name") if isinstance(entry["config"], dict) else None
            slots[name or number] = (layer.name, places)
    if len(slots) != len(stored):
        raise LoadError(f"{len(slots)} layers of the model have weights, {len(stored)} in the file.")
    by_name = slots.keys() == stored.keys()
    for (key, (name, places)), group in zip(slots.items(), stored, strict=True):
        group = str(key) if by_name else group
        _assign(name, places, [(weight, groups[group][weight]) for weight in stored[group]])


def _group(parent: Any, name: str) -> Any:
    """Return a group of the file; where an array stands instead, looking into it would read it value by value."""
    found = parent[name]
    if not hasattr(found, "items"):
        raise LoadError(f"{name!r} in the file is an array, not a group of them. It is damaged; copy it again.")
    return found


def _names(group: Any, attribute: str) -> list[str]:
    """Return a list of names that HDF5's limit on attributes may have cut in pieces."""
    parts = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{attribute}{len(parts)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _pairs(model: Any, entry: Config) -> list[tuple[Any, Config]]:
    """Return a model's layers with their configurations, in the order of the file."""
    layers = _children(entry)
    named = zip(_new_names(layers), layers, strict=True)
    return [(model.get_layer(name), each) for name, each in named if each["class_name"] != "InputLayer"]


def _slots(layer: Any, entry: Config) -> list[Slot]:
    """Return a layer's weights in Keras 2's order: the trainable ones first, so that frozen layers come late."""
    options = entry["config"]
    if entry["class_name"] in MODELS:
        slots = [slot for child, each in _pairs(layer, entry) for slot in _slots(child, each)]
    elif entry["class_name"] == "TimeDistributed":
        slots = _slots(layer.layer, options["layer"])
    elif entry["class_name"] == "Bidirectional":
        backward = options.get("backward_layer") or options["layer"]
        slots = _slots(layer.forward_layer, options["layer"]) + _slots(layer.backward_layer, backward)
    elif entry["class_name"] in ("CuDNNLSTM", "CuDNNGRU"):
        slots = [Slot(*pair) for pair in zip(layer.trainable_weights, _cudnn(entry), strict=True)]
    else:
        states = getattr(layer, "states", None) or ()
        fixed = [weight for weight in layer.non_trainable_weights if all(weight is not state for state in states)]
        slots = [*map(Slot, layer.trainable_weights), *(Slot(weight, trainable=False) for weight in fixed)]
    slots.sort(key=lambda slot: not slot.trainable)
    frozen = isinstance(options, dict) and options.get("trainable") is False
    return [replace(slot, trainable=False) for slot in slots] if frozen else slots


def _cudnn(entry: Config) -> list[Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return how to read the kernel, recurrent kernel and two biases of a CuDNN layer.

    A gate's kernel holds the [units, inputs] matrix of cuDNN row by row, but is declared [inputs, units]; its recurrent
    kernel is that matrix as it is. Both biases act together in an LSTM and apart in a GRU with reset_after.
    """
    gates = 4 if entry["class_name"] == "CuDNNLSTM" else 3

    def kernel(array: NDArray[Any]) -> NDArray[Any]:
        return np.hstack([gate.reshape(gate.shape[::-1]).T for gate in np.hsplit(array, gates)])

    def recurrent(array: NDArray[Any]) -> NDArray[Any]:
        return np.hstack([gate.T for gate in np.hsplit(array, gates)])

    def bias(array: NDArray[Any]) -> NDArray[Any]:
        both = array.reshape(2, -1)
        return np.asarray(both.sum(axis=0)) if gates == 4 else both

    return [kernel, recurrent, bias]


def _assign(layer: str, slots: list[Slot], weights: list[tuple[str, Any]]) -> None:
    """Set a layer's weights after checking their number, names and shapes."""
    if len(slots) != len(weights):
        raise LoadError(f"layer {layer!r} has {len(slots)} weights, {len(weights)} in the file.")
    known = {slot.variable.name for slot in slots}
    for slot, (name, dataset) in zip(slots, weights, strict=True):
        kind = re.sub(r"(_\d+)?(:\d+)?$", "", name.rsplit("/", 1)[-1])
        if kind in known and kind != slot.variable.name:
            raise LoadError(f"layer {layer!r}: the weight {slot.variable.name!r} is {name!r} in the file.")
        value = slot.decode(dataset[()])
        if value.shape != tuple(slot.variable.shape):
            raise LoadError(f"layer {layer!r}: {name} has shape {value.shape}, not {tuple(slot.variable.shape)}.")
        slot.variable.assign(value)
