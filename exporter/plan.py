"""Which lowering a recurrence gets, and why, in one sentence.

savedmodel has BlockLSTMV2 and onnx its own LSTM op: nothing to choose. tflite has no op that exposes h and c, so a
single step is unrolled and a sequence runs in blocks of time steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from signatures.errors import UnsupportedModel

Choice = Literal["auto", "unrolled", "loop"]
Name = Literal["block", "native", "unrolled", "loop"]

UNROLL_LIMIT = 256
"""Unrolled steps beyond which a TFLite graph is refused: it holds some 12 ops a step, and loads and plans slowly."""


@dataclass(frozen=True)
class Plan:
    """A module of exporter.lowerings and the reason it was chosen."""

    lowering: Name
    reason: str


def plan(target: str, steps: int | None, choice: Choice = "auto") -> Plan:
    """Choose the lowering of a recurrence in one signature.

    Args:
        target: "savedmodel", "onnx" or "tflite".
        steps: Time steps of the signature; None when a call may choose.
        choice: What the user asked for, tflite only.

    Raises:
        UnsupportedModel: When what was asked can't be had.
    """
    if target == "savedmodel":
        return Plan("block", "BlockLSTMV2: the whole sequence in one TensorFlow op")
    if target == "onnx":
        return Plan("native", "one ONNX LSTM op")
    if steps == 1:
        return Plan("unrolled", "one time step, no loop")
    if choice == "unrolled":
        if steps is None or steps > UNROLL_LIMIT:
            found = "any number of" if steps is None else str(steps)
            raise UnsupportedModel(
                f"lowering 'unrolled' can't run {found} time steps.\n"
                f"  It takes a fixed number up to {UNROLL_LIMIT}: give --time N, or --lowering loop."
            )
        return Plan("unrolled", f"{steps} copies of the step, as asked")
    return Plan("loop", "nested loops over blocks of 32 time steps: linear in T, a file that doesn't grow with T")


def describe(plans: Mapping[str, Plan]) -> str:
    """Return one sentence for the plans of all signatures of one layer."""
    return "; ".join(f"{signature}: {chosen.reason}" for signature, chosen in plans.items())
