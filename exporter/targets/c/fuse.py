"""Which operators share a loop: those that give a number for each number run side by side, nothing stored in between.

Given   a = ADD(p, q) [1, 128]; s = LOGISTIC(a); i, f, g, o = SPLIT(s); m = MUL(f, c) [1, 32]; t = TANH(part of a) ...
Result  one loop over 32 numbers: it computes of a and s what the other operators take, at four offsets
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from .graph import Graph, Operator
from .pointwise import FORMULAS

Aliases = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Use:
    """How an operator of one number for each takes an input.

    Attributes:
        whole: The tensor that the input is a part of.
        offset: At which number of it the input begins.
        spread: Whether numbers are taken more than once, for other axes of the output.
    """

    whole: int
    offset: int
    spread: bool


def uses(graph: Graph, aliases: Aliases, operator: Operator) -> list[Use]:
    """Return how an operator takes its inputs; of FILL, what it is filled with alone."""
    numbers = operator.inputs if operator.kind != "FILL" else (-1, operator.inputs[1])
    size, found = graph.tensors[operator.outputs[0]].size, []
    for number in numbers:
        whole, offset = aliases.get(number, (number, 0))
        found.append(Use(whole, offset, number >= 0 and graph.tensors[number].size != size))
    return found


class Groups:
    """A partition of operators such that no two groups wait for each other."""

    def __init__(self, graph: Graph, aliases: Aliases) -> None:
        """Put each operator into a group of its own, then join those that can share a loop, from the last one on."""
        self._graph, self._aliases = graph, aliases
        self._group = list(range(len(graph.operators)))
        self._members = {k: [k] for k in self._group}
        self._makers = {output: k for k, each in enumerate(graph.operators) for output in each.outputs}
        self._takers: dict[int, list[int]] = {}
        for k, operator in enumerate(graph.operators):
            for number in dict.fromkeys(aliases.get(n, (n, 0))[0] for n in operator.inputs):
                self._takers.setdefault(number, []).append(k)
        self._ends = {aliases.get(number, (number, 0))[0] for number in graph.outputs.values()}
        for k in reversed(range(len(graph.operators))):
            if graph.operators[k].kind in FORMULAS:
                self._join(k)

    def ordered(self) -> list[list[int]]:
        """Return the groups in an order in which they can run, as close to that of the operators as can be."""
        before = {group: {self._group[k] for each in members for k in self._made_by(each)} - {group}
                  for group, members in self._members.items()}  # fmt: skip
        ready = [group for group, needed in before.items() if not needed]
        heapq.heapify(ready)
        order, done = [], set()
        waiting = {group: set(needed) for group, needed in before.items() if needed}
        while ready:
            group = heapq.heappop(ready)
            order.append(sorted(self._members[group]))
            done.add(group)
            for other in [each for each, needed in waiting.items() if group in needed]:
                waiting[other].discard(group)
                if not waiting[other]:
                    del waiting[other]
                    heapq.heappush(ready, other)
        assert not waiting
        return order

    def stored(self, k: int) -> bool:
        """Whether the output of an operator is needed outside of its group's loop."""
        output = self._graph.operators[k].outputs[0]
        return output in self._ends or any(
            self._group[taker] != self._group[k] or self._spread(taker, output)
            for taker in self._takers.get(output, ())
        )

    def _made_by(self, k: int) -> Iterable[int]:
        """Return the operators that make what one takes."""
        for number in self._graph.operators[k].inputs:
            whole = self._aliases.get(number, (number, 0))[0]
            if whole in self._makers:
                yield self._makers[whole]

    def _join(self, k: int) -> None:
        """Put an operator into the loop of those that take its output, joined where they are several."""
        output = self._graph.operators[k].outputs[0]
        takers = self._takers.get(output, [])
        beside = [t for t in takers if self._graph.operators[t].kind in FORMULAS and not self._spread(t, output)]
        groups = list(dict.fromkeys(self._group[t] for t in beside))
        while len(groups) > 1 and self._alike(groups[0], groups[1]) and self._apart(groups[0], groups[1]):
            self._merge(groups[0], groups.pop(1))
        if len(groups) != 1:
            return
        [group] = groups
        outside = {self._group[t] for t in takers} - {group}
        own = set(beside) == set(takers) and output not in self._ends and not outside
        whole = self._size(k) == self._loop_size(group) and all(
            use.offset == 0 for t in beside for use in self._uses(t) if use.whole == output
        )
        fits = self._domain(k) in (None, self._group_domain(group)) or (self._group_domain(group) is None and whole)
        if not (whole or (own and self._domain(k) is None)) or not fits:
            return
        if any(self._reaches(other, group) for other in outside) or any(self._spread(t, output) for t in takers):
            return
        self._merge(group, self._group[k])

    def _alike(self, first: int, second: int) -> bool:
        """Whether two groups run over as many numbers, and along the same axes where that matters."""
        if self._graph.operators[self._members[first][0]].kind not in FORMULAS:
            return False
        domains = self._group_domain(first), self._group_domain(second)
        sizes = {self._loop_size(each) for each in (first, second)}
        return len(sizes) == 1 and (None in domains or domains[0] == domains[1])

    def _apart(self, first: int, second: int) -> bool:
        return not self._reaches(first, second) and not self._reaches(second, first)

    def _merge(self, group: int, other: int) -> None:
        for k in self._members[other]:
            self._group[k] = group
        self._members[group] = [*self._members[group], *self._members.pop(other)]

    def _reaches(self, start: int, end: int) -> bool:
        """Whether a group runs, by itself or by way of others, before another one."""
        waiting, seen = [start], {start}
        while waiting:
            for k in self._members[waiting.pop()]:
                for output in self._graph.operators[k].outputs:
                    for taker in self._takers.get(output, ()):
                        group = self._group[taker]
                        if group == end and group != start:
                            return True
                        if group not in seen:
                            seen.add(group)
                            waiting.append(group)
        return False

    def _uses(self, k: int) -> list[Use]:
        return uses(self._graph, self._aliases, self._graph.operators[k])

    def _spread(self, k: int, number: int) -> bool:
        """Whether an operator takes a tensor in another way than one number for each."""
        if self._graph.operators[k].kind not in FORMULAS:
            return True
        return any(use.spread for use in self._uses(k) if use.whole == number)

    def _size(self, k: int) -> int:
        return self._graph.tensors[self._graph.operators[k].outputs[0]].size

    def _loop_size(self, group: int) -> int:
        """Return over how many numbers a group's loop runs: as its last operator, whose output is stored."""
        return self._size(max(self._members[group]))

    def _domain(self, k: int) -> tuple[int, ...] | None:
        """Return the axes along which an operator must run, None where any will do."""
        operator = self._graph.operators[k]
        sizes = [
            self._graph.tensors[n].size for n, use in zip(operator.inputs, self._uses(k), strict=True) if use.spread
        ]
        shape = self._graph.tensors[operator.outputs[0]].shape
        return tuple(n for n in shape if n != 1) if any(size > 1 for size in sizes) else None

    def _group_domain(self, group: int) -> tuple[int, ...] | None:
        return next((found for k in self._members[group] if (found := self._domain(k)) is not None), None)
