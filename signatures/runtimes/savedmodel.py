"""TensorFlow runs SavedModel folders; `serving_default` is the zero-state call for servers, the rest is by contract."""

from pathlib import Path

import tensorflow as tf

from ..contract import Contract
from ..errors import ArtifactError, one_line
from ..ports import Array, Feeds
from . import Call

CONTRACT = "assets.extra/contract.json"


def load(path: Path) -> tuple[Contract, Call]:
    """Open a SavedModel folder; the contract is its `assets.extra/contract.json`."""
    if not (path / CONTRACT).is_file():
        raise ArtifactError("The folder carries no export-lstm contract. Export the Keras model with export-lstm.")
    contract = Contract.from_json((path / CONTRACT).read_bytes())
    try:
        loaded = tf.saved_model.load(str(path))
        functions = {name: loaded.signatures[name] for name in contract.signatures}
    except Exception as error:  # noqa: BLE001 - the reader raises protobuf, OS and TensorFlow errors alike
        raise ArtifactError(f"The folder is damaged or not a SavedModel ({one_line(error)}).") from None

    def call(signature: str, feeds: Feeds, _keep_alive: object = loaded) -> dict[str, Array]:
        outputs = functions[signature](**{name: tf.constant(value) for name, value in feeds.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return contract, call
