"""LiteRT runs `.tflite`: signatures by name, since the order of tensors is not promised by the format."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from .. import files
from ..contract import Contract
from ..errors import ArtifactError, UnsafeArtifact
from ..ports import Array, Feeds

METADATA = "export-lstm.contract"
DAMAGED = "The file is damaged or not TFLite"


class LiteRT:
    """A TFLite file in an interpreter, which runs one call at a time."""

    def __init__(self, content: bytes, threads: int) -> None:
        """Open the bytes of a file."""
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._opened: dict[str, tuple[Any, dict[str, list[int]]]] = {}
        self._alone = threading.Lock()  # it has one set of tensors: setting, running and reading them is one call

    def takes(self, signature: str) -> dict[str, list[int]]:
        """Return the sizes of the inputs; see Session."""
        return self._signature(signature)[1]

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run a signature once; see Session."""
        runner, takes = self._signature(signature)
        with self._alone:
            return dict(runner(**{name: feeds[name] for name in takes}))

    def bind(self, signature: str, feeds: Feeds) -> Callable[[], object]:
        """Return what a runner's call and Interpreter.invoke come down to, tensors set; see Session."""
        self.run(signature, feeds)
        runner, _ = self._signature(signature)
        call = partial(runner._interpreter_wrapper.Invoke, runner._subgraph_index)
        call.session = self  # type: ignore[attr-defined]  # the file's bytes live as long as the call
        return call

    def _signature(self, name: str) -> tuple[Any, dict[str, list[int]]]:
        """Return the runner of a signature and the sizes of its inputs, looked up once."""
        if name not in self._opened:
            runner = self._interpreter.get_signature_runner(name)
            sizes = {key: [int(d) for d in each["shape_signature"]] for key, each in runner.get_input_details().items()}
            self._opened[name] = runner, sizes
        return self._opened[name]


def load(path: Path, trust: bool, threads: int) -> tuple[Contract, LiteRT]:
    """Open a TFLite artifact; the contract is its metadata buffer `export-lstm.contract`; see Module."""
    content = files.read(path)
    return read_contract(content), LiteRT(content, threads)


def session(path: Path, threads: int) -> LiteRT:
    """Open any TFLite file; see Module."""
    return LiteRT(path.read_bytes(), threads)


def read_contract(content: bytes) -> Contract:
    """Return the contract in a TFLite file's bytes.

    Raises:
        UnsafeArtifact: When weights lie in other files.
        ArtifactError: When the bytes are not TFLite or carry no contract.
    """
    if content[4:8] != b"TFL3":
        raise ArtifactError("The file is not TFLite: its identifier is missing.")
    model = schema.Model.GetRootAs(content, 0)
    if model.ExternalBuffersLength() or model.ExternalBufferGroupsLength():
        raise UnsafeArtifact("Weights of it lie in another file; export-lstm keeps them inside.")
    for k in range(model.MetadataLength()):
        entry = model.Metadata(k)
        if entry.Name() == METADATA.encode():
            return Contract.from_json(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    raise ArtifactError("The file carries no export-lstm contract. Export the Keras model with export-lstm.")
