"""Keras' inside: the one module that reads or replaces what Keras 3 doesn't document.

Every private name stands here once and is looked up on the installed Keras whenever it is used: one that isn't there is
refused with Keras' version. tests/exporter/test_inside.py finds each of them, and none in another module.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any

import keras
from keras.src.models.functional import Functional

from signatures.errors import UnsupportedModel


class Private(StrEnum):
    """An attribute of Keras' own objects that isn't documented."""

    ATTENTION_MASK = "_compute_attention_mask"
    """Method of attention layers with heads: which time steps each one looks at."""
    CALLS = "_inbound_nodes"
    """Of a layer or operation: where it was called in functional models."""
    DROPOUT_MASKS = "_maybe_config_dropout_masks"
    """Method of a recurrent layer that draws masks, and so turns a seed, even in inference."""
    DTYPE = "_dtype"
    """Of an InputLayer and its tensor."""
    FLATTEN = "_flatten_layers"
    """Method of a layer: it and all layers inside it."""
    FUNCTIONAL = "_functional"
    """Of a Sequential: its graph."""
    FUSED_GRU = "_can_attempt_fused_gru"
    """Method of Bidirectional: whether it may run both halves by one call of cuDNN."""
    FUSED_LSTM = "_can_attempt_fused_lstm"
    """The same."""
    HISTORY = "_keras_history"
    """Of a symbolic tensor: the operation that gave it."""
    INPUT_CHECK = "_assert_input_compatibility"
    """Method of a layer that compares what it is called with to what it was built for."""
    LAYERS = "_layers"
    """Of a layer: those it holds itself."""
    MASK = "_keras_mask"
    """Of a tensor: its valid time steps."""
    POLICY = "_dtype_policy"
    """Of a layer: the types it computes and keeps its weights in."""
    SCORE_MASK = "_calculate_score_mask"
    """Method of other attention layers: the same."""
    SIGNATURE = "_call_signature"
    """Of a layer: the arguments of its call."""
    STATE_VARIABLES = "_create_state_variables"
    """Method of a stateful recurrent layer that makes what it keeps."""
    TAKES_MASK = "_call_has_mask_arg"
    """Of a layer: whether its call takes a mask."""
    VARIABLE_DTYPE = "_variable_dtype"
    """Of a policy: the type of weights."""
    WINDOW = "_sliding_window"
    """Of MultiHeadAttention: how many time steps each one looks at."""


def read(target: Any, name: Private) -> Any:
    """Return a private attribute.

    Raises:
        UnsupportedModel: When the installed Keras doesn't have it.
    """
    require(target, [name])
    return getattr(target, name)


def require(target: Any, names: Sequence[str]) -> None:
    """Refuse a Keras whose object or class has no such attributes: reading them would fail, setting them do nothing."""
    if missing := [str(name) for name in names if not hasattr(target, name)]:
        owner = target if isinstance(target, type) else type(target)
        raise UnsupportedModel(
            f"Keras {keras.__version__} has no {owner.__name__}.{missing[0]}, which an export needs.\n"
            "  Install a version that this export-lstm knows: pip install 'keras==3.15.*'."
        )


@contextmanager
def replaced(target: Any, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Set attributes on an instance, past Keras' own __setattr__, a class or a module, and take them back afterwards.

    Raises:
        UnsupportedModel: When it has no such attribute.
    """
    require(target, list(attributes))
    names = {str(name): value for name, value in attributes.items()}
    own = vars(target)
    before = {name: own[name] for name in names if name in own}
    put = partial(type.__setattr__, target) if isinstance(target, type) else own.__setitem__
    take = partial(type.__delattr__, target) if isinstance(target, type) else own.__delitem__
    for name, value in names.items():
        put(name, value)
    try:
        yield
    finally:
        for name in names:
            if name in before:
                put(name, before[name])
            elif name in vars(target):
                take(name)


def functional_of(model: Any) -> Any:
    """Return the functional graph of a Functional or Sequential model; None for a subclassed one."""
    inner = read(model, Private.FUNCTIONAL) if isinstance(model, keras.Sequential) else model
    return inner if isinstance(inner, Functional) else None


def held(layer: Any) -> Sequence[Any]:
    """Return the layers that a layer holds itself."""
    layers: Sequence[Any] = read(layer, Private.LAYERS)
    return layers


def flattened(model: Any) -> list[Any]:
    """Return a model and every layer inside it, those of other layers too."""
    return list(read(model, Private.FLATTEN)(include_self=True, recursive=True))


def arguments(model: Any) -> Mapping[str, Any]:
    """Return the parameters of a model's call by name."""
    parameters: Mapping[str, Any] = read(model, Private.SIGNATURE).parameters
    return parameters


def takes_mask(layer: Any) -> bool:
    """Whether a layer's call takes a mask."""
    return bool(read(layer, Private.TAKES_MASK))


def calls(operation: Any) -> list[tuple[Any, Any]]:
    """Return the positional and named arguments of each call of a layer or operation in functional models."""
    return [(node.arguments.args, node.arguments.kwargs) for node in read(operation, Private.CALLS)]


def source(tensor: Any) -> str:
    """Return the name of the operation that gives a symbolic tensor."""
    return str(read(tensor, Private.HISTORY).operation.name)


def masked(tensor: Any, mask: Any) -> Any:
    """Return a tensor with a mask put on it, as Masking and Embedding do."""
    setattr(tensor, Private.MASK, mask)
    return tensor


def policy(dtype: str, weights: str) -> Any:
    """Return a policy to compute in one type with weights of another: Keras casts them where the two differ."""
    made = keras.DTypePolicy(dtype)
    require(made, [Private.VARIABLE_DTYPE])
    setattr(made, Private.VARIABLE_DTYPE, weights)
    return made


def is_keras_own(cls: type, part: str = "") -> bool:
    """Whether a class is Keras' own, perhaps of a part such as "layers"."""
    return cls.__module__.startswith(f"keras.src.{part}")
