"""A group of operators of one number for each as one loop; see fuse."""

from collections.abc import Sequence

from .env import Env
from .fuse import Aliases, Use, uses
from .graph import Operator
from .names import Names
from .pointwise import C_TYPES, expression, literal
from .text import Lines, index, loops, packed


class Loop:
    """The text of one loop.

    In it each operator is a local variable, named like the operation; what is needed outside is stored at the end.
    """

    def __init__(self, env: Env, aliases: Aliases, group: Sequence[Operator], stored: Sequence[bool]) -> None:
        """Take the operators in the order they run in.

        Args:
            env: Where tensors are.
            aliases: Parts of tensors.
            group: The operators; the last one has as many numbers as the loop runs over.
            stored: Of each, whether its output is needed outside.
        """
        self._env, self._aliases, self._group, self._stored = env, aliases, group, stored
        self._makers = {each.outputs[0]: k for k, each in enumerate(group)}
        self._locals: dict[tuple[int, int], str] = {}
        self._names = Names(env.taken)
        self._lines: Lines = []
        self._before: Lines = []
        self._choices: dict[str, str] = {}

    def lines(self) -> Lines:
        """Return the loop."""
        sizes = self._axes()
        inside = loops(sizes, self._body)
        lines = [*self._before, *inside]
        apart = self._before or (max(sizes) == 1 and len(lines) > 1)
        return ["{", *("    " + line for line in lines), "}"] if apart else lines

    def _axes(self) -> tuple[int, ...]:
        """Return the sizes of its loops: one for all numbers, or one an axis where an input is the same along some."""
        tensors, output = self._env.graph.tensors, self._group[-1].outputs[0]
        for operator in self._group:
            spread = [use.spread and n >= 0 and tensors[n].size > 1 for n, use in self._taken(operator)]
            if any(spread):
                return tuple(n for n in tensors[operator.outputs[0]].shape if n != 1)
        return (tensors[output].size,)

    def _body(self, variables: list[str]) -> Lines:
        self._variables, self._flat = variables, index(variables, packed(self._axes()))
        kept = [each for each, stored in zip(self._group, self._stored, strict=True) if stored]
        if len(self._group) == 1:
            [only] = kept
            return [f"{self._env.at(only.outputs[0]).at(self._flat)} = {self._expression(only, 0)};"]
        values = [self._value(each.outputs[0], 0) for each in kept]
        stores = [
            f"{self._env.at(each.outputs[0]).at(self._flat)} = {value};"
            for each, value in zip(kept, values, strict=True)
        ]
        return [*self._lines, *stores]

    def _taken(self, operator: Operator) -> list[tuple[int, Use]]:
        return list(zip(operator.inputs, uses(self._env.graph, self._aliases, operator), strict=True))

    def _value(self, number: int, offset: int) -> str:
        """Return the local variable of a tensor of the group, so many numbers further on than the loop is."""
        if (number, offset) not in self._locals:
            operator = self._group[self._makers[number]]
            text = self._expression(operator, offset)
            name = self._names.new(self._env.name(number).rpartition("/")[2].lower())
            self._lines.append(f"const {C_TYPES[self._env.graph.tensors[number].dtype]} {name} = {text};")
            self._locals[number, offset] = name
        return self._locals[number, offset]

    def _expression(self, operator: Operator, offset: int) -> str:
        operands = [self._operand(operator, n, use, offset) for n, use in self._taken(operator)]
        return expression(self._env.graph, operator, operands)

    def _operand(self, operator: Operator, number: int, use: Use, offset: int) -> str:
        if number < 0 or (operator.kind == "FILL" and number == operator.inputs[0]):
            return ""
        tensor = self._env.graph.tensors[number]
        if tensor.data is not None and (tensor.data == tensor.data.flat[0]).all():
            return _atom(literal(tensor.data.flat[0], tensor.dtype))
        if not use.spread and use.whole in self._makers:
            return self._value(use.whole, use.offset + offset)
        place = self._env.at(number)
        if not use.spread:
            return place.after(offset).at(self._flat)
        if tensor.size == 1 and operator.kind in ("SELECT", "SELECT_V2") and number == operator.inputs[0]:
            return self._choice(place.at("0"))
        if tensor.size == 1:
            return place.at("0")
        shape = self._env.graph.tensors[operator.outputs[0]].shape
        own = (1,) * (len(shape) - len(tensor.shape)) + tensor.shape
        if operator.kind == "SELECT" and len(tensor.shape) == 1:  # one condition a row
            own = tensor.shape + (1,) * (len(shape) - 1)
        apart = [0 if n == 1 else step for n, step in zip(own, packed(own), strict=True)]
        return place.at(index(self._variables, [a for a, n in zip(apart, shape, strict=True) if n != 1]))

    def _choice(self, condition: str) -> str:
        """Return a condition that is the same for all numbers, as a float: GCC vectorises what that one chooses."""
        if condition not in self._choices:
            name = self._choices[condition] = self._names.new("chosen")
            self._before.append(f"const float {name} = {condition} ? 1.0f : 0.0f;")
        return f"{self._choices[condition]} != 0.0f"


def _atom(text: str) -> str:
    """Return a number so that a sign of its own is no operator."""
    return f"({text})" if text.startswith("-") else text
