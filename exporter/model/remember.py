"""Run a model whose layers with memory go on from state ports, and watch what each of its layers is called with."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from signatures.contract import going_in, state_input

from ..inside import functional_of, held, is_keras_own, replaced
from ..memory.attention import Cache
from ..memory.form import Memories, Memory
from ..memory.window import Clock, steps_of
from .swap import LOCK, sublayers

Tensor = Any


@dataclass
class Remembering:
    """One run of a model that goes on from its state ports.

    Attributes:
        memories: What is remembered.
        feeds: State ports by name.
        inputs: The model's inputs, flattened; the first one over time tells how many steps there are.
        states: Port -> what it gives, once the layers have run.
    """

    memories: Memories
    feeds: Mapping[str, Tensor]
    inputs: Sequence[Tensor]
    states: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Swap the calls of the layers that remember."""
        by_target = _by_target(self.memories.calls)
        if self.memories.gated:
            counted = self._before() + self._total()
            self.states[self.memories.counter] = tf.minimum(counted, self.memories.gated)
        with LOCK, ExitStack() as stack:
            for memories in by_target.values():
                target = next(iter(memories.values())).target
                stack.enter_context(replaced(target, {"call": self._call(target.call, memories)}))
            yield

    def counts(self, clock: Clock, rows: Any) -> Tensor | None:
        """Return which rows of a tensor Keras has, [B, rows] bool; None for all."""
        if clock.delay <= 0:
            return None
        began = self._before() * clock.rate.denominator // clock.rate.numerator
        return tf.expand_dims(tf.range(rows), 0) + tf.expand_dims(began, 1) >= clock.delay

    def of_call(self, name: str, mask: Tensor | None, sequences: Tensor) -> Tensor | None:
        """Return the mask of a recurrent call, without rows that Keras doesn't have."""
        clock = self.memories.recurrent.get(name, Clock())
        return _both(mask, self.counts(clock, steps_of(sequences)))

    def _before(self) -> Tensor:
        """Return how many time steps there were before this call, [B]."""
        return self.feeds[going_in(self.memories.counter)]

    def _total(self) -> Any:
        return steps_of(self.inputs[self.memories.timed])

    def _call(self, own: Callable[..., Any], memories: Mapping[int, Memory]) -> Callable[..., Any]:
        def run(memory: Memory, args: Any, kwargs: Any) -> Any:
            tensors, again = taken(own, args, kwargs)
            timed = [x for x, clock in zip(tensors, memory.clocks, strict=True) if clock]
            on = on_rows(again, tensors, [clock is not None for clock in memory.clocks])
            ports = memory.ports
            states = [self.feeds[state_input(memory.name, short)] for short in memory.form.states]
            valid = mask_of(kwargs)
            if memory.form.gated:
                [clock] = {clock for clock in memory.clocks if clock}
                valid = _both(valid, self.counts(clock, steps_of(timed[0])))
            output, finals = memory.form.advance(on, timed, states, valid)
            for port, state in zip(ports.values(), finals, strict=True):
                self.states[port.name] = state
            return output

        return _remembering(own, memories, run)


@contextmanager
def limited(memories: Memories) -> Iterator[None]:
    """Have attention layers look no further on a whole recording than a stream does; watch them from within."""
    caches = [memory for memory in memories.calls if isinstance(memory.form, Cache) and not memory.form.own]
    by_target = _by_target(caches)
    with LOCK, ExitStack() as stack:
        for calls in by_target.values():
            target = next(iter(calls.values())).target
            stack.enter_context(replaced(target, {"call": _limited(target.call, calls)}))
        yield


def _limited(own: Callable[..., Any], memories: Mapping[int, Memory]) -> Callable[..., Any]:
    def run(memory: Memory, args: Any, kwargs: Any) -> Any:
        tensors, again = taken(own, args, kwargs)
        timed = [clock is not None for clock in memory.clocks]
        rows = [x for x, has_rows in zip(tensors, timed, strict=True) if has_rows]
        assert isinstance(memory.form, Cache)
        if rows[0].shape[1] <= memory.form.rows:
            return own(*args, **kwargs)
        return memory.form.on_recording(on_rows(again, tensors, timed), rows)

    return _remembering(own, memories, run)


def _remembering(
    own: Callable[..., Any], memories: Mapping[int, Memory], run: Callable[[Memory, Any, Any], Any]
) -> Callable[..., Any]:
    """Return a layer's call in which those that remember something are run otherwise, counted from the first."""
    made = itertools.count()

    def call(*args: Any, **kwargs: Any) -> Any:
        memory = memories.get(next(made))
        return own(*args, **kwargs) if memory is None else run(memory, args, kwargs)

    return call


def _by_target(calls: Iterable[Memory]) -> dict[int, dict[int, Memory]]:
    """Return target's id -> which call of it -> what that remembers."""
    found: dict[int, dict[int, Memory]] = {}
    for memory in calls:
        found.setdefault(id(memory.target), {})[memory.nth] = memory
    return found


def _both(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    if mask is None or other is None:
        return other if mask is None else mask
    return tf.logical_and(mask, other)


def mask_of(kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the mask that a layer is called with."""
    mask = kwargs.get("mask")
    return next((each for each in keras.tree.flatten(mask) if each is not None), None) if mask is not None else None


def taken(own: Callable[..., Any], args: Any, kwargs: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    """Return the tensors that a layer is called with, and its call with others in their places and no mask."""
    named = {name: value for name, value in kwargs.items() if name != "mask"}
    flat = keras.tree.flatten((args, named))
    tensors = [x for x in flat if keras.ops.is_tensor(x)]

    def again(others: Sequence[Tensor]) -> Any:
        place = iter(others)
        filled = [next(place) if keras.ops.is_tensor(x) else x for x in flat]
        new_args, new_named = keras.tree.pack_sequence_as((args, named), filled)
        return own(*new_args, **new_named)

    return tensors, again


def on_rows(
    again: Callable[[Sequence[Tensor]], Any], tensors: Sequence[Tensor], timed: Sequence[bool]
) -> Callable[..., Any]:
    """Return a call with other tensors in the place of those that have rows, and its own for the rest."""

    def on(*others: Tensor) -> Any:
        place = iter(others)
        return again([next(place) if has_rows else x for x, has_rows in zip(tensors, timed, strict=True)])

    return on


@dataclass(frozen=True)
class Watched:
    """One call of a layer or operation.

    Attributes:
        what: For messages: Layer 'conv'.
        path: Its path in the model.
        target: The layer or operation.
        nth: Which call of it, from 0.
        inputs: The tensors it is called with.
        mask: The mask that it is called with.
        outputs: Those that it gives.
        again: Its own call, on other tensors.
        given: Its arguments, positional ones and by name.
    """

    what: str
    path: str
    target: Any
    nth: int
    inputs: list[Tensor]
    mask: Tensor | None
    outputs: list[Tensor]
    again: Callable[[Sequence[Tensor]], Any]
    given: tuple[Any, Any] = ((), {})


@contextmanager
def watched(model: Any, blocks: frozenset[str] = frozenset()) -> Iterator[list[Watched]]:
    """Record every call of a layer or operation of a model, innermost ones alone.

    Args:
        model: The Keras model.
        blocks: Paths of layers that are recorded as one, without those inside.
    """
    record: list[Watched] = []

    def watch(what: str, path: str, target: Any) -> Callable[..., Any]:
        own, made = target.call, itertools.count()

        def call(*args: Any, **kwargs: Any) -> Any:
            tensors, again = taken(target, args, kwargs)  # the layer itself, which casts its weights
            nth, outputs = next(made), own(*args, **kwargs)
            flat = [y for y in keras.tree.flatten(outputs) if keras.ops.is_tensor(y)]
            record.append(Watched(what, path, target, nth, tensors, mask_of(kwargs), flat, again, (args, kwargs)))
            return outputs

        return call

    wholes = blocks | {path for path, layer in sublayers(model) if is_one(layer)}
    with LOCK, ExitStack() as stack:
        for path, layer in sublayers(model):
            if any(path.startswith(f"{whole}/") for whole in wholes):
                continue
            if path in blocks or is_one(layer):
                stack.enter_context(replaced(layer, {"call": watch(f"Layer {path!r}", path, layer)}))
            graph = functional_of(layer) if path not in blocks else None
            _watch_operations(graph, stack, watch)
        _watch_operations(functional_of(model), stack, watch)
        yield record


def _watch_operations(graph: Any, stack: ExitStack, watch: Callable[..., Any]) -> None:
    for operation in graph.operations if graph is not None else ():
        if not isinstance(operation, keras.Layer):  # keras.ops between the layers of a functional model
            name = operation.name
            stack.enter_context(replaced(operation, {"call": watch(f"Operation {name!r}", name, operation)}))


def is_one(layer: Any) -> bool:
    """Whether a layer is a whole of its own, whatever it holds."""
    whole = (keras.layers.RNN, keras.layers.Wrapper)
    own = is_keras_own(type(layer), "layers") and not isinstance(layer, keras.layers.Bidirectional)
    return isinstance(layer, whole) or not held(layer) or (own and not isinstance(layer, keras.Model))


def blocks_of(model: Any, without: tuple[type, ...] = ()) -> frozenset[str]:
    """Return the paths of the user's own layers that hold others, outermost ones, without a recurrent layer.

    Args:
        model: The Keras model.
        without: Layers of other kinds that none of them may hold.
    """
    apart = (keras.layers.RNN, *without)
    found: list[str] = []
    for path, layer in sublayers(model):
        inner = [each for _, each in sublayers(layer)]
        plain = not any(hasattr(each, "state_size") or isinstance(each, apart) for each in [layer, *inner])
        own = functional_of(layer) is None if isinstance(layer, keras.Model) else not is_keras_own(type(layer))
        if held(layer) and own and plain and not any(path.startswith(f"{outer}/") for outer in found):
            found.append(path)
    return frozenset(found)
