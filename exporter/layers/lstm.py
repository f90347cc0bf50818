"""`keras.layers.LSTM` to a Recurrence. Its kernels and gate order i f c o are taken as they are."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from signatures.errors import UnsupportedModel

from ..recurrence import Recurrence


def _own_name(function: Any) -> str:
    """Return the name of one of Keras' activations; a function of the user's own may have the same name."""
    name = getattr(function, "__name__", type(function).__name__)
    return name if getattr(keras.activations, name, None) is function else f"custom function {name}"


# option: (how to read it, what is accepted, what to do otherwise)
ACCEPTED: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "activation": (lambda layer: _own_name(layer.activation), "tanh", "Retrain with it, or wait for its converter."),
    "recurrent_activation": (lambda layer: _own_name(layer.recurrent_activation), "sigmoid", "Retrain with it."),
    "go_backwards": (lambda layer: layer.go_backwards, False, "Reverse the input outside the model."),
    "zero_output_for_mask": (
        lambda layer: layer.zero_output_for_mask,
        False,
        "Multiply the output by the mask outside.",
    ),
    "dtype": (
        lambda layer: layer.compute_dtype,
        "float32",
        "Load the model under keras.config.set_dtype_policy('float32').",
    ),
}


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built LSTM layer. Dropout, regularizers, unroll, stateful and use_cudnn don't change its numbers."""
    for option, (read, accepted, advice) in ACCEPTED.items():
        if (found := read(layer)) != accepted:
            raise UnsupportedModel(
                f"layer {layer.name!r} (LSTM): {option}={found!r} is not supported.\n"
                f"  Supported: {accepted!r}. {advice}"
            )
    cell = layer.cell
    kernel = np.asarray(cell.kernel, np.float32)
    bias = np.zeros(kernel.shape[1], np.float32) if cell.bias is None else np.asarray(cell.bias, np.float32)
    return Recurrence(name, "lstm", kernel, np.asarray(cell.recurrent_kernel, np.float32), bias)
