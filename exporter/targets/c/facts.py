"""How C runs recurrences: one step after the other, without a loop of its own. Its only graph is `step`."""

from collections.abc import Mapping

from signatures.contract import Contract
from signatures.errors import UnsupportedModel
from signatures.ports import Port, Signature

from ...lower.plan import ONE_STEP, Choice, Plan
from ...memory.recurrence import Recurrence

MOST_STEPS = 64
"""Time steps of one call, `every`, beyond which it is refused: each is written out."""


def graphs(contract: Contract, inputs: tuple[Port, ...], dims: Mapping[str, int]) -> dict[str, Signature]:
    """Return the graph of `step`; see Facts.graphs."""
    return {name: signature.fixed(dims) for name, signature in contract.signatures.items()}


def plan(recurrence: Recurrence, steps: int | None, choice: Choice = "auto", batch: int | None = None) -> Plan:
    """Choose the lowering of a recurrence in one graph; see Facts.plan."""
    if steps == 1:
        return ONE_STEP
    if steps is None or steps > MOST_STEPS:
        found = "any number of" if steps is None else str(steps)
        raise UnsupportedModel(
            f"layer {recurrence.name!r} runs {found} time steps a call, which aren't written out in C.\n"
            f"  It takes a fixed number up to {MOST_STEPS}. Export to tflite, onnx or savedmodel."
        )
    return Plan("unrolled", f"{steps} copies of the step, no loop")
