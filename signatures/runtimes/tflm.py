"""TensorFlow Lite for Microcontrollers runs `export-lstm.tflite` of a folder, in its interpreter for this machine."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tflite_micro.python.tflite_micro import runtime

from .. import files
from ..contract import Contract
from ..errors import ArtifactError
from ..ports import Array, Feeds
from . import own
from .litert import read_contract as embedded

MODEL = own("tflm").marker
DAMAGED = "The folder is damaged or its model isn't one that TFLM runs"

BESIDE = 512
"""Bytes that a tensor, an op and a channel of weights take besides numbers, at most."""


class Micro:
    """A step in an interpreter, which runs one call at a time."""

    def __init__(self, content: bytes) -> None:
        """Open the bytes of a file."""
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        [signed], [graph] = model.signatureDefs, model.subgraphs
        inputs = {each.tensorIndex: each.name.decode() for each in signed.inputs}
        places = {int(index): k for k, index in enumerate(graph.outputs)}
        self._inputs = [inputs[int(index)] for index in graph.inputs]
        self._outputs = {
            each.name.decode(): places[each.tensorIndex] for each in signed.outputs
        }  # two may be one tensor
        self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=room(model))
        self._alone = threading.Lock()  # it has one set of tensors: setting, running and reading them is one call

    def takes(self, signature: str) -> dict[str, list[int]]:
        """Return the sizes of the inputs; see Session."""
        shapes = (self._interpreter.get_input_details(k)["shape"] for k in range(len(self._inputs)))
        return {name: [int(size) for size in shape] for name, shape in zip(self._inputs, shapes, strict=True)}

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run the step once; see Session."""
        with self._alone:
            for k, name in enumerate(self._inputs):
                self._interpreter.set_input(np.ascontiguousarray(feeds[name]), k)
            self._interpreter.invoke()
            return {name: self._interpreter.get_output(k) for name, k in self._outputs.items()}

    def bind(self, signature: str, feeds: Feeds) -> Callable[[], object]:
        """Return a call of the interpreter, tensors set; see Session."""
        self.run(signature, feeds)
        call: Callable[[], object] = self._interpreter.invoke
        return call


def room(model: Any) -> int:
    """Return how large an arena is large enough for a model, in bytes: some times what it needs."""
    numbers = channels = 0
    for tensor in model.subgraphs[0].tensors:
        numbers += int(np.prod(tensor.shape if tensor.shape is not None else [1])) * 8
        channels += 1 if tensor.quantization is None else len(np.atleast_1d(tensor.quantization.scale))
    return 2 * numbers + BESIDE * (channels + 4 * len(model.subgraphs[0].operators)) + (64 << 10)


def load(path: Path, trust: bool, threads: int) -> tuple[Contract, Micro]:
    """Open a folder; the contract is in its model; see Module."""
    return read_contract(path), session(path, threads)


def session(path: Path, threads: int) -> Micro:
    """Open the model of a folder; see Module."""
    return Micro(files.read(path / MODEL))


def read_contract(path: Path) -> Contract:
    """Return the contract in the model of a folder.

    Raises:
        UnsafeArtifact: When weights lie in other files.
        ArtifactError: When there is no model, or it carries no contract.
    """
    contract = embedded(files.read(path / MODEL))
    if list(contract.signatures) != ["step"]:
        raise ArtifactError("The folder's contract has other signatures than 'step', which is all that TFLM has.")
    return contract
