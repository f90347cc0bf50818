"""The second witness of layers that look at several time steps: convolutions, pooling and attention in float64 NumPy.

They are written from the definitions in Keras' documentation, and run instead of the layers on whole recordings:

    convolution   y_t = act(sum over taps i of x[stride t + dilation i - before] W_i + b)      zeros outside of x
    pooling       y_t = the largest or the mean of x[stride t - before + i], i < pool          those inside of x alone
    attention     y_t = sum over the last N rows s of softmax_s(q_t k_s / sqrt(d)) v_s         for each head
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..inside import held, replaced
from ..memory.activations import ACTIVATIONS, name_of
from ..memory.attention import Cache
from ..memory.form import Memories
from ..model.remember import limited
from ..model.swap import LOCK, sublayers
from .reference import padded, windows

Array = NDArray[Any]
Change = Callable[[Any, str], Array]
"""Gets numbers and the type that their layer computes in, gives what is computed with instead, in float64."""


@contextmanager
def computed(model: Any, memories: Memories, change: Change) -> Iterator[None]:
    """Have the layers of a model that look at several time steps computed by their equations.

    Args:
        model: The Keras model.
        memories: What it remembers: how far its attentions look.
        change: What is done to each input and each weight: nothing, or what shows how much rounding matters.
    """
    caches = {id(memory.target): memory.form for memory in memories.calls if isinstance(memory.form, Cache)}
    with limited(memories), LOCK, ExitStack() as stack:
        for _, layer in sublayers(model):
            equation = attention(layer, caches[id(layer)].rows) if id(layer) in caches else EQUATIONS.get(type(layer))
            if equation is not None and _is_known(layer):
                stack.enter_context(replaced(layer, {"call": partial(_call, layer, equation, change)}))
        yield


def _is_known(layer: Any) -> bool:
    """Whether all that a layer does besides its equation is known, too."""
    activation = getattr(layer, "activation", None)
    known = activation is None or name_of(activation) is not None
    return known and getattr(layer, "data_format", "channels_last") == "channels_last"


def _call(layer: Any, equation: Callable[..., Array], change: Change, *args: Any, **kwargs: Any) -> Any:
    """Run a layer by its equation."""

    def numbers(value: Any) -> Array:
        dtype = layer.compute_dtype
        value = tf.cast(tf.convert_to_tensor(value), dtype)
        return change(np.asarray(tf.cast(value, "float32") if dtype == "bfloat16" else value), dtype)

    inputs = keras.tree.map_structure(lambda x: numbers(x) if keras.ops.is_tensor(x) else x, (args, kwargs))
    y = equation(layer, numbers, *inputs[0], **inputs[1])
    if getattr(layer, "activation", None) is not None:
        y = ACTIVATIONS[str(name_of(layer.activation))].numpy(y)
    return tf.constant(y, layer.compute_dtype)


def convolution(layer: Any, numbers: Callable[[Any], Array], x: Array) -> Array:
    """Return x [B, rows..., C] times W [taps..., C / groups, N] by windows, and the bias."""
    kernel = numbers(layer.kernel)
    seen = _seen(layer, x, kernel.shape[: layer.rank])
    axes, parts = layer.rank, []
    for part, weights in zip(
        np.split(seen, layer.groups, axis=axes + 1), np.split(kernel, layer.groups, axis=-1), strict=True
    ):  # [B, rows..., C, taps...] times [taps..., C, N]
        taps = range(axes + 2, 2 * axes + 2)
        parts.append(np.tensordot(part, weights, axes=([*taps, axes + 1], [*range(axes), axes])))
    return _biased(layer, numbers, np.concatenate(parts, axis=-1))


def depthwise(layer: Any, numbers: Callable[[Any], Array], x: Array) -> Array:
    """Return each channel of x times its own weights [taps..., C, times], and the bias."""
    return _biased(layer, numbers, _by_channel(layer, x, numbers(layer.kernel)))


def separable(layer: Any, numbers: Callable[[Any], Array], x: Array) -> Array:
    """Return a depthwise convolution, then a product within each row."""
    y = _by_channel(layer, x, numbers(layer.depthwise_kernel))
    pointwise = numbers(layer.pointwise_kernel).reshape(y.shape[-1], -1)
    return _biased(layer, numbers, y @ pointwise)


def _by_channel(layer: Any, x: Array, kernel: Array) -> Array:
    axes = kernel.ndim - 2
    seen = _seen(layer, x, kernel.shape[:axes])
    taps = "ijk"[:axes]
    y = np.einsum(f"...c{taps},{taps}cm->...cm", seen, kernel)
    return np.asarray(y.reshape(*y.shape[:-2], -1))


def _seen(layer: Any, x: Array, taps: tuple[int, ...]) -> Array:
    """Return what each row of a convolution sees, [B, rows..., C, taps...]."""
    strides, dilation, padding = layer.strides, layer.dilation_rate, layer.padding
    if padding == "causal":
        x, padding = np.pad(x, [(0, 0), (dilation[0] * (taps[0] - 1), 0), (0, 0)]), "valid"
    return windows(padded(x, taps, strides, dilation, padding), taps, strides, dilation)


def _biased(layer: Any, numbers: Callable[[Any], Array], y: Array) -> Array:
    return np.asarray(y + numbers(layer.bias)) if layer.use_bias else y


def pooling(layer: Any, numbers: Callable[[Any], Array], x: Array, largest: bool) -> Array:
    """Return the largest or the mean of each window, without what lies outside of x [B, rows..., C]."""
    once = (1,) * len(layer.pool_size)
    axes = tuple(range(-len(once), 0))

    def seen(x: Array, outside: float) -> Array:
        inside = padded(x, layer.pool_size, layer.strides, once, layer.padding, outside)
        return windows(inside, layer.pool_size, layer.strides, once)

    if largest:
        return np.asarray(seen(x, -np.inf).max(axis=axes))
    return np.asarray(seen(x, 0).sum(axis=axes) / seen(np.ones_like(x), 0).sum(axis=axes))


def attention(layer: Any, rows: int) -> Callable[..., Array]:
    """Return the equation of a causal attention that looks at so many rows, itself included."""
    if isinstance(layer, (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)):
        return partial(_heads, rows=rows)
    return partial(_scores, rows=rows)


def _heads(
    layer: Any,
    numbers: Callable[[Any], Array],
    query: Array,
    value: Array,
    key: Any = None,
    *,
    rows: int,
    **options: Any,
) -> Array:
    """Attend with several heads: queries, keys and values [B, T, heads, size] are products of what is given."""
    parts = {inner.name: inner for inner in held(layer)}

    def product(name: str, x: Array) -> Array:
        dense = parts[name]
        y = np.tensordot(x, numbers(dense.kernel), axes=x.ndim - 2)  # over features, or heads and what each has
        return np.asarray(y if dense.bias is None else y + numbers(dense.bias))

    q, k, v = product("query", query), product("key", value if key is None else key), product("value", value)
    shared = q.shape[2] // k.shape[2]  # heads of queries that look at one of keys
    k, v = (np.repeat(each, shared, axis=2) for each in (k, v))
    scale = 1 / math.sqrt(q.shape[-1])
    found = np.empty((*q.shape[:3], v.shape[-1]))
    for t in range(q.shape[1]):
        last = slice(max(t + 1 - rows, 0), t + 1)
        shares = _softmax(np.einsum("bhd,bshd->bhs", q[:, t], k[:, last]) * scale)
        found[:, t] = np.einsum("bhs,bshd->bhd", shares, v[:, last])
    if "gate" in parts:
        found = found * ACTIVATIONS["sigmoid"].numpy(product("gate", query))
    return product("attention_output", found)


def _scores(layer: Any, numbers: Callable[[Any], Array], inputs: Any, *, rows: int, **options: Any) -> Array:
    """Attend by scores of queries and keys as they are given, [B, T, size]."""
    q, v, *key = inputs
    k = key[0] if key else v
    scale = 1.0 if layer.scale is None else numbers(layer.scale)
    found = np.empty((*q.shape[:2], v.shape[-1]))
    for t in range(q.shape[1]):
        last = slice(max(t + 1 - rows, 0), t + 1)
        if isinstance(layer, keras.layers.AdditiveAttention):
            scores = (scale * np.tanh(q[:, t, None] + k[:, last])).sum(axis=-1)
        elif layer.score_mode == "concat":
            weight = numbers(layer.concat_score_weight)
            scores = weight * np.tanh(scale * (q[:, t, None] + k[:, last])).sum(axis=-1)
        else:
            scores = scale * np.einsum("bd,bsd->bs", q[:, t], k[:, last])
        found[:, t] = np.einsum("bs,bsd->bd", _softmax(scores), v[:, last])
    return found


def _softmax(scores: Array) -> Array:
    return np.asarray(ACTIVATIONS["softmax"].numpy(scores))


EQUATIONS: Mapping[type, Callable[..., Array]] = {
    keras.layers.AveragePooling1D: partial(pooling, largest=False),
    keras.layers.AveragePooling2D: partial(pooling, largest=False),
    keras.layers.Conv1D: convolution,
    keras.layers.Conv2D: convolution,
    keras.layers.DepthwiseConv1D: depthwise,
    keras.layers.DepthwiseConv2D: depthwise,
    keras.layers.MaxPooling1D: partial(pooling, largest=True),
    keras.layers.MaxPooling2D: partial(pooling, largest=True),
    keras.layers.SeparableConv1D: separable,
    keras.layers.SeparableConv2D: separable,
}
"""Class of Keras' own -> its equation; of attention see `attention`."""
