"""Which models can be run step by step, and which layer is named where one can't."""

import keras
import pytest
import tensorflow as tf
from keras import Input, layers, ops

from exporter.model import Model
from exporter.survey import survey

# Keras 3.15 itself trips over NumPy 2 while it reads arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

F = 3


def sequential(*stack, total=None):
    return keras.Sequential([Input((total, F)), *stack])


def lstm(name="lstm", **options):
    return layers.LSTM(4, name=name, return_sequences=True, **options)


def states_given():
    x, h, c = Input((None, F)), Input((4,), name="h0"), Input((4,), name="c0")
    return keras.Model([x, h, c], lstm()(x, initial_state=[h, c]))


def residual():
    x = Input((None, F))
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()([x, lstm()(x)])))


STEPPABLE = {
    "two layers": lambda: sequential(lstm("low"), lstm("high"), layers.Dense(2)),
    "the last output": lambda: sequential(layers.LSTM(4), layers.Dense(2, activation="softmax")),
    "masking": lambda: sequential(layers.Masking(), lstm("low"), lstm("high")),
    "normalized": lambda: sequential(layers.LayerNormalization(), lstm(), layers.BatchNormalization()),
    "dropout": lambda: sequential(layers.Dropout(0.5), lstm(dropout=0.5), layers.GaussianNoise(1.0)),
    "a fixed time that does not bind": lambda: sequential(lstm(unroll=True), total=9),
    "states that are inputs": states_given,
    "around the layer": residual,
    "time distributed": lambda: sequential(layers.TimeDistributed(layers.Dense(4)), lstm()),
    "a kernel of one step": lambda: sequential(layers.Conv1D(4, 1, name="point"), lstm()),
}


@pytest.mark.parametrize("kind", STEPPABLE)
def test_a_model_whose_layers_treat_each_time_step_alone_can_be_stepped(scramble, kind):
    assert survey(Model(scramble(STEPPABLE[kind]()))).no_step is None


def cumulative():
    x = Input((None, F))
    return keras.Model(x, lstm()(ops.cumsum(x, axis=1)))


def reversed_between():
    x = Input((None, F))
    return keras.Model(x, lstm("high")(ops.flip(lstm("low")(x), axis=1)))


class Flipped(keras.Model):
    """Keras operations between the layers of a subclassed model are nobody's."""

    def __init__(self):
        super().__init__()
        self.lstm = lstm()
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return self.head(self.lstm(x))[:, ::-1]


def flipped():
    model = Flipped()
    model(tf.zeros([1, 2, F]))
    return model


def nested():
    inner = keras.Sequential([Input((None, F)), layers.Conv1D(F, 3, padding="causal", name="filter")], name="front")
    return sequential(inner, lstm())


BREAKING = {
    "a causal convolution": (
        lambda: sequential(layers.Conv1D(4, 3, padding="causal", name="filter"), lstm()),
        "'filter'",
    ),
    "one after the recurrence": (
        lambda: sequential(lstm(), layers.Conv1D(4, 2, padding="causal", name="filter")),
        "'filter'",
    ),
    "a convolution that shortens": (lambda: sequential(layers.Conv1D(4, 3, name="valid"), lstm()), "'valid'"),
    "one in a nested model": (nested, "'front/filter'"),
    "a pooling over time": (lambda: sequential(lstm(), layers.GlobalAveragePooling1D(name="pool")), "'pool'"),
    "a maximum over windows": (lambda: sequential(layers.MaxPooling1D(2, name="windows"), lstm()), "'windows'"),
    "a convolution before windows that need two steps": (
        lambda: sequential(layers.Conv1D(4, 3, padding="same", name="filter"), layers.MaxPooling1D(2), lstm()),
        "'filter'",
    ),
    "a maximum over everything": (
        lambda: sequential(lstm(), layers.Reshape((-1, 2, 2), name="cut"), layers.GlobalMaxPooling2D(name="top")),
        "'top'",
    ),
}


@pytest.mark.parametrize("kind", BREAKING)
def test_the_layer_that_mixes_time_steps_is_named(scramble, kind):
    build, named = BREAKING[kind]
    reason = survey(Model(scramble(build()))).no_step
    assert named in reason
    assert reason.startswith("Layer ")
    assert reason.endswith(".")


@pytest.mark.parametrize(("build", "named"), [(cumulative, "'cumsum'"), (reversed_between, "'flip'")])
def test_the_operation_that_mixes_time_steps_is_named_not_the_layer_after_it(scramble, build, named):
    reason = survey(Model(scramble(build()))).no_step
    assert named in reason
    assert "'lstm'" not in reason
    assert "'high'" not in reason


def test_a_layer_behind_an_operation_of_a_subclassed_model_is_not_blamed(scramble):
    class Before(Flipped):
        def call(self, x):
            return self.head(self.lstm(ops.cumsum(x, axis=1)))

    model = Before()
    model(tf.zeros([1, 2, F]))
    assert "Layer 'lstm' doesn't" not in survey(Model(scramble(model))).no_step


def test_an_operation_that_is_no_layer_is_told_as_one(scramble):
    reason = survey(Model(scramble(flipped()))).no_step
    assert reason == "An operation between the model's layers doesn't treat each time step alone."


def test_a_layer_that_keeps_a_state_of_its_own_is_named(scramble):
    class Counter(layers.Layer):
        def build(self, shape):
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.seen.assign_add(1.0)
            return x * self.seen

    reason = survey(Model(sequential(Counter(name="counter"), lstm()))).no_step
    assert "'counter'" in reason


def test_flattening_a_fixed_time_takes_exactly_that_time(scramble):
    model = sequential(lstm(), layers.Flatten(), layers.Dense(2), total=9)
    assert "exactly 9 time steps" in survey(Model(scramble(model))).no_step


def test_a_decoder_that_starts_from_its_encoder_is_named(scramble):
    x = Input((None, F))
    _, h, c = layers.LSTM(4, return_state=True, name="encoder")(x)
    model = keras.Model(x, lstm("decoder")(x, initial_state=[h, c]))
    reason = survey(Model(scramble(model))).no_step
    assert "'decoder'" in reason
    assert "initial state" in reason
