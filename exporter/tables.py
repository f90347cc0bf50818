"""What the command line shows: facts as plain data for --json, and the same facts as tables for people."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from signatures import Case, ParityReport
from signatures.contract import Contract
from signatures.ports import Port, show, time_dims
from signatures.quality import Quality
from signatures.runtimes import target_of

from .read.calibration import RANDOM
from .targets import TARGETS

if TYPE_CHECKING:
    from .bench import Timing
    from .compare import Compared
    from .pipeline import Artifact, Opened

Facts = dict[str, Any]
CHECKS = ("sequence", "steps", "chunks", "repeat", "reset")


def artifact_facts(artifact: "Artifact") -> Facts:
    """Return what was delivered as plain data."""
    return {
        "target": artifact.target,
        "path": str(artifact.path),
        "bytes": artifact.size,
        "sha256": artifact.sha256,
        "signatures": list(artifact.contract.signatures),
        "no_step_because": artifact.contract.no_step,
        "dims": dict(artifact.contract.artifacts[artifact.target].dims),
        "ops": dict(artifact.ops),
        "seconds": {name: round(value, 3) for name, value in artifact.seconds.items()},
        "parity": None if artifact.parity is None else report_facts(artifact.parity),
        "quantized": None if artifact.contract.quantized is None else asdict(artifact.contract.quantized),
        "quality": None if artifact.quality is None else quality_facts(artifact.quality),
    }


def quality_facts(quality: Quality) -> Facts:
    """Return how good a quantized artifact is as plain data; null where a port is exact."""
    return {
        "gate": quality.gate,
        "time_steps": quality.time_steps,
        "data": quality.data,
        "decisions": quality.decisions,
        "ports": {
            each.port: {
                "sqnr": each.sqnr if math.isfinite(each.sqnr) else None,
                "drift": round(each.drift, 2),
                "decisions": each.decisions,
            }
            for each in quality.ports
        },
    }


def report_facts(report: ParityReport) -> Facts:
    """Return a parity report as plain data: the largest difference of each port in each check, and its noise."""
    ports: dict[str, dict[str, float]] = {}
    shares: dict[str, dict[str, float]] = {}
    noise: dict[str, float] = {}
    for diff in report.diffs:
        for values, value in ((ports, diff.max_abs), (shares, diff.share)):
            row = values.setdefault(diff.port, {})
            row[diff.check] = max(row.get(diff.check, 0.0), value)
        noise[diff.port] = max(noise.get(diff.port, 0.0), diff.noise)
    return {
        "ok": report.ok,
        "target": report.target,
        "case": report.case,
        "atol": report.tolerance.atol,
        "rtol": report.tolerance.rtol,
        "comparisons": len(report.diffs),
        "needed": max((diff.needed for diff in report.diffs if not diff.note), default=None),
        "max_abs": ports,
        "share_of_tolerance": shares,
        "noise": noise,
        "inputs": dict(report.inputs),
        "failures": [str(diff) for diff in report.failures],
    }


def compared_facts(row: "Compared") -> Facts:
    """Return a row of a comparison as plain data."""
    made = row.made
    return {
        "scheme": made.scheme,
        "bytes": made.size or None,
        "refused": made.refused or None,
        "us_per_step": None if row.seconds is None else round(1e6 * row.seconds, 3),
        "ratio": None if row.ratio is None else round(row.ratio.median, 4),
        "quality": None if made.quality is None else quality_facts(made.quality),
    }


def model_facts(opened: "Opened") -> Facts:
    """Return what inspecting a model shows."""
    survey = opened.survey
    return {
        "model": opened.loaded.name,
        "recurrent_layers": [
            {
                "name": made.name,
                "kind": made.recurrence.kind,
                "states": {short: list(shape) for short, shape in made.recurrence.states.items()},
                "initial_state": "port" if made.own else ", ".join(made.given.values()) or "given by the model",
            }
            for made in survey.calls
        ],
        "memories": [
            {
                "name": memory.name,
                "kind": type(memory.form).__name__.lower(),
                "states": {short: list(state.shape) for short, state in memory.form.states.items()},
                "rows": [{"time_steps": float(clock.rate), "delay": clock.delay} for clock in memory.clocks if clock],
            }
            for memory in survey.memories.calls
        ],
        "as_keras_up_to": survey.memories.within,
        "time": "any" if survey.flexible and survey.tried else dict(survey.declared),
        **_promised(opened.contract(())),
    }


def contract_facts(contract: Contract, path: Path) -> Facts:
    """Return what inspecting an artifact shows; its ops where the package that reads them is installed."""
    target = target_of(path)
    try:
        ops = dict(TARGETS[target].writer.ops(path).most_common())
    except ImportError:
        ops = None
    info = contract.artifacts[target]
    return {
        "artifact": str(path),
        "target": target,
        "bytes": sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()),
        "made_with": dict(contract.provenance),
        "dims": dict(info.dims),
        "lowerings": dict(info.lowerings),
        "ops": ops,
        **_promised(contract),
    }


def timing_facts(timing: "Timing") -> Facts:
    """Return how long a call takes as plain data, microseconds."""
    compared = timing.ratio
    return {
        "artifact": str(timing.artifact),
        "signature": timing.signature,
        "batch": timing.batch,
        "time": timing.total,
        "us_per_call": round(1e6 * timing.seconds, 3),
        "us_per_step": None if timing.total is None else round(1e6 * timing.seconds / timing.total, 3),
        "ratio": None if compared is None else round(compared.median, 4),
        "ratio_quartiles": None if compared is None else [round(compared.low, 4), round(compared.high, 4)],
    }


def _promised(contract: Contract) -> Facts:
    """Return what a contract tells of a model, whatever the artifact."""

    def rows(ports: Sequence[Port], dims: Mapping[str, int]) -> list[Facts]:
        return [
            {"name": p.name, "role": p.role, "shape": list(p.sized(dims)), "dtype": p.dtype}
            | ({} if p.scale is None else {"scale": p.scale, "zero_point": p.zero_point or 0})
            for p in ports
        ]

    return {
        "can_be_stepped": contract.no_step is None,
        "no_step_because": contract.no_step,
        "proven": asdict(contract.proven),
        "quantized": None if contract.quantized is None else asdict(contract.quantized),
        "outputs": list(contract.outputs),
        "signatures": {
            name: {
                "inputs": rows(signature.inputs, signature.dims),
                "outputs": rows(signature.outputs, signature.dims),
                "carries": {carry.output: carry.input for carry in signature.carries},
                "every": signature.every,
                "late": {name: float(rows * signature.steps_a_row(name)) for name, rows in signature.delay.items()},
            }
            for name, signature in contract.signatures.items()
        },
    }


def print_artifacts(artifacts: Sequence["Artifact"]) -> None:
    """Print a table of what was delivered and how it compared."""
    table = _table(
        "delivered", "size >", "signatures", "batch", "time", "ops >", "of tolerance >", "noise >", "seconds >"
    )
    for each in artifacts:
        dims = each.contract.artifacts[each.target].dims
        parity = each.parity
        _add(
            table,
            str(each.path),
            _size(each.size),
            ", ".join(each.contract.signatures),
            str(dims.get("batch", "any")),
            _times(each.contract, dims),
            str(each.ops.total()),
            "unchecked" if parity is None else f"{parity.share:.2g}",
            "" if parity is None else f"{max(diff.noise for diff in parity.diffs):.2g}",
            f"{sum(each.seconds.values()):.1f}",
        )
    console = _console()
    console.print(table)
    first = artifacts[0]
    reports = [each.parity for each in artifacts if each.parity is not None]
    if reports:
        console.print("Compared with golden outputs, each artifact in its own runtime:")
        for report in reports:
            before = "" if first.contract.quantized is None else " before it was quantized"
            _say(console, f"{report.target}{before}: {report.summary()}")
        told = ", ".join(f"{run} {kind}" for run, kind in reports[0].inputs.items())
        _say(console, f"Inputs: {told}")
    for each in artifacts:
        if each.quality is not None and each.contract.quantized is not None:
            _say(console, f"{each.target} in {each.contract.quantized.scheme}: {each.quality.summary()}")
    if first.contract.quantized is not None and first.contract.quantized.calibration == RANDOM:
        _say(console, f"Quantized by {RANDOM}: give data of your own, --calibration.")
    if first.contract.no_step:
        _say(console, f"No signature 'step': {first.contract.no_step}")
    _say(console, f"Ports and carries: {first.contract_path}")


def print_compared(rows: Sequence["Compared"], choice: "Compared | None", picture: Path | None) -> None:
    """Print every scheme and which to take."""
    table = _table(
        "scheme", "size >", "of float32 >", "dB >", "worst port", "drift >", "decided alike >", "us a step >",
        "to float32 >",
    )  # fmt: skip
    whole = rows[0].made.size
    for row in rows:
        made, quality = row.made, row.made.quality
        if made.refused:
            _add(table, made.scheme, "none")
            continue
        decided = None if quality is None else quality.decisions
        _add(
            table,
            Text(made.scheme, "bold" if row is choice else ""),
            _size(made.size),
            f"{made.size / whole:.2f}",
            "" if quality is None else f"{quality.worst.sqnr:.1f}",
            "" if quality is None else quality.worst.port,
            "" if quality is None else f"{quality.drift:.1f}",
            "" if decided is None else f"{decided:.1%}",
            "" if row.seconds is None else f"{1e6 * row.seconds:,.1f}",
            "" if row.ratio is None else f"{row.ratio.median:.2f}",
        )
    console = _console()
    console.print(table)
    for row in (row for row in rows if row.made.refused):
        _say(console, f"{row.made.scheme}: {row.made.refused}")
    measured = next((row.made.quality for row in rows if row.made.quality is not None), None)
    if measured is not None:
        _say(console, f"Measured over {measured.time_steps} time steps of {measured.data}; times in one thread each.")
    if choice is not None:
        _say(
            console, f"Take {choice.made.scheme}: the smallest that decides as the model does, the closest of its size."
        )
    if picture is not None:
        _say(console, f"Drawn: {picture}")


def print_report(report: ParityReport, artifact: Path) -> None:
    """Print each port's largest difference in each check, and the verdict."""
    facts = report_facts(report)
    checks = [check for check in CHECKS if any(check in row for row in facts["max_abs"].values())]
    noisy = any(facts["noise"].values())
    table = _table("port", *(f"{check} >" for check in checks), *(["noise >"] if noisy else []))
    bad = {(diff.port, diff.check) for diff in report.failures}
    for port, row in facts["share_of_tolerance"].items():
        styles = {check: "bold red" if (port, check) in bad else "" for check in checks}
        cells = [Text(f"{row[check]:.2g}" if check in row else "", style) for check, style in styles.items()]
        _add(table, port, *cells, *([f"{facts['noise'][port]:.2g}"] if noisy else []))
    console = _console()
    tolerance = f"{report.tolerance.atol:g} + {report.tolerance.rtol:g} of the value"
    _say(console, f"{artifact}: largest difference from {report.case} as a multiple of {tolerance}")
    console.print(table)
    if report.inputs:
        told = ", ".join(f"{run} {kind}" for run, kind in report.inputs.items())
        _say(console, f"Inputs: {told}")
    verdict = "[bold green]ok[/]" if report.ok else "[bold red]differs[/]"
    console.print(f"{verdict} ", end="")
    _say(console, report.summary())


def print_case(folder: Path, case: Case) -> None:
    """Print what was recorded."""
    largest = case.recipe["largest_difference"]
    _say(_console(), f"{folder}: {len(case.runs)} run(s); Keras and float64 differ by at most {largest:.2g}.")


def print_facts(facts: Facts) -> None:
    """Print what inspecting a model or an artifact showed."""
    console = _console()
    if "artifact" in facts:
        made = ", ".join(f"{package} {version}" for package, version in facts["made_with"].items())
        _say(console, f"{facts['artifact']}: {facts['target']}, {_size(facts['bytes'])}, made with {made}")
    else:
        table = _table("recurrent layer", "kind", "states", "initial state from")
        for row in facts["recurrent_layers"]:
            shapes = ", ".join(f"{short} {' x '.join(map(str, shape))}" for short, shape in row["states"].items())
            _add(table, row["name"], row["kind"], shapes, row["initial_state"])
        _say(console, f"{facts['model']}: {_takes(facts['time'])}")
        console.print(table)
        table = _table("other memory", "kind", "states", "its input has a row every", "late by")
        for row in facts["memories"]:
            shapes = ", ".join(f"{short} {' x '.join(map(str, shape))}" for short, shape in row["states"].items())
            steps = ", ".join(f"{clock['time_steps']:g} time steps" for clock in row["rows"])
            late = ", ".join(f"{clock['delay']} rows" for clock in row["rows"])
            _add(table, row["name"], row["kind"], shapes or "none", steps, late)
        if facts["memories"]:
            console.print(table)
        if (within := facts["as_keras_up_to"]) is not None:
            _say(console, f"Attention looks at what it keeps: as in Keras on recordings of up to {within} time steps.")
    stepped = "yes" if facts["can_be_stepped"] else f"no. {facts['no_step_because']}"
    if back := facts["proven"].get("time_steps"):
        stepped += f"; nothing but the states looks back at earlier inputs, as far as {back} time steps"
    _say(console, f"Can be run step by step: {stepped}")
    for told in [*facts["signatures"].values()][:1]:
        if told["every"] > 1:
            _say(console, f"A call takes a multiple of {told['every']} time steps.")
        for output, steps in told["late"].items():
            _say(console, f"{output} comes {steps:g} time steps late.")
    for name, signature in facts["signatures"].items():
        table = _table(name, "port", "role", "shape", "type", "carried to")
        for side in ("inputs", "outputs"):
            for port in signature[side]:
                carried = signature["carries"].get(port["name"], "") if side == "outputs" else ""
                shape = show(tuple(port["shape"]))
                _add(table, side[:-1], port["name"], port["role"], shape, _type(port), carried)
        console.print(table)
    if quantized := facts.get("quantized"):
        told = f"{quantized['scheme']}{' precise' * quantized['precise']} by {quantized['calibration']}"
        _say(console, f"Quantized: {told}; at least {quantized['gate']:g} dB.")
    for layer, reason in facts.get("lowerings", {}).items():
        _say(console, f"{layer}: {reason}")
    if "artifact" in facts:
        told = "not shown: the package that reads them is not installed"
        if facts["ops"] is not None:
            told = ", ".join(f"{n} {op}" for op, n in facts["ops"].items())
        _say(console, f"Ops: {told}")


def _type(port: Facts) -> str:
    """Return a port's type and, of quantized numbers, what they stand for: int16 * 0.00012, (int8 - 5) * 0.02."""
    if "scale" not in port:
        return str(port["dtype"])
    zero = port["zero_point"]
    return f"({port['dtype']} - {zero}) * {port['scale']:.3g}" if zero else f"{port['dtype']} * {port['scale']:.3g}"


def print_timings(timings: Sequence["Timing"]) -> None:
    """Print what a call and a time step take, and how they compare with the first artifact."""
    table = _table("artifact", "signature", "batch >", "time >", "us a call >", "us a step >", "to the first >", "")
    last = None
    for each in timings:
        if last not in (None, (each.signature, each.total)):
            table.add_row()
        last = each.signature, each.total
        _add(
            table,
            str(each.artifact),
            each.signature,
            str(each.batch),
            "none" if each.total is None else str(each.total),
            f"{1e6 * each.seconds:,.1f}",
            "" if each.total is None else f"{1e6 * each.seconds / each.total:,.2f}",
            "" if each.ratio is None else f"{each.ratio.median:.2f}",
            "" if each.ratio is None else f"{each.ratio.low:.2f} to {each.ratio.high:.2f}",
        )
    console = _console()
    console.print(table)
    console.print("One thread each, side by side; ratios are medians over the turns, with their quartiles.")
    for step in (each for each in timings if each.signature == "step"):
        for window in (each for each in timings if (each.artifact, each.signature) == (step.artifact, "sequence")):
            if (window.total or 0) <= (step.total or 0):
                continue
            share = window.seconds / step.seconds
            _say(console, f"{step.artifact}: a step takes 1/{share:.3g} of recomputing a window of {window.total}.")


def shown(text: str, lines: bool = False) -> str:
    """Return text with what a terminal would act on written out: control characters, marks that turn text round.

    Args:
        text: What may hold names out of files.
        lines: Whether it may have several lines.
    """

    def one(character: str) -> str:
        plain = character.isprintable() or unicodedata.category(character) == "Zs" or (lines and character == "\n")
        return character if plain else character.encode("unicode_escape").decode()

    return "".join(map(one, text))


def safe(text: str, style: str = "", lines: bool = False) -> Text:
    """Return text that may hold names out of files as it is printed; see `shown`."""
    return Text(shown(text, lines), style)


def _say(console: Console, text: str) -> None:
    """Print text that may hold names out of files."""
    console.print(safe(text), soft_wrap=True)


def _add(table: Table, *cells: str | Text) -> None:
    """Add a row of texts that may hold names out of files."""
    table.add_row(*(cell if isinstance(cell, Text) else safe(cell) for cell in cells))


def _table(*columns: str) -> Table:
    """Return a table; a column whose name ends in > is aligned right."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            safe(column.removesuffix(" >")), justify="right" if column.endswith(" >") else "left", overflow="fold"
        )
    return table


def _times(contract: Contract, dims: Mapping[str, int]) -> str:
    """Return the time steps of a call, of each time axis: a number or any; none where there is no such axis."""
    signature = next(iter(contract.signatures.values()))
    sizes = {**dims, **signature.dims}
    steps = (str(sizes.get(axis, "any")) for axis in time_dims(signature.inputs))
    return ", ".join(dict.fromkeys(steps)) or "none"


def _takes(time: str | Mapping[str, int]) -> str:
    """Say how many time steps a model takes."""
    if not isinstance(time, Mapping):
        return f"takes {time} number of time steps"
    told = " and ".join(f"{size} ({axis})" if len(time) > 1 else str(size) for axis, size in time.items())
    return f"takes {told} time steps" if time else "has no time axis among its inputs"


class PlainConsole(Console):
    """A console that shows text as it is and leaves a closed stream to its caller."""

    def __init__(self, stderr: bool = False) -> None:
        """Print to stdout or stderr."""
        super().__init__(stderr=stderr, highlight=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Go on with the error for which this is called."""
        raise


def _console() -> Console:
    console = PlainConsole()
    if not console.is_terminal:
        console.width = 160  # a log has no edge to wrap at
    return console


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
