"""Attention to the past: what each time step is looked up by is made once, and the last N of them are carried.

    keys', values' = the last N of [keys, those of the T steps]        count' = min(count + T, N)
    row t attends to itself and the N - 1 rows before it, as far as there have been any

For a stream of at most N rows that is attention with a causal mask; from then on it is that with a window of N rows,
which is what `on_recording` gives.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..inside import Private, held, replaced
from .masks import silence
from .window import State, last_rows, steps_of

Tensor = Any
Array = NDArray[Any]

HEADS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
"""Layers whose keys and values are products of what they are given."""

TOGETHER = 512
"""Rows of a recording that are run at once: every row is compared with all that it looks at."""

ENDLESS = 1 << 30
"""A window of rows that has no end."""

PLAIN = (keras.layers.Attention, keras.layers.AdditiveAttention)
"""Layers whose keys and values are what they are given."""


@dataclass(frozen=True)
class Cache:
    """One call of an attention layer over time; see Form.

    Attributes:
        layer: It.
        roles: What its inputs with rows are: "query", "value", perhaps "key".
        rows: N.
        row: Short name of a state, "keys" or "values" -> shape of a row of it.
        dtype: Of its inputs.
        own: Whether N is how far the layer looks in Keras, too.
    """

    layer: Any
    roles: tuple[str, ...]
    rows: int
    row: Mapping[str, tuple[int, ...]]
    dtype: str
    own: bool = False
    gated = True

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried; of a layer whose keys are its values these alone."""
        cached = {short: State((self.rows, *row), self.dtype) for short, row in self.row.items()}
        return {**cached, "count": State((), "int32", below=self.rows + 1)}

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form. Outside a graph, where nothing is compiled, few rows at once."""
        if tf.executing_eagerly() and inputs[0].shape[1] > TOGETHER:
            outputs = []
            for begin in range(0, inputs[0].shape[1], TOGETHER):
                some = slice(begin, begin + TOGETHER)
                few = [x[:, some] for x in inputs]
                output, states = self.advance(call, few, states, None if valid is None else valid[:, some])
                outputs.append(output)
            return tf.concat(outputs, axis=1), list(states)
        past = dict(zip(self.states, states, strict=True))
        count, total = past.pop("count"), steps_of(inputs[0])
        silent = 0 if valid is None else total - tf.reduce_sum(tf.cast(valid, tf.int32), axis=1)
        mask = self._mask(total, count, silent)
        joined: dict[str, Tensor] = {}

        def join(short: str, new: Tensor) -> Tensor:
            new = new if valid is None else silence(new, valid)
            before = tf.cast(past[short], new.dtype)[:, 1:]  # the one that has gone beyond N
            joined[short] = tf.concat([before, new], axis=1) if self.rows > 1 else new
            return joined[short]

        def joining(short: str, own: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            return join(short, own(*args, **kwargs))

        with ExitStack() as stack:
            stack.enter_context(masking(self.layer, mask))
            if isinstance(self.layer, PLAIN):
                given = dict(zip(self.roles, inputs, strict=True))
                looked = {role: join(short, given[role]) for short, role in self._sources.items()}
                inputs = [looked.get(role, given[role]) for role in self.roles]
            else:
                for short in self.row:
                    made = part(self.layer, short)
                    stack.enter_context(replaced(made, {"call": partial(joining, short, made.call)}))
            output = call(*inputs)
        finals = [self._last(joined[short], total) for short in self.row]
        return output, [*finals, tf.minimum(count + (total - silent), self.rows)]

    def on_recording(self, call: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Run the layer on a whole recording, each row looking at the last N alone, by Keras' own call."""
        outputs = []
        for begin in range(0, inputs[0].shape[1], TOGETHER):
            first, end = max(begin + 1 - self.rows, 0), min(begin + TOGETHER, inputs[0].shape[1])
            row, place = np.arange(begin, end)[:, None], np.arange(first, end)
            mask = tf.constant([(place <= row) & (place > row - self.rows)])
            cut = {"query": slice(begin, end), "value": slice(first, end), "key": slice(first, end)}
            rows = [x[:, cut[role]] if role in cut else x for role, x in zip(self.roles, inputs, strict=True)]
            with masking(self.layer, mask):
                outputs.append(call(*rows))
        return tf.concat(outputs, axis=1)

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        given, cached = dict(zip(self.roles, rows, strict=True)), []
        for short, role in self._sources.items():
            x = given.get(role, given["value"])
            cached.append(
                last_rows(x if isinstance(self.layer, PLAIN) else product(part(self.layer, short), x), self.rows)
            )
        return [*cached, np.full(len(rows[0]), min(rows[0].shape[1], self.rows), np.int32)]

    @property
    def _sources(self) -> dict[str, str]:
        """Short name of a state -> the role of the input that it is made of."""
        return {short: {"keys": "key", "values": "value"}[short] for short in self.row}

    def _mask(self, total: Any, count: Tensor, silent: Any) -> Tensor:
        """Return which of [N - 1 rows before, T rows] each of T rows looks at, [B, T, N - 1 + T]."""
        n = self.rows
        place = tf.reshape(tf.range(n - 1 + total), [1, 1, -1])
        row = tf.reshape(tf.range(total), [1, -1, 1])
        first = tf.reshape(n - 1 - count + silent, [-1, 1, 1])
        seen = tf.logical_or(place >= first, tf.equal(place, row + n - 1))
        return tf.logical_and(seen, tf.logical_and(place >= row, place < row + n))

    def _last(self, joined: Tensor, total: Any) -> Tensor:
        """Return the last N rows of [N - 1 rows before, T rows]."""
        if isinstance(total, int):
            return joined[:, total - 1 :]
        rows = joined[:, -self.rows :]
        rows.set_shape([joined.shape[0], self.rows, *joined.shape[2:]])
        return rows


@contextmanager
def masking(layer: Any, mask: Tensor) -> Iterator[None]:
    """Have an attention layer take a mask [B or 1, T, S] instead of those that it makes and is given."""
    name = Private.SCORE_MASK if isinstance(layer, PLAIN) else Private.ATTENTION_MASK
    swaps: dict[str, Any] = {name: lambda *args, **kwargs: mask}
    if window_of(layer) is None and not isinstance(layer, PLAIN):  # with a window it asks for a mask whatever it is
        swaps[Private.WINDOW if isinstance(layer, HEADS[0]) else "sliding_window"] = ENDLESS
    with replaced(layer, swaps):
        yield


def window_of(layer: Any) -> int | None:
    """Return how many time steps a layer looks at by its own options; None for all."""
    window: int | None = layer.get_config().get("sliding_window")
    return window


def part(layer: Any, short: str) -> Any:
    """Return the layer in an attention layer that makes its keys or values."""
    return next(inner for inner in held(layer) if inner.name == short.removesuffix("s"))


def product(dense: Any, x: Array) -> Array:
    """Return what such a layer makes of rows [B, T, F] in NumPy: x W + b, [B, T, heads, size]."""
    rows = np.tensordot(x, np.asarray(dense.kernel, np.float64), axes=1)
    return rows if dense.bias is None else np.asarray(rows + np.asarray(dense.bias, np.float64))
