"""How far back a model may look: the numbers in its options, operations and code that could count time steps.

The law of streams is tried on a run that is longer than these, see law.py, so it needn't be known which of them do.
"""

import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from . import rewrite

LEAST = 2000
"""Time steps back that are tried at least: a number may come from where it isn't seen here."""

MOST, NUMBERS = 100_000, 1 << 28
"""Time steps, and numbers that all layers give on them together, up to which a run is tried: some seconds, 2 GB."""

OTHER_SIZES = frozenset(
    ("units", "filters", "input_dim", "output_dim", "state_size", "num_heads", "key_dim", "value_dim", "groups")
    + ("depth_multiplier", "axis", "axes", "seed", "rank", "num_tokens", "max_tokens", "vocabulary_size", "input_shape")
    + ("batch_shape", "batch_input_shape", "num_key_value_heads", "num_query_heads", "head_dim", "embed_dim")
)
"""Options that count something else."""


def named_steps(model: Any) -> tuple[int, int]:
    """Return how many time steps back the numbers of a model reach together.

    Args:
        model: A keras.Model.

    Returns:
        (by the options of Keras' own layers and the slices and arguments of its operations, by these and by all numbers
        in the attributes and the code of layers of one's own).
    """
    known = other = 0
    for layer in [model, *(layer for _, layer in rewrite.sublayers(model))]:
        if type(layer).__module__.startswith("keras.src."):
            known += _of_options(layer)
            other += max(_of_code(layer.function), default=0) if isinstance(layer, keras.layers.Lambda) else 0
        else:
            other += sum(_of_own(layer))
        graph = rewrite.functional_of(layer) if isinstance(layer, keras.Model) else None
        for operation in graph.operations if graph is not None else ():
            if not isinstance(operation, keras.Layer):
                known += sum(
                    max(_numbers([vars(operation), node.arguments.args, node.arguments.kwargs]), default=0)
                    for node in operation._inbound_nodes
                )
    return known, known + other


def _of_options(layer: Any) -> int:
    """Return the largest number in the options of one of Keras' own layers, a kernel as long as it is dilated."""
    if isinstance(layer, keras.Model):
        return 0  # its layers are looked at one by one
    try:
        config = layer.get_config()
    except Exception:  # noqa: BLE001 - a layer inside a wrapper may have no configuration
        return 0
    largest = max(_numbers(config), default=0)
    kernel = max(_numbers(config.get("kernel_size")), default=0) * max(_numbers(config.get("dilation_rate")), default=1)
    return max(largest, kernel) * max(len(layer._inbound_nodes), 1)


def _of_own(layer: Any) -> Iterator[int]:
    """Yield the numbers in the attributes of a layer of one's own and in the code of its class."""
    yield from _numbers({name: value for name, value in vars(layer).items() if not name.startswith("_")})
    for owner in type(layer).__mro__:
        if not owner.__module__.startswith(("keras.", "tensorflow.", "builtins")):
            for function in vars(owner).values():
                yield from _of_code(function)


def _of_code(function: Any) -> Iterator[int]:
    """Yield the numbers that a Python function holds, sees around it or reads from its module."""
    if not isinstance(function, types.FunctionType):
        return
    yield from _constants(function.__code__)
    yield from _numbers([cell.cell_contents for cell in function.__closure__ or () if _filled(cell)])
    yield from _numbers([function.__globals__.get(name) for name in function.__code__.co_names])


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
        yield from (n for name, each in value.items() if name not in OTHER_SIZES for n in _numbers(each))
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (number for each in value for number in _numbers(each))
    elif isinstance(value, (np.ndarray, keras.Variable)) or keras.ops.is_tensor(value):
        array = np.asarray(value)
        yield from array.shape
        yield from [int(np.abs(array).max())] if array.size and array.dtype.kind in "iu" else ()
