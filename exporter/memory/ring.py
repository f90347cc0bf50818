"""A long past that stays where it is: a ring of rows, of which a step changes one.

    row m of the stream lies at place m mod n         n rows are kept, `at` is where the next one goes

A step of a dilated convolution looks at a few rows of it and copies it once; in a row, as in window.py, it would be
copied twice more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..inside import replaced
from .masks import silence
from .window import Past, State, steps_of

Tensor = Any
Array = NDArray[Any]

LONG = 64 << 10
"""Bytes of a past from which on it is a ring."""


@dataclass(frozen=True)
class Ring:
    """A layer that looks at a long window, without a stride; see Form.

    Attributes:
        past: The same in a row.
    """

    past: Past

    @property
    def gated(self) -> bool:
        """See Past."""
        return self.past.gated

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried."""
        return {"past": self.past.states["past"], "at": State((), "int32", below=self.past.keep)}

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form."""
        [x], (ring, at), n = inputs, states, self.past.keep
        ring = tf.cast(ring, x.dtype)
        total = steps_of(x)
        after = (at + total) % n
        if x.shape[1] == 1 and self.past.padded is not None:
            x = x if valid is None else silence(x, valid)
            layer = self.past.padded
            apart = layer.dilation_rate[0] * np.arange(layer.kernel_size[0] - 1)
            seen = tf.concat([_turned(ring, at, apart, n), x], axis=1)
            with replaced(layer, {"padding": "valid", "dilation_rate": (1,)}):
                output = call(seen)
            samples = tf.range(tf.shape(at)[0]) if at.shape[0] is None else tf.range(at.shape[0])
            return output, [tf.tensor_scatter_nd_update(ring, tf.stack([samples, at], axis=1), x[:, 0]), after]
        output, [rows] = self.past.advance(call, inputs, [_turned(ring, at, np.arange(n), n)], valid)
        return output, [_turned(rows, -after, np.arange(n), n), after]

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        [past], n = self.past.reached(rows, mask), self.past.keep
        at = (rows[0].shape[1] + self.past.clock.delay) % n
        return [np.roll(past, at, axis=1), np.full(len(past), at, np.int32)]


def _turned(rows: Tensor, start: Tensor, places: Array, n: int) -> Tensor:
    """Return rows [B, n, ...] at start [B] + places, around the end."""
    where = (tf.expand_dims(start, 1) + tf.constant(places, tf.int32)) % n
    one = rows.shape[0] == 1
    found = tf.gather(rows, where[0], axis=1) if one else tf.gather(rows, where, axis=1, batch_dims=1)
    found.set_shape([rows.shape[0], len(places), *rows.shape[2:]])
    return found
