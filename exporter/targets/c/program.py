"""A graph as the body of one function: which statements in which order, and where each tensor is kept.

    Given   the graph of `step`, and which outputs are fed back as which inputs
    Result  constants, the sizes of the scratch arrays, and the statements, each with a comment of what it is

States are written in place where nothing reads the old ones any more; elsewhere at the end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from signatures.ports import Array, Signature, show

from .folds import FOLDS
from .fuse import Groups, uses
from .graph import Graph, readable, unknown
from .loop import Loop
from .memory import Span, packed
from .moves import MOVES
from .names import Names
from .pointwise import C_TYPES, FORMULAS
from .products import PRODUCTS
from .rewrite import simplified
from .text import Lines, Place, copy
from .views import SAME_NUMBERS
from .windows import WINDOWS

OPERATORS = {**FOLDS, **MOVES, **PRODUCTS, **WINDOWS}
"""Operator -> what writes it; those of one number for each are in FORMULAS."""


@dataclass(frozen=True)
class Member:
    """A state, a member of the struct: its name in C, its output and input ports, and the tensor of that, if any."""

    name: str
    output: str
    input: str
    tensor: int | None


@dataclass
class Program:
    """The function of one signature, ready to be printed.

    Attributes:
        members: The states, in the order of their inputs.
        arguments: Other ports -> their names in C, inputs first.
        constants: Name -> numbers.
        scratch: NumPy's name of a type -> how many numbers of it the function works with.
        body: The statements.
    """

    members: list[Member]
    arguments: dict[str, str]
    constants: dict[str, Array] = field(default_factory=dict)
    scratch: dict[str, int] = field(default_factory=dict)
    body: Lines = field(default_factory=list)


def program(graph: Graph, signature: Signature) -> Program:
    """Return the function of a signature.

    Raises:
        UnsupportedModel: Naming the first operator that has no form in C.
    """
    for operator in graph.operators:
        if operator.kind not in (*FORMULAS, *OPERATORS, *SAME_NUMBERS, "SHAPE"):
            raise unknown(graph, operator, "that operator isn't written in C")
    return _Writer(graph, signature).written()


def scratch_name(dtype: str) -> str:
    """Return what the scratch array of a type is called in the struct."""
    return "scratch" if dtype == "float32" else f"scratch_{dtype}"


class _Writer:
    """What is known while a function is written; an Env."""

    def __init__(self, graph: Graph, signature: Signature) -> None:
        """Simplify the graph, put it in order, and name the ports."""
        states = {carry.input: carry.output for carry in signature.carries}
        self.graph, self._aliases = simplified(graph, ((output, own) for own, output in states.items()))
        self._names = Names()
        inputs = [port.name for port in signature.inputs]
        members = [
            Member(self._names.new(states[name]), states[name], name, self.graph.inputs.get(name))
            for name in inputs
            if name in states
        ]
        others = [name for name in inputs if name not in states]
        others += [port.name for port in signature.outputs if port.name not in states.values()]
        self._program = Program(members, {name: self._names.new(name) for name in others})
        groups = Groups(self.graph, self._aliases)
        self._order = groups.ordered()
        self._stored = {k: groups.stored(k) for group in self._order for k in group}
        self._places: dict[int, Place] = {}
        self._known: dict[tuple[str, bytes], str] = {}

    @property
    def taken(self) -> Sequence[str]:
        """Names that nothing else may have in the function."""
        return (*self._names.taken, *self._program.constants)

    def at(self, number: int) -> Place:
        """Return where a tensor's numbers are; see Env."""
        whole, offset = self._aliases.get(number, (number, 0))
        data = self.graph.tensors[whole].data
        if whole not in self._places and data is not None:
            return self.constant(data, f"{self._current}_constant").after(offset)
        return self._places[whole].after(offset)

    def name(self, number: int) -> str:
        """Return what a tensor is called, layer/operation; see Env."""
        port = next((port for port, each in self.graph.outputs.items() if each == number), None)
        return port or readable(self.graph.tensors[number].name) or "value"

    def constant(self, array: Array, use: str) -> Place:
        """Return the constant array of these numbers; see Env."""
        key = str(array.dtype), array.tobytes()
        if key not in self._known:
            self._known[key] = self._names.new(use.lower())
            self._program.constants[self._known[key]] = array.ravel()
        return Place(self._known[key])

    def written(self) -> Program:
        """Return the program."""
        made = self._program
        for member in made.members:
            if member.tensor is not None:
                self._places[member.tensor] = Place(f"state->{member.name}")
        for port, number in self.graph.inputs.items():
            if port in made.arguments:
                self._places[number] = Place(made.arguments[port])
        declared = self._place_all()
        for step, group in enumerate(self._order):
            made.body += ["", f"/* {self._told(group)} */", *declared.get(step, []), *self._statement(group)]
        made.body += ["", *self._ends()]
        made.body[:] = made.body[1:]
        return made

    def _statement(self, group: list[int]) -> Lines:
        operators = [self.graph.operators[k] for k in group]
        self._current = self.name(operators[-1].outputs[0])
        if operators[0].kind in FORMULAS:
            return Loop(self, self._aliases, operators, [self._stored[k] for k in group]).lines()
        return OPERATORS[operators[0].kind](self, operators[0])

    def _told(self, group: list[int]) -> str:
        """Say what a statement is: the layer, its operators and their sizes."""
        operators = [self.graph.operators[k] for k in group]
        last = operators[-1]
        layer = self.name(last.outputs[0]).rpartition("/")[0] or next(
            (name for each in operators[::-1] if (name := self.name(each.outputs[0]).rpartition("/")[0])), ""
        )
        kinds = ", ".join(dict.fromkeys(each.kind for each in operators))
        sizes = show(self.graph.tensors[last.outputs[0]].shape)
        if last.kind not in FORMULAS:
            taken = [self.graph.tensors[n] for n in last.inputs if n >= 0]
            sizes = ", ".join(show(each.shape) for each in taken if each.data is None) + f" -> {sizes}"
        return f"{layer}: " * bool(layer) + f"{kinds} {sizes}"

    def _place_all(self) -> dict[int, Lines]:
        """Find a place for each tensor that is stored; return statement -> the declarations that go before it."""
        last: dict[int, int] = {}
        for step, group in enumerate(self._order):
            for k in group:
                last.update((self._whole(number), step) for number in self.graph.operators[k].inputs)
        last.update((self._whole(number), len(self._order)) for number in self.graph.outputs.values())
        made = {
            output: step
            for step, group in enumerate(self._order)
            for k in group
            if self._stored[k] or self.graph.operators[k].kind not in FORMULAS
            for output in self.graph.operators[k].outputs
        }
        for member in self._program.members:
            whole, offset = self._aliases.get(self.graph.outputs[member.output], (self.graph.outputs[member.output], 0))
            same = self.graph.tensors[whole].size == self.graph.tensors[self.graph.outputs[member.output]].size
            free = whole in made and offset == 0 and same and whole not in self._places
            if free and self._in_place(member, made[whole], last):
                self._places[whole] = Place(f"state->{member.name}")
        rest = {number: step for number, step in made.items() if number not in self._places}
        declared: dict[int, Lines] = {}
        for dtype in dict.fromkeys(self.graph.tensors[number].dtype for number in rest):
            own = [number for number in rest if self.graph.tensors[number].dtype == dtype]
            spans = [Span(self.graph.tensors[n].size, rest[n], last.get(n, rest[n])) for n in own]
            starts, self._program.scratch[dtype] = packed(spans)
            for number, start in zip(own, starts, strict=True):
                name = self._names.new(self.name(number).lower())
                self._places[number] = Place(name)
                place = Place(f"state->{scratch_name(dtype)}", start).pointer
                declared.setdefault(rest[number], []).append(f"{C_TYPES[dtype]} *const {name} = {place};")
        return declared

    def _in_place(self, member: Member, step: int, last: dict[int, int]) -> bool:
        """Whether nothing reads a state's old numbers when its new ones are written, or just those in their place."""
        if member.tensor is None or last.get(member.tensor, -1) < step:
            return True
        if last[member.tensor] > step:
            return False
        operators = [self.graph.operators[k] for k in self._order[step]]
        if operators[0].kind == "DYNAMIC_UPDATE_SLICE":
            return [self._whole(n) for n in operators[0].inputs].count(member.tensor) == 1 and (
                self._aliases.get(operators[0].inputs[0], (operators[0].inputs[0], 0)) == (member.tensor, 0)
            )
        if operators[0].kind not in FORMULAS:
            return False
        taken = [
            use for each in operators for use in uses(self.graph, self._aliases, each) if use.whole == member.tensor
        ]
        sizes = {self.graph.tensors[each.outputs[0]].size for each in operators if any(
            self._whole(n) == member.tensor for n in each.inputs)}  # fmt: skip
        size = self.graph.tensors[operators[-1].outputs[0]].size
        return sizes == {size} and all(use.offset == 0 and not use.spread for use in taken)

    def _ends(self) -> Lines:
        """Return what gives the outputs, those that are wanted, and then the states that aren't in their place yet."""
        lines = Lines()
        for port, number in self.graph.outputs.items():
            if port in self._program.arguments:
                name, tensor = self._program.arguments[port], self.graph.tensors[number]
                copied = copy(name, self.at(number).pointer, tensor.size, C_TYPES[tensor.dtype])
                lines += [f"if ({name} != NULL)", f"    {copied}"]
        for member in self._program.members:
            number = self.graph.outputs[member.output]
            tensor, place, own = self.graph.tensors[number], self.at(number), Place(f"state->{member.name}")
            if place != own:
                lines.append(copy(own.pointer, place.pointer, tensor.size, C_TYPES[tensor.dtype]))
        used = "\n".join([*self._program.body, *lines])
        unused = [name for name in self._program.arguments.values() if not _mentions(used, name)]
        return [*(f"(void){name};" for name in unused), *lines]

    def _whole(self, number: int) -> int:
        return self._aliases.get(number, (number, 0))[0]


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None
