"""TensorFlow runs SavedModel folders; `serving_default` is the zero-state call for servers, the rest is by contract.

Loading a SavedModel runs parts of it. So its graphs are looked at first: only what computes may be in them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from .. import files
from ..contract import Contract
from ..errors import ArtifactError, UnsafeArtifact, one_line
from ..ports import Array, Feeds
from . import contract_in
from .tensorflow_ops import COMPUTING

CONTRACT = "assets.extra/contract.json"
DAMAGED = "The folder is damaged or not a SavedModel"

# What tf.saved_model.save puts into its two functions that read and write the variables. Loading calls neither.
SAVING = frozenset(
    {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "StaticRegexFullMatch", "StringJoin"}
)
OBJECTS = frozenset(
    {"variable", "bare_concrete_function", "captured_tensor", "constant"}
    | {"_generic_user_object", "trackable_list_wrapper", "signature_map"}
)


class TensorFlow:
    """A SavedModel folder."""

    def __init__(self, path: Path) -> None:
        """Load a folder."""
        self._loaded = tf.saved_model.load(str(path))

    def takes(self, signature: str) -> dict[str, Any]:
        """Return the sizes of the inputs; see Session."""
        return {name: spec.shape.as_list() for name, spec in self._inputs(signature).items()}

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run a signature once; see Session."""
        outputs = self.bind(signature, feeds)()
        return {name: value.numpy() for name, value in outputs.items()}

    def bind(self, signature: str, feeds: Feeds) -> Callable[[], Any]:
        """Return a call on tensors that are made once; see Session."""
        tensors = {name: tf.constant(feeds[name]) for name in self._inputs(signature)}
        return partial(self._loaded.signatures[signature], **tensors)

    def _inputs(self, signature: str) -> dict[str, Any]:
        specs: dict[str, Any] = self._loaded.signatures[signature].structured_input_signature[1]
        return specs


def load(path: Path, trust: bool, threads: int) -> tuple[Contract, TensorFlow]:
    """Open a SavedModel artifact, its graphs looked at unless it is trusted; see Module."""
    contract = read_contract(path)
    if not trust:
        check(path)
    return contract, TensorFlow(path)


def session(path: Path, threads: int) -> TensorFlow:
    """Open any SavedModel folder; see Module."""
    return TensorFlow(path)


def read_contract(path: Path) -> Contract:
    """Return the contract of a SavedModel folder, its `assets.extra/contract.json`.

    Raises:
        ArtifactError: When there is none.
    """
    return contract_in(path / CONTRACT)


def read_graphs(path: Path) -> Any:
    """Return the one MetaGraphDef of a SavedModel folder; nothing of it is run.

    Raises:
        ArtifactError: When it can't be read or there are several.
    """
    try:
        saved = saved_model_pb2.SavedModel.FromString(files.read(path / "saved_model.pb"))
    except Exception as error:  # noqa: BLE001 - protobuf's own errors share no base class
        raise ArtifactError(f"The folder is damaged: saved_model.pb can't be read ({one_line(error)}).") from None
    if len(saved.meta_graphs) != 1:
        raise ArtifactError(f"The folder holds {len(saved.meta_graphs)} graphs; export-lstm writes one.")
    return saved.meta_graphs[0]


def check(path: Path) -> None:
    """Refuse a SavedModel that holds anything but what export-lstm writes: mathematics and its own variables.

    Raises:
        UnsafeArtifact: With the first thing that may reach files or code when it is loaded or run.
        ArtifactError: When it can't be read.
    """
    try:
        files.check_tree(path)
    except ValueError as error:
        raise _unsafe(f"It {error}") from None
    graphs = read_graphs(path)
    if not graphs.HasField("object_graph_def"):
        raise _unsafe("It was not written by tf.saved_model.save of TensorFlow 2")
    if graphs.asset_file_def:
        raise _unsafe(f"It reads the file {graphs.asset_file_def[0].filename!r}")
    for node in graphs.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        kind = node.user_object.identifier if kind == "user_object" else kind
        if kind not in OBJECTS or node.registered_saver or node.saveable_objects:
            raise _unsafe(f"It holds an object of the kind {kind!r}")
    savers = _savers(graphs)
    library = {function.signature.name for function in graphs.graph_def.library.function}
    for place, node in _nodes(graphs):
        if node.op not in library and not (node.op in COMPUTING or (place in savers and node.op in SAVING)):
            raise _unsafe(f"It holds the op {node.op!r} ({place or 'main graph'}: {node.name})")


def _unsafe(what: str) -> UnsafeArtifact:
    return UnsafeArtifact(
        f"{what}, which export-lstm doesn't write: loading it may read or write files or run code. "
        "If you trust who made it, pass --trust (in Python: signatures.open(path, trust=True))."
    )


def _nodes(graphs: Any) -> Iterator[tuple[str, Any]]:
    """Yield every node with the name of its function; the main graph's is empty."""
    yield from (("", node) for node in graphs.graph_def.node)
    for function in graphs.graph_def.library.function:
        yield from ((function.signature.name, node) for node in function.node_def)


def _savers(graphs: Any) -> set[str]:
    """Return the functions that read and write the variables, if nothing but the saver's own nodes calls them."""
    names = {graphs.saver_def.save_tensor_name.partition(":")[0], graphs.saver_def.restore_op_name}
    savers = {node.attr["f"].func.name for node in graphs.graph_def.node if node.name in names and "f" in node.attr}
    called = set(graphs.object_graph_def.concrete_functions)
    for node in graphs.object_graph_def.nodes:
        called |= {node.bare_concrete_function.concrete_function_name, *node.function.concrete_functions}
    for gradient in graphs.graph_def.library.gradient:
        called |= {gradient.function_name, gradient.gradient_func}
    for function in graphs.graph_def.library.function:  # TensorFlow may swap those that say they do the same
        if any(key.startswith("api_") for key in function.attr):
            called.add(function.signature.name)
    for place, node in _nodes(graphs):
        if place or node.name not in names:
            called.add(node.op)
            for value in node.attr.values():
                called |= {value.func.name, *(function.name for function in value.list.func)}
    return savers - called
