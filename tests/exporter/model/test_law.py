"""Which models can be run step by step, and which layer is named where one can't."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import Input, layers, ops

from exporter.lower.eager import InOnePiece
from exporter.model import reach
from exporter.model.function import Model
from exporter.model.survey import survey

F = 3


def surveyed(model):
    """Run a Keras model as an export does; return what that shows."""
    return survey(Model(model, InOnePiece()))


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
    assert surveyed(scramble(STEPPABLE[kind]())).no_step is None


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
    reason = surveyed(scramble(build())).no_step
    assert named in reason
    assert reason.startswith("Layer ")
    assert reason.endswith(".")


@pytest.mark.parametrize(("build", "named"), [(cumulative, "'cumsum'"), (reversed_between, "'flip'")])
def test_the_operation_that_mixes_time_steps_is_named_not_the_layer_after_it(scramble, build, named):
    reason = surveyed(scramble(build())).no_step
    assert named in reason
    assert "'lstm'" not in reason
    assert "'high'" not in reason


def test_a_layer_behind_an_operation_of_a_subclassed_model_is_not_blamed(scramble):
    class Before(Flipped):
        def call(self, x):
            return self.head(self.lstm(ops.cumsum(x, axis=1)))

    model = Before()
    model(tf.zeros([1, 2, F]))
    assert "Layer 'lstm' doesn't" not in surveyed(scramble(model)).no_step


def test_an_operation_that_is_no_layer_is_told_as_one(scramble):
    reason = surveyed(scramble(flipped())).no_step
    assert reason == "An operation between the model's layers doesn't treat each time step alone."


def test_a_layer_that_keeps_a_state_of_its_own_is_named(scramble):
    class Counter(layers.Layer):
        def build(self, shape):
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.seen.assign_add(1.0)
            return x * self.seen

    reason = surveyed(sequential(Counter(name="counter"), lstm())).no_step
    assert "'counter'" in reason


class Delayed(layers.Layer):
    """A delay by as many steps as its code says."""

    def call(self, x):
        return x + ops.pad(x, [[0, 0], [2600, 0], [0, 0]])[:, :-2600]


def of(outputs):
    x = Input((None, F))
    return keras.Model(x, outputs(lstm()(x), x))


FAR = {
    "a hole of 256": (lambda: sequential(lstm(), layers.Conv1D(2, 2, padding="causal", dilation_rate=256)), "conv1d"),
    "holes of 1500 one after another": (
        lambda: sequential(
            *(layers.Conv1D(3, 2, padding="causal", dilation_rate=1500, name=name) for name in ("one", "two")), lstm()
        ),
        "one",
    ),
    "a hole of 5000": (lambda: sequential(lstm(), layers.Conv1D(2, 2, padding="causal", dilation_rate=5000)), "conv1d"),
    "the first 300": (lambda: of(lambda y, x: lstm("cut")(x[:, :300])), "get_item"),
    "the last 300": (lambda: of(lambda y, x: y[:, -300:]), "get_item"),
    "all but the first 10": (lambda: of(lambda y, x: y[:, 10:]), "get_item"),
    "all but the first 3000": (lambda: of(lambda y, x: layers.Dense(2)(y)[:, 3000:]), "get_item"),
    "rolled by 2500": (lambda: of(lambda y, x: ops.roll(y, 2500, axis=1)), "roll"),
    "delayed by a number in the code": (lambda: sequential(lstm(), Delayed(name="delayed")), "delayed"),
}


@pytest.mark.parametrize("kind", FAR)
def test_what_looks_far_back_is_found_and_named(scramble, kind):
    build, named = FAR[kind]
    found = surveyed(scramble(build()))
    assert f"'{named}" in found.no_step
    assert found.no_step.endswith("doesn't treat each time step alone.")
    assert found.proven == 0


def test_how_far_back_was_looked_follows_from_the_model(scramble):
    plain = surveyed(scramble(sequential(lstm())))
    assert (plain.no_step, plain.proven) == (None, 2000)
    padded = of(lambda y, x: ops.pad(y, [[0, 0], [3000, 0], [0, 0]])[:, 3000:])
    found = surveyed(scramble(padded))
    assert found.no_step is None
    assert found.proven >= 3000


def test_what_is_too_far_to_be_tried_is_not_promised(scramble, monkeypatch):
    monkeypatch.setattr(reach, "MOST", 4000)
    far = sequential(lstm(), layers.Conv1D(2, 2, padding="causal", dilation_rate=9000))
    assert "name 18000 time steps; at most 4000 can be tried" in surveyed(scramble(far)).no_step


def test_recurrent_layers_that_amplify_rounding_can_be_stepped():
    """A gain of 40 makes chaos of them: float32 sums in another order part within some hundred steps."""
    wild = sequential(layers.Dense(8), layers.SimpleRNN(16, return_sequences=True), layers.Dense(4))
    rng = np.random.default_rng(0)
    wild.set_weights([40 * rng.standard_normal(w.shape) / np.sqrt(w.shape[0]) for w in wild.get_weights()])
    assert surveyed(wild).no_step is None


def attending(memory_first=False):
    words, memory = Input((None, F), name="words"), Input((None, 4), name="memory")
    y = lstm("decoder")(words)
    attended, scores = layers.Attention(name="luong")([y, memory], return_attention_scores=True)
    outputs = {"y": layers.Dense(2)(layers.Concatenate()([y, attended])), "scores": scores}
    return keras.Model([memory, words] if memory_first else [words, memory], outputs)


@pytest.mark.parametrize("memory_first", [False, True])
def test_a_memory_is_taken_whole_by_every_step(scramble, memory_first):
    found = surveyed(scramble(attending(memory_first)))
    assert found.no_step is None
    ports = {port.name: (port.shape, port.time_axis) for port in (*found.inputs, *found.outputs)}
    assert ports == {
        "words": (("batch", "time", F), 1),
        "memory": (("batch", "time_memory", 4), None),
        "y": (("batch", "time", 2), 1),
        "scores": (("batch", "time", "time_memory"), 1),
    }
    assert found.one_clock


def test_two_memories_and_two_sequences_of_equal_length(scramble):
    words, more = Input((None, F), name="words"), Input((None, 2), name="more")
    memory, valid = Input((None, 4), name="memory"), Input((None, 1), name="valid")
    y = lstm()(layers.Concatenate()([words, more]))
    attended = layers.Attention()([y, layers.Multiply()([memory, valid])])
    found = surveyed(scramble(keras.Model([words, more, memory, valid], attended)))
    assert found.no_step is None
    dims = [port.shape[1] for port in found.inputs]
    assert dims == ["time", "time", "time_memory", "time_memory"]


def test_flattening_a_fixed_time_takes_exactly_that_time(scramble):
    model = sequential(lstm(), layers.Flatten(), layers.Dense(2), total=9)
    assert "exactly 9 time steps" in surveyed(scramble(model)).no_step


def test_a_decoder_that_starts_from_its_encoder_is_named(scramble):
    x = Input((None, F))
    _, h, c = layers.LSTM(4, return_state=True, name="encoder")(x)
    model = keras.Model(x, lstm("decoder")(x, initial_state=[h, c]))
    reason = surveyed(scramble(model)).no_step
    assert "'decoder'" in reason
    assert "initial state" in reason
