"""Every layer and operation of Keras around a recurrent layer gives in every target what Keras gives, or is refused.

The values are those where kernels differ: rows of zeros, 0 and -0, 1e-30 and 1e30, ties, halves to be rounded,
integers below zero, masks that leave nothing, -inf in a softmax. Some things are nobody's promise and not fed: NaN
(TFLite's maximum drops it), what leaves float32 (TFLite's sums end at 3.4e38, not at infinity), numbers below 1e-37
(TensorFlow takes them for 0), floats beyond the range of the integer they are cast to (Keras' own result depends on the
machine), sines of what float32 can't tell from the next period, and the sign of a zero that a relu gives.
"""

import functools
import inspect
from contextlib import contextmanager
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from custom import Around
from keras import Input, activations, layers, ops

import signatures
from exporter import export, pipeline
from exporter.model import streams, survey, trials
from signatures.errors import UnsupportedModel

TARGETS = ("savedmodel", "onnx", "tflite")
INF = np.inf

ROWS = [
    *([0, 0, 0, 0], [-0.0, 0, -0.0, 0], [1, 1, 0, 1], [-1, -1, -2, -1], [3, 5, 5, 3], [1e-30, -1e-30, 0, 1e-30]),
    *([1e30, 1e30, -1e30, 1], [-1e30] * 4, [0.5, 1.5, 2.5, -0.5], [-1.5, -2.5, 3.5, 0.49999997], [100, -100, 20, -20]),
    *([1000, -1000, 88, -88], [6, -6, 7, -7], [1e-8, 0.1, -0.3, 0.999], [16777217, -8388609, 10, -3], [2, 2, 2, 2]),
]
DIVISORS = [0, 1, -1, 2, -2, 3, -3, 0.5, 1e30, 1e-30, 7, 2.5, -2.5, 0, 5, -7]


def over_time(values, dtype="float32"):
    """Return values as [2, 16, 4]: the second sample is the first one's rows backwards."""
    first = np.resize(np.array(values), (16, 4))
    return np.stack([first, first[::-1]]).astype(dtype)


def fixed(*shape):
    """Return random numbers with a part that is zero and one that is all the same."""
    values = np.random.default_rng(1).standard_normal((2, *shape)).astype("float32")
    values[:, 0], values[0, 1] = 0, -3
    return values


FEEDS = {
    "x": over_time(ROWS),
    "mild": np.clip(over_time(ROWS), -100, 100),  # for what sums: 1e30 - 1e30 depends on the order
    "y": np.roll(over_time(DIVISORS), 3, axis=2) + np.where(np.arange(16) % 3 == 0, 1, 0)[:, None].astype("float32"),
    "far": over_time([[INF, -INF, 0, 1], [-INF] * 4, [1, -INF, 1, 2], [-1, 0, 2, INF], [0] * 4]),
    "odd": over_time([[INF, -INF, np.nan, 1], [np.nan, 0, -1, 2]]),  # for what asks for them
    "n": over_time([0, 1, -1, 2, -2, 3, -3, 5, -5, 7, -7, 8, 100, -100, 2147483647, -2147483647, 65536], "int32"),
    "m": over_time([1, -1, 2, -2, 3, -3, 7, -7, 5, 4, -4], "int32"),
    "k": over_time([0, 1, 2, 3, 2, 1, 0, 3, 3], "int32"),
    "b": over_time([*[[0] * 4, [1] * 4], *[[1, 0, 1, 0], [0, 1, 1, 0]] * 7], "bool"),
    "d": over_time([1, 1, 0, 0, 1, 0, 0], "bool"),
    "s": fixed(6, 4),
    "si": np.resize([3, 1, 3, 0, 2, 2, 1, 0], (2, 6, 4)).astype("int32"),
    "image": fixed(6, 6, 2),
    "volume": fixed(4, 4, 4, 2),
}
TIMED = ("x", "mild", "y", "far", "odd", "n", "m", "k", "b", "d")


def each(kind, names, *feeds, **options):
    """Return a case for each of some operations, called on feeds."""

    def case(name):
        def run(v):
            function = layers.Activation(name) if kind == "activations" else getattr(ops, name)
            return function(*(getattr(v, feed) for feed in feeds), **options)

        return run

    detail = "" if feeds[0] == "x" and not options else f": {' '.join([*feeds, *map(str, options.values())])}"
    return {f"{kind}.{name}{detail}": case(name) for name in names.split()}


def divisor(v):
    """Return m, which is drawn with zeros for the survey, without them."""
    return ops.where(ops.equal(v.m, 0), 1, v.m)


def given():
    return layers.Normalization(mean=[1.0, 2, 3, 4], variance=[2.0, 1, 0, 2])


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).standard_normal((20, 7, 4)).astype("float32") * 3 + 1)
    return layer


def scalar(v):
    """Return zeros [2, 16, 1]: an output has to have a batch."""
    return ops.cast(v.k[..., :1] * 0, "float32")


def positive_definite(v):
    a = ops.tanh(v.s[:, :4])
    return ops.matmul(a, ops.swapaxes(a, 1, 2)) + 2 * ops.eye(4)


def apart(v):
    """Return s as [2, 6, 2, 2], heads apart."""
    return ops.reshape(v.s, (2, 6, 2, 2))


def colours(v):
    return ops.sigmoid(ops.concatenate([v.image, v.image[..., :1]], -1))


def sound(v):
    return ops.reshape(v.s, (-1, 24))


def nothing(v):
    """Return a mask [2, 16] that leaves nothing."""
    return ops.less(v.mild[..., 0], -1e9)


SEGMENTS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
EDGES = np.array([-1.0, 0.0, 1.0, 2.5], "float32")


def two_halves_and_four_quarters(x):
    x = tf.tile(x, [1, 4, 1])
    return tf.concat([*tf.split(x, 2, 1)[::-1], *tf.split(x, 4, 1)[::-1]], 1)


def own(function, feed="mild"):
    return lambda v: Around(function)(getattr(v, feed))


FAMILIES = {
    "of one": {
        **each("ops", "abs absolute ceil conj conjugate copy deg2rad erf erfc exp2 fabs floor isfinite isreal", "x"),
        **each("ops", "isinf isnan isneginf isposinf isfinite nan_to_num", "odd"),
        **each("ops", "log log10 log2 log1p logical_not negative rad2deg real imag reciprocal round rsqrt", "x"),
        **each("ops", "sign sqrt square trunc ones_like zeros_like empty_like stop_gradient nan_to_num cbrt", "x"),
        **each("ops", "exp expm1 sigmoid tanh relu softplus elu sqrt log abs sign floor square silu gelu relu6", "far"),
        **each("ops", "arctan sinh cosh tan sin cos sinc exp expm1 i0 angle signbit arcsinh", "mild"),
        **each("ops", "abs absolute bitwise_invert bitwise_not negative sign square relu ceil floor round", "n"),
        "ops.arccos": lambda v: ops.arccos(v.mild),
        "ops.arcsin": lambda v: ops.arcsin(v.mild),
        "ops.arccosh": lambda v: ops.arccosh(v.mild),
        "ops.arctanh": lambda v: ops.arctanh(v.mild / 100),
        "ops.erfinv": lambda v: ops.erfinv(v.mild / 100),
        "ops.round: two digits": lambda v: ops.round(v.mild, 2),
        "ops.clip": lambda v: ops.clip(v.x, -1.5, 2.5),
        "ops.clip: int": lambda v: ops.clip(v.n, -3, 7),
        "ops.nan_to_num: by others": lambda v: ops.nan_to_num(v.odd, 1.0, 2.0, -3.0),
        "ops.view": lambda v: ops.view(v.s, "int32"),
        "tf.math.rint": own(tf.math.rint),
    },
    "of two": {
        **each("ops", "add arctan2 divide divide_no_nan equal floor_divide greater greater_equal heaviside", "x", "y"),
        **each("ops", "isclose less less_equal logical_and logical_or logical_xor maximum minimum multiply", "x", "y"),
        **each("ops", "not_equal subtract true_divide fmax fmin nextafter", "x", "y"),
        **each("ops", "fmod mod hypot logaddexp logaddexp2 power arctan2", "mild", "y"),
        **each("ops", "add bitwise_and bitwise_or bitwise_xor divide maximum minimum", "n", "m"),
        "ops.add: a number a row": lambda v: ops.add(v.s, np.arange(6, dtype="float32").reshape(1, 6, 1)),
        "ops.add: a number a row of its own": lambda v: ops.add(v.s, ops.reshape(v.s[0, :, 0], (1, 6, 1))),
        "ops.add: a number a channel": lambda v: ops.add(v.image, ops.reshape(v.s[0, :2, 0], (1, 1, 1, 2))),
        "ops.matmul: over one feature": lambda v: ops.matmul(v.mild[..., :1], np.array([[1, 2, -3.0]], "float32")),
        "ops.floor_divide: int": lambda v: ops.floor_divide(v.n, divisor(v)),
        "ops.fmod: int": lambda v: ops.fmod(v.n, divisor(v)),
        "ops.mod: int": lambda v: ops.mod(v.n, divisor(v)),
        **each("ops", "multiply subtract true_divide greater less equal not_equal divide_no_nan", "n", "m"),
        **each("ops", "bitwise_left_shift left_shift bitwise_right_shift right_shift power", "m", "k"),
        **each("ops", "logical_and logical_or logical_xor", "b", "d"),
        "ops.gcd": lambda v: ops.gcd(v.si, v.si[:, ::-1]),
        "ops.lcm": lambda v: ops.lcm(v.si, v.si[:, ::-1]),
        "ops.ldexp": lambda v: ops.ldexp(v.mild, v.k),
        "ops.polar": lambda v: ops.real(ops.polar(v.mild, v.y)),
        "ops.power: half": lambda v: ops.power(v.x, 0.5),
        "ops.power: third": lambda v: ops.power(v.mild, 3.0),
        "ops.power: inverse": lambda v: ops.power(v.mild, -1.0),
        "ops.where": lambda v: ops.where(v.b, v.x, v.far),
        "ops.where: int": lambda v: ops.where(v.b, v.n, v.m),
        "ops.where: bool": lambda v: ops.where(v.b, v.d, v.b),
        "ops.where: guards a division": lambda v: ops.where(ops.equal(v.y, 0), 0.0, v.x / v.y),
        "ops.where: of one column": lambda v: ops.where(v.b[..., :1], v.x, -1e9),
        "ops.select": lambda v: ops.select([v.b, v.d], [v.x, v.y], 0.0),
        "ops.arctan2: of zeros": lambda v: ops.arctan2(v.x, ops.flip(v.x, -1)),
        "ops.equal: to infinities": lambda v: ops.equal(v.far[..., :1], np.full(4, INF, "float32")),
        "ops.not_equal: to infinity": lambda v: ops.not_equal(v.far, INF),
        "operator +": lambda v: 2.5 + v.x,
        "operator -": lambda v: 2.5 - v.x,
        "operator *": lambda v: v.x * -2.5,
        "operator /": lambda v: 2.5 / v.x,
        "operator //": lambda v: v.x // 2.5,
        "operator // of 2.5": lambda v: 2.5 // v.x,
        "operator //: int": lambda v: v.n // -3,
        "operator %": lambda v: v.x % 2.5,
        "operator % of 2.5": lambda v: -2.5 % v.mild,
        "operator %: int": lambda v: v.n % 3,
        "operator **": lambda v: v.mild**2,
        "operator @": lambda v: v.mild @ ops.swapaxes(v.mild, 1, 2),
        "operator abs": lambda v: abs(v.x),
        "operator ~ & | ^": lambda v: (~v.b & v.d) | (v.b ^ v.d),
        "tf.math.floormod": own(lambda x: tf.math.floormod(x, -3.0)),
        "tf.math.divide_no_nan": own(lambda x: tf.math.divide_no_nan(x, 0 * x)),
    },
    "casts": {
        **{f"ops.cast: {a}": lambda v, a=a: ops.cast(v.mild, a) for a in ("int8", "int16", "int32", "int64", "bool")},
        **{
            f"ops.cast: int {a}": lambda v, a=a: ops.cast(v.n, a) for a in ("float32", "bool", "int8", "uint8", "int16")
        },
        **{f"ops.cast: bool {a}": lambda v, a=a: ops.cast(v.b, a) for a in ("float32", "int32")},
        **{f"ops.saturate_cast: {a}": lambda v, a=a: ops.saturate_cast(v.x, a) for a in ("int8", "uint8", "int16")},
        "ops.cast: there and back": lambda v: ops.cast(ops.cast(v.mild, "int32"), "float32"),
        "ops.cast: int, then bool": lambda v: ops.cast(ops.cast(v.mild, "int32"), "bool"),
        "ops.cast: int8 in between": lambda v: ops.cast(ops.cast(v.n, "int8"), "int32"),
        "ops.cast: float in between": lambda v: ops.cast(ops.cast(v.n[..., 1:] // 2, "float32"), "int32"),
        "ops.cast: half in between": lambda v: ops.cast(ops.cast(v.x, "float16"), "float32") * 1,
        "ops.convert_to_tensor": lambda v: v.x + ops.convert_to_tensor([1.0, 2, 3, 4]),
    },
    "activations": {
        **each("ops", "celu elu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu", "x"),
        **each(
            "ops", "log_sigmoid log_softmax relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign", "x"
        ),
        **each("ops", "sparse_plus sparse_sigmoid sparsemax swish tanh tanh_shrink", "x"),
        **each("ops", "gelu glu squareplus normalize", "mild"),
        **each("activations", "celu elu exponential glu hard_shrink hard_sigmoid hard_silu hard_tanh", "mild"),
        **each("activations", "leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu", "mild"),
        **each("activations", "soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax", "mild"),
        **each("activations", "squareplus tanh tanh_shrink", "mild"),
        **each("activations", "gelu", "y"),
        "activations.threshold": lambda v: layers.Activation(lambda x: activations.threshold(x, 0.5, -9.0))(v.mild),
        **each("ops", "softmax log_softmax", "x", axis=1),
        "ops.gelu: exact": lambda v: ops.gelu(v.x, approximate=False),
        "ops.threshold": lambda v: ops.threshold(v.x, 0.5, -9.0),
        "ops.softmax: of what is left": lambda v: ops.softmax(ops.where(v.d, v.x, -INF)),
        "ops.softmax: of nothing": lambda v: ops.softmax(ops.where(v.b, v.x, -1e9)),
        "ops.log: of a softmax": lambda v: ops.log(ops.softmax(v.y)),
        "ops.normalize: by sum": lambda v: ops.normalize(v.mild, order=1),
        "ops.normalize: third root": lambda v: ops.normalize(v.mild, order=3),
        "ops.normalize: over time": lambda v: ops.normalize(v.mild, axis=1),
        "ops.normalize: epsilon": lambda v: ops.normalize(v.mild / 1000, epsilon=1e-3),
        "ops.rsqrt: of squares": lambda v: v.mild * ops.rsqrt(ops.sum(ops.square(v.mild), -1, keepdims=True) + 1e-9),
        "ops.rsqrt: of none": lambda v: v.mild * ops.rsqrt(ops.sum(ops.square(v.mild), -1, keepdims=True)),
        "operator /: by a root": lambda v: v.s / ops.sqrt(ops.sum(v.s * v.s, -1, keepdims=True)),
        "tf.math.l2_normalize": own(lambda x: tf.math.l2_normalize(x, -1, epsilon=1e-4)),
        "tf.nn.leaky_relu": own(lambda x: tf.maximum(x, 0.2 * x)),
    },
    "reductions": {
        **each("ops", "all any amax amin argmax argmin max min count_nonzero ptp", "x", axis=-1),
        **each("ops", "all any amax amin argmax argmin max min count_nonzero", "x", axis=1),
        **each("ops", "mean sum prod std var median logsumexp norm average nansum", "mild", axis=-1),
        **each("ops", "mean sum std var logsumexp average cumsum", "mild", axis=1),
        **each("ops", "max min amax amin argmax argmin any all", "far", axis=-1),
        **each("ops", "sum max min prod mean argmax argmin cumsum", "k", axis=-1),
        **each("ops", "any all sum max argmax count_nonzero", "b", axis=-1),
        **each("ops", "nanmax nanmin nanmean nanprod nanstd nanvar nanargmax nanargmin", "mild", axis=-1),
        **each("ops", "cumsum cumprod nancumsum nancumprod", "mild", axis=-1),
        **{f"ops.norm: {k}": lambda v, k=k: ops.norm(v.mild, ord=k, axis=-1) for k in (1, 2, INF, -INF)},
        **{
            f"ops.quantile: {how}": lambda v, how=how: ops.quantile(v.mild, 0.6, axis=-1, method=how)
            for how in ("linear", "lower", "higher", "midpoint", "nearest")
        },
        "ops.percentile": lambda v: ops.percentile(v.mild, 25, axis=-1),
        "ops.moments": lambda v: ops.moments(v.mild, axes=[-1]),
        "ops.average: weighted": lambda v: ops.average(v.mild, axis=-1, weights=v.mild + 1),
        "ops.trapezoid": lambda v: ops.trapezoid(v.mild, axis=-1),
        "ops.diff": lambda v: ops.diff(v.mild, axis=1),
        "ops.all: of everything": lambda v: scalar(v) + ops.cast(ops.all(v.b), "float32"),
        "ops.allclose": lambda v: scalar(v) + ops.cast(ops.allclose(v.mild, v.mild), "float32"),
        "ops.segment_sum": lambda v: ops.segment_sum(ops.reshape(v.s, (12, 4)), SEGMENTS, num_segments=2),
        "ops.segment_max": lambda v: ops.segment_max(ops.reshape(v.s, (12, 4)), SEGMENTS, num_segments=2),
        "ops.segment_min": lambda v: ops.segment_min(ops.reshape(v.s, (12, 4)), SEGMENTS, num_segments=2),
        "ops.segment_prod": lambda v: ops.segment_prod(ops.reshape(v.s, (12, 4)), SEGMENTS, num_segments=2),
        "ops.batch_normalization": lambda v: ops.batch_normalization(v.mild, ops.zeros(4), ops.zeros(4), -1),
        "ops.layer_normalization": lambda v: ops.layer_normalization(v.mild),
        "ops.rms_normalization": lambda v: ops.rms_normalization(v.mild),
        "ops.psnr": lambda v: scalar(v) + ops.psnr(v.s, v.s + 1, 255.0),
    },
}
FAMILIES |= {
    "shapes": {
        "ops.append": lambda v: ops.append(v.s, v.s, axis=-1),
        "ops.concatenate": lambda v: ops.concatenate([v.x, v.y], -1),
        "ops.concatenate: int": lambda v: ops.concatenate([v.n, v.m], 1),
        "ops.concatenate: bool": lambda v: ops.concatenate([v.b, v.d], 1),
        "ops.stack": lambda v: ops.stack([v.x, v.y], 2),
        "ops.hstack": lambda v: ops.hstack([v.x, v.y]),
        "ops.dstack": lambda v: ops.dstack([v.x, v.y]),
        "ops.vstack": lambda v: ops.reshape(ops.vstack([v.s[0], v.s[1]]), (2, 6, 4)),
        "ops.split": lambda v: ops.split(v.x, 2, axis=-1),
        "ops.split: in four": lambda v: ops.split(v.x, 4, axis=-1),
        "tf.split: along open time": own(two_halves_and_four_quarters),
        "ops.array_split": lambda v: ops.array_split(v.x, 3, axis=-1),
        "ops.dsplit": lambda v: ops.dsplit(v.x, 2),
        "ops.hsplit": lambda v: ops.hsplit(v.s, 2),
        "ops.vsplit": lambda v: ops.vsplit(ops.concatenate([v.s, v.s], 0), 2),
        "ops.unstack": lambda v: ops.unstack(v.x, axis=-1),
        "ops.broadcast_to": lambda v: ops.broadcast_to(v.s[:, :1], (2, 5, 4)),
        "ops.expand_dims": lambda v: ops.expand_dims(v.x, 1),
        "ops.squeeze": lambda v: ops.squeeze(v.x[..., :1], -1),
        "ops.flip": lambda v: ops.flip(v.x, axis=1),
        "ops.fliplr": lambda v: ops.fliplr(v.x),
        "ops.flipud": lambda v: ops.flipud(v.x),
        "ops.moveaxis": lambda v: ops.moveaxis(v.x, 1, 2),
        "ops.swapaxes": lambda v: ops.swapaxes(v.x, 1, 2),
        "ops.transpose": lambda v: ops.transpose(v.x, (0, 2, 1)),
        "ops.rot90": lambda v: ops.rot90(v.s, axes=(1, 2)),
        "ops.roll": lambda v: ops.roll(v.x, 2, axis=1),
        "ops.roll: back": lambda v: ops.roll(v.x, -1, axis=-1),
        "ops.repeat": lambda v: ops.repeat(v.x, 2, axis=1),
        "ops.tile": lambda v: ops.tile(v.x, (1, 2, 1)),
        "ops.pad": lambda v: ops.pad(v.x, ((0, 0), (1, 2), (0, 1)), constant_values=3.0),
        "ops.pad: int": lambda v: ops.pad(v.n, ((0, 0), (1, 2), (0, 1))),
        "ops.pad: reflect": lambda v: ops.pad(v.x, ((0, 0), (2, 1), (0, 1)), mode="reflect"),
        "ops.pad: symmetric": lambda v: ops.pad(v.x, ((0, 0), (2, 1), (0, 1)), mode="symmetric"),
        "ops.reshape": lambda v: ops.reshape(v.x, (2, -1, 2)),
        "ops.rearrange": lambda v: ops.rearrange(v.s, "b t f -> b f t"),
        "ops.ravel": lambda v: ops.reshape(ops.ravel(v.x), (2, -1)),
        "ops.meshgrid": lambda v: ops.meshgrid(v.s[0, :4, 0], v.s[0, :2, 0])[0],
        "ops.get_item": lambda v: ops.get_item(v.x, (slice(None), slice(1, None))),
        "ops.slice": lambda v: ops.slice(v.s, (0, 1, 1), (2, 3, 2)),
        "ops.slice_update": lambda v: ops.slice_update(v.s, (0, 1, 1), v.s[:, :2, :2] * 2),
        "ops.scatter_update": lambda v: ops.scatter_update(v.s, [[0, 1, 1], [1, 2, 0]], v.s[:, 1, 0]),
        "ops.scatter": lambda v: ops.scatter(v.si[:, :1, 0] % 2, v.s[:, 1], (2, 4)),
        "ops.take": lambda v: ops.take(v.x, [2, 0, 3], axis=-1),
        "ops.take: from the end": lambda v: ops.take(v.x, [-1, 0], axis=1),
        "ops.take_along_axis": lambda v: ops.take_along_axis(v.x, v.k, axis=-1),
        "ops.take_along_axis: from the end": lambda v: ops.take_along_axis(v.x, -v.k, axis=-1),
        "ops.tril": lambda v: ops.tril(v.s, k=-1),
        "ops.triu": lambda v: ops.triu(v.s, k=1),
        "ops.tri": lambda v: v.s[:, :4] + ops.tri(4),
        "ops.diag": lambda v: v.s[:, :4] + ops.diag(v.s[0, 1]),
        "ops.diagflat": lambda v: v.s[:, :4] + ops.diagflat(v.s[0, 1]),
        "ops.diagonal": lambda v: ops.diagonal(v.s, axis1=1, axis2=2),
        "ops.trace": lambda v: ops.trace(v.s, axis1=1, axis2=2),
        "ops.size": lambda v: scalar(v) + ops.cast(ops.size(v.x), "float32"),
        "ops.extract_sequences": lambda v: ops.extract_sequences(sound(v), 8, 4),
        "slice [:, ::-1]": lambda v: v.x[:, ::-1],
        "slice [:, 1::2]": lambda v: v.x[:, 1::2],
        "slice [:, -3:]": lambda v: v.x[:, -3:],
        "slice [:, None]": lambda v: v.x[:, None],
        "slice [:, 2]": lambda v: v.x[:, 2],
        "slice [:, :, ::-2]": lambda v: v.x[:, :, ::-2],
        "slice of bool": lambda v: v.b[:, 1:],
    },
    "held tensors": {
        **{
            f"ops.{name}": lambda v, name=name: v.mild * getattr(ops, name)(4)
            for name in ("bartlett", "blackman", "hamming", "hanning")
        },
        "ops.arange": lambda v: v.x * ops.arange(4, dtype="float32"),
        "adapted": lambda v: adapted()(v.mild),
        "nested": lambda v: keras.Sequential([given(), layers.Dense(3)])(v.mild),
        "given": lambda v: given()(v.mild),
        "repeated": lambda v: layers.TimeDistributed(given())(v.mild),
        "integers": lambda v: v.m * ops.arange(4),
        "booleans": lambda v: ops.where(ops.array([True, False, True, False]), v.x, 0.0),
        "ops.arange: int": lambda v: v.k * ops.arange(4),
        "ops.array": lambda v: v.x * ops.array([1.0, 2, 3, 4]),
        "ops.array: bool": lambda v: ops.logical_and(v.b, ops.array([True, False, True, True])),
        "ops.ones": lambda v: v.x + ops.ones((4,)),
        "ops.zeros": lambda v: v.x + ops.zeros((4,)),
        "ops.empty": lambda v: v.x + 0 * ops.empty((4,)),
        "ops.full": lambda v: v.x + ops.full((4,), 3.0),
        "ops.full_like": lambda v: ops.full_like(v.x, -3.0),
        "ops.eye": lambda v: v.s[:, :4] + ops.eye(4),
        "ops.identity": lambda v: v.s[:, :4] + ops.identity(4),
        "ops.linspace": lambda v: v.mild * ops.linspace(0.0, 1.0, 4),
        "ops.logspace": lambda v: v.mild * ops.logspace(0.0, 1.0, 4),
        "ops.geomspace": lambda v: v.mild * ops.geomspace(1.0, 8.0, 4),
        "ops.kaiser": lambda v: v.mild * ops.kaiser(4, 3.0),
        "ops.digitize": lambda v: ops.digitize(v.x, EDGES),
    },
    "order and counts": {
        **each("ops", "sort argsort", "x", axis=-1),
        **each("ops", "sort argsort", "x", axis=1),
        **each("ops", "sort argsort", "n", axis=-1),
        "ops.top_k": lambda v: ops.top_k(v.x, 2),
        "ops.top_k: int": lambda v: ops.top_k(v.n, 3),
        "ops.in_top_k": lambda v: ops.reshape(
            ops.in_top_k(ops.reshape(v.si[..., 0], (-1,)), ops.reshape(v.s, (-1, 4)), 2), (-1, 6)
        ),
        "ops.searchsorted": lambda v: ops.reshape(ops.searchsorted(EDGES, ops.reshape(v.x, (-1,))), (2, -1)),
        "ops.bincount": lambda v: ops.bincount(v.k[..., 0], minlength=5),
        "ops.one_hot": lambda v: ops.one_hot(v.k, 4),
        "ops.one_hot: out of range": lambda v: ops.one_hot(v.n, 4),
        "ops.multi_hot": lambda v: ops.multi_hot(v.k, 4),
        "ops.unravel_index": lambda v: ops.stack(ops.unravel_index(v.si, (2, 2)), -1),
        "ops.unique": lambda v: scalar(v)[:, 0] + ops.cast(ops.unique(v.si, size=4), "float32"),
        "ops.nonzero": lambda v: scalar(v) + ops.cast(ops.size(ops.nonzero(v.si)[0]), "float32"),
    },
    "products": {
        "ops.dot": lambda v: ops.dot(v.mild, ops.transpose(v.s[0])),
        "ops.inner": lambda v: ops.inner(v.mild, v.s[0]),
        "ops.outer": lambda v: v.s[:, :4] + ops.outer(v.s[0, 1], v.s[0, 2]),
        "ops.matmul": lambda v: ops.matmul(v.mild, ops.swapaxes(v.y, 1, 2)),
        "ops.matmul: by a vector": lambda v: ops.matmul(v.mild, v.s[0, 1]),
        "ops.matmul: int": lambda v: ops.matmul(v.k, ops.swapaxes(v.k, 1, 2)),
        "ops.tensordot": lambda v: ops.tensordot(v.mild, v.s, axes=([2], [2])),
        "ops.einsum": lambda v: ops.einsum("btf,bsf->bts", v.mild, v.mild),
        "ops.vdot": lambda v: scalar(v) + ops.vdot(v.s, v.s + 1),
        "ops.cross": lambda v: ops.cross(v.mild[..., :3], v.y[..., :3]),
        "ops.vander": lambda v: v.s[:, :4] + ops.vander(v.s[0, 1], 4),
        "ops.cdist": lambda v: ops.cdist(v.s, v.s + 1),
        "ops.correlate": lambda v: scalar(v)[:, :6, 0] + ops.correlate(v.s[0, :, 0], v.s[1, :3, 0], mode="same"),
        "ops.norm: of a matrix": lambda v: ops.norm(v.s, axis=(1, 2)),
    },
    "matrices": {
        **{
            f"ops.{name}": lambda v, name=name: getattr(ops, name)(positive_definite(v))
            for name in ("cholesky", "det", "inv", "logdet", "pinv", "matrix_rank", "slogdet")
        },
        "ops.cholesky_inverse": lambda v: ops.cholesky_inverse(ops.cholesky(positive_definite(v))),
        "ops.solve": lambda v: ops.solve(positive_definite(v), v.s[:, :4]),
        "ops.solve_triangular": lambda v: ops.solve_triangular(
            ops.cholesky(positive_definite(v)), v.s[:, :4], lower=True
        ),
        "ops.eigh": lambda v: ops.eigh(positive_definite(v))[0],
        "ops.eig": lambda v: ops.real(ops.eig(positive_definite(v))[0]),
        "ops.qr": lambda v: ops.qr(positive_definite(v))[1],
        "ops.svd": lambda v: ops.svd(positive_definite(v), compute_uv=False),
        "ops.lstsq": lambda v: v.s[:, :4] + ops.lstsq(positive_definite(v)[0], v.s[0, :4]),
        "ops.fft": lambda v: ops.fft((v.s, v.s * 0)),
        "ops.fft2": lambda v: ops.fft2((v.s, v.s * 0)),
        "ops.ifft2": lambda v: ops.ifft2((v.s, v.s * 0)),
        "ops.rfft": lambda v: ops.rfft(v.s),
        "ops.irfft": lambda v: ops.irfft((v.s[..., :3], v.s[..., 1:])),
        "ops.stft": lambda v: ops.stft(sound(v), 8, 4, 8),
        "ops.istft": lambda v: ops.istft(ops.stft(sound(v), 8, 4, 8), 8, 4, 8),
    },
    "networks": {
        **{
            f"ops.{name}: {padding}": lambda v, name=name, padding=padding: getattr(ops, name)(v.mild, 3, 2, padding)
            for name in ("max_pool", "average_pool")
            for padding in ("valid", "same")
        },
        "ops.conv": lambda v: ops.conv(v.s, np.ones((3, 4, 2), "float32"), 1, "same"),
        "ops.depthwise_conv": lambda v: ops.depthwise_conv(v.image, np.ones((3, 3, 2, 1), "float32"), 1, "same"),
        "ops.separable_conv": lambda v: ops.separable_conv(
            v.image, np.ones((3, 3, 2, 1), "float32"), np.ones((1, 1, 2, 3), "float32"), 1, "same"
        ),
        "ops.adaptive_average_pool": lambda v: ops.adaptive_average_pool(v.image, (4, 4)),
        "ops.adaptive_max_pool": lambda v: ops.adaptive_max_pool(v.image, (4, 4)),
        "ops.dot_product_attention": lambda v: ops.dot_product_attention(apart(v), apart(v), apart(v), is_causal=True),
        "ops.dot_product_attention: mask": lambda v: ops.dot_product_attention(
            apart(v),
            apart(v),
            apart(v),
            mask=ops.reshape(ops.concatenate([v.si, v.si], -1)[:, :, :6] > 1, (2, 1, 6, 6)),
        ),
        "ops.categorical_crossentropy": lambda v: ops.categorical_crossentropy(ops.softmax(v.x), ops.softmax(v.mild)),
        "ops.sparse_categorical_crossentropy": lambda v: ops.sparse_categorical_crossentropy(
            v.k[..., 0], ops.softmax(v.mild)
        ),
        "ops.binary_crossentropy": lambda v: ops.binary_crossentropy(ops.cast(v.b, "float32"), ops.sigmoid(v.mild)),
        "ops.depth_to_space": lambda v: ops.depth_to_space(ops.concatenate([v.image, v.image], -1), 2),
        "ops.space_to_depth": lambda v: ops.space_to_depth(v.image, 2),
        "ops.unfold": lambda v: ops.unfold(ops.transpose(v.image, (0, 3, 1, 2)), 2),
        "ops.fold": lambda v: ops.fold(ops.reshape(v.image[:, :4, :4], (2, 4, 8)), (4, 4), (1, 2), stride=(1, 2)),
        "ops.ctc_decode": lambda v: ops.ctc_decode(v.s, np.array([6, 6]))[0][0],
        "ops.cond": own(lambda x: ops.cond(ops.any(x > 3), lambda: x + 1, lambda: x - 1)),
        "ops.switch": lambda v: ops.switch(v.si[0, 0, 0] * 0 + 1, [lambda a: a + 1, lambda a: a - 1], v.x),
        "ops.while_loop": lambda v: ops.while_loop(
            lambda i, a: i < 3, lambda i, a: (i + 1, a + 1), (v.si[0, 0, 0] * 0, v.mild)
        )[1],
        "ops.fori_loop": lambda v: ops.fori_loop(0, 3, lambda i, a: a + 1.0, v.mild),
        "ops.scan": lambda v: ops.scan(lambda c, a: (c + a, c), v.s[:, 0], ops.swapaxes(v.s, 0, 1))[0],
        "ops.map": lambda v: ops.map(lambda a: a * 2, v.s),
        "ops.vectorized_map": lambda v: ops.vectorized_map(lambda a: a * 2, v.s),
        "ops.associative_scan": lambda v: ops.associative_scan(lambda a, b: a + b, v.s, axis=1),
    },
    "images": {
        **{
            f"ops.image.resize: {how} {size}": lambda v, how=how, size=size: ops.image.resize(
                v.image, (size, size + 1), interpolation=how
            )
            for how in ("nearest", "bilinear", "bicubic", "lanczos3", "area")
            for size in (4, 9)
        },
        "ops.image.rgb_to_hsv": lambda v: ops.image.rgb_to_hsv(colours(v)),
        "ops.image.hsv_to_rgb": lambda v: ops.image.hsv_to_rgb(colours(v)),
        "ops.image.rgb_to_grayscale": lambda v: ops.image.rgb_to_grayscale(colours(v)),
        "ops.image.crop_images": lambda v: ops.image.crop_images(v.image, 1, 1, target_height=3, target_width=3),
        "ops.image.pad_images": lambda v: ops.image.pad_images(v.image, 1, 1, target_height=9, target_width=9),
        "ops.image.extract_patches": lambda v: ops.image.extract_patches(v.image, 2),
        "ops.image.extract_patches_3d": lambda v: ops.image.extract_patches_3d(v.volume, 2),
        "ops.image.gaussian_blur": lambda v: ops.image.gaussian_blur(v.image),
        "ops.image.sobel_edges": lambda v: ops.image.sobel_edges(v.image),
        "ops.image.affine_transform": lambda v: ops.image.affine_transform(
            v.image, np.array([[1, 0.1, 0.2, 0, 1, 0.3, 0, 0]] * 2, "float32")
        ),
        "ops.image.perspective_transform": lambda v: ops.image.perspective_transform(
            v.image,
            *np.array([[[[0, 0], [5, 0], [0, 5], [5, 5]]] * 2, [[[0, 1], [4, 0], [1, 5], [5, 4]]] * 2], "float32"),
        ),
        "ops.image.scale_and_translate": lambda v: ops.image.scale_and_translate(
            v.image, (2, 9, 8, 2), np.array([1.5, 1.2], "float32"), np.array([0.5, -1], "float32"), (1, 2), "linear"
        ),
        "ops.image.ssim": lambda v: scalar(v)[:, 0, 0] + ops.image.ssim(v.image, v.image * 0.9, filter_size=3),
        "ops.image.map_coordinates": lambda v: ops.image.map_coordinates(
            v.image[..., 0], ops.stack([0 * v.image[..., 0], v.image[..., 0] + 2, v.image[..., 1] + 2]), 1
        ),
    },
}


def layer(names, *feeds, args=(), call=None, **options):
    """Return a case for each of some layers, called on one feed, or on a list of several."""

    def case(name):
        def run(v):
            given = [getattr(v, feed) for feed in feeds]
            return getattr(layers, name)(*args, **options)(given[0] if len(given) == 1 else given, **(call or {}))

        return run

    detail = ", ".join([*map(str, args), *(f"{key}={value}" for key, value in options.items())])
    return {f"layers.{name}{': ' if detail else ''}{detail}": case(name) for name in names.split()}


FAMILIES |= {
    "layers of one": {
        **layer("BatchNormalization RMSNormalization UnitNormalization Normalization", "mild"),
        **layer("LayerNormalization", "s"),
        **layer("Softmax ReLU LeakyReLU ELU Identity ActivityRegularization Masking", "x"),
        **layer("Dropout GaussianDropout GaussianNoise AlphaDropout SpatialDropout1D", "x", args=(0.5,)),
        **layer("PReLU", "mild", shared_axes=[1]),
        **layer("SpatialDropout2D", "image", args=(0.5,)),
        **layer("SpatialDropout3D", "volume", args=(0.5,)),
        **layer("UnitNormalization", "mild", axis=1),
        **layer("BatchNormalization", "image", axis=1),
        **layer("GroupNormalization", "image", groups=2),
        **layer("Softmax", "x", axis=1),
        **layer("ReLU", "x", max_value=2.5, negative_slope=0.1, threshold=0.5),
        **layer("LeakyReLU", "x", negative_slope=1.5),
        **layer("Normalization", "mild", mean=[1.0, 2, 3, 4], variance=[1.0, 0, 2, 1e-12]),
        **layer("Normalization", "mild", mean=1.0, variance=2.0, invert=True),
        **layer("Rescaling", "x", args=(1 / 127.0, -1.0)),
        **layer("Discretization", "x", args=([-1.0, 0.0, 1.0],)),
        **layer("Flatten", "s"),
        **layer("Permute", "x", args=((2, 1),)),
        **layer("Reshape", "x", args=((-1, 2),)),
        **layer("Activation", "x", args=("hard_silu",)),
        **layer("Embedding", "k", args=(4, 3)),
        **layer("Dense", "mild", args=(3,), activation="gelu"),
        **layer("Dense", "mild", args=(3,), activation="softplus"),
        **layer("EinsumDense", "mild", args=("abc,cde->abde",), output_shape=(None, 2, 3)),
        **layer("UpSampling1D ZeroPadding1D Cropping1D", "x", args=(2,)),
        **layer("ZeroPadding2D Cropping2D", "image", args=(1,)),
        **layer("UpSampling3D ZeroPadding3D Cropping3D", "volume", args=(1,)),
        **layer("UpSampling2D", "image", size=(2, 3)),
        **layer("UpSampling2D", "image", size=2, interpolation="bilinear"),
        **layer("CenterCrop", "image", args=(3, 4)),
        **layer("Resizing", "image", args=(9, 7)),
        **layer("Resizing", "image", args=(4, 3), interpolation="nearest"),
        "layers.RepeatVector": lambda v: layers.RepeatVector(3)(v.s[:, 0]),
        "layers.CategoryEncoding": lambda v: layers.CategoryEncoding(4, output_mode="multi_hot")(v.si[..., 0]),
        "layers.CategoryEncoding: count": lambda v: layers.CategoryEncoding(4, output_mode="count")(v.si[..., 0]),
        "layers.ReversibleEmbedding": lambda v: (lambda e: e(e(v.k[..., 0]), reverse=True))(
            layers.ReversibleEmbedding(4, 3)
        ),
        "layers.TimeDistributed": lambda v: layers.TimeDistributed(layers.UnitNormalization())(v.mild),
        "layers.TimeDistributed: held": lambda v: layers.TimeDistributed(
            layers.Normalization(mean=[1.0, 2, 3, 4], variance=[2.0, 1, 2, 1])
        )(v.mild),
        "layers.SpectralNormalization": lambda v: layers.SpectralNormalization(layers.Dense(3))(v.mild),
        "layers.Lambda": lambda v: layers.Lambda(lambda a: a * 2)(v.x),
        "layers.Pipeline": lambda v: layers.Pipeline([layers.Rescaling(0.5)])(v.x),
        "layers.UnitNormalization: of a product": lambda v: layers.UnitNormalization()(
            layers.Dense(3, use_bias=False)(v.mild)
        ),
        "layers.BatchNormalization: of a convolution": lambda v: layers.BatchNormalization()(
            layers.Conv1D(3, 2, activation="relu")(v.mild)
        ),
        "layers.Softmax: mask": lambda v: layers.Softmax()(v.mild, mask=v.b),
        "layers.IntegerLookup": lambda v: layers.IntegerLookup(vocabulary=[1, 3])(v.si[..., 0]),
        "layers.MelSpectrogram": lambda v: layers.MelSpectrogram(
            num_mel_bins=4, fft_length=16, sequence_stride=4, sampling_rate=1000, max_freq=400, min_freq=10
        )(sound(v)),
    },
    "convolutions": {
        **layer("Conv1D Conv1DTranspose DepthwiseConv1D", "mild", args=(3, 2), padding="same"),
        **layer("Conv1D", "mild", args=(3, 3), padding="causal", dilation_rate=2),
        **layer("Conv1D", "mild", args=(3, 3), strides=2, activation="leaky_relu"),
        **layer("Conv2D Conv2DTranspose", "image", args=(3, 3), strides=2, padding="same"),
        **layer("Conv2D", "image", args=(3, 3), dilation_rate=2),
        **layer("Conv3D Conv3DTranspose", "volume", args=(3, 2), padding="same"),
        **layer("DepthwiseConv2D", "image", args=(3,), depth_multiplier=2),
        **layer("SeparableConv1D", "mild", args=(3, 3), padding="same"),
        **layer("SeparableConv2D", "image", args=(3, 3), strides=2),
        **layer("Conv1D", "mild", args=(4, 2), groups=2),
        **layer("Conv2D", "image", args=(4, 2), groups=2),
        **layer("Conv3D", "volume", args=(4, 2), groups=2),
        "layers.Conv3D: channels first": lambda v: layers.Conv3D(3, 2, data_format="channels_first")(v.volume),
        "tf.nn.convolution: by name": own(
            lambda x: tf.nn.convolution(input=x, filters=np.ones((2, 4, 3), "float32"), padding="SAME", dilations=2)
        ),
        **layer("MaxPooling1D AveragePooling1D", "mild", args=(3, 2), padding="same"),
        **layer("MaxPooling2D AveragePooling2D", "image", args=(3, 2), padding="same"),
        **layer("MaxPooling3D AveragePooling3D", "volume", args=(3, 2), padding="same"),
        **layer("GlobalMaxPooling1D GlobalAveragePooling1D", "mild"),
        **layer("GlobalMaxPooling2D GlobalAveragePooling2D", "image"),
        **layer("GlobalMaxPooling3D GlobalAveragePooling3D", "volume"),
        **layer("AdaptiveMaxPooling1D AdaptiveAveragePooling1D", "s", args=(3,)),
        **layer("AdaptiveMaxPooling2D AdaptiveAveragePooling2D", "image", args=(4,)),
        **layer("AdaptiveMaxPooling3D AdaptiveAveragePooling3D", "volume", args=(2,)),
        "layers.GlobalAveragePooling1D: mask": lambda v: layers.GlobalAveragePooling1D()(v.mild, mask=v.b[..., 0]),
        "layers.GlobalAveragePooling1D: of nothing": lambda v: layers.GlobalAveragePooling1D()(v.mild, mask=nothing(v)),
    },
    "layers of two": {
        **layer("Add Average Concatenate Maximum Minimum Multiply Subtract", "x", "y"),
        **{
            f"layers.{name}": lambda v, name=name: getattr(layers, name)([v.x, v.y])
            for name in ("add", "average", "concatenate", "maximum", "minimum", "multiply", "subtract")
        },
        "layers.dot": lambda v: layers.dot([v.mild, v.mild], axes=2),
        **layer("Dot", "mild", "mild", axes=2, normalize=True),
        **layer("Attention AdditiveAttention", "mild", "mild"),
        **layer("Attention", "mild", "mild", use_scale=True, score_mode="concat"),
        "layers.Attention: mask": lambda v: layers.Attention()([v.mild, v.mild], mask=[v.b[..., 0], v.d[..., 0]]),
        "layers.Attention: causal": lambda v: layers.Attention()([v.mild, v.mild], use_causal_mask=True),
        "layers.Attention: of nothing": lambda v: layers.Attention()([v.mild, v.mild], mask=[None, nothing(v)]),
        "layers.AdditiveAttention: of nothing": lambda v: layers.AdditiveAttention()(
            [v.mild, v.mild], mask=[None, nothing(v)]
        ),
        "layers.MultiHeadAttention": lambda v: layers.MultiHeadAttention(2, 3)(v.s, v.s, use_causal_mask=True),
        "layers.MultiHeadAttention: of nothing": lambda v: layers.MultiHeadAttention(2, 3)(
            v.mild / 50, v.mild / 50, key_mask=nothing(v)
        ),
        "layers.GroupQueryAttention": lambda v: layers.GroupQueryAttention(3, 4, 2)(v.s, v.s),
    },
}

FAMILIES |= {
    "augmentations": {
        **{
            f"layers.{name}": lambda v, name=name, options=options: getattr(layers, name)(**options)(colours(v))
            for name, options in {
                "RandomBrightness": {"factor": 0.5, "value_range": (0, 1)},
                "RandomColorDegeneration": {"factor": 0.5, "value_range": (0, 1)},
                "RandomColorJitter": {"brightness_factor": 0.5, "value_range": (0, 1)},
                "RandomContrast": {"factor": 0.5, "value_range": (0, 1)},
                "RandomCrop": {"height": 4, "width": 4},
                "RandomElasticTransform": {"factor": 0.5, "value_range": (0, 1)},
                "RandomErasing": {"value_range": (0, 1)},
                "RandomFlip": {},
                "RandomGaussianBlur": {"value_range": (0, 1)},
                "RandomGrayscale": {},
                "RandomHue": {"factor": 0.5, "value_range": (0, 1)},
                "RandomInvert": {"value_range": (0, 1)},
                "RandomPerspective": {},
                "RandomPosterization": {"factor": 4, "value_range": (0, 1)},
                "RandomRotation": {"factor": 0.2},
                "RandomSaturation": {"factor": 0.5, "value_range": (0, 1)},
                "RandomSharpness": {"factor": 0.5, "value_range": (0, 1)},
                "RandomShear": {"x_factor": 0.5},
                "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
                "RandomZoom": {"height_factor": 0.2},
                "AugMix": {"value_range": (0, 1)},
                "AutoContrast": {"value_range": (0, 1)},
                "ContrastLimitedAdaptiveHistogramEqualization": {"value_range": (0, 1), "tile_grid_size": (2, 2)},
                "CutMix": {},
                "MixUp": {},
                "RandAugment": {"value_range": (0, 1)},
                "Solarization": {"value_range": (0, 1)},
            }.items()
        }
    },
}

FIXED = ("reductions", "shapes", "order and counts", "products", "matrices", "networks", "images")
"""Families some of whose cases rely on a batch of 2, which the model then declares."""

NEITHER = {
    "ops.i0: mild": "BesselI0",
    "ops.bitwise_invert: n": "Invert",
    "ops.bitwise_not: n": "Invert",
    "ops.erfinv": "Erfinv",
    "ops.bitwise_and: n m": "BitwiseAnd",
    "ops.bitwise_or: n m": "BitwiseOr",
    "ops.in_top_k": "InTopKV2",
    "ops.searchsorted": "LowerBound",
    "ops.cholesky": "Cholesky",
    "ops.inv": "MatrixInverse",
    "ops.pinv": "Svd",
    "ops.matrix_rank": "Svd",
    "ops.slogdet": "LogMatrixDeterminant",
    "ops.cholesky_inverse": "Cholesky, MatrixTriangularSolve",
    "ops.solve": "MatrixSolve",
    "ops.solve_triangular": "Cholesky, MatrixTriangularSolve",
    "ops.eigh": "SelfAdjointEigV2",
    "ops.qr": "Qr",
    "ops.svd": "Svd",
    "ops.lstsq": "Svd",
    "ops.irfft": "Complex, IRFFT",
    "ops.image.resize: bicubic 4": "ResizeBicubic",
    "ops.image.resize: bicubic 9": "ResizeBicubic",
    "ops.image.resize: lanczos3 4": "ScaleAndTranslate",
    "ops.image.resize: lanczos3 9": "ScaleAndTranslate",
    "ops.image.resize: area 4": "ResizeArea",
    "ops.image.resize: area 9": "ResizeArea",
    "ops.image.rgb_to_hsv": "RGBToHSV",
    "ops.image.hsv_to_rgb": "HSVToRGB",
    "ops.image.affine_transform": "ImageProjectiveTransformV3",
    "ops.image.perspective_transform": "ImageProjectiveTransformV3",
    "ops.cumprod: mild -1": "Cumprod",
    "ops.nancumprod: mild -1": "Cumprod",
    "ops.ctc_decode": "CTCGreedyDecoder",
    "ops.sparse_categorical_crossentropy": "SparseSoftmaxCrossEntropyWithLogits",
}
"""Case -> the operations that both refusals name."""

REFUSED = {
    "onnx": NEITHER
    | {
        "layers.MelSpectrogram": "Imag, RFFT, Real",
        "ops.view": "Bitcast",
        "ops.nextafter": "NextAfter",
        "ops.bitwise_xor: n m": "BitwiseXor",
        "ops.polar": "Complex, Real",
        "ops.slice_update": "XlaDynamicUpdateSlice",
        "ops.cross": "BroadcastArgs, Cross",
        "ops.switch": "Merge, _SwitchN",
        "ops.logdet": "Cholesky",
        "ops.eig": "Eig, Real",
        "ops.fft": "Complex, FFT, Imag, Real",
        "ops.fft2": "Complex, FFT2D, Imag, Real",
        "ops.ifft2": "Complex, FFT2D, Imag, Real",
        "ops.rfft": "Imag, RFFT, Real",
        "ops.stft": "Imag, RFFT, Real",
        "ops.istft": "Complex, IRFFT, Imag, RFFT, Real",
        "ops.digitize": "Bucketize",
        "layers.Discretization: [-1.0, 0.0, 1.0]": "Bucketize",
    },
    "tflite": NEITHER
    | {
        "ops.nextafter": "NextAfter of float64",
        "ops.bitwise_left_shift: m k": "LeftShift",
        "ops.left_shift: m k": "LeftShift",
        "ops.polar": "Complex",
        "ops.erf": "Erf",
        "ops.erfc": "Erfc",
        "ops.sinh: mild": "Sinh",
        "ops.cosh: mild": "Cosh",
        "ops.tan: mild": "Tan",
        "ops.arcsinh: mild": "Asinh",
        "ops.arccos": "Acos",
        "ops.arcsin": "Asin",
        "ops.arccosh": "Acosh",
        "ops.arctanh": "Atanh",
        "ops.diagonal": "MatrixDiagPartV3",
        "ops.bincount": "DenseBincount",
        "ops.nonzero": "Unpack",
        "ops.cross": "Cross",
        "ops.unfold": "ExtractImagePatches",
        "ops.switch": "PartitionedCall",
        "ops.det": "MatrixDeterminant",
        "ops.logdet": "Cholesky, MatrixDiagPartV3",
        "ops.eig": "Eig",
        "ops.fft": "Complex, FFT",
        "ops.fft2": "Complex, FFT2D",
        "ops.ifft2": "Complex, FFT2D",
        "ops.istft": "Complex, IRFFT",
        "layers.CategoryEncoding": "DenseBincount",
        "layers.CategoryEncoding: count": "DenseBincount",
        "layers.Conv3D: 4, 2, groups=2": "Conv3D",
        "layers.Conv3D: channels first": "Conv3D",
        "layers.MaxPooling3D: 3, 2, padding=same": "MaxPool3D",
        "layers.AveragePooling3D: 3, 2, padding=same": "AvgPool3D",
        "layers.AdaptiveMaxPooling3D: 2": "MaxPool3D",
        "layers.AdaptiveAveragePooling3D: 2": "AvgPool3D",
        "ops.median: mild -1": "Ceil of float64, Mul of float64, Sub of float64",
        "ops.quantile: linear": "Ceil of float64, Mul of float64, Sub of float64",
        "ops.quantile: lower": "Ceil of float64, Mul of float64, Sub of float64",
        "ops.quantile: higher": "Ceil of float64, Mul of float64, Sub of float64",
        "ops.quantile: midpoint": "Ceil of float64, Mul of float64, Sub of float64",
        "ops.quantile: nearest": "Ceil of float64, Mul of float64, Sub of float64",
        "ops.percentile": "Ceil of float64, Mul of float64, Sub of float64",
    },
}
"""Target -> case -> the operations that its refusal names."""

EXCLUDED = {
    "recurrent: they have golden cases": "Bidirectional RNN ConvLSTM1D ConvLSTM2D ConvLSTM3D GRU GRUCell LSTM LSTMCell"
    " SimpleRNN SimpleRNNCell StackedRNNCells",
    "no part of a model's graph": "Input InputLayer InputSpec Layer Wrapper deserialize get serialize"
    " convert_to_numpy custom_gradient dtype is_tensor jvp ndim shape",
    "text, which no port takes": "StringLookup TextVectorization",
    "other frameworks": "FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper",
    "Keras can't run it symbolically with TensorFlow": "Equalization argpartition conv_transpose histogram vectorize"
    " view_as_complex view_as_real",
    "Keras can't run it as a TensorFlow graph": "corrcoef isin kron lu_factor nanmedian nanpercentile nanquantile",
    "needs SciPy for its window": "STFTSpectrogram",
    "draws random numbers": "elastic_transform",
    "strings inside, which a SavedModel needs --trust for": "HashedCrossing Hashing",
    "labels, not samples": "MaxNumBoundingBoxes ctc_loss",
}
"""Reason -> names that aren't tried."""


def model_of(cases, batch):
    """Return a model of these cases around one LSTM; its output names are the cases'."""
    keras.utils.set_random_seed(7)
    sources = {
        name: Input(
            batch_shape=(batch, None if name in TIMED else x.shape[1], *x.shape[2:]), dtype=str(x.dtype), name=name
        )
        for name, x in FEEDS.items()
    }
    outputs = {
        f"{case} {k}": value
        for case, run in cases.items()
        for k, value in enumerate(keras.tree.flatten(run(SimpleNamespace(**sources))))
    }
    outputs["lstm"] = layers.LSTM(4, return_sequences=True)(sources["mild"])
    model = keras.Model(sources, outputs)
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "seed" not in weight.path:
            drawn = 0.6 * rng.standard_normal(weight.shape)
            weight.assign(np.abs(drawn) + 0.1 if "variance" in weight.path else drawn)
    return model


@contextmanager
def as_it_is():
    """Have a model surveyed as Keras has it; its steps and what shares a clock are other tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "_no_step", lambda *args: ("Not asked.", 0))
        patch.setattr(streams, "_streamed", lambda *args: (None, "Not asked."))
        patch.setattr(trials, "_partitions", lambda axes: [[axes]])
        yield


def exported(cases, targets, folder, batch):
    """Export a model of some cases."""
    with as_it_is():
        model = model_of(cases, batch)
        return model, export(model, targets, folder, batch=2, check=False)


@functools.cache
def opened(case):
    """Return a model of one case, and what running it showed, for all targets that refuse it."""
    with as_it_is():
        model = model_of({case: EVERYTHING[case]}, 2)
        return model, pipeline.open_model(pipeline.load_model(model), batch=2)


def differences(model, artifacts):
    """Return what artifacts give otherwise than Keras, one line an output."""
    want = model({name: tf.constant(value) for name, value in FEEDS.items()}, training=False)
    found = []
    for artifact in artifacts:
        runner = signatures.open(artifact.path)
        states = runner.contract.signatures["sequence"].initial_state(2)
        got = runner.run("sequence", {**FEEDS, **states})
        for (name, value), port in zip(sorted(want.items()), runner.contract.outputs, strict=True):
            value = np.asarray(value)
            alike = got[port].shape == value.shape and np.isclose(
                got[port].astype(value.dtype), value, rtol=1e-5, atol=1e-5, equal_nan=True
            )
            if not np.all(alike):
                place = tuple(np.argwhere(~np.broadcast_to(alike, value.shape))[0])
                found.append(f"{artifact.target}, {name} {place}: {got[port][place]}, Keras {value[place]}")
    return found


SEEDED = ("ColorDegeneration", "Grayscale", "Hue", "Posterization", "Saturation", "Sharpness")
OTHERWISE = [
    *[(f"layers.Random{name}", target, "a seed") for name in SEEDED for target in TARGETS],
    *[("layers.MixUp", target, "a seed") for target in TARGETS],
    *[("layers.IntegerLookup", target, "table") for target in TARGETS],
    *[(case, "onnx", "tf2onnx can't write") for case in ("ops.scan", "ops.associative_scan", "ops.argmax: b -1")],
]
"""Cases that a target refuses for another reason: (case, target, part of the sentence)."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:NotImplemented should not be used:DeprecationWarning"
)  # Keras' tensordot

GROUP = 12
"""How many cases are refused at once."""

REFUSALS = {case for cases in REFUSED.values() for case in cases} | {case for case, _, _ in OTHERWISE}
EVERYTHING = {case: run for cases in FAMILIES.values() for case, run in cases.items()}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_special_values_are_those_of_keras(family, tmp_path):
    cases = {case: run for case, run in FAMILIES[family].items() if case not in REFUSALS}
    model, artifacts = exported(cases, "all", tmp_path, 2 if family in FIXED else None)
    assert {artifact.target for artifact in artifacts} == set(TARGETS)
    assert differences(model, artifacts) == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_another_target_refuses_is_that_of_keras(target, tmp_path):
    own = {*REFUSED.get(target, ()), *(case for case, refusing, _ in OTHERWISE if refusing == target)}
    cases = sorted(REFUSALS - own)
    model, artifacts = exported({case: EVERYTHING[case] for case in cases}, target, f"{tmp_path}/", 2)
    assert differences(model, artifacts) == []


@pytest.mark.parametrize(
    ("case", "target", "said"), [pytest.param(*one, marks=pytest.mark.xdist_group(one[0])) for one in OTHERWISE]
)
def test_others_are_refused_in_a_sentence(case, target, said, monkeypatch, tmp_path):
    model, showed = opened(case)
    monkeypatch.setattr(pipeline, "open_model", lambda *given: showed)
    with pytest.raises(UnsupportedModel, match=said):
        export(model, target, f"{tmp_path}/", batch=2, check=False)


@pytest.mark.parametrize(("target", "start"), [(t, k) for t in REFUSED for k in range(0, len(REFUSED[t]), GROUP)])
def test_refusals_name_each_operation(target, start, tmp_path):
    group = dict(list(REFUSED[target].items())[start : start + GROUP])
    with pytest.raises(UnsupportedModel) as refused:
        exported({case: EVERYTHING[case] for case in group}, target, f"{tmp_path}/", 2)
    named = str(refused.value).split("\n")[0].split(": ")[1].rstrip(".").split(", ")
    assert set(named) == {name for names in group.values() for name in names.split(", ")}


def test_a_layer_that_runs_on_arrays_but_not_as_a_graph_is_refused(tmp_path):
    def of_open_shape(v):
        return ops.unravel_index(v.k, (2, 2))[0]

    with pytest.raises(UnsupportedModel, match=r"(?s)can't be run as a graph \(.*UnravelIndex.*--time N"):
        exported({"ops.unravel_index": of_open_shape}, "onnx", f"{tmp_path}/", None)


def test_a_layer_that_counts_its_calls_in_a_function_of_its_own_is_refused(tmp_path):
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            return tf.function(lambda x: x + 0 * self.count.value.assign_add(1.0))(x)

    with pytest.raises(UnsupportedModel, match="changes a variable whenever it is called"):
        exported({"counting": lambda v: Counting()(v.mild)}, "savedmodel", f"{tmp_path}/", None)


@pytest.mark.parametrize("module", ["ops", "ops.image", "layers", "activations"])
def test_every_public_layer_and_operation_is_tried(module):
    """Or excluded with a reason; what goes by two names, once."""
    tried = {found(case.split(":")[0].split(" ")[0]) for case in EVERYTHING if case.startswith(f"{module}.")}
    excluded = {name for names in EXCLUDED.values() for name in names.split()}
    public = {
        name: value
        for name, value in inspect.getmembers(
            found(module), lambda value: inspect.isclass(value) or inspect.isfunction(value)
        )
        if not name.startswith("_")
    }
    assert len(public) > 15
    assert [name for name, value in public.items() if value not in tried and name not in excluded] == []
    assert [name for name, value in public.items() if value in tried and name in excluded] == []


def found(name):
    """Return what Keras has by a name with dots."""
    return functools.reduce(getattr, name.split("."), keras)
