"""The equations of layers that look at several time steps, against Keras in float64; and that they are witnesses."""

import itertools
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers

from exporter import export
from exporter.memory.attention import Cache
from exporter.memory.form import NOTHING, Memories, Memory
from exporter.memory.window import Clock
from exporter.prove import equations
from exporter.prove.equations import EQUATIONS, computed
from signatures.errors import ParityError

ONE_AXIS = {
    "conv": partial(layers.Conv1D, 6),
    "in groups": partial(layers.Conv1D, 6, groups=2, activation="softsign"),
    "depthwise": partial(layers.DepthwiseConv1D, depth_multiplier=2, activation="relu"),
    "separable": partial(layers.SeparableConv1D, 3, depth_multiplier=2, use_bias=False),
}
TWO_AXES = {
    "conv": partial(layers.Conv2D, 6, groups=2),
    "depthwise": partial(layers.DepthwiseConv2D, depth_multiplier=2),
    "separable": partial(layers.SeparableConv2D, 3, activation="tanh"),
}
POOLS = (layers.MaxPooling1D, layers.AveragePooling1D, layers.MaxPooling2D, layers.AveragePooling2D)

LAYERS = {
    **{
        f"{name}, {padding}, stride {stride}, dilation {dilation}": (
            partial(make, kernel_size=3, padding=padding, strides=stride, dilation_rate=dilation),
            (17, 4),
        )
        for (name, make), padding, (stride, dilation) in itertools.product(
            ONE_AXIS.items(), ("valid", "same", "causal"), ((1, 1), (2, 1), (1, 3))
        )
        if padding != "causal" or name in ("conv", "in groups")
    },
    **{
        f"{name} over two axes, {padding}, stride {stride}": (
            partial(make, kernel_size=(3, 2), padding=padding, strides=stride),
            (11, 6, 4),
        )
        for (name, make), padding, stride in itertools.product(TWO_AXES.items(), ("valid", "same"), (1, 2))
    },
    **{
        f"{pool.__name__}, {padding}, stride {stride}": (
            partial(pool, 3, strides=stride, padding=padding),
            (11, 6, 4) if pool.__name__.endswith("2D") else (11, 4),
        )
        for pool, padding, stride in itertools.product(POOLS, ("valid", "same"), (None, 1, 2))
    },
}


def numbers(values, dtype):
    return np.asarray(values, np.float64)


def scrambled(model):
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


@pytest.mark.parametrize("name", LAYERS)
def test_an_equation_gives_what_keras_gives(name):
    make, shape = LAYERS[name]
    x = keras.Input(shape, dtype="float64")
    model = scrambled(keras.Model(x, make(dtype="float64")(x)))
    assert type(model.layers[1]) in EQUATIONS
    given = np.random.default_rng(1).standard_normal((2, *shape))
    with computed(model, NOTHING, numbers):
        found = np.asarray(model(given))
    np.testing.assert_allclose(found, np.asarray(model(given)), atol=1e-12)


def attended(x):
    heads = partial(layers.MultiHeadAttention, 2, 4, dtype="float64")
    other = layers.Dense(5, dtype="float64")(x)
    own, causal = "float64", {"use_causal_mask": True}
    return [
        heads()(x, x, **causal),
        heads(value_dim=3, use_bias=False, output_shape=5, use_gate=True)(query=x, value=other, key=x, **causal),
        layers.GroupQueryAttention(4, 4, 2, use_gate=True, dtype=own)(x, x, **causal),
        layers.Attention(use_scale=True, dtype=own)([x, x], **causal),
        layers.Attention(score_mode="concat", use_scale=True, dtype=own)([x, other, x], **causal),
        layers.AdditiveAttention(dtype=own)([x, x], **causal),
    ]


@pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning")
@pytest.mark.parametrize("kind", range(6))
@pytest.mark.parametrize("rows", [4, 30])
def test_attention_gives_what_keras_gives_on_the_last_rows(kind, rows):
    x = keras.Input((None, 8), dtype="float64")
    model = scrambled(keras.Model(x, attended(x)[kind]))
    layer = next(each for each in model.layers if "attention" in each.name)
    cache = Cache(layer, ("query", "value"), rows, {}, "float64")
    memories = Memories((Memory("attention", layer, 0, (Clock(), Clock()), cache),))
    given = np.random.default_rng(1).standard_normal((2, 12, 8))
    with computed(model, memories, numbers):
        found = np.asarray(model(given))
    windows = [np.asarray(model(given[:, max(t + 1 - rows, 0) : t + 1]))[:, -1] for t in range(12)]
    np.testing.assert_allclose(found, np.stack(windows, axis=1), atol=1e-12)


def off_by_one(monkeypatch):
    own = equations._seen

    def later(layer, x, taps):
        return own(layer, np.roll(x, 1, axis=1), taps)

    monkeypatch.setattr(equations, "_seen", later)


def mean_of_zeros_too(monkeypatch):
    def pooling(layer, numbers, x, largest):
        return equations.pooling(layer, numbers, x, largest) * 0.99

    monkeypatch.setattr(equations, "EQUATIONS", {**EQUATIONS, layers.AveragePooling1D: partial(pooling, largest=False)})


def narrower(monkeypatch):
    own = equations.attention
    monkeypatch.setattr(equations, "attention", lambda layer, rows: own(layer, rows - 1))


WRONG = {
    "a convolution": (off_by_one, lambda x: layers.Conv1D(4, 3, padding="causal")(x), {}),
    "a pooling": (mean_of_zeros_too, lambda x: layers.AveragePooling1D(3, strides=1)(x), {}),
    "an attention": (
        narrower,
        lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
        {"attention_cache": 6},
    ),
}


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning")
@pytest.mark.parametrize("case", WRONG)
def test_no_artifact_is_delivered_where_keras_and_the_equation_differ(case, monkeypatch, tmp_path):
    mutate, make, options = WRONG[case]
    x = keras.Input((None, 6), name="x")
    model = scrambled(keras.Model(x, make(x)))
    mutate(monkeypatch)
    with pytest.raises(ParityError, match="The two witnesses disagree"):
        export(model, "onnx", f"{tmp_path}/", **options)
    assert not any(tmp_path.iterdir())
