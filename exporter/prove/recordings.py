"""What a stream must give, from Keras' runs on whole recordings: for models whose layers remember more than a state.

    Given   a recording of P + T time steps
    states  those after the first P steps of it, streamed from the start
    expect  what plain Keras gives on all P + T, of that the rows that come in the last T; and the states that its rows
            come to, in NumPy

The states aren't drawn, for most of what could be drawn no recording leads to.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import Contract
from signatures.errors import FeedError
from signatures.ports import Array, Signature, by_samples
from signatures.stream import cut

from ..memory.form import Memories
from ..memory.window import Clock
from ..model.function import Model
from ..model.law import clocks_of
from ..model.remember import Watched, limited, watched
from ..model.swap import Call, Compute, keras_loop


def whole(model: Model, signature: Signature, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the user's own data as a recording.

    Raises:
        FeedError: When it holds states, or is shorter than what the model remembers.
    """
    if given := [name for name in feeds if name in model.states]:
        raise FeedError(f"{given[0]!r} is what a layer remembers: give a recording from its start, without states.")
    total, span = signature.time_steps(feeds), model.memories.span
    if total <= span:
        raise FeedError(f"The recording has {total} time steps; the model remembers {span}: give more.")
    return dict(feeds)


def reached(model: Model, contract: Contract, feeds: Mapping[str, Array], before: int) -> dict[str, Array]:
    """Return the feeds of the steps after the first ones of a recording, with the states that these lead to."""
    signature = next(iter(contract.signatures.values()))
    total = signature.time_steps(feeds)
    start = {**signature.initial_state(signature.count(feeds)), **feeds}
    if not before:
        return start

    def stream(feeds: Mapping[str, Array]) -> dict[str, Array]:
        ports = model.run(_tensors(feeds), keras_loop).ports(contract.outputs)
        dtypes = {port.name: port.dtype for port in signature.outputs}
        carried = (carry.output for carry in signature.carries)
        return {output: np.asarray(ports[output]).astype(dtypes[output]) for output in carried}

    ports = by_samples(signature, cut(start, signature.inputs, 0, before), model.batch, stream)
    states = {carry.input: ports[carry.output] for carry in signature.carries}
    return {**cut(start, signature.inputs, before, total - before), **states}


def played(
    model: Model,
    contract: Contract,
    feeds: Mapping[str, Array],
    before: int,
    compute: Compute,
    layers: Callable[[Memories], AbstractContextManager[None]] = limited,
) -> dict[str, Array]:
    """Return every port of a stream after the first steps of a recording, from a run of plain Keras on all of it.

    Args:
        model: The model.
        contract: Its ports.
        feeds: Input port -> the recording [B, P + T, ...], from its start.
        before: P; rows that come before Keras' first aren't in the outputs.
        compute: How a recurrent call is computed.
        layers: What other layers are computed by while it is active: as Keras has them, or by equations.
    """
    signature, memories = next(iter(contract.signatures.values())), model.memories
    total = signature.time_steps(feeds)
    of_all = [port for port in contract.outputs if not signature.ports[port].timed]

    def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with layers(memories), watched(model.keras, memories.blocks) as record:
            ran = model.run(_tensors(_longer(signature, feeds, memories.beyond)), _until(memories, total, compute))
        own, clocks = ran.ports(contract.outputs), clocks_of(memories, contract.outputs, ran.calls)
        found = {**own, **_states(memories, record, total, signature.count(feeds))}
        if of_all and memories.beyond:  # what has no rows is of these time steps alone
            with layers(memories):
                short = model.run(_tensors(feeds), compute).ports(contract.outputs)
            found |= {port: short[port] for port in of_all}
        outputs = {}
        for port in signature.outputs:
            value = np.asarray(found[port.name]).astype(port.dtype)
            if port.time_axis is not None:
                clock = clocks.get(port.name) or Clock()
                first, end = (int(steps / clock.rate) - clock.delay for steps in (before, total))
                value = port.steps(value, max(first, 0), end - max(first, 0))
            outputs[port.name] = value
        return outputs

    return by_samples(signature, feeds, model.batch, call)


def _until(memories: Memories, total: int, compute: Compute) -> Compute:
    """Return what computes recurrent calls, with the states of the last row that has come after so many time steps."""

    def run(made: Call) -> tuple[Any, list[Any]]:
        clock = memories.recurrent.get(made.name)
        if clock is None or not (clock.ahead or memories.beyond):
            return compute(made)
        sequences, _ = compute(made)
        return sequences, compute(made.first(int(total / clock.rate) - clock.delay))[1]

    return run


def _states(memories: Memories, record: Sequence[Watched], total: int, batch: int) -> dict[str, Array]:
    """Return what layers remember after so many time steps, by their equations in NumPy."""
    calls: dict[tuple[int, int], Watched] = {(id(entry.target), entry.nth): entry for entry in record}
    states: dict[str, Array] = {}
    for memory in memories.calls:
        entry = calls[id(memory.target), memory.nth]
        timed = [(x, clock) for x, clock in zip(entry.inputs, memory.clocks, strict=True) if clock]
        ends = [int(total / clock.rate) - clock.delay for _, clock in timed]
        rows = [_exact(x)[:, : max(end, 0)] for (x, _), end in zip(timed, ends, strict=True)]
        mask = None if entry.mask is None else np.asarray(entry.mask)[:, : ends[0]]
        for port, state in zip(memory.ports.values(), memory.form.reached(rows, mask), strict=True):
            states[port.name] = state
    if memories.gated:
        states[memories.counter] = np.full(batch, min(total, memories.gated), np.int32)
    return states


def _exact(x: Any) -> Array:
    """Return a tensor's numbers, floats in float64."""
    value = np.asarray(x if x.dtype.name != "bfloat16" else tf.cast(x, "float32"))
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _longer(signature: Signature, feeds: Mapping[str, Array], steps: int) -> dict[str, Array]:
    """Return a recording that goes on for some time steps, like its last one: no row of before depends on them."""
    longer = dict(feeds)
    for port in (port for port in signature.inputs if steps and port.time_axis is not None):
        last = np.take(feeds[port.name], [-1], axis=port.time_axis)
        longer[port.name] = port.in_a_row([feeds[port.name], np.repeat(last, steps, axis=port.time_axis)])
    return longer


def _tensors(feeds: Mapping[str, Array]) -> dict[str, Any]:
    return {name: tf.constant(value) for name, value in feeds.items()}
