"""Quantize a folder of C: the weights of dense products int8, a scale an output; all is computed in float32."""

from collections.abc import Sequence
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from signatures.contract import Contract
from signatures.ports import Feeds
from signatures.runtimes.c import SELF_TEST

from ...lower.trace import Traced
from ..tflite.quantize import round_products
from ..tflite.write import converted, packed
from .write import fill


def quantize(path: Path, traced: Traced, contract: Contract, recordings: Sequence[Feeds]) -> Contract:
    """Quantize a folder in place; see Quantizer.quantize.

    Its program goes: the numbers that it knows are those of float32.
    """
    content = converted(traced, path.parent)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    round_products(model, content, contract, recordings)
    (path / SELF_TEST).unlink(missing_ok=True)
    fill(packed(model), contract, path, None)
    return contract
