"""Find a layer's window by running it: change all rows before one, then all from it on, and see which outputs change.

Whole beginnings and ends are changed, not one row: a dilated kernel has holes, through which a memory of any length
looks like none. Known classes say their window by their options, which a weight of zero doesn't hide.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..memory.window import Window

Array = NDArray[Any]
Run = Callable[..., Any]

ROWS = (480, 2400, 9600, 38_400)
"""Rows of the inputs that are tried, one after the other, until none of the ends is reached.

Multiples of many numbers, for what takes multiples of one.
"""

NUMBERS = 1 << 25
"""How many numbers the inputs may hold."""

STEEP = 8
"""By how much longer more rows may take: what compares every row with every other one takes its memory, too."""

SAMPLES = 4
SCALES = (3.0, 100.0, 1e4, 1e6)
"""Each time how far the rows are moved: what a rectifier or a maximum hides from one sample shows in another."""

WHOLE = "whole"
"""Instead of a window: one row is made of all."""

ENDLESS = "endless"
"""Instead of a window: a row is made of rows of any distance."""


@dataclass(frozen=True)
class Found:
    """What a layer does with rows.

    Attributes:
        window: Which rows it looks at; WHOLE or ENDLESS where that has no end.
        ahead: Rows beyond the end of a recording that its last row looks at, or is, as padding.
        cropped: Rows at the end of a recording that none looks at, although a window would fit.
        padded: The layer, where its option `padding` may be "valid" for time alone, see Past.
    """

    window: Window | str
    ahead: int = 0
    cropped: int = 0
    padded: Any = None


def found_by_options(layer: Any) -> Found | None:
    """Return what a layer of Keras' own does by its options; None where these don't tell."""
    if isinstance(layer, keras.layers.SpectralNormalization):  # which changes weights, and these in training alone
        layer = layer.layer
    kind = type(layer)
    if kind not in _CONVOLUTIONS | POOLINGS or layer.data_format != "channels_last":
        return None
    size = layer.kernel_size[0] if kind in _CONVOLUTIONS else layer.pool_size[0]
    reach = (size - 1) * (layer.dilation_rate[0] if kind in _CONVOLUTIONS else 1)
    stride = layer.strides[0]
    if layer.padding == "valid":
        return Found(Window(reach, stride, 0), padded=layer)
    if layer.padding == "causal":
        return Found(Window(reach, stride, reach), padded=layer)
    if kind in POOLINGS:
        return None
    beside = max(reach + 1 - stride, 0)  # rows of padding, for recordings of whole strides
    alone = layer if len(layer.kernel_size) == 1 else None  # padding no other axis
    return Found(Window(reach, stride, beside // 2), beside - beside // 2, padded=alone)


_CONVOLUTIONS = {
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
}
POOLINGS = {
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
}


def probe(again: Run, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> Found | None:
    """Return what a layer does with rows; None where it doesn't run on any number of them that was tried.

    Args:
        again: Its call, on inputs [SAMPLES, rows, ...].
        shapes: Of a row of each input.
        dtypes: Of each input.
    """
    found = None
    numbers = SAMPLES * sum(math.prod(shape) for shape in shapes)
    before = math.inf
    for rows in ROWS:
        if found is not None and rows * numbers > NUMBERS:
            break
        start = time.perf_counter()
        try:
            found = _tried(again, rows, shapes, dtypes)
        except Exception:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
            continue
        took = time.perf_counter() - start
        if found.window != ENDLESS or took > max(STEEP * before, 0.1):
            break
        before = took
    return found


def _tried(again: Run, rows: int, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> Found:
    rng = np.random.default_rng(0)

    def run(inputs: list[Array]) -> Any:
        tensors = [tf.constant(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
        outputs = [y for y in keras.tree.flatten(again(*tensors)) if keras.ops.is_tensor(y)]
        return np.asarray(outputs[0]).astype(np.float64)

    def count(rows: int) -> int:
        return int(run([x[:, :1].repeat(rows, axis=1) for x in base]).shape[1])

    base = [_drawn(rng, (SAMPLES, rows, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    first = run(base)
    if 0 in first.shape:
        raise ValueError(f"nothing of {rows} rows")
    if first.ndim < 2 or (more := count(2 * rows) - first.shape[1]) == 0:
        return Found(WHOLE)
    if first.shape[0] != SAMPLES or more < 0:
        return Found(ENDLESS)
    stride, up = _ratio(count, rows, more)
    if stride > 1 and up > 1:
        return Found(ENDLESS)
    total = first.shape[1]
    ahead: list[int] = []
    behind: list[int] = []
    silent = 0
    for m in range(rows // 2, rows // 2 + stride):
        for changed_rows, reached in ((slice(0, m), ahead), (slice(m, rows), behind)):
            where = np.flatnonzero(_changed(run, base, first, changed_rows, dtypes, rng))
            if not len(where):
                silent += 1
            elif changed_rows.start == 0 and where[-1] < total - 1:
                reached.append(stride * int(where[-1] // up) - (m - 1))
            elif changed_rows.start and where[0] > 0:
                reached.append(m - stride * int(where[0] // up))
            else:
                return Found(ENDLESS)
    if silent:  # ones, or a comparison with a number that is never drawn; else what it looks at lies farther off
        return Found(Window(0, stride, 0, up) if silent == 2 * stride else ENDLESS)
    left, right = max(ahead), max(behind)
    if left + right < 0:  # what is changed shows on some rows only: the law has the word
        return Found(Window())
    beyond = stride * ((total - 1) // up) + right - (rows - 1)  # rows that the last window looks at
    future = max(beyond, 0) if right > 0 or up == 1 else 0  # a transposed convolution's tail is made of what has been
    return Found(Window(left + right, stride, left, up), future, max(-beyond, 0) // stride * stride)


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if keras.backend.is_float_dtype(dtype):
        return rng.standard_normal(shape)
    rows = rng.integers(0, 2, (*shape[:2], *[1] * (len(shape) - 2)))  # alike within a row: what any() and all() see
    return np.broadcast_to(rows, shape)


def _changed(
    run: Callable[[list[Array]], Array],
    base: list[Array],
    first: Array,
    rows: slice,
    dtypes: Sequence[str],
    rng: np.random.Generator,
) -> Array:
    """Return which rows of the output change with some rows of the inputs, [rows] bool."""
    changed = np.zeros(first.shape[1], bool)
    for scale in SCALES:
        others = []
        for x, dtype in zip(base, dtypes, strict=True):
            other = x.copy()
            if keras.backend.is_float_dtype(dtype):
                other[:, rows] += scale * rng.standard_normal(other[:, rows].shape)
            else:
                other[:, rows] = 1 - other[:, rows]
            others.append(other)
        with np.errstate(invalid="ignore"):
            gap = np.abs(run(others) - first)
        changed |= (np.moveaxis(gap, 1, 0).reshape(len(changed), -1) > 0).any(axis=1)
    return changed


def _ratio(count: Callable[[int], int], rows: int, more: int) -> tuple[int, int]:
    """Return (stride, up): a layer gives `more` rows for `rows` more of its input."""
    if more == rows:
        return 1, 1
    ratio = Fraction(more, rows)
    if more > rows:
        return ratio.denominator, ratio.numerator
    try:
        steps = _increments(count, rows)
        first = next(steps)
        return next(steps) - first, 1
    except Exception:  # noqa: BLE001 - what takes multiples of a number only
        return ratio.denominator, ratio.numerator


def _increments(count: Callable[[int], int], rows: int) -> Iterator[int]:
    """Yield the numbers of rows from which on there is one more row of output."""
    low = rows
    while True:
        known, high = count(low), 2 * low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if count(middle) > known else (middle, high)
        yield high
        low = high
