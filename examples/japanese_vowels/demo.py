"""Export two real speech models three ways, prove each artifact, and stream real recordings through it.

    make demo        or: python examples/japanese_vowels/demo.py [--out FOLDER]

The models tell nine speakers apart from 12 numbers a frame; the 370 test recordings are 7 to 29 frames long. The first
one, of LSTMs, names a speaker for a recording: every artifact must name the same one as Keras for each of them. The
second one, of convolutions and a GRU, names a speaker at every frame: streamed frame by frame, every artifact must give
what Keras gives on the whole recording.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

import signatures

HERE = Path(__file__).parent
STREAMED = 10
"""Of how many recordings one is streamed frame by frame."""
CHUNK = 4
"""Frames a push while streaming: what a microphone delivers, not what the model was trained on."""


def recordings() -> tuple[list[np.ndarray], np.ndarray]:
    """Return the test recordings, each [T, 12], and the speaker of each."""
    with np.load(HERE / "recordings.npz") as data:
        return np.split(data["frames"], np.cumsum(data["lengths"])[:-1]), data["speaker"]


def keras_predictions(frames: list[np.ndarray]) -> np.ndarray:
    """Return what Keras itself predicts, [N, 9]."""
    import keras

    return keras.saving.load_model(HERE / "model.keras").predict(padded(frames), verbose=0)


def predictions(runner: signatures.Runner, frames: list[np.ndarray]) -> np.ndarray:
    """Return an artifact's predictions, [N, 9]: padded and all at once, or one by one where its batch is 1."""
    signature = runner.contract.signatures["sequence"]

    def run(x: np.ndarray) -> np.ndarray:
        return runner.run("sequence", {"frames": x, **signature.initial_state(len(x))})["speaker"]

    if runner.dims.get("batch") == 1:
        return np.concatenate([run(recording[None]) for recording in frames])
    return run(padded(frames))


def padded(frames: list[np.ndarray]) -> np.ndarray:
    """Return recordings as one batch [N, T, 12], zeros after the end of each: the model's Masking layer skips them."""
    batch = np.zeros((len(frames), max(map(len, frames)), frames[0].shape[1]), np.float32)
    for row, recording in zip(batch, frames, strict=True):
        row[: len(recording)] = recording
    return batch


def streamed(runner: signatures.Runner, recording: np.ndarray) -> np.ndarray:
    """Return the prediction after each chunk of a recording, [chunks, 9], the state carried by the stream."""
    stream = runner.stream()
    starts = range(0, len(recording), CHUNK)
    return np.concatenate([stream.push(recording[None, s : s + CHUNK])["speaker"] for s in starts])


def frame_by_frame(console: Console, artifacts: list, frames: list[np.ndarray]) -> bool:
    """Stream recordings one frame a push, and print how far that is from Keras on the whole; whether it is close."""
    import keras

    model = keras.saving.load_model(HERE / "streaming.keras")
    whole = [model.predict(recording[None], verbose=0) for recording in frames[::STREAMED]]
    close = True
    table = Table("", "size", "remembered", "pushes", "max |difference|", "golden comparisons", box=None)
    for artifact in artifacts:
        runner, gap, pushes = signatures.open(artifact.path), 0.0, 0
        for recording, expected in zip(frames[::STREAMED], whole, strict=True):
            stream = runner.stream()
            found = [stream.push(frame[None, None])["speaker"] for frame in recording]
            gap = max(gap, float(np.abs(np.concatenate(found, axis=1) - expected).max()))
            pushes += len(found)
        close &= gap < 1e-5
        states = ", ".join(carry.output for carry in artifact.contract.signatures["step"].carries)
        compared = f"{len(artifact.parity.diffs)} ok"
        table.add_row(artifact.target, f"{artifact.size / 1000:.0f} kB", states, str(pushes), f"{gap:.1e}", compared)
    console.print(table)
    return close


def report(console: Console, artifacts: list, frames: list[np.ndarray], speaker: np.ndarray) -> bool:
    """Print accuracy and agreement of every artifact, then one recording chunk by chunk; return whether all agree."""
    golden = keras_predictions(frames)
    agree_all = True
    table = Table("", "size", "speaker right", "same as Keras", "max |difference|", "golden comparisons", box=None)
    table.add_row("Keras", "", f"{np.mean(golden.argmax(1) == speaker):.1%}", "", "", "")
    runners = {artifact.target: signatures.open(artifact.path) for artifact in artifacts}
    for artifact in artifacts:
        found = predictions(runners[artifact.target], frames)
        same = int(np.sum(found.argmax(1) == golden.argmax(1)))
        agree_all &= same == len(frames)
        table.add_row(
            artifact.target,
            f"{artifact.size / 1000:.0f} kB",
            f"{np.mean(found.argmax(1) == speaker):.1%}",
            f"{same} of {len(frames)}",
            f"{np.abs(found - golden).max():.1e}",
            f"{len(artifact.parity.diffs)} ok",
        )
    console.print(table)

    chosen = int(np.argmax([len(recording) for recording in frames]))
    recording, who = frames[chosen], speaker[chosen]
    console.print(
        f"\nRecording {chosen} of speaker {who}, {len(recording)} frames, {CHUNK} a push: how sure it is of {who}"
    )
    curves = {target: streamed(runner, recording) for target, runner in runners.items()}
    table = Table("frames", *curves, "", box=None)
    for k, value in enumerate(curves["tflite"][:, who]):
        heard = min((k + 1) * CHUNK, len(recording))
        bar = "█" * round(30 * float(value))
        table.add_row(str(heard), *(f"{curve[k, who]:.4f}" for curve in curves.values()), bar)
    console.print(table)
    ends = [np.abs(curve[-1] - golden[chosen]).max() for curve in curves.values()]
    console.print(f"After the last push each is within {max(ends):.0e} of Keras on the whole recording.")
    return agree_all and max(ends) < 1e-5


@contextmanager
def without_library_messages() -> Iterator[TextIO]:
    """Yield a stream to stderr while what native libraries write there is dropped."""
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as stream, Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield stream
        finally:
            stream.flush()
            os.dup2(stream.fileno(), 2)


def main() -> int:
    """Run the demo; return 1 when any artifact disagrees with Keras."""
    parser = argparse.ArgumentParser(description="Export a real speech model three ways and prove it.")
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="where the artifacts go (default: build/demo)"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with without_library_messages() as stream:
        console = Console(highlight=False)
        with Console(file=stream).status("importing TensorFlow") as status:
            from exporter import export

            artifacts, streaming = (
                export(HERE / f"{name}.keras", "all", f"{arguments.out}/", force=True, progress=status.update)
                for name in ("model", "streaming")
            )
        console.print(
            f"Japanese Vowels, exported to {arguments.out}/ and checked in LiteRT, ONNX Runtime and TensorFlow:\n"
        )
        frames, speaker = recordings()
        agree = report(console, artifacts, frames, speaker)
        console.print("\nA second model, causal convolutions and a GRU, names the speaker at every frame:\n")
        return 0 if frame_by_frame(console, streaming, frames) and agree else 1


if __name__ == "__main__":
    sys.exit(main())
