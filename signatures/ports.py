"""Ports, carries and signatures: the callable surface of an artifact as plain data.

Axis letters: B batch, T time steps, F features, U units. Arrays are batch-major: [B, T, F].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import FeedError

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Dim = int | str
Role = Literal["input", "lengths", "state", "sequences", "output"]


@dataclass(frozen=True)
class Port:
    """A named tensor at an artifact's boundary.

    Attributes:
        name: The tensor's name in the artifact, unique among inputs and outputs together.
        role: "input" or "output" of the model; a recurrent "state", [B, U] for h and c; "sequences", every time step's
            output [B, T, U]; "lengths", the valid time steps of each sample [B].
        shape: One entry an axis: a size, or the name of a dimension ("batch", "time") that a call may choose.
        dtype: NumPy name, "float32" or "int32".
        below: For an integer port, its values are in [0, below); None where nothing is known.
    """

    name: str
    role: Role
    shape: tuple[Dim, ...]
    dtype: str = "float32"
    below: int | None = None

    @property
    def timed(self) -> bool:
        """Whether axis 1 counts time steps."""
        return len(self.shape) > 1 and str(self.shape[1]).startswith("time")

    def sized(self, dims: Mapping[str, int]) -> tuple[Dim, ...]:
        """Return the shape with the dimensions that `dims` fixes filled in."""
        return tuple(dims.get(d, d) if isinstance(d, str) else d for d in self.shape)


@dataclass(frozen=True)
class Carry:
    """An output port that is fed back as an input port on the next call."""

    output: str
    input: str


@dataclass(frozen=True)
class Signature:
    """A callable of the artifact: `sequence` takes any number of time steps, `step` takes one.

    Attributes:
        dims: Dimensions this signature fixes, {"time": 1} for `step`.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carries: tuple[Carry, ...]
    dims: Mapping[str, int] = field(default_factory=dict)

    def initial_state(self, batch: int = 1) -> dict[str, Array]:
        """Return zeros for every state input, name -> [B, U]: where a stream or a backward layer starts."""
        return {
            port.name: np.zeros([d if isinstance(d, int) else batch for d in port.shape], port.dtype)
            for port in self.inputs
            if port.role == "state"
        }

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
        for port in self.inputs:
            array = feeds[port.name]
            shape, expected = np.shape(array), port.sized(sizes)
            if len(shape) != len(expected):
                raise FeedError(_mismatch(self.name, port.name, shape, expected))
            for size, dim in zip(shape, expected, strict=True):
                if size == 0:
                    raise FeedError(
                        f"{self.name}: input {port.name!r} is empty, shape {show(shape)}; give at least one."
                    )
                if size != (dim if isinstance(dim, int) else sizes.setdefault(dim, size)):
                    raise FeedError(_mismatch(self.name, port.name, shape, port.sized(sizes)))
            if np.asarray(array).dtype != port.dtype:
                found = np.asarray(array).dtype
                raise FeedError(f"{self.name}: input {port.name!r} is {found}; it must be {port.dtype}.")


def show(shape: tuple[Dim, ...]) -> str:
    """Return a shape as people write it: [batch, time, 12]."""
    return "[" + ", ".join(map(str, shape)) + "]"


def _mismatch(signature: str, port: str, found: tuple[Dim, ...], expected: tuple[Dim, ...]) -> str:
    return f"{signature}: input {port!r} has shape {show(found)}; it must be {show(expected)}."
