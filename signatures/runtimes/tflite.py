"""LiteRT runs `.tflite`: signatures by name, since the order of tensors is not promised by the format."""

import threading
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from .. import files
from ..contract import Contract
from ..errors import ArtifactError, UnsafeArtifact, one_line
from ..ports import Array, Feeds
from . import Call, Takes

METADATA = "export-lstm.contract"


def load(path: Path) -> tuple[Contract, Call, Takes]:
    """Open a TFLite file; the contract is its metadata buffer `export-lstm.contract`."""
    try:
        content = files.read(path)
        contract = read_contract(content)
        interpreter = Interpreter(model_content=content)
        runners = {name: interpreter.get_signature_runner(name) for name in contract.signatures}
    except ArtifactError:
        raise
    except Exception as error:  # noqa: BLE001 - the flatbuffer reader and the interpreter raise whatever the bytes lead them to
        raise ArtifactError(f"The file is damaged or not TFLite ({one_line(error)}).") from None
    alone = threading.Lock()  # an interpreter has one set of tensors: setting, running and reading them is one call

    def call(signature: str, feeds: Feeds) -> dict[str, Array]:
        with alone:
            return dict(runners[signature](**feeds))

    def takes(signature: str) -> dict[str, list[int]]:
        return {
            name: [int(size) for size in details["shape_signature"]]
            for name, details in runners[signature].get_input_details().items()
        }

    return contract, call, takes


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
