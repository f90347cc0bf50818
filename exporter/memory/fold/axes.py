"""Which axes a layer folds: time, axis 1, and perhaps others, which are folded within each row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Tensor = Any


@dataclass(frozen=True)
class Axes:
    """How a tensor [B, T, ...] is folded.

    Attributes:
        row: Shape of a row.
        inner: The axes beside time that are folded.
        keep: Whether folded axes stay, of size 1.
    """

    row: tuple[int, ...]
    inner: tuple[int, ...]
    keep: bool

    @property
    def state(self) -> tuple[int, ...]:
        """Shape of what all rows are folded into, folded axes of size 1."""
        return tuple(1 if axis in self.inner else size for axis, size in enumerate(self.row, start=2))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output without the batch axis."""
        if self.keep:
            return (1, *self.state)
        return tuple(size for axis, size in enumerate(self.row, start=2) if axis not in self.inner)

    def rows(self, x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
        """Return each row folded within, in at least 32 bits: what adds up over a stream outgrows 16."""
        return self.within(tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x, reduce)

    def within(self, x: Any, reduce: Callable[..., Any]) -> Any:
        """Return each row folded within: of a tensor or an array."""
        return reduce(x, self.inner, keepdims=True) if self.inner else x

    def output(self, folded: Tensor, like: Tensor) -> Tensor:
        """Return what all rows are folded into as the layer gives it."""
        return tf.cast(tf.reshape(folded, [-1, *self.shape]), like.dtype)


def axes_of(target: Any, row: tuple[int, ...]) -> Axes | None:
    """Return how a pooling layer or an operation folds [B, T, *row]; None where it doesn't fold axis 1 alone."""
    rank = len(row) + 2
    if hasattr(target, "data_format"):
        folded = list(range(1, rank - 1)) if target.data_format == "channels_last" else []
    else:
        asked = getattr(target, "axis", None)
        given = range(rank) if asked is None else asked if isinstance(asked, (tuple, list)) else (asked,)
        folded = [axis % rank for axis in given]
    special = any(getattr(target, option, None) is not None for option in ("initial", "dtype"))
    if 1 not in folded or 0 in folded or (special and not hasattr(target, "data_format")):
        return None
    return Axes(row, tuple(axis for axis in folded if axis > 1), bool(getattr(target, "keepdims", False)))
