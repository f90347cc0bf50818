"""A graph made simpler before it is written: nothing that nobody reads, no operator for what needn't be computed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from .graph import Graph, Operator, Tensor
from .views import aliases


def simplified(graph: Graph, states: Iterable[tuple[str, str]]) -> tuple[Graph, dict[int, tuple[int, int]]]:
    """Return a graph without operators that only rename, and what they rename: see views.aliases.

    Args:
        graph: As it was read.
        states: Output port -> input port that it is fed back as.
    """
    tensors = list(graph.tensors)
    for operator in graph.operators:
        if operator.kind == "SHAPE":
            output = operator.outputs[0]
            shape = np.array(tensors[operator.inputs[0]].shape, tensors[output].dtype)
            tensors[output] = replace(tensors[output], data=shape)
    graph = Graph(
        tensors, [each for each in graph.operators if each.kind != "SHAPE"], graph.inputs, dict(graph.outputs)
    )
    renamed = aliases(graph)
    _apart(graph, renamed, dict(states))
    graph.operators = [each for each in graph.operators if not all(output in renamed for output in each.outputs)]
    _sums_of_products(graph, renamed)
    _only_needed(graph, renamed)
    return graph, renamed


def _apart(graph: Graph, renamed: dict[int, tuple[int, int]], states: dict[str, str]) -> None:
    """Copy the states of other ports that a state becomes as they are, since they are written over.

    Given   output a_h is the tensor of input b_h_in, which becomes something else
    Result  output a_h is COPY of it
    """
    inputs = {number: port for port, number in graph.inputs.items() if port in states.values()}
    for output, own in states.items():
        whole, _ = renamed.get(graph.outputs[output], (graph.outputs[output], 0))
        if inputs.get(whole, own) != own:
            number = graph.add(replace(graph.tensors[graph.outputs[output]], name=output))
            graph.operators.append(Operator("COPY", (graph.outputs[output],), (number,)))
            graph.outputs[output] = number


def _sums_of_products(graph: Graph, renamed: dict[int, tuple[int, int]]) -> None:
    """Let a product add to another one where their sum is all that is taken of both.

    Given   p = FULLY_CONNECTED(x, W, bias); q = FULLY_CONNECTED(h, R); y = ADD(p, q)
    Result  y = FULLY_CONNECTED(x, W, bias, h, R)
    """
    makers = {output: each for each in graph.operators for output in each.outputs}
    taken = Counter(_whole(renamed, n) for each in graph.operators for n in {*each.inputs})
    taken.update(_whole(renamed, number) for number in graph.outputs.values())
    for place, operator in enumerate(graph.operators):
        if operator.kind != "ADD":
            continue
        wholes = [_whole(renamed, number) for number in operator.inputs]
        products = [makers.get(whole) for whole in wholes]
        first, second = products
        if first is None or second is None or first is second or any(taken[whole] > 1 for whole in wholes):
            continue
        if any(not _is_product(graph, each) for each in (first, second)):
            continue
        sizes = {graph.tensors[n].size for n in (*operator.inputs, *wholes, *operator.outputs)}
        columns = {graph.tensors[each.inputs[1]].shape[0] for each in (first, second)}
        if len(sizes) > 1 or len(columns) > 1:
            continue
        bias = _added(graph, first.inputs[2], second.inputs[2])
        inputs = (*first.inputs[:2], bias, *first.inputs[3:], *second.inputs[:2], *second.inputs[3:])
        graph.operators[place] = replace(first, inputs=inputs, outputs=operator.outputs)
        makers[operator.outputs[0]] = graph.operators[place]


def _is_product(graph: Graph, operator: Operator) -> bool:
    """Whether an operator is a product with constant kernels and a constant bias, or none."""
    constant = [n for n in operator.inputs[1:2] + operator.inputs[2:3] + operator.inputs[4::2] if n >= 0]
    return operator.kind == "FULLY_CONNECTED" and len(operator.inputs) > 2 and all(
        graph.tensors[n].data is not None for n in constant
    )  # fmt: skip


def _added(graph: Graph, first: int, second: int) -> int:
    """Return the sum of two constant tensors, each of which may be left out."""
    if first < 0 or second < 0:
        return max(first, second)
    a, b = graph.tensors[first].data, graph.tensors[second].data
    assert a is not None
    assert b is not None
    return graph.add(Tensor(a.shape, str(a.dtype), a + b, graph.tensors[first].name))


def _only_needed(graph: Graph, renamed: dict[int, tuple[int, int]]) -> None:
    """Leave out operators of which no output port is made."""
    needed, kept = {_whole(renamed, number) for number in graph.outputs.values()}, []
    for operator in reversed(graph.operators):
        if needed & {*operator.outputs}:
            kept.append(operator)
            needed |= {_whole(renamed, number) for number in operator.inputs}
    graph.operators = kept[::-1]


def _whole(renamed: dict[int, tuple[int, int]], number: int) -> int:
    return renamed.get(number, (number, 0))[0]
