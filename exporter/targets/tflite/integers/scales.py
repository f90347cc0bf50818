"""What 1 stands for in each tensor of a graph: int16 around 0, one scale for all that pass the same numbers on."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from signatures.ports import Signature

from ..graph import Graph, Op, Tensor
from ..rewrite import ENDLESS

MOST = 32767
UNIT = 1 / 32768
"""Of what lies between -1 and 1: the scale that the kernels of LOGISTIC, TANH and SOFTMAX give."""

BEFORE = 1 / 3072
"""Of what only LOGISTIC and TANH read: beyond 10.67 they give 0.99998 and more. They take 4096 / 3 of their table's
entries a number, so that this scale loses nothing; at 1/4096 LiteRT's take a coarser path."""

ROOM, PRECISE_ROOM, NARROW_ROOM = 2.0, 1.5, 1.2
"""How much more than was seen a tensor can hold: what is cut off is worse than what is rounded, and a bit less of int16
shows beside int8 weights by less than 0.1 dB. Beside int16 ones, and where a state is int8 itself, it shows."""

NEAR = 4096.0
"""How many times larger than a sum's own scale those of what is added may be; 16384 is where a kernel aborts."""

ALIKE = 4.0
"""Tensors whose largest values are within this factor may share a scale, where one passes the other on in part."""

LAYOUT = {
    "BATCH_TO_SPACE_ND",
    "BROADCAST_TO",
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "DYNAMIC_UPDATE_SLICE",
    "EXPAND_DIMS",
    "GATHER",
    "GATHER_ND",
    "MIRROR_PAD",
    "PACK",
    "PAD",
    "PADV2",
    "RESHAPE",
    "REVERSE_V2",
    "SLICE",
    "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SPLIT_V",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
    "UNPACK",
}
"""Ops that give the numbers that go in, elsewhere."""

PASSES = LAYOUT | {
    "AVERAGE_POOL_2D",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MINIMUM",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "SELECT",
    "SELECT_V2",
}
"""Ops whose kernels give numbers on the scale of those that go in."""

GATES = ("LOGISTIC", "TANH")
BOUNDED = {*GATES, "SOFTMAX"}


class Classes:
    """Tensors that share a scale."""

    def __init__(self) -> None:
        """Start with each alone."""
        self._over: dict[int, Tensor] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """Return the one that stands for a tensor's class."""
        while (over := self._over.get(id(tensor), tensor)) is not tensor:
            tensor = over
        return tensor

    def join(self, a: Tensor, b: Tensor) -> None:
        """Have two share a scale from now on."""
        self._over[id(self.of(a))] = self.of(b)


def scales(
    graph: Graph, step: Signature, most: Mapping[int, float], narrow: Collection[int], precise: bool
) -> dict[int, float]:
    """Choose what 1 stands for in each float tensor that is computed or goes in.

    Args:
        graph: The graph.
        step: Its ports; both ends of a carry get one scale.
        most: The largest absolute value that was seen, by the id of a tensor.
        narrow: The ids of states that are int8 at the ports.
        precise: Whether weights are int16.

    Returns:
        The same by id.
    """
    classes = Classes()
    carried = [(graph.outputs[carry.output], graph.inputs[carry.input]) for carry in step.carries]
    carried = [pair for pair in carried if pair[0].floating]
    for pair in carried:
        classes.join(*pair)
    initial = {id(graph.inputs[port.name]): port.initial for port in step.inputs}
    started = [pair for pair in carried if not 1 < abs(initial[id(pair[1])]) < ENDLESS]  # what is beyond is cut off
    within = _within_one(graph, started)
    for op in graph.ops:
        if op.kind in PASSES:
            reads = [each for each in op.reads if each.floating and each.data is None]
            for read in reads:
                for output in op.outputs if op.outputs[0].floating else []:
                    alike = max(most[id(read)], most[id(output)]) <= ALIKE * min(most[id(read)], most[id(output)])
                    if len(reads) == 1 or (alike and (id(read) in within) == (id(output) in within)):
                        classes.join(read, output)
    members: dict[int, list[Tensor]] = {}
    for tensor in graph.tensors():
        if tensor.floating and tensor.data is None:
            members.setdefault(id(classes.of(tensor)), []).append(tensor)
    found = {}
    for group in members.values():
        coarse = any(id(each) in narrow for each in group)
        room = NARROW_ROOM if coarse else PRECISE_ROOM if precise else ROOM
        scale = _scale(graph, group, max(most[id(each)] for each in group) * room, within)
        found.update({id(each): scale for each in group})
    return _near(graph, found, list(members.values()))


def _near(graph: Graph, found: dict[int, float], groups: Sequence[Sequence[Tensor]]) -> dict[int, float]:
    """Return scales of which none is so small beside those of what it is made of that a kernel ends the process.

    LiteRT's ADD and SUB multiply by twice the larger scale over 2**15 times that of the sum, and abort where that is
    above 1. A sum that is always zero, of units that are never on, would have such a scale.
    """
    group_of = {id(each): group for group in groups for each in group}
    changed = True
    while changed:
        changed = False
        for op in (op for op in graph.ops if op.kind in ("ADD", "SUB") and id(op.outputs[0]) in found):
            constant = [float(np.abs(each.data).max(initial=0.0)) / MOST for each in op.reads if each.data is not None]
            least = max([*constant, *(found[id(each)] for each in op.reads if id(each) in found)]) / NEAR
            if found[id(op.outputs[0])] < least:
                found.update({id(each): least for each in group_of[id(op.outputs[0])]})
                changed = True
    return found


def _scale(graph: Graph, group: Sequence[Tensor], most: float, within: set[int]) -> float:
    """Return the scale of tensors that share one and hold values up to `most`."""
    if all(id(each) in within for each in group):
        return UNIT
    inner = {id(each) for each in group}
    readers = [op for each in group for op in graph.readers(each) if not inner.issuperset(map(id, op.outputs))]
    outer = inner & {id(each) for each in (*graph.outputs.values(), *graph.inputs.values())}
    if readers and not outer and all(op.kind in GATES for op in readers):
        return BEFORE
    scale = float(np.float32(max(most, 1e-6) / MOST))
    return scale * (1 + 1e-6) if np.log2(scale) % 1 == 0 and any(op.kind in GATES for op in readers) else scale


def _within_one(graph: Graph, carried: Sequence[tuple[Tensor, Tensor]]) -> set[int]:
    """Return the ids of the tensors that can't leave [-1, 1], whatever goes in: gates, what they let through, h.

    A state that starts within is one if it stays there as long as it is one.
    """
    states = {id(inside): outside for outside, inside in carried}
    while True:
        within = set(states)
        for op in graph.ops:
            if _stays(op, within):
                within |= {id(each) for each in op.outputs}
        left = {key: outside for key, outside in states.items() if id(outside) in within}
        if len(left) == len(states):
            return within
        states = left


def _stays(op: Op, within: set[int]) -> bool:
    """Whether an op gives nothing beyond -1 and 1, where some tensors don't hold anything beyond."""

    def inside(tensor: Tensor) -> bool:
        return id(tensor) in within if tensor.data is None else bool(np.all(np.abs(tensor.data) <= 1))

    if op.kind in BOUNDED:
        return True
    if op.kind == "MUL":
        return all(map(inside, op.reads))
    if op.kind in PASSES:
        return op.outputs[0].floating and all(inside(each) for each in op.reads if each.floating)
    return op.outputs[0].mix is not None and all(map(inside, op.outputs[0].mix))
