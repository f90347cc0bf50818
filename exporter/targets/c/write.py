"""C: a folder with a source, its header, a program that checks them, and the contract.

The source is made of the TFLite graph of `step` that TensorFlow's converter gives.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from signatures import files
from signatures.contract import Contract
from signatures.errors import ArtifactError, UnsupportedModel
from signatures.golden import Case
from signatures.ports import show
from signatures.runtimes.c import CONTRACT, SELF_TEST

from ...lower import spelling
from ...lower.plan import Plan
from ...lower.trace import Traced
from ...memory.recurrence import Recurrence
from ..tflite import write as tflite
from .graph import read
from .names import prefix
from .program import program
from .self_test import for_batch, self_test
from .source import Model, header, source

STEP = "step"
SUFFIX = "_c"
SPELLINGS: Mapping[str, spelling.Spelling] = {
    kind: each for kind, each in tflite.SPELLINGS.items() if kind != "Sigmoid"
}
"""As for TFLite, whose converter makes the graph; but not what only its kernels get wrong."""

STATEMENT = re.compile(r"^    /\* (?:[^:*]*: )?([A-Z0-9_]+(?:, [A-Z0-9_]+)*) \[", re.MULTILINE)
"""The comment before a statement of the step; it names its operators."""


def write(traced: Traced, contract: Contract, path: Path, golden: Case | None) -> Contract:
    """Write a folder; see Writer.write."""
    [info] = contract.artifacts.values()
    signature = contract.signatures[STEP]
    for port in (*signature.inputs, *signature.outputs):
        if not all(isinstance(size, int) for size in port.sized({**info.dims, **signature.dims})):
            raise UnsupportedModel(
                f"C has arrays of fixed sizes, and port {port.name!r} is {show(port.sized(info.dims))}.\n"
                "  Give --batch N and --time N, or export to tflite, onnx or savedmodel."
            )
    path.mkdir()
    fill(tflite.converted(traced, path.parent), contract, path, golden)
    return contract


def fill(content: bytes, contract: Contract, path: Path, golden: Case | None) -> None:
    """Write the files of a folder.

    Args:
        content: The TFLite file that the source is made of.
        contract: What to embed.
        path: The folder.
        golden: What its program checks; None for no program.
    """
    [info] = contract.artifacts.values()
    signature = contract.signatures[STEP]
    made = program(read(content, STEP), signature)
    model = Model(prefix(path.name.removesuffix(SUFFIX)), contract, signature, info.dims, made)
    texts = {f"{model.name}.h": header(model), f"{model.name}.c": source(model), CONTRACT: contract.to_json()}
    if golden is not None:
        texts[SELF_TEST] = self_test(model, for_batch(model, golden))
    for name, text in texts.items():
        (path / name).write_text(text, encoding="utf-8")


def ops(path: Path) -> Counter[str]:
    """Count the operators of the step, by TFLite's names for them; see Writer.ops."""
    sources = [each for each in path.glob("*.c") if each.name != SELF_TEST]
    if len(sources) != 1:
        raise ArtifactError(f"{path}: {len(sources)} sources besides {SELF_TEST}; export-lstm writes one.")
    try:
        found = STATEMENT.findall(files.read(sources[0]).decode(errors="replace"))
    except ValueError as error:
        raise ArtifactError(f"{sources[0]}: {error}. Export it again.") from None
    return Counter(kind for kinds in found for kind in kinds.split(", "))


def faults(ops: Counter[str], planned: Sequence[tuple[Recurrence, Plan]]) -> list[str]:
    """Return nothing: what C has no form for was refused by its name; see Writer.faults."""
    return []
