"""Layers and cells of a user's own that several tests use."""

import keras
from keras import layers


class Around(layers.Layer):
    """A layer around a function."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


class Echo(layers.Layer):
    """A cell with one state, which it also gives."""

    def __init__(self, units=4, **options):
        super().__init__(**options)
        self.state_size = self.output_size = self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x, states):
        h = keras.ops.tanh(x @ self.kernel + 0.5 * states[0])
        return h, [h]


class Averaged(layers.Layer):
    """A cell whose output is none of its states, whose sizes differ."""

    def __init__(self, units=4, **options):
        super().__init__(**options)
        self.state_size, self.output_size, self.units = (units, 2), 2 * units, units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x, states):
        h, seen = states
        h = keras.ops.tanh(x @ self.kernel + 0.5 * h)
        return keras.ops.concatenate([h, h * seen[:, :1]], -1), [h, 0.9 * seen + keras.ops.sum(x, -1, keepdims=True)]
