"""ONNX Runtime runs `.onnx`: one graph with a dynamic time axis serves every signature."""

from pathlib import Path

import onnxruntime

from ..contract import Contract
from ..errors import ArtifactError, one_line
from ..ports import Array, Feeds
from . import Call

METADATA = "export-lstm.contract"


def load(path: Path) -> tuple[Contract, Call]:
    """Open an ONNX file; the contract is its metadata property `export-lstm.contract`."""
    try:
        # From bytes, so that a stranger's file can't pull in external data by path.
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    except Exception as error:  # noqa: BLE001 - the runtime's exceptions share no base class
        raise ArtifactError(f"The file is damaged or not ONNX ({one_line(error)}).") from None
    if text is None:
        raise ArtifactError("The file carries no export-lstm contract. Export the Keras model with export-lstm.")
    contract = Contract.from_json(text)
    taken = {value.name for value in session.get_inputs()}

    def call(signature: str, feeds: Feeds) -> dict[str, Array]:
        names = [port.name for port in contract.signatures[signature].outputs]
        values = session.run(names, {name: value for name, value in feeds.items() if name in taken})
        return dict(zip(names, values, strict=True))

    return contract, call
