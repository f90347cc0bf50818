"""Quantize a folder of TFLM: its step of integers, see tflite/integers/."""

from collections.abc import Sequence
from pathlib import Path

from signatures.contract import Contract
from signatures.ports import Feeds
from signatures.runtimes.tflm import MODEL

from ..tflite.graph import read
from ..tflite.integers import of_integers
from .write import fill


def quantize(path: Path, contract: Contract, scheme: str, precise: bool, recordings: Sequence[Feeds]) -> Contract:
    """Quantize a folder in place; see Quantizer.quantize."""
    content, contract = of_integers((path / MODEL).read_bytes(), contract, scheme, precise, recordings)
    return fill(read(content, "step"), contract, path)
