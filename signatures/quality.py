"""How good a quantized artifact is: its signal-to-noise ratio along a stream, and whether it decides as the model does.

A stream runs its own states on, so that errors add up as they will where the artifact is used. Of a port over time all
rows are compared, of the others what they hold after each call.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .ports import Array, Feeds, Port, Signature
from .stream import Stream, cut

CALL = 16
"""Of how many times the fewest time steps a call is: what a port without time holds is compared so often."""

HUGE = 1e15
"""Numbers beyond it are of a model that runs away: there is nothing to compare."""

PARTS = 16
"""Into how many parts of a stream its course is told."""


@dataclass(frozen=True)
class PortQuality:
    """How far one port is from what the model gives.

    Attributes:
        port: Output port.
        sqnr: Power of what is expected over that of the difference, dB; infinite where nothing differs.
        drift: By how many dB the last quarter of the stream is worse than the first.
        decisions: Share of the rows whose largest value is where the model has it; None where there are no classes.
        course: The ratio in each of PARTS of the stream, in their order.
    """

    port: str
    sqnr: float
    drift: float
    decisions: float | None = None
    course: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quality:
    """What a stream through a quantized artifact gave.

    Attributes:
        gate: The least signal-to-noise ratio that any port must have, dB.
        time_steps: Of the stream.
        data: What it was fed with, in words.
        ports: One a port.
    """

    gate: float
    time_steps: int
    data: str
    ports: tuple[PortQuality, ...]

    @property
    def worst(self) -> PortQuality:
        """The port with the least signal-to-noise ratio."""
        return min(self.ports, key=lambda each: each.sqnr)

    @property
    def drift(self) -> float:
        """The largest drift of any port, dB."""
        return max(each.drift for each in self.ports)

    @property
    def decisions(self) -> float | None:
        """The least share of rows decided alike, of any port; None where there are no classes."""
        return min((each.decisions for each in self.ports if each.decisions is not None), default=None)

    @property
    def ok(self) -> bool:
        """Whether every port passes the gate."""
        return self.worst.sqnr >= self.gate

    def summary(self) -> str:
        """Return one sentence: the verdict and its reason."""
        worst, decided = self.worst, self.decisions
        told = f"{worst.sqnr:.1f} dB at port {worst.port!r} over {self.time_steps} time steps of {self.data}"
        if not self.ok:
            return f"The signal-to-noise ratio is {told}; at least {self.gate:g} are asked for."
        same = "" if decided is None else f", {decided:.1%} of the decisions as the model's"
        return f"at least {told}, drift {self.drift:.1f} dB{same}."


def sqnr(expect: Array, got: Array) -> float:
    """Return the signal-to-noise ratio in dB; infinite where nothing differs, -infinite where it isn't finite."""
    want = expect.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        noise, signal = float(((got.astype(np.float64) - want) ** 2).sum()), float((want**2).sum())
    if not math.isfinite(noise):
        return -math.inf
    return math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)


def trajectory(stream: Stream, signature: Signature, feeds: Feeds, batch: int = 1) -> dict[str, Array]:
    """Push a recording through a stream and return what every output held on its way.

    Args:
        stream: From its start.
        signature: Its ports.
        feeds: Input port -> [1, T, ...], a recording; ports without time as every push takes them.
        batch: Samples a call: the recording so many times side by side, of which the first is looked at.

    Returns:
        Output port -> of a timed one its rows, [1, T, ...]; of the others what they held after each call,
        [calls, 1, ...].
    """
    total, steps = signature.time_steps(feeds) // signature.every * signature.every, signature.every * CALL
    calls = [(start, min(steps, total - start)) for start in range(0, total, steps)]
    beside = signature.samples(feeds, np.zeros(batch, int))
    pushed = (stream.push(**cut(beside, signature.inputs, start, count)) for start, count in calls)
    pieces = [signature.samples(outputs, slice(1)) for outputs in pushed]
    return {
        port.name: port.in_a_row([piece[port.name] for piece in pieces])
        if port.timed
        else np.stack([piece[port.name] for piece in pieces])
        for port in signature.outputs
    }


def compared(
    signature: Signature, expect: Mapping[str, Array], got: Mapping[str, Array], gate: float, steps: int, data: str
) -> Quality:
    """Return how good a stream's outputs are.

    Args:
        signature: The ports.
        expect: What `trajectory` gave of the model.
        got: The same of the artifact.
        gate: See Quality.
        steps: See Quality.
        data: See Quality.
    """
    rows = [_quality(port, expect[port.name], got[port.name]) for port in signature.outputs]
    return Quality(gate, steps, data, tuple(rows))


def _quality(port: Port, expect: Array, got: Array) -> PortQuality:
    along = port.time_axis or 0
    early, late = (sqnr(*(np.array_split(each, 4, along)[part] for each in (expect, got))) for part in (0, -1))
    drift = early - late if math.isfinite(early) and math.isfinite(late) else 0.0
    classes = port.role == "output" and expect.ndim > 1 and expect.shape[-1] > 1 and expect.dtype.kind == "f"
    same = (expect.argmax(-1) == got.argmax(-1)).mean() if classes else None
    pieces = [np.array_split(each, min(PARTS, expect.shape[along]), along) for each in (expect, got)]
    course = tuple(sqnr(*piece) for piece in zip(*pieces, strict=True))
    return PortQuality(port.name, sqnr(expect, got), drift, None if same is None else float(same), course)
