"""Golden numbers from two witnesses: Keras' own loop in the model's type and the float64 NumPy reference.

Both run inside the same Keras model, so that everything around the recurrent layers is Keras' own. What is recorded is
the reference's; a case on which the two disagree is not recorded.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import Contract
from signatures.errors import ParityError, UnsupportedModel
from signatures.golden import TIMES_NOISE, Case, Run, Tolerance
from signatures.parity import PortDiff, compare, shares
from signatures.ports import TIME, Array, Port, Signature, by_samples, factors, time_dims

from ..memory.recurrence import Recurrence
from ..model.function import Model
from ..model.remember import limited
from ..model.survey import Survey
from ..model.swap import Call, Compute, computing_in, keras_loop, recorded
from . import recordings, reference
from .draws import CANDIDATES, KINDS, SPECIAL, Kind, drawn
from .equations import Change, computed

ON_REAL_DATA = (
    "  Record a case on real data (export-lstm golden MODEL -o CASE --feeds FILE.npz), export with --no-check,\n"
    "  then compare: export-lstm check ARTIFACT --golden CASE"
)

ROWS = 3
"""Samples of a recorded run: more than one, and an odd number, so that mixed-up rows show."""

CALM = 1 / TIMES_NOISE
"""The noise up to which a model is calm on its feeds: then noise widens no tolerance.

Some trained models amplify rounding so much that float32 itself, Keras' included, is off by more than the tolerance.
"""

CROWD = 24
"""How many rows of a kind are drawn where the first ones are not calm: of each pattern the calmest one is recorded."""

NUMBERS = 1 << 15
"""How many numbers these rows may hold at each input; fewer than CROWD are drawn where they would hold more."""

SECONDS = 8.0
"""How long a run's calm rows are looked for, once rows are found that can be recorded."""

SHAKEN = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""By how much of themselves weights, inputs and states of a recurrence are shaken: one bit, or for 16-bit types, whose
sums are made in float32, a rounding."""

FEW = 16
"""Calls of the fewest time steps that a recording from its start goes on after all that is remembered."""

FOUND = 8
"""How many rows are added at most because they reach special values inside the model."""


def totals_for(survey: Survey) -> tuple[int, ...]:
    """Return numbers of time steps to record: short and odd ones where the model can be stepped, else ones it takes."""
    if survey.no_step is None:
        return tuple(survey.memories.every * calls for calls in (1, 2, 7, 40))
    short, long = survey.tried.get(TIME, (0, 0))
    return (short, long, long + 24) if survey.flexible else (short,)


def record(
    model: Model,
    contract: Contract,
    dims: Mapping[str, int],
    *,
    feeds: Mapping[str, Array] | None = None,
    totals: Sequence[int],
    progress: Callable[[str], None] = lambda text: None,
) -> Case:
    """Record a case of the model's calls.

    Args:
        model: The Keras model.
        contract: Its ports.
        dims: Dimensions the model fixes; a fixed time overrides `totals`.
        feeds: The caller's own data for the inputs, one run; states are zero where not given. None: random runs.
        totals: Time steps of the random runs, see totals_for.
        progress: Called with the name of each run as it starts.

    Raises:
        FeedError: When the caller's feeds don't fit the ports.
        ParityError: When the witnesses disagree.
        UnsupportedModel: When the model gives NaN on every kind of random feed.
    """
    signature = next(iter(contract.signatures.values()))
    recorder = Recorder(model, contract, Tolerance.of(contract.scheme), {**dims, **signature.dims}, progress)
    if feeds is not None:
        given = {**signature.initial_state(signature.count(feeds)), **feeds}
        signature.check_feeds(given, dims)
        if model.memories.calls:
            given = recordings.whole(model, signature, feeds)
        attempts = [recorder.run_on("feeds", "the user's own", given)]
    else:
        fixed = recorder.dims.get(TIME)
        wanted = list(totals) if fixed is None else [fixed]
        attempts = [recorder.run_of(f"t{total}", total, recorder.before) for total in wanted]
        few = 7 * signature.every if fixed is None and contract.no_step is None else min(wanted)
        short = max((total for total in wanted if total <= 10 * signature.every), default=few)
        attempts += recorder.special(short)
        if model.memories.calls:
            unit = fixed or signature.every
            attempts.append(recorder.run_of("start", recorder.before + (1 if fixed else FEW) * unit))
            if total := min(model.memories.within or 0, max(wanted)) // unit * unit:
                attempts.append(recorder.run_of("within", total))  # all that an attention of Keras' looks at is kept
    recipe = {
        "witnesses": [f"Keras {contract.scheme}", _second(model)],
        "largest_difference": max(attempt.largest_difference for attempt in attempts),
        "provenance": dict(contract.provenance),
    }
    return Case(str(contract.model["name"]), tuple(attempt.run() for attempt in attempts), recorder.tolerance, recipe)


@dataclass(frozen=True)
class Attempt:
    """What both witnesses give on some feeds.

    Attributes:
        name: Of the run.
        kind: What kind of numbers it is fed with.
        feeds: Input port -> array.
        expect: Output port -> what float64 gives.
        keras: Output port -> what Keras gives.
        noise: Output port -> [B], each row's largest difference from float64 as a multiple of the tolerance: Keras' and
            that of a shaken float64 where the layers between are in float64, too.
        shaken: Of the latter alone, which the witnesses may differ by.
        tolerance: Which.
        signature: Their ports.
    """

    name: str
    kind: str
    feeds: Mapping[str, Array]
    expect: Mapping[str, Array]
    keras: Mapping[str, Array]
    noise: Mapping[str, Array]
    shaken: Mapping[str, Array]
    tolerance: Tolerance
    signature: Signature

    @property
    def rows(self) -> Array:
        """Each row's noise, that of its noisiest port, [B]; infinite where anything is not finite."""
        ports = self.signature.ports
        finite = [np.isfinite(ports[port].numbers(value)).all(axis=1) for port, value in self.expect.items()]
        return np.where(np.all(finite, axis=0), np.max([*self.noise.values()], axis=0), np.inf)

    @property
    def noisiest(self) -> float:
        """The noise of its noisiest port."""
        return float(self.rows.max())

    @property
    def usable(self) -> bool:
        """Whether a right artifact can be told by it: noise is within the tolerance, or small beside a port's range."""
        noise = self.run().noise
        return all(diff.ok for diff in self.differences()) and all(
            noise[port] <= 1 or self.tolerance.factor(value, noise[port]) > 1 for port, value in self.expect.items()
        )

    def differences(self) -> list[PortDiff]:
        """Return how the witnesses compare: a model that amplifies rounding does so in float64, too, when shaken."""
        shaken = {port: float(value.max()) for port, value in self.shaken.items()}
        return compare("Keras against float64", self.name, self.expect, self.keras, self.tolerance, shaken)

    @property
    def largest_difference(self) -> float:
        """Of the two witnesses."""
        gaps = (np.abs(self.keras[port].astype(np.float64) - value) for port, value in self.expect.items())
        return max(float(gap.max(initial=0)) for gap in gaps)

    def of(self, rows: Array) -> "Attempt":
        """Return some of its rows."""
        feeds, expect, keras = (self.signature.samples(each, rows) for each in (self.feeds, self.expect, self.keras))
        noise, shaken = ({port: value[rows] for port, value in each.items()} for each in (self.noise, self.shaken))
        return replace(self, feeds=feeds, expect=expect, keras=keras, noise=noise, shaken=shaken)

    def calmest(self) -> "Attempt":
        """Return of each pattern of a crowd the calmest row."""
        return self.of(np.array([k + ROWS * int(np.argmin(self.rows[k::ROWS])) for k in range(ROWS)]))

    def run(self) -> Run:
        """Return what is recorded."""
        noise = {port: float(value.max()) for port, value in self.noise.items()}
        return Run(self.name, self.feeds, self.expect, noise, self.kind)


@dataclass(frozen=True)
class Recorder:
    """Records runs of one model.

    Attributes:
        dims: Dimensions that are fixed, by the model or its only signature.
        progress: Called with the name of each run as it starts, and where calm rows are looked for.
    """

    model: Model
    contract: Contract
    tolerance: Tolerance
    dims: Mapping[str, int]
    progress: Callable[[str], None]

    @property
    def signature(self) -> Signature:
        """The first one, whose ports they all have."""
        return next(iter(self.contract.signatures.values()))

    @property
    def before(self) -> int:
        """Time steps that come before those of a run, so that all that the model remembers is of them."""
        span = self.model.memories.span
        unit = self.dims.get(TIME, self.signature.every)
        return -(-span // unit) * unit if self.model.memories.calls else 0

    def run_on(self, name: str, kind: str, feeds: Mapping[str, Array]) -> Attempt:
        """Return an attempt on feeds that are given.

        Raises:
            ParityError: When the witnesses disagree.
            UnsupportedModel: When the model gives NaN or infinity.
        """
        self.progress(name)
        return self._agreed(self._tried(name, kind, feeds))

    def run_of(self, name: str, total: int, before: int = 0) -> Attempt:
        """Return an attempt on random feeds of T steps on which the model is calm, else on the calmest that were found.

        Args:
            name: Of the run.
            total: T.
            before: Steps of a recording that come before them, see recordings.py.

        Raises:
            ParityError: When the witnesses disagree on all kinds of feeds.
            UnsupportedModel: When the model gives NaN or infinity on all of them.
        """
        start = time.monotonic()
        self.progress(name)
        best = self._tried(name, KINDS[0].name, self._drawn(before + total, KINDS[0], ROWS), before)
        crowd = ROWS * max(1, min(CROWD, NUMBERS // self._numbers(best.feeds)) // ROWS)
        for kind in KINDS[1:]:
            took = time.monotonic() - start
            if best.noisiest <= CALM or (best.usable and took > SECONDS) or took > 3 * SECONDS:
                break
            self.progress(f"{name}: looking for inputs on which rounding matters less, {kind.name} ones")
            try:
                crowded = self._patterned(self._drawn(before + total, kind, crowd))
                found = self._tried(name, kind.name, crowded, before).calmest()
            except Exception:  # noqa: BLE001 - a layer may check its inputs and raise what it likes
                continue
            best = min(best, found, key=lambda attempt: (not attempt.usable, attempt.noisiest))
        return self._agreed(best)

    def special(self, total: int) -> list[Attempt]:
        """Return an attempt of T steps of rows that reach values at which kernels differ, if calm on any."""
        self.progress("special values")
        wanted = len(SPECIAL) + min(64, NUMBERS // self._numbers(self._drawn(total, KINDS[0], 1)))
        kinds = (*SPECIAL, *(CANDIDATES[k % len(CANDIDATES)] for k in range(wanted - len(SPECIAL))))
        feeds = self._drawn(self.before + total, kinds, wanted)
        try:
            rows = self._reaching(feeds)
            picked = self.signature.samples(feeds, np.array(rows))
            attempt = self._tried("special", "special values", picked, self.before)
        except Exception:  # noqa: BLE001 - a layer may check its inputs and raise what it likes; these rows are an extra
            return []
        calm = np.flatnonzero(attempt.rows <= CALM)
        return [kept] if calm.size and (kept := attempt.of(calm)).usable else []

    def _reaching(self, feeds: Mapping[str, Array]) -> list[int]:
        """Return the rows of SPECIAL, and others that make a row of zeros inside the model where these don't."""
        rows, count = list(range(len(SPECIAL))), self.signature.count(feeds)
        if self.model.batch:  # it doesn't run as many at once
            return rows
        with limited(self.model.memories), recorded(self.model.keras) as inside:
            self.model.eagerly(feeds)
        for _, tensor in inside:
            value = np.asarray(tensor)
            if value.ndim > 1 and len(value) % count == 0 and value.size and tensor.dtype.is_floating:
                zero = (value == 0).all(axis=-1).reshape(count, -1).any(axis=1)
                others = [int(row) for row in np.flatnonzero(zero) if row not in rows]
                if others and zero[rows].sum() < 2 and len(rows) < len(SPECIAL) + FOUND:  # one may not be calm
                    rows.append(others[0])
        return rows

    def _drawn(self, total: int, kinds: Kind | tuple[Kind, ...], rows: int) -> dict[str, Array]:
        inputs = self.signature.inputs
        apart = 0 if self.contract.no_step is None else 3  # time axes of their own differ, where nothing is stepped
        steps = time_dims(inputs)
        named = {factors(d)[0] for port in inputs for d in port.shape if isinstance(d, str)} - {"batch"}
        sizes = {dim: total + apart * k for k, dim in enumerate(sorted(steps))}
        sizes |= {
            dim: self.contract.example.get(dim, total) + 3 * k for k, dim in enumerate(sorted(named - set(steps)), 1)
        }
        dims = {**sizes, **self.dims, "batch": rows}
        if self.model.memories.calls:
            dims[TIME] = total  # of a whole recording
        feeds = drawn(self.signature, dims, total, kinds if isinstance(kinds, tuple) else (kinds,))
        return {name: value for name, value in feeds.items() if name not in self.model.states}

    def _numbers(self, feeds: Mapping[str, Array]) -> int:
        """Return how many numbers one row holds at its largest input."""
        inputs = [port for port in self.signature.inputs if port.role == "input"]
        return max(int(port.numbers(feeds[port.name]).shape[1]) for port in inputs)

    def _patterned(self, crowd: dict[str, Array]) -> dict[str, Array]:
        """Return a crowd whose row i has the lengths, the zero steps and the zero tokens of its row i % ROWS.

        So that the calmest rows are not the ones on which nothing is run.
        """
        patterned = dict(crowd)
        for port in (port for port in self.signature.inputs if port.name in crowd):
            value = crowd[port.name]
            pattern = np.resize(value[:ROWS], value.shape)  # row after row, again and again
            if port.role == "lengths":
                patterned[port.name] = pattern
            elif port.time_axis == 1 and port.role == "input":
                inner = tuple(range(2, value.ndim))
                loud = np.where((value == 0).all(axis=inner, keepdims=True), 1, value)
                silent = (pattern == 0).all(axis=inner, keepdims=True)
                patterned[port.name] = np.where(silent, 0, loud).astype(value.dtype)
        return patterned

    def _tried(self, name: str, kind: str, feeds: Mapping[str, Array], before: int = 0) -> Attempt:
        expect, keras_gives, *others = (self._witness(feeds, way, before) for way in (EXACT, AS_KERAS, _shaken(0)))
        others.append(self._all_in_float64(feeds, before))
        if self.model.memories.calls:
            feeds = recordings.reached(self.model, self.contract, feeds, before)
        ports = self.signature.ports
        shaken = {
            port: np.max([_gaps(ports[port], value, other[port], self.tolerance) for other in others], axis=0)
            for port, value in expect.items()
        }
        noise = {
            port: np.maximum(shaken[port], _gaps(ports[port], value, keras_gives[port], self.tolerance))
            for port, value in expect.items()
        }
        return Attempt(name, kind, feeds, expect, keras_gives, noise, shaken, self.tolerance, self.signature)

    def _witness(self, feeds: Mapping[str, Array], way: "Way", before: int) -> dict[str, Array]:
        if not self.model.memories.calls:
            return _witness(self.model, self.contract, feeds, way.compute)
        change = way.change
        layers = limited if change is None else partial(computed, self.model.keras, change=change)
        return recordings.played(self.model, self.contract, feeds, before, way.compute, layers)

    def _all_in_float64(self, feeds: Mapping[str, Array], before: int) -> dict[str, Array]:
        """Return what the shaken reference gives between layers in float64, whose rounding a recurrence may amplify."""
        way = _shaken(1)
        try:
            with computing_in(self.model.keras, "float64"):
                return self._witness(feeds, way, before)
        except Exception:  # noqa: BLE001 - a layer that insists on a type, whatever it raises
            return self._witness(feeds, way, before)

    def _agreed(self, attempt: Attempt) -> Attempt:
        if not all(np.isfinite(value).all() for value in attempt.expect.values()):
            raise UnsupportedModel(
                f"The model gives NaN or infinity on these inputs, so there is nothing to compare.\n{ON_REAL_DATA}"
            )
        if bad := [diff for diff in attempt.differences() if not diff.ok]:
            raise ParityError(
                "The two witnesses disagree, so there are no golden numbers to hold the artifact to: the model\n"
                f"  amplifies rounding on every kind of inputs that was tried.\n  {bad[0]}\n{ON_REAL_DATA}"
            )
        return attempt


def _gaps(port: Port, expect: Array, got: Array, tolerance: Tolerance) -> Array:
    """Return each sample's largest difference [B] as a multiple of the tolerance."""
    with np.errstate(invalid="ignore"):
        gaps = shares(np.abs(got.astype(np.float64) - expect), tolerance.around(expect))
    rows = port.numbers(np.nan_to_num(gaps, nan=np.inf, posinf=np.inf))
    return np.asarray(rows.max(axis=1, initial=0))


def _shaken(seed: int) -> "Way":
    """Return the float64 reference, its weights, its inputs and every new state of it off by SHAKEN."""
    rng = np.random.default_rng(seed)

    def off(values: Any, dtype: str) -> Array:
        values = np.asarray(values, np.float64)
        return np.asarray(values * (1 + SHAKEN[dtype] * rng.uniform(-1, 1, values.shape)))

    def run(made: Call) -> tuple[Any, list[Any]]:
        change = partial(off, dtype=made.recurrence.dtype)

        def shake(recurrence: Recurrence) -> Recurrence:
            kernel, recurrent, bias = map(change, (recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias))
            cells = tuple(map(shake, recurrence.cells))
            return replace(recurrence, kernel=kernel, recurrent_kernel=recurrent, bias=bias, cells=cells)

        inputs = tf.constant(change(made.sequences))
        return _oracle(replace(made, recurrence=shake(made.recurrence), sequences=inputs), change)

    return Way(run, off)


def _witness(model: Model, contract: Contract, feeds: Mapping[str, Array], compute: Compute) -> dict[str, Array]:
    signature = next(iter(contract.signatures.values()))

    def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
        ran = model.run({name: tf.constant(value) for name, value in feeds.items()}, compute)
        ports = ran.ports(contract.outputs)
        return {port.name: np.asarray(ports[port.name]).astype(port.dtype) for port in signature.outputs}

    return by_samples(signature, feeds, model.batch, call)


def oracle(model: Model, contract: Contract) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Return a call of the model whose recurrences are the NumPy float64 reference: feeds -> every output port."""
    return lambda feeds: _witness(model, contract, feeds, _oracle)


def _second(model: Model) -> str:
    kinds = {cell.kind for _, recurrence in model.layers.values() for cell in (recurrence, *recurrence.cells)}
    return "NumPy loop around the model's own cell" if "cell" in kinds else "NumPy float64"


def _oracle(made: Call, change: Callable[[Array], Array] = np.asarray) -> tuple[Any, list[Any]]:
    mask = None if made.mask is None else made.mask.numpy()
    states = [state.numpy() for state in made.states]
    with np.errstate(invalid="ignore", over="ignore"):  # a model may give NaN on these feeds; the caller looks
        sequences, finals = reference.run(made.recurrence, made.sequences.numpy(), states, mask, made.continues, change)
    dtype = made.recurrence.dtype
    return tf.constant(sequences, dtype), [tf.constant(final, dtype) for final in finals]


@dataclass(frozen=True)
class Way:
    """One way to compute the numbers of a model.

    Attributes:
        compute: A recurrent call.
        change: What is done to the numbers of layers that remember something else, which are then computed by their
            equations; None where Keras computes them.
    """

    compute: Compute
    change: Change | None = None


AS_KERAS = Way(keras_loop)
EXACT = Way(_oracle, lambda values, dtype: np.asarray(values, np.float64))
