"""Golden numbers from two witnesses: Keras' own loop in the model's type and the float64 NumPy reference.

Both run inside the same Keras model, so that everything around the recurrent layers is Keras' own. What is recorded is
the reference's; a case on which the two disagree is not recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import Contract
from signatures.errors import ParityError, UnsupportedModel
from signatures.golden import Case, Run, Tolerance
from signatures.parity import compare, random_feeds
from signatures.ports import Array, Signature

from . import reference
from .model import Model
from .rewrite import Call, Compute, keras_loop
from .survey import Survey

ROWS = 3
"""Samples of a recorded run: more than one, and an odd number, so that mixed-up rows show."""


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
        given = {**signature.initial_state(len(next(iter(feeds.values())))), **feeds}
        signature.check_feeds(given, dims)
        candidates = {"feeds": [given]}
    else:
        fixed = {**dims, **signature.dims}
        wanted = [fixed["time"]] if "time" in fixed else totals
        apart = 0 if contract.step is None else 3  # time axes of their own differ, where nothing is stepped
        candidates = {f"t{total}": _draws(signature, fixed, total, apart) for total in wanted}
    runs, largest = [], 0.0
    tolerance = Tolerance.of(contract.dtype)
    for name, choices in candidates.items():
        progress(name)
        run, difference = _agreed(model, contract, name, choices, tolerance)
        runs.append(run)
        largest = max(largest, difference)
    recipe = {
        "witnesses": [f"Keras {contract.dtype}", _second(model)],
        "largest_difference": largest,
        "provenance": dict(contract.provenance),
    }
    return Case(str(contract.model["name"]), tuple(runs), tolerance, recipe)


def _draws(signature: Signature, fixed: Mapping[str, int], total: int, apart: int) -> list[dict[str, Array]]:
    """Return random feeds of T steps to try in turn: any numbers, then positive ones, for logarithms."""
    named = {d for port in signature.inputs for d in port.shape if isinstance(d, str)}
    sizes = {dim: total + apart * k for k, dim in enumerate(sorted(named - {"batch"}))}
    drawn = random_feeds(signature.inputs, {**sizes, **fixed, "batch": ROWS}, np.random.default_rng(total))
    return [drawn, {name: np.abs(value) + (value.dtype.kind == "f") for name, value in drawn.items()}]


def _agreed(
    model: Model, contract: Contract, name: str, choices: list[dict[str, Array]], tolerance: Tolerance
) -> tuple[Run, float]:
    """Return a run that both witnesses agree on, and their largest difference."""
    for feeds in choices:
        expect = _witness(model, contract, feeds, _oracle)
        if not all(np.isfinite(value).all() for value in expect.values()):
            continue
        diffs = compare("Keras against float64", name, expect, _witness(model, contract, feeds, keras_loop), tolerance)
        if bad := [diff for diff in diffs if not diff.ok]:
            raise ParityError(
                f"The two witnesses disagree, so there are no golden numbers to hold the artifact to.\n  {bad[0]}"
            )
        return Run(name, feeds, expect), max(diff.max_abs for diff in diffs)
    raise UnsupportedModel(
        "The model gives NaN or infinity on these inputs, so there is nothing to compare.\n"
        "  Record a case on real data (export-lstm golden MODEL -o CASE --feeds FILE.npz), export with --no-check,\n"
        "  then compare: export-lstm check ARTIFACT --golden CASE"
    )


def _witness(model: Model, contract: Contract, feeds: Mapping[str, Array], compute: Compute) -> dict[str, Array]:
    ports = model.ports({name: tf.constant(value) for name, value in feeds.items()}, compute, contract.outputs)
    wanted = next(iter(contract.signatures.values())).outputs
    return {port.name: np.asarray(ports[port.name]).astype(port.dtype) for port in wanted}


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
