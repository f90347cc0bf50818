"""Keras layers to plain data: what is taken as it is, and what is refused by name."""

import keras
import numpy as np
import pytest
from keras import layers

from exporter.memory.convert import CONVERTERS, convert
from exporter.memory.convert.options import class_name
from signatures.errors import UnsupportedModel

F, U = 3, 4


def built(layer):
    layer.build((None, None, F))
    return layer


def test_an_lstms_weights_are_taken_as_they_are(scramble):
    layer = scramble(built(layers.LSTM(U, name="memory")))
    found = convert(layer, "outer_memory")
    assert (found.name, found.kind, found.units) == ("outer_memory", "lstm", U)
    for got, expected in zip((found.kernel, found.recurrent_kernel, found.bias), layer.get_weights(), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)


def test_a_layer_without_a_bias_has_zeros():
    found = convert(built(layers.LSTM(U, use_bias=False)), "lstm")
    np.testing.assert_array_equal(found.bias, np.zeros(4 * U, np.float32))


@pytest.mark.parametrize(
    "option",
    [
        {"dropout": 0.5, "recurrent_dropout": 0.5},
        {"unroll": True},
        {"stateful": False, "return_sequences": True, "return_state": True},
        {"kernel_regularizer": "l2", "unit_forget_bias": False},
        {"use_cudnn": False},
    ],
)
def test_options_that_do_not_change_the_numbers_are_taken(option):
    assert convert(built(layers.LSTM(U, **option)), "lstm").units == U


@pytest.mark.parametrize(
    ("policy", "computes"),
    [("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16"), ("float64", "float64"), ("float32", "float32")],
)
@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_weights_are_of_the_type_the_layer_computes_in(layer, policy, computes):
    recurrence = convert(built(layer(U, dtype=policy)), "prefix")
    assert recurrence.dtype == computes
    assert {str(w.dtype) for w in (recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)} == {computes}


def test_stacked_cells_of_two_types_are_refused():
    cells = [layers.LSTMCell(U, dtype="float32"), layers.GRUCell(U, dtype="float64")]
    with pytest.raises(UnsupportedModel, match=r"\(RNN\): its cells compute in float32 and float64\.\n.*--dtype"):
        convert(built(layers.RNN(cells, name="memory")), "prefix")


LAYERS = {"lstm": layers.LSTM, "gru": layers.GRU, "simple_rnn": layers.SimpleRNN}


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (kind, option)
        for kind in LAYERS
        for option in ("activation", "recurrent_activation")[: 1 + (kind != "simple_rnn")]
    ],
)
def test_an_activation_of_the_callers_own_is_refused_even_under_a_known_name(kind, option):
    def tanh(x):
        return x

    with pytest.raises(UnsupportedModel, match=f"{option}='tanh'") as refused:
        convert(built(LAYERS[kind](U, **{option: tanh})), "layer")
    assert "hard_sigmoid" in str(refused.value)


@pytest.mark.parametrize("kind", LAYERS)
def test_activations_are_known_by_their_name(kind):
    found = convert(built(LAYERS[kind](U, activation="relu")), "layer")
    assert found.activation == "relu"
    assert convert(built(LAYERS[kind](U, activation=None)), "layer").activation == "linear"
    if kind != "simple_rnn":
        assert found.recurrent_activation == "sigmoid"
        hard = convert(built(LAYERS[kind](U, recurrent_activation="hard_sigmoid")), "layer")
        assert (hard.activation, hard.recurrent_activation) == ("tanh", "hard_sigmoid")


@pytest.mark.parametrize("kind", LAYERS)
def test_direction_and_what_a_masked_step_gives_are_taken(kind):
    plain = convert(built(LAYERS[kind](U)), "layer")
    assert (plain.reverse, plain.zero_masked) == (False, False)
    assert convert(built(LAYERS[kind](U, go_backwards=True)), "layer").reverse
    assert convert(built(LAYERS[kind](U, zero_output_for_mask=True)), "layer").zero_masked


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_gru_has_one_bias_or_two(scramble, reset_after, use_bias):
    layer = scramble(built(layers.GRU(U, reset_after=reset_after, use_bias=use_bias)))
    found = convert(layer, "gru")
    assert (found.kind, found.reset_after, found.states) == ("gru", reset_after, {"h": (U,)})
    assert found.bias.shape == ((2, 3 * U) if reset_after else (3 * U,))
    np.testing.assert_array_equal(found.bias, layer.get_weights()[2] if use_bias else np.zeros_like(found.bias))
    np.testing.assert_array_equal(found.kernel, layer.get_weights()[0])
    np.testing.assert_array_equal(found.recurrent_kernel, layer.get_weights()[1])


def test_cells_in_an_rnn_are_known_by_their_equations(scramble):
    cell = layers.GRUCell(U, activation="elu", reset_after=False)
    found = convert(scramble(built(layers.RNN(cell))), "rnn")
    assert (found.name, found.kind, found.activation, found.reset_after) == ("rnn", "gru", "elu", False)
    np.testing.assert_array_equal(found.kernel, cell.kernel.numpy())
    assert found.cell is None


@pytest.mark.parametrize("made", ["list", "StackedRNNCells"])
def test_stacked_cells_name_their_states_by_their_place(made):
    cells = [layers.LSTMCell(U), layers.SimpleRNNCell(2), layers.GRUCell(5)]
    found = convert(built(layers.RNN(cells if made == "list" else layers.StackedRNNCells(cells))), "rnn")
    assert found.kind == "stack"
    assert found.states == {"0_h": (U,), "0_c": (U,), "1_h": (2,), "2_h": (5,)}
    assert [cell.kind for cell in found.cells] == ["lstm", "simple_rnn", "gru"]
    assert found.output == 3


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.ConvLSTM1D(2, 3), (6, 2)),
        (layers.ConvLSTM1D(2, 3, padding="same", strides=2), (4, 2)),
        (layers.ConvLSTM2D(2, (3, 2)), (6, 6, 2)),
        (layers.ConvLSTM2D(2, 2, dilation_rate=2), (6, 5, 2)),
        (layers.ConvLSTM3D(2, 2, strides=(2, 1, 3)), (4, 6, 2, 2)),
    ],
)
def test_a_convolutions_state_is_as_large_as_its_output(layer, shape):
    layer.build((None, None, *(8, 7, 6)[: len(shape) - 1], F))
    found = convert(layer, "film")
    assert found.kind == "conv_lstm"
    assert found.states == {"h": shape, "c": shape}


@pytest.mark.parametrize("return_sequences", [True, False])
def test_a_convolutions_state_is_as_large_as_its_output_when_it_returns_it_too(return_sequences):
    layer = layers.ConvLSTM1D(2, 3, return_state=True, return_sequences=return_sequences)
    layer.build((None, None, 8, F))
    assert convert(layer, "film").states == {"h": (6, 2), "c": (6, 2)}


def test_channels_first_is_refused_with_what_is_accepted():
    layer = layers.ConvLSTM2D(2, 3, data_format="channels_first", name="film")
    layer.build((None, None, F, 8, 7))
    with pytest.raises(UnsupportedModel) as refused:
        convert(layer, "film")
    assert str(refused.value).startswith("layer 'film' (ConvLSTM2D): data_format='channels_first' is not supported.")
    assert "'channels_last'" in str(refused.value)


class Leaky(layers.Layer):
    """A cell of one's own: its output is none of its two states."""

    state_size = (U, 3)
    output_size = 2

    def call(self, x, states):
        h, seen = states
        h = 0.5 * h + keras.ops.sum(x, axis=-1, keepdims=True)
        return h[:, :2] * 3, (h, seen + 1)


class Broken(Leaky):
    def call(self, x, states):
        raise ValueError("the moon is wrong")


class Grid(Leaky):
    """One of its states is a matrix, as Keras lets a cell have by its own get_initial_state."""

    state_size = (U, (2, 3))

    def get_initial_state(self, batch_size=None):
        return [keras.ops.zeros((batch_size, U)), keras.ops.zeros((batch_size, 2, 3))]


class Echo(Leaky):
    state_size = U

    def call(self, x, states):
        [h] = states
        h = 0.5 * h + keras.ops.sum(x, axis=-1, keepdims=True)
        return h, [h]


def test_a_cell_of_ones_own_is_known_by_calling_it():
    found = convert(built(layers.RNN(Leaky(), name="own")), "own")
    assert (found.kind, found.states, found.output) == ("cell", {"state_0": (U,), "state_1": (3,)}, None)
    same = convert(built(layers.RNN(Echo())), "own")
    assert (same.states, same.output) == ({"state": (U,)}, 0)


def test_a_cell_that_cannot_be_called_is_refused_with_its_reason():
    with pytest.raises(UnsupportedModel, match=r"layer 'own' \(RNN\): its cell Broken(.|\n)*the moon is wrong"):
        convert(built(layers.RNN(Broken(), name="own")), "own")


def test_the_reason_of_a_cell_that_cannot_be_called_is_one_line():
    with pytest.raises(UnsupportedModel) as refused:
        convert(built(layers.RNN(Broken(), name="own")), "own")
    assert len(str(refused.value).splitlines()) == 3


def test_a_cells_states_may_have_any_shape():
    layer = built(layers.RNN(Grid(), return_state=True))
    _, h, seen = layer(np.ones((1, 5, F), np.float32))
    assert (h.shape, seen.shape) == ((1, U), (1, 2, 3))
    assert convert(layer, "own").states == {"state_0": (U,), "state_1": (2, 3)}


class MyLSTM(layers.LSTM):
    """A subclass may compute anything."""


@pytest.mark.parametrize(
    "layer",
    [
        layers.Bidirectional(layers.LSTM(U), name="memory"),
        layers.TimeDistributed(layers.LSTM(U), name="memory"),
        layers.Wrapper(layers.LSTM(U), name="memory"),
        MyLSTM(U, name="memory"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_and_subclasses_are_refused_by_name_and_class(layer):
    with pytest.raises(UnsupportedModel) as refused:
        convert(layer, "prefix")
    assert str(refused.value).startswith(f"layer 'memory' ({type(layer).__name__}): ")
    for accepted in CONVERTERS:
        assert accepted in str(refused.value)


def test_a_class_of_keras_is_named_by_its_public_name_and_others_by_their_module():
    assert class_name(layers.LSTM(U)) == "keras.layers.LSTM"
    assert class_name(MyLSTM(U)) == f"{__name__}.MyLSTM"


def test_every_converter_is_for_a_class_that_keras_has():
    for name in CONVERTERS:
        module, _, cls = name.rpartition(".")
        assert module == "keras.layers"
        assert isinstance(getattr(keras.layers, cls), type)
