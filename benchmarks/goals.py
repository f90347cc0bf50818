"""What must be reached, as data: ratios of two contenders in one comparison, and limits of what else is measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import contenders as c

from exporter.bench import Ratio, ratio

KILO, MEGA = 1000, 1_000_000


@dataclass(frozen=True)
class Row:
    """A contender in a comparison.

    Attributes:
        contender: Its name.
        total: Time steps a call.
        seconds: Of a call, one number a turn.
        note: Why it wasn't timed.
    """

    contender: str
    total: int
    seconds: Sequence[float] = ()
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Contenders measured side by side: rows with a ratio between any two of them."""

    compared: str
    shape: c.Shape
    batch: int
    rows: Sequence[Row]

    def row(self, contender: c.Contender, total: int) -> Row | None:
        """Return a contender's row if it was timed."""
        return next((r for r in self.rows if (r.contender, r.total) == (contender.name, total) and r.seconds), None)


@dataclass
class Results:
    """All that was measured.

    Attributes:
        comparisons: Time a call.
        memory: (contender, shape) -> bytes at T = 960, or why not.
        sizes: (contender, shape, T or None) -> bytes.
        exports: Fixed T of the large model, or "any", or another model -> stage -> seconds.
        help: Seconds of `export-lstm --help`.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    memory: dict[tuple[str, str], int | str] = field(default_factory=dict)
    sizes: dict[tuple[str, str, int], int] = field(default_factory=dict)
    exports: dict[str, dict[str, float]] = field(default_factory=dict)
    help: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A goal in one place: what was found and what must be."""

    goal: str
    where: str
    value: float
    limit: float
    unit: str = ""
    spread: Ratio | None = None

    @property
    def reached(self) -> bool:
        """Whether the value is at most the limit."""
        return self.value <= self.limit


@dataclass(frozen=True)
class Goal:
    """The time of one contender over that of another.

    Attributes:
        text: What the table calls it.
        compared: Name of the comparison.
        own, peer: Contender; or, in the comparison `linear`, one contender twice.
        limits: Shape -> largest ratio; a shape that isn't named has none.
        totals: (T of own, T of peer) for each place.
    """

    text: str
    compared: str
    own: c.Contender
    peer: c.Contender
    limits: Mapping[str, float]
    totals: Sequence[tuple[int, int]]

    def outcomes(self, comparisons: Sequence[Comparison]) -> Iterator[Outcome]:
        """Return what was found, B = 1."""
        for each in comparisons:
            limit = self.limits.get(str(each.shape))
            if each.compared != self.compared or each.batch != 1 or limit is None:
                continue
            for mine, theirs in self.totals:
                own, peer = each.row(self.own, mine), each.row(self.peer, theirs)
                if own and peer:
                    found = ratio([s / mine for s in own.seconds], [s / theirs for s in peer.seconds])
                    steps = f"T={mine}" if mine == theirs else f"T={mine} / T={theirs}"
                    yield Outcome(self.text, f"{each.shape}, {steps}", found.median, limit, spread=found)


SHAPES = (
    c.Shape(16, 32),
    c.Shape(64, 64),
    c.Shape(64, 128),
    c.Shape(128, 256),
    c.Shape(257, 512),
    c.Shape(128, 128, 2),
)
MIDDLE = ((96, 96), (960, 960))


def _all(limit: float) -> dict[str, float]:
    return {str(shape): limit for shape in SHAPES}


GOALS = (
    Goal(
        "tflite sequence, any T / fused op",
        "lstm",
        c.TFLITE,
        c.FUSED,
        {"16->32": 0.75, "64->128": 0.75, "128->256": 0.5, "257->512": 0.6},
        MIDDLE,
    ),
    Goal(
        "tflite sequence, any T / ONNX LSTM op",
        "lstm",
        c.TFLITE,
        c.ONNX_FLOOR,
        {"128->256": 1.2, "257->512": 1.2},
        MIDDLE,
    ),
    Goal(
        "tflite sequence, --time T / fused op",
        "lstm",
        c.TFLITE_FIXED,
        c.FUSED,
        {"16->32": 0.65, "64->128": 0.65},
        MIDDLE,
    ),
    Goal("tflite sequence / Keras tflite", "lstm", c.TFLITE, c.KERAS_TFLITE, _all(0.2), ((960, 960),)),
    Goal("tflite time per step, long / short", "linear", c.TFLITE, c.TFLITE, _all(1.15), ((960, 96),)),
    Goal("tflite time per step, very long / short", "linear", c.TFLITE, c.TFLITE, _all(1.3), ((9600, 96),)),
    Goal("tflite step / fused op of T=1", "step", c.TFLITE_STEP, c.FUSED, _all(0.6), ((1, 1),)),
    Goal(
        "c step / tflite step",
        "step",
        c.C_STEP,
        c.TFLITE_STEP,
        {"16->32": 0.33, "64->64": 0.75, "64->128": 0.9},
        ((c.IN_A_ROW, 1),),
    ),
    Goal(
        "c step / tflite step, GRU",
        "gru_step",
        c.C_GRU_STEP,
        c.TFLITE_GRU_STEP,
        {"16->32": 0.25, "64->64": 0.67, "64->128": 0.85},
        ((c.IN_A_ROW, 1),),
    ),
    Goal("onnx sequence / ONNX LSTM op", "lstm", c.ONNX, c.ONNX_FLOOR, _all(1.05), MIDDLE),
    Goal("onnx masked / ONNX LSTM op", "masked", c.MASKED, c.ONNX_FLOOR, _all(1.5), MIDDLE),
    Goal("onnx --lengths / ONNX LSTM op", "masked", c.LENGTHS, c.ONNX_FLOOR, _all(1.5), MIDDLE),
    Goal("onnx masked / Keras onnx masked", "masked", c.MASKED, c.KERAS_MASKED, _all(0.25), MIDDLE),
    Goal("onnx GRU / Keras onnx GRU", "gru", c.GRU, c.KERAS_GRU, _all(0.3), MIDDLE),
    Goal(
        "savedmodel sequence / Keras savedmodel",
        "lstm",
        c.SAVEDMODEL,
        c.KERAS_SAVEDMODEL,
        {str(shape): 0.35 if shape.units <= 128 else 0.85 for shape in SHAPES if shape.units != 256},
        MIDDLE,
    ),
)


def outcomes(results: Results) -> list[Outcome]:
    """Return every goal in every place where it was measured."""
    found = [outcome for goal in GOALS for outcome in goal.outcomes(results.comparisons)]
    weights = {str(shape): c.bytes_of_weights(shape) for shape in SHAPES}
    own = {c.TFLITE.name: "any T", c.TFLITE_FIXED.name: "--time {}"}
    for (name, shape, total), size in results.sizes.items():
        if name in own:
            where = f"{shape}, {own[name].format(total)}"
            found.append(Outcome("tflite file beyond its weights", where, (size - weights[shape]) / KILO, 64, "kB"))
    for (name, shape), peak in results.memory.items():
        if name == c.TFLITE.name and not isinstance(peak, str):
            limit = (2.5 * weights[shape] + 8 * MEGA) / MEGA
            found.append(Outcome("tflite memory", f"{shape}, T=960", peak / MEGA, limit, "MB"))
    beyond = {total: sum(seconds.values()) - seconds["import"] for total, seconds in results.exports.items()}
    if "any" in beyond:
        found.append(Outcome("export of 2 x 512 units to all targets", "checked", beyond["any"], 15, "s"))
    for label, seconds in beyond.items():
        if label != "any" and not label.isdigit():
            found.append(Outcome("export of 1 MB to all targets", f"{label}, checked", seconds, 60, "s"))
    if {"96", "960"} <= set(beyond):
        found.append(Outcome("export with --time 960 / --time 96", "2 x 512", beyond["960"] / beyond["96"], 1.2))
    if results.help is not None:
        found.append(Outcome("export-lstm --help", "", results.help, 0.3, "s"))
    return found


def facts(results: Results) -> dict[str, Any]:
    """Return all results as plain data."""
    return {
        "comparisons": [
            {
                "compared": each.compared,
                "shape": str(each.shape),
                "batch": each.batch,
                "rows": [
                    {
                        "contender": row.contender,
                        "time": row.total,
                        "us_per_step": [round(1e6 * s / row.total, 4) for s in row.seconds],
                        "note": row.note,
                    }
                    for row in each.rows
                ],
            }
            for each in results.comparisons
        ],
        "memory_bytes": [{"contender": n, "shape": s, "bytes": v} for (n, s), v in results.memory.items()],
        "file_bytes": [{"contender": n, "shape": s, "time": t, "bytes": v} for (n, s, t), v in results.sizes.items()],
        "export_seconds": results.exports,
        "help_seconds": results.help,
        "goals": [
            {
                "goal": each.goal,
                "where": each.where,
                "value": round(each.value, 4),
                "quartiles": None if each.spread is None else [round(each.spread.low, 4), round(each.spread.high, 4)],
                "limit": round(each.limit, 4),
                "unit": each.unit or "ratio",
                "reached": each.reached,
            }
            for each in outcomes(results)
        ],
    }
