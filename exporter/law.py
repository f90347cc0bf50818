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
from .model import Model, given_states, recurrent_ports

AGREE = 1e-4
"""How closely the two must agree (absolute and relative): far above float32 rounding, far below a wrong state."""

Named = list[tuple[str, Any]]


def why_no_step(model: Model, timed: list[str], total: int) -> str | None:
    """Return why stepping differs from running whole, one sentence; None where it doesn't.

    Args:
        model: The model.
        timed: Its inputs with a time axis.
        total: Time steps to run it with.
    """
    feeds = model.draw(dict.fromkeys(timed, total), 3, np.random.default_rng(2))
    with rewrite.recorded(model.keras) as whole:
        outputs, calls = model.eagerly(feeds)
    links: dict[str, str] = {}
    for made in calls:
        states = given_states(made, feeds)
        if made.recurrence.reverse:
            return f"Layer {made.name!r} runs from the last time step to the first."
        if len(states) != len(made.states):
            return f"Layer {made.name!r} gets its initial state from the model itself on every call."
        links.update({name: state_output(made.name, short) for name, short in states.items()})

    ports = tuple(Port(name, "input", ("batch", "time")) for name in timed)
    state: dict[str, Array] = {}
    stepped: list[Named] = []
    records: list[Named] = []
    for t in range(total):
        with rewrite.recorded(model.keras) as record:
            try:
                found, now = model.eagerly({**cut(feeds, ports, t, 1), **state})
            except Exception as error:  # noqa: BLE001 - a layer raises what it likes when one step doesn't suit it
                what = record[-1][0] if record else "The model"
                return f"{what} doesn't run on one time step ({one_line(error)})."
        recurrent = recurrent_ports(now)
        state = {name: np.asarray(recurrent[output]) for name, output in links.items()}
        stepped.append([*found, *recurrent.items()])
        records.append(record)

    everything: Named = [*outputs, *recurrent_ports(calls).items()]
    if all(_agree(value, [step[k][1] for step in stepped]) for k, (_, value) in enumerate(everything)):
        return None
    for k, (what, value) in enumerate(whole):
        parts = [record[k] if k < len(record) else ("", None) for record in records]
        if any(name != what for name, _ in parts) or not _agree(value, [part for _, part in parts]):
            return f"{what} doesn't treat each time step alone."
    return "An operation between the model's layers doesn't treat each time step alone."


def _agree(whole: Any, parts: list[Any]) -> bool:
    """Whether the parts, joined along time where they have it, else the last one, are the whole."""
    whole, pieces = np.asarray(whole), [np.asarray(part) for part in parts]
    timed = whole.ndim > 1 and pieces[0].shape[1:2] == (1,) and whole.shape[1] == len(pieces)
    joined = np.concatenate(pieces, axis=1) if timed else pieces[-1]
    return whole.shape == joined.shape and bool(np.allclose(whole, joined, atol=AGREE, rtol=AGREE, equal_nan=True))
