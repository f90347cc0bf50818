"""Which lowering a recurrence gets, and why, in one sentence; each target's facts.py chooses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..memory.recurrence import Recurrence

Choice = Literal["auto", "unrolled", "loop", "xla"]
"""How a user may ask a sequence to be run; the targets say which of them they take."""
Name = Literal["block", "native", "unrolled", "loop", "scan", "xla"]

BLOCK_LIMIT = 768 << 10
"""Bytes of the input kernel up to which BlockLSTMV2 is quicker than a loop.

It reads that kernel on every step, where the loop takes one product for all of them; but the loop's own ops cost 11 us
a step. Measured with TensorFlow 2.21.
"""


@dataclass(frozen=True)
class Schedule:
    """How a loop runs its time steps.

    Attributes:
        unroll: Steps in one turn of the innermost loop.
        blocks: Steps in one turn of each loop around it, the inner one first: each a multiple of `unroll`.
    """

    unroll: int
    blocks: tuple[int, ...]


STEP_BY_STEP = Schedule(1, (14, 112, 560))
"""For any cell and any number of samples."""


@dataclass(frozen=True)
class Plan:
    """A module of exporter.lower and the reason it was chosen; for a loop, its schedule."""

    lowering: Name
    reason: str
    schedule: Schedule | None = None


Plans = Mapping[str, Mapping[str, Plan]]
"""Graph -> recurrent call -> how it is lowered."""


def describe(plans: Mapping[str, Plan]) -> str:
    """Return one sentence for the plans of all signatures of one layer."""
    return "; ".join(f"{signature}: {chosen.reason}" for signature, chosen in plans.items())


def in_tensorflow(recurrence: Recurrence) -> Plan:
    """Choose between TensorFlow's one op for an LSTM with tanh and sigmoid, and a loop."""
    functions = (recurrence.activation, recurrence.recurrent_activation)
    narrow = recurrence.dtype in ("float32", "float16")  # BlockLSTMV2 takes these
    if recurrence.kind != "lstm" or functions != ("tanh", "sigmoid") or not narrow:
        return one_loop("savedmodel", recurrence)
    if recurrence.kernel.nbytes > BLOCK_LIMIT:
        why = "quicker than BlockLSTMV2, which has no product of its own for all inputs at once"
        return Plan("scan", f"one loop over the time steps: {why}")
    return Plan("block", "BlockLSTMV2: the whole sequence in one TensorFlow op")


def one_loop(target: str, recurrence: Recurrence) -> Plan:
    """Return the plan for what has no op of its own."""
    return Plan(
        "scan", f"one loop over the time steps: {target} has no op for this {recurrence.kind} in {recurrence.dtype}"
    )


ONE_STEP = Plan("unrolled", "one time step, no loop")
