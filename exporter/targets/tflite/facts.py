"""How TFLite runs recurrences. It has no op that exposes its state.

A few steps are unrolled, see SHORT; a sequence runs in blocks of time steps, see SCHEDULES.
"""

from collections.abc import Mapping

from signatures.contract import Contract
from signatures.errors import UnsupportedModel
from signatures.ports import Port, Signature

from ...lower.plan import ONE_STEP, STEP_BY_STEP, Choice, Plan, Schedule
from ...memory.recurrence import GATES, Recurrence

UNROLL_LIMIT = 256
"""Unrolled steps beyond which a TFLite graph is refused: it holds some 12 ops a step, and loads and plans slowly."""

SHORT, COPIES = 16, 1 << 20
"""Fixed time steps, and bytes of all their copies of the recurrent kernel, up to which TFLite runs one sample unrolled.

A call saves the 15 to 30 us that its loop takes to be entered: it takes 0.2 to 0.6 of the time. Half a core's level 2
cache is for the copies: with twice as many they take longer than the loop. And 16 steps are 25 kB of the file.
Measured with LiteRT 2.3.
"""

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


def graphs(contract: Contract, inputs: tuple[Port, ...], dims: Mapping[str, int]) -> dict[str, Signature]:
    """Return a graph for each signature; see Facts.graphs."""
    return {name: signature.fixed(dims) for name, signature in contract.signatures.items()}


def plan(recurrence: Recurrence, steps: int | None, choice: Choice = "auto", batch: int | None = None) -> Plan:
    """Choose the lowering of a recurrence in one graph; see Facts.plan."""
    if steps == 1:
        return ONE_STEP
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
