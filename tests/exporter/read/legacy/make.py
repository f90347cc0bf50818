"""Write the files of this folder with tf-keras, Keras 2's last home: `python make.py`, where tf-keras is installed.

Each .h5 is a whole model, each .npz its inputs (x0, x1, ...) and tf-keras' predictions (y0, y1, ...). The tests read
them without tf-keras.
"""

from pathlib import Path

import numpy as np
import tf_keras as keras
from tf_keras import layers

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)


def tokens(rows, steps, vocabulary):
    """Draw tokens, as floats because Keras 2 declares them so, with zeros before and after some."""
    drawn = RNG.integers(1, vocabulary, (rows, steps)).astype(np.float32)
    drawn[0, :2], drawn[1, -3:] = 0, 0
    return drawn


def frames(*shape):
    """Draw frames of normal numbers."""
    return RNG.normal(size=shape).astype(np.float32)


def draw(weight):
    """Draw a weight's values; variances are positive."""
    return RNG.uniform(0.3, 1, weight.shape) if "variance" in weight.name else RNG.normal(0, 0.7, weight.shape)


def text():
    """Tokens to a class, with the state of an optimizer and a metric in the file."""
    model = keras.Sequential(
        [
            layers.Embedding(12, 4, input_length=14),
            layers.Conv1D(5, 3, padding="same", activation="relu"),
            layers.MaxPooling1D(2),
            layers.LSTM(4, dropout=0.2, recurrent_dropout=0.2),
            layers.Dense(2, activation="softmax", kernel_regularizer="l2"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = tokens(3, 14, 12)
    model.train_on_batch(x, np.array([0, 1, 1]))
    return model, [x]


def two_inputs():
    """Two inputs, two outputs, a mask that is joined to frames without one."""
    words = keras.Input((7,), name="words")
    sound = keras.Input((7, 3), name="sound")
    embedded = layers.Embedding(9, 4, mask_zero=True)(words)
    joined = layers.Concatenate()([embedded, sound])
    sequence = layers.LSTM(3, return_sequences=True)(joined)
    last = layers.LSTM(2)(layers.Add()([sequence, sound]))
    return keras.Model([words, sound], [layers.Dense(2)(last), sequence]), [tokens(3, 7, 9), frames(3, 7, 3)]


def stacked():
    """Two LSTMs with the hard sigmoid."""
    first = layers.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True, input_shape=(None, 3))
    second = layers.LSTM(3, recurrent_activation="hard_sigmoid", activation="hard_sigmoid", implementation=1)
    return keras.Sequential([first, second, layers.Dense(2, activation="hard_sigmoid")]), [frames(3, 9, 3)]


def gru():
    """Both kinds of GRU."""
    first = layers.GRU(4, reset_after=False, return_sequences=True, input_shape=(6, 3))
    second = layers.GRU(3, reset_after=True)
    return keras.Sequential([first, layers.SpatialDropout1D(0.2), second]), [frames(3, 6, 3)]


def bidirectional():
    """Two directions, joined and added, behind a mask."""
    first = layers.Bidirectional(layers.LSTM(3, recurrent_activation="hard_sigmoid", return_sequences=True))
    second = layers.Bidirectional(layers.GRU(2, reset_after=False), merge_mode="sum")
    x = frames(3, 6, 3)
    x[0, 4:] = x[1, 2] = 0
    return keras.Sequential([layers.Masking(input_shape=(6, 3)), first, second]), [x]


def stateful():
    """State kept between calls; predicted from zero state."""
    first = layers.LSTM(3, stateful=True, return_sequences=True, batch_input_shape=(2, 5, 3))
    return keras.Sequential([first, layers.GRU(2, stateful=True)]), [frames(2, 5, 3)]


def time_distributed():
    """A Dense at every step."""
    first = layers.SimpleRNN(4, return_sequences=True, go_backwards=True, input_shape=(None, 3))
    inner = layers.TimeDistributed(layers.Dense(2, activation=layers.LeakyReLU(0.1)))
    return keras.Sequential([first, inner]), [frames(3, 6, 3)]


def nested():
    """A model in a model, called twice, with frozen statistics and a slash in a name."""
    x = keras.Input((6, 4))
    y = layers.BatchNormalization(trainable=False)(x)
    inner = keras.Model(x, layers.BatchNormalization()(layers.LSTM(4, return_sequences=True)(y)), name="in/ner")
    line = keras.Sequential([layers.Dense(4), layers.BatchNormalization()], name="in_ner")
    outer = keras.Input((6, 4))
    return keras.Model(outer, layers.GRU(2)(inner(line(inner(outer))))), [frames(3, 6, 4)]


def encoder_decoder():
    """An LSTM that starts from another's state."""
    spoken, written = keras.Input((None, 3)), keras.Input((None,))
    _, h, c = layers.LSTM(4, return_state=True)(spoken)
    decoder = layers.LSTM(4, return_sequences=True)
    sequence = decoder(layers.Embedding(8, 3)(written), initial_state=[h, c])
    return keras.Model([spoken, written], layers.Dense(8)(sequence)), [frames(3, 6, 3), tokens(3, 4, 8)]


def main():
    """Write every model and what it predicts."""
    for make in (text, two_inputs, stacked, gru, bidirectional, stateful, time_distributed, nested, encoder_decoder):
        model, inputs = make()
        model(inputs[0] if len(inputs) == 1 else inputs)
        model.set_weights([draw(weight) for weight in model.weights])
        model.reset_states()
        outputs = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
        model.save(HERE / f"{make.__name__}.h5")
        arrays = {f"x{n}": x for n, x in enumerate(inputs)}
        arrays |= {f"y{n}": y for n, y in enumerate(outputs if isinstance(outputs, list) else [outputs])}
        np.savez_compressed(HERE / f"{make.__name__}.npz", **arrays)


if __name__ == "__main__":
    main()
