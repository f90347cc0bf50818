"""Layers that look at a window of time steps: what of the past they need, and when their rows come.

    row j of the output is made of rows  stride j - left ... stride j - left + extent  of the input

    Conv1D causal, kernel k, dilation d      extent d(k - 1)   left d(k - 1)          its stride
    the same, padding "valid"                extent d(k - 1)   left 0                 its stride
    the same, padding "same", stride 1       extent d(k - 1)   left d(k - 1) // 2     1
    ZeroPadding1D((n, 0)); x[:, n:]          extent 0          left n; -n             1
    Dense, BatchNormalization                extent 0          left 0                 1

A call of T time steps runs the layer as Keras has it on [past, T steps], and hands on the last rows of that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..inside import replaced
from .masks import silence

Tensor = Any
Array = NDArray[Any]


@dataclass(frozen=True)
class Clock:
    """When the rows of a tensor come in a stream: row m of it is row m - delay of what Keras gives on a recording.

    Attributes:
        rate: Time steps of the model's input for each row.
        delay: In rows; below 0 where Keras has rows of padding that a stream never sees.
        ahead: Rows that Keras has of a recording and a stream hasn't given at its end, as they look into the future;
            below 0 where it is a stream that has more.
    """

    rate: Fraction = Fraction(1)
    delay: int = 0
    ahead: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Window:
    """Which rows of its input a row of a layer's output is made of, see above.

    Attributes:
        extent: Rows from the first to the last one.
        stride: Rows from one window to the next.
        left: Rows from the beginning of the first window to the beginning of the input, below 0 where it comes later.
        up: Rows of the output for each window.
    """

    extent: int = 0
    stride: int = 1
    left: int = 0
    up: int = 1

    @property
    def plain(self) -> bool:
        """Whether each row is treated alone."""
        return self == Window()

    def after(self, clock: Clock) -> Clock:
        """Return the clock of the output."""
        return Clock(clock.rate * self.stride / self.up, self.up * self._windows(clock))

    def past(self, clock: Clock) -> int:
        """Return how many rows before those of a call it looks at; below 0, how many of them it doesn't."""
        return self.stride * self._windows(clock) + self.left - clock.delay

    def _windows(self, clock: Clock) -> int:
        return (self.extent - self.left + clock.delay) // self.stride


@dataclass(frozen=True)
class State:
    """One state port of a layer.

    Attributes:
        shape: Without the batch axis.
        dtype: NumPy name.
        initial: What it holds at a stream's start.
        below: For integers, its values are in [0, below).
    """

    shape: tuple[int, ...]
    dtype: str
    initial: float = 0.0
    below: int | None = None


@dataclass(frozen=True)
class Past:
    """A layer that looks at a window of more than one row.

    Attributes:
        window: Which.
        clock: Of its input.
        row: Shape of a row of its input.
        dtype: Of the input.
        padded: The layer, where its option `padding` can be "valid" instead: then it gives just the rows that come.
        cropped: Rows at the end of its input that the layer leaves out, which a stream has no end for.
    """

    window: Window
    clock: Clock
    row: tuple[int, ...]
    dtype: str
    padded: Any = None
    cropped: int = 0

    @property
    def keep(self) -> int:
        """Rows that are kept; below 0, rows of each call that nothing looks at."""
        return self.window.past(self.clock)

    @property
    def _before(self) -> int:
        """Rows of zeros put before them, so that the first window begins where the layer's own padding has ended."""
        window = self.window
        if self.padded is not None:
            return 0
        begin = -window.left % window.stride
        return begin + max(0, -(-(-window.left - begin) // window.stride)) * window.stride

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried."""
        return {"past": State((self.keep, *self.row), self.dtype)} if self.keep > 0 else {}

    @property
    def gated(self) -> bool:
        """Whether rows that Keras never had would be taken for those before the recording, which are zeros."""
        return self.clock.delay > 0 and self.window.left > 0

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form."""
        [x] = inputs
        x = x if valid is None else silence(x, valid)
        joined = (
            tf.concat([*(tf.cast(state, x.dtype) for state in states), x], axis=1)
            if states
            else x[:, max(-self.keep, 0) :]
        )
        finals = [last(joined, x, self.keep) for _ in states]
        if self._before or self.cropped:
            joined = tf.pad(joined, [[0, 0], [self._before, self.cropped], *[[0, 0]] * len(self.row)])
        if self.padded is not None:
            with replaced(self.padded, {"padding": "valid"}):
                return call(joined), finals
        window, y = self.window, call(joined)
        first = window.up * (self._before + window.left) // window.stride
        total = steps_of(x) * window.up // window.stride
        rows = y[:, first : first + total]
        rows.set_shape([x.shape[0], total if isinstance(total, int) else None, *y.shape[2:]])
        return rows, finals

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        return [last_rows(rows[0], self.keep)] if self.keep > 0 else []


@dataclass(frozen=True)
class Wait:
    """A layer that joins tensors whose rows come at different times: the early ones wait for the last.

    Attributes:
        clocks: Of its inputs.
        rows: Shape of a row of each.
        dtypes: Their types.
    """

    clocks: tuple[Clock, ...]
    rows: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    gated = False

    @property
    def after(self) -> Clock:
        """The clock of all inputs when they are joined."""
        return max(self.clocks, key=lambda clock: clock.delay)

    @property
    def waits(self) -> list[int]:
        """How many rows each input waits."""
        return [self.after.delay - clock.delay for clock in self.clocks]

    @property
    def states(self) -> Mapping[str, State]:
        """What is carried: wait, or wait_1 for the second input."""
        return {
            f"wait_{k}" if k else "wait": State((n, *row), dtype)
            for k, (n, row, dtype) in enumerate(zip(self.waits, self.rows, self.dtypes, strict=True))
            if n
        }

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer; see Form."""
        rest, together, finals = list(states), [], []
        for x, wait in zip(inputs, self.waits, strict=True):
            if wait:
                joined = tf.concat([tf.cast(rest.pop(0), x.dtype), x], axis=1)
                finals.append(last(joined, x, wait))
                known = x.shape
                x = joined[:, : steps_of(x)]
                x.set_shape(known)
            together.append(x)
        return call(*together), finals

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after these rows; see Form."""
        return [last_rows(each, wait) for each, wait in zip(rows, self.waits, strict=True) if wait]


def steps_of(x: Tensor) -> Any:
    """Return the rows of a tensor [B, rows, ...]: a number where it is known."""
    return x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]


def last(joined: Tensor, x: Tensor, keep: int) -> Tensor:
    """Return the last rows of [past, x]."""
    rows = joined[:, -keep:] if x.shape[1] is None else joined[:, x.shape[1] :]
    rows.set_shape([x.shape[0], keep, *x.shape[2:]])
    return rows


def last_rows(rows: Array, keep: int) -> Array:
    """Return the last rows of [B, rows, ...], zeros before the first."""
    short = max(keep - rows.shape[1], 0)
    return np.pad(rows, [(0, 0), (short, 0), *[(0, 0)] * (rows.ndim - 2)])[:, -keep:]
