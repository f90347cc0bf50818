"""What an emitter is told, and what many of them need."""

from collections.abc import Callable, Sequence
from typing import Protocol

from signatures.ports import Array

from .graph import Graph, Operator, Tensor, unknown
from .text import Lines, Place, copy


class Env(Protocol):
    """What an emitter is told.

    Attributes:
        graph: Where the operator is.
    """

    graph: Graph

    @property
    def taken(self) -> Sequence[str]:
        """Names that are taken in the function."""

    def at(self, number: int) -> Place:
        """Return where a tensor's numbers are."""

    def constant(self, array: Array, use: str) -> Place:
        """Return the constant array of these numbers, in its own order.

        Args:
            array: The numbers.
            use: What they are, for its name: "lstm_matmul_weights".
        """

    def name(self, number: int) -> str:
        """Return what a tensor is called."""


Emitter = Callable[[Env, Operator], Lines]
"""Returns the statements of an operator."""


def data_of(env: Env, operator: Operator, number: int, what: str) -> Array:
    """Return the numbers of a constant input.

    Raises:
        UnsupportedModel: When it is computed.
    """
    data = env.graph.tensors[number].data
    if data is None:
        raise unknown(env.graph, operator, f"{what} is computed")
    return data


def ends(env: Env, operator: Operator) -> tuple[Tensor, Tensor, Place, Place]:
    """Return the first input and output, and where they are."""
    [x, *_], [y, *_] = operator.inputs, operator.outputs
    return env.graph.tensors[x], env.graph.tensors[y], env.at(x), env.at(y)


def plus(place: Place, at: str) -> str:
    """Return the address of a number in a place."""
    return place.pointer if at == "0" else f"{place.pointer} + {at}"


def start(y: Place, bias: Place | None, count: int, at: str = "0") -> str:
    """Return what puts the bias, or zeros, into an output."""
    pointer = y.pointer if at == "0" else f"{y.pointer} + {at}"
    return copy(pointer, bias.pointer, count, "float") if bias else f"memset({pointer}, 0, {count} * sizeof(float));"


def bias_of(env: Env, operator: Operator, place: int) -> Place | None:
    """Return where the bias is, None where there is none; it is an input by its place."""
    if len(operator.inputs) <= place or operator.inputs[place] < 0:
        return None
    number = operator.inputs[place]
    data = env.graph.tensors[number].data
    if data is None:
        return env.at(number)
    return env.constant(data, f"{env.name(operator.outputs[0])}_bias") if data.any() else None
