"""What a layer remembers of earlier time steps besides a recurrence, and which calls of a model's layers do."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from signatures.contract import sequences_output, state_output
from signatures.ports import Port

from .attention import Cache
from .recurrence import port_dtype
from .ring import Ring
from .window import Clock, Past, State, Wait

Tensor = Any
Array = NDArray[Any]


class Form(Protocol):
    """How a layer goes on from where the last call ended."""

    @property
    def states(self) -> Mapping[str, State]:
        """Short name -> each state that is carried."""

    @property
    def gated(self) -> bool:
        """Whether it must not see rows before the first one that Keras has."""

    def advance(
        self, call: Callable[..., Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run a call of the layer.

        Args:
            call: The layer's own, on inputs of any number of rows.
            inputs: Those with rows, [B, rows, ...], of this call.
            states: After the last one, in the order of `states`.
            valid: Which rows of the input count, [B, rows] bool; None for all.

        Returns:
            (the output, the new states).
        """

    def reached(self, rows: Sequence[Array], mask: Array | None) -> list[Array]:
        """Return the states after a recording, in NumPy: the second witness of `advance`.

        Args:
            rows: All rows that each input has had so far, as Keras gives them, [B, rows, ...].
            mask: Which of them count, where the layer takes a mask.
        """


@dataclass(frozen=True)
class Memory:
    """One call of a layer or operation that remembers.

    Attributes:
        name: Port prefix.
        target: The layer or operation.
        nth: Which call of it, from 0.
        clocks: Of each tensor that it is called with; None for one without rows.
        form: What it remembers.
    """

    name: str
    target: Any
    nth: int
    clocks: tuple[Clock | None, ...]
    form: Form

    @property
    def ports(self) -> dict[str, Port]:
        """Short name of a state -> the port that gives it."""
        return {
            short: Port(
                state_output(self.name, short),
                "state",
                ("batch", *state.shape),
                port_dtype(state.dtype),
                state.below,
                initial=state.initial,
            )
            for short, state in self.form.states.items()
        }


@dataclass(frozen=True)
class Memories:
    """Everything that a model remembers besides its recurrences.

    Attributes:
        calls: The calls that remember, in the order they are made.
        every: Time steps of which a call takes a multiple.
        timed: Number of the model input whose rows are the time steps.
        counter: Port of the stream's time steps, counted up to where every row of every layer counts.
        gated: How many these are; 0 where all rows count from the start: there is no such port.
        recurrent: Name of a recurrent call -> the clock of its input.
        outputs: Clock of each of the model's outputs; None for one without rows.
        blocks: Paths of layers that are taken as one with what they hold.
        rows: (A layer's or operation's id, which call of it) -> the clock of its output, where it has rows.
    """

    calls: tuple[Memory, ...] = ()
    every: int = 1
    timed: int = 0
    counter: str = "steps"
    gated: int = 0
    recurrent: Mapping[str, Clock] = field(default_factory=dict)
    outputs: tuple[Clock | None, ...] = ()
    blocks: frozenset[str] = frozenset()
    rows: Mapping[tuple[int, int], Clock] = field(default_factory=dict)

    @property
    def ports(self) -> tuple[Port, ...]:
        """The ports that give what is remembered."""
        counter = [Port(self.counter, "state", ("batch",), "int32", self.gated + 1)] if self.gated else []
        return (*(port for call in self.calls for port in call.ports.values()), *counter)

    def clocks(self, order: Sequence[str]) -> dict[str, Clock]:
        """Return the clock of each port with rows, given the ports of the model's outputs in its order."""
        outputs = {port: clock for port, clock in zip(order, self.outputs, strict=False) if clock}
        return {**outputs, **{sequences_output(name): clock for name, clock in self.recurrent.items()}}

    @property
    def beyond(self) -> int:
        """Time steps after those of a call without which Keras hasn't all of its rows: it crops them at the end."""
        clocks = (*self.outputs, *self.recurrent.values(), *(clock for call in self.calls for clock in call.clocks))
        steps = max((math.ceil(-clock.ahead * clock.rate) for clock in clocks if clock), default=0)
        return -(-max(steps, 0) // self.every) * self.every

    @property
    def within(self) -> int | None:
        """Time steps of a recording up to which its attentions look at all that they do in Keras; None for any."""
        caches = [(call.form, clock) for call in self.calls for clock in call.clocks if clock]
        ends = [form.rows * clock.rate for form, clock in caches if isinstance(form, Cache) and not form.own]
        return math.floor(min(ends)) if ends else None

    @property
    def span(self) -> int:
        """Time steps after which nothing is left of a stream's start in what is remembered of rows, nor a delay."""
        reach = [self.gated, *(math.ceil(clock.delay * clock.rate) for clock in self.outputs if clock)]
        for call in self.calls:
            if isinstance(call.form, (Past, Ring, Wait, Cache)):
                kept = max((state.shape[0] for state in call.form.states.values() if state.shape), default=0)
                reach += [math.ceil((kept + clock.delay) * clock.rate) for clock in call.clocks if clock]
        return max(reach)


NOTHING = Memories()
"""What a model remembers of whose layers only recurrent ones do."""
