"""Golden numbers from two witnesses: Keras' own loop in the model's type and the float64 NumPy reference.

Both run inside the same Keras model, so that everything around the recurrent layers is Keras' own. What is recorded is
the reference's; a case on which the two disagree is not recorded.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import Contract
from signatures.errors import ParityError, UnsupportedModel
from signatures.golden import Case, Run, Tolerance
from signatures.parity import compare, random_feeds
from signatures.ports import Array, Signature, by_samples, factors

from . import reference
from .model import Model
from .recurrence import Recurrence
from .rewrite import Call, Compute, keras_loop
from .survey import Survey

Draws = Callable[[int], list[dict[str, Array]]]
"""Number of rows -> feeds to try in turn."""

ON_REAL_DATA = (
    "  Record a case on real data (export-lstm golden MODEL -o CASE --feeds FILE.npz), export with --no-check,\n"
    "  then compare: export-lstm check ARTIFACT --golden CASE"
)

ROWS = 3
"""Samples of a recorded run: more than one, and an odd number, so that mixed-up rows show."""

CALM = 0.1
"""The share of the tolerance that the witnesses may differ by on a random run before other rows are drawn.

Some trained models amplify rounding so much that float32 itself, Keras' included, is off by more than the tolerance on
one row in fifty to one in three. Such rows say nothing about an artifact.
"""

CROWD = 8192
"""How many time steps are then drawn in all, of whose rows the ROWS on which rounding matters least are recorded."""


def totals_for(survey: Survey) -> tuple[int, ...]:
    """Return numbers of time steps to record: short and odd ones where the model can be stepped, else ones it takes."""
    if survey.no_step is None:
        return (1, 2, 7, 40)
    short, long = survey.tried.get("time", (0, 0))
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
    if feeds is not None:
        given = {**signature.initial_state(signature.count(feeds)), **feeds}
        signature.check_feeds(given, dims)
        runs_of: dict[str, tuple[Draws, int]] = {"feeds": (lambda rows: [given], 0)}
    else:
        fixed = {**dims, **signature.dims}
        wanted = [fixed["time"]] if "time" in fixed else totals
        apart = 0 if contract.step is None else 3  # time axes of their own differ, where nothing is stepped
        runs_of = {
            f"t{total}": (partial(_draws, signature, fixed, total, apart), _crowd(signature, total)) for total in wanted
        }
    runs, largest = [], 0.0
    tolerance = Tolerance.of(contract.dtype)
    for name, (draws, crowd) in runs_of.items():
        progress(name)
        run, difference = _agreed(model, contract, name, draws, crowd, tolerance)
        runs.append(run)
        largest = max(largest, difference)
    recipe = {
        "witnesses": [f"Keras {contract.dtype}", _second(model)],
        "largest_difference": largest,
        "provenance": dict(contract.provenance),
    }
    return Case(str(contract.model["name"]), tuple(runs), tolerance, recipe)


def _crowd(signature: Signature, total: int) -> int:
    """Return how many rows of T steps to choose from: CROWD steps, and no more numbers than memory bears."""
    shapes = [port.shape[2:] for port in signature.inputs if port.timed]
    width = sum(math.prod(d for d in shape if isinstance(d, int)) for shape in shapes)
    return min(CROWD // max(total, 1), (1 << 24) // max(total * width, 1))


def _draws(signature: Signature, fixed: Mapping[str, int], total: int, apart: int, rows: int) -> list[dict[str, Array]]:
    """Return random feeds of T steps to try in turn: any numbers, then positive ones, for logarithms."""
    steps = {str(port.time) for port in signature.inputs if port.timed}
    named = {factors(d)[0] for port in signature.inputs for d in port.shape if isinstance(d, str)} - {"batch"}
    sizes = {dim: total + apart * k for k, dim in enumerate(sorted(steps))}
    sizes |= {dim: total + 3 * k for k, dim in enumerate(sorted(named - steps), start=1)}
    drawn = random_feeds(signature.inputs, {**sizes, **fixed, "batch": rows}, np.random.default_rng(total))
    return [drawn, {name: np.abs(value) + (value.dtype.kind == "f") for name, value in drawn.items()}]


def _agreed(
    model: Model,
    contract: Contract,
    name: str,
    draws: Draws,
    crowd: int,
    tolerance: Tolerance,
) -> tuple[Run, float]:
    """Return a run that both witnesses agree on, and their largest difference.

    Args:
        model: The Keras model.
        contract: Its ports.
        name: Of the run.
        draws: Number of rows -> feeds to try in turn.
        crowd: How many rows to choose from where the first ones amplify rounding; few are no choice.
        tolerance: Within which they must agree.
    """
    for k, feeds in enumerate(draws(ROWS)):
        expect, keras_gives = (_witness(model, contract, feeds, way) for way in (_oracle, keras_loop))
        if not all(np.isfinite(value).all() for value in expect.values()):
            continue
        if crowd > 10 * ROWS and _gaps(contract, expect, keras_gives, tolerance).max() > CALM:
            others = _patterned(contract, feeds, draws(crowd)[k])
            feeds, expect, keras_gives = _calmest(model, contract, others, tolerance)
        diffs = compare("Keras against float64", name, expect, keras_gives, tolerance)
        if bad := [diff for diff in diffs if not diff.ok]:
            raise ParityError(
                "The two witnesses disagree, so there are no golden numbers to hold the artifact to: the model\n"
                f"  amplifies rounding.\n  {bad[0]}\n{ON_REAL_DATA}"
            )
        return Run(name, feeds, expect), max(diff.max_abs for diff in diffs)
    raise UnsupportedModel(
        f"The model gives NaN or infinity on these inputs, so there is nothing to compare.\n{ON_REAL_DATA}"
    )


def _calmest(
    model: Model, contract: Contract, feeds: Mapping[str, Array], tolerance: Tolerance
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Return of each pattern of a crowd the row on which rounding matters least: feeds, float64's outputs, Keras'.

    How much it matters is what Keras' float32 changes, and what weights do that are rounded otherwise.
    """
    expect, keras_gives, *shaken = (
        _witness(model, contract, feeds, way) for way in (_oracle, keras_loop, *map(_shaken, range(4)))
    )
    matters = np.max([_gaps(contract, expect, other, tolerance) for other in (keras_gives, *shaken)], axis=0)
    rows = np.array([k + ROWS * int(np.argmin(matters[k::ROWS])) for k in range(ROWS)])
    signature = next(iter(contract.signatures.values()))
    calm, numbers, others = (signature.samples(kind, rows) for kind in (feeds, expect, keras_gives))
    return calm, numbers, others


def _patterned(contract: Contract, first: Mapping[str, Array], crowd: dict[str, Array]) -> dict[str, Array]:
    """Return a crowd whose row i has the lengths, the zero steps and the zero tokens of the first rows' i % ROWS.

    So that the calmest rows are not the ones on which nothing is run.
    """
    patterned = dict(crowd)
    for port in next(iter(contract.signatures.values())).inputs:
        value = crowd[port.name]
        pattern = np.resize(first[port.name], value.shape)  # row after row, again and again
        if port.role == "lengths":
            patterned[port.name] = pattern
        elif port.timed and port.role == "input":
            inner = tuple(range(2, value.ndim))
            drawn = np.where((value == 0).all(axis=inner, keepdims=True), 1, value)
            silent = (pattern == 0).all(axis=inner, keepdims=True)
            patterned[port.name] = np.where(silent, 0, drawn).astype(value.dtype)
    return patterned


def _gaps(contract: Contract, expect: Mapping[str, Array], got: Mapping[str, Array], tolerance: Tolerance) -> Array:
    """Return each sample's largest difference [B] as a share of the tolerance."""
    ports = next(iter(contract.signatures.values())).ports
    shares = []
    for name, value in expect.items():
        gap = np.abs(got[name].astype(np.float64) - value)
        shares.append(ports[name].numbers(gap / (tolerance.atol + tolerance.rtol * np.abs(value))))
    return np.asarray(np.nan_to_num(np.concatenate(shares, axis=1), nan=np.inf).max(axis=1))


def _shaken(seed: int) -> Compute:
    """Return the float64 reference with weights off by 2**-22: what a kernel's own sigmoid may be off by."""
    rng = np.random.default_rng(seed)

    def shake(recurrence: Recurrence) -> Recurrence:
        kernel, recurrent, bias = (
            np.asarray(w, np.float64) * (1 + 2.0**-22 * rng.choice([-1, 1], w.shape))
            for w in (recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)
        )
        cells = tuple(map(shake, recurrence.cells))
        return replace(recurrence, kernel=kernel, recurrent_kernel=recurrent, bias=bias, cells=cells)

    return lambda made: _oracle(replace(made, recurrence=shake(made.recurrence)))


def _witness(model: Model, contract: Contract, feeds: Mapping[str, Array], compute: Compute) -> dict[str, Array]:
    signature = next(iter(contract.signatures.values()))

    def call(feeds: Mapping[str, Array]) -> dict[str, Array]:
        ports = model.ports({name: tf.constant(value) for name, value in feeds.items()}, compute, contract.outputs)
        return {port.name: np.asarray(ports[port.name]).astype(port.dtype) for port in signature.outputs}

    return by_samples(signature, feeds, model.batch, call)


def _second(model: Model) -> str:
    kinds = {cell.kind for _, recurrence in model.layers.values() for cell in (recurrence, *recurrence.cells)}
    return "NumPy loop around the model's own cell" if "cell" in kinds else "NumPy float64"


def _oracle(made: Call) -> tuple[Any, list[Any]]:
    mask = None if made.mask is None else made.mask.numpy()
    states = [state.numpy() for state in made.states]
    with np.errstate(invalid="ignore", over="ignore"):  # a model may give NaN on these feeds; the caller looks
        sequences, finals = reference.run(made.recurrence, made.sequences.numpy(), states, mask, made.continues)
    dtype = made.recurrence.dtype
    return tf.constant(sequences, dtype), [tf.constant(final, dtype) for final in finals]
