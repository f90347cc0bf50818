"""The command line: `export-lstm MODEL --to tflite`, and check, golden, inspect and bench beside it.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 refused or parity failed, 2 usage, 128 and
the signal's number when interrupted: 130 by Ctrl-C, 143 by SIGTERM. Nothing heavy is imported here: --help answers at
once, and what a native library does to its process it does to a child (see child.py), never to this one.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from signatures.errors import ArtifactError, ExportLSTMError, FeedError, LoadError, OutputError
from signatures.golden import ROUNDINGS

from . import child, deliver
from .read.budget import MAX_MEMORY
from .read.loading import MODEL_SUFFIXES, check_path
from .request import DELIVERING, Stage, named_targets
from .targets import CHOICES, TARGETS

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it says of arguments it can't take is safe to print."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            from .tables import shown

            raise click.UsageError(shown(error.format_message(), lines=True), error.ctx) from None


class ExtentType(click.ParamType[Any]):
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


SECONDS = click.FloatRange(min=0, min_open=True)
timeout = click.option(
    "--timeout",
    type=SECONDS,
    default=child.TIMEOUT,
    show_default=True,
    help="Seconds that the process which runs an artifact may take.",
)

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
@click.option("--batch", type=ExtentType(), help="Samples a call.  [default: as declared, else 1 for tflite or any]")
@click.option("--time", type=ExtentType(), help="Time steps of a sequence call.  [default: as the model]")
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
    with running(verbose, quiet) as session:
        targets = [name for names in to for name in names]
        check_path(model)
        _, contract_path = deliver.paths(model.stem, named_targets(targets), options["out"])
        session.write_to(contract_path.parent)
        artifacts = session.run(_export, model, targets, not no_check, options)
        session.show(
            lambda tables: [tables.artifact_facts(each) for each in artifacts],
            lambda tables: tables.print_artifacts(artifacts),
            as_json,
        )
        if not quiet:
            session.tell_strays(deliver.strays(contract_path))


@main.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--golden",
    "case",
    type=click.Path(path_type=Path),
    help="A case to compare with.  [default: the stream laws alone]",
)
@timeout
@trusting
@common
def check(
    artifact: Path, case: Path | None, timeout: float, trust: bool, verbose: bool, quiet: bool, as_json: bool
) -> None:
    """Run ARTIFACT in its own runtime and compare it with a golden case, or hold it to the stream laws."""
    with running(verbose, quiet) as session:
        session.progress("checking in a process of its own")
        report, strays = session.run_runtime(artifact, timeout, _check, artifact, case, trust)
        session.show(
            lambda tables: {**tables.report_facts(report), "strays": [str(each) for each in strays]},
            lambda tables: tables.print_report(report, artifact),
            as_json,
        )
        own = [path for path in strays if path.name == Path(os.path.abspath(artifact)).name]  # noqa: PTH100
        session.tell_strays(own if quiet else strays)
        if not report.ok and quiet:
            session.say(f"{artifact}: {report.summary()}")
        if not report.ok or own:
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
    with running(verbose, quiet) as session:
        check_path(model)
        session.write_to(case.parent)
        recorded = session.run(
            _golden, model, case, feeds, {"lengths": lengths, "dtype": dtype, "max_memory": max_memory}
        )
        session.show(
            lambda _: {"case": str(case), "runs": [run.name for run in recorded.runs], **recorded.recipe},
            lambda tables: tables.print_case(case, recorded),
            as_json,
        )


@main.command()
@click.argument("path", metavar="MODEL_OR_ARTIFACT", type=click.Path(path_type=Path))
@in_dtype
@memory
@click.option(
    "--timeout",
    type=SECONDS,
    help=f"Seconds that the process which does the work may take.  [default: {child.TIMEOUT:g} for artifacts]",
)
@common
def inspect(
    path: Path, dtype: Any, max_memory: float, timeout: float | None, verbose: bool, quiet: bool, as_json: bool
) -> None:
    """Show a model's recurrent layers, ports and whether it can be stepped; or an artifact's ports and ops."""
    with running(verbose, quiet) as session:
        if path.suffix in (".tflite", ".onnx") or (path / "saved_model.pb").is_file():
            if dtype is not None:
                raise ArtifactError(f"{path}: an artifact computes in the types that it has. Leave --dtype out.")
            facts = session.run_runtime(path, timeout or child.TIMEOUT, _artifact_facts, path)
        else:
            _check_inspected(path)
            facts = session.run(_model_facts, path, dtype, max_memory, limit=timeout)
        session.show(lambda _: facts, lambda tables: tables.print_facts(facts), as_json)


@main.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=click.Path(path_type=Path))
@click.option(
    "--time",
    "totals",
    multiple=True,
    type=Counts(),
    help="Time steps of a sequence call; several by commas or repeated.  [default: 16,96,960, or as fixed]",
)
@click.option("--batch", type=click.IntRange(1, MOST), help="Samples a call.  [default: 1, or as fixed]")
@timeout
@trusting
@common
def bench(
    artifacts: tuple[Path, ...],
    totals: tuple[list[int], ...],
    batch: int | None,
    timeout: float,
    trust: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Time ARTIFACTs side by side, each in a process of one thread, and compare them with the first."""
    with running(verbose, quiet) as session:
        from .bench import bench as run

        timings = run(artifacts, [total for each in totals for total in each], batch, session.progress, timeout, trust)
        session.show(
            lambda tables: [tables.timing_facts(each) for each in timings],
            lambda tables: tables.print_timings(timings),
            as_json,
        )


# What runs in a child, but for what is refused before one is started.


def _export(model: Path, targets: list[str], check: bool, options: dict[str, Any], progress: child.Progress) -> Any:
    from .pipeline import export as run

    return run(model, targets, check=check, progress=progress, **options)


def _golden(model: Path, case: Path, feeds: Path | None, options: dict[str, Any], progress: child.Progress) -> Any:
    arrays = None if feeds is None else read_feeds(feeds)
    from .pipeline import record_case

    return record_case(model, case, feeds=arrays, progress=progress, **options)


def _check_inspected(path: Path) -> None:
    """Refuse by its name and kind what is neither a model file nor an artifact."""
    if path.is_dir() or (path.is_file() and path.suffix not in MODEL_SUFFIXES):
        found = "is a folder" if path.is_dir() else f"has the suffix {path.suffix!r}"
        raise LoadError(
            f"{path} {found}; accepted are models ({', '.join(MODEL_SUFFIXES)}) "
            "and artifacts (.tflite, .onnx and SavedModel folders)."
        )
    check_path(path)


def _model_facts(path: Path, dtype: Any, max_memory: float, progress: child.Progress) -> Any:
    from . import tables
    from .pipeline import computing, load_model, open_model

    progress(Stage("loading"))
    loaded = load_model(path, max_memory)
    with computing(loaded, dtype):
        return tables.model_facts(open_model(loaded, progress))


def _check(artifact: Path, case: Path | None, trust: bool, progress: child.Progress) -> Any:
    import signatures

    golden = None if case is None else signatures.Case.load(case)
    report = signatures.check(signatures.open(artifact, trust), golden, lambda run: progress(f"checking {run}"))
    progress("looking at what is beside it")
    return report, deliver.strays(deliver.contract_beside(artifact))


def _artifact_facts(path: Path, progress: child.Progress) -> Any:
    import signatures

    from . import tables

    progress("opening")
    return tables.contract_facts(signatures.read_contract(path), path)


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


class Session:
    """One command at work: what it shows, the process that it has things done in, and how it ends."""

    def __init__(self, verbose: bool, quiet: bool) -> None:
        """Show progress unless quiet; see `running`."""
        from .tables import PlainConsole

        self.verbose, self.quiet = verbose, quiet
        self._folder: Path | None = None
        self._made: list[Path] = []
        self._console = PlainConsole(stderr=True)
        lively = self._console.is_terminal and not quiet and not verbose
        self.status = self._console.status("starting") if lively else None
        self._stage = "starting"
        self._done = False
        self._signal: int | None = None

    def write_to(self, folder: Path) -> None:
        """Tell where the command writes; what a killed one left there is cleaned, now and when this one is ended."""
        self._folder, self._made = folder, deliver.missing(folder)
        self._clean()

    def _clean(self) -> None:
        """Remove what a killed process left, this command's child or that of another."""
        if self._folder is not None:
            with suppress(OSError):
                deliver.clean(self._folder)
            deliver.remove_empty(self._made)

    def progress(self, stage: object) -> None:
        """Show the stage that starts."""
        from rich.text import Text

        from .tables import shown

        self._stage = text = str(stage)
        if self.verbose:
            self.say(shown(text), style="dim")
        elif self.status is not None:
            self.status.update(Text(shown(text)))

    def say(self, text: str, kind: str = "", style: str = "") -> None:
        """Print a sentence on stderr, if there is one, with names out of files made safe to print."""
        from rich.text import Text

        from .tables import shown

        for name in _names_of_several_lines():
            text = text.replace(name, shown(name))
        with suppress(OSError):
            told = Text(shown(text, lines=True), style)
            self._console.print(Text.assemble((f"{kind}: ", "bold red"), told) if kind else told, soft_wrap=True)

    def run(self, function: Callable[..., Any], *arguments: Any, limit: float | None = None) -> Any:
        """Run a function in a process of its own and show its stages.

        Args:
            function: What is run.
            arguments: Its arguments.
            limit: Seconds that it may take; None for no limit.

        Raises:
            ExportLSTMError: When it refuses, or a native library ends the process.
        """
        try:
            result = child.run(function, *arguments, progress=self.progress, limit=limit, **self._setting())
        except child.Lost as lost:
            self._clean()
            other = "another --to or --lowering, " if self._folder is not None else ""
            advice = f"Try {other}more memory, or -v to see what the libraries print."
            raise ExportLSTMError(
                f"the process that does the work {lost} at the stage '{self._stage}'.{self._left()}\n"
                f"  {lost.advice if isinstance(lost, child.TooLong) else advice}"
            ) from None
        self._done = self._stage == str(DELIVERING)
        self._end_if_asked()
        return result

    def run_runtime(self, path: Path, timeout: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function that opens an artifact in a process with limits: the file may be a stranger's.

        Raises:
            ArtifactError: When its runtime crashes on it or passes a limit.
        """
        limits: dict[str, Any] = {"limit": timeout, "memory": child.MEMORY}
        try:
            return child.run(function, *arguments, progress=self.progress, **self._setting(), **limits)
        except child.Lost as lost:
            raise ArtifactError(f"{path}: its runtime {lost}. {lost.advice}") from None

    def show(self, facts: Callable[[Any], Any], table: Callable[[Any], None], as_json: bool) -> None:
        """Print a result on stdout: as a table, or as JSON, or not at all when quiet.

        Args:
            facts: Gives, from the module `tables`, what JSON tells.
            table: Prints, with the same, what people see.
            as_json: Which of the two.

        Raises:
            OutputError: When stdout takes no more.
        """
        from . import tables

        if self.status is not None:
            self.status.stop()
        try:
            if as_json:
                click.echo(json.dumps(facts(tables), indent=2))
            elif not self.quiet:
                table(tables)
            if as_json or not self.quiet:
                if sys.stdout is None or sys.stdout.closed:
                    raise OSError(0, "it is closed")
                sys.stdout.flush()
        except OSError as error:
            with suppress(OSError, ValueError, AttributeError):  # nothing more goes there, at exit neither
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            after = " All that was asked for is delivered." if self._done else ""
            raise OutputError(f"the result can't be written to stdout ({error.strerror}).{after}") from None

    def tell_strays(self, strays: Sequence[Path]) -> None:
        """Say of artifacts that the contract beside them doesn't tell of them."""
        for path in strays:
            self.say(
                f"{path} isn't what {deliver.contract_beside(path).name} beside it tells of: it is of another export, "
                "or was changed since. Export both again (--force), or keep them apart."
            )

    def stop(self, number: int, frame: object) -> None:
        """End the command as a signal asks: a signal handler."""
        if self._stage == str(DELIVERING) and not self._done and self._signal is None:
            self._signal = number  # all is in place in a moment, see `run`
            return
        self._signal = number
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        """End the command if a signal asked for it; nothing is left behind, and no exception can be lost on its way."""
        if self._signal is None:
            return
        child.end_all()
        if self.status is not None:
            self.status.stop()
        self._clean()
        end(self._signal, f"; {self._left(short=True)}" if self._folder is not None else "")

    def end_if_late(self) -> None:
        """End the command if a signal came while files were moved into place, which has failed and is told."""
        if self._signal is not None:
            end(self._signal)

    def _left(self, short: bool = False) -> str:
        """Say what was written when the command comes to an early end."""
        if self._folder is None:
            return ""
        if self._done:
            return "all that was asked for is delivered" if short else " All that was asked for is delivered."
        if self._stage != str(DELIVERING):
            return "nothing was written" if short else " Nothing was written."
        where = "in the midst of moving files into place: each is wholly old or wholly new"
        return where if short else f" It was {where}; export again with --force."

    def _setting(self) -> dict[str, Any]:
        """Return what a child is started with."""
        from .tables import shown

        variables = {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow")}
        if self.verbose:
            return {"variables": variables, "echo": lambda line: self.say(shown(line))}
        return {"variables": {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"), **variables}}


def end(number: int, what: str = "") -> None:
    """Say that the program was interrupted and end it with the exit code for the signal."""
    with suppress(OSError):
        os.write(2, f"interrupted{what}\n".encode())
    os._exit(128 + number)


def _names_of_several_lines() -> Iterator[str]:
    """Return those of the command's arguments that would break a message into lines, and what is made of them."""
    context = click.get_current_context(silent=True)
    for value in context.params.values() if context else ():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, (str, Path)) and "\n" in str(each):
                yield from (str(each), Path(each).stem)


@contextmanager
def running(verbose: bool, quiet: bool) -> Iterator[Session]:
    """Run a command: show its progress, answer signals, turn errors into a sentence and exit code 1."""
    session = Session(verbose, quiet)
    with child.answering(session.stop), session.status or nullcontext():
        try:
            try:
                Path.cwd()
            except OSError:
                raise OutputError("the current folder was removed. Change to one that exists.") from None
            yield session
            return
        except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence, never a traceback
            if verbose:
                session.say(traceback.format_exc())
            refused = child.refusal(error)
            kind, text = type(refused).__name__, str(refused)
            if isinstance(refused, child.Surprise):
                kind, text = "", f"This is a bug in export-lstm: {text}. Run again with -v and report what it prints."
        if session.status is not None:
            session.status.stop()
        session.say(text, kind)
        session.end_if_late()
        sys.exit(1)
