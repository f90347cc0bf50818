"""How TFLM runs recurrences: one step a call. It reads the first graph of a file alone: `step`."""

from collections.abc import Mapping

from signatures.contract import Contract
from signatures.ports import Port, Signature

from ...lower.plan import Choice, Plan
from ...memory.recurrence import Recurrence
from ..tflite import facts as tflite


def graphs(contract: Contract, inputs: tuple[Port, ...], dims: Mapping[str, int]) -> dict[str, Signature]:
    """Return the graph of `step`; see Facts.graphs."""
    return tflite.graphs(contract, inputs, dims)


def plan(recurrence: Recurrence, steps: int | None, choice: Choice = "auto", batch: int | None = None) -> Plan:
    """Choose the lowering of a recurrence in one graph; see Facts.plan. TFLM has no loop of its own either."""
    return tflite.plan(recurrence, steps, "auto" if steps == 1 else "unrolled", batch)
