"""What running a model shows: which axes count time, which outputs and states are ports."""

import keras
import pytest
import tensorflow as tf
from custom import Around
from keras import Input, layers, ops

from exporter.lower.eager import InOnePiece
from exporter.model.function import Model
from exporter.model.survey import survey
from signatures.errors import UnsupportedModel

F = 3


def shown(model):
    """Run a Keras model as an export does; return what that shows."""
    return survey(Model(model, InOnePiece()))


def surveyed(scramble, inputs, outputs):
    return shown(scramble(keras.Model(inputs, outputs)))


def lstm(x, name="lstm", units=4, **options):
    state = options.pop("initial_state", None)
    return layers.LSTM(units, name=name, **options)(x, initial_state=state)


def shapes(ports):
    return {port.name: port.shape for port in ports}


@pytest.fixture(scope="module")
def encoder_decoder(scramble):
    source, target = Input((None, F), name="source"), Input((None, 2), name="target")
    _, h, c = lstm(source, "encoder", return_state=True)
    y = lstm(target, "decoder", return_sequences=True, initial_state=[h, c])
    return surveyed(scramble, [source, target], layers.Dense(2, name="y")(y))


@pytest.fixture(scope="module")
def states_given(scramble):
    x, h, c = Input((None, F), name="x"), Input((4,), name="h0"), Input((4,), name="c0")
    return surveyed(scramble, [x, c, h], lstm(x, return_sequences=True, initial_state=[h, c]))


def test_open_time_is_a_dimension_of_its_own(scramble):
    x = Input((None, F), name="x")
    found = surveyed(scramble, x, layers.Dense(2, name="y")(lstm(x, return_sequences=True)))
    assert shapes(found.inputs) == {"x": ("batch", "time", F)}
    assert shapes(found.outputs) == {"y": ("batch", "time", 2)}
    assert (found.declared, found.flexible, found.one_clock, found.no_step) == ({}, True, True, None)
    [call] = found.calls
    assert (call.name, call.recurrence.name, call.time, call.shape) == ("lstm", "lstm", "time", (4,))
    assert call.own
    assert not call.given


def test_two_inputs_that_run_side_by_side_can_be_stepped_together(scramble):
    a, b = Input((None, F), name="a"), Input((None, F), name="b")
    outputs = [lstm(a, "left", return_sequences=True), lstm(b, "right", return_sequences=True)]
    found = surveyed(scramble, [a, b], outputs)
    assert shapes(found.inputs) == {"a": ("batch", "time", F), "b": ("batch", "time_b", F)}
    assert {call.name: call.time for call in found.calls} == {"left": "time", "right": "time_b"}
    assert found.no_step is None
    assert not found.one_clock


@pytest.mark.parametrize("total", [9, 5])
def test_two_inputs_of_one_fixed_time_are_both_timed(scramble, total):
    a, b = Input((total, F), name="a"), Input((total, 2), name="b")
    found = surveyed(scramble, [a, b], lstm(layers.Concatenate()([a, b])))
    assert shapes(found.inputs) == {"a": ("batch", "time", F), "b": ("batch", "time", 2)}
    assert found.declared == {"time": total}
    assert found.flexible


def test_two_inputs_that_must_be_equally_long_share_one_time(scramble):
    a, b = Input((None, F), name="a"), Input((None, F), name="b")
    found = surveyed(scramble, [a, b], lstm(layers.Add()([a, b])))
    assert shapes(found.inputs) == {"a": ("batch", "time", F), "b": ("batch", "time", F)}
    assert found.one_clock
    assert found.no_step is None


def test_an_encoder_and_a_decoder_have_time_axes_of_their_own(encoder_decoder):
    assert shapes(encoder_decoder.inputs) == {"source": ("batch", "time", F), "target": ("batch", "time_target", 2)}
    assert [call.time for call in encoder_decoder.calls] == ["time", "time_target"]
    assert [call.own for call in encoder_decoder.calls] == [True, False]
    assert not encoder_decoder.calls[1].given
    assert shapes(encoder_decoder.outputs) == {"y": ("batch", "time_target", 2)}
    assert not encoder_decoder.one_clock
    assert encoder_decoder.no_step is not None


@pytest.mark.parametrize("flexible", [True, False])
def test_a_fixed_time_is_declared_and_it_is_seen_whether_it_binds(scramble, flexible):
    x = Input((9, F), name="x")
    y = lstm(x, return_sequences=True)
    found = surveyed(scramble, x, layers.Dense(2, name="y")(y if flexible else layers.Flatten()(y)))
    assert shapes(found.inputs) == {"x": ("batch", "time", F)}
    assert found.declared == {"time": 9}
    assert found.flexible is flexible
    assert (found.tried == {"time": (9, 9)}) is not flexible
    assert (found.no_step is None) is flexible


def test_a_vector_beside_the_sequence_has_no_time(scramble):
    x, who = Input((None, F), name="x"), Input((5,), name="who")
    repeated = ops.zeros_like(x[:, :, :1]) + ops.expand_dims(who, 1)
    found = surveyed(scramble, [x, who], lstm(ops.concatenate([x, repeated], -1)))
    assert shapes(found.inputs) == {"x": ("batch", "time", F), "who": ("batch", 5)}
    assert found.one_clock


def test_a_vector_as_wide_as_a_fixed_time_is_still_a_vector(scramble):
    x, who = Input((9, F), name="x"), Input((9,), name="who")
    found = surveyed(scramble, [x, who], layers.Concatenate(name="y")([lstm(x), who]))
    assert shapes(found.inputs) == {"x": ("batch", "time", F), "who": ("batch", 9)}


def test_tokens_are_bounded_by_the_vocabulary(scramble):
    tokens = Input((None,), dtype="int32", name="tokens")
    [port] = surveyed(scramble, tokens, lstm(layers.Embedding(7, 2)(tokens))).inputs
    assert (port.shape, port.dtype, port.below) == (("batch", "time"), "int32", 7)


def test_outputs_that_are_recurrent_ports_are_published_once_and_in_order(scramble):
    x = Input((None, F), name="x")
    y, h, c = lstm(x, return_sequences=True, return_state=True)
    found = surveyed(scramble, x, [c, layers.Dense(2, name="head")(y), y, h])
    assert found.order == ("lstm_c", "head", "lstm_sequences", "lstm_h")
    assert shapes(found.outputs) == {"head": ("batch", "time", 2)}


def test_an_output_given_twice_is_one_port(scramble):
    x = Input((None, F), name="x")
    y = lstm(x)
    assert surveyed(scramble, x, {"a": y, "b": y}).order == ("lstm_h", "lstm_h")


def test_an_output_named_like_an_input_or_a_port_gets_another_name(scramble):
    x = Input((None, F), name="x")
    y = lstm(x)
    taken = {"x": 2, "lstm_h": 3, "lstm_c_in": 5, "lengths": 7}  # lengths is what --lengths adds
    found = surveyed(scramble, x, {name: layers.Dense(units)(y) for name, units in taken.items()})
    assert len(set(found.order)) == 4
    assert sorted(port.shape[-1] for port in found.outputs) == [2, 3, 5, 7]
    assert not set(taken) & set(found.order)


def test_states_that_are_inputs_are_given_whatever_their_order(states_given):
    [call] = states_given.calls
    assert call.given == {"h": "h0", "c": "c0"}
    assert not call.own
    assert states_given.no_step is None


def test_a_layer_called_twice_has_two_calls_of_one_layer(scramble):
    x = Input((None, F), name="x")
    shared = layers.LSTM(F, return_sequences=True, name="shared")
    calls = surveyed(scramble, x, shared(shared(x))).calls
    assert [(call.name, call.recurrence.name) for call in calls] == [("shared", "shared"), ("shared_1", "shared")]


def test_a_recurrence_on_a_strided_clock_is_not_on_the_models(scramble):
    x = Input((None, F), name="x")
    found = surveyed(scramble, x, lstm(x[:, ::2], return_sequences=True))
    [call] = found.calls
    assert call.time not in ("time", F)
    assert not found.one_clock
    assert found.no_step is not None


def bands(x, major=False):
    """Fold [B, T, 4, F] into the batch: a sample's bands in a row, or all samples band after band."""
    axes = (2, 0, 1, 3) if major else (0, 2, 1, 3)
    return Around(lambda x: tf.reshape(tf.transpose(x, axes), [-1, tf.shape(x)[1], x.shape[-1]]))(x)


@pytest.mark.parametrize(("major", "lead"), [(False, "batch * 4"), (True, "4 * batch")])
def test_rows_that_are_folded_into_the_batch_have_states_each(scramble, major, lead):
    x = Input((None, 4, F), name="x")
    y = lstm(bands(x, major), return_sequences=True)
    found = surveyed(scramble, x, {"y": y, "head": layers.Dense(2)(y)})
    assert shapes(found.outputs) == {"head": (lead, "time", 2)}
    [call] = found.calls
    assert (call.batch, call.time, call.timed) == (lead, "time", True)
    assert [port.shape for port in call.outputs] == [(lead, "time", 4), (lead, 4), (lead, 4)]


def test_a_time_axis_may_be_any(scramble):
    x = Input((4, None, F), name="x")
    y = layers.TimeDistributed(layers.LSTM(5, return_sequences=True, name="l"), name="each")(x)
    found = surveyed(scramble, x, layers.Dense(2, name="y")(y))
    assert [(port.shape, port.time_axis) for port in found.inputs] == [(("batch", 4, "time", F), 2)]
    assert [(port.shape, port.time_axis) for port in found.outputs] == [(("batch", 4, "time", 2), 2)]
    assert [(call.name, call.batch, call.own) for call in found.calls] == [("each_l", "batch * 4", True)]
    assert found.no_step is None


def test_a_fixed_time_axis_that_is_not_the_first_is_found(scramble):
    x = Input((4, 16, F), name="x")
    y = ops.reshape(lstm(ops.reshape(x, (-1, 16, F)), return_sequences=True), (-1, 4, 16, 4))
    found = surveyed(scramble, x, y)
    assert shapes(found.inputs) == {"x": ("batch", 4, "time", F)}
    assert (found.declared, found.calls[0].batch) == ({"time": 16}, "batch * 4")


def test_a_layer_starts_anew_where_time_is_what_is_folded(scramble):
    x = Input((None, 4, F), name="x")
    within = layers.TimeDistributed(layers.LSTM(5, name="within"), name="each")(x)
    found = surveyed(scramble, x, lstm(within, "over", return_sequences=True))
    assert [call.name for call in found.calls] == ["over"]
    assert found.no_step is None


def test_rows_that_mix_samples_are_refused():
    x = Input((None, 2, F), name="x")
    mixed = Around(lambda x: tf.gather(tf.reshape(x, [-1, tf.shape(x)[1], F]), tf.range(2 * tf.shape(x)[0]) * 2 // 3))(
        x
    )
    with pytest.raises(UnsupportedModel, match="layer 'lstm' has rows that mix the samples"):
        shown(keras.Model(x, {"h": lstm(mixed), "x": Around(lambda y: y[..., 0])(x)}))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_declared_batch_is_what_the_model_always_gets(scramble, batch):
    x = Input(batch_shape=(batch, None, F), name="x")
    y = lstm(x, return_sequences=True, initial_state=[ops.zeros((batch, 4)), ops.ones((batch, 4))])
    model = Model(scramble(keras.Model(x, layers.Dense(3, name="y")(ops.reshape(y, (batch, -1, 2, 2))))), InOnePiece())
    assert model.batch == batch
    assert shapes(survey(model).outputs) == {"y": ("batch", "time", 2, 3)}


def test_batches_of_two_sizes_are_refused():
    a, b = Input(batch_shape=(1, None, F), name="a"), Input(batch_shape=(2, 4), name="b")
    with pytest.raises(UnsupportedModel, match="batches of different sizes: 'a' 1 and 'b' 2"):
        Model(keras.Model([a, b], [lstm(a), b]))


def test_an_open_feature_axis_is_refused_by_input_and_shape():
    x = Input((None, None, 2), name="image")
    y = layers.TimeDistributed(layers.GlobalAveragePooling1D())(x)
    with pytest.raises(UnsupportedModel, match=r"input 'image' has shape \[None, None, None, 2\]"):
        shown(keras.Model(x, lstm(y)))


def test_a_model_without_a_time_axis_runs_on_something_of_a_fixed_size(scramble):
    x = Input((4,), name="x")
    found = surveyed(scramble, x, lstm(layers.RepeatVector(3)(x), return_sequences=True))
    assert shapes(found.inputs) == {"x": ("batch", 4)}
    assert [call.time for call in found.calls] == [3]
    assert "No input has a time axis" in found.no_step
    assert not found.one_clock
    assert not found.tried


def test_a_model_that_cannot_run_is_refused_with_keras_reason():
    class Picky(layers.Layer):
        def call(self, x):
            if tf.executing_eagerly():  # not while the model is put together
                raise ValueError("the moon is wrong")
            return x

    x = Input((None, F))
    with pytest.raises(UnsupportedModel, match="'picky' can't be run on random data .*the moon is wrong"):
        shown(keras.Model(x, lstm(Picky()(x)), name="picky"))


def test_a_recurrent_layer_that_is_never_called_is_no_state():
    class Idle(keras.Model):
        def __init__(self):
            super().__init__(name="idle")
            self.lstm = layers.LSTM(2)
            self.head = layers.Dense(2)

        def build(self, shape):
            self.lstm.build(shape)
            self.head.build(shape)

        def call(self, x):
            return self.head(x)

    model = Idle()
    model(ops.ones((1, 2, F)))
    with pytest.raises(UnsupportedModel, match="'idle' has recurrent layers but doesn't call them"):
        shown(model)
