"""What was measured, as tables for people and as plots."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import contenders as c
from goals import Comparison, Outcome, Results, Row, outcomes
from rich.console import Console
from rich.table import Table

from exporter.bench import ratio

OWN = {"tflite": c.TFLITE, "onnx": c.ONNX, "savedmodel": c.SAVEDMODEL, "": c.TFLITE}
"""Format -> the contender of ours that peers are set against in the comparison `lstm`."""


def show(console: Console, results: Results) -> None:
    """Print everything: time, why what is missing is missing, memory, size, exports, goals."""
    for title, group in _groups(results.comparisons):
        console.print(_times(title, group), "")
    if results.comparisons:
        console.print("us a time step; (ratio) is export-lstm's time over this one's in the same turns, same format.")
    for note in _notes(results.comparisons):
        console.print(f"- {note}", markup=False)
    found = outcomes(results)
    for table in (_memory(results), _sizes(results), _exports(results), _goals(found)):
        if table.row_count:
            console.print("", table)
    console.print(f"{sum(each.reached for each in found)} of {len(found)} goals reached")


def _notes(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Return why contenders weren't timed, and where."""
    places: dict[str, dict[str, list[str]]] = {}
    for each in comparisons:
        for row in each.rows:
            if row.note:
                where = places.setdefault(f"{row.contender}: {row.note}", {})
                where.setdefault(f"B={each.batch} T={row.total}", []).append(str(each.shape))
    for text, where in places.items():
        yield f"{text}: {'; '.join(f'{place} {chr(44).join(shapes)}' for place, shapes in where.items())}"


def _memory(results: Results) -> Table:
    shapes = list(dict.fromkeys(shape for _, shape in results.memory))
    table = _table("peak memory above the runtime's own, MB, T=960, B=1", *shapes)
    for name in dict.fromkeys(name for name, _ in results.memory):
        peaks = [results.memory.get((name, shape), "") for shape in shapes]
        table.add_row(name, *("-" if isinstance(peak, str) else f"{peak / 1e6:.1f}" for peak in peaks))
    return table


def _sizes(results: Results) -> Table:
    shapes = list(dict.fromkeys(shape for _, shape, _ in results.sizes))
    table = _table("file, kB, B=1", *shapes)
    rows = dict.fromkeys((name, total) for name, _, total in results.sizes)
    for name, total in rows:
        several = sum(other == name for other, _ in rows) > 1
        sizes = [results.sizes.get((name, shape, total)) for shape in shapes]
        cells = ["-" if size is None else f"{size / 1e3:,.0f}" for size in sizes]
        table.add_row(f"{name}, T={total}" if several else name, *cells)
    return table


def _exports(results: Results) -> Table:
    stages = list(next(iter(results.exports.values()), ()))
    table = _table("export to all targets, s", *stages, "all")
    for label, seconds in results.exports.items():
        cells = [seconds[stage] for stage in stages] + [sum(seconds.values())]
        large = {"any": "2 x 512 units, any T"}.get(label, f"2 x 512 units, --time {label}")
        table.add_row(large if label == "any" or label.isdigit() else label, *(f"{cell:.1f}" for cell in cells))
    return table


def _groups(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """Return what one table shows: the comparisons `lstm` of one shape and batch, the others of one batch."""
    groups: dict[str, list[Comparison]] = {}
    for each in comparisons:
        title = f"{each.shape}, B={each.batch}" if each.compared == "lstm" else f"{each.compared}, B={each.batch}"
        groups.setdefault(title, []).append(each)
    yield from groups.items()


def _times(title: str, group: Sequence[Comparison]) -> Table:
    """Return a table of microseconds a step: contenders down, of one shape after the other; T across."""
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for each in group:
        for row in each.rows:
            cells.setdefault((str(each.shape), row.contender), {})[row.total] = _cell(each, row)
    totals = sorted({total for shown in cells.values() for total in shown})
    one = group[0].compared == "lstm"
    table = _table(title, *([] if one else [""]), *(f"T={total}" for total in totals))
    last = ""
    for (shape, name), shown in cells.items():
        style = "bold" if name.startswith("export-lstm") else None
        labels = [name] if one else [name, shape if shape != last else ""]
        table.add_row(*labels, *(shown.get(total, "") for total in totals), style=style)
        last = shape
    return table


def _cell(comparison: Comparison, row: Row) -> str:
    if not row.seconds:
        return "-"
    text = f"{1e6 * median(row.seconds) / row.total:,.2f}"
    contender = next(each for each in c.COMPARED[_base(comparison)] if each.name == row.contender)
    first = c.COMPARED[_base(comparison)][0] if comparison.compared != "lstm" else OWN[contender.target]
    own = comparison.row(first, row.total)
    if contender.own or own is None:
        return f"{text}       "
    return f"{text} ({ratio(own.seconds, row.seconds).median:.2f})"


def _base(comparison: Comparison) -> str:
    return "lstm" if comparison.compared == "linear" else comparison.compared


def _goals(found: Sequence[Outcome]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in ("goal", "where"):
        table.add_column(column)
    for column in ("found", "quartiles", "limit", "reached"):
        table.add_column(column, justify="right")
    last = ""
    for each in found:
        unit = f" {each.unit}" if each.unit else ""
        spread = "" if each.spread is None else f"{each.spread.low:.2f} to {each.spread.high:.2f}"
        reached = "[green]yes[/]" if each.reached else "[bold red]no[/]"
        name = each.goal if each.goal != last else ""
        table.add_row(name, each.where, f"{each.value:.2f}{unit}", spread, f"{each.limit:.4g}{unit}", reached)
        last = each.goal
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column(first, min_width=36)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def plot(results: Results, folder: Path) -> list[Path]:
    """Write one picture a batch size: microseconds a step against T, a panel for each shape; return the paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    timed = [each for each in results.comparisons if each.compared == "lstm"]
    for batch in dict.fromkeys(each.batch for each in timed):
        shapes = list(dict.fromkeys(each.shape for each in timed if each.batch == batch))
        across = min(3, len(shapes))
        down = -(-len(shapes) // across)
        size = (5 * across, 4 * down + 1.6)
        figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
        for panel in axes.flat[len(shapes) :]:
            panel.set_visible(False)
        lines: dict[str, Any] = {}
        for panel, shape in zip(axes.flat, shapes, strict=False):
            group = [each for each in timed if (each.batch, each.shape) == (batch, shape)]
            for k, contender in enumerate(c.COMPARED["lstm"]):
                rows = [row for each in group for row in each.rows if row.contender == contender.name and row.seconds]
                points = [(row.total, 1e6 * median(row.seconds) / row.total) for row in rows]
                if points:
                    style = "-" if contender.own else ":" if contender is c.LIMIT else "--"
                    width, color = (2.2 if contender.own else 1.2), "black" if contender is c.LIMIT else f"C{k}"
                    [line] = panel.plot(*zip(*points, strict=True), style, marker="o", ms=3, lw=width, color=color)
                    lines.setdefault(contender.name, line)
            panel.set(xscale="log", yscale="log", title=str(shape), xlabel="T", ylabel="us a time step")
            panel.grid(alpha=0.3, which="both")
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=across + 1, frameon=False)
        figure.suptitle(f"Time a step, one thread, B = {batch}")
        written.append(folder / f"time-per-step-b{batch}.png")
        figure.savefig(written[-1], dpi=120)
        pyplot.close(figure)
    return written
