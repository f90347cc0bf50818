"""Where in one array the tensors are that a call works with: those that are never needed at once share their place."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A tensor's life: how many numbers it has, and the first and last statement that needs them."""

    size: int
    first: int
    last: int


def packed(spans: Sequence[Span]) -> tuple[list[int], int]:
    """Return where each begins, and how many numbers there are in all; the largest first, each as early as it can."""
    starts = [0] * len(spans)
    placed: list[int] = []
    for k in sorted(range(len(spans)), key=lambda k: (-spans[k].size, spans[k].first)):
        span = spans[k]
        beside = sorted(
            (starts[n], starts[n] + spans[n].size)
            for n in placed
            if spans[n].first <= span.last and span.first <= spans[n].last
        )
        at = 0
        for start, end in beside:
            if at + span.size <= start:
                break
            at = max(at, end)
        starts[k] = at
        placed.append(k)
    return starts, max((start + span.size for start, span in zip(starts, spans, strict=True)), default=0)
