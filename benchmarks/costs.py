"""What time per step doesn't show: memory, file size, how long an export takes, how soon --help answers."""

import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contenders import Contender, Problem, Shape, frames, imported, keras_model

LARGE = Shape(512, 512, 2)
"""The layers of the model whose export is timed."""

STAGES = {
    "loading": "load",
    "surveying": "survey",
    "golden numbers": "golden",
    "tracing": "trace",
    "converting": "convert",
    "checking": "check",
}
"""What the exporter reports as it goes -> the column it counts for."""


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


def save_large(path: Path) -> tuple[None, None]:
    """Save the model whose export is timed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keras_model(LARGE).save(path)
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

    def progress(text: str) -> None:
        nonlocal now, stage
        seconds[stage] += time.perf_counter() - now
        now = time.perf_counter()
        stage = next(column for word, column in STAGES.items() if word in text)

    import exporter

    with tempfile.TemporaryDirectory() as folder:
        exporter.export(model, "all", f"{folder}/", time=total, progress=progress)
        progress("loading")
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
