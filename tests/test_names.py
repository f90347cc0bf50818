"""Ports have names that every target takes, each its own."""

import keras
import pytest
from keras import Input, layers

from exporter import export


@pytest.mark.parametrize(
    ("names", "ports"),
    [
        (("_x", "l", "L"), ["x_x", "l_h_in", "L_1_h_in"]),
        (("x", "9in", "my lstm #1"), ["x", "x9in_h_in", "my_lstm__1_h_in"]),
    ],
    ids=["case and underscore", "digit and spaces"],
)
def test_odd_names_become_ports(names, ports, tmp_path):
    source, first, second = names
    x = Input((None, 2), name=source)
    inner = layers.LSTM(3, return_sequences=True, name=first)(x)
    artifacts = export(keras.Model(x, layers.LSTM(2, name=second)(inner)), "all", f"{tmp_path}/")
    found = [port.name for port in artifacts[0].contract.signatures["step"].inputs]
    assert [name for name in found if not name.endswith("_c_in")] == ports


def test_ports_of_stacked_cells_and_of_the_next_layer_differ(tmp_path):
    """Keras' own default names: rnn's second cell and rnn_1 would both be rnn_1_h."""
    keras.backend.clear_session()
    model = keras.Sequential(
        [Input((None, 2)), layers.RNN([layers.LSTMCell(3), layers.LSTMCell(3)], return_sequences=True)]
        + [layers.RNN(layers.LSTMCell(2))]
    )
    [artifact] = export(model, "onnx", f"{tmp_path}/")
    names = [port.name for port in artifact.contract.signatures["sequence"].inputs]
    assert len({name.lower() for name in names}) == len(names) == 7


def test_second_calls_keep_clear_of_other_layers(tmp_path):
    x = Input((None, 2), name="x")
    shared, other = (layers.LSTM(2, return_sequences=True, name=name) for name in ("lstm", "lstm_1"))
    model = keras.Model(x, other(shared(shared(x))))
    names = [port.name for port in export(model, "onnx", f"{tmp_path}/")[0].contract.signatures["step"].inputs]
    assert names == ["x", *(f"{layer}_{s}_in" for layer in ("lstm", "lstm_2", "lstm_1") for s in "hc")]
