"""From a Keras model to checked artifacts: the stages in order.

load -> survey -> contract -> golden numbers -> for each target: plan, trace, write, look at its ops, run and compare
-> move into place.
"""

import hashlib
import importlib
import importlib.metadata
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import signatures as runtime
from signatures.contract import ArtifactInfo, Contract
from signatures.errors import ArtifactError, ParityError, UnsupportedModel
from signatures.golden import ROUNDINGS, Case
from signatures.parity import ParityReport
from signatures.ports import Array, Dim, Signature, sized, time_dims

from . import deliver
from .deliver import TARGETS
from .lower.plan import CHOICES, Choice, check_choice, check_types, check_used, describe, plan
from .memory.recurrence import Recurrence
from .read.budget import MAX_MEMORY
from .read.file import Loaded, load, require_keras

if TYPE_CHECKING:
    from .model.function import Model
    from .model.survey import Survey

Extent = int | Literal["any"] | None
Dtype = Literal["float64", "float32", "float16", "bfloat16"]
Progress = Callable[[str], None]
PACKAGES = {"tflite": ("ai-edge-litert",), "onnx": ("tf2onnx", "onnxruntime"), "savedmodel": ()}
"""Target -> what it takes besides TensorFlow and Keras."""


@dataclass(frozen=True)
class Artifact:
    """What was delivered.

    Attributes:
        target: "tflite", "onnx" or "savedmodel".
        path: The file, or for savedmodel the folder.
        contract: Its ports, as embedded.
        contract_path: The JSON beside it.
        ops: Op -> count.
        size: Bytes on disk.
        sha256: Of the file; of a folder as `deliver.digest` says.
        parity: How it compared; None with check=False.
        seconds: Wall time of its trace, write and check.
    """

    target: str
    path: Path
    contract: Contract
    contract_path: Path
    ops: Counter[str]
    size: int
    sha256: str
    parity: ParityReport | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Opened:
    """A loaded model with what running it showed."""

    loaded: Loaded
    model: "Model"
    survey: "Survey"

    def contract(
        self, targets: Sequence[str], signatures: Sequence[str] | None = None, lengths: bool = False
    ) -> Contract:
        """Return the contract without artifacts; see boundary.contract."""
        from .model.boundary import contract

        packages = ["export-lstm", "keras", "tensorflow", *(p for t in targets for p in PACKAGES[t])]
        versions = {package: importlib.metadata.version(package) for package in packages}
        identity = {"name": self.loaded.name, "sha256": self.loaded.sha256}
        if self.loaded.sha256 is None:
            weights = [np.ascontiguousarray(each) for each in self.loaded.model.get_weights()]
            identity["weights"] = hashlib.sha256(b"".join(each.tobytes() for each in weights)).hexdigest()
        dtype = self.model.dtype
        return contract(self.survey, identity, versions, signatures=signatures, lengths=lengths, dtype=dtype)


def load_model(model: Any, max_memory: float = MAX_MEMORY) -> Loaded:
    """Load a model file, or take a keras.Model in memory.

    Args:
        model: A keras.Model, or the path of a model file.
        max_memory: GB that a file's weights, or one of its tensors, may take; see read.file.load.

    Raises:
        LoadError: When the file can't be loaded safely.
    """
    if isinstance(model, (str, Path)):
        return load(model, max_memory)
    keras = require_keras()
    if not isinstance(model, keras.Model):
        raise TypeError(f"model is a {type(model).__name__}; give a keras.Model or the path of a .keras or .h5 file")
    return Loaded(model, model.name, None)


def open_model(loaded: Loaded, progress: Progress = lambda text: None, batch: Extent = None) -> Opened:
    """Find out what a model takes, gives and carries.

    Args:
        loaded: The model.
        progress: Called with the stage.
        batch: Samples a call, or "any"; None for what its inputs declare, which it may rely on.

    Raises:
        UnsupportedModel: When it has no recurrent layer or one that isn't supported, or can't have that batch.
    """
    from .lower.eager import InOnePiece
    from .model.function import Model
    from .model.survey import survey

    progress("surveying")
    surveyed = Model(loaded.model, InOnePiece())
    declared = surveyed.batch
    if declared in (None, batch) or batch is None:
        return Opened(loaded, surveyed, survey(surveyed))
    surveyed.batch = None if batch == "any" else batch
    try:
        return Opened(loaded, surveyed, survey(surveyed))
    except UnsupportedModel:
        survey(Model(loaded.model, InOnePiece()))  # which may say what else is wrong
        raise UnsupportedModel(
            f"batch {batch} can't be had: the model relies on the {declared} that its inputs declare.\n  Leave it out."
        ) from None


def computing(loaded: Loaded, dtype: str | None) -> AbstractContextManager[None]:
    """Return a context in which the model computes in a type; None: in its own."""
    if dtype is None:
        return nullcontext()
    from .model.swap import computing_in

    return computing_in(loaded.model, dtype)


def export(
    model: Any,
    to: str | Sequence[str] = "tflite",
    out: str | Path | None = None,
    *,
    batch: Extent = None,
    time: Extent = None,
    signatures: Sequence[str] | None = None,
    lengths: bool = False,
    lowering: Choice = "auto",
    dtype: Dtype | None = None,
    max_memory: float = MAX_MEMORY,
    check: bool = True,
    force: bool = False,
    progress: Progress = lambda text: None,
) -> list[Artifact]:
    """Export a Keras model with recurrent layers, its state explicit, and prove it before delivering it.

    Args:
        model: A keras.Model, or the path of a `.keras` or `.h5` file.
        to: "tflite", "onnx", "savedmodel", several of them, or "all".
        out: Where to: a folder, or for one target the artifact's path; None for the current folder.
        batch: Samples a call, or "any"; None means what the model's inputs declare, else 1 for tflite, any elsewhere.
        time: Time steps of a `sequence` call, or "any"; None means as the model declares.
        signatures: "sequence", "step" or both; None means all the model can have.
        lengths: Whether calls take `lengths` [B], after which a sample's state stops.
        lowering: How a sequence is run: "auto"; tflite: "unrolled" or "loop"; savedmodel: "xla".
        dtype: The type to compute in; None means each layer's own. 16-bit floats are float32 at the ports.
        max_memory: GB that the weights of a model file, or one of its tensors, may take.
        check: Whether to compare with golden outputs before delivering; False delivers unchecked.
        force: Whether to replace what is at the output path.
        progress: Called with the name of each stage as it starts.

    Returns:
        One Artifact a target, in the order asked for.

    Raises:
        LoadError: When the file can't be loaded safely.
        UnsupportedModel: When the model or an option has no right form in a target.
        OutputError: When an output path is taken or can't be written.
        ParityError: When an artifact differs from the golden outputs; nothing is then delivered.
    """
    targets = _targets(to)
    _check_options(batch, time, signatures, lowering, dtype)
    check_choice(lowering, targets)
    stem = Path(model).stem if isinstance(model, (str, Path)) else getattr(model, "name", "model")
    final, contract_path = deliver.paths(stem, targets, out)
    deliver.clean(contract_path.parent)
    deliver.check_free(list(final.values()), force)
    deliver.check_free([contract_path], force=True)  # what is there may be added to
    progress("loading")
    loaded = load_model(model, max_memory)
    with computing(loaded, dtype):
        opened = open_model(loaded, progress, batch)
        for target in targets:
            check_types(opened.model.types, target)
        common = opened.contract(targets, signatures, lengths)
        times = _times(opened.survey, time)
        together = replace(common, artifacts={t: ArtifactInfo(path.name) for t, path in final.items()})
        deliver.joined(contract_path, together, force)  # refused now rather than when all is made

        golden = None
        if check:
            from .prove.witness import record, totals_for

            totals = totals_for(opened.survey)
            golden = record(
                opened.model, common, times, totals=totals, progress=lambda run: progress(f"golden numbers {run}")
            )
            common = replace(common, noise=golden.noise, inputs=golden.inputs)
        artifacts: list[Artifact] = []

        def seal(stage: deliver.Staged) -> None:
            deliver.check_free(list(final.values()), force)  # another export may have been quicker
            told = {a.target: replace(a.contract.artifacts[a.target], sha256=a.sha256) for a in artifacts}
            together = deliver.joined(contract_path, replace(artifacts[0].contract, artifacts=told), force)
            stage[contract_path].write_text(together.to_json(), encoding="utf-8")
            progress(deliver.DELIVERING)

        with deliver.staged([*final.values(), contract_path], seal) as stage:
            for target in targets:
                size = batch or opened.model.batch or (1 if target == "tflite" else "any")
                dims = {**({} if size == "any" else {"batch": size}), **times}
                job = Job(
                    target, opened, common, dims, lowering, golden, stage[final[target]], final[target], contract_path
                )
                artifacts.append(_make(job, progress))
    return artifacts


@dataclass(frozen=True)
class Job:
    """One artifact to make: at `stage` first, at `final` when everything is right."""

    target: str
    opened: Opened
    common: Contract
    dims: Mapping[str, int]
    lowering: Choice
    golden: Case | None
    stage: Path
    final: Path
    contract_path: Path


def _make(job: Job, progress: Progress) -> Artifact:
    """Make one artifact at its temporary path and hold it to its golden numbers."""
    from .lower.trace import trace
    from .memory.convert.options import input_shape
    from .prove.witness import ON_REAL_DATA

    target, survey = job.target, job.opened.survey
    writer = importlib.import_module(f".targets.{target}.write", __package__)
    graphs = _graphs(target, job.common, survey)
    dims = dict(job.dims)
    if target == "onnx" and survey.no_step is None:  # its one graph also serves `step`, whatever `sequence` is fixed to
        dims = {name: size for name, size in dims.items() if name not in time_dims(survey.inputs)}
    runs: dict[str, tuple[Recurrence, Dim, Dim]] = {
        made.name: (made.recurrence, made.time, made.batch) for made in survey.calls
    }
    for name, (layer, recurrence) in job.opened.model.repeated.items():
        runs[name] = recurrence, input_shape(layer)[1] or name, name
    plans = {}
    for name, signature in graphs.items():
        sizes = {**dims, **signature.dims}
        plans[name] = {
            call: plan(recurrence, target, _known(time, sizes), job.lowering, _known(rows, sizes))
            for call, (recurrence, time, rows) in runs.items()
        }
    check_used(job.lowering, target, [chosen for calls in plans.values() for chosen in calls.values()])
    first = next(iter(plans.values()))
    planned = [(recurrence, first[call]) for call, (recurrence, _, _) in runs.items()]
    reasons = {call: describe({name: plans[name][call] for name in plans}) for call in runs}
    contract = replace(job.common, artifacts={target: ArtifactInfo(job.final.name, job.dims, reasons)})

    clock = [time.perf_counter()]
    progress(f"{target}: tracing")
    traced = trace(job.opened.model, survey, graphs, dims, plans, writer.SPELLINGS)
    clock.append(time.perf_counter())
    progress(f"{target}: converting")
    writer.write(traced, contract, job.stage)
    ops = writer.ops(job.stage)
    if faults := writer.faults(ops, planned):
        raise UnsupportedModel(
            f"The {target} artifact can't keep its promise: {'; '.join(faults)}.\n"
            "  Nothing was written. Try another target."
        )
    clock.append(time.perf_counter())
    report = None
    if job.golden is not None:
        try:
            made = runtime.open(job.stage, trust=True)  # the model's own layers may hold any op
            report = runtime.check(made, job.golden, lambda run: progress(f"{target}: checking {run}"))
        except ArtifactError as error:
            raise UnsupportedModel(
                f"The {target} artifact doesn't run in its own runtime: {str(error).removeprefix(f'{job.stage}: ')}\n"
                "  Nothing was written. Try another target."
            ) from error
        if not report.ok:
            amplified = (
                ""
                if report.failures and report.failures[0].note
                else "  If the model amplifies rounding by more than its noise, this can't show whether it is right.\n"
            )
            raise ParityError(f"The {target} artifact is not delivered. {report.summary()}\n{amplified}{ON_REAL_DATA}")
    clock.append(time.perf_counter())
    files = [file for file in (job.stage, *job.stage.rglob("*")) if file.is_file()]
    sha256 = deliver.digest(job.stage)
    seconds = {stage: b - a for stage, a, b in zip(("trace", "convert", "check"), clock, clock[1:], strict=False)}
    size = sum(file.stat().st_size for file in files)
    return Artifact(target, job.final, contract, job.contract_path, ops, size, sha256, report, seconds)


def _known(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """Return a dimension's size, None where a call may choose it."""
    size = sized(dim, sizes)
    return size if isinstance(size, int) else None


def _graphs(target: str, contract: Contract, survey: "Survey") -> dict[str, Signature]:
    """Return the graphs a target has: one for each signature; a zero-state one more; or one for all."""
    if target == "onnx":
        name = next(iter(contract.signatures))
        return {name: contract.signatures[name]}
    if target == "savedmodel":
        first = next(iter(contract.signatures.values()))
        ports = {port.name: port for port in first.outputs}
        outputs = tuple(ports[name] for name in dict.fromkeys(contract.outputs))
        return {
            **contract.signatures,
            "serving_default": Signature("serving_default", survey.inputs, outputs, (), first.dims),
        }
    return dict(contract.signatures)


def _check_options(
    batch: Extent, time: Extent, signatures: Sequence[str] | None, lowering: str, dtype: str | None
) -> None:
    """Refuse values that no export has, in the words of the command line."""
    for name, value in (("batch", batch), ("time", time)):
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and value != "any" and not number:
            raise ValueError(f"{name}={value!r}: give a number of at least 1, 'any' or None")
    from .model.boundary import SIGNATURES

    if signatures is not None and (isinstance(signatures, str) or not signatures or set(signatures) - set(SIGNATURES)):
        raise ValueError(f"signatures={signatures!r}: give a list of {', '.join(SIGNATURES)}")
    if dtype not in (None, *ROUNDINGS):
        raise ValueError(f"dtype={dtype!r}: give {', '.join(ROUNDINGS)} or None")
    if lowering not in CHOICES:
        raise ValueError(f"lowering={lowering!r}: give {', '.join(CHOICES)}")


def _targets(to: str | Sequence[str]) -> list[str]:
    asked: list[str] = [to] if isinstance(to, str) else list(to or [])
    found = list(dict.fromkeys(t for name in asked for t in (TARGETS if name == "all" else (name,))))
    if not found or set(found) - set(TARGETS):
        raise ValueError(f"to={to!r}: give tflite, onnx, savedmodel, several of them or all")
    return found


def _times(survey: "Survey", asked: Extent) -> dict[str, int]:
    """Return the fixed time dimensions: what the user asked for, else what the model declares."""
    if asked is None:
        return dict(survey.declared)
    if not survey.tried:
        raise UnsupportedModel(f"time {asked} can't be had: no input has a time axis.\n  Leave it out.")
    if not survey.flexible and {asked} != set(survey.declared.values()):
        raise UnsupportedModel(f"time {asked} can't be had: {survey.no_step}\n  Leave it out.")
    steps = time_dims(survey.inputs)
    memories = {name: size for name, size in survey.declared.items() if name not in steps}
    return {} if asked == "any" else {**memories, **dict.fromkeys(steps, asked)}


def record_case(
    model: Any,
    folder: str | Path,
    *,
    feeds: Mapping[str, Array] | None = None,
    totals: Sequence[int] | None = None,
    lengths: bool = False,
    dtype: Dtype | None = None,
    max_memory: float = MAX_MEMORY,
    recipe: Mapping[str, Any] | None = None,
    progress: Progress = lambda text: None,
) -> Case:
    """Record a golden case of a model as a folder, the model in it; see witness.record.

    Args:
        model: A keras.Model or the path of a model file.
        folder: Where to; it must not exist.
        feeds: Input port -> array [B, ...], one run on the caller's own data; None for random runs.
        totals: Time steps of the random runs; None for short and odd ones that suit the model.
        lengths: Whether the calls take the valid steps of each sample.
        dtype: The type to compute in; None means each layer's own.
        max_memory: GB that the weights of a model file, or one of its tensors, may take.
        recipe: What else its recipe.json tells.
        progress: Called with the name of each stage as it starts.

    Raises:
        OutputError: When the folder exists or can't be written.
        ParityError: When the two witnesses disagree.
    """
    from .prove.witness import record, totals_for

    folder = Path(folder)
    deliver.clean(folder.parent)
    deliver.check_free([folder], force=False)
    progress("loading")
    loaded = load_model(model, max_memory)
    with computing(loaded, dtype):
        opened = open_model(loaded, progress)
        contract, times = opened.contract((), lengths=lengths), _times(opened.survey, None)
        steps = totals or totals_for(opened.survey)
        recorded = record(opened.model, contract, times, feeds=feeds, totals=steps, progress=progress)
    case = replace(recorded, recipe={**(recipe or {}), **recorded.recipe})

    def seal(stage: deliver.Staged) -> None:
        deliver.check_free([folder], force=False)
        progress(deliver.DELIVERING)

    with deliver.staged([folder], seal) as stage:
        case.save(stage[folder])
        if isinstance(model, (str, Path)):
            shutil.copyfile(model, stage[folder] / f"model{Path(model).suffix}")
        else:
            opened.loaded.model.save(stage[folder] / "model.keras")
    return case
