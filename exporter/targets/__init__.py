"""What is written: a record and a folder for each target.

The folder holds `facts.py`, how recurrences are run there and which graphs there are, and `write.py`, which makes the
file. Both are imported when they are needed: TensorFlow takes seconds.
"""

import importlib
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from signatures.contract import SIGNATURES
from signatures.errors import MissingRuntime, UnsupportedModel
from signatures.golden import ROUNDINGS
from signatures.runtimes.c import compiler

if TYPE_CHECKING:
    from signatures.contract import Contract
    from signatures.golden import Case
    from signatures.ports import Feeds, Port, Signature

    from ..lower.plan import Choice, Plan
    from ..lower.spelling import Spelling
    from ..lower.trace import Traced
    from ..memory.recurrence import Recurrence

    Planned = Sequence[tuple[Recurrence, Plan]]


class Facts(Protocol):
    """A module `facts.py`; it never imports TensorFlow."""

    def graphs(
        self, contract: "Contract", inputs: "tuple[Port, ...]", dims: Mapping[str, int]
    ) -> "dict[str, Signature]":
        """Return name -> the ports of each graph that the target has, with the dimensions that are fixed in it.

        Args:
            contract: The signatures that are promised.
            inputs: The model's own inputs.
            dims: Dimensions that are fixed in this artifact.
        """

    def plan(
        self, recurrence: "Recurrence", steps: int | None, choice: "Choice" = "auto", batch: int | None = None
    ) -> "Plan":
        """Choose the lowering of a recurrence in one graph.

        Args:
            recurrence: What is run.
            steps: Time steps of the graph; None when a call may choose.
            choice: What the user asked for, among what this target takes.
            batch: Samples of a call; None when a call may choose.

        Raises:
            UnsupportedModel: When what was asked can't be had.
        """


class Writer(Protocol):
    """A module `write.py`.

    Attributes:
        SPELLINGS: TensorFlow operation -> what is written for it, where the target has no form or a wrong one.
    """

    SPELLINGS: "Mapping[str, Spelling]"

    def write(self, traced: "Traced", contract: "Contract", path: Path, golden: "Case | None") -> "Contract":
        """Write the artifact with the contract embedded.

        Args:
            traced: Its graphs.
            contract: What to embed; it lists this artifact only.
            path: Where: a file, or where the target is one a folder, that doesn't exist yet.
            golden: What it will be held to; None where it isn't checked.

        Returns:
            The contract that is embedded: it also tells the order of the tensors, where there is one.

        Raises:
            UnsupportedModel: When the target has no form for an operation of the model.
        """

    def ops(self, path: Path) -> Counter[str]:
        """Count the ops of an artifact, by the target's own names."""

    def faults(self, ops: Counter[str], planned: "Planned") -> list[str]:
        """Return what the artifact's ops break of this target's promise, one sentence each.

        Args:
            ops: What `ops` counted.
            planned: Each recurrent call of a `sequence` and how it was lowered.
        """


class Quantizer(Protocol):
    """A module `quantize.py`, of a target with schemes."""

    def quantize(self, path: Path, traced: "Traced", contract: "Contract", recordings: "Sequence[Feeds]") -> "Contract":
        """Quantize an artifact of float32 in place.

        Args:
            path: What `write` made.
            traced: What it was made of.
            contract: What to embed; it lists this artifact only, and says how it is quantized.
            recordings: Input port -> [1, T, ...], each from the start of a stream: what ranges and roundings are of.

        Returns:
            The contract that is embedded: ports may hold integers.

        Raises:
            UnsupportedModel: When an operation has no quantized form.
        """


@dataclass(frozen=True)
class Target:
    """A kind of artifact.

    Attributes:
        name: Its name, and that of its folder here.
        suffix: What its paths end in.
        packages: What writing and running it takes besides TensorFlow and Keras, by their names on PyPI.
        types: The floats that its runtime computes in.
        batch: Samples a call where neither the user nor the model says; "any" where a call may choose.
        choices: The ways to run a sequence that may be asked for.
        folder: Whether it is a folder.
        schemes: How it can be quantized, names of SCHEMES.
        integers: Those of them that make integers of its ports and states: its artifact then has a `step` alone.
        signatures: The callables that it can have.
        tools: What checking it takes that no package brings. Such a target isn't among "all".
        extra: A package that it takes and that isn't installed with this one, but with its extra of the target's name.
            Such a target isn't among "all" either.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]
    types: tuple[str, ...]
    batch: int | Literal["any"]
    choices: tuple["Choice", ...] = ()
    folder: bool = False
    schemes: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    signatures: tuple[str, ...] = SIGNATURES
    tools: tuple[str, ...] = ()
    extra: str = ""

    @property
    def facts(self) -> Facts:
        """How it runs recurrences."""
        return cast(Facts, importlib.import_module(f"{__name__}.{self.name}.facts"))

    @property
    def writer(self) -> Writer:
        """What makes it."""
        return cast(Writer, importlib.import_module(f"{__name__}.{self.name}.write"))

    @property
    def quantizer(self) -> Quantizer:
        """What quantizes it, where it has schemes."""
        return cast(Quantizer, importlib.import_module(f"{__name__}.{self.name}.quantize"))

    def check_types(self, types: Mapping[str, str]) -> None:
        """Refuse a model that computes in a type the runtime doesn't.

        Args:
            types: Each type that layers compute in -> the first layer that does.

        Raises:
            UnsupportedModel: Naming a layer and the types that the target has.
        """
        for dtype, layer in types.items():
            if dtype in ROUNDINGS and dtype not in self.types:
                raise UnsupportedModel(
                    f"layer {layer!r} computes in {dtype}, which the {self.name} runtime doesn't.\n"
                    f"  It has: {', '.join(self.types)}. Export with --dtype float32 (dtype='float32' in Python) to"
                    " compute in that, or to savedmodel."
                )

    def check_extra(self) -> None:
        """Refuse to make an artifact without the package that it takes.

        Raises:
            MissingRuntime: Naming it.
        """
        if self.extra and importlib.util.find_spec(self.extra.replace("-", "_")) is None:
            raise MissingRuntime(
                f"target {self.name!r} takes {self.extra}, which isn't installed.\n"
                f"  Install it: pip install 'export-lstm[{self.name}]'"
            )

    def check_tools(self) -> None:
        """Refuse to check an artifact without what that takes.

        Raises:
            MissingRuntime: Naming what is missing.
        """
        if self.tools:
            try:
                compiler()
            except MissingRuntime as error:
                raise MissingRuntime(
                    f"{error}\n  Or deliver it unchecked: --no-check (check=False in Python)."
                ) from None

    def check_step(self, no_step: str | None) -> None:
        """Refuse a model that can't be stepped where a step is all that the target has.

        Raises:
            UnsupportedModel: With the reason.
        """
        if no_step is not None and self.signatures == ("step",):
            others = ", ".join(each.name for each in TARGETS.values() if each.signatures == SIGNATURES)
            raise UnsupportedModel(
                f"target {self.name!r} has the signature 'step' alone, which can't be had: {no_step}\n"
                f"  Export to {others}."
            )

    def check_used(self, choice: "Choice", plans: "Sequence[Plan]") -> None:
        """Refuse a lowering that the target takes but no call of the model has a use for.

        Args:
            choice: What was asked for.
            plans: How each call of more than one time step is run.

        Raises:
            UnsupportedModel: With the reasons of what would be run instead.
        """
        if choice in self.choices and all(each.lowering != choice for each in plans):
            instead = " or ".join(dict.fromkeys(each.reason for each in plans)) or "one time step at a time"
            raise UnsupportedModel(
                f"lowering {choice!r} has no use in the {self.name} artifact, whose calls are: {instead}.\n"
                "  Leave --lowering out."
            )


TARGETS = {
    target.name: target
    for target in (
        # XNNPACK's and TFLite's own CPU kernels for matrix products take no other floats.
        Target(
            "tflite",
            ".tflite",
            ("ai-edge-litert",),
            ("float32",),
            1,
            ("unrolled", "loop"),
            schemes=("float16", "dynamic", "int8", "int16x8"),
            integers=("int8", "int16x8"),
        ),
        # ONNX Runtime has no CPU kernels for bfloat16.
        Target(
            "onnx",
            ".onnx",
            ("tf2onnx", "onnxruntime"),
            ("float64", "float32", "float16"),
            "any",
            schemes=("float16", "dynamic", "int8"),
        ),
        Target("savedmodel", "_savedmodel", (), tuple(ROUNDINGS), "any", ("xla",), folder=True),
        # Its source is made of the graph that TFLite's converter gives of a step.
        Target(
            "c",
            "_c",
            ("ai-edge-litert",),
            ("float32",),
            1,
            folder=True,
            schemes=("int8",),
            signatures=("step",),
            tools=("a C compiler",),
        ),
        # It reads the first graph of a file alone. Its kernels take no weights of other types than all else.
        Target(
            "tflm",
            "_tflm",
            ("ai-edge-litert", "tflite-micro"),
            ("float32",),
            1,
            folder=True,
            schemes=("int8", "int16x8"),
            integers=("int8", "int16x8"),
            signatures=("step",),
            extra="tflite-micro",
        ),
    )
}
"""All there are."""


def for_all() -> tuple[str, ...]:
    """Return what `--to all` is: the targets that any machine with our packages can check."""
    return tuple(name for name, target in TARGETS.items() if not target.tools and not target.extra)


CHOICES: tuple["Choice", ...] = ("auto", *(choice for target in TARGETS.values() for choice in target.choices))
"""All ways to run a sequence that may be asked for."""


def nothing_to_store(scheme: str, least: int) -> UnsupportedModel:
    """Return what is said of a model none of whose weights is large enough to be stored in fewer bits."""
    return UnsupportedModel(
        f"{scheme} has no use: the model has no weights of {least:,} numbers and more that it stores in fewer bits.\n"
        "  Leave --quantize out."
    )


def check_choice(choice: "Choice", targets: Sequence[Target]) -> None:
    """Refuse a lowering that none of the targets takes.

    Raises:
        UnsupportedModel: Naming the target that does.
    """
    takers = [target.name for target in TARGETS.values() if choice in target.choices]
    if takers and not any(target.name in takers for target in targets):
        raise UnsupportedModel(
            f"lowering {choice!r} is taken by {', '.join(takers)} only, not by"
            f" {', '.join(target.name for target in targets)}.\n"
            f"  Leave --lowering out, or export to {takers[0]} too."
        )


def check_signatures(asked: Sequence[str] | None, targets: Sequence[Target]) -> None:
    """Refuse signatures that a target can't have.

    Raises:
        UnsupportedModel: Naming the target and those that it has.
    """
    for target in targets:
        if lost := [name for name in asked or () if name not in target.signatures]:
            raise UnsupportedModel(
                f"signature {lost[0]!r} can't be had in target {target.name!r}, which has"
                f" {', '.join(target.signatures)} alone.\n"
                "  Leave --signatures out: each target then has all that it can have."
            )


def had(targets: Sequence[Target]) -> tuple[str, ...] | None:
    """Return the signatures that some of the targets can have; None where that is all there are."""
    found = tuple(name for name in SIGNATURES if any(name in target.signatures for target in targets))
    return None if found == SIGNATURES else found


if TYPE_CHECKING:  # where mypy holds every folder to the protocols
    from .c import facts as c_facts
    from .c import write as c_write
    from .onnx import facts as onnx_facts
    from .onnx import quantize as onnx_quantize
    from .onnx import write as onnx_write
    from .savedmodel import facts as savedmodel_facts
    from .savedmodel import write as savedmodel_write
    from .tflite import facts as tflite_facts
    from .tflite import quantize as tflite_quantize
    from .tflite import write as tflite_write
    from .tflm import facts as tflm_facts
    from .tflm import quantize as tflm_quantize
    from .tflm import write as tflm_write

    _QUANTIZERS: tuple[Quantizer, ...] = (onnx_quantize, tflite_quantize, tflm_quantize)
    _FACTS: tuple[Facts, ...] = (c_facts, onnx_facts, savedmodel_facts, tflite_facts, tflm_facts)
    _WRITERS: tuple[Writer, ...] = (c_write, onnx_write, savedmodel_write, tflite_write, tflm_write)
