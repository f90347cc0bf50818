"""Train the streaming example: after each frame, which of nine people is speaking?

The recordings are those of train.py. The model looks at a few frames at a time with causal convolutions and at all of
them with a GRU, and names a speaker at every frame, so that it can be run while somebody speaks. Writes
`streaming.keras`. Shapes are given by axis letter: N recordings, B batch, T time steps (frames), F features.
"""

import keras
import numpy as np
from train import (
    BATCH_SIZE,
    FEATURES,
    NOISY_COPIES,
    SPEAKERS,
    Recordings,
    add_noisy_copies,
    begin,
    pad,
)

EPOCHS = 20


def build_model(mean: np.ndarray, std: np.ndarray) -> keras.Model:
    """Return the untrained model: frames [B, T, F], scaled by mean and std [F], to speakers [B, T, SPEAKERS]."""
    frames = keras.layers.Input((None, FEATURES), name="frames")
    x = keras.layers.Normalization(mean=mean, variance=std**2, name="scaled")(frames)
    x = keras.layers.Conv1D(32, 5, padding="causal", activation="relu", name="near")(x)
    y = keras.layers.Conv1D(32, 3, dilation_rate=4, padding="causal", name="far")(x)
    y = keras.layers.ReLU(name="far_relu")(keras.layers.BatchNormalization(name="far_norm")(y))
    x = keras.layers.Add(name="near_and_far")([x, y])
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    x = keras.layers.GRU(48, return_sequences=True, name="gru")(x)
    speaker = keras.layers.Dense(SPEAKERS, activation="softmax", name="speaker")(x)
    return keras.Model(frames, speaker, name="streaming_vowels")


def train(recordings: Recordings, speakers: np.ndarray) -> keras.Model:
    """Train a model to name the speaker [N] of recordings (N arrays [T, F]) at each of their frames."""
    every_frame = np.concatenate(recordings)
    mean, std = every_frame.mean(axis=0), every_frame.std(axis=0)
    copies = add_noisy_copies([(recording - mean) / std for recording in recordings])
    frames = pad([recording * std + mean for recording in copies])
    labels = np.tile(speakers, 1 + NOISY_COPIES)[:, None].repeat(frames.shape[1], axis=1)
    heard = np.arange(frames.shape[1]) < np.array([len(recording) for recording in copies])[:, None]
    steps = EPOCHS * int(np.ceil(len(frames) / BATCH_SIZE))
    model = build_model(mean, std)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.05), loss="sparse_categorical_crossentropy")
    model.fit(frames, labels, sample_weight=heard.astype(np.float32), batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=2)
    trained = build_model(mean, std)  # without the optimizer
    trained.set_weights(model.get_weights())
    return trained


def measure(model: keras.Model, recordings: Recordings, speakers: np.ndarray) -> float:
    """Return the share of recordings (N arrays [T, F]) whose speaker [N] the model names at their last frame."""
    guesses = model.predict(pad(recordings), verbose=0).argmax(axis=-1)
    last = np.array([len(recording) for recording in recordings]) - 1
    return float(np.mean(guesses[np.arange(len(guesses)), last] == speakers))


def main() -> None:
    """Download, train, measure and write the file."""
    out, train_recordings, train_speakers, test_recordings, test_speakers = begin(
        "Train the streaming example model.", "the file"
    )
    model = train(train_recordings, train_speakers)
    accuracy = measure(model, test_recordings, test_speakers)
    model.save(out / "streaming.keras")
    size = (out / "streaming.keras").stat().st_size / 1000
    print(f"Test accuracy after the last frame {accuracy:.1%}, streaming.keras {size:.0f} kB.")


if __name__ == "__main__":
    main()
