"""Run a Keras model with the time loop of its recurrent layers replaced.

    Given   model(x):  ... LSTM: own zero state -> Keras' loop -> last state dropped ...
    Result  call(model, {x, lstm_h_in, lstm_c_in}, compute):
            ... LSTM: state from the feeds -> compute(...) -> sequences, h, c recorded ...

Everything around the loops stays Keras' own. In Keras 3 every recurrent layer gets its first state from
`get_initial_state(batch_size)` unless the model gives one, and runs its loop in
`inner_loop(sequences, initial_state, mask, training)`: these two methods are swapped on each instance while the model
is called. Neither is meant for it; tests/exporter/model/test_swap.py runs them on the installed Keras.
"""

import functools
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from signatures.contract import LENGTHS, identifier, state_input, unique
from signatures.errors import UnsupportedModel
from signatures.ports import factors

from ..inside import Private, flattened, functional_of, held, masked, policy, replaced, takes_mask
from ..memory.masks import spread
from ..memory.recurrence import Recurrence

Tensor = Any  # tf.Tensor, eager or symbolic

IN_A_GRAPH = 200
"""Time steps beyond which tracing Keras' own loop takes less time than running it outside a graph."""

LOCK = threading.RLock()
"""Held while methods are swapped: two threads that export one model would take back each other's."""


@dataclass
class Call:
    """One call of one recurrent layer while the model runs.

    Attributes:
        name: Port prefix; a layer called twice gets another for the second call.
        recurrence: The layer as data, under its own prefix.
        sequences: Its input, [B, T, ...].
        states: Initial states, [B, ...] each, in one list however Keras nests them.
        mask: Valid steps [B, T] bool, or None.
        own: Whether its first state is the layer's own: zeros in Keras, a port of the layer's here.
        given: Short name of a state -> the input port that is it, where the model's own inputs are the first state.
        loop: Keras' own `inner_loop` of the layer on so many rows, None for all, giving sequences and final states.
        outputs: After the call: sequences [B, T, ...] in the order the steps are run, and the final states.
    """

    name: str
    recurrence: Recurrence
    sequences: Tensor
    states: list[Tensor]
    mask: Tensor | None
    own: bool
    given: Mapping[str, str]
    loop: Callable[..., tuple[Tensor, list[Tensor]]]
    outputs: tuple[Tensor, list[Tensor]] = field(default=(None, []))

    @property
    def continues(self) -> bool:
        """Whether every state came from a port, so that this call goes on where the last one ended."""
        return self.own or len(self.given) == len(self.states)

    def first(self, rows: int) -> "Call":
        """Return the call of the first rows alone."""
        mask = None if self.mask is None else self.mask[:, :rows]
        return replace(self, sequences=self.sequences[:, :rows], mask=mask, loop=functools.partial(self.loop, rows))


Compute = Callable[[Call], tuple[Tensor, list[Tensor]]]
Gate = Callable[[str, Tensor | None, Tensor], Tensor | None]


def sublayers(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) for every layer inside a model, outer names first, once each; nested models themselves too.

    The halves of a Bidirectional layer are its "forward" and "backward". What a recurrent layer or another wrapper
    holds is its own business and not listed.
    """
    seen: set[int] = set()

    def walk(outer: Any, path: str) -> Iterator[tuple[str, Any]]:
        for inner in held(outer):
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            here = f"{path}{inner.name}/"
            if isinstance(outer, keras.Sequential) and inner is functional_of(outer):
                here = path  # Sequential keeps its layers in a Functional of its own
            if isinstance(outer, keras.layers.Bidirectional):
                here = f"{path}{'forward' if inner is outer.forward_layer else 'backward'}/"
            yield here.rstrip("/"), inner
            if not isinstance(inner, (keras.layers.RNN, keras.layers.Wrapper)):
                yield from walk(inner, here)

    return walk(layer, "")


def recurrent_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) for every layer of the model that has a time loop, those inside TimeDistributed too.

    Another wrapper that runs a recurrent layer in a way that isn't known here stands for it.
    """
    for path, layer in sublayers(model):
        if isinstance(layer, keras.layers.TimeDistributed):
            yield from ((f"{path}/{inner_path}", inner) for inner_path, inner in recurrent_layers(layer))
        elif isinstance(layer, keras.layers.RNN) or (
            isinstance(layer, keras.layers.Wrapper) and any(recurrent_layers(layer))
        ):
            yield path, layer


def call(
    model: Any,
    layers: Mapping[str, tuple[Any, Recurrence]],
    inputs: Any,
    feeds: Mapping[str, Tensor],
    compute: Compute,
    lowered: bool = False,
    repeated: Mapping[str, tuple[Any, Recurrence]] = {},
    leads: Mapping[str, str] = {},
    gate: Gate | None = None,
) -> tuple[Any, list[Call]]:
    """Run a model with its recurrent loops computed by `compute`.

    Args:
        model: The Keras model.
        layers: Port prefix -> each recurrent layer of it, and the same as data.
        inputs: What it is called with, in its own structure.
        feeds: State ports by name, where given (zeros elsewhere), and `lengths` [B], which masks every loop.
        compute: Gets each call of a recurrent layer, gives (sequences [B, T, ...], final states).
        lowered: Whether to run all TimeDistributed layers on all time steps at once, for a graph without a loop; those
            around a layer that has ports always are, so that it is called once.
        repeated: Recurrent layers that start anew at every step of an outer axis: computed as well, without ports, not
            in the list of calls.
        leads: Port prefix -> what the rows of its calls are, where that isn't "batch": "batch * 4" or "4 * batch".
        gate: Name, mask and sequences of a call -> its mask without the rows that Keras doesn't have.

    Returns:
        The model's output and the calls in the order they were made.
    """
    run = _Run(layers, repeated, feeds, compute, leads, gate)
    once = lowered or LENGTHS in feeds  # Keras gives an inner layer a mask without a time axis
    carrying = {id(layer) for layer, _ in layers.values()}
    with LOCK, ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_without_advice())
        # A layer that knows no masks drops them, as in any call of the model.
        warnings.filterwarnings("ignore", "Layer .* was passed an input with a mask", UserWarning)
        warnings.filterwarnings("ignore", "You are using a softmax over axis", UserWarning)  # the first time step's
        for prefix, (layer, recurrence) in {**layers, **repeated}.items():
            stack.enter_context(replaced(layer, run.swaps(prefix, layer, recurrence)))
        for _, layer in [("", model), *sublayers(model)]:
            if isinstance(layer, keras.Model):  # survey finds out which numbers of time steps it takes
                stack.enter_context(replaced(layer, {Private.INPUT_CHECK: lambda *args: None}))
            if isinstance(layer, keras.layers.Bidirectional):  # its shortcut past both layers is for a GPU
                shortcuts = (Private.FUSED_LSTM, Private.FUSED_GRU)
                stack.enter_context(replaced(layer, dict.fromkeys(shortcuts, lambda *args: False)))
            if lowered:
                stack.enter_context(replaced(layer, _for_graphs(layer)))
                if isinstance(layer, keras.layers.TimeDistributed):
                    stack.enter_context(replaced(layer.layer, _for_graphs(layer.layer)))
            elif isinstance(layer, keras.layers.TimeDistributed) and any(
                once or id(inner) in carrying for _, inner in recurrent_layers(layer)
            ):
                stack.enter_context(replaced(layer, {"call": _all_steps_at_once(layer.layer)}))
        return model(inputs, training=False), run.calls


@dataclass
class _Run:
    """One run of a model whose recurrent layers something else computes; see `call` for its arguments.

    Attributes:
        calls: Those that were made so far.
        named: Layer's id -> the name of its next call, which has asked for its initial state.
    """

    layers: Mapping[str, tuple[Any, Recurrence]]
    repeated: Mapping[str, tuple[Any, Recurrence]]
    feeds: Mapping[str, Tensor]
    compute: Compute
    leads: Mapping[str, str]
    gate: Gate | None
    calls: list[Call] = field(default_factory=list)
    named: dict[int, str] = field(default_factory=dict)

    def swaps(self, prefix: str, layer: Any, recurrence: Recurrence) -> dict[str, Any]:
        """Return what is swapped on a recurrent layer."""
        swaps: dict[str, Any] = {
            "inner_loop": functools.partial(self._inner_loop, prefix, layer, recurrence, layer.inner_loop),
            Private.DROPOUT_MASKS: lambda *args: None,
            "stateful": False,
            "unroll": False,
        }
        if prefix not in self.repeated:  # those start from zeros at every outer step
            swaps["get_initial_state"] = functools.partial(
                self._initial_state, prefix, layer, recurrence, layer.get_initial_state
            )
        return swaps

    def _name(self, prefix: str) -> str:
        made = [other.name for other in self.calls]
        return unique(prefix, [*made, *self.layers, *self.repeated]) if prefix in made else prefix

    def _initial_state(
        self, prefix: str, layer: Any, recurrence: Recurrence, keras_state: Callable[..., Any], batch_size: Any
    ) -> Any:
        """Give a layer that starts on its own the state ports of its call, zeros where there are none."""
        name = self.named[id(layer)] = self._name(prefix)
        zeros = keras_state(batch_size)
        ports = [state_input(name, short) for short in recurrence.states]
        flat = [
            tf.cast(self.feeds[port], zero.dtype) if port in self.feeds else zero
            for port, zero in zip(ports, keras.tree.flatten(zeros), strict=True)
        ]
        return keras.tree.pack_sequence_as(zeros, flat)

    def _mask(self, prefix: str, name: str, mask: Tensor | None, sequences: Tensor) -> Tensor | None:
        """Return the valid steps of a call."""
        lengths = _rows_of(self.feeds.get(LENGTHS), self.leads.get(prefix, "batch"))
        mask = _joined(mask, lengths, sequences)
        return mask if self.gate is None else self.gate(name, mask, sequences)

    def _inner_loop(
        self,
        prefix: str,
        layer: Any,
        recurrence: Recurrence,
        keras_loop: Callable[..., Any],
        sequences: Tensor,
        initial_state: Any,
        mask: Any = None,
        training: Any = None,
    ) -> Any:
        """Compute a call instead of Keras' loop, and remember it."""
        mask = mask[0] if isinstance(mask, list) else mask

        def loop(rows: int | None = None) -> tuple[Tensor, list[Tensor]]:
            valid = None if made.mask is None else made.mask[:, :rows]
            with replaced(layer, {"return_sequences": True}):
                _, outputs, states = keras_loop(sequences[:, :rows], initial_state, valid, training=False)
            return outputs, keras.tree.flatten(states)

        name = self.named.pop(id(layer), None)
        states = keras.tree.flatten(initial_state)
        given = {
            short: port
            for short, state in zip(recurrence.states, states, strict=True)
            for port, value in self.feeds.items()
            if state is value
        }
        called = name or self._name(prefix)
        made = Call(
            called,
            recurrence,
            tf.cast(sequences, recurrence.dtype),  # a cell may compute in another type than its layer
            [tf.cast(state, recurrence.dtype) for state in states],
            mask if prefix in self.repeated else self._mask(prefix, called, mask, sequences),
            name is not None,
            {} if name else given,
            loop,
        )
        if prefix in self.repeated:
            made = replace(made, name=prefix)
        else:
            self.calls.append(made)
        made.outputs = self.compute(made)
        outputs, finals = made.outputs
        # The very tensor that is a port wherever it is one: survey finds model outputs that are ports by identity.
        k = recurrence.output if made.mask is None or made.continues else None
        last = outputs[:, -1] if k is None or recurrence.zero_masked else finals[k]
        return last, outputs, keras.tree.pack_sequence_as(initial_state, finals)


def keras_loop(made: Call) -> tuple[Tensor, list[Tensor]]:
    """Compute a call by Keras' own loop: the first witness.

    Keras gives zeros on masked steps before the first valid one. Where the call continues a stream the previous output
    is the state it was given, so that T steps at once equal T steps one by one.
    """
    long = made.sequences.shape[1] > IN_A_GRAPH  # outside a graph it takes some 2 ms a time step
    sequences, states = tf.function(made.loop, autograph=False)() if long else made.loop()
    recurrence = made.recurrence
    if made.mask is not None and made.continues and recurrence.output is not None and not recurrence.zero_masked:
        mask = tf.reverse(made.mask, [1]) if recurrence.reverse else made.mask
        started = spread(tf.expand_dims(tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0, -1), sequences)
        sequences = tf.where(started, sequences, tf.expand_dims(made.states[recurrence.output], 1))
    return sequences, states


def with_lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return a model input [B, T, ...] with its valid steps as its Keras mask."""
    if lengths is None:
        return x
    return masked(tf.identity(x), tf.sequence_mask(lengths, tf.shape(x)[1]))  # the mask stays on what it is put on


def _for_graphs(layer: Any) -> dict[str, Any]:
    """Return what is swapped on a layer that is traced, so that every target can take it; its numbers stay the same."""
    swaps: dict[str, Any] = {}
    if isinstance(layer, keras.layers.TimeDistributed):
        swaps["call"] = _all_steps_at_once(layer.layer)
    if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", layer.name):
        swaps["name"] = identifier(layer.name)  # not a name for a scope in a graph
    return swaps


def _all_steps_at_once(inner: Any) -> Callable[..., Tensor]:
    """Return a `TimeDistributed.call` that puts the time steps of `inner` into its batch.

    Given   for t in T: inner(x[:, t])           x [B, T, ...]
    Result  inner(x as [B * T, ...])
    """

    def call(inputs: Tensor, training: Any = None, mask: Any = None) -> Tensor:
        given = {}
        if mask is not None and len(mask.shape) > 2 and takes_mask(inner):
            given["mask"] = _folded(mask)
        outputs = inner.call(_folded(inputs), **given)
        sizes = [*_sizes(inputs)[:2], *_sizes(outputs)[1:]]
        return _reshaped(outputs, sizes, [*inputs.shape[:2], *outputs.shape[1:]])

    return call


def _folded(x: Tensor) -> Tensor:
    """Return x [B, T, ...] as [B * T, ...]."""
    known = None not in x.shape[:2]
    return _reshaped(x, [-1, *_sizes(x)[2:]], [x.shape[0] * x.shape[1] if known else None, *x.shape[2:]])


def _sizes(x: Tensor) -> list[Any]:
    """Return the sizes of a tensor, numbers where they are known."""
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(x.shape)]


def _reshaped(x: Tensor, sizes: list[Any], known: list[int | None]) -> Tensor:
    """Reshape a tensor; where one size at most is open, by constants: TFLite's converter reads no others."""
    constant = known.count(None) < 2
    y = tf.reshape(x, [-1 if size is None else size for size in known] if constant else tf.stack(sizes))
    y.set_shape(known)
    return y


def _rows_of(lengths: Tensor | None, lead: str) -> Tensor | None:
    """Return the length of each row of a call, of lengths [B]."""
    _, before, after = factors(lead)
    if lengths is None or before * after == 1:
        return lengths
    return tf.tile(tf.repeat(lengths, after), [before])


def _joined(mask: Tensor | None, lengths: Tensor | None, sequences: Tensor) -> Tensor | None:
    if lengths is None:
        return mask
    valid = tf.sequence_mask(lengths, tf.shape(sequences)[1])
    return valid if mask is None else tf.logical_and(valid, mask)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep TensorFlow from warning of functions that are traced anew: Keras' for convolutions in groups, loops here."""

    def other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


@contextmanager
def computing_in(model: Any, dtype: str) -> Iterator[None]:
    """Have every layer and input of a model be of a type, whatever its policy; weights are cast as they are read.

    Raises:
        UnsupportedModel: When a layer is quantized: its weights are no floats.
    """
    with LOCK, ExitStack() as stack:
        layers = flattened(model)
        graphs = [graph for layer in layers if isinstance(layer, keras.Model) and (graph := functional_of(layer))]
        for layer in [*layers, *graphs]:
            if layer.compute_dtype != dtype:
                if layer.quantization_mode is not None:
                    raise UnsupportedModel(
                        f"layer {layer.name!r} is quantized ({layer.quantization_mode}): it can't compute in {dtype}.\n"
                        f"  Export it at its own type, {layer.compute_dtype}, or from the model before quantize()."
                    )
                stack.enter_context(replaced(layer, {Private.POLICY: policy(dtype, layer.variable_dtype)}))
            if isinstance(layer, keras.layers.InputLayer) and keras.backend.is_float_dtype(layer.dtype):
                for declared in (layer, layer.output):
                    stack.enter_context(replaced(declared, {Private.DTYPE: dtype}))
        yield


def compute_types(model: Any) -> dict[str, str]:
    """Return the types that a model's layers compute in, each with the path of the first layer that does."""
    types: dict[str, str] = {}
    for path, layer in sublayers(model):
        if not isinstance(layer, keras.layers.InputLayer):
            types.setdefault(layer.compute_dtype, path)
    return types


@contextmanager
def recorded(model: Any, inside: bool = False) -> Iterator[list[tuple[str, Any]]]:
    """Record (what, tensor) for what goes into and comes out of every innermost layer, in the order they run.

    A layer that is still running when an exception passes through it is the last entry, with None as its output.

    Args:
        model: The Keras model.
        inside: Whether to record layers inside TimeDistributed, too, with all time steps in the batch.
    """
    record: list[tuple[str, Any]] = []

    def watched(what: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def run_and_record(*args: Any, **kwargs: Any) -> Any:
            # A difference that shows in an input was made outside the layers: by an operation between them.
            before = f"An operation before {what[0].lower()}{what[1:]}"
            record.extend((before, x) for x in keras.tree.flatten(args) if keras.ops.is_tensor(x))
            record.append((what, None))
            place = len(record) - 1
            outputs = run(*args, **kwargs)
            record[place : place + 1] = [(what, value) for value in keras.tree.flatten(outputs)]
            return outputs

        return run_and_record

    with LOCK, ExitStack() as stack:
        for path, layer in sublayers(model):
            if isinstance(layer, (keras.layers.RNN, keras.layers.Wrapper)) or not held(layer):
                stack.enter_context(replaced(layer, {"call": watched(f"Layer {path!r}", layer.call)}))
            if inside and isinstance(layer, keras.layers.TimeDistributed):
                for inner_path, inner in [("", layer.layer), *sublayers(layer.layer)]:
                    if not held(inner):
                        watch = watched(f"Layer {f'{path}/{inner_path}'!r}", inner.call)
                        stack.enter_context(replaced(inner, {"call": watch}))
        for _, outer in [("", model), *sublayers(model)]:
            graph = functional_of(outer)
            for operation in graph.operations if graph is not None else ():
                if not isinstance(operation, keras.Layer):  # keras.ops between the layers of a functional model
                    watch = watched(f"Operation {operation.name!r}", operation.call)
                    stack.enter_context(replaced(operation, {"call": watch}))
        yield record
