"""What the user asked for, checked once, for the command line and Python alike."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from signatures.contract import SIGNATURES
from signatures.errors import UnsupportedModel
from signatures.golden import ROUNDINGS
from signatures.schemes import SCHEMES, Io

from .lower.plan import Choice
from .read.budget import MAX_MEMORY
from .targets import CHOICES, TARGETS, Target, check_choice, check_signatures, for_all, had

Extent = int | Literal["any"] | None
Dtype = Literal["float64", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Stage:
    """A part of the work, told as it starts; str() of it is a line to show.

    Attributes:
        name: What is done: loading, surveying, golden numbers, tracing, converting, quantizing, checking or delivering.
        target: The artifact it is done for; "" where it is for all.
        run: The golden run it is at, where it goes through several.
    """

    name: Literal[
        "loading", "surveying", "golden numbers", "tracing", "converting", "quantizing", "checking", "delivering"
    ]
    target: str = ""
    run: str = ""

    def __str__(self) -> str:
        """Return "onnx: checking 7 steps"."""
        return f"{self.target}: " * bool(self.target) + self.name + f" {self.run}" * bool(self.run)


DELIVERING = Stage("delivering")
"""In which files are moved into place; an export isn't interrupted from then on."""

Progress = Callable[[Stage], None]
"""Called with each stage as it starts."""


def in_silence(stage: Stage) -> None:
    """Tell nothing."""


@dataclass(frozen=True)
class Request:
    """An export as it was asked for; see pipeline.export."""

    targets: tuple[Target, ...]
    out: str | Path | None = None
    batch: Extent = None
    time: Extent = None
    signatures: Sequence[str] | None = None
    lengths: bool = False
    lowering: Choice = "auto"
    dtype: Dtype | None = None
    max_memory: float = MAX_MEMORY
    check: bool = True
    force: bool = False
    lookahead: bool = False
    attention_cache: int | None = None
    quantize: str | None = None
    precise: bool = False
    calibration: Any = None
    gate: float | None = None
    io: Io = "quantized"

    def __post_init__(self) -> None:
        """Refuse values that no export has, in the words of the command line.

        Raises:
            ValueError: Naming what is accepted.
            UnsupportedModel: When no target takes the lowering, or one can't have a signature.
        """
        for name, value in (("batch", self.batch), ("time", self.time)):
            number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if value is not None and value != "any" and not number:
                raise ValueError(f"{name}={value!r}: give a number of at least 1, 'any' or None")
        cache = self.attention_cache
        if cache is not None and not (isinstance(cache, int) and not isinstance(cache, bool) and cache >= 1):
            raise ValueError(f"attention_cache={cache!r}: give a number of at least 1, or None")
        found = self.signatures
        if found is not None and (isinstance(found, str) or not found or set(found) - set(SIGNATURES)):
            raise ValueError(f"signatures={found!r}: give a list of {', '.join(SIGNATURES)}")
        if self.dtype not in (None, *ROUNDINGS):
            raise ValueError(f"dtype={self.dtype!r}: give {', '.join(ROUNDINGS)} or None")
        if self.lowering not in CHOICES:
            raise ValueError(f"lowering={self.lowering!r}: give {', '.join(CHOICES)}")
        check_choice(self.lowering, self.targets)
        check_signatures(found, self.targets)
        self._check_quantized()

    def _check_quantized(self) -> None:
        if self.quantize is None:
            named = {
                "precise": self.precise,
                "calibration": self.calibration is not None,
                "gate": self.gate is not None,
                "io": self.io != "quantized",
            }
            if given := [name for name, value in named.items() if value]:
                raise ValueError(f"{given[0]} goes with quantize; give quantize={'|'.join(SCHEMES)}, or leave it out")
            return
        if self.quantize not in SCHEMES:
            raise ValueError(f"quantize={self.quantize!r}: give {', '.join(SCHEMES)} or None")
        if self.gate is not None and not math.isfinite(self.gate):
            raise ValueError(f"gate={self.gate!r}: give decibels")
        for target in self.targets:
            if self.quantize not in target.schemes:
                others = [each.name for each in TARGETS.values() if self.quantize in each.schemes]
                has = f"It has {', '.join(target.schemes)}." if target.schemes else "It isn't quantized at all."
                raise UnsupportedModel(
                    f"{target.name} has no form for {self.quantize!r}. {has}\n  Export {self.quantize} to"
                    f" {' or '.join(others)}."
                )
            if self.quantize in target.integers and len(self.targets) > 1:
                raise UnsupportedModel(
                    f"{self.quantize} makes integers of the ports of {target.name}, not of those of other targets.\n"
                    f"  Export to one at a time: --to {target.name}."
                )
        if self.precise and not self.integers:
            raise UnsupportedModel(
                f"precise has no use in {self.quantize} to {', '.join(target.name for target in self.targets)}: no"
                " weight can be stored more closely there.\n  Leave --precise out."
            )
        if self.io not in get_args(Io):
            raise ValueError(f"io={self.io!r}: give {' or '.join(get_args(Io))}")
        if self.io == "float" and not self.integers:
            raise UnsupportedModel(f"io has no use in {self.quantize}: all ports are floats.\n  Leave --io out.")
        if self.integers and self.signatures is not None and set(self.signatures) != {"step"}:
            raise UnsupportedModel(
                f"signature 'sequence' can't be had in {self.quantize}: no runtime runs a loop of integers right.\n"
                "  Leave --signatures out, or quantize with float16 or dynamic."
            )

    @property
    def integers(self) -> bool:
        """Whether ports and states are integers."""
        return any(self.quantize in target.integers for target in self.targets)

    @property
    def chosen_signatures(self) -> Sequence[str] | None:
        """What signatures to have; None means all that can be had."""
        return ("step",) if self.integers else self.signatures or had(self.targets)


def named_targets(to: str | Sequence[str]) -> tuple[Target, ...]:
    """Return the targets of these names, "all" being those of for_all, each once and in the order asked for.

    Raises:
        ValueError: Naming what is accepted.
    """
    asked: list[str] = [to] if isinstance(to, str) else list(to or [])
    names = list(dict.fromkeys(t for name in asked for t in (for_all() if name == "all" else (name,))))
    if not names or set(names) - set(TARGETS):
        raise ValueError(f"to={to!r}: give {', '.join(TARGETS)}, several of them or all")
    return tuple(TARGETS[name] for name in names)
