"""The activations Keras ships, each in its three forms: NumPy float64 for the reference, TensorFlow, and ONNX's name.

The NumPy forms are written from the definitions and share no code with Keras.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Activation:
    """An activation function.

    Attributes:
        numpy: In float64, the definition itself.
        onnx: (name, alpha, beta) among the activations of ONNX's recurrent ops; None where there is none.
    """

    numpy: Callable[[Array], Array]
    onnx: tuple[str, float | None, float | None] | None = None


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _sparsemax(x: Array) -> Array:
    """Martins & Astudillo 2016: the nearest point of the simplex."""
    falling = -np.sort(-x, axis=-1)
    sums, ranks = np.cumsum(falling, axis=-1) - 1, np.arange(1, x.shape[-1] + 1)
    support = (falling - sums / ranks > 0).sum(axis=-1, keepdims=True)
    threshold = np.take_along_axis(sums, support - 1, axis=-1) / support
    return np.asarray(np.maximum(x - threshold, 0))


def _sparse_plus(x: Array) -> Array:
    return np.where(x <= -1, 0, np.where(x < 1, 0.25 * (x + 1) ** 2, x))


_erf = np.vectorize(math.erf, otypes=[np.float64])
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

ACTIVATIONS: dict[str, Activation] = {
    "celu": Activation(_elu),
    "elu": Activation(_elu, ("Elu", 1.0, None)),
    "exponential": Activation(np.exp),
    "gelu": Activation(lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    "hard_shrink": Activation(lambda x: np.where(np.abs(x) > 0.5, x, 0)),
    "hard_sigmoid": Activation(lambda x: np.clip(x / 6 + 0.5, 0, 1), ("HardSigmoid", 1 / 6, 0.5)),
    "hard_silu": Activation(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "hard_tanh": Activation(lambda x: np.clip(x, -1, 1)),
    "keras2_hard_sigmoid": Activation(lambda x: np.clip(0.2 * x + 0.5, 0, 1), ("HardSigmoid", 0.2, 0.5)),
    "leaky_relu": Activation(lambda x: np.where(x > 0, x, 0.2 * x), ("LeakyRelu", 0.2, None)),
    "linear": Activation(lambda x: x, ("Affine", 1.0, 0.0)),
    "log_sigmoid": Activation(lambda x: -_softplus(-x)),
    "log_softmax": Activation(lambda x: np.log(_softmax(x))),
    "mish": Activation(lambda x: x * np.tanh(_softplus(x))),
    "relu": Activation(lambda x: np.maximum(x, 0), ("Relu", None, None)),
    "relu6": Activation(lambda x: np.clip(x, 0, 6)),
    "selu": Activation(lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA)),
    "sigmoid": Activation(_sigmoid, ("Sigmoid", None, None)),
    "silu": Activation(lambda x: x * _sigmoid(x)),
    "soft_shrink": Activation(lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)),
    "softmax": Activation(_softmax),
    "softplus": Activation(_softplus, ("Softplus", None, None)),
    "softsign": Activation(lambda x: x / (1 + np.abs(x)), ("Softsign", None, None)),
    "sparse_plus": Activation(_sparse_plus),
    "sparse_sigmoid": Activation(lambda x: np.clip(0.5 * (x + 1), 0, 1)),
    "sparsemax": Activation(_sparsemax),
    "squareplus": Activation(lambda x: 0.5 * (x + np.sqrt(x * x + 4))),
    "tanh": Activation(np.tanh, ("Tanh", None, None)),
    "tanh_shrink": Activation(lambda x: x - np.tanh(x)),
}
"""Keras' name -> its forms. `keras2_hard_sigmoid` is the steeper hard_sigmoid of Keras 2 files."""


def in_tensorflow(name: str) -> Callable[[Any], Any]:
    """Return the TensorFlow form."""
    import keras
    import tensorflow as tf

    if name == "keras2_hard_sigmoid":
        return lambda x: tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)
    # tf's own where it has it in one op: Keras' sigmoid and softmax leave a mark on the tensor that graphs don't need.
    plain = {"tanh": tf.tanh, "sigmoid": tf.sigmoid, "linear": lambda x: x}
    function: Callable[[Any], Any] = plain.get(name) or keras.activations.get(name)
    return function


def name_of(function: Any) -> str | None:
    """Return the name of one of Keras' activations; None for anything else, whatever it calls itself."""
    import keras

    from ..read import keras2

    if function is keras2.hard_sigmoid:
        return "keras2_hard_sigmoid"
    name = getattr(function, "__name__", "")
    return str(name) if name in ACTIVATIONS and getattr(keras.activations, name, None) is function else None
