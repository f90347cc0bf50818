"""What is particular to TFLite."""

import keras
import pytest
from keras import Input, layers

from exporter import export


@pytest.mark.parametrize(
    "around", [layers.Dense(3), layers.TimeDistributed(layers.Dense(3))], ids=["dense", "repeated"]
)
def test_one_feature_before_a_dense_layer(around, tmp_path):
    """TFLite's converter takes such an input for a bias."""
    model = keras.Sequential([Input((None, 1)), around, layers.LSTM(2)])
    assert export(model, "tflite", f"{tmp_path}/")[0].parity.ok


def test_a_residual_of_one_feature(tmp_path):
    """keras.ops.add makes a BiasAdd of it, which TFLite lays out wrongly."""
    x = Input((9, 1))
    y = layers.LSTM(1, return_sequences=True)(x)
    model = keras.Model(x, layers.Add()([y, layers.Dense(1)(y)]))
    assert export(model, "tflite", f"{tmp_path}/")[0].parity.ok


class Sized(layers.Layer):
    """A cell that makes a tensor as large as its batch, which must be known."""

    state_size = 4

    def call(self, x, states):
        return states[0] + keras.ops.zeros([x.shape[0], 4]) + x[:, :1], [0.5 * states[0] + x[:, :1]]


def test_a_cell_may_need_to_know_its_batch(tmp_path):
    model = keras.Sequential([Input(batch_shape=(1, None, 5)), layers.RNN(Sized(), return_sequences=True)])
    [artifact] = export(model, "tflite", f"{tmp_path}/")
    assert artifact.parity.ok


@pytest.mark.parametrize(("lowering", "loops"), [("loop", True), ("unrolled", False)])
def test_what_runs_over_steps_of_its_own_is_lowered_as_asked_within_one_step(lowering, loops, tmp_path):
    model = keras.Sequential([Input((None, 5, 3)), layers.TimeDistributed(layers.LSTM(4)), layers.LSTM(2)])
    [artifact] = export(model, "tflite", f"{tmp_path}/", signatures=["step"], lowering=lowering, check=False)
    assert bool(artifact.ops["WHILE"]) == loops


def test_steps_the_model_fixes_itself_can_be_unrolled(tmp_path):
    decoder = [layers.RepeatVector(5), layers.LSTM(3, return_sequences=True, name="decoder")]
    model = keras.Sequential([Input((4, 2)), layers.LSTM(3, name="encoder"), *decoder])
    [artifact] = export(model, "tflite", f"{tmp_path}/", lowering="unrolled")
    assert artifact.parity.ok
    assert "WHILE" not in artifact.ops
