"""What a model is called with and what its ports are called, whatever structure it has."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from custom import Echo
from keras import Input, layers

from exporter.memory.recurrence import Recurrence
from exporter.model.function import Model, carried_states
from exporter.model.swap import Call, keras_loop
from signatures.errors import UnsupportedModel

B, T, F = 2, 5, 3


def lstm(x, **options):
    return layers.LSTM(4, **{"name": "lstm", **options})(x)


def frames(total=T):
    return np.random.default_rng(0).standard_normal((B, total, F)).astype(np.float32)


class Called(keras.Model):
    """A subclassed model that is called with whatever structure `read` takes apart."""

    def __init__(self, read):
        super().__init__(name="called")
        self.read = read
        self.lstm = layers.LSTM(4, name="lstm")

    def call(self, inputs):
        return self.lstm(self.read(inputs))


def names(model):
    return [each.name for each in model.inputs]


def test_a_single_input_keeps_its_keras_name_shape_and_dtype():
    x = Input((None, F), name="audio")
    [found] = Model(keras.Model(x, lstm(x))).inputs
    assert (found.name, found.shape, found.dtype) == ("audio", (None, None, F), "float32")


def test_integer_inputs_and_the_smallest_vocabulary_are_seen():
    tokens = Input((None,), dtype="int32", name="tokens")
    joined = layers.Concatenate()([layers.Embedding(9, 2)(tokens), layers.Embedding(6, 2)(tokens)])
    model = Model(keras.Model(tokens, lstm(joined)))
    assert model.inputs[0].dtype == "int32"
    assert model.vocabulary == 6
    drawn = model.draw({("tokens", 1): 400}, 2, np.random.default_rng(0))["tokens"]
    assert (drawn.dtype, drawn.min(), drawn.max()) == (np.int32, 0, 5)


def test_without_an_embedding_there_is_no_vocabulary():
    x = Input((None, F))
    assert Model(keras.Model(x, lstm(x))).vocabulary is None


@pytest.mark.parametrize("structure", ["list", "dict", "nested"])
def test_several_inputs_are_fed_by_name_in_their_own_structure(scramble, structure):
    a, b = Input((None, F), name="b first"), Input((2,), name="a_second")
    inputs = {"list": [a, b], "dict": {"b first": a, "a_second": b}, "nested": {"z": [a], "y": {"x": b}}}[structure]
    keras_model = scramble(keras.Model(inputs, layers.Concatenate()([lstm(a), b])))
    model = Model(keras_model)
    assert sorted(names(model)) == ["a_second", "b_first"]
    feeds = {"b_first": tf.constant(frames()), "a_second": tf.constant([[1.0, 2.0], [3.0, 4.0]])}
    ran = model.run(feeds, keras_loop)
    [(_, output)], calls = ran.outputs, ran.calls
    np.testing.assert_array_equal(output[:, 4:], feeds["a_second"])
    np.testing.assert_array_equal(calls[0].sequences, feeds["b_first"])


def test_inputs_whose_names_become_the_same_are_told_apart():
    a, b = Input((None, F), name="x.1"), Input((None, F), name="x-1")
    assert sorted(names(Model(keras.Model([a, b], lstm(layers.Add()([a, b])))))) == ["x_1", "x_1_1"]


def test_an_input_named_like_the_lengths_port_is_only_an_input(scramble):
    x, mine = Input((None, F), name="x"), Input((1,), name="lengths")
    model = Model(scramble(keras.Model([x, mine], layers.Concatenate()([lstm(x), mine]))))
    assert "lengths" not in names(model)
    _, other = names(model)
    ran = model.run({"x": tf.constant(frames()), other: tf.zeros([B, 1])}, keras_loop)
    [(_, output)], calls = ran.outputs, ran.calls
    assert calls[0].mask is None
    assert output.shape == (B, 5)


SUBCLASSED = {
    "one tensor": (lambda x: x, frames(), [("inputs", (None, None, F))]),
    "a list": (
        lambda x: x[0] + x[1],
        [frames(), frames()],
        [("inputs_0", (None, None, F)), ("inputs_1", (None, None, F))],
    ),
    "a dict": (
        lambda x: x["b"] + x["a"],
        {"b": frames(), "a": frames()},
        [("a", (None, None, F)), ("b", (None, None, F))],
    ),
}


@pytest.mark.parametrize("kind", SUBCLASSED)
def test_a_subclassed_model_tells_the_structure_it_was_called_with(kind):
    read, data, expected = SUBCLASSED[kind]
    keras_model = Called(read)
    before = keras_model(data)
    model = Model(keras_model)
    assert [(each.name, each.shape) for each in model.inputs] == expected
    feeds = dict.fromkeys(names(model), tf.constant(frames()))
    [(name, output)] = model.run(feeds, keras_loop).outputs
    assert name == "output"
    np.testing.assert_array_equal(output, before)
    [(_, longer)] = model.run(dict.fromkeys(feeds, tf.constant(frames(T + 3))), keras_loop).outputs
    assert longer.shape == (B, 4)


def test_a_model_that_was_never_called_is_refused():
    with pytest.raises(UnsupportedModel, match="'called' isn't built.*\n.*Call it on data once"):
        Model(Called(lambda x: x))


class Two(keras.Model):
    def __init__(self):
        super().__init__(name="two")
        self.lstm = layers.LSTM(4)

    def call(self, left, right):
        return self.lstm(left + right)


class TwoBuilt(Two):
    def build(self, left_shape, right_shape):
        self.lstm.build(left_shape)


@pytest.mark.parametrize("kind", [Two, TwoBuilt])
def test_a_subclassed_model_of_two_arguments_is_refused_by_their_names(kind):
    model = kind()
    model(frames(), frames())
    with pytest.raises(UnsupportedModel, match=r"'two' is called with 2 arguments \(left, right\)"):
        Model(model)


class MyLSTM(layers.LSTM):
    """A subclass may compute anything."""


@keras.saving.register_keras_serializable("tests")
def own(x):
    """Be a function that Keras doesn't ship."""
    return 2 * x


class Twice(layers.Wrapper):
    """So may a wrapper."""

    def call(self, x):
        return self.layer(x) + self.layer(x)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (MyLSTM(4, name="memory"), "'memory' (MyLSTM)"),
        (Twice(layers.LSTM(4), name="memory"), "'memory' (Twice)"),
        (layers.Bidirectional(layers.GRU(4, activation=own, name="memory")), "'gru_cell' (GRUCell)"),
        (layers.LSTM(4, activation=own, name="memory"), "'lstm_cell' (LSTMCell)"),
    ],
)
def test_other_recurrent_layers_are_refused_by_name_and_class(layer, said):
    with pytest.raises(UnsupportedModel) as refused:
        Model(keras.Sequential([Input((None, F)), layer]))
    assert said in str(refused.value)
    assert "Supported: " in str(refused.value)


def test_every_recurrent_layer_is_a_recurrence_of_its_path():
    x = Input((None, F), name="x")
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    outer = keras.Model(x, layers.SimpleRNN(2, name="elman")(both))
    found = {name: recurrence for name, (_, recurrence) in Model(outer).layers.items()}
    assert {name: (each.name, each.kind, each.reverse) for name, each in found.items()} == {
        "both_forward": ("both_forward", "gru", False),
        "both_backward": ("both_backward", "gru", True),
        "elman": ("elman", "simple_rnn", False),
    }


def test_a_cell_called_by_itself_is_told_what_to_do_with():
    x, h, c = Input((F,)), Input((4,)), Input((4,))
    y, states = layers.LSTMCell(4, name="cell")(x, [h, c])
    with pytest.raises(UnsupportedModel, match=r"'cell' \(LSTMCell\) is a cell .*\n.*\n.*RNN\(LSTMCell"):
        Model(keras.Model([x, h, c], [y, *states]))


def test_layers_that_start_anew_have_no_ports():
    x = Input((None, 5, F), name="x")
    inner = layers.TimeDistributed(layers.GRU(2), name="each")(x)
    model = Model(keras.Model(x, lstm(inner)))
    [each] = [name for name in model.layers if name != "lstm"]
    assert each.startswith("each")
    model.start_anew(each)
    assert list(model.layers) == ["lstm"]
    assert model.repeated[each][1].kind == "gru"
    assert model.again().repeated.keys() == model.repeated.keys()
    ports = model.run({"x": tf.ones([B, T, 5, F])}, keras_loop).ports(("y",))
    assert set(ports) == {"y", "lstm_sequences", "lstm_h", "lstm_c"}


def run_names(outputs, x):
    ran = Model(keras.Model(x, outputs)).run({"x": tf.constant(frames())}, keras_loop)
    return [name for name, _ in ran.outputs]


def test_outputs_are_named_by_the_keys_of_a_dict():
    x = Input((None, F), name="x")
    y = lstm(x)
    assert sorted(run_names({"b": y, "a": {"deep": layers.Dense(2)(y)}}, x)) == ["a_deep", "b"]


def test_a_dicts_outputs_get_their_own_values():
    x = Input((None, F), name="x")
    y = lstm(x)
    model = Model(keras.Model(x, {"z": y, "a": layers.Rescaling(0.0, 7.0)(y)}))
    got = dict(model.run({"x": tf.constant(frames())}, keras_loop).outputs)
    assert set(got) == {"a", "z"}
    np.testing.assert_array_equal(got["a"], np.full((B, 4), 7.0))
    assert np.abs(got["z"]).max() < 1


def test_outputs_of_a_list_are_named_by_the_layers_that_give_them():
    x = Input((None, F), name="x")
    y = lstm(x)
    named = run_names([layers.Dense(2, name="left")(y), layers.Dense(2, name="right")(y)], x)
    assert named == ["left", "right"]


def test_a_layer_named_like_a_state_port_of_another_gets_another_prefix():
    taken, x = Input((4,), name="lstm_h"), Input((None, F), name="x")
    model = Model(keras.Model([x, taken], layers.Add()([lstm(x), taken])))
    assert names(model) == ["x", "lstm_h"]
    [prefix] = model.layers
    ports = {f"{prefix}_{end}" for end in ("h", "c", "h_in", "c_in", "sequences")}
    assert not ports & {"x", "lstm_h"}
    assert prefix.startswith("lstm")
    calls = model.run({"x": tf.constant(frames()), "lstm_h": tf.zeros([B, 4])}, keras_loop).calls
    assert [call.name for call in calls] == [prefix]


@pytest.mark.parametrize("name", ["lstm_h_in", "lstm_c_in", "lstm_c", "lstm_sequences"])
def test_no_input_shares_a_name_with_a_port(name):
    x = Input((None, F), name=name)
    model = Model(keras.Model(x, lstm(x)))
    ports = {f"{prefix}_{end}" for prefix in model.layers for end in ("h", "c", "h_in", "c_in", "sequences")}
    assert name not in ports


def test_layers_whose_paths_become_the_same_are_told_apart():
    x, inner_x = Input((None, F)), Input((None, F))
    inner = keras.Model(inner_x, layers.LSTM(F, return_sequences=True, name="b")(inner_x), name="a")
    model = Model(keras.Model(x, layers.LSTM(2, name="a_b")(inner(x))))
    assert list(model.layers) == ["a_b", "a_b_1"]
    assert [each.units for _, each in model.layers.values()] == [F, 2]


def test_ports_are_the_models_outputs_in_order_and_every_recurrent_one(scramble):
    x = Input((None, F), name="x")
    y, h, c = lstm(x, return_sequences=True, return_state=True)
    model = Model(scramble(keras.Model(x, [layers.Dense(2, name="head")(y), h])))
    ports = model.run({"x": tf.constant(frames())}, keras_loop).ports(("head", "lstm_h"))
    assert set(ports) == {"head", "lstm_sequences", "lstm_h", "lstm_c"}
    shapes = {name: tuple(value.shape) for name, value in ports.items()}
    assert shapes == {"head": (B, T, 2), "lstm_sequences": (B, T, 4), "lstm_h": (B, 4), "lstm_c": (B, 4)}
    np.testing.assert_array_equal(ports["lstm_sequences"][:, -1], ports["lstm_h"])
    assert np.abs(ports["lstm_c"] - ports["lstm_h"]).max() > 0.01


def test_drawn_feeds_end_one_row_in_zeros_for_a_masking_layer():
    x, static = Input((None, F), name="x"), Input((2,), name="static")
    model = Model(keras.Model([x, static], layers.Concatenate()([lstm(x), static])))
    drawn = model.draw({("x", 1): 6}, 3, np.random.default_rng(0))
    assert {name: value.shape for name, value in drawn.items()} == {"x": (3, 6, F), "static": (3, 2)}
    assert not drawn["x"][-1, 3:].any()
    assert drawn["x"][:-1].all()
    assert drawn["static"].all()


def call(own, given):
    recurrence = Recurrence("lstm", "lstm", {"h": (4,), "c": (4,)})
    return Call("lstm", recurrence, None, [None, None], None, own, given, lambda: None)


def test_states_are_carried_to_the_ports_they_came_from():
    assert carried_states(call(True, {})) == {"lstm_h_in": "h", "lstm_c_in": "c"}
    assert carried_states(call(False, {"h": "second", "c": "first"})) == {"second": "h", "first": "c"}
    assert carried_states(call(False, {"c": "second"})) == {"second": "c"}


@pytest.mark.parametrize(
    ("own", "given", "continues"),
    [(True, {}, True), (False, {"h": "a", "c": "b"}, True), (False, {"h": "a"}, False), (False, {}, False)],
)
def test_a_call_continues_when_every_state_comes_from_a_port(own, given, continues):
    assert call(own, given).continues is continues


DECODERS = {
    "gru": (lambda **options: layers.GRU(4, **options), (F,)),
    "cell": (lambda **options: layers.RNN(layers.LSTMCell(4), **options), (F,)),
    "own cell": (lambda **options: layers.RNN(Echo(), **options), (F,)),
    "conv": (lambda **options: layers.ConvLSTM1D(2, 3, padding="same", **options), (6, F)),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_a_layer_that_was_built_by_a_call_with_an_initial_state_is_taken(scramble, kind):
    """Keras then remembers its shapes by argument, not as one input_shape."""
    make, shape = DECODERS[kind]
    x = Input((None, *shape), name="x")
    _, *states = make(return_state=True, name="encoder")(x)
    y = make(return_sequences=True, name="decoder")(x, initial_state=states)
    model = Model(scramble(keras.Model(x, y)))
    encoder, decoder = (recurrence for _, recurrence in model.layers.values())
    assert encoder.states == decoder.states
    data = np.random.default_rng(0).standard_normal((B, T, *shape)).astype(np.float32)
    [(_, output)] = model.run({"x": tf.constant(data)}, keras_loop).outputs
    np.testing.assert_allclose(output, model.keras(data), atol=1e-6)
