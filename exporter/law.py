"""The stream law: running a model one time step at a time, state carried, gives what one call of T steps gives.

It is found out by doing it in Keras. A model that breaks it (a convolution over time, a pooling, a state of the model's
own) can't have a `step`, and the layer where the numbers first part is named.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import state_output
from signatures.errors import one_line
from signatures.ports import Array, Port
from signatures.stream import cut

from . import rewrite
from .model import Model, given_states, recurrent_ports
from .rewrite import Call, keras_loop

AGREE = 1e-4
"""How closely the two must agree (absolute and relative): far above float32 rounding, far below a wrong state."""

Named = list[tuple[str, Any]]


def why_no_step(
    model: Model, timed: list[str], feeds: Mapping[str, Array], outputs: Named, calls: list[Call], flexible: bool
) -> str | None:
    """Return why stepping differs from running whole, one sentence; None where it doesn't.

    Args:
        model: The model.
        timed: Its inputs with a time axis.
        feeds: Random feeds, [B, T, ...].
        outputs: What the model gives for them, whole.
        calls: The recurrent calls it made.
        flexible: Whether it runs with any T.
    """
    lengths = {feeds[name].shape[1] for name in timed}
    if not flexible:
        return f"The model runs with exactly {max(lengths)} time steps."
    for made in calls:
        if len(given_states(made, feeds)) != len(made.state):
            return f"Layer {made.name!r} gets its initial state from the model itself on every call."
    if len(lengths) > 1:
        return "The inputs have time axes of their own, so there is no common step."
    try:
        whole, stepped, steps = _both(model, timed, feeds, calls)
    except OneStepFailed as failed:
        return str(failed)
    everything: Named = [*outputs, *recurrent_ports(calls).items()]
    if all(_agree(value, [step[k][1] for step in stepped]) for k, (_, value) in enumerate(everything)):
        return None
    for k, (path, value) in enumerate(whole):
        record = [step[k] if k < len(step) else ("", None) for step in steps]
        if any(name != path for name, _ in record) or not _agree(value, [part for _, part in record]):
            return f"Layer {path!r} doesn't treat each time step alone."
    return "An operation between the model's layers doesn't treat each time step alone."


class OneStepFailed(Exception):
    """The model doesn't run on a single time step."""


def _both(
    model: Model, timed: list[str], feeds: Mapping[str, Array], calls: list[Call]
) -> tuple[Named, list[Named], list[Named]]:
    """Return every layer's output run whole, and the ports and every layer's output of each step."""
    ports = tuple(Port(name, "input", ("batch", "time")) for name in timed)
    links = {
        name: state_output(made.name, short) for made in calls for name, short in given_states(made, feeds).items()
    }
    state: dict[str, Array] = {}
    stepped, steps = [], []
    with rewrite.recorded(model.keras) as whole:
        _run(model, feeds)
    for t in range(feeds[timed[0]].shape[1]):
        with rewrite.recorded(model.keras) as record:
            try:
                outputs, now = _run(model, {**cut(feeds, ports, t, 1), **state})
            except Exception as error:  # noqa: BLE001 - a layer raises what it likes when one step doesn't suit it
                raise OneStepFailed(
                    f"Layer {record[-1][0]!r} doesn't run on one time step ({one_line(error)})."
                ) from None
        recurrent = recurrent_ports(now)
        state = {name: np.asarray(recurrent[output]) for name, output in links.items()}
        stepped.append([*outputs, *recurrent.items()])
        steps.append(record)
    return whole, stepped, steps


def _run(model: Model, feeds: Mapping[str, Array]) -> tuple[Named, list[Call]]:
    return model.run({name: tf.constant(value) for name, value in feeds.items()}, keras_loop)


def _agree(whole: Any, parts: list[Any]) -> bool:
    """Whether the parts, joined along time where they have it, else the last one, are the whole."""
    whole, pieces = np.asarray(whole), [np.asarray(part) for part in parts]
    timed = whole.ndim > 1 and pieces[0].shape[1:2] == (1,) and whole.shape[1] == len(pieces)
    joined = np.concatenate(pieces, axis=1) if timed else pieces[-1]
    return whole.shape == joined.shape and bool(np.allclose(whole, joined, atol=AGREE, rtol=AGREE, equal_nan=True))
