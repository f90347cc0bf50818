"""Layers that fold all time steps so far: what they carry on instead of the steps.

A kind of them is a module here, with its equations in TensorFlow and in NumPy, and its classes are lines in FOLDS.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from ...inside import is_keras_own
from ..form import Form
from .axes import axes_of
from .extreme import Extreme
from .mean import Mean
from .total import Total

FOLDS: dict[str, Callable[..., Form]] = {
    "Cumsum": partial(Total, running=True),
    "GlobalAveragePooling1D": Mean,
    "GlobalAveragePooling2D": Mean,
    "GlobalAveragePooling3D": Mean,
    "GlobalMaxPooling1D": Extreme,
    "GlobalMaxPooling2D": Extreme,
    "GlobalMaxPooling3D": Extreme,
    "Max": Extreme,
    "Mean": Mean,
    "Min": partial(Extreme, largest=False),
    "Sum": partial(Total, running=False),
}
"""Name of a class of Keras' own, layer or operation -> what folds its input."""


def folded(target: Any, row: tuple[int, ...], dtype: str) -> Form | None:
    """Return how a layer or operation folds its input [B, T, *row] of floats; None where it isn't known to."""
    if not keras.backend.is_float_dtype(dtype) or not is_keras_own(type(target)):  # Keras changes others' type
        return None
    make, axes = FOLDS.get(type(target).__name__), axes_of(target, row)
    return None if make is None or axes is None else make(axes, dtype)
