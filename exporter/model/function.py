"""A Keras model as a function from ports to ports, whatever structure it is called with and returns."""

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from signatures.contract import LENGTHS, going_in, identifier, sequences_output, state_input, state_output, unique
from signatures.errors import UnsupportedModel
from signatures.feeds import random_feeds
from signatures.golden import ROUNDINGS
from signatures.ports import Array, Port

from .. import inside
from ..memory import convert
from ..memory.form import NOTHING
from ..memory.recurrence import Recurrence, port_dtype
from . import swap
from .remember import Remembering
from .swap import Call, Compute, keras_loop

Axis = tuple[str, int]
"""An input and one of its axes."""


@dataclass(frozen=True)
class Input:
    """One tensor the model is called with; shape [batch, ...] has None where the model leaves an axis open.

    16-bit floats are float32 here and at every port: Keras casts what it is given, and NumPy has no bfloat16.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Ran:
    """One run of a model.

    Attributes:
        outputs: (Keras' name, tensor) for each model output, in order.
        calls: Its recurrent calls, in the order they were made.
        states: Port -> tensor, of what its other layers remember.
        inputs: Name -> tensor that the model was called with.
    """

    outputs: list[tuple[str, Any]]
    calls: list[Call]
    states: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def ports(self, order: tuple[str, ...]) -> dict[str, Any]:
        """Return every output port.

        Args:
            order: The ports of the model's own outputs, in the model's order.
        """
        own = {port: value for port, (_, value) in zip(order, self.outputs, strict=True)}
        return {**own, **recurrent_ports(self.calls), **self.states}


class Model:
    """A Keras model as a function from ports to ports.

    Attributes:
        keras: The model.
        quick: What computes its recurrent calls on arrays, where nothing else is told.
        inputs: What it is called with, in flattened order.
        batch: How many samples its inputs declare, which it then always gets; None for any number.
        layers: Port prefix -> each recurrent layer, and the same as data.
        types: Each type its layers compute in -> the path of the first layer that does.
        dtype: The coarsest of these types, which says how closely its numbers agree.
        repeated: The same for layers that start anew at every time step of an outer axis, which have no ports: survey
            finds them among the layers.
        leads: Port prefix -> what the rows of its calls are, once survey has found it: "batch", or "batch * 4".
        masked: Inputs whose axis 1 counts time steps, once survey has found them: the ones that lengths mask.
        memories: What its other layers remember, once survey has found it: they go on from these ports where a run is
            given them, and else are as in Keras.
        vocabulary: The smallest input_dim of its Embedding layers: every integer below it is a valid token; or None.
    """

    def __init__(self, model: Any, quick: Compute = keras_loop) -> None:
        """Read the model's inputs and recurrent layers.

        Args:
            model: The Keras model.
            quick: What computes its recurrent calls on arrays.

        Raises:
            UnsupportedModel: When it isn't built, or has a recurrent layer that isn't supported.
        """
        self.keras, self.quick = model, quick
        found = list(swap.recurrent_layers(model))
        if not found and (cell := _lone_cell(model)):
            raise UnsupportedModel(cell)
        if odd := [layer.name for _, layer in swap.sublayers(model) if ":" in layer.name]:
            raise UnsupportedModel(
                f"layer {odd[0]!r} has a colon in its name, with which TensorFlow can't save its weights.\n"
                "  Rename the layer."
            )
        self._structure, inputs = _inputs(model)
        self.batch = _batch(inputs)
        names: list[str] = []
        for each in inputs:
            names.append(unique(identifier(each.name), [*names, LENGTHS]))
        self.types = swap.compute_types(model)
        self.inputs = tuple(
            Input(name, each.shape, port_dtype(each.dtype)) for name, each in zip(names, inputs, strict=True)
        )
        self.layers: dict[str, tuple[Any, Recurrence]] = {}
        taken = {*names, LENGTHS}
        self.repeated: dict[str, tuple[Any, Recurrence]] = {}
        for path, layer in found:
            prefix, recurrence = _free(convert.convert(layer, identifier(path)), self.layers, taken)
            self.layers[prefix] = layer, recurrence
            taken.update(port_names(prefix, recurrence))
            self.types.setdefault(recurrence.dtype, prefix)  # a cell may compute in another type than its layer
        self.dtype = next((dtype for dtype in reversed(ROUNDINGS) if dtype in self.types), "float32")
        self.masked: tuple[str, ...] = ()
        self.leads: dict[str, str] = {}
        self.memories = NOTHING
        inner = [layer for _, layer in swap.sublayers(model)]
        self.vocabulary = min((e.input_dim for e in inner if isinstance(e, keras.layers.Embedding)), default=None)

    def initial(self, batch: int) -> dict[str, Array]:
        """Return what its layers go on from at the start of a stream; nothing where only recurrent layers do."""
        return {name: port.at_start({"batch": self.batch or batch}) for name, port in self.states.items()}

    @property
    def states(self) -> dict[str, Port]:
        """Input port -> what its layers go on from, where others than recurrent ones do; empty where they don't."""
        if not self.memories.calls:
            return {}
        recurrent = {
            state_input(prefix, short): Port(prefix, "state", (self.leads.get(prefix, "batch"), *shape))
            for prefix, (_, recurrence) in self.layers.items()
            for short, shape in recurrence.states.items()
        }
        return {**recurrent, **{going_in(port.name): port for port in self.memories.ports}}

    def run(self, feeds: Mapping[str, Any], compute: Compute, lowered: bool = False) -> Ran:
        """Run on port feeds: the model's inputs, and states where they are given.

        Args:
            feeds: Input port -> tensor.
            compute: How a recurrent call is computed.
            lowered: See swap.call.
        """
        lengths = feeds.get(LENGTHS)
        tensors = {
            each.name: swap.with_lengths(feeds[each.name], lengths) if each.name in self.masked else feeds[each.name]
            for each in self.inputs
        }
        inputs = keras.tree.pack_sequence_as(self._structure, list(tensors.values()))
        layers, repeated, leads = self.layers, self.repeated, self.leads
        going_on = any(port in feeds for port in self.states)
        remembering = Remembering(self.memories, feeds, list(tensors.values())) if going_on else None
        gate = remembering.of_call if remembering else None
        with remembering.active() if remembering else nullcontext():
            outputs, calls = swap.call(self.keras, layers, inputs, feeds, compute, lowered, repeated, leads, gate)
        return Ran(_named(self.keras, outputs), calls, remembering.states if remembering else {}, tensors)

    def eagerly(self, feeds: Mapping[str, Array], compute: Compute | None = None) -> Ran:
        """Run on arrays, by the quick loops and TimeDistributed layers at once; see run.

        Keras' own loop takes some 2 ms a time step outside a graph.
        """
        tensors = {name: tf.constant(value) for name, value in feeds.items()}
        return self.run(tensors, compute or self.quick, lowered=True)

    def draw(self, sizes: Mapping[Axis, int], batch: int, rng: np.random.Generator) -> dict[str, Array]:
        """Draw random feeds for the model's own inputs.

        Args:
            sizes: (Input, axis) -> its size, for time axes.
            batch: Rows, where the model doesn't declare how many; the last one ends in zeros, so that a Masking layer
                has something to mask.
            rng: Where the numbers come from.
        """
        ports = []
        for each in self.inputs:
            rest = [sizes.get((each.name, axis), size or 1) for axis, size in enumerate(each.shape) if axis]
            ports.append(Port(each.name, "input", (self.batch or batch, *rest), each.dtype, below=self.vocabulary))
        feeds = random_feeds(ports, {}, rng)
        for name, axis in sizes:
            value = feeds[name]
            if len(value) > 1:
                np.moveaxis(value, axis, 1)[-1, value.shape[axis] // 2 :] = 0
        return feeds

    def again(self) -> "Model":
        """Read the model again, as it is now, with what survey found out about it."""
        again = Model(self.keras, self.quick)
        again.batch, again.masked, again.leads, again.memories = self.batch, self.masked, self.leads, self.memories
        for name in self.repeated:
            again.start_anew(name)
        return again

    def start_anew(self, name: str) -> None:
        """Give a recurrent layer no ports: it starts from zeros whenever it is called."""
        self.repeated[name] = self.layers.pop(name)


def recurrent_ports(calls: list[Call]) -> dict[str, Any]:
    """Return port -> tensor for the sequences and final states of each call."""
    ports = {}
    for made in calls:
        sequences, states = made.outputs
        ports[sequences_output(made.name)] = sequences
        shorts = made.recurrence.states
        ports.update({state_output(made.name, short): state for short, state in zip(shorts, states, strict=True)})
    return ports


def port_names(prefix: str, recurrence: Recurrence) -> list[str]:
    """Return every port a recurrent call may have."""
    states = [name(prefix, short) for short in recurrence.states for name in (state_input, state_output)]
    return [sequences_output(prefix), *states]


def _free(recurrence: Recurrence, prefixes: Mapping[str, Any], taken: set[str]) -> tuple[str, Recurrence]:
    """Return the first of name, name_1, ... that no layer has and none of whose ports is taken, in either case."""
    used = {name.lower() for name in taken}
    for k in itertools.count():
        prefix = f"{recurrence.name}_{k}" if k else recurrence.name
        wanted = {name.lower() for name in port_names(prefix, recurrence)}
        if prefix not in prefixes and not wanted & used:
            return prefix, replace(recurrence, name=prefix)
    raise AssertionError("there is always a free number")


def carried_states(made: Call) -> dict[str, str]:
    """Return input port -> short state name, for the states of a call that come from a port."""
    if made.own:
        return {state_input(made.name, short): short for short in made.recurrence.states}
    return {port: short for short, port in made.given.items()}


def _lone_cell(model: Any) -> str | None:
    """Say what to do with a cell outside of a recurrent layer; None where there is none."""
    cells = [layer for _, layer in swap.sublayers(model) if hasattr(layer, "state_size")]
    if not cells:
        return None
    kind = type(cells[0]).__name__
    return (
        f"layer {cells[0].name!r} ({kind}) is a cell that the model calls by itself, for one time step: its states"
        " are\n  whatever the model passes to it, so there is none to make explicit.\n"
        f"  Put it into a recurrent layer, keras.layers.RNN({kind}(...)), for calls of any number of steps;\n"
        "  Keras' model.export() exports it as it is."
    )


def _batch(inputs: list[Input]) -> int | None:
    """Return how many samples the inputs declare; None where they leave it open."""
    declared = {each.shape[0]: each.name for each in inputs if each.shape and each.shape[0] is not None}
    if len(declared) > 1:
        told = " and ".join(f"{name!r} {size}" for size, name in declared.items())
        raise UnsupportedModel(
            f"the model's inputs declare batches of different sizes: {told}.\n"
            "  Give all inputs one batch size, or none."
        )
    return next(iter(declared), None)


def _inputs(model: Any) -> tuple[Any, list[Input]]:
    """Return the structure a model is called with and each tensor in it."""
    functional = inside.functional_of(model)
    if functional is not None:
        tensors = keras.tree.flatten(functional.input)
        return functional.input, [Input(inside.source(x), x.shape, str(x.dtype)) for x in tensors]
    config = model.get_build_config() or {}
    if not config:
        raise UnsupportedModel(
            f"model {model.name!r} isn't built, so the shape of its input isn't known.\n"
            "  Call it on data once, then export it."
        )
    # A subclassed model knows the shape of the data it was first called on: {argument: shape}, or one shape alone.
    first = next(iter(inside.arguments(model)))
    shapes = config.get("shapes_dict") or {first: config["input_shape"]}
    named = {argument.removesuffix("_shape"): shape for argument, shape in shapes.items()}
    for argument, parameter in inside.arguments(model).items():
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            named.setdefault(argument, None)
    if len(named) > 1:
        raise UnsupportedModel(
            f"model {model.name!r} is called with {len(named)} arguments ({', '.join(named)}).\n"
            "  Supported: one argument, which may be a list or dict of tensors. Wrap the model to take a dict."
        )
    [(argument, shape)] = named.items()
    open_time = partial(_open_time, dtype=model.compute_dtype)
    if isinstance(shape, dict):
        keys = sorted(shape)
        return dict.fromkeys(keys, 0), [open_time(key, shape[key]) for key in keys]
    if isinstance(shape[0], (tuple, list)):
        return [0] * len(shape), [open_time(f"{argument}_{k}", s) for k, s in enumerate(shape)]
    holds_tokens = len(shape) == 2 and any(
        isinstance(layer, keras.layers.Embedding) for _, layer in swap.sublayers(model)
    )
    return 0, [Input(argument, (None, None), "int32") if holds_tokens else open_time(argument, shape)]


def _open_time(name: str, shape: tuple[int | None, ...], dtype: str) -> Input:
    """Return an input of a subclassed model: the B and T of the data it was built on bind nobody."""
    return Input(name, (None, None, *shape[2:]) if len(shape) > 2 else (None, *shape[1:]), dtype)


def _named(model: Any, outputs: Any) -> list[tuple[str, Any]]:
    """Return (name, tensor) for each output: a dict's keys, else the layers that give them, else output."""
    flat = keras.tree.flatten_with_path(outputs)
    if any(isinstance(key, str) for path, _ in flat for key in path):
        return [("_".join(map(str, path)), value) for path, value in flat]
    functional = inside.functional_of(model)
    names = ["output"] * len(flat) if functional is None else functional.output_names
    return [(name, value) for name, (_, value) in zip(names, flat, strict=True)]
