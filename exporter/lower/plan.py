"""Which lowering a recurrence gets, and why, in one sentence.

A native op wherever the target's runtime has one for the type, that gives h and c: LSTM, GRU and RNN in ONNX; in
SavedModel BlockLSTMV2 for an LSTM with tanh and sigmoid, unless its input kernel is so large that a loop is quicker.
TFLite has none that exposes its state, so a few steps are unrolled there, see SHORT, and a sequence runs in blocks of
time steps, see SCHEDULES. What is left is one loop over the steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from signatures.errors import UnsupportedModel
from signatures.golden import ROUNDINGS

from ..memory.activations import ACTIVATIONS
from ..memory.recurrence import GATES, Recurrence

Choice = Literal["auto", "unrolled", "loop", "xla"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
TAKEN_BY = {"unrolled": "tflite", "loop": "tflite", "xla": "savedmodel"}
"""Choice -> the target that takes it."""

Name = Literal["block", "native", "unrolled", "loop", "scan", "xla"]

UNROLL_LIMIT = 256
"""Unrolled steps beyond which a TFLite graph is refused: it holds some 12 ops a step, and loads and plans slowly."""

SHORT, COPIES = 16, 1 << 20
"""Fixed time steps, and bytes of all their copies of the recurrent kernel, up to which TFLite runs one sample unrolled.

A call saves the 15 to 30 us that its loop takes to be entered: it takes 0.2 to 0.6 of the time. Half a core's level 2
cache is for the copies: with twice as many they take longer than the loop. And 16 steps are 25 kB of the file.
Measured with LiteRT 2.3.
"""

BLOCK_LIMIT = 768 << 10
"""Bytes of the input kernel up to which BlockLSTMV2 is quicker than a loop.

It reads that kernel on every step, where the loop takes one product for all of them; but the loop's own ops cost 11 us
a step. Measured with TensorFlow 2.21.
"""

ONNX_OPS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
"""Kind of recurrence -> ONNX's own op."""

SATURATED = ("hard_sigmoid", "keras2_hard_sigmoid", "sigmoid")
"""Activations of gates that large inputs open and shut."""

TYPES = {
    "tflite": ("float32",),  # its CPU kernels for matrix products take no other floats
    "onnx": ("float64", "float32", "float16"),  # ONNX Runtime has no CPU kernels for bfloat16
    "savedmodel": tuple(ROUNDINGS),
}
"""Target -> the types that its runtime computes in."""


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

SCHEDULES = {
    32 << 10: Schedule(12, (240, 1200)),
    64 << 10: Schedule(8, (112, 560, 2240)),
    256 << 10: Schedule(1, (14, 70, 350, 1400)),
    1 << 62: Schedule(1, (7, 49, 245, 1225)),
}
"""Bytes of the recurrent kernel, up to which -> how TFLite runs a sequence of one sample.

unroll   A turn of a loop costs about 1 us, which twelve steps of 32 units share. But each copy of the step has the
         recurrent kernel once more, as XNNPACK packs it for each op; takes 1 us whenever the loop is entered, as TFLite
         prepares a loop's body anew then; and is run even if T ends before it. So steps that take over 2 us by
         themselves aren't unrolled.
blocks   A turn copies what its loop carries twice: the outputs of its block. So each block is 4 to 8 times the one
         inside it, and the innermost is shorter where the kernels fill the level 2 cache. The outermost is the shortest
         with which time stays linear up to T = 10 000.
         Multiples of 7 where steps aren't unrolled: XNNPACK's products take seven rows at a time with AVX-512.

Measured with LiteRT 2.3 on one core of an Intel Xeon (Sapphire Rapids); `make bench` measures it again.
"""


@dataclass(frozen=True)
class Plan:
    """A module of exporter.lowerings and the reason it was chosen; for a loop, its schedule."""

    lowering: Name
    reason: str
    schedule: Schedule | None = None


def holds(recurrence: Recurrence) -> bool:
    """Whether an ONNX op's own gates can keep its c on masked steps; h is kept without them."""
    return recurrence.kind == "lstm" and recurrence.recurrent_activation in SATURATED


def plan(
    recurrence: Recurrence, target: str, steps: int | None, choice: Choice = "auto", batch: int | None = None
) -> Plan:
    """Choose the lowering of a recurrence in one signature.

    Args:
        recurrence: What is run.
        target: "savedmodel", "onnx" or "tflite".
        steps: Time steps of the signature; None when a call may choose.
        choice: What the user asked for; the others of several targets go on alone, see TAKEN_BY.
        batch: Samples of a call; None when a call may choose.

    Raises:
        UnsupportedModel: When what was asked can't be had.
    """
    functions = (recurrence.activation, recurrence.recurrent_activation)
    narrow = recurrence.dtype in ("float32", "float16")  # BlockLSTMV2 and ONNX Runtime's LSTM take these
    if target == "savedmodel" and choice == "xla" and steps != 1:
        return Plan("xla", "one loop compiled by XLA, anew for each number of samples and time steps")
    plain = recurrence.kind == "lstm" and functions == ("tanh", "sigmoid") and narrow
    if target == "savedmodel" and plain and recurrence.kernel.nbytes <= BLOCK_LIMIT:
        return Plan("block", "BlockLSTMV2: the whole sequence in one TensorFlow op")
    if (
        target == "onnx"
        and recurrence.kind in ONNX_OPS
        and narrow
        and all(ACTIVATIONS[name].onnx for name in functions)
    ):
        return Plan("native", _native(recurrence))
    if steps == 1:
        return Plan("unrolled", "one time step, no loop")
    if target != "tflite":
        why = f"{target} has no op for this {recurrence.kind} in {recurrence.dtype}"
        if target == "savedmodel" and plain:
            why = "quicker than BlockLSTMV2, which has no product of its own for all inputs at once"
        return Plan("scan", f"one loop over the time steps: {why}")
    if choice == "unrolled":
        if steps is None or steps > UNROLL_LIMIT:
            found = "any number of" if steps is None else str(steps)
            raise UnsupportedModel(
                f"lowering 'unrolled' can't run {found} time steps.\n"
                f"  It takes a fixed number up to {UNROLL_LIMIT}: give --time N, or --lowering loop."
            )
        return Plan("unrolled", f"{steps} copies of the step, as asked")
    size = recurrence.recurrent_kernel.nbytes
    grouped = batch == 1 and recurrence.kind in GATES  # one sample, and a cell whose kernel is known
    if grouped and choice != "loop" and steps is not None and steps <= SHORT and steps * size <= COPIES:
        return Plan("unrolled", f"{steps} copies of the step, no loop: their recurrent kernels fit in the cache")
    return _loops(size, grouped, steps)


def _native(recurrence: Recurrence) -> str:
    """Return the reason for a native op, with what other runtimes than ONNX Runtime make of it otherwise."""
    reason = f"one ONNX {ONNX_OPS[recurrence.kind]} op"
    if recurrence.kind == "lstm" and not holds(recurrence):
        gates = recurrence.recurrent_activation
        reason += f"; masked steps need a runtime that heeds sequence_lens (OpenCV doesn't), as {gates} holds no gate"
    if recurrence.kind == "gru" and not recurrence.reset_after:
        reason += "; needs a runtime that heeds linear_before_reset=0 (MNN doesn't)"
    return reason


def _loops(size: int, grouped: bool, steps: int | None) -> Plan:
    """Return the plan of nested loops.

    Args:
        size: Bytes of the recurrent kernel.
        grouped: Whether a turn may run several steps.
        steps: Time steps, None for any.
    """
    chosen = next(each for limit, each in SCHEDULES.items() if size <= limit) if grouped else STEP_BY_STEP
    blocks = tuple(block for block in chosen.blocks if steps is None or block < steps)
    unroll = chosen.unroll
    if steps is not None and not blocks:  # of a few turns none is to end in steps beyond T
        unroll = -(-steps // -(-steps // unroll))
    reason = f"loops over blocks of {', '.join(map(str, blocks)) or steps} time steps, {unroll} a turn"
    if unroll > 1:
        reason += f": {unroll} copies of the {size / 1000:,.1f} kB recurrent kernel fit in the cache"
    elif grouped:
        reason += f": a step with its {size / 1000:,.1f} kB recurrent kernel takes longer than a turn does"
    return Plan("loop", reason, Schedule(unroll, blocks))


def check_choice(choice: Choice, targets: Sequence[str]) -> None:
    """Refuse a lowering that none of the targets takes.

    Raises:
        UnsupportedModel: Naming the target that does.
    """
    taker = TAKEN_BY.get(choice)
    if taker is not None and taker not in targets:
        raise UnsupportedModel(
            f"lowering {choice!r} is taken by {taker} only, not by {', '.join(targets)}.\n"
            f"  Leave --lowering out, or export to {taker} too."
        )


def check_used(choice: Choice, target: str, plans: Iterable[Plan]) -> None:
    """Refuse a lowering that a target takes but no call of the model has a use for.

    Raises:
        UnsupportedModel: With the reasons of what would be run instead.
    """
    found = list(plans)
    if TAKEN_BY.get(choice) == target and all(each.lowering != choice for each in found):
        instead = " or ".join(dict.fromkeys(each.reason for each in found))
        raise UnsupportedModel(
            f"lowering {choice!r} has no use in the {target} artifact, whose calls are: {instead}.\n"
            "  Leave --lowering out."
        )


def check_types(types: Mapping[str, str], target: str) -> None:
    """Refuse a model that computes in a type its target's runtime doesn't.

    Args:
        types: Each type that layers compute in -> the first layer that does.
        target: "savedmodel", "onnx" or "tflite".

    Raises:
        UnsupportedModel: Naming a layer and the types that the target has.
    """
    for dtype, layer in types.items():
        if dtype in ROUNDINGS and dtype not in TYPES[target]:
            raise UnsupportedModel(
                f"layer {layer!r} computes in {dtype}, which the {target} runtime doesn't.\n"
                f"  It has: {', '.join(TYPES[target])}. Export with --dtype float32 (dtype='float32' in Python) to"
                " compute in that, or to savedmodel."
            )


def describe(plans: Mapping[str, Plan]) -> str:
    """Return one sentence for the plans of all signatures of one layer."""
    return "; ".join(f"{signature}: {chosen.reason}" for signature, chosen in plans.items())
