"""What time per step doesn't show: memory, file size, how long an export takes, how soon --help answers."""

import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from contenders import Contender, Problem, Shape, frames, imported, keras_model

from exporter.request import Stage

LARGE = Shape(512, 512, 2)
"""The layers of the first model whose export is timed."""

STAGES = {
    "loading": "load",
    "surveying": "survey",
    "golden numbers": "golden",
    "tracing": "trace",
    "converting": "convert",
    "checking": "check",
    "delivering": "check",
}
"""A stage of an export -> the column it counts for."""


def peak_memory(contender: Contender, path: Path, problem: Problem) -> tuple[None, int]:
    """Open and run here, and return by how many bytes that raised this process' peak above its import (Linux)."""
    imported(contender)
    frames(problem)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _status("VmRSS")
    contender.open(path, problem)[0]()
    return None, _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(kilobytes)


def file_size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(each.stat().st_size for each in (path, *path.rglob("*")) if each.is_file())


def detector() -> Any:
    """Return convolutions over a picture of fixed size, then layers in both directions: 1 MB of weights."""
    from keras import Input, Sequential, layers

    return Sequential(
        [Input((128, 32, 3)), layers.Conv2D(16, 9, strides=2, padding="same", activation="relu")]
        + [layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"), layers.Reshape((32, 128))]
        + [layers.Bidirectional(layers.LSTM(64, return_sequences=True)) for _ in range(2)]
        + [layers.LSTM(64, return_sequences=True), layers.Dense(1, activation="sigmoid")]
    )


def amplifier() -> Any:
    """Return layers that amplify rounding on every kind of inputs, over 500 steps."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.GRU(64, return_sequences=True, recurrent_initializer="glorot_normal") for _ in range(2)]
    model = keras.Sequential([keras.Input((500, 8)), *map(keras.layers.Bidirectional, layers)])
    model.set_weights([3 * weights for weights in model.get_weights()])
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "2 x 512 units": partial(keras_model, LARGE),
    "convolutions, both directions": detector,
    "rounding amplified": amplifier,
}
"""The models whose export is timed; golden numbers of the last ones take a search."""


def save_model(name: str, path: Path) -> tuple[None, None]:
    """Save one of MODELS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    MODELS[name]().save(path)
    return None, None


def export_seconds(model: Path, total: int | None) -> tuple[None, dict[str, float]]:
    """Export a model file to all targets, checks included, and return the seconds of each stage.

    Args:
        model: The file.
        total: Fixed number of time steps; None for any.
    """
    start = time.perf_counter()
    importlib.import_module("tensorflow")  # every export waits for it, whatever exports
    seconds = {"import": time.perf_counter() - start, **dict.fromkeys(STAGES.values(), 0.0)}
    now, stage = time.perf_counter(), "load"

    def progress(begun: Stage) -> None:
        nonlocal now, stage
        seconds[stage] += time.perf_counter() - now
        now, stage = time.perf_counter(), STAGES[begun.name]

    import exporter

    with tempfile.TemporaryDirectory() as folder:
        exporter.export(model, "all", f"{folder}/", time=total, progress=progress)
    seconds[stage] += time.perf_counter() - now
    return None, seconds


def help_seconds() -> float:
    """Return the median seconds from calling `export-lstm --help` to its end."""
    took = []
    for _ in range(7):
        start = time.perf_counter()
        command = [sys.executable, "-c", "from exporter.cli import main; main()", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - start)
    return statistics.median(took)
