"""Keras layers to plain data: what is taken as it is, and what is refused by name."""

import keras
import numpy as np
import pytest
from keras import layers

from exporter.layers import CONVERTERS, class_name, convert
from signatures.errors import UnsupportedModel

# Keras 3.15 itself trips over NumPy 2 while it reads arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

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
    ("option", "value", "accepted"),
    [
        ("activation", "relu", "'tanh'"),
        ("activation", None, "'tanh'"),
        ("recurrent_activation", "hard_sigmoid", "'sigmoid'"),
        ("go_backwards", True, "False"),
        ("zero_output_for_mask", True, "False"),
        ("dtype", "mixed_float16", "'float32'"),
        ("dtype", "float64", "'float32'"),
    ],
)
def test_an_option_without_a_right_form_is_refused_by_layer_option_and_what_is_accepted(option, value, accepted):
    with pytest.raises(UnsupportedModel) as refused:
        convert(built(layers.LSTM(U, name="memory", **{option: value})), "prefix")
    first, second = str(refused.value).split("\n")
    assert first.startswith(f"layer 'memory' (LSTM): {option}=")
    assert first.endswith("is not supported.")
    assert f"Supported: {accepted}." in second


def test_an_activation_of_the_callers_own_is_refused_even_under_a_known_name():
    def tanh(x):
        return x

    with pytest.raises(UnsupportedModel, match="activation="):
        convert(built(layers.LSTM(U, activation=tanh)), "lstm")


class MyLSTM(layers.LSTM):
    """A subclass may compute anything."""


@pytest.mark.parametrize(
    "layer",
    [
        layers.GRU(U, name="memory"),
        layers.SimpleRNN(U, name="memory"),
        layers.RNN(layers.LSTMCell(U), name="memory"),
        layers.Bidirectional(layers.LSTM(U), name="memory"),
        layers.TimeDistributed(layers.LSTM(U), name="memory"),
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
