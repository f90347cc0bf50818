"""The command line: `export-lstm MODEL --to tflite`, and check, golden, inspect and bench beside it.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 refused or parity failed, 2 usage.
Nothing heavy is imported before a command runs, so that --help answers at once.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from signatures.errors import ExportLSTMError, FeedError, LoadError, one_line
from signatures.golden import ROUNDINGS

from .budget import MAX_MEMORY
from .outputs import TARGETS
from .plan import CHOICES

MOST = 1_000_000
"""The largest fixed number of samples or time steps."""


class ExportByDefault(click.Group):
    """A group whose first word may be a model: `export-lstm MODEL ...` is `export-lstm export MODEL ...`.

    Ten lines here instead of click-default-group, because `check` must run on a device where numpy, click, rich and
    one runtime are all there is.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `export` before arguments that name neither a command nor an option of the group itself."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            args = ["export", *args]
        return super().parse_args(ctx, args)


class Extent(click.ParamType[Any]):
    """A number of at least 1, or "any"."""

    name = "N|any"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or "any"."""
        if value == "any" or isinstance(value, int):
            return value
        if not str(value).isdigit() or not 1 <= int(value) <= MOST:
            self.fail(f"{value!r} is not a number from 1 to {MOST}, nor 'any'.", param, ctx)
        return int(value)


class Counts(click.ParamType[Any]):
    """One or several numbers of at least 1, separated by commas."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the numbers."""
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdigit() and 1 <= int(part) <= MOST for part in parts):
            self.fail(f"{value!r} is not a number from 1 to {MOST}, nor several separated by commas.", param, ctx)
        return [int(part) for part in parts]


class Listed(click.ParamType[Any]):
    """One or several names of a list, separated by commas."""

    name = "names"

    def __init__(self, accepted: tuple[str, ...]) -> None:
        self.accepted = accepted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Return the names."""
        names = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
        for name in names:
            if name not in self.accepted:
                self.fail(f"{name!r} is not one of {', '.join(self.accepted)}.", param, ctx)
        return list(dict.fromkeys(names))


verbosity = [
    click.option("-v", "--verbose", is_flag=True, help="Show each stage, the libraries' own messages and tracebacks."),
    click.option("-q", "--quiet", is_flag=True, help="Show errors only."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
]


in_dtype = click.option(
    "--dtype", type=click.Choice(list(ROUNDINGS)), help="The type to compute in; by default each layer's own."
)
trusting = click.option(
    "--trust", is_flag=True, help="Load a SavedModel whatever ops it holds: they may read or write files or run code."
)
memory = click.option(
    "--max-memory",
    type=click.FloatRange(0, min_open=True),
    default=MAX_MEMORY,
    show_default=True,
    help="GB that the model's weights, or one of its tensors, may take.",
)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command has."""
    for option in reversed(verbosity):
        command = option(command)
    return command


@click.group(
    cls=ExportByDefault,
    help="Export recurrent Keras models to TFLite, ONNX and SavedModel with explicit, proven state.\n\n\b\n"
    "export-lstm MODEL --to tflite      the same as: export-lstm export MODEL --to tflite\n"
    "export-lstm export --help          all its options",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="export-lstm")
def main() -> None:
    """Run the command line."""


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    multiple=True,
    type=Listed((*TARGETS, "all")),
    help="tflite, onnx, savedmodel or all; may be repeated.",
)
@click.option("-o", "--out", help="A folder or, for one target, the artifact's path.  [default: the current folder]")
@click.option("--batch", type=Extent(), help="Samples a call.  [default: 1 for tflite, any elsewhere]")
@click.option("--time", type=Extent(), help="Time steps of a sequence call.  [default: as the model]")
@click.option(
    "--signatures", type=Listed(("sequence", "step")), help="sequence, step or both.  [default: all that can be had]"
)
@click.option("--lengths", is_flag=True, help="Take the valid steps of each sample as an input; its state stops there.")
@click.option(
    "--lowering",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="How a sequence is run: unrolled or loop for tflite, xla for savedmodel.",
)
@in_dtype
@memory
@click.option("--no-check", is_flag=True, help="Deliver without comparing with golden outputs.")
@click.option("--force", is_flag=True, help="Replace what is at the output path.")
@common
def export(
    model: Path, to: tuple[list[str], ...], no_check: bool, verbose: bool, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Export MODEL (.keras or .h5), compare it with golden outputs in its own runtime, then deliver it."""
    with running(verbose, quiet) as progress:
        from .pipeline import export as run

        artifacts = run(
            model, [name for names in to for name in names], check=not no_check, progress=progress, **options
        )
        from . import tables

        if as_json:
            click.echo(json.dumps([tables.artifact_facts(each) for each in artifacts], indent=2))
        elif not quiet:
            tables.print_artifacts(artifacts)


@main.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--golden",
    "case",
    type=click.Path(path_type=Path),
    help="A case to compare with.  [default: the stream laws alone]",
)
@trusting
@common
def check(artifact: Path, case: Path | None, trust: bool, verbose: bool, quiet: bool, as_json: bool) -> None:
    """Run ARTIFACT in its own runtime and compare it with a golden case, or hold it to the stream laws."""
    with running(verbose, quiet) as progress:
        progress("checking in a process of its own")
        report = in_child(_check, artifact, case, trust)
        from . import tables

        if as_json:
            click.echo(json.dumps(tables.report_facts(report), indent=2))
        elif not quiet:
            tables.print_report(report, artifact)
    if not report.ok:
        if quiet:
            click.echo(f"{artifact}: {report.summary()}", err=True)
        sys.exit(1)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", "case", required=True, type=click.Path(path_type=Path), help="The case's folder; it must not exist."
)
@click.option(
    "--feeds",
    type=click.Path(path_type=Path),
    help="An .npz with your own data, one array [B, ...] per input port.  [default: random]",
)
@click.option("--lengths", is_flag=True, help="Record calls that take the valid steps of each sample.")
@in_dtype
@memory
@common
def golden(
    model: Path,
    case: Path,
    feeds: Path | None,
    lengths: bool,
    dtype: Any,
    max_memory: float,
    verbose: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Record a golden case of MODEL from two witnesses: Keras in float32 and NumPy in float64."""
    with running(verbose, quiet) as progress:
        arrays = None if feeds is None else read_feeds(feeds)
        from .pipeline import record_case

        recorded = record_case(
            model, case, feeds=arrays, lengths=lengths, dtype=dtype, max_memory=max_memory, progress=progress
        )
        if as_json:
            click.echo(
                json.dumps(
                    {"case": str(case), "runs": [run.name for run in recorded.runs], **recorded.recipe}, indent=2
                )
            )
        elif not quiet:
            largest = recorded.recipe["largest_difference"]
            click.echo(f"{case}: {len(recorded.runs)} run(s); Keras and float64 differ by at most {largest:.2g}.")


@main.command()
@click.argument("path", metavar="MODEL_OR_ARTIFACT", type=click.Path(path_type=Path))
@in_dtype
@memory
@common
def inspect(path: Path, dtype: Any, max_memory: float, verbose: bool, quiet: bool, as_json: bool) -> None:
    """Show a model's recurrent layers, ports and whether it can be stepped; or an artifact's ports and ops."""
    with running(verbose, quiet) as progress:
        from . import tables

        if path.suffix in (".tflite", ".onnx") or (path / "saved_model.pb").is_file():
            facts = in_child(_artifact_facts, path)
        else:
            from .pipeline import computing, load_model, open_model

            progress("loading")
            loaded = load_model(path, max_memory)
            with computing(loaded, dtype):
                facts = tables.model_facts(open_model(loaded, progress))
        if as_json:
            click.echo(json.dumps(facts, indent=2))
        elif not quiet:
            tables.print_facts(facts)


@main.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=click.Path(path_type=Path))
@click.option(
    "--time",
    "times",
    multiple=True,
    type=Counts(),
    help="Time steps of a sequence call; several by commas or repeated.  [default: 16,96,960, or as fixed]",
)
@click.option("--batch", type=click.IntRange(1, MOST), help="Samples a call.  [default: 1, or as fixed]")
@trusting
@common
def bench(
    artifacts: tuple[Path, ...],
    times: tuple[list[int], ...],
    batch: int | None,
    trust: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Time ARTIFACTs side by side, each in a process of one thread, and compare them with the first."""
    with running(verbose, quiet) as progress:
        from .bench import bench as run

        timings = run(artifacts, [total for each in times for total in each], batch, progress, trust)
        from . import tables

        if as_json:
            click.echo(json.dumps([tables.timing_facts(each) for each in timings], indent=2))
        elif not quiet:
            tables.print_timings(timings)


def _check(artifact: Path, case: Path | None, trust: bool) -> Any:
    import signatures

    golden = None if case is None else signatures.Case.load(case)
    return signatures.check(signatures.open(artifact, trust), golden)


def _artifact_facts(path: Path) -> Any:
    import signatures

    from . import tables

    return tables.contract_facts(signatures.read_contract(path), path)


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own: a runtime may crash on a file that isn't what it says.

    Raises:
        ExportLSTMError: When the process dies.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise ExportLSTMError(
                f"{arguments[0]}: its runtime crashed on it, so the file is damaged. Export it again."
            ) from None


def read_feeds(path: Path) -> dict[str, Any]:
    """Read an .npz of named arrays.

    Raises:
        LoadError: When it is missing or something else.
    """
    from signatures import files

    try:
        feeds = files.read_npz(path)
    except ValueError as error:
        raise LoadError(f"{path}: {error}. Give an .npz of plain arrays, written with numpy.savez.") from None
    if not feeds or any(array.ndim == 0 for array in feeds.values()):
        raise FeedError(f"{path}: give at least one array, each with the batch as its first axis.")
    return feeds


@contextmanager
def running(verbose: bool, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Run a command: show its progress, silence the libraries it loads, turn errors into a sentence and exit code 1.

    Yields:
        A function that shows the stage it is given.
    """
    from rich.console import Console

    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    with native_stderr(verbose) as stream:
        console = Console(file=stream, highlight=False)
        try:
            with (
                console.status("starting") if console.is_terminal and not quiet and not verbose else nothing() as status
            ):

                def progress(stage: str) -> None:
                    if verbose:
                        console.print(stage, style="dim")
                    elif status is not None:
                        status.update(stage)

                yield progress
        except (ExportLSTMError, KeyboardInterrupt) as error:
            if verbose:
                traceback.print_exc(file=stream)
            text = "interrupted; nothing was written" if isinstance(error, KeyboardInterrupt) else str(error)
            kind = type(error).__name__
            console.print(f"[bold red]{kind}:[/] ", end="")
            console.print(text, markup=False, soft_wrap=True)
            sys.exit(1)
        except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence, never a traceback
            if verbose:
                traceback.print_exc(file=stream)
            console.print(
                f"This is a bug in export-lstm: {one_line(error)}. Run again with -v and report what it prints.",
                markup=False,
                soft_wrap=True,
            )
            sys.exit(1)


@contextmanager
def nothing() -> Iterator[None]:
    """Stand in for a status line where there is no terminal."""
    yield None


@contextmanager
def native_stderr(verbose: bool) -> Iterator[Any]:
    """Yield a stream to the real stderr while what native libraries write there goes to a file nobody reads."""
    if verbose:
        yield sys.stderr
        return
    import warnings

    warnings.simplefilter("ignore")
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed
        yield sys.stderr
        return
    with tempfile.TemporaryFile() as sink, os.fdopen(saved, "w", encoding="utf-8", errors="replace") as stream:
        os.dup2(sink.fileno(), 2)
        try:
            yield stream
        finally:
            stream.flush()
            os.dup2(saved, 2)
