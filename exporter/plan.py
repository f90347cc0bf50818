"""Which lowering a recurrence gets, and why, in one sentence.

A native op wherever the target has one that gives h and c: BlockLSTMV2 for an LSTM with tanh and sigmoid in SavedModel,
LSTM, GRU and RNN in ONNX. TFLite has none that exposes its state, so a single step is unrolled there and a sequence
runs in blocks of time steps. What is left is one loop over the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from signatures.errors import UnsupportedModel

from .activations import ACTIVATIONS
from .recurrence import Recurrence

Choice = Literal["auto", "unrolled", "loop"]
Name = Literal["block", "native", "unrolled", "loop", "scan"]

UNROLL_LIMIT = 256
"""Unrolled steps beyond which a TFLite graph is refused: it holds some 12 ops a step, and loads and plans slowly."""

ONNX_OPS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
"""Kind of recurrence -> ONNX's own op."""


TYPES = {
    "tflite": ("float32",),  # its CPU kernels for matrix products take no other floats
    "onnx": ("float64", "float32", "float16"),  # ONNX Runtime has no CPU kernels for bfloat16
    "savedmodel": ("float64", "float32", "float16", "bfloat16"),
}
"""Target -> the types that its runtime computes in."""


@dataclass(frozen=True)
class Plan:
    """A module of exporter.lowerings and the reason it was chosen."""

    lowering: Name
    reason: str


def plan(recurrence: Recurrence, target: str, steps: int | None, choice: Choice = "auto") -> Plan:
    """Choose the lowering of a recurrence in one signature.

    Args:
        recurrence: What is run.
        target: "savedmodel", "onnx" or "tflite".
        steps: Time steps of the signature; None when a call may choose.
        choice: What the user asked for, tflite only.

    Raises:
        UnsupportedModel: When what was asked can't be had.
    """
    functions = (recurrence.activation, recurrence.recurrent_activation)
    narrow = recurrence.dtype in ("float32", "float16")  # BlockLSTMV2 and ONNX Runtime's LSTM take these
    if target == "savedmodel" and recurrence.kind == "lstm" and functions == ("tanh", "sigmoid") and narrow:
        return Plan("block", "BlockLSTMV2: the whole sequence in one TensorFlow op")
    if (
        target == "onnx"
        and recurrence.kind in ONNX_OPS
        and narrow
        and all(ACTIVATIONS[name].onnx for name in functions)
    ):
        return Plan("native", f"one ONNX {ONNX_OPS[recurrence.kind]} op")
    if steps == 1:
        return Plan("unrolled", "one time step, no loop")
    if target != "tflite":
        return Plan(
            "scan", f"one loop over the time steps: {target} has no op for this {recurrence.kind} in {recurrence.dtype}"
        )
    if choice == "unrolled":
        if steps is None or steps > UNROLL_LIMIT:
            found = "any number of" if steps is None else str(steps)
            raise UnsupportedModel(
                f"lowering 'unrolled' can't run {found} time steps.\n"
                f"  It takes a fixed number up to {UNROLL_LIMIT}: give --time N, or --lowering loop."
            )
        return Plan("unrolled", f"{steps} copies of the step, as asked")
    return Plan("loop", "nested loops over blocks of 32 time steps: linear in T, a file that doesn't grow with T")


def check_types(types: Mapping[str, str], target: str) -> None:
    """Refuse a model that computes in a type its target's runtime doesn't.

    Args:
        types: Each type that layers compute in -> the first layer that does.
        target: "savedmodel", "onnx" or "tflite".

    Raises:
        UnsupportedModel: Naming a layer and the types that the target has.
    """
    for dtype, layer in types.items():
        if dtype in TYPES["savedmodel"] and dtype not in TYPES[target]:
            raise UnsupportedModel(
                f"layer {layer!r} computes in {dtype}, which the {target} runtime doesn't.\n"
                f"  It has: {', '.join(TYPES[target])}. Export with --dtype float32 (dtype='float32' in Python) to"
                " compute in that, or to savedmodel."
            )


def describe(plans: Mapping[str, Plan]) -> str:
    """Return one sentence for the plans of all signatures of one layer."""
    return "; ".join(f"{signature}: {chosen.reason}" for signature, chosen in plans.items())
