"""The mean of all time steps so far: GlobalAveragePooling, keras.ops.mean.

    count' = count + T         mean' = mean + sum over the T steps of (x_t - mean) / count'

The differences are small where the mean has settled, so that rounding doesn't grow with the stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..masks import spread
from ..window import State
from .axes import Axes

Tensor = Any
Array = NDArray[Any]

MOST = 1 << 30
"""The count stays there: a row more changes no mean."""


@dataclass(frozen=True)
class Mean:
    """See Form."""

    axes: Axes
    dtype: str
    gated = True

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried."""
        return {"mean": State(self.axes.state, self.dtype), "count": State((), "int32")}

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form."""
        [x], (mean, count) = inputs, states
        rows_in = self.axes.rows(x, tf.reduce_mean)
        mean = tf.cast(mean, rows_in.dtype)
        gaps = rows_in - tf.expand_dims(mean, 1)
        if valid is None:
            rows = tf.shape(x)[1]
        else:
            rows = tf.reduce_sum(tf.cast(valid, tf.int32), axis=1)
            gaps = tf.where(spread(tf.expand_dims(valid, -1), gaps), gaps, tf.zeros_like(gaps))
        after = tf.minimum(count + rows, MOST)
        share = spread(tf.expand_dims(tf.cast(tf.maximum(after, 1), mean.dtype), -1), mean)
        new = mean + tf.reduce_sum(gaps, axis=1) / share
        return self.axes.output(new, x), [new, after]

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        [x] = rows
        x = self.axes.within(x, np.mean)
        weights = np.ones(x.shape[:2]) if mask is None else mask.astype(np.float64)
        count = weights.sum(axis=1)
        total = (x * weights.reshape(*weights.shape, *[1] * (x.ndim - 2))).sum(axis=1)
        return [total / np.maximum(count, 1).reshape(-1, *[1] * (x.ndim - 2)), count.astype(np.int32)]
