"""Ports, carries and signatures: the callable surface of an artifact as plain data.

Axis letters: B batch, T time steps, F features, U units. Arrays are batch-major: [B, T, F].
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import FeedError

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Dim = int | str
TIME = "time"
"""The dimension that counts the time steps of the first recurrent layer; that of other clocks is time_<input>."""

Role = Literal["input", "lengths", "state", "sequences", "output"]


@dataclass(frozen=True)
class Port:
    """A named tensor at an artifact's boundary.

    Attributes:
        name: The tensor's name in the artifact, unique among inputs and outputs together.
        role: "input" or "output" of the model; a recurrent "state", [B, U] for h and c; "sequences", every time step's
            output [B, T, U]; "lengths", the valid time steps of each sample [B].
        shape: One entry an axis: a size, or the name of a dimension ("batch", "time") that a call may choose. Where the
            model runs several rows of a sample side by side, the first one is "batch * 4", a sample's four rows one
            after the other, or "4 * batch", all samples four times.
        dtype: NumPy name, "float32" or "int32".
        below: For an integer port, its values are in [0, below); None where nothing is known.
        time_axis: The axis that counts the time steps of a call, which a `step` has one of and a stream cuts; None
            where a call takes or gives the port whole, such as a state, or what an attention looks into.
        initial: What a state holds at the start of a stream.
        scale: Of a port that holds quantized numbers, the number that 1 stands for; None where it holds numbers.
        zero_point: What stands for 0 there.
    """

    name: str
    role: Role
    shape: tuple[Dim, ...]
    dtype: str = "float32"
    below: int | None = None
    time_axis: int | None = None
    initial: float = 0.0
    scale: float | None = None
    zero_point: int | None = None

    @property
    def timed(self) -> bool:
        """Whether an axis counts the time steps of a call."""
        return self.time_axis is not None

    def at_start(self, dims: Mapping[str, int]) -> Array:
        """Return what a state holds at the start of a stream, for these sizes of its dimensions."""
        return np.asarray(self.stored(np.full([int(size) for size in self.sized(dims)], self.initial))).astype(
            self.dtype
        )

    def stored(self, array: Array) -> Array:
        """Return floats as a quantized port holds them, rounded and cut off at its range; others as they are.

        Raises:
            FeedError: When there is NaN or infinity among them.
        """
        if self.scale is None or array.dtype.kind != "f":
            return array
        if not np.isfinite(array).all():
            raise FeedError(f"Port {self.name!r} holds {self.dtype}; there is NaN or infinity in what is given for it.")
        ends = np.iinfo(self.dtype)
        scaled = np.rint(array.astype(np.float64) / self.scale) + (self.zero_point or 0)
        return np.asarray(np.clip(scaled, ends.min, ends.max).astype(self.dtype))

    def real(self, array: Array) -> Array:
        """Return what a quantized port holds as float32 numbers; those of another port as they are."""
        if self.scale is None or array.dtype.kind == "f":
            return array
        return ((array.astype(np.float64) - (self.zero_point or 0)) * self.scale).astype(np.float32)

    @property
    def time(self) -> Dim:
        """The dimension of its time steps; for a timed port."""
        assert self.time_axis is not None
        return self.shape[self.time_axis]

    def sized(self, dims: Mapping[str, int]) -> tuple[Dim, ...]:
        """Return the shape with the dimensions that `dims` fixes filled in."""
        return tuple(sized(d, dims) for d in self.shape)

    def steps(self, array: Array, start: int, count: int) -> Array:
        """Return the time steps [start, start + count) of a timed port's array."""
        return array[(*[slice(None)] * (self.time_axis or 0), slice(start, start + count))]

    def in_a_row(self, pieces: Sequence[Array]) -> Array:
        """Return the arrays of consecutive calls as one: joined along time, or the last one where there is none."""
        return pieces[-1] if self.time_axis is None else np.concatenate(pieces, axis=self.time_axis)

    def samples(self, array: Array, picks: Array | slice) -> Array:
        """Return the rows of some samples, by their numbers."""
        return _rows(self._by_sample(array)[:, picks])

    def side_by_side(self, parts: Sequence[Array]) -> Array:
        """Return the arrays of calls with other samples as one."""
        return _rows(np.concatenate([self._by_sample(part) for part in parts], axis=1))

    def count(self, array: Array) -> int:
        """Return how many samples an array holds."""
        _, before, after = factors(self.shape[0])
        return len(array) // (before * after)

    def numbers(self, array: Array) -> Array:
        """Return the numbers of each sample in a row, [B, numbers]."""
        by_sample = np.moveaxis(self._by_sample(array), 1, 0)
        return by_sample.reshape(len(by_sample), math.prod(by_sample.shape[1:]))

    def _by_sample(self, array: Array) -> Array:
        """Return an array whose axis 1 counts samples, between the axes of the rows that each has."""
        _, before, after = factors(self.shape[0])
        return array.reshape(before, self.count(array), after, *array.shape[1:])


@dataclass(frozen=True)
class Carry:
    """An output port that is fed back as an input port on the next call.

    Attributes:
        output: The port that gives it.
        input: The port that takes it on the next call.
    """

    output: str
    input: str


@dataclass(frozen=True)
class Signature:
    """A callable of the artifact: `sequence` takes any number of time steps, `step` takes one.

    Attributes:
        name: "sequence" or "step".
        inputs: What a call takes, all of it.
        outputs: What a call gives.
        carries: Which outputs are fed back as which inputs.
        dims: Dimensions this signature fixes, {"time": 1} for `step`.
        every: A call takes a multiple of this many time steps.
        delay: Output over time -> how many rows later than the model gives it on a whole recording; what isn't named
            isn't late. Its first so many rows come before the model's first one and mean nothing.
        ahead: Output over time -> how many rows of a recording come after its last time step, as they look into the
            future; see Stream.flush.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carries: tuple[Carry, ...]
    dims: Mapping[str, int] = field(default_factory=dict)
    every: int = 1
    delay: Mapping[str, int] = field(default_factory=dict)
    ahead: Mapping[str, int] = field(default_factory=dict)

    def fixed(self, dims: Mapping[str, int]) -> "Signature":
        """Return the same callable with more dimensions fixed; those that it fixes already stay."""
        return replace(self, dims={**dims, **self.dims})

    def steps_a_row(self, output: str) -> Fraction:
        """Return the time steps for each row of an output over time."""
        rows = sized(self.ports[output].time, dict.fromkeys(time_dims(self.inputs), self.every))
        return Fraction(self.every, rows) if isinstance(rows, int) else Fraction(1)

    def initial_state(self, batch: int = 1) -> dict[str, Array]:
        """Return every state input as it is where a stream or a backward layer starts, name -> [B, U]."""
        return {port.name: port.at_start({"batch": batch}) for port in self.inputs if port.role == "state"}

    def count(self, feeds: Feeds) -> int:
        """Return how many samples feeds hold, by the first of them that has an axis for them alone."""
        shapes = (np.shape(feeds[port.name]) for port in self.inputs if port.shape[0] == "batch" and port.name in feeds)
        return next((shape[0] for shape in shapes if shape), 1)

    def time_steps(self, feeds: Feeds) -> int:
        """Return how many time steps feeds hold, by the first input that counts them; for a signature with one."""
        port = next(port for port in self.inputs if port.timed)
        return int(feeds[port.name].shape[port.time_axis or 0])

    def samples(self, arrays: Feeds, picks: Array | slice) -> dict[str, Array]:
        """Return the rows of some samples, by their numbers, of arrays by port."""
        ports = self.ports
        return {name: ports[name].samples(value, picks) for name, value in arrays.items()}

    @property
    def ports(self) -> dict[str, Port]:
        """All ports by name."""
        return {port.name: port for port in (*self.inputs, *self.outputs)}

    def check_feeds(self, feeds: Feeds, dims: Mapping[str, int] = {}) -> None:
        """Refuse feeds that don't fit the input ports: names, then shapes, then types.

        Args:
            feeds: Port name -> array.
            dims: Dimensions the artifact fixes; every other named dimension must be the same wherever it occurs.

        Raises:
            FeedError: With the port, what was given and what is accepted.
        """
        wanted = {port.name for port in self.inputs}
        if missing := sorted(wanted - set(feeds)):
            raise FeedError(f"{self.name}: input {missing[0]!r} is missing; give {', '.join(sorted(wanted))}.")
        if unknown := sorted(set(feeds) - wanted):
            raise FeedError(f"{self.name}: there is no input {unknown[0]!r}; inputs are {', '.join(sorted(wanted))}.")
        sizes = {**dims, **self.dims}
        for port in sorted(self.inputs, key=lambda port: port.shape[0] != "batch"):  # which tells how many samples
            array = feeds[port.name]
            shape, expected = np.shape(array), port.sized(sizes)
            if len(shape) != len(expected):
                raise FeedError(_mismatch(self.name, port.name, shape, expected))
            for size, dim in zip(shape, expected, strict=True):
                if size == 0:
                    raise FeedError(
                        f"{self.name}: input {port.name!r} is empty, shape {show(shape)}; give at least one."
                    )
                if isinstance(dim, str) and dim.isidentifier():
                    sizes.setdefault(dim, size)
                if size != sized(dim, sizes):
                    raise FeedError(_mismatch(self.name, port.name, shape, port.sized(sizes)))
            if port.time_axis is not None and shape[port.time_axis] % self.every:
                raise FeedError(
                    f"{self.name}: input {port.name!r} has {shape[port.time_axis]} time steps; a call takes a multiple"
                    f" of {self.every}."
                )
            if np.asarray(array).dtype != port.dtype:
                found = np.asarray(array).dtype
                raise FeedError(f"{self.name}: input {port.name!r} is {found}; it must be {port.dtype}.")


FOLDED = re.compile(r"(?:(\d+) \* )?([A-Za-z_]\w*)(?: \* (\d+))?(?: / (\d+))?", re.ASCII)


def _rows(by_sample: Array) -> Array:
    """Return an array [rows, ...] of one with an axis for the samples and two around it for the rows of each."""
    return by_sample.reshape(math.prod(by_sample.shape[:3]), *by_sample.shape[3:])


def factors(dim: Dim) -> tuple[str, int, int]:
    """Return what a dimension counts and how often: "4 * batch" -> ("batch", 4, 1), "batch * 4" -> ("batch", 1, 4)."""
    found = FOLDED.fullmatch(str(dim))
    return (found[2], int(found[1] or 1), int(found[3] or 1)) if found else (str(dim), 1, 1)


def sized(dim: Dim, sizes: Mapping[str, int]) -> Dim:
    """Return the size of a dimension where `sizes` tells it, else the dimension."""
    if isinstance(dim, int):
        return dim
    name, before, after = factors(dim)
    by = int(str(dim).partition(" / ")[2] or 1)
    return before * sizes[name] * after // by if name in sizes else dim


def time_dims(ports: Iterable[Port]) -> tuple[str, ...]:
    """Return the dimensions that count the time steps of a call, in the order of the ports."""
    return tuple(dict.fromkeys(str(port.time) for port in ports if port.timed))


def by_samples(
    signature: "Signature", feeds: Feeds, group: int | None, call: Callable[[dict[str, Array]], Feeds]
) -> dict[str, Array]:
    """Run a batch of any size through what takes a fixed one: in groups, the last one filled up.

    Args:
        signature: The ports.
        feeds: Input port -> array.
        group: Samples a call; None for all at once.
        call: Feeds of one group -> outputs.

    Returns:
        Output port -> array, for all samples.
    """
    total = signature.count(feeds)
    group = group or total
    picks = [np.minimum(np.arange(start, start + group), total - 1) for start in range(0, total, group)]
    parts = [call(signature.samples(feeds, pick)) for pick in picks]
    joined = {name: signature.ports[name].side_by_side([part[name] for part in parts]) for name in parts[0]}
    return signature.samples(joined, slice(total))


def show(shape: tuple[Dim, ...]) -> str:
    """Return a shape as people write it: [batch, time, 12]."""
    return "[" + ", ".join(map(str, shape)) + "]"


def _mismatch(signature: str, port: str, found: tuple[Dim, ...], expected: tuple[Dim, ...]) -> str:
    return f"{signature}: input {port!r} has shape {show(found)}; it must be {show(expected)}."
