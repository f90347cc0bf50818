"""The largest or the smallest of all time steps so far: GlobalMaxPooling, keras.ops.max, keras.ops.min.

max' = max(max, x_1, ..., x_T)         a stream starts from the least number there is
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


@dataclass(frozen=True)
class Extreme:
    """See Form.

    Attributes:
        largest: Whether the largest or the smallest.
    """

    axes: Axes
    dtype: str
    largest: bool = True
    gated = True

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried."""
        return {"max" if self.largest else "min": State(self.axes.state, self.dtype, self._start)}

    @property
    def _start(self) -> float:
        return float(tf.float32.min if self.largest else tf.float32.max)

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form."""
        [x], [extreme] = inputs, states
        reduce, pick = (tf.reduce_max, tf.maximum) if self.largest else (tf.reduce_min, tf.minimum)
        rows = self.axes.rows(x, reduce)
        start = tf.constant(self._start, rows.dtype)
        if valid is not None:
            rows = tf.where(spread(tf.expand_dims(valid, -1), rows), rows, start)
        new = pick(tf.cast(extreme, rows.dtype), reduce(rows, axis=1))
        known = new if valid is None else tf.where(tf.equal(new, start), tf.zeros_like(new), new)  # of no row yet
        return self.axes.output(known, x), [new]

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        [x] = rows
        pick = np.max if self.largest else np.min
        return [pick(self.axes.within(x, pick), axis=1, initial=self._start)]
