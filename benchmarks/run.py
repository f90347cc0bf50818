"""Measure export-lstm against its peers, side by side, and hold the figures against the goals.

    make bench          all shapes, T = 1 to 9600, B = 1 and 8: half an hour
    make bench-quick    some of them: three minutes

One process a measurement, one thread each. All contenders of a comparison must give the same numbers before they are
timed; they then take turns (see exporter/bench.py). What can't be built or run is listed with the reason. Results go to
build/bench/: results.json and a plot of time per step for each batch size. Files are built once and kept there.
"""

import argparse
import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contenders as c
import costs
import numpy as np
import report
from goals import SHAPES, Comparison, Results, Row, facts
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from exporter.bench import Worker, take_turns
from signatures.errors import ExportLSTMError
from signatures.ports import Array

ROOT = Path(__file__).parent.parent
OUT = ROOT / "build" / "bench"
PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnxruntime", "ai-edge-litert", "numpy")

TOTALS = (1, 16, 96, 960, 9600)
QUICK = (c.Shape(16, 32), c.Shape(64, 128), c.Shape(128, 256))
SAME = 1e-4
"""How far two contenders' numbers may be apart."""

BUILD_LIMIT, CALL_LIMIT, TURN_LIMIT = 60.0, 20.0, 2.0
"""Seconds to build a file, to open it and make its first call, and of timing after which it takes no more turns."""


class Files:
    """The contenders' files, each built when it is first asked for."""

    def __init__(self, root: Path) -> None:
        """Keep them in a folder for this code and these packages; those of others are removed."""
        code = [each for room in ("exporter", "signatures") for each in (ROOT / room).rglob("*.[pc]*")]
        code = [*(each for each in code if each.suffix in (".py", ".c")), Path(c.__file__)]
        versions = [importlib.metadata.version(package) for package in PACKAGES]
        stamp = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(code)) + repr(versions).encode())
        self._folder = root / f"files-{stamp.hexdigest()[:12]}"
        self._builder: Worker | None = None
        for folder in root.glob("files-*"):
            if folder != self._folder:
                shutil.rmtree(folder)

    def path(self, contender: c.Contender, problem: c.Problem) -> Path:
        """Return a contender's file, building it if need be.

        Raises:
            ExportLSTMError: When it can't be built, or not within the limit.
        """
        path = self._folder / contender.file(problem)
        failed = path.with_name(f"{path.name}.failed")
        if failed.exists():
            raise ExportLSTMError(failed.read_text())
        if contender.longest is not None and problem.total > contender.longest:
            raise ExportLSTMError(
                f"not built: over {contender.longest} steps it takes half a minute or more to convert"
            )
        if contender.build is not None and not path.exists():
            try:
                self._build(partial(c.built, contender, problem, path))
            except ExportLSTMError as error:
                failed.parent.mkdir(parents=True, exist_ok=True)
                failed.write_text(f"not built: {error}")
                raise ExportLSTMError(failed.read_text()) from None
        return path

    def model(self, name: str) -> Path:
        """Return a model whose export is timed."""
        path = self._folder / f"{name.replace(' ', '_')}.keras"
        if not path.exists():
            self._build(partial(costs.save_model, name, path))
        return path

    def _build(self, request: Callable[[], tuple[None, None]]) -> None:
        if self._builder is None:
            self._builder = Worker({})
            self._builder.ask(partial(c.imported, c.SAVEDMODEL))
            self._builder.answer()
        self._builder.ask(request)
        try:
            self._builder.answer(BUILD_LIMIT)
        except TimeoutError:
            self.close()
            raise ExportLSTMError(f"its conversion takes over {BUILD_LIMIT:g} s") from None
        except ExportLSTMError:  # the process may be gone
            self.close()
            raise

    def close(self) -> None:
        """End the process that builds."""
        if self._builder is not None:
            self._builder.close()
            self._builder = None


Entry = tuple[c.Contender, c.Problem]


def compare(files: Files, name: str, entries: Sequence[Entry], tell: Callable[[str], None]) -> Comparison:
    """Measure entries side by side, once they have given the same numbers."""
    notes, paths = ["" for _ in entries], [Path() for _ in entries]
    for k, (contender, problem) in enumerate(entries):
        tell(f"building {contender.name}")
        try:
            paths[k] = files.path(contender, problem)
        except ExportLSTMError as error:
            notes[k] = str(error)
    seconds: list[list[float]] = [[] for _ in entries]
    with contextlib.ExitStack() as stack:
        workers = {}
        for k, (contender, _) in enumerate(entries):
            if not notes[k]:
                workers[k] = Worker()
                stack.callback(workers[k].close)
                workers[k].ask(partial(c.imported, contender))
        sequences: dict[int, Array | None] = {}
        for k, worker in workers.items():
            contender, problem = entries[k]
            tell(f"opening {contender.name}")
            try:
                worker.answer()
                worker.ask(partial(contender.open, paths[k], problem))
                sequences[k] = worker.answer(CALL_LIMIT)
            except TimeoutError:
                notes[k] = f"not timed: one call takes over {CALL_LIMIT:g} s"
            except ExportLSTMError as error:
                notes[k] = f"not run: {error}"
        for k, difference in differences(entries, sequences).items():
            notes[k] = f"not timed: its numbers differ by {difference:.1g}"
        timed = [k for k in sequences if not notes[k]]
        tell("timing")
        for k, taken in zip(timed, take_turns([workers[k] for k in timed], most=TURN_LIMIT), strict=True):
            seconds[k] = taken
    rows = [Row(contender.name, problem.total, seconds[k], notes[k]) for k, (contender, problem) in enumerate(entries)]
    return Comparison(name, entries[0][1].shape, entries[0][1].batch, rows)


def differences(entries: Sequence[Entry], sequences: dict[int, Array | None]) -> dict[int, float]:
    """Return who differs, and by how much, from the first peer: over the time steps that both have."""
    given = {k: array for k, array in sequences.items() if array is not None}
    if not given:
        return {}
    first = next((k for k in given if not entries[k][0].own), next(iter(given)))
    found = {}
    for k, array in given.items():
        steps = min(array.shape[1], given[first].shape[1])
        difference = float(np.abs(array[:, :steps] - given[first][:, :steps]).max())
        if not difference <= SAME:
            found[k] = difference
    return found


def comparisons(
    shapes: Sequence[c.Shape], totals: Sequence[int], batches: Sequence[int]
) -> dict[str, list[list[Entry]]]:
    """Return what is compared, by name."""
    made: dict[str, list[list[Entry]]] = {name: [] for name in (*c.COMPARED, "linear")}
    for batch in batches:
        for shape in shapes:
            problems = {total: c.Problem(shape, batch, total) for total in totals}
            made["lstm"] += [[(each, problem) for each in c.COMPARED["lstm"]] for problem in problems.values()]
            made["step"].append([(each, _steps(each, shape, batch)) for each in c.COMPARED["step"]])
            if batch == 1:
                for name in "masked", "gru":
                    made[name] += [[(each, problems[t]) for each in c.COMPARED[name]] for t in totals if t in (96, 960)]
                made["gru_step"].append([(each, _steps(each, shape, batch)) for each in c.COMPARED["gru_step"]])
                made["linear"].append([(c.TFLITE, problems[t]) for t in totals if t >= 96])
    return made


def _steps(contender: c.Contender, shape: c.Shape, batch: int) -> c.Problem:
    """Return the problem of single steps: one, which Python calls, or in C some in a row."""
    return c.Problem(shape, batch, c.IN_A_ROW if contender.target == "c" else 1)


def main() -> int:
    """Run the benchmark; return 0 whether or not goals are reached: the table tells."""
    parts = ("lstm", "step", "masked", "gru", "gru_step", "linear", "memory", "size", "export", "help")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="some shapes, T up to 960, B = 1: three minutes")
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(parts)}")
    parser.add_argument("--shape", help="shapes, separated by commas: 64->128,257->512")
    arguments = parser.parse_args()
    known = {str(shape): shape for shape in SHAPES}
    only = arguments.only.split(",") if arguments.only else parts
    standard = [str(shape) for shape in (QUICK if arguments.quick else SHAPES)]
    chosen = arguments.shape.split(",") if arguments.shape else standard
    for words, accepted in ((only, parts), (chosen, known)):
        if wrong := [word for word in words if word not in accepted]:
            parser.error(f"{wrong[0]!r} is not one of {', '.join(accepted)}")
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Results()
    progress = Console(stderr=True)
    try:
        measure(results, [known[name] for name in chosen], only, arguments.quick, progress)
    except KeyboardInterrupt:
        progress.print("interrupted; this is what was measured so far")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "results.json").write_text(json.dumps({"run": about(), **facts(results)}, indent=1) + "\n")
    report.show(console, results)
    for path in report.plot(results, OUT):
        console.print(f"plot: {path.relative_to(ROOT)}")
    console.print(f"all figures: {(OUT / 'results.json').relative_to(ROOT)}")
    return 0


def measure(results: Results, shapes: Sequence[c.Shape], only: Sequence[str], quick: bool, console: Console) -> None:
    """Measure everything asked for, one thing after the other."""
    totals = [t for t in TOTALS if t in (1, 96, 960)] if quick else TOTALS
    files = Files(OUT)
    compared = comparisons(shapes, totals, (1,) if quick else (1, 8))
    middle = shapes[len(shapes) // 2]
    if quick:
        for name in "masked", "gru":
            compared[name] = [entries for entries in compared[name] if entries[0][1].shape == middle]
    jobs: list[tuple[str, Callable[[Callable[[str], None]], None]]] = []
    for name, each in compared.items():
        for entries in each if name in only else ():
            problem = entries[0][1]

            def job(tell: Callable[[str], None], name: str = name, entries: list[Entry] = entries) -> None:
                results.comparisons.append(compare(files, name, entries, tell))

            jobs.append((f"{name} {problem.shape} B={problem.batch} T={entries[-1][1].total}", job))
    for shape in shapes:
        if "memory" in only:
            jobs.append((f"memory {shape}", partial(measure_memory, files, results, shape, quick)))
        if "size" in only:
            jobs.append((f"size {shape}", partial(measure_sizes, files, results, shape, totals)))
    if "export" in only:
        large, *others = costs.MODELS
        for total in (None,) if quick else (None, 96, 960):
            jobs.append(("export", partial(measure_export, files, results, large, total)))
        jobs += [("export", partial(measure_export, files, results, name, None)) for name in others]
    if "help" in only:
        jobs.append(("help", partial(measure_help, results)))
    columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(jobs))
            for done, (label, run) in enumerate(jobs):
                if not console.is_terminal:
                    console.print(f"{done + 1}/{len(jobs)} {label}", markup=False)

                def tell(text: str, label: str = label) -> None:
                    progress.update(task, description=f"{label}: {text}")

                run(tell)
                progress.advance(task)
    finally:
        files.close()


def measure_memory(files: Files, results: Results, shape: c.Shape, quick: bool, tell: Callable[[str], None]) -> None:
    """Measure each contender's peak memory at T = 960."""
    problem = c.Problem(shape, 1, 960)
    for contender in c.COMPARED["lstm"]:
        if contender.build is None or (quick and contender.target != "tflite"):
            continue
        tell(contender.name)
        found: int | str
        try:
            path = files.path(contender, problem)
            with contextlib.closing(Worker()) as worker:
                worker.ask(partial(costs.peak_memory, contender, path, problem))
                found = worker.answer(CALL_LIMIT)
        except (ExportLSTMError, TimeoutError) as error:
            found = str(error)
        results.memory[contender.name, str(shape)] = found


def measure_sizes(
    files: Files, results: Results, shape: c.Shape, totals: Sequence[int], tell: Callable[[str], None]
) -> None:
    """Measure the files."""
    for contender in c.COMPARED["lstm"]:
        for total in totals if "total" in contender.needs else (960,):
            with contextlib.suppress(ExportLSTMError):  # listed with the reason where it is timed
                if contender.build is not None:
                    path = files.path(contender, c.Problem(shape, 1, total))
                    results.sizes[contender.name, str(shape), total] = costs.file_size(path)


def measure_export(files: Files, results: Results, name: str, total: int | None, tell: Callable[[str], None]) -> None:
    """Measure an export of a model in a fresh process, all threads."""
    large = name == next(iter(costs.MODELS))
    label = name if not large else "any" if total is None else str(total)
    tell(label)
    model = files.model(name)
    with contextlib.closing(Worker({})) as worker:
        worker.ask(partial(costs.export_seconds, model, total))
        results.exports[label] = worker.answer()


def measure_help(results: Results, tell: Callable[[str], None]) -> None:
    """Measure how soon --help answers."""
    tell("--help")
    results.help = costs.help_seconds()


def about() -> dict[str, object]:
    """Return what the figures depend on."""
    cpu = [line.split(":")[1].strip() for line in cpuinfo() if line.startswith("model name")]
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu[0] if cpu else platform.processor(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "versions": {package: importlib.metadata.version(package) for package in ("export-lstm", *PACKAGES)},
        "threads": 1,
    }


def cpuinfo() -> list[str]:
    """Return the lines of /proc/cpuinfo, none where there is no such thing."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
