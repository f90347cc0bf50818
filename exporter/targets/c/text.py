"""Pieces of C: places in arrays, loops over axes, copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .views import strides

VARIABLES = ("i", "j", "k", "l", "m", "n", "o", "p")
"""Names of loops' variables, the outermost first."""

Lines = list[str]


@dataclass(frozen=True)
class Place:
    """Where a tensor's numbers are: an array by its name in C, from which number on."""

    array: str
    offset: int = 0

    @property
    def pointer(self) -> str:
        """An expression for the address of the first number."""
        return f"{self.array} + {self.offset}" if self.offset else self.array

    def at(self, index: str) -> str:
        """Return the number at an index."""
        if not self.offset:
            return f"{self.array}[{index}]"
        return f"{self.array}[{self.offset}]" if index == "0" else f"{self.array}[{self.offset} + {index}]"

    def after(self, count: int) -> "Place":
        """Return the place so many numbers further on."""
        return Place(self.array, self.offset + count)


def index(variables: Sequence[str], apart: Sequence[int], start: int = 0) -> str:
    """Return the index of a number whose neighbours along each axis are so far apart."""
    terms = [v if a == 1 else f"{a} * {v}" for v, a in zip(variables, apart, strict=True) if a and v != "0"]
    if start or not terms:
        terms = [str(start), *terms]
    return " + ".join(terms).replace("+ -", "- ")


def loops(sizes: Sequence[int], body: Callable[[list[str]], Lines], used: int = 0) -> Lines:
    """Return loops over axes, one in the other; an axis of one number needs none.

    Args:
        sizes: Of the axes, the outermost first.
        body: Given the variable of each axis, "0" where it has none, returns what is inside.
        used: How many variables are taken by loops around it.
    """
    names: list[str] = []
    heads: list[str] = []
    for size in sizes:
        names.append("0" if size == 1 else VARIABLES[used + len(heads)])
        if size != 1:
            heads.append(f"for (int {names[-1]} = 0; {names[-1]} < {size}; {names[-1]}++)")
    lines = body(names)
    for head in reversed(heads):
        lines = [head, *indented(lines)] if len(lines) == 1 else [f"{head} {{", *indented(lines), "}"]
    return lines


def indented(lines: Lines) -> Lines:
    """Return lines four columns further in."""
    return [f"    {line}" if line else line for line in lines]


def copied(
    shape: Sequence[int], to: Place, to_apart: Sequence[int], source: Place, apart: Sequence[int], c_type: str
) -> Lines:
    """Return the copy of an array from one place to another.

    Args:
        shape: Of what is copied.
        to: Where to.
        to_apart: How many numbers apart neighbours along each axis are there.
        source: Where from.
        apart: The same there; 0 where an axis repeats what is there once, less than 0 where it runs backwards.
        c_type: Of the numbers.
    """
    axes = [(n, a, b) for n, a, b in zip(shape, to_apart, apart, strict=True) if n != 1]
    joined: list[tuple[int, int, int]] = []
    for size, a, b in reversed(axes):  # neighbouring axes are one where both arrays have them without gaps
        if joined and (a, b) == (joined[0][0] * joined[0][1], joined[0][0] * joined[0][2]):
            joined[0] = (size * joined[0][0], *joined[0][1:])
        else:
            joined.insert(0, (size, a, b))
    together = joined.pop()[0] if joined and joined[-1][1:] == (1, 1) else None
    outer, to_steps, steps = ([each[k] for each in joined] for k in range(3))

    def body(variables: list[str]) -> Lines:
        if together is None:
            return [f"{to.at(index(variables, to_steps))} = {source.at(index(variables, steps))};"]
        ends = [_moved(place, variables, by) for place, by in ((to, to_steps), (source, steps))]
        return [copy(ends[0], ends[1], together, c_type)]

    return loops(outer, body)


def _moved(place: Place, variables: list[str], apart: Sequence[int]) -> str:
    at = index(variables, apart, place.offset)
    return place.array if at == "0" else f"{place.array} + {at}"


def copy(to: str, source: str, count: int, c_type: str) -> str:
    """Return a copy of numbers that lie together."""
    return f"memcpy({to}, {source}, {count} * sizeof({c_type}));"


def packed(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of an array without gaps."""
    return strides(tuple(shape))
