"""The command line: `export-lstm MODEL --to tflite`, and check, golden, inspect and bench beside it.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 refused or parity failed, 2 usage, 128 and
the signal's number when interrupted: 130 by Ctrl-C, 143 by SIGTERM. Nothing heavy is imported here: --help answers at
once, and what a native library does to its process it does to a child (see child.py), never to this one.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

import signatures
from signatures import files
from signatures.errors import ArtifactError, ExportLSTMError, FeedError, LoadError, OutputError
from signatures.golden import ROUNDINGS
from signatures.runtimes import of_folder
from signatures.schemes import SCHEMES

from . import child, deliver
from .read.budget import MAX_MEMORY
from .read.loading import MODEL_SUFFIXES, check_path
from .request import DELIVERING, named_targets
from .targets import CHOICES, TARGETS

MOST = 1_000_000
"""The largest fixed number of samples or time steps."""

MIDST = "in the midst of moving files into place: each is wholly old or wholly new"


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


def _is_count(text: str) -> bool:
    return text.isdecimal() and 1 <= int(text) <= MOST


def extent(value: str) -> int | str:
    """Read a number of at least 1, or "any"."""
    if value == "any":
        return value
    if not _is_count(value):
        raise click.BadParameter(f"{value!r} is not a number from 1 to {MOST}, nor 'any'.")
    return int(value)


def counts(value: str) -> list[int]:
    """Read one or several numbers of at least 1, separated by commas."""
    parts = [part.strip() for part in value.split(",")]
    if not all(map(_is_count, parts)):
        raise click.BadParameter(f"{value!r} is not a number from 1 to {MOST}, nor several separated by commas.")
    return [int(part) for part in parts]


def listed(*accepted: str) -> Callable[[str], list[str]]:
    """Return what reads one or several of these names, separated by commas."""

    def names(value: str) -> list[str]:
        found = list(dict.fromkeys(part.strip() for part in value.split(",")))
        if unknown := [name for name in found if name not in accepted]:
            raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(accepted)}.")
        return found

    return names


PATH = click.Path(path_type=Path)
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
    "--trust", is_flag=True, help="Load a SavedModel whatever ops it holds, run C: they may do what their author likes."
)
ahead = click.option(
    "--lookahead", is_flag=True, help="Take layers that look into the future: their outputs come so much later."
)
cache = click.option(
    "--attention-cache",
    metavar="N",
    type=click.IntRange(1, MOST),
    help="Stream causal attention: it looks at the last N time steps, which are carried.",
)
calibration = click.option(
    "--calibration",
    metavar="DATA",
    help="Recordings to quantize by: an .npz, a folder of them, FILE.py:FUNCTION.  [default: random numbers]",
)
gate = click.option("--gate", type=float, help="dB of signal over noise below which nothing is delivered.")
memory = click.option(
    "--max-memory",
    type=click.FloatRange(0, min_open=True),
    default=MAX_MEMORY,
    show_default=True,
    help="GB that the model's weights, or one of its tensors, may take.",
)


def common(work: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every command has, and give what does its work the session that they ask for."""

    @click.option("-v", "--verbose", is_flag=True, help="Show each stage, the libraries' own messages and tracebacks.")
    @click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @wraps(work)
    def command(verbose: bool, quiet: bool, as_json: bool, **arguments: Any) -> None:
        with running(Session(verbose, quiet, as_json)) as session:
            work(session, **arguments)

    return command


@click.group(
    cls=ExportByDefault,
    help="Export recurrent Keras models to TFLite, ONNX, SavedModel, C and TFLM with explicit, proven state.\n\n\b\n"
    "export-lstm MODEL --to tflite      the same as: export-lstm export MODEL --to tflite\n"
    "export-lstm export --help          all its options",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="export-lstm")
def main() -> None:
    """Run the command line."""


@main.command()
@click.argument("model", type=PATH)
@click.option(
    "--to",
    required=True,
    multiple=True,
    type=listed(*TARGETS, "all"),
    help="tflite, onnx, savedmodel, c, tflm, or all, which is the first three; may be repeated.",
)
@click.option("-o", "--out", help="A folder or, for one target, the artifact's path.  [default: the current folder]")
@click.option(
    "--batch",
    metavar="N|ANY",
    type=extent,
    help="Samples a call.  [default: as declared, else 1 for tflite, c and tflm, or any]",
)
@click.option("--time", metavar="N|ANY", type=extent, help="Time steps of a sequence call.  [default: as the model]")
@click.option(
    "--signatures", type=listed("sequence", "step"), help="sequence, step or both.  [default: all that can be had]"
)
@click.option("--lengths", is_flag=True, help="Take the valid steps of each sample as an input; its state stops there.")
@ahead
@cache
@click.option(
    "--lowering",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="How a sequence is run: unrolled or loop for tflite, xla for savedmodel.",
)
@click.option("--quantize", type=click.Choice(list(SCHEMES)), help="Store weights, or all numbers, in fewer bits.")
@click.option(
    "--io",
    type=click.Choice(["quantized", "float"]),
    default="quantized",
    show_default=True,
    help="Inputs and outputs of an artifact of integers; its states are integers.",
)
@click.option("--precise", is_flag=True, help="Quantize weights more closely, in about twice the bytes.")
@calibration
@gate
@in_dtype
@memory
@click.option("--no-check", is_flag=True, help="Deliver without comparing with golden outputs.")
@click.option("--force", is_flag=True, help="Replace what is at the output path.")
@common
def export(session: "Session", model: Path, to: tuple[list[str], ...], no_check: bool, **options: Any) -> None:
    """Export MODEL (.keras or .h5), compare it with golden outputs in its own runtime, then deliver it."""
    targets = [name for names in to for name in names]
    check_path(model)
    _, contract_path = deliver.paths(model.stem, named_targets(targets), options["out"])
    session.write_to(contract_path.parent)
    artifacts = session.run(_export, model, targets, not no_check, options)
    session.show(
        lambda tables: [tables.artifact_facts(each) for each in artifacts],
        lambda tables: tables.print_artifacts(artifacts),
    )
    if not session.quiet:
        session.tell_strays(deliver.strays(contract_path))


@main.command()
@click.argument("model", type=PATH)
@click.option(
    "--to",
    default="tflite",
    show_default=True,
    type=click.Choice([name for name, target in TARGETS.items() if target.schemes]),
    help="What to export to.",
)
@click.option(
    "--quantize", type=listed(*SCHEMES, "all"), default="all", show_default=True, help="Schemes, several by commas."
)
@calibration
@gate
@click.option("--batch", metavar="N|ANY", type=extent, help="Samples a call.  [default: as export]")
@click.option("--time", metavar="N|ANY", type=extent, help="Time steps of a sequence call.  [default: as the model]")
@ahead
@cache
@click.option("--picture", type=PATH, help="Where to draw error over time, and size against it: a .png or .svg.")
@in_dtype
@memory
@timeout
@common
def compare(
    session: "Session", model: Path, to: str, quantize: list[str], picture: Path | None, timeout: float, **options: Any
) -> None:
    """Quantize MODEL in every way, compare size, error and time, and say which to take."""
    from . import compare as comparing

    check_path(model)
    schemes = comparing.schemes_of(to, quantize)
    if picture is not None:
        comparing.check_picture(picture)
    with tempfile.TemporaryDirectory(prefix="export-lstm-") as folder:
        made = session.run(_make_all, model, to, schemes, Path(folder), options)
        rows = comparing.timed(made, session.progress, timeout)
        if picture is not None:
            comparing.draw(rows, picture)
        session.show(
            lambda tables: [tables.compared_facts(row) for row in rows],
            lambda tables: tables.print_compared(rows, comparing.choice(rows), picture),
        )


@main.command()
@click.argument("artifact", type=PATH)
@click.option("--golden", "case", type=PATH, help="A case to compare with.  [default: the stream laws alone]")
@timeout
@trusting
@common
def check(session: "Session", artifact: Path, case: Path | None, timeout: float, trust: bool) -> None:
    """Run ARTIFACT in its own runtime and compare it with a golden case, or hold it to the stream laws."""
    session.progress("checking in a process of its own")
    report, strays = session.run_runtime(artifact, timeout, _check, artifact, case, trust)
    session.show(
        lambda tables: {**tables.report_facts(report), "strays": [str(each) for each in strays]},
        lambda tables: tables.print_report(report, artifact),
    )
    own = [path for path in strays if path.name == Path(os.path.abspath(artifact)).name]  # noqa: PTH100
    session.tell_strays(own if session.quiet else strays)
    if not report.ok and session.quiet:
        session.say(f"{artifact}: {report.summary()}")
    if not report.ok or own:
        sys.exit(1)


@main.command()
@click.argument("model", type=PATH)
@click.option("-o", "--out", "case", required=True, type=PATH, help="The case's folder; it must not exist.")
@click.option(
    "--feeds", type=PATH, help="An .npz with your own data, one array [B, ...] per input port.  [default: random]"
)
@click.option("--lengths", is_flag=True, help="Record calls that take the valid steps of each sample.")
@ahead
@cache
@in_dtype
@memory
@common
def golden(session: "Session", model: Path, case: Path, feeds: Path | None, **options: Any) -> None:
    """Record a golden case of MODEL from two witnesses: Keras in float32 and NumPy in float64."""
    check_path(model)
    session.write_to(case.parent)
    recorded = session.run(_golden, model, case, feeds, options)
    session.show(
        lambda _: {"case": str(case), "runs": [run.name for run in recorded.runs], **recorded.recipe},
        lambda tables: tables.print_case(case, recorded),
    )


@main.command()
@click.argument("path", metavar="MODEL_OR_ARTIFACT", type=PATH)
@ahead
@cache
@in_dtype
@memory
@click.option(
    "--timeout",
    type=SECONDS,
    help=f"Seconds that the process which does the work may take.  [default: {child.TIMEOUT:g} for artifacts]",
)
@common
def inspect(session: "Session", path: Path, dtype: Any, max_memory: float, timeout: float | None, **ways: Any) -> None:
    """Show what a model remembers, its ports and whether it can be stepped; or an artifact's ports and ops."""
    if path.suffix in (".tflite", ".onnx") or of_folder(path) is not None:
        if ways["lookahead"]:
            raise ArtifactError(f"{path}: an artifact looks ahead as it was exported. Leave --lookahead out.")
        if ways["attention_cache"] is not None:
            raise ArtifactError(f"{path}: an artifact attends as it was exported. Leave --attention-cache out.")
        if dtype is not None:
            raise ArtifactError(f"{path}: an artifact computes in the types that it has. Leave --dtype out.")
        facts = session.run_runtime(path, timeout or child.TIMEOUT, _artifact_facts, path)
    else:
        _check_inspected(path)
        facts = session.run(_model_facts, path, dtype, max_memory, ways, limit=timeout)
    session.show(lambda _: facts, lambda tables: tables.print_facts(facts))


@main.command()
@click.argument("artifacts", nargs=-1, required=True, metavar="ARTIFACT...", type=PATH)
@click.option(
    "--time",
    "totals",
    metavar="N",
    multiple=True,
    type=counts,
    help="Time steps of a sequence call; several by commas or repeated.  [default: 16,96,960, or as fixed]",
)
@click.option("--batch", type=click.IntRange(1, MOST), help="Samples a call.  [default: 1, or as fixed]")
@timeout
@trusting
@common
def bench(session: "Session", artifacts: tuple[Path, ...], totals: tuple[list[int], ...], **options: Any) -> None:
    """Time ARTIFACTs side by side, each in a process of one thread, and compare them with the first."""
    from .bench import bench as run

    timings = run(artifacts, [total for each in totals for total in each], progress=session.progress, **options)
    session.show(
        lambda tables: [tables.timing_facts(each) for each in timings],
        lambda tables: tables.print_timings(timings),
    )


# What runs in a child, but for what is refused before one is started.


def _export(model: Path, targets: list[str], check: bool, options: dict[str, Any], progress: child.Progress) -> Any:
    from .pipeline import export as run

    return run(model, targets, check=check, progress=progress, **options)


def _make_all(
    model: Path, to: str, schemes: list[tuple[str, bool]], folder: Path, options: dict[str, Any],
    progress: child.Progress,
) -> Any:  # fmt: skip
    from .compare import make_all

    return make_all(model, to, schemes, folder, options, progress)


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
            "and artifacts (.tflite, .onnx and folders of SavedModel, C and TFLM)."
        )
    check_path(path)


def _model_facts(path: Path, dtype: Any, max_memory: float, ways: dict[str, Any], progress: child.Progress) -> Any:
    from . import tables
    from .pipeline import opening

    with opening(path, dtype, max_memory, progress, **ways) as opened:
        return tables.model_facts(opened)


def _check(artifact: Path, case: Path | None, trust: bool, progress: child.Progress) -> Any:
    golden = None if case is None else signatures.Case.load(case)
    report = signatures.check(signatures.open(artifact, trust), golden, lambda run: progress(f"checking {run}"))
    progress("looking at what is beside it")
    return report, deliver.strays(deliver.contract_beside(artifact))


def _artifact_facts(path: Path, progress: child.Progress) -> Any:
    from . import tables

    progress("opening")
    return tables.contract_facts(signatures.read_contract(path), path)


def read_feeds(path: Path) -> dict[str, Any]:
    """Read an .npz of named arrays.

    Raises:
        LoadError: When it is missing or something else.
    """
    try:
        feeds = files.read_npz(path)
    except ValueError as error:
        raise LoadError(f"{path}: {error}. Give an .npz of plain arrays, written with numpy.savez.") from None
    if not feeds or any(array.ndim == 0 for array in feeds.values()):
        raise FeedError(f"{path}: give at least one array, each with the batch as its first axis.")
    return feeds


class Session:
    """One command at work: what it shows, the process that it has things done in, and how it ends."""

    def __init__(self, verbose: bool, quiet: bool, as_json: bool) -> None:
        """Show progress unless quiet; see `running`."""
        from . import tables

        self._tables = tables
        self.verbose, self.quiet, self._as_json = verbose, quiet, as_json
        self._folder: Path | None = None
        self._made: list[Path] = []
        self._console = tables.PlainConsole(stderr=True)
        self.lively = self._console.is_terminal and not quiet and not verbose
        self.status = self._console.status("starting")
        self._stage: object = "starting"
        self._done = False
        self.signal: int | None = None

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
        self._stage = stage
        if self.verbose:
            self.say(self._tables.shown(str(stage)), style="dim")
        else:
            self.status.update(self._tables.safe(str(stage)))

    def say(self, text: str, kind: str = "", style: str = "") -> None:
        """Print a sentence on stderr, if there is one, with names out of files made safe to print."""
        for name in _names_of_several_lines():
            text = text.replace(name, self._tables.shown(name))
        told = [self._tables.safe(f"{kind}:", "bold red")] if kind else []
        with suppress(OSError):
            self._console.print(*told, self._tables.safe(text, style, lines=True), soft_wrap=True)

    def run(self, function: Callable[..., Any], *arguments: Any, limit: float | None = None) -> Any:
        """Run a function in a process of its own, which may take `limit` seconds, and show its stages.

        Raises:
            ExportLSTMError: When it refuses, or a native library ends the process.
        """
        try:
            result = child.run(function, *arguments, progress=self.progress, limit=limit, **self._setting())
        except child.Lost as lost:
            self._clean()
            other = "another --to or --lowering, " if self._folder is not None else ""
            advice = f"Try {other}more memory, or -v to see what the libraries print."
            left = f" It was {MIDST}; export again with --force." if self._moving else " Nothing was written."
            raise ExportLSTMError(
                f"the process that does the work {lost} at the stage '{self._stage}'.{left if self._folder else ''}\n"
                f"  {lost.advice if isinstance(lost, child.TooLong) else advice}"
            ) from None
        self._done = self._moving
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

    def show(self, facts: Callable[[Any], Any], table: Callable[[Any], None]) -> None:
        """Print a result on stdout: as a table, or as JSON, or not at all when quiet.

        Args:
            facts: Gives, from the module `tables`, what JSON tells.
            table: Prints, with the same, what people see.

        Raises:
            OutputError: When stdout takes no more.
        """
        self.status.stop()
        try:
            if self._as_json:
                click.echo(json.dumps(facts(self._tables), indent=2))
            elif not self.quiet:
                table(self._tables)
            if self._as_json or not self.quiet:
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
        late = self._moving and self.signal is None  # all is in place in a moment, see `run`
        self.signal = number
        if not late:
            self._end_if_asked()

    def _end_if_asked(self) -> None:
        """End the command if a signal asked for it; nothing is left behind, and no exception can be lost on its way."""
        if self.signal is None:
            return
        child.end_all()
        self.status.stop()
        self._clean()
        left = "all that was asked for is delivered" if self._done else MIDST if self._moving else "nothing was written"
        end(self.signal, f"; {left}" if self._folder is not None else "")

    @property
    def _moving(self) -> bool:
        """Whether files are being moved into place."""
        return self._stage == DELIVERING and not self._done

    def _setting(self) -> dict[str, Any]:
        """Return what a child is started with."""
        variables = {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow")}
        if self.verbose:
            return {"variables": variables, "echo": lambda line: self.say(self._tables.shown(line))}
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
def running(session: Session) -> Iterator[Session]:
    """Run a command: show its progress, answer signals, turn errors into a sentence and exit code 1."""
    with child.answering(session.stop), session.status if session.lively else nullcontext():
        try:
            try:
                Path.cwd()
            except OSError:
                raise OutputError("the current folder was removed. Change to one that exists.") from None
            yield session
            return
        except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence, never a traceback
            if session.verbose:
                session.say(traceback.format_exc())
            refused = child.refusal(error)
            kind, text = type(refused).__name__, str(refused)
            if isinstance(refused, child.Surprise):
                kind, text = "", f"This is a bug in export-lstm: {text}. Run again with -v and report what it prints."
        session.status.stop()
        session.say(text, kind)
        if session.signal is not None:  # it came while files were moved into place, which has failed and is told
            end(session.signal)
        sys.exit(1)
