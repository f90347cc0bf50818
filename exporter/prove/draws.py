"""Random feeds of several kinds.

What a model's real data is like isn't known, and some trained models amplify rounding on anything that isn't like it.
What is wrong in an artifact shows on any kind on which the model itself is calm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from signatures.feeds import random_feeds
from signatures.ports import Array, Signature

Change = Callable[[Array], Array]


def _as_drawn(value: Array) -> Array:
    return value


@dataclass(frozen=True)
class Kind:
    """A kind of numbers, made from what random_feeds draws: normal numbers with silent steps of zeros in between.

    Attributes:
        name: What reports call it.
        inputs: Floats of an input [B, ...] -> of this kind; silent steps stay silent.
        states: The same for a state.
        tokens: The same for integers.
    """

    name: str
    inputs: Change
    states: Change = np.tanh
    tokens: Change = _as_drawn


def _times(factor: float) -> Change:
    return lambda value: factor * value


def _above_one(value: Array) -> Array:
    return np.asarray(np.abs(value) + 1)


def _one_hot(value: Array) -> Array:
    return np.asarray((value == value.max(axis=-1, keepdims=True)) & (value != 0))


def _shares(value: Array) -> Array:
    """Return numbers from 0 up that add up to 1 along the last axis."""
    total = np.square(value).sum(axis=-1, keepdims=True)
    return np.asarray(np.square(value) / np.where(total == 0, 1, total))


def _smooth(value: Array) -> Array:
    """Return slow sines along axis 1, whose speed and phase are what the numbers add up to."""
    if value.ndim < 3:
        return np.asarray(np.tanh(value))
    steps = np.arange(value.shape[1]).reshape(1, -1, *[1] * (value.ndim - 2))
    total = value.sum(axis=1, keepdims=True) / np.sqrt(value.shape[1])
    waves = np.sin(0.1 * total * steps + 3 * total)
    silent = (value == 0).all(axis=tuple(range(2, value.ndim)), keepdims=True)
    return np.where(silent, 0, waves)


def _first_repeated(value: Array) -> Array:
    return np.broadcast_to(value[:, :1], value.shape) if value.ndim > 1 else value


KINDS = (
    Kind("normal", _as_drawn, _as_drawn),
    Kind("positive", _above_one, _above_one),  # for logarithms
    Kind("bounded", np.tanh),
    Kind("one-hot", _one_hot),
    Kind("shares of one", _shares),
    Kind("small", _times(0.1), _times(0.1)),
    Kind("non-negative", lambda value: np.abs(np.tanh(value))),
    Kind("tiny", _times(0.01), _times(0.01)),
    Kind("smooth", _smooth, tokens=_first_repeated),
    Kind("large", _times(8)),  # gates at 0 and 1 pass little on
)
"""In the order they are tried."""


def _beyond(bound: float) -> Change:
    """Return numbers of the bound's sign and a half to some times its size."""
    return lambda value: bound * (0.5 + np.abs(value))


def _alike(value: Array) -> Array:
    """Return halves, the same for all features: ties, and half-way for what rounds."""
    return np.broadcast_to(np.floor(value[..., :1]) + 0.5, value.shape)


def _largest(value: Array) -> Array:
    return np.full_like(value, value.max())


SPECIAL = (
    Kind("zeros", np.zeros_like, np.zeros_like, np.zeros_like),
    Kind("zeros after something", np.zeros_like, _as_drawn, np.zeros_like),
    Kind("next to zero", _times(1e-30), _times(1e-30)),
    Kind("very negative", _beyond(-32), np.zeros_like),
    Kind("negative", _beyond(-8), np.zeros_like),
    Kind("very positive", _beyond(32), np.zeros_like, _largest),
    Kind("rather positive", _beyond(8), np.zeros_like, _largest),
    Kind("alike", _alike, np.zeros_like, _first_repeated),
    Kind("after something very negative", _as_drawn, _beyond(-8)),
)
"""A row each: where kernels of one function differ between runtimes."""

CANDIDATES = (
    Kind("normal", _as_drawn, _as_drawn),
    Kind("large", _times(8), np.zeros_like),
    Kind("after something negative", _as_drawn, _beyond(-1)),
    Kind("large after something large", _times(8), _times(8)),
)
"""The rows after them, in turn: among them are some that reach such values inside of the model."""


def drawn(signature: Signature, dims: Mapping[str, int], seed: int, kinds: tuple[Kind, ...]) -> dict[str, Array]:
    """Return random feeds, the same ones every time.

    Args:
        signature: Whose input ports.
        dims: Every dimension -> size.
        seed: Of the numbers.
        kinds: Of every row; or, if there are several, of one row each.
    """
    feeds = random_feeds(signature.inputs, dims, np.random.default_rng(seed))
    for port in signature.inputs:
        value = feeds[port.name]
        if port.role != "lengths":
            each = [slice(None)] if len(kinds) == 1 else [slice(k, k + 1) for k in range(len(kinds))]
            parts = [port.samples(value, picks) for picks in each]
            changed = [
                (kind.tokens if value.dtype.kind != "f" else kind.states if port.role == "state" else kind.inputs)(part)
                for kind, part in zip(kinds, parts, strict=True)
            ]
            feeds[port.name] = port.side_by_side(changed).astype(value.dtype)
    return feeds
