"""Quantize a folder of TFLM: its step of integers, see tflite/integers/."""

from collections.abc import Sequence
from pathlib import Path

from signatures.contract import Contract
from signatures.ports import Feeds
from signatures.runtimes.tflm import MODEL

from ...lower.trace import Traced
from ..tflite.graph import read
from ..tflite.integers import of_integers
from .write import fill


def quantize(path: Path, traced: Traced, contract: Contract, recordings: Sequence[Feeds]) -> Contract:
    """Quantize a folder in place; see Quantizer.quantize."""
    assert contract.quantized is not None
    chosen = contract.quantized.scheme, contract.quantized.precise
    content, contract = of_integers((path / MODEL).read_bytes(), contract, *chosen, recordings)
    return fill(read(content, "step"), contract, path)
