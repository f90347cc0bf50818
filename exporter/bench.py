"""Time artifacts side by side: a process of one thread each, taking turns, so that noise meets all of them alike.

A turn is a short burst of calls in each process, one process after the other. Ratios are taken turn by turn; what is
told is their median. A call is the runtime's own, on tensors that are set once: no Python around it is timed that could
be left out. TensorFlow is imported only in the process of a SavedModel.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from signatures import Contract, Signature
from signatures.errors import ArtifactError, ExportLSTMError, FeedError
from signatures.feeds import random_feeds
from signatures.ports import TIME, Array, factors, time_dims
from signatures.runtimes import open as open_runner
from signatures.runtimes import own, target_of

from .child import MEMORY, TIMEOUT, Child, Lost

Bound = Callable[[], object]
Opener = Callable[[], tuple[Bound | None, Any]]

TOTALS = (16, 96, 960)
TURNS = 9
BURST = 0.03
"""Seconds of a turn; at least one call."""

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)


class Worker:
    """A process of its own: it opens what it is given, then repeats the call."""

    def __init__(
        self,
        variables: Mapping[str, str] = ONE_THREAD,
        name: str = "its runtime",
        timeout: float | None = None,
        memory: int | None = None,
    ) -> None:
        """Start the process.

        Args:
            variables: Its environment variables besides those there are.
            name: What is said to have crashed.
            timeout: Seconds that an answer may take; None for no limit.
            memory: Bytes that it may take; None for no limit.
        """
        self._child = Child(variables)
        self._name, self._timeout, self._memory = name, timeout, memory

    def ask(self, request: Opener | float) -> None:
        """Send a request and don't wait: an opener to run, or for how many seconds to repeat the call it gave."""
        self._child.ask(_serve, request)

    def answer(self, limit: float | None = None) -> Any:
        """Wait for the answer: what the opener told besides its call, or the median seconds of a call.

        Args:
            limit: Seconds to wait at most; None for the worker's own.

        Raises:
            ExportLSTMError: See Child.answer; of what is lost the name is said.
        """
        try:
            return self._child.answer(limit=self._timeout if limit is None else limit, memory=self._memory)
        except Lost as lost:
            raise type(lost)(f"{self._name} {lost}", lost.advice) from None

    def close(self) -> None:
        """End the process."""
        self._child.close()


_opened: list[Bound] = []
"""In a worker's process: the call that it repeats."""


def _serve(request: Opener | float) -> Any:
    """Answer one request in a worker's process."""
    if not callable(request):
        return burst(_opened[0], request)
    _opened.clear()  # let go of the last one first
    call, told = request()
    _opened.extend([] if call is None else [call])
    return told


def burst(call: Bound, seconds: float) -> float:
    """Repeat a call for some time and return its median seconds."""
    took = []
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        took.append(now - start)
        if now >= end:
            return statistics.median(took)


def take_turns(workers: Sequence[Worker], turns: int = TURNS, most: float | None = None) -> list[list[float]]:
    """Let workers that have opened something repeat their calls in turn.

    Args:
        workers: Each process; which one is first changes from turn to turn.
        turns: How many.
        most: Seconds after which a worker takes no further turn, so that slow calls have fewer.

    Returns:
        For each worker the seconds of a call, one number a turn.
    """
    seconds: list[list[float]] = [[] for _ in workers]
    spent = [0.0] * len(workers)
    for turn in range(turns):
        for k in [(turn + k) % len(workers) for k in range(len(workers))]:
            if most is not None and spent[k] > most:
                continue
            start = time.monotonic()
            workers[k].ask(BURST)
            seconds[k].append(workers[k].answer())
            spent[k] += time.monotonic() - start
    return seconds


@dataclass(frozen=True)
class Ratio:
    """How much longer one call takes than another: the median over the turns, and its quartiles."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Compare two that took turns, turn by turn as far as both did."""
    each = sorted(a / b for a, b in zip(ours, peer, strict=False))
    quarter = (len(each) - 1) // 4
    return Ratio(statistics.median(each), each[quarter], each[-1 - quarter])


def plain_feeds(signature: Signature, dims: Mapping[str, int], total: int) -> dict[str, Array]:
    """Draw feeds: random inputs, a stream's first state, every step valid.

    Args:
        signature: What is fed.
        dims: Dimensions that are fixed; all others count time steps.
        total: How many of them.
    """
    names = [factors(dim)[0] for port in signature.inputs for dim in port.shape if isinstance(dim, str)]
    steps = dict.fromkeys([TIME, *names], total)
    return random_feeds(signature.inputs, {**steps, **dims}, np.random.default_rng(0), plain=True)


def _time_artifact(path: Path, contract: Contract, signature: str, batch: int, total: int) -> tuple[Bound, None]:
    """Open a signature of an artifact of ours on random feeds; tell nothing but that it runs."""
    [(target, info)] = contract.artifacts.items()
    called = contract.signatures[signature]
    feeds = plain_feeds(called, {"batch": batch, **info.dims, **called.dims}, total)
    called.check_feeds(feeds, info.dims)
    call = own(target).load().session(path, 1).bind(signature, feeds)
    call()
    return call, None


def _read_contract(path: Path, trust: bool) -> tuple[None, Contract]:
    """Open an artifact the careful way, and let go of it: what a bench opens later has passed here."""
    return None, open_runner(path, trust).contract


@dataclass(frozen=True)
class Timing:
    """How long one signature of one artifact takes.

    Attributes:
        artifact: Its path.
        total: Time steps a call; None where no input has a time axis.
        seconds: Of one call, the median over all turns.
        ratio: To the first artifact of the same signature and number of steps; None for that one itself.
    """

    artifact: Path
    signature: str
    batch: int
    total: int | None
    seconds: float
    ratio: Ratio | None


def bench(
    paths: Sequence[Path],
    totals: Sequence[int] = (),
    batch: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
    timeout: float | None = TIMEOUT,
    trust: bool = False,
) -> list[Timing]:
    """Time artifacts side by side: `sequence` for each number of time steps, and `step`.

    Args:
        paths: What export-lstm wrote, of any target.
        totals: Time steps of a `sequence` call; empty for what the artifact is fixed to, else 16, 96 and 960.
        batch: Samples a call; None for what the artifacts are fixed to, else 1.
        progress: Called with what is being timed.
        timeout: Seconds that opening an artifact or a turn of its calls may take; None for no limit.
        trust: Whether to load a SavedModel whatever it holds; see signatures.open.

    Raises:
        UnsafeArtifact: When opening an artifact may read or write files or run code.
        ArtifactError: When a path isn't an artifact of ours or its runtime can't run it.
        FeedError: When an artifact is fixed to another number of samples or time steps.
    """
    for path in paths:
        target_of(path)
    try:
        with contextlib.ExitStack() as stack:
            made = (Worker(name=f"{path}: its runtime", timeout=timeout, memory=MEMORY) for path in paths)
            workers = [stack.enter_context(contextlib.closing(worker)) for worker in made]
            progress("opening")
            contracts = _all(workers, paths, [partial(_read_contract, path, trust) for path in paths])
            samples = _batch(paths, contracts, batch)
            calls: dict[tuple[str, int], list[int]] = {}
            for k, (path, contract) in enumerate(zip(paths, contracts, strict=True)):
                for key in _calls(path, contract, totals):
                    calls.setdefault(key, []).append(k)
            timings = []
            for (signature, total), taking in sorted(calls.items()):
                progress(f"timing {signature} of {total}")
                chosen = [workers[k] for k in taking]
                openers = [partial(_time_artifact, paths[k], contracts[k], signature, samples, total) for k in taking]
                _all(chosen, [paths[k] for k in taking], openers)
                seconds = take_turns(chosen)
                for k, took in zip(taking, seconds, strict=True):
                    compared = None if k == taking[0] else ratio(took, seconds[0])
                    steps = total if any(port.timed for port in contracts[k].signatures[signature].inputs) else None
                    timings.append(Timing(paths[k], signature, samples, steps, statistics.median(took), compared))
            return timings
    except Lost as lost:
        raise ArtifactError(f"{lost}. {lost.advice}") from None


def _all(workers: Sequence[Worker], paths: Sequence[Path], openers: Sequence[Opener]) -> list[Any]:
    """Let each worker run its opener, all at once, and return what they tell."""
    for worker, opener in zip(workers, openers, strict=True):
        worker.ask(opener)
    told = []
    for worker, path in zip(workers, paths, strict=True):
        try:
            told.append(worker.answer())
        except Lost:
            raise
        except ExportLSTMError as error:
            text = str(error)
            known = type(error) if isinstance(error, (ArtifactError, FeedError)) else ArtifactError
            raise known(text if text.startswith(str(path)) else f"{path}: {text}") from None
    return told


def _batch(paths: Sequence[Path], contracts: Sequence[Contract], asked: int | None) -> int:
    """Return the samples a call that every artifact takes."""
    batch, by = asked, ""
    for path, contract in zip(paths, contracts, strict=True):
        [info] = contract.artifacts.values()
        fixed = info.dims.get("batch")
        if fixed is not None and batch not in (None, fixed):
            wanted = f"{by} of {batch}" if by else f"{batch} was asked"
            raise FeedError(f"{path}: it runs batches of {fixed}, {wanted}. Time artifacts of one batch size.")
        if fixed is not None and batch is None:
            batch, by = fixed, str(path)
    return batch or 1


def _calls(path: Path, contract: Contract, totals: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Return the calls of an artifact to be timed: signature, time steps."""
    [info] = contract.artifacts.values()
    for name, signature in contract.signatures.items():
        sizes = {**info.dims, **signature.dims}
        axes = time_dims(signature.inputs)
        fixed = max((sizes[axis] for axis in axes if axis in sizes), default=1)
        if set(axes) - set(sizes):
            usual = [-(-total // signature.every) * signature.every for total in TOTALS]
            yield from ((name, total) for total in totals or usual)
        elif (name == "step" and "sequence" in contract.signatures) or set(totals) <= {fixed}:
            yield name, fixed
        elif not axes:
            raise FeedError(f"{path}: none of its inputs has a time axis. Leave --time out.")
        else:
            other = next(total for total in totals if total != fixed)
            raise FeedError(
                f"{path}: it runs {fixed} time step(s) a call; {other} was asked. "
                "Leave --time out, or export it with --time any."
            )
