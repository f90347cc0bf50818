"""The stream law: running a model one time step at a time, state carried, gives what one call of T steps gives.

It is found out by doing it in Keras. A model that breaks it (a convolution over time, a pooling, a state of the model's
own) can't have a `step`, and the layer where the numbers first part is named.
"""

from typing import Any

import numpy as np

from signatures.contract import state_output
from signatures.errors import one_line
from signatures.ports import Array, Port
from signatures.stream import cut

from . import rewrite
from .model import Model, carried_states, recurrent_ports

AGREE = {"float64": 1e-9, "float32": 1e-4}
"""How closely the two must agree, absolute and relative: far above rounding, far below a wrong state."""

Named = list[tuple[str, Any]]


LONG = 201
"""Time steps of the second run, in two halves: it shows a memory of up to 100 steps, and counters that start anew."""


def why_no_step(model: Model, timed: list[str], total: int) -> str | None:
    """Return why running a model piece by piece differs from running it whole, one sentence; None where it doesn't.

    Args:
        model: The model.
        timed: Its inputs with a time axis.
        total: Time steps to run it with, one by one: other than the survey's, so that a size of its own shows.
    """
    if model.dtype not in AGREE:  # 16-bit rounding would hide what is wrong
        with rewrite.computing_in(model.keras, "float32"):
            return why_no_step(Model(model.keras), timed, total)
    return _why_pieces_differ(model, timed, [1] * total) or _why_pieces_differ(
        model, timed, [LONG // 2, LONG - LONG // 2]
    )


def _why_pieces_differ(model: Model, timed: list[str], sizes: list[int]) -> str | None:
    total, within = sum(sizes), AGREE[model.dtype]
    feeds = model.draw(dict.fromkeys(timed, total), 3, np.random.default_rng(2))
    with rewrite.recorded(model.keras) as whole:
        try:
            outputs, calls = model.eagerly(feeds)
        except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
            return f"The model doesn't run on {total} time steps ({one_line(error)})."
    links: dict[str, str] = {}
    for made in calls:
        states = carried_states(made)
        if made.recurrence.reverse:
            return f"Layer {made.name!r} runs from the last time step to the first."
        if len(states) != len(made.states):
            return f"Layer {made.name!r} gets its initial state from the model itself on every call."
        if set(states) & set(links):
            return f"Layer {made.name!r} starts from the same input as another layer, whose state goes on differently."
        links.update({port: state_output(made.name, short) for port, short in states.items()})

    ports = tuple(Port(name, "input", ("batch", "time")) for name in timed)
    state: dict[str, Array] = {}
    pieces: list[Named] = []
    records: list[Named] = []
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        with rewrite.recorded(model.keras) as record:
            try:
                found, now = model.eagerly({**cut(feeds, ports, int(start), size), **state})
            except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
                if apart := _apart(whole, [*records, record[:-1]], sizes, within):
                    return apart
                what = record[-1][0] if record else "The model"
                steps = "one time step" if size == 1 else f"{size} time steps"
                return f"{what} doesn't run on {steps} ({one_line(error)})."
        recurrent = recurrent_ports(now)
        state = {port: np.asarray(recurrent[output]) for port, output in links.items()}
        pieces.append([*found, *recurrent.items()])
        records.append(record)

    everything: Named = [*outputs, *recurrent_ports(calls).items()]
    if all(_agree(value, [piece[k][1] for piece in pieces], sizes, within) for k, (_, value) in enumerate(everything)):
        return None
    return _apart(whole, records, sizes, within) or (
        "An operation between the model's layers doesn't treat each time step alone."
    )


def _apart(whole: Named, records: list[Named], sizes: list[int], within: float) -> str | None:
    """Return a sentence about the first layer whose pieces aren't its whole; None where there is none so far.

    Args:
        whole: What `rewrite.recorded` gave for the run of all steps.
        records: The same for each piece that was run, the last one perhaps not to its end.
        sizes: Time steps of all pieces.
        within: How closely they must agree.
    """
    total, run = sum(sizes), sizes[: len(records)]
    for k, (what, value) in enumerate(whole):
        parts = [record[k] if k < len(record) else ("", None) for record in records]
        if sum(run) < total:  # only what has a time axis can be compared already
            if k >= len(records[-1]) or value is None or value.shape[1:2] != (total,):
                continue
            value = value[:, : sum(run)]
        if any(name != what for name, _ in parts) or not _agree(value, [part for _, part in parts], run, within):
            return f"{what} doesn't treat each time step alone."
    return None


def _agree(whole: Any, parts: list[Any], sizes: list[int], within: float) -> bool:
    """Whether the parts, joined along time where they have it, else the last one, are the whole."""
    whole, pieces = np.asarray(whole), [np.asarray(part) for part in parts]
    timed = whole.shape[1:2] == (sum(sizes),) and all(p.shape[1:2] == (n,) for p, n in zip(pieces, sizes, strict=True))
    joined = np.concatenate(pieces, axis=1) if timed else pieces[-1]
    return whole.shape == joined.shape and bool(np.allclose(whole, joined, atol=within, rtol=within, equal_nan=True))
