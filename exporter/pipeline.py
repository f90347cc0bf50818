"""From a Keras model to checked artifacts: the stages in order.

read -> survey -> contract -> golden numbers -> for each target: plan, trace, write, look at its ops, run and compare
-> move into place.
"""

import hashlib
import importlib.metadata
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import signatures
from signatures.contract import SIGNATURES, ArtifactInfo, Contract
from signatures.errors import ArtifactError, ParityError, UnsupportedModel
from signatures.golden import Case
from signatures.parity import ParityReport
from signatures.ports import Array, Dim, Signature, sized, time_dims
from signatures.quality import Quality
from signatures.schemes import SCHEMES, Io, Quantized

from . import deliver
from .lower.plan import Choice, Plan, Plans, describe
from .memory.recurrence import Recurrence
from .read import calibration
from .read.budget import MAX_MEMORY
from .read.calibration import Recordings
from .read.loading import Loaded, load, require_keras
from .request import DELIVERING, Dtype, Extent, Progress, Request, Stage, in_silence, named_targets
from .targets import Target, had

if TYPE_CHECKING:
    from .model.function import Model
    from .model.survey import Survey
    from .prove.trial import Trial


@dataclass(frozen=True)
class Artifact:
    """What was delivered.

    Attributes:
        target: "tflite", "onnx", "savedmodel", "c" or "tflm".
        path: The file or folder.
        contract: Its ports, as embedded.
        contract_path: The JSON beside it.
        ops: Op -> count.
        size: Bytes on disk.
        sha256: Of the file; of a folder as `deliver.digest` says.
        parity: How it compared; None with check=False.
        seconds: Wall time of its trace, write and check.
        quality: How good it is along a stream, of a quantized one that was measured.
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
    quality: Quality | None = None


@dataclass(frozen=True)
class Opened:
    """A loaded model with what running it showed."""

    loaded: Loaded
    model: "Model"
    survey: "Survey"

    def contract(
        self, targets: Iterable[Target], signatures: Sequence[str] | None = None, lengths: bool = False
    ) -> Contract:
        """Return the contract without artifacts; see boundary.contract."""
        from .model.boundary import contract

        packages = ["export-lstm", "keras", "tensorflow", *(each for target in targets for each in target.packages)]
        versions = {package: importlib.metadata.version(package) for package in packages}
        identity = {"name": self.loaded.name, "sha256": self.loaded.sha256}
        if self.loaded.sha256 is None:
            weights = [np.ascontiguousarray(each) for each in self.loaded.model.get_weights()]
            identity["weights"] = hashlib.sha256(b"".join(each.tobytes() for each in weights)).hexdigest()
        dtype = self.model.dtype
        return contract(self.survey, identity, versions, signatures=signatures, lengths=lengths, dtype=dtype)


def load_model(model: Any, max_memory: float = MAX_MEMORY) -> Loaded:
    """Load a model file, see read.loading.load, or take a keras.Model in memory."""
    if isinstance(model, (str, Path)):
        return load(model, max_memory)
    keras = require_keras()
    if not isinstance(model, keras.Model):
        raise TypeError(f"model is a {type(model).__name__}; give a keras.Model or the path of a .keras or .h5 file")
    return Loaded(model, model.name, None)


def open_model(
    loaded: Loaded,
    progress: Progress = in_silence,
    batch: Extent = None,
    lookahead: bool = False,
    attention_cache: int | None = None,
) -> Opened:
    """Find out what a model takes, gives and carries.

    Args:
        loaded: The model.
        progress: Called with each stage as it starts.
        batch: Samples a call, or "any"; None for what its inputs declare, which it may rely on.
        lookahead: Whether outputs may come later than their time steps, for layers that look into the future.
        attention_cache: How many of the last time steps an attention looks at; None for all, as in Keras.

    Raises:
        UnsupportedModel: When it has no recurrent layer or one that isn't supported, or can't have that batch.
    """
    from .lower.eager import InOnePiece
    from .model.function import Model
    from .model.streams import surveyed

    progress(Stage("surveying"))
    model = Model(loaded.model, InOnePiece())
    declared = model.batch
    if declared in (None, batch) or batch is None:
        return Opened(loaded, model, surveyed(model, lookahead, attention_cache))
    model.batch = None if batch == "any" else batch
    try:
        return Opened(loaded, model, surveyed(model, lookahead, attention_cache))
    except UnsupportedModel:
        surveyed(Model(loaded.model, InOnePiece()), lookahead, attention_cache)  # which may say what else is wrong
        raise UnsupportedModel(
            f"batch {batch} can't be had: the model relies on the {declared} that its inputs declare.\n  Leave it out."
        ) from None


@contextmanager
def opening(
    model: Any,
    dtype: str | None,
    max_memory: float,
    progress: Progress,
    batch: Extent = None,
    lookahead: bool = False,
    attention_cache: int | None = None,
) -> Iterator[Opened]:
    """Load a model and find out what it takes; inside it computes in a type, its own where that is None."""
    progress(Stage("loading"))
    loaded = load_model(model, max_memory)
    from .model.swap import computing_in  # TensorFlow, not before a file may be refused

    with nullcontext() if dtype is None else computing_in(loaded.model, dtype):
        yield open_model(loaded, progress, batch, lookahead, attention_cache)


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
    lookahead: bool = False,
    attention_cache: int | None = None,
    quantize: str | None = None,
    precise: bool = False,
    calibration: Any = None,
    gate: float | None = None,
    io: Io = "quantized",
    progress: Progress = in_silence,
) -> list[Artifact]:
    """Export a Keras model with recurrent layers, its state explicit, and prove it before delivering it.

    Args:
        model: A keras.Model, or the path of a `.keras` or `.h5` file.
        to: "tflite", "onnx", "savedmodel", "c", "tflm", several of them, or "all", which is the first three.
        out: Where to: a folder, or for one target the artifact's path; None for the current folder.
        batch: Samples a call, or "any"; None means what the model's inputs declare, else 1 for tflite, c and tflm, any
            elsewhere.
        time: Time steps of a `sequence` call, or "any"; None means as the model declares.
        signatures: "sequence", "step" or both; None means all the model can have.
        lengths: Whether calls take `lengths` [B], after which a sample's state stops.
        lowering: How a sequence is run: "auto"; tflite: "unrolled" or "loop"; savedmodel: "xla".
        dtype: The type to compute in; None means each layer's own. 16-bit floats are float32 at the ports.
        max_memory: GB that the weights of a model file, or one of its tensors, may take.
        check: Whether to compare with golden outputs before delivering; False delivers unchecked.
        force: Whether to replace what is at the output path.
        lookahead: Whether layers may look into the future: their outputs then come so many time steps later.
        attention_cache: How many of the last time steps a causal attention looks at, which are carried; None for all,
            as in Keras, which can't be streamed.
        quantize: "float16", "dynamic", "int8" or "int16x8"; None means not at all.
        precise: Whether to store weights more closely than the scheme has them: about twice as large.
        calibration: Recordings that the model is quantized by and measured on: an .npz file, a folder, a
            "FILE.py:FUNCTION", or a list of arrays [T, ...] or dicts of them by input; None means random numbers.
        gate: The least signal-to-noise ratio of any port, in dB, with which it is delivered; None: the scheme's.
        io: Where states are integers: "quantized" for inputs and outputs that are, too, "float" for float32 ones.
        progress: Called with each Stage as it starts; str() of it is a line to show.

    Returns:
        One Artifact a target, in the order asked for.

    Raises:
        LoadError: When the file can't be loaded safely.
        UnsupportedModel: When the model or an option has no right form in a target.
        OutputError: When an output path is taken or can't be written.
        MissingRuntime: When checking a target takes what isn't installed.
        ParityError: When an artifact differs from the golden outputs; nothing is then delivered.
    """
    request = Request(
        named_targets(to), out, batch, time, signatures, lengths, lowering, dtype, max_memory, check, force, lookahead,
        attention_cache, quantize, precise, calibration, gate, io,
    )  # fmt: skip
    for target in request.targets:
        target.check_extra()
        if request.check:
            target.check_tools()
    stem = Path(model).stem if isinstance(model, (str, Path)) else getattr(model, "name", "model")
    final, contract_path = deliver.paths(f"{stem}_{quantize}" if quantize else stem, request.targets, request.out)
    deliver.clean(contract_path.parent)
    deliver.check_free(list(final.values()), request.force)
    deliver.check_free([contract_path], force=True)  # what is there may be added to
    cache = request.attention_cache
    with opening(model, request.dtype, request.max_memory, progress, request.batch, request.lookahead, cache) as opened:
        subject = subject_of(opened, request)
        contract = subject.contract
        infos = {t.name: ArtifactInfo(final[t.name].name, signatures=_own(contract, t)) for t in request.targets}
        together = replace(contract, artifacts=infos)
        deliver.joined(contract_path, together, request.force)  # refused now rather than when all is made
        return deliver_all(subject.prepared(request, progress), request, final, contract_path, progress)


def subject_of(opened: Opened, request: Request) -> "Subject":
    """Return what a request exports of a model.

    Raises:
        UnsupportedModel: When a target can't have it.
    """
    for target in request.targets:
        target.check_types(opened.model.types)
        target.check_step(opened.survey.no_step)
    contract = opened.contract(request.targets, request.chosen_signatures, request.lengths)
    return Subject(opened.model, opened.survey, contract, _fixed(opened.survey, request.time))


def deliver_all(
    subject: "Subject", request: Request, final: Mapping[str, Path], contract_path: Path, progress: Progress
) -> list[Artifact]:
    """Make, check and deliver what was asked for; see export.

    Args:
        subject: What is exported.
        request: To which targets, and how.
        final: Target -> where its artifact goes.
        contract_path: Where the contract goes.
        progress: Called with each Stage as it starts.
    """
    artifacts: list[Artifact] = []

    def seal(stage: deliver.Staged) -> None:
        deliver.check_free(list(final.values()), request.force)  # another export may have been quicker
        told = {a.target: replace(a.contract.artifacts[a.target], sha256=a.sha256) for a in artifacts}
        both = {name: each for a in artifacts for name, each in a.contract.signatures.items()}
        held = {name: both[name] for name in SIGNATURES if name in both}
        new = replace(artifacts[0].contract, signatures=held, artifacts=told)
        together = deliver.joined(contract_path, new, request.force)
        stage[contract_path].write_text(together.to_json(), encoding="utf-8")
        progress(DELIVERING)

    with deliver.staged([*final.values(), contract_path], seal) as stage:
        for target in request.targets:
            made = _make(subject, target, request, stage[final[target.name]], progress)
            artifacts.append(replace(made, path=final[target.name], contract_path=contract_path))
    return artifacts


def _own(contract: Contract, target: Target) -> tuple[str, ...] | None:
    """Return which of a contract's signatures a target has; None where that is all of those that there may be."""
    return None if had([target]) is None else tuple(name for name in contract.signatures if name in target.signatures)


Runs = Mapping[str, tuple[Recurrence, Dim, Dim]]
"""Name of a recurrent call -> (what is run, the dimensions of its time steps and rows)."""


@dataclass(frozen=True)
class Subject:
    """What is exported, the same for all targets.

    Attributes:
        model: The Keras model as a function from ports to ports.
        survey: What it takes, gives and carries.
        contract: What is promised, without artifacts.
        fixed: Time dimensions that are fixed, name -> size.
        golden: What its artifacts are held to; None where they aren't checked.
        recordings: What it is quantized by; None where it isn't.
        trial: What quantized artifacts are measured by; None where they aren't, or the model can't be streamed.
    """

    model: "Model"
    survey: "Survey"
    contract: Contract
    fixed: Mapping[str, int]
    golden: Case | None = None
    recordings: Recordings | None = None
    trial: "Trial | None" = None

    def record(
        self, progress: Progress, feeds: Mapping[str, Array] | None = None, totals: Sequence[int] | None = None
    ) -> Case:
        """Return golden numbers from two witnesses; see witness.record."""
        from .prove.witness import record, totals_for

        def at(run: str) -> None:
            progress(Stage("golden numbers", run=run))

        steps = totals or totals_for(self.survey)
        runs = {name: replace(each, dims={}) for name, each in self.contract.signatures.items()}  # of several steps
        contract = replace(self.contract, signatures=runs)
        return record(self.model, contract, self.fixed, feeds=feeds, totals=steps, progress=at)

    def prepared(self, request: Request, progress: Progress, known: "Subject | None" = None) -> "Subject":
        """Return the same proven and with recordings, as far as a request asks for that.

        Args:
            request: Which.
            progress: Called with each Stage as it starts.
            known: What another request exports of the model: golden numbers and recordings are taken from there.
        """
        subject = self.proven(progress, None if known is None else known.golden) if request.check else self
        return subject if request.quantize is None else subject.recorded(request, progress, known)

    def proven(self, progress: Progress, known: Case | None = None) -> "Subject":
        """Return the same with golden numbers, which the contract tells of; those that are known, or new ones."""
        golden = known or self.record(progress)
        atol, rtol = golden.tolerance.atol, golden.tolerance.rtol
        proven = replace(self.contract.proven, atol=atol, rtol=rtol, inputs=golden.inputs, noise=golden.noise)
        return replace(self, golden=golden, contract=replace(self.contract, proven=proven))

    def recorded(self, request: Request, progress: Progress, known: "Subject | None" = None) -> "Subject":
        """Return the same with recordings to quantize it by, and what it gives on them; those that are known, or new.

        Raises:
            UnsupportedModel: When it computes in another type than float32.
            FeedError: When recordings don't fit its ports.
        """
        if self.contract.scheme != "float32":
            raise UnsupportedModel(
                f"the model computes in {self.contract.scheme}; only float32 is quantized.\n  Give --dtype float32."
            )
        from .prove.trial import trial

        signature = next(iter(self.contract.signatures.values()))
        if known is not None and known.recordings is not None:
            found = known.recordings
        elif request.calibration is None:
            found = calibration.random(signature, {**self.contract.example, **self.fixed})
        else:
            progress(Stage("quantizing", run="reading recordings"))
            found = calibration.given(request.calibration, signature)
        scheme = SCHEMES[str(request.quantize)]
        gate = scheme.gate if request.gate is None else request.gate
        quantized = Quantized(scheme.name, gate, found.told, request.precise, request.io)
        subject = replace(self, recordings=found, contract=replace(self.contract, quantized=quantized))
        if known is not None and known.recordings is not None:
            return replace(subject, trial=known.trial)
        if request.check and self.contract.no_step is None:
            progress(Stage("golden numbers", run="a stream of recordings"))
            subject = replace(subject, trial=trial(self.model, self.contract, found))
        return subject

    def dims(self, target: Target, batch: Extent) -> dict[str, int]:
        """Return the dimensions that are fixed in an artifact."""
        size = batch or self.model.batch or target.batch
        return {**({} if size == "any" else {"batch": int(size)}), **self.fixed}

    @property
    def runs(self) -> Runs:
        """All recurrent calls, those without ports too."""
        from .memory.convert.options import input_shape

        return {
            **{made.name: (made.recurrence, made.time, made.batch) for made in self.survey.calls},
            **{
                name: (recurrence, input_shape(layer)[1] or name, name)
                for name, (layer, recurrence) in self.model.repeated.items()
            },
        }


def _plan(runs: Runs, target: Target, graphs: Mapping[str, Signature], choice: Choice) -> Plans:
    """Choose how every recurrent call of every graph is lowered.

    Raises:
        UnsupportedModel: When what was asked can't be had, or has no use.
    """
    plans: dict[str, dict[str, Plan]] = {name: {} for name in graphs}
    several = []
    for name, graph in graphs.items():
        for call, (recurrence, times, rows) in runs.items():
            steps = _known(times, graph.dims)
            plans[name][call] = target.facts.plan(recurrence, steps, choice, _known(rows, graph.dims))
            if steps != 1:
                several.append(plans[name][call])
    target.check_used(choice, several)
    return plans


def _known(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """Return a dimension's size, None where a call may choose it."""
    size = sized(dim, sizes)
    return size if isinstance(size, int) else None


def _make(subject: Subject, target: Target, request: Request, stage: Path, progress: Progress) -> Artifact:
    """Make one artifact at a temporary path and hold it to its golden numbers."""
    from .lower.trace import trace

    dims, writer, runs = subject.dims(target, request.batch), target.writer, subject.runs
    own = {name: each for name, each in subject.contract.signatures.items() if name in target.signatures}
    contract = replace(subject.contract, signatures=own)
    graphs = target.facts.graphs(contract, subject.survey.inputs, dims)
    plans = _plan(runs, target, graphs, request.lowering)
    reasons = {call: describe({name: plans[name][call] for name in plans}) for call in runs}
    quantized = subject.contract.quantized
    info = ArtifactInfo(stage.name, dims, reasons, signatures=_own(subject.contract, target))
    contract = replace(contract, artifacts={target.name: info}, quantized=None)

    clock = [time.perf_counter()]
    progress(Stage("tracing", target.name))
    traced = trace(subject.model, subject.survey, graphs, plans, writer.SPELLINGS)
    clock.append(time.perf_counter())
    progress(Stage("converting", target.name))
    contract = writer.write(traced, contract, stage, subject.golden)
    ops = writer.ops(stage)
    first = next(iter(plans.values()))
    if faults := writer.faults(ops, [(recurrence, first[call]) for call, (recurrence, _, _) in runs.items()]):
        raise UnsupportedModel(
            f"The {target.name} artifact can't keep its promise: {'; '.join(faults)}.\n"
            "  Nothing was written. Try another target."
        )
    clock.append(time.perf_counter())
    report, quality = None if subject.golden is None else _check(subject.golden, target, stage, progress), None
    if quantized is not None and subject.recordings is not None:
        progress(Stage("quantizing", target.name))
        contract = replace(contract, quantized=quantized)
        seen = subject.recordings.in_a_row(next(iter(contract.signatures.values())))
        contract = target.quantizer.quantize(stage, traced, contract, seen)
        ops = writer.ops(stage)
        if subject.golden is not None:
            quality = _measure(subject, quantized, target, stage, progress)
    clock.append(time.perf_counter())
    files = [file for file in (stage, *stage.rglob("*")) if file.is_file()]
    seconds = {name: b - a for name, a, b in zip(("trace", "convert", "check"), clock, clock[1:], strict=False)}
    size = sum(file.stat().st_size for file in files)
    return Artifact(target.name, stage, contract, stage, ops, size, deliver.digest(stage), report, seconds, quality)


def _measure(subject: Subject, quantized: Quantized, target: Target, stage: Path, progress: Progress) -> Quality | None:
    """Hold a quantized artifact to the laws of streams and to its gate.

    Returns:
        How good it is; None for a model that can't be streamed, which is held to its golden numbers.

    Raises:
        UnsupportedModel: When it doesn't run in its runtime.
        ParityError: When it breaks a law, or is below the gate.
    """
    held = subject.golden if subject.trial is None else None
    _check(held, target, stage, progress)
    if subject.trial is None:
        return None
    progress(Stage("checking", target.name, "a stream of recordings"))
    quality = subject.trial.measured(signatures.open(stage, trust=True), quantized.gate)
    if not quality.ok:
        raise ParityError(
            f"The {target.name} artifact in {quantized.scheme} is not delivered. {quality.summary()}\n"
            "  Calibrate on data of your own (--calibration), take another scheme (--precise, --quantize), or ask for"
            " less (--gate)."
        )
    return quality


def _check(golden: Case | None, target: Target, stage: Path, progress: Progress) -> ParityReport:
    """Hold an artifact to golden numbers, or without to the laws of streams, in its own runtime.

    Raises:
        UnsupportedModel: When it doesn't run there.
        ParityError: When it differs.
    """
    from .prove.witness import ON_REAL_DATA

    try:
        made = signatures.open(stage, trust=True)  # the model's own layers may hold any op
        report = signatures.check(made, golden, lambda run: progress(Stage("checking", target.name, run)))
    except ArtifactError as error:
        raise UnsupportedModel(
            f"The {target.name} artifact doesn't run in its own runtime: {str(error).removeprefix(f'{stage}: ')}\n"
            "  Nothing was written. Try another target."
        ) from error
    if not report.ok:
        told = f"The {target.name} artifact is not delivered. {report.summary()}\n"
        if not (report.failures and report.failures[0].note):
            told += "  If the model amplifies rounding by more than its noise, this can't show whether it is right.\n"
        raise ParityError(f"{told}{ON_REAL_DATA}")
    return report


def _fixed(survey: "Survey", asked: Extent) -> dict[str, int]:
    """Return the fixed time dimensions: what the user asked for, else what the model declares."""
    if asked is None:
        return dict(survey.declared)
    if not survey.tried:
        raise UnsupportedModel(f"time {asked} can't be had: no input has a time axis.\n  Leave it out.")
    if not survey.flexible and {asked} != set(survey.declared.values()):
        raise UnsupportedModel(f"time {asked} can't be had: {survey.no_step}\n  Leave it out.")
    steps, every = time_dims(survey.inputs), survey.memories.every
    if isinstance(asked, int) and asked % every:
        raise UnsupportedModel(f"time {asked} can't be had: a call takes a multiple of {every} time steps.")
    memories = {name: size for name, size in survey.declared.items() if name not in steps}
    return {} if asked == "any" else {**memories, **dict.fromkeys(steps, asked)}


def record_case(
    model: Any,
    folder: str | Path,
    *,
    feeds: Mapping[str, Array] | None = None,
    totals: Sequence[int] | None = None,
    lengths: bool = False,
    lookahead: bool = False,
    attention_cache: int | None = None,
    dtype: Dtype | None = None,
    max_memory: float = MAX_MEMORY,
    recipe: Mapping[str, Any] | None = None,
    progress: Progress = in_silence,
) -> Case:
    """Record a golden case of a model as a folder, the model in it; see witness.record.

    Args:
        model: A keras.Model or the path of a model file.
        folder: Where to; it must not exist.
        feeds: Input port -> array [B, ...], one run on the caller's own data; None for random runs.
        totals: Time steps of the random runs; None for short and odd ones that suit the model.
        lengths: Whether the calls take the valid steps of each sample.
        lookahead: See export.
        attention_cache: See export.
        dtype: The type to compute in; None means each layer's own.
        max_memory: GB that the weights of a model file, or one of its tensors, may take.
        recipe: What else its recipe.json tells.
        progress: Called with each Stage as it starts; str() of it is a line to show.

    Raises:
        OutputError: When the folder exists or can't be written.
        ParityError: When the two witnesses disagree.
    """
    folder = Path(folder)
    deliver.clean(folder.parent)
    deliver.check_free([folder], force=False)
    with opening(model, dtype, max_memory, progress, None, lookahead, attention_cache) as opened:
        contract, fixed = opened.contract((), lengths=lengths), _fixed(opened.survey, None)
        recorded = Subject(opened.model, opened.survey, contract, fixed).record(progress, feeds, totals)
    case = replace(recorded, recipe={**(recipe or {}), **recorded.recipe})

    def seal(stage: deliver.Staged) -> None:
        deliver.check_free([folder], force=False)
        progress(DELIVERING)

    with deliver.staged([folder], seal) as stage:
        case.save(stage[folder])
        if isinstance(model, (str, Path)):
            shutil.copyfile(model, stage[folder] / f"model{Path(model).suffix}")
        else:
            opened.loaded.model.save(stage[folder] / "model.keras")
    return case
