"""What is written: one module a target, each with the same three functions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from signatures.contract import Contract

from ..lower.plan import Plan
from ..lower.spelling import Spelling
from ..lower.trace import Traced
from ..memory.recurrence import Recurrence


class Target(Protocol):
    """A module of this folder.

    Attributes:
        SPELLINGS: TensorFlow operation -> what is written for it, where the target has no form or a wrong one.
    """

    SPELLINGS: Mapping[str, Spelling]

    def write(self, traced: Traced, contract: Contract, path: Path) -> None:
        """Write the artifact with the contract embedded.

        Args:
            traced: One graph per signature.
            contract: What to embed; it lists this artifact only.
            path: Where: a file, or for savedmodel a folder, that doesn't exist yet.

        Raises:
            UnsupportedModel: When the target has no form for an operation of the model.
        """

    def ops(self, path: Path) -> Counter[str]:
        """Count the ops of an artifact, by the target's own names."""

    def faults(self, ops: Counter[str], planned: Sequence[tuple[Recurrence, Plan]]) -> list[str]:
        """Return what the artifact's ops break of this target's promise, one sentence each.

        Args:
            ops: What `ops` counted.
            planned: Each recurrent call of a `sequence` and how it was lowered.
        """
