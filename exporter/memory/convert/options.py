"""What all recurrent layers have in common: activations, biases, direction and masks, and which types are accepted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from signatures.errors import UnsupportedModel

from ...inside import is_keras_own
from ..activations import ACTIVATIONS, name_of
from ..recurrence import Kind, Recurrence


def over_time(cell: Recurrence, layer: Any) -> Recurrence:
    """Return a cell run as its layer runs it. Dropout, regularizers, unroll and stateful don't change its numbers."""
    return replace(cell, reverse=bool(layer.go_backwards), zero_masked=bool(layer.zero_output_for_mask))


def activation(cell: Any, option: str) -> str:
    """Return the name of a cell's activation.

    Raises:
        UnsupportedModel: When it isn't one of Keras' own.
    """
    function = getattr(cell, option)
    name = name_of(function)
    if name is None:
        found = getattr(function, "__name__", type(function).__name__)
        raise UnsupportedModel(
            f"layer {cell.name!r} ({type(cell).__name__}): {option}={found!r} is a function of its own.\n"
            f"  Supported: {', '.join(ACTIVATIONS)}. Retrain with one of these, or use RNN with a cell of your own."
        )
    return name


def read(cell: Any, name: str, kind: Kind, states: dict[str, tuple[int, ...]]) -> Recurrence:
    """Read a built cell of Keras' own: kernels and gate orders are taken as they are, see GATES.

    One without gates has no function for them: it is the same one then. The rest is for the Recurrence.
    """
    gates = "recurrent_activation" if hasattr(cell, "recurrent_activation") else "activation"
    reset_after = bool(getattr(cell, "reset_after", False))
    biases = cell.bias
    if biases is None:
        biases = np.zeros([2] * reset_after + [cell.kernel.shape[-1]])
    kernel, recurrent_kernel, bias = (
        np.asarray(weights).astype(cell.compute_dtype) for weights in (cell.kernel, cell.recurrent_kernel, biases)
    )
    return Recurrence(
        name,
        kind,
        states,
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        activation=activation(cell, "activation"),
        recurrent_activation=activation(cell, gates),
        reset_after=reset_after,
        dtype=cell.compute_dtype,
    )


def input_shape(layer: Any) -> tuple[Any, ...]:
    """Return the shape of the sequences a layer was built for, [B, T, ...], with or without states beside them."""
    config = layer.get_build_config()
    return tuple(config["input_shape"] if "input_shape" in config else config["shapes_dict"]["sequences_shape"])


def called(cell: Any, states: Any) -> Callable[[Any, list[Any]], tuple[Any, list[Any]]]:
    """Return a cell as a function (inputs, states in one list) -> (output, states in one list).

    Args:
        cell: The Keras cell.
        states: What it starts from, nested as it takes them.
    """
    nested = states if isinstance(states, (list, tuple)) else [states]

    def run(x: Any, flat: list[Any]) -> tuple[Any, list[Any]]:
        output, new = cell(x, keras.tree.pack_sequence_as(nested, flat))
        return output, keras.tree.flatten(new)

    return run


def class_name(layer: Any) -> str:
    """Return a layer's public name if it is one of Keras' own classes, else its module and name."""
    cls = type(layer)
    return f"keras.layers.{cls.__name__}" if is_keras_own(cls, "layers.") else f"{cls.__module__}.{cls.__name__}"
