"""How far back a model may look: the numbers in its options, operations and code that could count time steps.

The law of streams is tried on a run that is longer than these, see law.py, so it needn't be known which of them do.
"""

import math
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from .. import inside
from . import swap

LEAST = 2000
"""Time steps back that are tried at least: a number may come from where it isn't seen here."""

MOST, NUMBERS = 100_000, 1 << 27
"""Time steps, and numbers that all layers give on them together, up to which a run is tried: some seconds and GB."""

LIBRARIES = ("keras.", "tensorflow.", "numpy.", "builtins")

OWN = 20_000
"""Time steps up to which numbers are followed that may well count something else."""

TIME_SIZES = frozenset(
    (
        "kernel_size",
        "dilation_rate",
        "pool_size",
        "strides",
        "padding",
        "cropping",
        "size",
        "output_size",
        "n",
        "length",
    )
    + ("shift", "pad_width", "repeats", "offsets", "k", "num_segments")
)
"""Options of Keras' own layers and operations that may count time steps."""


def named_steps(model: Any) -> tuple[int, int]:
    """Return how many time steps back the numbers of a model reach.

    Args:
        model: A keras.Model.

    Returns:
        (by options that count time steps and slices, added up; the largest other number, up to OWN: in options, or in
        the attributes and the code of layers of one's own).
    """
    known, other = 0, [0]
    for layer in [model, *(layer for _, layer in swap.sublayers(model))]:
        if isinstance(layer, keras.Model):
            graph = inside.functional_of(layer)
            for operation in graph.operations if graph is not None else ():
                if not isinstance(operation, keras.Layer):
                    for given in inside.calls(operation):
                        known += max([*_timed(vars(operation)), *_sliced(given)], default=0)
                        other += _numbers([vars(operation), given])
        elif inside.is_keras_own(type(layer)):
            config = _options(layer)
            kernel = max(_numbers(config.get("kernel_size")), default=0)
            kernel *= max(_numbers(config.get("dilation_rate")), default=1)
            known += max([kernel, *_timed(config)]) * max(len(inside.calls(layer)), 1)
            other += _numbers(config)
        if isinstance(layer, keras.layers.Lambda):
            other += _of_code(layer.function, set())
        elif not inside.is_keras_own(type(layer)):
            other += _of_own(layer)
    return known, min(max(other), OWN)


def most_steps(model: Any, numbers: int) -> int:
    """Return the time steps up to which runs of a model are tried.

    Args:
        model: A keras.Model.
        numbers: How many numbers all its layers give for one time step. An attention compares every two, besides.
    """
    heads = [_heads(layer) for _, layer in swap.sublayers(model) if type(layer).__name__.endswith("Attention")]
    together = math.isqrt(NUMBERS // (4 * max(heads))) if heads else MOST
    return min(MOST, NUMBERS // numbers, together)


def _heads(layer: Any) -> int:
    options = _options(layer)
    return max([n for name in ("num_heads", "num_query_heads") for n in _numbers(options.get(name))], default=1)


def _options(layer: Any) -> dict[str, Any]:
    try:
        return dict(layer.get_config())
    except Exception:  # noqa: BLE001 - a layer inside a wrapper may have no configuration
        return {}


def _timed(options: Any) -> Iterator[int]:
    """Yield the numbers of options that count time steps, those of layers inside included."""
    if isinstance(options, dict):
        for name, value in options.items():
            yield from _numbers(value) if name in TIME_SIZES else _timed(value)


def _sliced(value: Any) -> Iterator[int]:
    """Yield the numbers at which slices in nested arguments begin and end."""
    if isinstance(value, slice):
        yield from _numbers(value)
    elif isinstance(value, (dict, list, tuple)):
        yield from (n for each in (value.values() if isinstance(value, dict) else value) for n in _sliced(each))


def _of_own(layer: Any) -> Iterator[int]:
    """Yield the numbers in the attributes of a layer of one's own and in the code of its class."""
    plain = vars(keras.layers.Layer())
    yield from _numbers({name: value for name, value in vars(layer).items() if name not in plain})
    seen: set[Any] = set()
    for owner in type(layer).__mro__:
        if not owner.__module__.startswith(LIBRARIES):
            for function in vars(owner).values():
                yield from _of_code(function, seen)


def _of_code(function: Any, seen: set[Any]) -> Iterator[int]:
    """Yield the numbers that a Python function holds, sees around it or reads from its module, and those it calls."""
    if not isinstance(function, types.FunctionType) or function in seen:
        return
    seen.add(function)
    yield from _constants(function.__code__)
    around = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    for value in [*around, *(function.__globals__.get(name) for name in function.__code__.co_names)]:
        if isinstance(value, types.FunctionType):
            yield from () if value.__module__.startswith(LIBRARIES) else _of_code(value, seen)
        else:
            yield from _numbers(value)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _constants(code: types.CodeType) -> Iterator[int]:
    for constant in code.co_consts:
        yield from _constants(constant) if isinstance(constant, types.CodeType) else _numbers(constant)


def _numbers(value: Any) -> Iterator[int]:
    """Yield the whole numbers in nested options, without their signs; of an array its sizes and whole numbers."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        yield abs(int(value))
    elif isinstance(value, slice):
        yield from _numbers([value.start, value.stop, value.step])
    elif isinstance(value, dict):
        yield from (number for each in value.values() for number in _numbers(each))
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (number for each in value for number in _numbers(each))
    elif isinstance(value, (np.ndarray, keras.Variable)) or keras.ops.is_tensor(value):
        array = np.asarray(value)
        yield from array.shape
        yield from [int(np.abs(array).max())] if array.size and array.dtype.kind in "iu" else ()
