"""The sum of all time steps so far, at the end or at each step: keras.ops.sum, keras.ops.cumsum.

sum' = sum + x_1 + ... + x_T           row t of cumsum:  sum + x_1 + ... + x_t
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..masks import silence
from ..window import State
from .axes import Axes

Tensor = Any
Array = NDArray[Any]


@dataclass(frozen=True)
class Total:
    """See Form.

    Attributes:
        running: Whether each time step has its row, or all of them one.
    """

    axes: Axes
    dtype: str
    running: bool
    gated = True

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried."""
        return {"sum": State(self.axes.state, self.dtype)}

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form."""
        [x], [before] = inputs, states
        rows = self.axes.rows(x if valid is None else silence(x, valid), tf.reduce_sum)
        before = tf.cast(before, rows.dtype)
        new = before + tf.reduce_sum(rows, axis=1)
        if self.running:
            return tf.cast(tf.expand_dims(before, 1) + tf.cumsum(rows, axis=1), x.dtype), [new]
        return self.axes.output(new, x), [new]

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        [x] = rows
        return [np.sum(self.axes.within(x, np.sum), axis=1)]
