"""Models that people stream, small: temporal convolutions, keyword spotters, noise suppressors, wake words."""

import keras
import numpy as np
from keras import Input, layers, ops


@keras.saving.register_keras_serializable("streaming")
class Dilated(layers.Layer):
    """A residual block of a user's own: two causal convolutions and a sum between its layers."""

    def __init__(self, filters, dilation, **options):
        super().__init__(**options)
        self.filters, self.dilation = filters, dilation
        self.first = layers.Conv1D(filters, 3, dilation_rate=dilation, padding="causal", activation="relu")
        self.second = layers.Conv1D(filters, 3, dilation_rate=dilation, padding="causal")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.filters))

    def call(self, x):
        return ops.relu(x + self.second(self.first(x)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "dilation": self.dilation}


@keras.saving.register_keras_serializable("streaming")
class Shortened(layers.Layer):
    """A residual block of a user's own whose rows become fewer: the sum joins rows of different delay."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.filters = filters
        self.first = layers.Conv1D(filters, 3, activation="relu")
        self.second = layers.Conv1D(filters, 3)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.filters))

    def call(self, x):
        return ops.relu(x[:, 4:] + self.second(self.first(x)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def tcn(filters=8, dilations=(1, 2, 4, 8)):
    x = y = Input((None, 6), name="x")
    y = layers.Conv1D(filters, 1)(y)
    for dilation in dilations:
        z = y
        for _ in range(2):
            z = layers.Conv1D(filters, 3, dilation_rate=dilation, padding="causal")(z)
            z = layers.ReLU()(layers.BatchNormalization()(z))
        y = layers.Add()([y, z])
    return keras.Model(x, layers.Dense(3, name="y")(y))


def kws():
    x = y = Input((None, 6), name="x")
    y = layers.Conv1D(8, 5, strides=2, padding="causal", activation="relu", name="front")(y)
    y = layers.GRU(6, return_sequences=True, name="gru")(y)
    return keras.Model(x, layers.Dense(4, name="y")(y))


def rnnoise(padding="causal"):
    x = y = Input((None, 6), name="x")
    y = layers.Conv1D(8, 3, padding=padding, activation="tanh")(y)
    y = front = layers.Conv1D(8, 3, padding=padding, activation="tanh")(y)
    grus = [front]
    for _ in range(3):
        y = layers.GRU(5, return_sequences=True)(y)
        grus.append(y)
    joined = layers.Concatenate()(grus)
    gains, voice = layers.Dense(6, "sigmoid", name="gains"), layers.Dense(1, "sigmoid", name="voice")
    return keras.Model(x, [gains(joined), voice(joined)])


def wake_word():
    """microWakeWord's form: a stride of 3, valid depthwise convolutions, residuals cropped to fit."""
    x = y = Input((None, 6), name="x")
    y = layers.Conv1D(8, 5, strides=3, activation="relu")(y)
    for kernel in (5, 9):
        z = layers.DepthwiseConv1D(kernel)(y)
        z = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 1)(z)))
        y = layers.Add()([z, layers.Conv1D(8, 1)(y)[:, kernel - 1 :]])
    y = layers.AveragePooling1D(20, strides=1)(y)
    return keras.Model(x, layers.Dense(1, "sigmoid", name="y")(y))


def unaligned():
    """A sum of a delayed and an undelayed tensor: the one has to wait."""
    x = Input((None, 6), name="x")
    late = layers.Conv1D(5, 4, name="late")(layers.ZeroPadding1D((0, 3))(x))
    return keras.Model(x, layers.Add(name="y")([late, layers.Dense(5)(x)]))


def two_axes():
    x = y = Input((None, 8, 1), name="x")
    y = layers.Conv2D(4, 3, strides=(1, 2), activation="relu")(layers.ZeroPadding2D(((2, 0), (1, 1)))(y))
    y = layers.Conv2D(3, (2, 3), activation="relu")(layers.ZeroPadding2D(((1, 0), (0, 0)))(y))
    y = layers.LSTM(5, return_sequences=True)(layers.Reshape((-1, 6))(y))
    return keras.Model(x, layers.Dense(2, name="y")(y))


def skip_sums():
    x = y = Input((None, 6), name="x")
    sums = []
    for dilation in (1, 2, 4):
        y = Dilated(6, dilation)(y)
        sums.append(y)
    return keras.Model(x, layers.Dense(2, name="y")(layers.Add()(sums)))


def shortened():
    x = Input((None, 6), name="x")
    y = Shortened(6)(Shortened(6)(x))
    return keras.Model(x, layers.GRU(4, return_sequences=True, name="gru")(y))


def folds():
    x = y = Input((None, 6), name="x")
    y = layers.LSTM(5, return_sequences=True)(layers.MaxPooling1D(2)(layers.Conv1D(6, 3, padding="causal")(y)))
    joined = layers.Concatenate()([layers.GlobalMaxPooling1D()(y), layers.GlobalAveragePooling1D()(y)])
    return keras.Model(x, {"all": layers.Dense(2)(joined), "path": ops.cumsum(y, axis=1), "low": ops.min(y, axis=1)})


def up_and_down():
    x = y = Input((None, 6), name="x")
    y = layers.LSTM(5, return_sequences=True)(layers.Conv1D(6, 4, strides=2, padding="causal")(y))
    return keras.Model(x, layers.Conv1DTranspose(4, 4, strides=2, name="up")(y)[:, :-2])


def framed():
    """A waveform in overlapping frames."""
    x = Input((None,), name="x")
    y = layers.Dense(6)(ops.extract_sequences(x, 32, 16))
    return keras.Model(x, layers.LSTM(5, return_sequences=True, name="lstm")(y))


def denoiser():
    """DTLN's form: from waveform to waveform by overlapping frames, a mask and a learned overlap-add."""
    x = Input((None,), name="x")
    encoded = layers.Dense(12, use_bias=False)(ops.extract_sequences(x, 32, 8))
    mask = layers.Dense(12, "sigmoid")(layers.LSTM(6, return_sequences=True)(encoded))
    added = layers.Conv1DTranspose(1, 32, strides=8, use_bias=False)(layers.Multiply()([encoded, mask]))
    return keras.Model(x, layers.Reshape((-1,), name="y")(added[:, :-24]))


def masked_mean():
    x = Input((None, 6), name="x")
    y = layers.LSTM(5, return_sequences=True)(layers.Masking()(x))
    return keras.Model(x, layers.Dense(2, name="y")(layers.GlobalAveragePooling1D()(y)))


def masked_convolution():
    """A convolution drops the mask; it stands after a loop, which knows few sizes in TFLite."""
    x = Input((None, 6), name="x")
    y = layers.LSTM(5, return_sequences=True)(layers.Masking()(x))
    y = layers.Conv1D(4, 3, padding="causal")(y)
    return keras.Model(x, layers.GRU(3, return_sequences=True, name="gru")(layers.DepthwiseConv1D(1)(y)))


def several_inputs():
    """Two inputs over time, one of them late, and one for all steps."""
    a, b, static = Input((None, 4), name="a"), Input((None, 3), name="b"), Input((5,), name="static")
    late = layers.Conv1D(4, 5)(layers.ZeroPadding1D((4, 0))(b))
    joined = layers.Concatenate()([layers.Conv1D(4, 3, padding="causal")(a), late])
    joined = joined + layers.Dense(8)(static)[:, None]
    return keras.Model([a, b, static], layers.GRU(4, return_sequences=True, name="gru")(joined))


def long_past():
    """A convolution that remembers 64 kB."""
    x = Input((None, 64), name="x")
    return keras.Model(x, layers.Conv1D(3, 3, dilation_rate=128, padding="causal", name="y")(x))


def shared():
    """Layers that are called twice, at different clocks."""
    x = Input((None, 4), name="x")
    once, fewer = layers.Conv1D(4, 3, padding="causal"), layers.Conv1D(4, 3)
    return keras.Model(x, [layers.Dense(2, name="p")(once(once(x))), layers.Dense(2, name="q")(fewer(fewer(x)))])


def attending():
    """Two blocks of a causal transformer on frames of two time steps."""
    x = y = Input((None, 6), name="x")
    y = layers.Conv1D(8, 4, strides=2, padding="causal", activation="relu", name="front")(y)
    for k in range(2):
        z = layers.MultiHeadAttention(2, 4, name=f"mha_{k}")(y, y, use_causal_mask=True)
        y = layers.LayerNormalization()(layers.Add()([y, z]))
        y = layers.LayerNormalization()(layers.Add()([y, layers.Dense(8)(layers.Dense(12, "relu")(y))]))
    return keras.Model(x, layers.Dense(3, name="y")(y))


def looking_ahead():
    x = y = Input((None, 6), name="x")
    y = layers.Conv1D(6, 5, padding="same", name="c1")(y)
    y = layers.GRU(5, return_sequences=True, name="gru")(y)
    return keras.Model(x, layers.Conv1D(4, 3, padding="same", name="c2")(y))


ZOO = {
    made.__name__: made
    for made in (
        *(
            tcn,
            kws,
            rnnoise,
            wake_word,
            unaligned,
            two_axes,
            skip_sums,
            shortened,
            folds,
            up_and_down,
            framed,
            denoiser,
            attending,
        ),
    )
} | {"valid rnnoise": lambda: rnnoise("valid"), "looking_ahead": looking_ahead}


def scrambled(model, number=0):
    """Return a model with random weights, variances above zero."""
    rng = np.random.default_rng(number)
    for variable in model.weights:
        value = rng.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model
