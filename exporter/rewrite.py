"""Run a Keras model with the time loop of its recurrent layers replaced: the one module that knows Keras' inside.

    Given   model(x):  ... LSTM: own zero state -> Keras' loop -> last state dropped ...
    Result  call(model, {x, lstm_h_in, lstm_c_in}, compute):
            ... LSTM: state from the feeds -> compute(...) -> sequences, h, c recorded ...

Everything around the loops stays Keras' own. In Keras 3 every recurrent layer gets its first state from
`get_initial_state(batch_size)` unless the model gives one, and runs its loop in
`inner_loop(sequences, initial_state, mask, training)`: these two methods are swapped on each instance while the model
is called. Neither is a documented extension point; tests/exporter/test_rewrite.py runs them on the installed Keras.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from keras.src.models.functional import Functional

from signatures.contract import LENGTHS, state_input, unique

Tensor = Any  # tf.Tensor, eager or symbolic

WRAPPERS = (keras.layers.Wrapper, keras.layers.Bidirectional)
"""Layers that run the layers they hold in a way of their own."""


@dataclass
class Call:
    """One call of one recurrent layer while the model runs.

    Attributes:
        name: Port prefix; a layer called twice gets another for the second call.
        layer: The Keras layer.
        sequences: Its input, [B, T, F].
        state: Initial states, [B, U] each.
        mask: Valid steps [B, T] bool, or None.
        continues: Whether the state came from a port, so that this call goes on where the last one ended.
        loop: Keras' own `inner_loop` of the layer.
        outputs: After the call: sequences [B, T, U] and the final states.
    """

    name: str
    layer: Any
    sequences: Tensor
    state: list[Tensor]
    mask: Tensor | None
    continues: bool
    loop: Callable[..., Any]
    outputs: tuple[Tensor, list[Tensor]] = field(default=(None, []))


STATES = ("h", "c")
"""Short names of an LSTM's states, in Keras' order."""

Compute = Callable[[Call], tuple[Tensor, list[Tensor]]]


def functional_of(model: Any) -> Any:
    """Return the functional graph of a Functional or Sequential model; None for a subclassed one."""
    inner = model._functional if isinstance(model, keras.Sequential) else model
    return inner if isinstance(inner, Functional) else None


def sublayers(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) for every layer inside a model, outer names first, once each; nested models themselves too.

    What a recurrent layer or a wrapper holds is its own business and not listed.
    """
    seen: set[int] = set()

    def walk(outer: Any, path: str) -> Iterator[tuple[str, Any]]:
        for inner in outer._layers:
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            # Sequential keeps its layers in a Functional of its own; a recurrent layer's cell belongs to the layer.
            here = (
                path if isinstance(outer, keras.Sequential) and inner is outer._functional else f"{path}{inner.name}/"
            )
            yield here.rstrip("/"), inner
            if not isinstance(inner, (keras.layers.RNN, *WRAPPERS)):
                yield from walk(inner, here)

    return walk(layer, "")


def recurrent_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) for every layer of the model that has a time loop.

    A wrapper that runs a recurrent layer in a way of its own (Bidirectional, TimeDistributed) stands for it.
    """
    for path, layer in sublayers(model):
        if isinstance(layer, keras.layers.RNN) or (isinstance(layer, WRAPPERS) and any(recurrent_layers(layer))):
            yield path, layer


def call(
    model: Any,
    layers: Mapping[str, Any],
    inputs: Any,
    feeds: Mapping[str, Tensor],
    compute: Compute,
    lowered: bool = False,
) -> tuple[Any, list[Call]]:
    """Run a model with its recurrent loops computed by `compute`.

    Args:
        model: The Keras model.
        layers: Port prefix -> each recurrent layer of it.
        inputs: What it is called with, in its own structure.
        feeds: State ports by name, where given (zeros elsewhere), and `lengths` [B], which masks every loop.
        compute: Gets each call of a recurrent layer, gives (sequences [B, T, U], final states).
        lowered: Whether to run TimeDistributed layers on all time steps at once as well, for a graph without a loop.

    Returns:
        The model's output and the calls in the order they were made.
    """
    calls: list[Call] = []
    own_state: dict[int, str] = {}
    lengths = feeds.get(LENGTHS)

    def swapped(prefix: str, layer: Any) -> dict[str, Any]:
        keras_loop, keras_state = layer.inner_loop, layer.get_initial_state

        def get_initial_state(batch_size: Any) -> list[Tensor]:
            name = own_state[id(layer)] = unique(prefix, [made.name for made in calls])
            zeros = keras_state(batch_size)
            return [feeds.get(state_input(name, short), zero) for short, zero in zip(STATES, zeros, strict=True)]

        def inner_loop(sequences: Tensor, initial_state: Any, mask: Any = None, training: Any = None) -> Any:
            name = own_state.pop(id(layer), None)
            made = Call(
                name or unique(prefix, [other.name for other in calls]),
                layer,
                sequences,
                list(initial_state),
                _joined(mask[0] if isinstance(mask, list) else mask, lengths, sequences),
                name is not None,
                keras_loop,
            )
            calls.append(made)
            made.outputs = compute(made)
            return made.outputs[0][:, -1], *made.outputs

        return {
            "inner_loop": inner_loop,
            "get_initial_state": get_initial_state,
            "_maybe_config_dropout_masks": lambda *args: None,  # it draws masks, and so turns a seed, even in inference
            "stateful": False,
            "unroll": False,
        }

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings(
            "ignore", "Layer .* was passed an input with a mask", UserWarning
        )  # as in any model call
        for prefix, layer in layers.items():
            stack.enter_context(_instance(layer, swapped(prefix, layer)))
        for _, layer in [("", model), *sublayers(model)]:
            if isinstance(
                layer, keras.Model
            ):  # a fixed number of time steps is checked by the caller, where it matters
                stack.enter_context(_instance(layer, {"_assert_input_compatibility": lambda *args: None}))
            if lowered and isinstance(layer, keras.layers.TimeDistributed):
                stack.enter_context(_instance(layer, {"call": _all_steps_at_once(layer.layer)}))
        if lengths is not None:
            inputs = keras.tree.map_structure(tf.identity, inputs)  # the mask stays on what it is put on
            for x in keras.tree.flatten(inputs):
                if len(x.shape) > 2 or x.dtype.is_integer:  # a vector has no time steps
                    x._keras_mask = tf.sequence_mask(lengths, tf.shape(x)[1])
        return model(inputs, training=False), calls


def keras_loop(made: Call) -> tuple[Tensor, list[Tensor]]:
    """Compute a call by Keras' own loop: the first witness.

    Keras gives zeros on masked steps before the first valid one. Where the call continues a stream the previous output
    is the h it was given, so that T steps at once equal T steps one by one.
    """
    with _instance(made.layer, {"return_sequences": True}):
        _, sequences, states = made.loop(made.sequences, made.state, made.mask, training=False)
    if made.mask is not None and made.continues:
        started = tf.cumsum(tf.cast(made.mask, tf.int32), axis=1)[..., None] > 0
        sequences = tf.where(started, sequences, made.state[0][:, None])
    return sequences, list(states)


def _all_steps_at_once(inner: Any) -> Callable[..., Tensor]:
    """Return a `TimeDistributed.call` that puts the time steps of `inner` into its batch.

    Given   for t in T: inner(x[:, t])           x [B, T, ...]
    Result  inner(x as [B * T, ...])
    """

    def call(inputs: Tensor, training: Any = None, mask: Any = None) -> Tensor:
        shape = tf.shape(inputs)
        outputs = inner.call(tf.reshape(inputs, [-1, *inputs.shape[2:]]))
        unfolded = tf.reshape(outputs, tf.concat([shape[:2], tf.shape(outputs)[1:]], axis=0))
        unfolded.set_shape([*inputs.shape[:2], *outputs.shape[1:]])
        return unfolded

    return call


def _joined(mask: Tensor | None, lengths: Tensor | None, sequences: Tensor) -> Tensor | None:
    if lengths is None:
        return mask
    valid = tf.sequence_mask(lengths, tf.shape(sequences)[1])
    return valid if mask is None else tf.logical_and(valid, mask)


@contextmanager
def _instance(target: Any, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Set attributes on one instance, past Keras' own __setattr__, and take them back afterwards."""
    before = {name: target.__dict__[name] for name in attributes if name in target.__dict__}
    target.__dict__.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            target.__dict__.pop(name, None)
        target.__dict__.update(before)


@contextmanager
def recorded(model: Any) -> Iterator[list[tuple[str, Any]]]:
    """Record (what, tensor) for what goes into and comes out of every innermost layer, in the order they run.

    A layer that is still running when an exception passes through it is the last entry, with None as its output.
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

    with ExitStack() as stack:
        for path, layer in sublayers(model):
            if isinstance(layer, (keras.layers.RNN, *WRAPPERS)) or not layer._layers:
                stack.enter_context(_instance(layer, {"call": watched(f"Layer {path!r}", layer.call)}))
        for _, outer in [("", model), *sublayers(model)]:
            graph = functional_of(outer)
            for operation in graph.operations if graph is not None else ():
                if not isinstance(operation, keras.Layer):  # keras.ops between the layers of a functional model
                    watch = watched(f"Operation {operation.name!r}", operation.call)
                    stack.enter_context(_instance(operation, {"call": watch}))
        yield record
