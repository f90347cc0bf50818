"""TFLM: a folder with the model, the same as an array, a header and a program in C++.

The graph is what TensorFlow's converter gives of a step for TFLite, in ops that TFLM has kernels for.
"""

import importlib.metadata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from signatures.contract import Contract
from signatures.golden import Case
from signatures.runtimes.tflm import MODEL

from ...lower import spelling
from ...lower.plan import Plan
from ...lower.trace import Traced
from ...memory.recurrence import Recurrence
from ..tflite import write as tflite
from ..tflite.graph import Graph, read, written
from .kernels import spelled
from .sources import Model, array, header, namespace, program
from .tried import arena

SUFFIX = "_tflm"
SPELLINGS: Mapping[str, spelling.Spelling] = tflite.SPELLINGS


def write(traced: Traced, contract: Contract, path: Path, golden: Case | None) -> Contract:
    """Write a folder; see Writer.write."""
    return fill(read(tflite.converted(traced, path.parent), "step"), contract, path)


def fill(graph: Graph, contract: Contract, path: Path) -> Contract:
    """Write the files of a graph into a folder, over those that are there.

    Raises:
        UnsupportedModel: When TFLM has no kernel for an op.
    """
    content, contract = tflite.embed(written(spelled(graph), "step"), contract)
    needs = arena(content)
    path.mkdir(exist_ok=True)
    (path / MODEL).write_bytes(content)
    measured = (
        f"tflite-micro {importlib.metadata.version('tflite-micro')} on a machine of 64 bits; one of 32 needs less"
    )
    name = namespace(path.name.removesuffix(SUFFIX))
    made = Model(name, contract, content, tuple(sorted(ops(path))), needs, measured)
    for file, text in {f"{name}.h": header, f"{name}_model.cc": array, "main.cc": program}.items():
        (path / file).write_text(text(made), encoding="utf-8")
    return contract


def ops(path: Path) -> Counter[str]:
    """Count the ops of the model; see Writer.ops."""
    return tflite.ops(path / MODEL)


def faults(ops: Counter[str], planned: Sequence[tuple[Recurrence, Plan]]) -> list[str]:
    """Require builtin ops and no hidden state; see Writer.faults."""
    return tflite.faults(ops, planned)
