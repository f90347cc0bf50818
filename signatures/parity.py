"""Parity: run an artifact against a case, port by port, and hold it to the stream laws.

Every run of a case is called in the ways the artifact has, and each must give the expected numbers, final states
included: `sequence` (all T steps at once), `steps` (one by one), `chunks` (random lengths) and `repeat` (the same call
again, bit for bit: no hidden state). `reset` then shows that a stream put back to zero state starts like a new one.
`repeat`, `reset` and the steps of long runs are for the rows of one call.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from .contract import LENGTHS
from .errors import ArtifactError
from .feeds import random_feeds
from .golden import TIMES_NOISE, Case, Run, Tolerance
from .ports import TIME, Array, Feeds, Port, by_samples, factors, show, time_dims
from .quality import sqnr
from .runner import Runner
from .stream import cut, join

EXACT = Tolerance(0.0, 0.0)

APART = 6.0
"""By how many dB two calls may be further apart than each is from the model: their errors may be opposite."""

ALL_STEPPED = 200
"""Time steps beyond which only the rows of one call are run step by step; with one sample a call that is one row."""

FEW = 16
"""Time steps on which a stream that was reset is held to a new one."""


@dataclass(frozen=True)
class PortDiff:
    """How far one port of one call is from what was expected.

    Attributes:
        check: "sequence", "steps", "chunks", "repeat" or "reset".
        run: The case's run.
        port: Output port.
        max_abs: Largest absolute difference.
        max_rel: Largest relative difference.
        p99: 99th percentile of the absolute differences.
        worst: Index of the value furthest beyond its tolerance, (b, t, unit).
        needed: The smallest tolerance (atol = rtol) that would pass.
        share: The largest difference as a multiple of the tolerance.
        noise: The same of the model's own type, see golden.Run.
        ok: Whether every value is within the tolerance, or within a few times a noise that is small enough.
        note: What is wrong where the values could not be compared.
        sqnr: The signal-to-noise ratio in dB that a quantized artifact is judged by; None for any other.
    """

    check: str
    run: str
    port: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    p99: float = 0.0
    worst: tuple[int, ...] = ()
    needed: float = 0.0
    share: float = 0.0
    noise: float = 0.0
    ok: bool = True
    note: str = ""
    sqnr: float | None = None

    def __str__(self) -> str:
        """Return one sentence: which port, where and by how much."""
        place = f"{self.check} of {self.run}, port {self.port!r}"
        if self.note:
            return f"{place}: {self.note}."
        if self.sqnr is not None:
            return f"{place}: {self.sqnr:.1f} dB."
        where = f"at {list(self.worst)}, max |difference| {self.max_abs:.2g}"
        return f"{place}: {where}; a tolerance of {_up(self.needed):.2g} would pass."


@dataclass(frozen=True)
class ParityReport:
    """The outcome: `ok` is False when anything differs and when nothing was compared.

    Attributes:
        target: Of the artifact.
        case: Which one.
        tolerance: The case's.
        diffs: One for each port of each call.
        inputs: Run -> the kind of numbers it was fed with, where that is known.
        gate: The signal-to-noise ratio in dB that a quantized artifact must have; None for any other.
    """

    target: str
    case: str
    tolerance: Tolerance
    diffs: tuple[PortDiff, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    gate: float | None = None

    @property
    def ok(self) -> bool:
        """Whether something was compared and all of it is within tolerance."""
        return bool(self.diffs) and all(diff.ok for diff in self.diffs)

    @property
    def failures(self) -> tuple[PortDiff, ...]:
        """What is out of tolerance, worst first."""
        return tuple(sorted((d for d in self.diffs if not d.ok), key=lambda d: (-d.needed, d.sqnr or 0.0)))

    @property
    def share(self) -> float:
        """The largest difference from expected numbers as a multiple of the tolerance."""
        return max((diff.share for diff in self.diffs if not diff.note), default=0.0)

    def summary(self) -> str:
        """Return one sentence: the verdict and its reason."""
        if not self.diffs:
            return "Nothing was compared: no run of the case fits the artifact's fixed time steps."
        if self.ok and self.gate is not None:
            least = min((diff.sqnr for diff in self.diffs if diff.sqnr is not None), default=math.inf)
            told = "bit for bit" if least == math.inf else f"at least {least:.1f} dB where {self.gate:g} are asked for"
            return f"{len(self.diffs)} comparisons: {told}."
        if self.ok:
            by_noise = [diff for diff in self.diffs if diff.share > 1]
            within = f"within {self.tolerance.atol:g}" + (f" ({_up(self.share):.2g} of it)" if self.share else "")
            if not by_noise:
                return f"{len(self.diffs)} comparisons {within}."
            return (
                f"{len(self.diffs)} comparisons: {len(self.diffs) - len(by_noise)} within {self.tolerance.atol:g},"
                f" {len(by_noise)} within {TIMES_NOISE} times the noise of the model's own arithmetic:"
                f" at most {_up(self.share):.2g} tolerances where the noise is {max(d.noise for d in by_noise):.2g}."
            )
        asked = "" if self.gate is None else f" At least {self.gate:g} dB are asked for."
        return f"{len(self.failures)} of {len(self.diffs)} comparisons differ. Worst: {self.failures[0]}{asked}"


def _up(value: float) -> float:
    """Return a number rounded up to two digits."""
    if not 0 < value < math.inf:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def check(
    runner: Runner, case: Case | None = None, progress: Callable[[str], None] = lambda text: None
) -> ParityReport:
    """Compare an artifact with a case and hold it to the stream laws.

    Args:
        runner: The opened artifact.
        case: Golden calls; None holds the artifact to the stream laws alone, on random feeds: the ways in which it can
            be called to each other.
        progress: Called with the name of each run as it starts.

    Returns:
        The report, a row for each port of each call.
    """
    seen = case or _own_case(runner)
    quantized, ports = runner.contract.quantized, next(iter(runner.contract.signatures.values())).ports
    gate = None if quantized is None else quantized.gate
    diffs: list[PortDiff] = []
    for run in seen.runs:
        progress(run.name)
        run = replace(run, feeds={name: _stored(ports.get(name), value) for name, value in run.feeds.items()})
        calls = dict(_calls(runner, run))
        if calls and not diffs and runner.contract.no_step is None:
            diffs += _reset(runner, run)
        first = next(iter(calls), "")
        if case is None:  # the first call is what the others are held to: nothing is compared with itself
            run = replace(run, expect=calls[first])
            _hold_to_ports(runner, run)
        for name, outputs in calls.items():
            if case is None and name == first:
                continue
            if name == "repeat" or (case is None and any(port.scale is not None for port in ports.values())):
                diffs += compare(name, run.name, _shared(runner, calls[first], outputs), outputs, EXACT)
                continue
            wanted = _shared(runner, run.expect, outputs)
            outputs = {name: ports[name].real(value) for name, value in outputs.items()}
            outputs = _from_keras_first(runner, wanted, outputs)
            asked = gate - APART if gate is not None and case is None else gate
            diffs += compare(name, run.name, wanted, outputs, seen.tolerance, run.noise, run.expect, asked)
    return ParityReport(runner.target, seen.name, seen.tolerance, tuple(diffs), seen.inputs, gate)


def _stored(port: Port | None, value: Array) -> Array:
    """Return a feed as its port holds it; that of no port is refused later."""
    return value if port is None else port.stored(value)


def _shared(runner: Runner, expect: Feeds, got: Feeds) -> dict[str, Array]:
    """Return what is expected of the samples that were run: a law that takes long is held on the first ones."""
    ports = next(iter(runner.contract.signatures.values())).ports
    return {
        name: ports[name].samples(value, slice(ports[name].count(got[name]))) if name in got else value
        for name, value in expect.items()
    }


def _from_keras_first(runner: Runner, expect: Feeds, got: Feeds) -> dict[str, Array]:
    """Return outputs without the rows that come before Keras' first, where just these are not expected."""
    signature = next(iter(runner.contract.signatures.values()))
    cut_off = dict(got)
    for name, rows in signature.delay.items():
        port = signature.ports[name]
        wanted, value = expect.get(name), got.get(name)
        if wanted is not None and value is not None and wanted.ndim == value.ndim > (port.time_axis or 0):
            early = value.shape[port.time_axis or 0] - wanted.shape[port.time_axis or 0]
            if early == rows:
                cut_off[name] = port.steps(value, rows, value.shape[port.time_axis or 0])
    return cut_off


def compare(
    check: str,
    run: str,
    expect: Feeds,
    got: Feeds,
    tolerance: Tolerance,
    noise: Mapping[str, float] = {},
    whole: Mapping[str, Array] = {},
    gate: float | None = None,
) -> list[PortDiff]:
    """Compare names, then shapes, then types, then values; NaN never passes.

    Args:
        check: What is told of the call.
        run: What is told of its feeds.
        expect: Output port -> array.
        got: The same.
        tolerance: How far apart they may be.
        noise: Output port -> that of the run.
        whole: Output port -> what is expected of all samples of the run, where `expect` has some of them.
        gate: The signal-to-noise ratio in dB that floats are judged by; None for the tolerance.
    """
    found = []
    for port in sorted({*expect, *got}):
        want, off = expect.get(port), noise.get(port, 0.0)
        factor = 1.0 if want is None else tolerance.factor(whole.get(port, want), off)
        diff = replace(_diff(check, run, port, want, got.get(port), tolerance, factor), noise=off)
        if gate is not None and not diff.note and want is not None and want.dtype.kind == "f":
            ratio = sqnr(want, got[port])
            diff = replace(diff, ok=ratio >= gate, sqnr=ratio)
        found.append(diff)
    return found


def _diff(
    check: str, run: str, port: str, want: Array | None, got: Array | None, tolerance: Tolerance, factor: float
) -> PortDiff:
    def fault(note: str) -> PortDiff:
        return PortDiff(check, run, port, needed=float("inf"), ok=False, note=note)

    if want is None:
        return fault("not in the case; record the case again with this version")
    if got is None:
        return fault("missing from the artifact")
    if want.shape != got.shape:
        return fault(f"shape {list(got.shape)} where {list(want.shape)} was expected")
    if want.dtype != got.dtype:
        return fault(f"{got.dtype} where {want.dtype} was expected")
    if not (np.isfinite(want).all() and np.isfinite(got).all()):
        return fault("NaN or infinity")
    if not want.size:
        return PortDiff(check, run, port)
    a, b = got.astype(np.float64), want.astype(np.float64)
    gap, allowed = np.abs(a - b), tolerance.around(want)
    excess = gap - factor * allowed
    worst = np.unravel_index(int(np.argmax(excess)), gap.shape)
    return PortDiff(
        check,
        run,
        port,
        max_abs=float(gap.max()),
        max_rel=float((gap / np.maximum(np.abs(b), np.finfo(np.float32).tiny)).max()),
        p99=float(np.percentile(gap, 99)),
        worst=tuple(int(k) for k in worst),
        needed=float((gap / (1 + np.abs(b))).max()),
        share=float(shares(gap, allowed).max()),
        ok=bool((excess <= 0).all()),
    )


def shares(gap: Array, allowed: Array) -> Array:
    """Return each difference as a multiple of what is allowed; no difference is none of it, whatever is allowed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap == 0, 0.0, gap / allowed)


def _calls(runner: Runner, run: Run) -> list[tuple[str, dict[str, Array]]]:
    """Return (check, outputs) for each way of calling this run that the artifact has."""
    signature = next(iter(runner.contract.signatures.values()))
    feeds = dict(run.feeds)
    timed = [
        feeds[port.name].shape[port.time_axis]
        for port in signature.inputs
        if port.time_axis is not None and port.name in feeds and feeds[port.name].ndim > port.time_axis
    ]
    total = timed[0] if timed else 0
    rows, every = signature.count(feeds), signature.every
    if any(port.name == LENGTHS for port in signature.inputs):  # a case recorded without lengths means all steps
        feeds.setdefault(LENGTHS, np.full(rows, total, np.int32))
    replace(signature, dims={}).check_feeds(feeds, {"batch": rows})
    calls: list[tuple[str, dict[str, Array]]] = []
    signatures = runner.contract.signatures
    first = signature.samples(feeds, slice(runner.dims.get("batch", rows)))  # those of one call
    if "sequence" in signatures and runner.dims.get(TIME, total) == total:
        calls += [("sequence", _by_rows(runner, feeds, _whole)), ("repeat", _by_rows(runner, first, _whole))]
    if runner.contract.no_step is None:
        if "step" in signatures:
            stepped = feeds if total <= ALL_STEPPED else first
            calls.append(("steps", _by_rows(runner, stepped, lambda r, f: _pushed(r, f, [every] * (total // every)))))
        by_steps = "sequence" not in signatures or TIME in runner.dims  # which was just done
        if not by_steps or ("step" in signatures and total <= ALL_STEPPED):
            unit = every if "step" in signatures else runner.dims.get(TIME, every)
            calls.append(("chunks", _by_rows(runner, feeds, lambda r, f: _pushed(r, f, _chunks(total, unit)))))
    return calls


def _whole(runner: Runner, feeds: Feeds) -> dict[str, Array]:
    return runner.run("sequence", feeds)


def _pushed(runner: Runner, feeds: Feeds, sizes: list[int]) -> dict[str, Array]:
    """Push the feeds through a stream in pieces of the given sizes, from the state in the feeds."""
    signature = next(iter(runner.contract.signatures.values()))
    stream = runner.stream(signature.count(feeds), quantized=True)
    stream.state = {name: feeds[name] for name in stream.state}
    pushed = {name: value for name, value in feeds.items() if name not in stream.state}
    starts = np.cumsum([0, *sizes])
    pieces = [stream.push(**cut(pushed, signature.inputs, int(s), n)) for s, n in zip(starts, sizes, strict=False)]
    return join(pieces, signature.outputs)


def _chunks(total: int, every: int) -> list[int]:
    """Return lengths that add up to total, from 1 to 8 times what a call takes a multiple of, always the same ones."""
    rng = np.random.default_rng(total)
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(min(every * int(rng.integers(1, 9)), total - sum(sizes)))
    return sizes


def _by_rows(runner: Runner, feeds: Feeds, call: Callable[[Runner, Feeds], dict[str, Array]]) -> dict[str, Array]:
    """Run a batch of any size through an artifact whose batch may be fixed."""
    signature = next(iter(runner.contract.signatures.values()))
    return by_samples(signature, feeds, runner.dims.get("batch"), partial(call, runner))


def _reset(runner: Runner, run: Run) -> list[PortDiff]:
    """A stream that was used and reset gives bit for bit what a new one gives."""
    signature = next(iter(runner.contract.signatures.values()))
    free = TIME not in runner.dims or "step" in runner.contract.signatures

    def pushed(used: bool, r: Runner, feeds: Feeds) -> dict[str, Array]:
        stream = r.stream(signature.count(feeds), quantized=True)
        x = {name: value for name, value in feeds.items() if name not in stream.state}
        x = cut(x, signature.inputs, 0, max(FEW // signature.every, 1) * signature.every) if free else x
        if used:
            stream.push(**x)
            stream.reset()
        return stream.push(**x)

    first = signature.samples(run.feeds, slice(runner.dims.get("batch", signature.count(run.feeds))))
    new, again = (_by_rows(runner, first, partial(pushed, used)) for used in (False, True))
    return compare("reset", run.name, new, again, EXACT)


def _own_case(runner: Runner) -> Case:
    """Return random runs that expect nothing: what the artifact gives in one way is held to what it gives in others."""
    rng = np.random.default_rng(0)
    signature = next(iter(runner.contract.signatures.values()))
    contract = runner.contract
    named = sorted(time_dims(signature.inputs))
    known = dict(contract.example)
    calls = (
        [known] if contract.no_step else [{**known, **dict.fromkeys(named, t * signature.every)} for t in (1, 2, 23)]
    )
    runs = []
    for call in calls:
        dims = {**call, "batch": 2, **runner.dims}
        wanted = {d for port in signature.inputs for d in (*port.shape, *((TIME,) if port.role == LENGTHS else ()))}
        names = {factors(d)[0] for d in wanted if isinstance(d, str)}
        if unknown := sorted(names - set(dims)):
            raise ArtifactError(f"its contract has no size to try for the dimension {unknown[0]!r}.")
        name = " ".join(f"{dim}={dims[dim]}" for dim in named) or "fixed size"
        runs.append(Run(f"random {name}", random_feeds(signature.inputs, dims, rng), {}))
    return Case("stream laws", tuple(runs), Tolerance.of(contract.scheme))


def _hold_to_ports(runner: Runner, run: Run) -> None:
    """Refuse outputs that are not of the shapes and types that the contract says.

    Raises:
        ArtifactError: With the port, what it is and what it should be.
    """
    signature = next(iter(runner.contract.signatures.values()))
    dims = {
        dim: size
        for port in signature.inputs
        for dim, size in zip(port.shape, run.feeds[port.name].shape, strict=True)
        if isinstance(dim, str) and dim.isidentifier()
    }
    for port in signature.outputs:
        value, wanted = run.expect[port.name], port.sized(dims)
        fits = value.ndim == len(wanted) and all(
            isinstance(d, str) or d == size for d, size in zip(wanted, value.shape, strict=True)
        )
        if not fits or value.dtype != port.dtype:
            found = f"{value.dtype} {show(value.shape)}"
            raise ArtifactError(f"output {port.name!r} is {found} where its contract says {port.dtype} {show(wanted)}.")
