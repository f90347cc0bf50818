"""How TensorFlow runs recurrences: an LSTM by BlockLSTMV2 where that is quicker than a loop, the others by a loop."""

from collections.abc import Mapping

from signatures.contract import Contract
from signatures.ports import Port, Signature

from ...lower.plan import ONE_STEP, Choice, Plan, in_tensorflow
from ...memory.recurrence import Recurrence

ZERO_STATE = "serving_default"
"""The graph for servers: the model's own inputs and outputs, every state zero at the start."""


def graphs(contract: Contract, inputs: tuple[Port, ...], dims: Mapping[str, int]) -> dict[str, Signature]:
    """Return a graph for each signature and one of zero state; see Facts.graphs."""
    first = next(iter(contract.signatures.values()))
    ports = {port.name: port for port in first.outputs}
    outputs = tuple(ports[name] for name in dict.fromkeys(contract.outputs))
    served = Signature(ZERO_STATE, inputs, outputs, (), first.dims)
    return {each.name: each.fixed(dims) for each in (*contract.signatures.values(), served)}


def plan(recurrence: Recurrence, steps: int | None, choice: Choice = "auto", batch: int | None = None) -> Plan:
    """Choose the lowering of a recurrence in one graph; see Facts.plan."""
    if choice == "xla" and steps != 1:
        return Plan("xla", "one loop compiled by XLA, anew for each number of samples and time steps")
    chosen = in_tensorflow(recurrence)
    return ONE_STEP if steps == 1 and chosen.lowering == "scan" else chosen
