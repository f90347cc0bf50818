"""What every tensor of a graph holds while recordings stream through it, their states carried from step to step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from signatures.contract import Contract
from signatures.errors import FeedError
from signatures.ports import Array, Feeds, Signature
from signatures.stream import Stream

from ..graph import Graph, written
from ..rewrite import ENDLESS
from .products import Sum


@dataclass(frozen=True)
class Calibration:
    """What was seen.

    Attributes:
        most: Of each float tensor, by id, the largest absolute value, but for what a maximum starts from.
        inputs: Of each sum of products, in the order they were given in: what goes into each product, [n, K]. Nothing
            where rows of weights can't make up for each other.
    """

    most: Mapping[int, float]
    inputs: Sequence[Sequence[Array]]


def calibrated(graph: Graph, contract: Contract, recordings: Sequence[Feeds], sums: Sequence[Sum]) -> Calibration:
    """Stream recordings through a graph, each from the start.

    Args:
        graph: Of the signature `step`.
        contract: With this signature alone.
        recordings: Input port -> [1, T, ...], one dict a recording; inputs without a time axis as they are.
        sums: The products whose inputs are wanted.

    Raises:
        FeedError: When a recording doesn't fit the ports, or none is as long as a call.
    """
    interpreter = Interpreter(
        model_content=written(graph, "step"),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    tensors = list(graph.tensors())
    place = {id(each): k for k, each in enumerate(tensors)}
    watched = [(k, id(each)) for k, each in enumerate(tensors) if each.floating and each.data is None]
    most = dict.fromkeys((key for _, key in watched), 0.0)
    rows: list[list[list[Array]]] = [[[] for _ in each.products] if each.compensates else [] for each in sums]
    count, finite = 0, True

    def run(_: str, feeds: Feeds) -> dict[str, Array]:
        nonlocal count, finite
        count += 1
        for name, tensor in graph.inputs.items():
            interpreter.set_tensor(place[id(tensor)], feeds[name])
        interpreter.invoke()
        for index, key in watched:
            value = interpreter.get_tensor(index)
            finite &= not np.isnan(value).any()
            most[key] = max(most[key], float(np.abs(value).max(initial=0, where=np.abs(value) < ENDLESS)))
        for total, seen in zip(sums, rows, strict=True):
            for each, inputs in zip(total.products, seen, strict=False):
                inputs.append(each.rows(interpreter.get_tensor(place[id(each.x)])))
        return {name: interpreter.get_tensor(place[id(tensor)]) for name, tensor in graph.outputs.items()}

    step = contract.signatures["step"]
    batch = next(iter(contract.artifacts.values())).dims.get("batch", 1)
    for recording in recordings:
        if feeds := _whole(step, recording):
            known = {name: each for name, each in feeds.items() if name in step.ports}
            beside = step.samples(known, np.zeros(batch, int))
            Stream(contract, {"batch": batch}, run, batch).push(**{**feeds, **beside})
    if not count:
        raise FeedError(f"calibration: no recording is as long as a call, {step.every} time steps; give longer ones.")
    if not finite:
        raise FeedError("calibration: the model gives NaN on a recording; leave that one out.")
    return Calibration(most, [[np.concatenate(each) for each in seen] for seen in rows])


def _whole(step: Signature, recording: Feeds) -> Feeds:
    """Return a recording without the time steps at its end that make no call; nothing where there is no call."""
    timed = [port for port in step.inputs if port.timed]
    if any(port.name not in recording for port in timed):
        return recording  # which a stream says best
    steps = min((np.shape(recording[port.name])[port.time_axis or 0] for port in timed), default=0)
    whole = steps - steps % step.every
    cut = {port.name: port.steps(recording[port.name], 0, whole) for port in timed} if whole else {}
    return {**recording, **cut} if whole else {}
