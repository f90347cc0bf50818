"""How ONNX runs recurrences: by its own LSTM, GRU and RNN ops, which give h and c; the others by a loop."""

from collections.abc import Mapping

from signatures.contract import Contract
from signatures.ports import Port, Signature, time_dims

from ...lower.plan import ONE_STEP, Choice, Plan, one_loop
from ...memory.activations import ACTIVATIONS
from ...memory.recurrence import Recurrence

ONNX_OPS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
"""Kind of recurrence -> ONNX's own op."""

SATURATED = ("hard_sigmoid", "keras2_hard_sigmoid", "sigmoid")
"""Activations of gates that large inputs open and shut."""


def holds(recurrence: Recurrence) -> bool:
    """Whether an ONNX op's own gates can keep its c on masked steps; h is kept without them."""
    return recurrence.kind == "lstm" and recurrence.recurrent_activation in SATURATED


def graphs(contract: Contract, inputs: tuple[Port, ...], dims: Mapping[str, int]) -> dict[str, Signature]:
    """Return one graph for all signatures; see Facts.graphs.

    Its time steps are open where it serves `step` too, whatever `sequence` is fixed to.
    """
    signature = next(iter(contract.signatures.values()))
    steps = time_dims(inputs) if contract.no_step is None else ()
    return {signature.name: signature.fixed({name: size for name, size in dims.items() if name not in steps})}


def plan(recurrence: Recurrence, steps: int | None, choice: Choice = "auto", batch: int | None = None) -> Plan:
    """Choose the lowering of a recurrence in the graph; see Facts.plan."""
    functions = (recurrence.activation, recurrence.recurrent_activation)
    if (
        recurrence.kind in ONNX_OPS
        and recurrence.dtype in ("float32", "float16")  # ONNX Runtime's ops take these
        and all(ACTIVATIONS[name].onnx for name in functions)
    ):
        return Plan("native", _native(recurrence))
    return ONE_STEP if steps == 1 else one_loop("onnx", recurrence)


def _native(recurrence: Recurrence) -> str:
    """Return the reason for a native op, with what other runtimes than ONNX Runtime make of it otherwise."""
    reason = f"one ONNX {ONNX_OPS[recurrence.kind]} op"
    if recurrence.kind == "lstm" and not holds(recurrence):
        gates = recurrence.recurrent_activation
        reason += f"; masked steps need a runtime that heeds sequence_lens (OpenCV doesn't), as {gates} holds no gate"
    if recurrence.kind == "gru" and not recurrence.reset_after:
        reason += "; needs a runtime that heeds linear_before_reset=0 (MNN doesn't)"
    return reason
