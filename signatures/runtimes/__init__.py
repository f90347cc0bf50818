"""Runtimes: open an artifact by what it is and run its signatures by name, the same way in each.

One module a target, each with `load(path) -> (contract, call, takes)`; its runtime is imported when the first artifact
of that kind is opened, so a device needs only the one it uses. A call is safe in any thread and returns its own arrays.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import files
from ..contract import Contract
from ..errors import ArtifactError, ExportLSTMError, MissingRuntime, one_line
from ..ports import Array, Feeds, show
from ..stream import Stream

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is loaded: it keeps records at home

Call = Callable[[str, Feeds], dict[str, Array]]
Takes = Mapping[str, Mapping[str, Sequence[Any]]]
"""Signature -> input -> the sizes of its axes in the graph; where a call may choose, anything but a positive int."""

# target: (suffix, module here, what to install)
RUNTIMES = {
    "tflite": (".tflite", "tflite", "ai-edge-litert"),
    "onnx": (".onnx", "onnx", "onnxruntime"),
    "savedmodel": ("", "savedmodel", "tensorflow"),
}


class Runner:
    """An opened artifact. Any number of threads and streams may use it at once.

    LiteRT's interpreter runs one call at a time: threads that use it wait for each other. For calls that run side by
    side open the file once a thread. TensorFlow and ONNX Runtime run them side by side.

    Attributes:
        contract: What it takes, gives and carries.
        target: "tflite", "onnx" or "savedmodel".
        dims: Dimensions fixed in this artifact, name -> size.
    """

    def __init__(self, contract: Contract, target: str, call: Call) -> None:
        """Wrap a runtime's call; `open` is the usual way here."""
        self.contract = contract
        self.target = target
        self.dims = contract.artifacts[target].dims
        self._call = call

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run a signature once.

        Args:
            signature: "sequence" or "step".
            feeds: Input port -> array, all of them; `contract.signatures[...].initial_state()` gives zero states.

        Returns:
            Output port -> a fresh array.

        Raises:
            FeedError: When names, shapes or types don't fit.
            ArtifactError: When the artifact has no such signature.
        """
        if signature not in self.contract.signatures:
            reason = f" {self.contract.step}" if self.contract.step else ""
            raise ArtifactError(
                f"There is no signature {signature!r}; there is {', '.join(self.contract.signatures)}.{reason}"
            )
        called = self.contract.signatures[signature]
        called.check_feeds(feeds, self.dims)
        try:
            outputs = self._call(signature, feeds)
        except Exception as error:  # each runtime raises its own, without a common base
            raise ArtifactError(f"{signature}: the runtime can't run this artifact ({one_line(error)}).") from error
        if missing := [port.name for port in called.outputs if port.name not in outputs]:
            raise ArtifactError(
                f"{signature}: the artifact gives no output {missing[0]!r}, which its contract promises."
            )
        return {port.name: outputs[port.name] for port in called.outputs}

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream that starts from zero state; see Stream."""
        return Stream(self, batch)


def target_of(path: str | Path) -> str:
    """Return the target of an artifact by what is on disk.

    Raises:
        ArtifactError: When there is nothing, or nothing of ours.
    """
    path = Path(path)
    if (found := files.kind(path)) is None:
        raise ArtifactError(f"{path}: no such file. Give a .tflite or .onnx file or a SavedModel folder.")
    for target, (suffix, _, _) in RUNTIMES.items():
        if suffix and found != "a folder" and path.suffix == suffix:
            try:
                files.look(path)
            except ValueError as error:
                raise ArtifactError(f"{path}: {error}. Give a .tflite or .onnx file or a SavedModel folder.") from None
            return target
    if files.kind(path / "saved_model.pb") is not None:
        return "savedmodel"
    raise ArtifactError(f"{path}: not an artifact. Give a .tflite or .onnx file or a folder with a saved_model.pb.")


def open(path: str | Path, trust: bool = False) -> Runner:
    """Open an artifact in its own runtime.

    Args:
        path: A `.tflite` or `.onnx` file or a SavedModel folder, written by export-lstm.
        trust: Whether to load a SavedModel that holds other ops than export-lstm writes. Loading it may read and
            write files and run code of whoever made it.

    Returns:
        A runner for any number of threads and streams.

    Raises:
        UnsafeArtifact: When opening it may read or write files or run code.
        ArtifactError: When it is missing, damaged or carries no contract.
        MissingRuntime: When the package that runs it is not installed.
    """
    target = target_of(path)
    options = {"trust": trust} if target == "savedmodel" else {}  # the others hold nothing but mathematics
    with _reading(path, target) as runtime:
        contract, call, takes = runtime.load(Path(path), **options)
        _check_inputs(_held(contract, target), target, takes)
        return Runner(contract, target, call)


def read_contract(path: str | Path) -> Contract:
    """Return an artifact's contract; a SavedModel is not loaded for it, so that nothing of it runs.

    Raises:
        ArtifactError: See open.
        MissingRuntime: When the package that reads it is not installed.
    """
    target = target_of(path)
    if target != "savedmodel":
        return open(path).contract
    with _reading(path, target) as runtime:
        return _held(runtime.read_contract(Path(path)), target)


@contextmanager
def _reading(path: str | Path, target: str) -> Iterator[Any]:
    """Yield the module that reads a target, and put the path before what it refuses."""
    _, module, package = RUNTIMES[target]
    try:
        yield importlib.import_module(f".{module}", __name__)
    except ImportError as error:
        raise MissingRuntime(
            f"{path}: running it takes {package} ({error}). Install it: pip install {package}"
        ) from error
    except ExportLSTMError as error:
        raise type(error)(f"{path}: {error}") from None


def _held(contract: Contract, target: str) -> Contract:
    """Return the contract if it is this target's."""
    if target not in contract.artifacts:
        raise ArtifactError(f"its contract is for {', '.join(contract.artifacts)}, not for {target}.")
    return contract


def _check_inputs(contract: Contract, target: str, takes: Takes) -> None:
    """Refuse a contract whose inputs have other sizes than those of the graph."""
    for signature in contract.signatures.values():
        sizes = {**contract.artifacts[target].dims, **signature.dims}
        for port in signature.inputs:
            wanted, graph = port.sized(sizes), takes[signature.name].get(port.name)
            if graph is None:
                continue  # an input that nothing depends on may have been left out
            known = zip(wanted, graph, strict=False)
            if len(wanted) != len(graph) or any(
                isinstance(a, int) and isinstance(b, int) and b > 0 and a != b for a, b in known
            ):
                raise ArtifactError(
                    f"its contract says that {signature.name} takes {port.name!r} as {show(wanted)}, "
                    f"but its graph takes {show(tuple(graph))}. Export it again."
                )
