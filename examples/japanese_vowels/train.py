"""Train the example model: which of nine people said "ae"?

The script downloads the Japanese Vowels recordings (they travel inside the wheel of the `aeon` package, which is opened
as a zip file and never installed), trains a two-layer LSTM on the 270 training recordings, measures it on the 370 test
recordings, and writes `model.keras` and `recordings.npz`. Shapes are given by axis letter: N recordings, B batch,
T time steps (frames), F features.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

AEON_VERSION = "1.6.0"
DATA_FOLDER = "aeon/datasets/data/JapaneseVowels"
FEATURES, SPEAKERS, SHORTEST, LONGEST = 12, 9, 7, 29

SEED = 1
EPOCHS = 15
BATCH_SIZE = 30
NOISY_COPIES = 7
NOISE = 0.4  # in standard deviations of each feature

Recordings = list[np.ndarray]  # N arrays [T, F], each with its own T


def download_wheel(folder: Path) -> Path:
    """Download the aeon wheel into `folder` without installing it, and return its path."""
    command = [sys.executable, "-m", "pip", "download", f"aeon=={AEON_VERSION}", "--no-deps", "--only-binary", ":all:"]
    if subprocess.run([*command, "--quiet", "--dest", str(folder)], check=False).returncode:
        sys.exit(f"pip could not download aeon {AEON_VERSION}, which holds the recordings; see its message above.")
    return next(folder.glob("aeon-*.whl"))


def parse_ts(text: str) -> tuple[Recordings, np.ndarray]:
    """Parse a .ts file into recordings (N arrays [T, F]) and speakers [N], counted from 0.

    After the line `@data` every line is one recording: the features separated by ":", the frames of a feature by ",",
    and the speaker, counted from 1, at the end.
    """
    recordings, speakers = [], []
    for line in text.split("@data")[1].split():
        *features, speaker = line.split(":")
        recordings.append(np.array([feature.split(",") for feature in features], dtype=np.float32).T)
        speakers.append(int(speaker) - 1)
    return recordings, np.array(speakers, dtype=np.int32)


def check(part: str, recordings: Recordings, speakers: np.ndarray, count: int, longest: int) -> None:
    """Stop with a clear sentence unless the recordings (N arrays [T, F]) and speakers [N] are the published ones."""
    lengths = [len(recording) for recording in recordings]
    what = "(recordings, features, shortest, longest, speakers)"
    found = (len(recordings), {r.shape[1] for r in recordings}, min(lengths), max(lengths), set(speakers.tolist()))
    expected = (count, {FEATURES}, SHORTEST, longest, set(range(SPEAKERS)))
    if found != expected:
        sys.exit(f"The {part} data is not as published: {what} should be {expected} but is {found}.")


def load_data() -> tuple[Recordings, np.ndarray, Recordings, np.ndarray]:
    """Return training recordings (N arrays [T, F]) and speakers [N], then test recordings and speakers."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download_wheel(Path(folder))) as wheel:
        train = parse_ts(wheel.read(f"{DATA_FOLDER}/JapaneseVowels_TRAIN.ts").decode())
        test = parse_ts(wheel.read(f"{DATA_FOLDER}/JapaneseVowels_TEST.ts").decode())
    check("training", *train, count=270, longest=26)
    check("test", *test, count=370, longest=LONGEST)
    return *train, *test


def pad(recordings: Recordings) -> np.ndarray:
    """Put recordings (N arrays [T, F]) into one array [N, LONGEST, F], with zero frames after the end of each."""
    padded = np.zeros((len(recordings), LONGEST, FEATURES), dtype=np.float32)
    for row, recording in zip(padded, recordings, strict=True):
        row[: len(recording)] = recording
    return padded


def add_noisy_copies(recordings: Recordings) -> Recordings:
    """Return recordings (N arrays [T, F]) and NOISY_COPIES copies of them, as if said elsewhere and once more.

    A copy differs by one random offset for the whole recording [F] and by random noise for every frame [T, F].
    """
    random = np.random.default_rng(SEED)
    noisy = [
        recording + random.normal(scale=NOISE, size=FEATURES) + random.normal(scale=NOISE, size=recording.shape)
        for _ in range(NOISY_COPIES)
        for recording in recordings
    ]
    return recordings + noisy


def build_model() -> keras.Sequential:
    """Return the untrained model: frames [B, T, F] to speaker probabilities [B, SPEAKERS]."""
    return keras.Sequential(
        [
            keras.layers.Input((None, FEATURES), name="frames"),
            keras.layers.Masking(mask_value=0.0, name="masking"),
            keras.layers.LSTM(64, return_sequences=True, name="lstm_low"),
            keras.layers.Dropout(0.3, name="dropout_low"),
            keras.layers.LSTM(32, name="lstm_high"),
            keras.layers.Dropout(0.3, name="dropout_high"),
            keras.layers.Dense(SPEAKERS, activation="softmax", name="speaker"),
        ],
        name="japanese_vowels",
    )


def fit(recordings: Recordings, speakers: np.ndarray) -> keras.Sequential:
    """Train a model on standardised recordings (N arrays [T, F]) and their speakers [N]."""
    frames = pad(add_noisy_copies(recordings))
    labels = np.tile(speakers, 1 + NOISY_COPIES)
    steps = EPOCHS * int(np.ceil(len(frames) / BATCH_SIZE))
    rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=steps)
    model = build_model()
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(frames, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=2)
    return model


def accept_raw_frames(trained: keras.Sequential, mean: np.ndarray, std: np.ndarray) -> keras.Sequential:
    """Return an uncompiled copy of a model trained on (frame - mean) / std that takes the frames as they are.

    `mean` and `std` are [F]. The first LSTM begins with frame @ kernel + bias, so both fit into its kernel and bias.
    """
    model = build_model()
    model.set_weights(trained.get_weights())
    lstm = model.get_layer("lstm_low")
    kernel, recurrent_kernel, bias = lstm.get_weights()
    lstm.set_weights([kernel / std[:, None], recurrent_kernel, bias - (mean / std) @ kernel])
    return model


def train(recordings: Recordings, speakers: np.ndarray) -> keras.Sequential:
    """Train a model on recordings (N arrays [T, F]) and their speakers [N], standardising the features meanwhile."""
    every_frame = np.concatenate(recordings)
    mean, std = every_frame.mean(axis=0), every_frame.std(axis=0)
    trained = fit([(recording - mean) / std for recording in recordings], speakers)
    return accept_raw_frames(trained, mean, std)


def measure(model: keras.Sequential, recordings: Recordings, speakers: np.ndarray) -> float:
    """Return the share of recordings (N arrays [T, F]) whose speaker [N] the model names correctly."""
    guesses = model.predict(pad(recordings), verbose=0).argmax(axis=-1)
    return float(np.mean(guesses == speakers))


def save_recordings(path: Path, recordings: Recordings, speakers: np.ndarray) -> None:
    """Write recordings (N arrays [T, F]) as `frames` [sum of T, F], `lengths` [N] and `speaker` [N]."""
    lengths = np.array([len(recording) for recording in recordings], dtype=np.int32)
    np.savez_compressed(path, frames=np.concatenate(recordings), lengths=lengths, speaker=speakers)


def begin(description: str, written: str) -> tuple[Path, Recordings, np.ndarray, Recordings, np.ndarray]:
    """Read the command line, fix every seed and download: the folder to write to, then what load_data returns."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help=f"folder for {written}")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()

    print("Downloading the recordings ...")
    return out, *load_data()


def main() -> None:
    """Download, train, measure and write the two files."""
    out, train_recordings, train_speakers, test_recordings, test_speakers = begin(
        "Train the Japanese Vowels example model.", "the two files"
    )
    model = train(train_recordings, train_speakers)
    accuracy = measure(model, test_recordings, test_speakers)
    model.save(out / "model.keras")
    save_recordings(out / "recordings.npz", test_recordings, test_speakers)
    size = (out / "model.keras").stat().st_size / 1000
    print(f"Test accuracy {accuracy:.1%}, model.keras {size:.0f} kB, {len(test_recordings)} test recordings.")


if __name__ == "__main__":
    main()
