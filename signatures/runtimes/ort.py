"""ONNX Runtime runs `.onnx`: one graph with a dynamic time axis serves every signature.

The file is walked before the runtime sees it: the runtime would read other files where a tensor names one.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from .. import files
from ..contract import Contract
from ..errors import ArtifactError, UnsafeArtifact
from ..ports import Array, Feeds

METADATA = "export-lstm.contract"
DAMAGED = "The file is damaged or not ONNX"

# Message of the ONNX format -> number of a field -> the message it holds, for all that can hold a tensor or a node.
FIELDS = {
    "Model": {7: "Graph", 8: "OperatorSet", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 9: "OperatorSet", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a Tensor
OP_TYPE, DOMAIN = 4, 7  # of a Node
DOMAINS = frozenset({b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft"})  # the runtime's own ops
DEPTH = 100
"""Messages within messages, as far as protocol buffers read them."""
MOST_FIELDS = 1_500_000
"""Of all messages together: some 4 seconds of looking."""
ORT = b"ORTM"
"""At byte 4 of ONNX Runtime's own format, a flatbuffer, which the runtime takes from any name."""


class OnnxRuntime:
    """An ONNX graph, which serves every signature."""

    def __init__(self, content: bytes, threads: int) -> None:
        """Open the bytes of a file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._taken = {value.name: value.shape for value in self._session.get_inputs()}
        self._given = [value.name for value in self._session.get_outputs()]
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def takes(self, signature: str) -> dict[str, Any]:
        """Return the sizes of the inputs; see Session."""
        return self._taken

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run the graph once; see Session."""
        values = self._session.run(self._given, {name: feeds[name] for name in self._taken})
        return dict(zip(self._given, values, strict=True))

    def bind(self, signature: str, feeds: Feeds) -> Callable[[], object]:
        """Return a call with inputs and outputs bound once; see Session."""
        binding = self._session.io_binding()
        for name in self._taken:
            binding.bind_cpu_input(name, feeds[name])
        for name in self._given:
            binding.bind_output(name)
        return partial(self._session.run_with_iobinding, binding)


def load(path: Path, trust: bool, threads: int) -> tuple[Contract, OnnxRuntime]:
    """Open an ONNX artifact; the contract is its metadata property `export-lstm.contract`; see Module."""
    content = files.read(path)
    check(content)
    opened = OnnxRuntime(content, threads)
    text = opened.metadata.get(METADATA)
    if text is None:
        raise ArtifactError("The file carries no export-lstm contract. Export the Keras model with export-lstm.")
    return Contract.from_json(text), opened


def session(path: Path, threads: int) -> OnnxRuntime:
    """Open any ONNX file; see Module."""
    return OnnxRuntime(path.read_bytes(), threads)


def check(content: bytes) -> None:
    """Refuse an ONNX file whose tensors lie in other files, or whose nodes need a library.

    Raises:
        UnsafeArtifact: With what it holds; or when it is of ONNX Runtime's own format, which isn't looked into.
        ValueError: When the bytes are not ONNX.
    """
    if content[4:8] == ORT:
        raise UnsafeArtifact(
            "The file is of ONNX Runtime's own format (ORT), not ONNX, which export-lstm writes. "
            "Export the Keras model again."
        )
    view, count, graphs = memoryview(content), 0, 0
    waiting: list[tuple[str, int, int, int]] = [("Model", 0, len(content), 0)]
    while waiting:
        message, start, end, depth = waiting.pop()
        if depth > DEPTH:
            raise ValueError(f"it nests more than {DEPTH} deep")
        op, domain = b"", b""
        for number, value in _fields(view, start, end):
            count += 1
            if count > MOST_FIELDS:
                raise ValueError(f"it has more than {MOST_FIELDS:,} fields")
            if message == "Tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0)):
                raise UnsafeArtifact(
                    "A tensor of it lies in another file, which would be read from where you are. "
                    "export-lstm keeps weights inside: save the model as one file."
                )
            if not isinstance(value, tuple):
                continue
            if message == "Node" and number in (OP_TYPE, DOMAIN):
                text = bytes(view[value[0] : value[1]])
                op, domain = (text, domain) if number == OP_TYPE else (op, text)
            if (inner := FIELDS.get(message, {}).get(number)) is not None:
                graphs += inner == "Graph"
                waiting.append((inner, *value, depth + 1))
        if message == "Node" and (domain not in DOMAINS or op == b"EPContext"):
            raise UnsafeArtifact(
                f"Its node {op.decode(errors='replace')!r} of the domain {domain.decode(errors='replace')!r} needs a "
                "library of its own; export-lstm writes the standard's ops only. Export the Keras model again."
            )
    if not graphs:
        raise ValueError("it holds no graph")


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield the fields of a protocol buffer message: number, and the value or (start, end) of the bytes it has."""
    while start < end:
        tag, start = _varint(view, start, end)
        number, kind = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise ValueError("a field without a number")
        if kind == 0:
            value, start = _varint(view, start, end)
            yield number, value & 0xFFFFFFFF
        elif kind in (1, 2, 5):
            size, start = _varint(view, start, end) if kind == 2 else (4 if kind == 5 else 8, start)
            if size > end - start:
                raise ValueError("a field that goes beyond the end")
            if kind == 2:
                yield number, (start, start + size)
            start += size
        else:
            raise ValueError(f"a field of the wire type {kind}")


def _varint(view: memoryview, start: int, end: int) -> tuple[int, int]:
    """Return the number of variable length at `start`, and where it ends."""
    value = 0
    for k in range(start, min(start + 10, end)):
        value |= (view[k] & 0x7F) << 7 * (k - start)
        if view[k] < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, k + 1
    raise ValueError("a number without an end")
