"""Runtimes: what runs an artifact, the same way in each.

One module a runtime, imported when the first artifact is opened in it, so a device needs only the one it uses.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from .. import files
from ..contract import Contract
from ..errors import ArtifactError, ExportLSTMError, MissingRuntime, one_line
from ..ports import Array, Feeds, show
from ..runner import Runner

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is loaded: it keeps records at home


class Session(Protocol):
    """A file that is opened in a runtime. A call is safe in any thread and gives its own arrays."""

    def takes(self, signature: str) -> Mapping[str, Sequence[Any]]:
        """Return input -> the sizes of its axes in the graph; where a call may choose, anything but a positive int."""

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run a signature once; feeds of inputs that the graph doesn't have are left out.

        Returns:
            Output -> array.
        """

    def bind(self, signature: str, feeds: Feeds) -> Callable[[], object]:
        """Return a call of the signature on these feeds as the runtime itself makes it, nothing copied: for timing."""


class Module(Protocol):
    """A module of this folder.

    Attributes:
        DAMAGED: What is said of an artifact that `load`, or the session it gives, fails on with an error of its own.
    """

    DAMAGED: str

    def load(self, path: Path, trust: bool, threads: int) -> tuple[Contract, Session]:
        """Open an artifact of ours.

        Args:
            path: Where it is.
            trust: Whether to open it whatever it holds.
            threads: See session.

        Raises:
            UnsafeArtifact: When opening or running it may reach files or code.
            ArtifactError: When it carries no contract.
        """

    def session(self, path: Path, threads: int) -> Session:
        """Open any file of the runtime's kind.

        Args:
            path: Where it is.
            threads: How many a call may use. TensorFlow's are the whole process'.
        """


@dataclass(frozen=True)
class Runtime:
    """What runs artifacts of one kind.

    Attributes:
        name: Its name.
        reads: The target that it runs.
        suffix: What the names of such files end in; "" for folders.
        package: What to install.
        module: Its module here.
        marker: The file that such folders hold; "" for files.
    """

    name: str
    reads: str
    suffix: str
    package: str
    module: str
    marker: str = ""

    def load(self) -> Module:
        """Return its module.

        Raises:
            ImportError: When the package isn't installed.
        """
        return cast(Module, importlib.import_module(f".{self.module}", __name__))


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("litert", "tflite", ".tflite", "ai-edge-litert", "litert"),
        Runtime("onnxruntime", "onnx", ".onnx", "onnxruntime", "ort"),
        Runtime("tensorflow", "savedmodel", "", "tensorflow", "tensorflow", "saved_model.pb"),
        Runtime("cc", "c", "", "a C compiler", "c", "export-lstm.contract.json"),
        Runtime("tflm", "tflm", "", "tflite-micro", "tflm", "export-lstm.tflite"),
    )
}
"""All there are; the first that reads a target is its own."""


def contract_in(file: Path) -> Contract:
    """Return the contract that lies in a folder as a file.

    Raises:
        ArtifactError: When there is none.
    """
    if files.kind(file) is None:
        raise ArtifactError("The folder carries no export-lstm contract. Export the Keras model with export-lstm.")
    try:
        return Contract.from_json(files.read(file, files.TEXT))
    except ValueError as error:
        raise ArtifactError(f"The folder carries no export-lstm contract: {error}.") from None


def own(target: str) -> Runtime:
    """Return the runtime that a target is made for."""
    return next(runtime for runtime in RUNTIMES.values() if runtime.reads == target)


if TYPE_CHECKING:  # where mypy holds every module to the protocol
    from . import c, litert, ort, tensorflow, tflm

    _MODULES: tuple[Module, ...] = (c, litert, ort, tensorflow, tflm)


def target_of(path: str | Path) -> str:
    """Return the target of an artifact by what is on disk.

    Raises:
        ArtifactError: When there is nothing, or nothing of ours.
    """
    path = Path(path)
    if (found := files.kind(path)) is None:
        raise ArtifactError(
            f"{path}: no such file. Give a .tflite or .onnx file, or a folder of SavedModel, C or TFLM."
        )
    reading = next((each for each in RUNTIMES.values() if each.suffix == path.suffix), None)
    if found != "a folder" and path.suffix and reading is not None:
        try:
            files.look(path)
        except ValueError as error:
            raise ArtifactError(
                f"{path}: {error}. Give a .tflite or .onnx file, or a folder of SavedModel, C or TFLM."
            ) from None
        return reading.reads
    if (target := of_folder(path)) is not None:
        return target
    markers = " or ".join(f"{each.marker}" for each in RUNTIMES.values() if each.marker)
    raise ArtifactError(f"{path}: not an artifact. Give a .tflite or .onnx file or a folder with a file {markers}.")


def of_folder(path: Path) -> str | None:
    """Return the target of an artifact that is a folder, by a file that it holds; None where it holds none of them."""
    kinds = (each.reads for each in RUNTIMES.values() if each.marker and files.kind(path / each.marker) is not None)
    return next(kinds, None)


def open(path: str | Path, trust: bool = False, *, runtime: str | None = None, threads: int = 1) -> Runner:
    """Open an artifact.

    Args:
        path: A `.tflite` or `.onnx` file or a folder, SavedModel, C or TFLM, written by export-lstm.
        trust: Whether to load a SavedModel that holds other ops than export-lstm writes, and to compile and run C.
            That may read and write files and run code of whoever made it.
        runtime: What runs it, a name of RUNTIMES; None for the target's own.
        threads: How many a call may use. TensorFlow's are the whole process' and aren't set here.

    Returns:
        A runner for any number of threads and streams.

    Raises:
        UnsafeArtifact: When opening it may read or write files or run code.
        ArtifactError: When it is missing, damaged or carries no contract, or the runtime is for other files.
        MissingRuntime: When the package that runs it is not installed.
    """
    if type(threads) is not int or threads < 1:
        raise ValueError(f"threads={threads!r}: give a number of at least 1")
    target = target_of(path)
    chosen = own(target) if runtime is None else RUNTIMES.get(runtime)
    if chosen is None or chosen.reads != target:
        reading = ", ".join(each.name for each in RUNTIMES.values() if each.reads == target)
        raise ArtifactError(f"{path}: runtime {runtime!r} doesn't read {target}; {reading} does.")
    with _reading(path, chosen) as module:
        contract, session = module.load(Path(path), trust, threads)
        _check_inputs(_held(contract, target), target, session)
        return Runner(contract, target, session.run)


def read_contract(path: str | Path) -> Contract:
    """Return an artifact's contract; a folder is not loaded for it, so that nothing of it runs.

    Raises:
        ArtifactError: See open.
        MissingRuntime: When the package that reads it is not installed.
    """
    target = target_of(path)
    if not own(target).marker:
        return open(path).contract
    with _reading(path, own(target)) as module:
        return _held(module.read_contract(Path(path)), target)


@contextmanager
def _reading(path: str | Path, runtime: Runtime) -> Iterator[Any]:
    """Yield a runtime's module; put the path before what it refuses, and before what its own code trips over."""
    try:
        module = runtime.load()
    except ImportError as error:
        raise MissingRuntime(
            f"{path}: running it takes {runtime.package} ({error}). Install it: pip install {runtime.package}"
        ) from error
    try:
        yield module
    except ExportLSTMError as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - readers of files raise whatever the bytes lead them to
        raise ArtifactError(f"{path}: {module.DAMAGED} ({one_line(error)}).") from None


def _held(contract: Contract, target: str) -> Contract:
    """Return the contract if it is this target's."""
    if target not in contract.artifacts:
        raise ArtifactError(f"its contract is for {', '.join(contract.artifacts)}, not for {target}.")
    return contract


def _check_inputs(contract: Contract, target: str, session: Session) -> None:
    """Refuse a contract whose inputs have other sizes than those of the graph."""
    takes = {name: session.takes(name) for name in contract.signatures}  # which fails where the graph has not all
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
