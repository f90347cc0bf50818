"""Recordings that a model is quantized by and measured on: of the user's own data, or random ones."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signatures import files
from signatures.errors import FeedError, LoadError, one_line
from signatures.feeds import random_feeds
from signatures.ports import Array, Port, Signature, show, time_dims

ENOUGH = 1000
"""Time steps of the stream that a quantized artifact is measured on, at least."""

SHORT = 128
"""Time steps of a random recording that isn't measured by."""

MOST = 4000
"""Time steps that are looked at, at most."""

EVERY = 4
"""One recording of so many isn't used for ranges and rounding, but to measure by."""

RANDOM = "random numbers"
"""What recordings are called where the user has given none."""

Recording = Mapping[str, Array]


@dataclass(frozen=True)
class Recordings:
    """Recordings of one sample each.

    Attributes:
        told: What they are, in words.
        seen: Input port -> [1, T, ...], each from the start of a stream: what ranges and roundings are of.
        kept: Others, to measure by; the same where there is only one short one.
    """

    told: str
    seen: tuple[Recording, ...]
    kept: tuple[Recording, ...]

    def in_a_row(self, signature: Signature) -> list[Recording]:
        """Return those to quantize by as one: a stream goes on from one to the next, further than each by itself.

        Inputs without time can't change on the way: then each is a stream of its own.
        """
        return list(self.seen) if _steady(signature) else [_joined(signature, self.seen)]

    def stream(self, signature: Signature) -> Recording:
        """Return the kept ones in a row, again and again until there are ENOUGH time steps."""
        steady = _steady(signature)
        kept = [max(self.kept, key=lambda each: signature.time_steps(each))] if steady else list(self.kept)
        parts: list[Recording] = []
        total = 0
        while total < ENOUGH:
            parts.append(kept[len(parts) % len(kept)])
            total += signature.time_steps(parts[-1])
        total = min(total, 2 * ENOUGH) // signature.every * signature.every
        return _cut(signature, _joined(signature, parts), 0, total)


def random(signature: Signature, dims: Mapping[str, int]) -> Recordings:
    """Return random recordings, for when there are no data: short ones, and one of ENOUGH steps to measure by."""

    def drawn(steps: int, seed: int) -> Recording:
        unit = signature.every
        sizes = {**dims, **dict.fromkeys(time_dims(signature.inputs), -(-steps // unit) * unit), "batch": 1}
        return random_feeds(_inputs(signature), sizes, np.random.default_rng(seed), plain=True)

    return Recordings(RANDOM, tuple(drawn(SHORT, seed) for seed in range(1, 9)), (drawn(ENOUGH, 0),))


def given(data: Any, signature: Signature) -> Recordings:
    """Read the user's recordings.

    Args:
        data: An .npz file, a folder of .npz and .npy files with a recording each, "FILE.py:FUNCTION" or
            "package.module:FUNCTION" that returns recordings, or recordings themselves. A recording is an array, or a
            dict by input: [T, ...], or several of them [B, T, ...]. With "lengths" [B] those of a batch end there, and
            those of [T, ...] lie in a row. Other arrays of a dict, such as labels, are left out. Recordings
            are taken as they are.
        signature: The ports.

    Raises:
        LoadError: When a file is missing or something else.
        FeedError: When a recording doesn't fit the ports.
    """
    if isinstance(data, Recordings):
        return data
    told, found = _read(data)
    runs: list[Recording] = []
    for number, each in enumerate(found):
        try:
            runs += _samples(each, signature)
        except FeedError as error:
            raise FeedError(f"calibration {told}, recording {number}: {error}") from None
    if not runs:
        raise FeedError(f"calibration {told}: there is no recording in it. Give one or more, of 1,000 steps and more.")
    if len(runs) < EVERY:
        parts = [_halves(signature, each) for each in runs]
        seen, kept = [first for first, _ in parts], [second for _, second in parts]
    else:
        kept = runs[EVERY - 1 :: EVERY]
        seen = [each for number, each in enumerate(runs) if number % EVERY != EVERY - 1]
    steps = np.cumsum([signature.time_steps(each) for each in seen])
    seen = seen[: int(np.searchsorted(steps, MOST)) + 1]
    count = f"{len(runs)} recording{'s' * (len(runs) > 1)}"
    return Recordings(f"{told} ({count})", tuple(seen), tuple(kept))


def _read(data: Any) -> tuple[str, Iterable[Any]]:
    """Return what recordings are called, and these."""
    if isinstance(data, (Mapping, np.ndarray)):
        return "in memory", [data]
    if not isinstance(data, (str, Path, Iterable)):
        raise FeedError(f"calibration is a {type(data).__name__}; give recordings, or where they are.")
    if not isinstance(data, (str, Path)):
        return "in memory", list(data)
    path = Path(data)
    module, colon, function = str(data).rpartition(":")
    if colon and function.isidentifier() and not path.exists():
        return str(data), _called(module, function)
    if path.is_dir():
        names = sorted(each for each in path.iterdir() if each.suffix in (".npz", ".npy"))
        return str(data), [_file(each) for each in names]
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        found = "no such file" if not path.exists() else f"the suffix {path.suffix!r}"
        raise LoadError(
            f"{data}: {found}. Give calibration data as an .npz file, a folder of .npz and .npy files, or"
            " FILE.py:FUNCTION that returns recordings."
        )
    return str(data), [_file(path)]


def _file(path: Path) -> Any:
    try:
        return files.read_npz(path) if path.suffix == ".npz" else files.read_npy(path)
    except ValueError as error:
        raise LoadError(f"{path}: {error}. Give an .npz or .npy of plain arrays, written with NumPy.") from None


def _called(module: str, function: str) -> list[Any]:
    """Call the user's own function."""
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module).stem, module)
            if spec is None or spec.loader is None:
                raise ImportError("it is no Python file")
            loaded = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(spec.name, loaded)  # where dataclasses look for it
            spec.loader.exec_module(loaded)
        else:
            sys.path.insert(0, "")
            loaded = importlib.import_module(module)
        made = getattr(loaded, function)()
        return [made] if isinstance(made, (Mapping, np.ndarray)) else list(made)
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"{module}:{function}: it fails ({one_line(error)}). Give a function without"
            " arguments that returns recordings: arrays [T, ...], or dicts of them by input."
        ) from error


def _inputs(signature: Signature) -> list[Port]:
    """Return the ports that recordings are for."""
    carried = {carry.input for carry in signature.carries}
    return [port for port in signature.inputs if port.role != "state" and port.name not in carried]


def _steady(signature: Signature) -> bool:
    """Whether some input has no time."""
    return not all(port.timed for port in _inputs(signature))


def _joined(signature: Signature, parts: Sequence[Recording]) -> Recording:
    """Return recordings one after the other; inputs without time are the first one's."""
    joined = {}
    for port in _inputs(signature):
        arrays = [each[port.name] for each in parts]
        joined[port.name] = port.in_a_row(arrays) if port.timed else arrays[0]
    return joined


def _cut(signature: Signature, recording: Recording, start: int, count: int) -> Recording:
    """Return the time steps [start, start + count) of a recording."""
    ports = signature.ports
    return {
        name: ports[name].steps(value, start, count) if ports[name].timed else value
        for name, value in recording.items()
    }


def _halves(signature: Signature, recording: Recording) -> tuple[Recording, Recording]:
    """Return three quarters of a recording and the rest, the same twice where it is short."""
    total, unit = signature.time_steps(recording), signature.every
    cut = total * (EVERY - 1) // EVERY // unit * unit
    if total - cut < ENOUGH // EVERY or not cut:
        return recording, recording
    return _cut(signature, recording, 0, cut), _cut(signature, recording, cut, total - cut)


def _samples(found: Any, signature: Signature) -> list[Recording]:
    """Return each sample of a recording by itself, as its ports have them, of a length that calls take."""
    ports = _inputs(signature)
    named = dict(found) if isinstance(found, Mapping) else {ports[0].name: found}
    lengths = named.pop("lengths", None) if "lengths" not in {port.name for port in ports} else None
    if not isinstance(found, Mapping) and len(ports) != 1:
        raise FeedError(f"the model has {len(ports)} inputs: give a dict of {', '.join(p.name for p in ports)}.")
    if missing := [port.name for port in ports if port.name not in named]:
        raise FeedError(f"input {missing[0]!r} is missing; give {', '.join(port.name for port in ports)}.")
    arrays: dict[str, Array] = {}
    if lengths is not None and all(np.ndim(named[port.name]) == len(port.shape) - 1 for port in ports):
        return _in_a_row(named, np.asarray(lengths), signature)
    for port in ports:
        value = np.asarray(named[port.name])
        value = value[None] if value.ndim == len(port.shape) - 1 else value
        fits = value.ndim == len(port.shape) and all(
            isinstance(wanted, str) or wanted == size for wanted, size in zip(port.shape, value.shape, strict=True)
        )
        if not fits or value.dtype.kind not in "fiub":
            raise FeedError(f"input {port.name!r} is {value.dtype} {show(value.shape)}; it must be {show(port.shape)}.")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise FeedError(f"input {port.name!r} holds NaN or infinity.")
        if port.below is not None and value.size and not (value.min() >= 0 and value.max() < port.below):
            raise FeedError(
                f"input {port.name!r} holds {value.min()} to {value.max()}; it takes 0 to {port.below - 1}."
            )
        arrays[port.name] = value.astype(port.dtype)
    count = {len(value) for value in arrays.values()}
    if len(count) > 1:
        raise FeedError(f"inputs have {', '.join(map(str, sorted(count)))} samples; give as many of each.")
    total, samples = signature.time_steps(arrays), count.pop()
    if len(totals := {arrays[port.name].shape[port.time_axis or 0] for port in ports if port.timed}) > 1:
        raise FeedError(f"inputs have {', '.join(map(str, sorted(totals)))} time steps; give as many of each.")
    valid = np.full(samples, total) if lengths is None else np.asarray(lengths)
    if valid.shape != (samples,) or valid.dtype.kind not in "iu" or not ((valid >= 0) & (valid <= total)).all():
        raise FeedError(f"lengths of {show(valid.shape)}; give {samples}, each from 0 to {total}.")
    rows: list[Recording] = []
    for number, length in enumerate(valid):
        steps = int(length) // signature.every * signature.every
        if steps:
            one = {name: value[number : number + 1] for name, value in arrays.items()}
            rows.append({p.name: p.steps(one[p.name], 0, steps) if p.timed else one[p.name] for p in ports})
    return rows


def _in_a_row(named: Mapping[str, Any], lengths: Array, signature: Signature) -> list[Recording]:
    """Return recordings that lie one after the other in arrays [T, ...], by their lengths."""
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any() or not lengths.size:
        raise FeedError("lengths aren't whole numbers from 0 up, one for each recording.")
    ends = np.cumsum(lengths)
    if any(len(named[port.name]) != ends[-1] for port in _inputs(signature)):
        raise FeedError(f"the lengths add up to {ends[-1]} time steps; give those of the recordings in a row.")
    cuts = {port.name: np.split(np.asarray(named[port.name]), ends[:-1]) for port in _inputs(signature)}
    return [
        sample
        for number in range(len(lengths))
        for sample in _samples({name: parts[number] for name, parts in cuts.items()}, signature)
    ]
