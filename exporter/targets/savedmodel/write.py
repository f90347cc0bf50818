"""SavedModel: TensorFlow graphs, a recurrence as one op or loop, and `serving_default` for servers without state."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from signatures.contract import Contract
from signatures.golden import Case
from signatures.runtimes.tensorflow import CONTRACT, read_graphs

from ...lower import spelling
from ...lower.plan import Plan
from ...lower.trace import Traced
from ...memory.recurrence import Recurrence

SPELLINGS: Mapping[str, spelling.Spelling] = {"Log": spelling.log_of_softmax}
"""What TensorFlow's own optimizer makes something else of: see Writer."""


def write(traced: Traced, contract: Contract, path: Path, golden: Case | None) -> Contract:
    """Write a SavedModel folder; see Writer.write."""
    tf.saved_model.save(traced.module, str(path), signatures=traced.functions)
    (path / CONTRACT).parent.mkdir(exist_ok=True)
    (path / CONTRACT).write_text(contract.embedded(), encoding="utf-8")
    return contract


def ops(path: Path) -> Counter[str]:
    """Count the ops of all graphs; see Writer.ops."""
    functions = read_graphs(path).graph_def.library.function
    return Counter(node.op for function in functions for node in function.node_def)


def faults(ops: Counter[str], planned: Sequence[tuple[Recurrence, Plan]]) -> list[str]:
    """Require one BlockLSTMV2 per call that has it; see Writer.faults."""
    blocks = sum(plan.lowering == "block" for _, plan in planned)
    if ops["BlockLSTMV2"] < blocks:
        return [f"it holds {ops['BlockLSTMV2']} BlockLSTMV2 op(s) for {blocks} recurrent layers"]
    return []
