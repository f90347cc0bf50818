"""Join the two halves of a Bidirectional layer into ONNX's one bidirectional op.

    Given   LSTM(x, W, R, B, , h, c)                    LSTM(x, W', R', B', , h', c') direction=reverse
    Result  LSTM(x, [W; W'], [R; R'], [B; B'], , [h; h'], [c; c']) direction=bidirectional, its outputs split in two

Halves are joined where they read the same input and have the same size; others stay as they are. With a mask each reads
its own: the valid steps in the order it runs them.
"""

from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

KINDS = ("LSTM", "GRU", "RNN")


def join_halves(graph: Any) -> None:
    """Join every pair of halves in a graph, in place; see the module."""
    recurrent = [node for node in graph.node if node.op_type in KINDS]
    backward = [node for node in recurrent if _option(node, "direction") == b"reverse"]
    forward = [node for node in recurrent if _option(node, "direction") is None]
    for back in backward:
        fit = next((node for node in forward if _alike(node, back) and not _linked(graph, node, back)), None)
        if fit is not None:
            forward.remove(fit)
            _join(graph, fit, back)
    if backward:
        _sort(graph)


def _option(node: Any, name: str) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _alike(first: Any, second: Any) -> bool:
    """Whether two nodes run the same op on the same input."""

    def what(node: Any) -> tuple[Any, ...]:
        return node.op_type, node.input[0], _option(node, "hidden_size"), _option(node, "linear_before_reset")

    return what(first) == what(second)


def _linked(graph: Any, first: Any, second: Any) -> bool:
    """Whether one of two nodes reads, by way of others, what the other gives: then they can't be one."""
    made_by = {output: node for node in graph.node for output in node.output}

    def reaches(node: Any, wanted: Any) -> bool:
        waiting = [node]
        seen: set[str] = set()
        while waiting:
            for name in reads(waiting.pop()) - seen:
                seen.add(name)
                maker = made_by.get(name)
                if maker is wanted:
                    return True
                waiting += [maker] if maker is not None else []
        return False

    return reaches(first, second) or reaches(second, first)


def _join(graph: Any, fore: Any, back: Any) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    name = f"{fore.output[0]}__both"
    weights = []
    for k in (1, 2, 3):
        both = np.concatenate([numpy_helper.to_array(stored[node.input[k]]) for node in (fore, back)])
        weights.append(f"{name}_{k}")
        graph.initializer.append(numpy_helper.from_array(both, weights[-1]))
    states = [f"{name}_state_{k}" for k in range(5, len(fore.input))]
    for k, state in enumerate(states, start=5):
        graph.node.append(helper.make_node("Concat", [fore.input[k], back.input[k]], [state], axis=0))
    attributes = {"direction": "bidirectional", "hidden_size": _option(fore, "hidden_size")}
    for option in ("activations", "activation_alpha", "activation_beta"):
        values = [*(_option(fore, option) or []), *(_option(back, option) or [])]
        attributes.update({option: values} if values else {})
    if (linear := _option(fore, "linear_before_reset")) is not None:
        attributes["linear_before_reset"] = linear
    outputs = [f"{name}_{k}_out" for k in range(len(fore.output))]
    graph.node.append(helper.make_node(fore.op_type, [fore.input[0], *weights, "", *states], outputs, **attributes))
    for k, output in enumerate(outputs):  # Y [T, 2, B, U]; final states [2, B, U]
        graph.node.append(helper.make_node("Split", [output], [fore.output[k], back.output[k]], axis=int(k == 0)))
    graph.node.remove(fore)
    graph.node.remove(back)


def _sort(graph: Any) -> None:
    """Put the nodes in an order in which every input is made before it is read."""
    nodes = list(graph.node)
    makers = {output: k for k, node in enumerate(nodes) for output in node.output if output}
    needs = {k: {makers[name] for name in reads(node) if name in makers} for k, node in enumerate(nodes)}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    del graph.node[:]
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        graph.node.extend(nodes[k] for k in ready)
        sorter.done(*ready)


def reads(node: Any) -> set[str]:
    """Return what a node reads, the graphs inside it included."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = attribute.g
            own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
            own |= {output for each in inner.node for output in each.output}
            names |= {name for each in inner.node for name in reads(each)} - own
            names |= {value.name for value in inner.output} - own
    return names
