"""Compare the ways to quantize a model: how large, how close to it, how quick; and say which one to take."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signatures.errors import ExportLSTMError, OutputError, UnsupportedModel
from signatures.quality import Quality
from signatures.schemes import SCHEMES

from .bench import Ratio, bench
from .pipeline import deliver_all, opening, subject_of
from .request import Progress, Request, Stage, in_silence, named_targets

FLOAT = "float32"
"""What the model is called that isn't quantized."""

ALIKE = 0.99
"""Share of the rows that a scheme must decide as the model does, to be taken."""


@dataclass(frozen=True)
class Made:
    """An artifact in one scheme, or why there is none.

    Attributes:
        scheme: Its name, FLOAT or one of SCHEMES; "int16x8 precise".
        size: Bytes on disk; 0 where there is none.
        quality: How close to the model it is; None for FLOAT, and where it wasn't measured.
        refused: Why there is none.
        path: Where it lies.
    """

    scheme: str
    size: int = 0
    quality: Quality | None = None
    refused: str = ""
    path: Path = Path()


@dataclass(frozen=True)
class Compared:
    """One row of a comparison.

    Attributes:
        made: The artifact.
        seconds: Of its smallest call; None where it wasn't timed.
        ratio: Of that to FLOAT's.
    """

    made: Made
    seconds: float | None = None
    ratio: Ratio | None = None


def schemes_of(target: str, asked: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the schemes of a target that are meant, each with whether it is a precise one.

    Args:
        target: Its name.
        asked: Names of SCHEMES, or "all".

    Raises:
        UnsupportedModel: When it has none of them.
    """
    [found] = named_targets(target)
    names = [name for name in SCHEMES if (name in asked or "all" in asked) and name in found.schemes]
    if not names:
        raise UnsupportedModel(
            f"{target} has no form for {', '.join(asked)}.\n  It has: {', '.join(found.schemes) or 'none'}."
        )
    return [(name, precise) for name in names for precise in (False, True) if not precise or name in found.integers]


def make_all(
    model: Any,
    to: str,
    schemes: Sequence[tuple[str, bool]],
    folder: Path,
    options: Mapping[str, Any],
    progress: Progress = in_silence,
) -> list[Made]:
    """Export a model in every scheme, the float32 artifact first.

    Args:
        model: A keras.Model or the path of a model file.
        to: The target.
        schemes: See schemes_of.
        folder: Where to; it is empty.
        options: What else Request takes.
        progress: Called with each Stage as it starts.
    """
    targets = named_targets(to)
    made: list[Made] = []
    plain = {key: value for key, value in options.items() if key not in ("calibration", "gate")}
    first = Request(targets, **plain)
    cache = first.attention_cache
    with opening(model, first.dtype, first.max_memory, progress, first.batch, first.lookahead, cache) as opened:
        known = None
        for scheme, precise in [(None, False), *schemes]:
            name = FLOAT if scheme is None else scheme + " precise" * precise

            def at(stage: Stage, name: str = name) -> None:
                progress(Stage(stage.name, name, stage.run))

            quantized = {**options, "quantize": scheme, "precise": precise}
            place = folder / f"{name.replace(' ', '_')}{targets[0].suffix}"
            try:
                request = Request(targets, **(plain if scheme is None else quantized))
                subject = subject_of(opened, request).prepared(request, at, known)
                known = subject if known is None or known.recordings is None else known
                [artifact] = deliver_all(subject, request, {to: place}, place.with_suffix(".json"), at)
            except ExportLSTMError as error:
                if scheme is None:
                    raise
                made.append(Made(name, refused=str(error).splitlines()[0]))
            else:
                made.append(Made(name, artifact.size, artifact.quality, path=place))
    return made


def timed(made: Sequence[Made], progress: Any, timeout: float) -> list[Compared]:
    """Time the smallest call of each artifact, side by side; what there is no artifact of comes last."""
    there = [each for each in made if not each.refused]
    times = {
        timing.artifact: timing
        for timing in bench([each.path for each in there], progress=progress, timeout=timeout, trust=True)
        if timing.signature == "step"
    }
    rows = [
        Compared(each, times[each.path].seconds, times[each.path].ratio) if each.path in times else Compared(each)
        for each in there
    ]
    return [*rows, *(Compared(each) for each in made if each.refused)]


def choice(rows: Sequence[Compared]) -> Compared | None:
    """Return the smallest that decides as the model does, the closest of those as small; None where there is none."""
    measured = [(row, row.made.quality.decisions) for row in rows if row.made.quality is not None]
    passed = [row for row, decided in measured if decided is None or decided >= ALIKE]
    least = min((row.made.size for row in passed), default=0)
    near = [row for row in passed if row.made.size <= 1.1 * least]
    return max(near, key=lambda row: row.made.quality.worst.sqnr if row.made.quality else 0.0, default=None)


def check_picture(path: Path) -> None:
    """Refuse what can't be drawn, before the work is done.

    Raises:
        OutputError: When the suffix isn't one of a picture, or the package that draws isn't installed.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{path}: give a picture's path, .png, .svg or .pdf.")
    if importlib.util.find_spec("matplotlib") is None:
        raise OutputError(f"{path}: drawing it takes matplotlib. Install it: pip install matplotlib")


def draw(rows: Sequence[Compared], path: Path) -> None:
    """Draw the error of each scheme along the stream, and its size against that.

    Raises:
        OutputError: When the picture can't be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (course, sizes) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for k, row in enumerate(row for row in rows if row.made.quality is not None):
        quality, style = row.made.quality, {"marker": "o", "color": f"C{k}", "label": row.made.scheme}
        assert quality is not None
        parts = quality.worst.course
        course.plot([quality.time_steps * (n + 0.5) / len(parts) for n in range(len(parts))], parts, ms=3, **style)
        sizes.plot([row.made.size / 1000], [quality.worst.sqnr], ms=8, linestyle="", **style)
        sizes.annotate(row.made.scheme, (row.made.size / 1000, quality.worst.sqnr), (6, 4), textcoords="offset points")
    course.set(title="Along the stream, worst port", xlabel="time steps", ylabel="signal over noise, dB")
    sizes.set(
        title="Size",
        xlabel="kB",
        ylabel="signal over noise of the worst port, dB",
        xlim=(0, 1.25 * max(row.made.size for row in rows) / 1000),
    )
    for panel in (course, sizes):
        panel.grid(alpha=0.3)
    course.legend(frameon=False)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror}). Give another --picture.") from None
    finally:
        pyplot.close(figure)
