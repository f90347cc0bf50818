"""Find out by running it what a Keras model takes, gives and carries.

The model is run in Keras on random data of two sizes. What that shows is a fact about this model and needs no knowledge
of its other layers: which axes count time, which outputs are recurrent states, which initial states are its own inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from signatures.contract import LENGTHS, identifier, state_input, unique
from signatures.errors import UnsupportedModel, one_line
from signatures.ports import Array, Port

from . import law
from .model import Input, Model, recurrent_ports
from .recurrence import Recurrence, port_dtype
from .rewrite import Call

TRIALS = ((5, 37), (24, 101), (128, 301), (512, 1025))
"""Pairs of T to run a model with: the first pair it takes tells which axes change with T.

They lie far apart, so that a pooling by a few steps doesn't make them one.
"""


ROWS = (3, 2)
"""Samples of the two runs."""


@dataclass(frozen=True)
class CallFacts:
    """One call of a recurrent layer, as the model makes it.

    Attributes:
        name: Port prefix.
        recurrence: The layer as data; its own name differs from this one's for its second call.
        time: The dimension of its time steps: a name, or a size that no input chooses.
        shape: Its output in one time step, without the batch axis: (U,).
        own: Whether its first state is the layer's own (zeros in Keras): then its states become input ports.
        given: Short name of a state -> the model input that is it, where the model's inputs are its initial state.
    """

    name: str
    recurrence: Recurrence
    time: int | str
    shape: tuple[int | str, ...]
    own: bool
    given: Mapping[str, str]


@dataclass(frozen=True)
class Survey:
    """What running the model showed.

    Attributes:
        inputs: The model's own inputs; a named dimension where a call may choose.
        declared: Time dimensions that the model declares with a fixed size, name -> size.
        flexible: Whether it takes any T, whatever it declares.
        calls: Its recurrent calls, in order.
        outputs: Ports of the model's own outputs that are not recurrent ports already.
        order: Ports of all model outputs, in the model's order.
        tried: Time dimension -> the two numbers of steps it was run with.
        no_step: Why it can't be stepped; None if it can.
        one_clock: Whether every recurrent layer sees the inputs' own time steps, so that lengths mean the same to all.
    """

    inputs: tuple[Port, ...]
    declared: Mapping[str, int]
    flexible: bool
    calls: tuple[CallFacts, ...]
    outputs: tuple[Port, ...]
    order: tuple[str, ...]
    tried: Mapping[str, tuple[int, int]]
    no_step: str | None
    one_clock: bool


@dataclass(frozen=True)
class Trial:
    """One eager run of the model."""

    feeds: Mapping[str, Array]
    outputs: list[tuple[str, Any]]
    calls: list[Call]


def survey(model: Model) -> Survey:
    """Run the model on random data and return what that shows.

    Raises:
        UnsupportedModel: When the model can't be run, or leaves another axis than batch and time open.
    """
    timed = _timed_inputs(model)
    model.timed = tuple(timed)
    sizes, flexible, (first, second) = _trials(model, timed)
    independent = len(set(sizes.values())) > 1
    dims = {name: f"time_{name}" if independent and name != timed[0] else "time" for name in timed}

    lengths = {dims[name]: (first.feeds[name].shape[1], second.feeds[name].shape[1]) for name in timed}
    recurrent = recurrent_ports(first.calls)
    outputs: list[Port] = []
    order: list[str] = []
    states = [state_input(made.name, short) for made in first.calls for short in made.recurrence.states]
    for (name, value), (_, other) in zip(first.outputs, second.outputs, strict=True):
        if (value.shape[:1], other.shape[:1]) != ((ROWS[0],), (ROWS[1],)):
            raise UnsupportedModel(
                f"output {name!r} has shape {list(value.shape)} for {ROWS[0]} rows: its first axis isn't the batch.\n"
                "  Return it with the batch first."
            )
        port = next((port for port, tensor in recurrent.items() if tensor is value), None)
        if port is None:
            port = unique(
                identifier(name), [LENGTHS, *dims, *(i.name for i in model.inputs), *recurrent, *states, *order]
            )
            outputs.append(
                Port(port, "output", _shape(port, value.shape, other.shape, lengths), port_dtype(value.dtype.name))
            )
        order.append(port)

    calls = tuple(_facts(*pair, lengths) for pair in zip(first.calls, second.calls, strict=True))
    return Survey(
        inputs=tuple(_input_port(each, dims.get(each.name), model.vocabulary) for each in model.inputs),
        declared={dims[i.name]: i.shape[1] for i in model.inputs if i.name in dims and i.shape[1] is not None},
        flexible=flexible,
        calls=calls,
        outputs=tuple(outputs),
        order=tuple(order),
        tried=lengths,
        no_step=law.why_no_step(model, timed, max(sizes.values()) + 2) if flexible else _fixed(sizes),
        one_clock=not independent and {made.time for made in calls} == {"time"},
    )


def _input_port(each: Input, time: str | None, vocabulary: int | None) -> Port:
    rest = [time if time and axis == 1 else int(d or 1) for axis, d in enumerate(each.shape) if axis]
    return Port(each.name, "input", ("batch", *rest), each.dtype, vocabulary if each.dtype.startswith("int") else None)


def _timed_inputs(model: Model) -> list[str]:
    """Return the inputs whose axis 1 counts time; none where the recurrent layers run on something of a fixed size.

    They are the ones that leave the axis open; else the ones that, when it is doubled, make the recurrent layers run
    longer; else, for a model that takes one T only, sequences as long as a recurrent layer's.
    """
    for each in model.inputs:
        if None in each.shape[2:]:
            raise UnsupportedModel(
                f"input {each.name!r} has shape {list(each.shape)}: only batch and time may be open.\n"
                "  Give the feature axes a fixed size in the model's Input."
            )
    if found := [each.name for each in model.inputs if len(each.shape) > 1 and each.shape[1] is None]:
        return found
    steps = _recurrent_steps(model, {})
    sized = {each: each.shape[1] for each in model.inputs if len(each.shape) > 1}
    alike = [[i for i in sized if sized[i] == size] for size in dict.fromkeys(sized.values())]
    for group in [*alike, *([i for i in group if len(i.shape) > 2] for group in alike), *([i] for i in sized)]:
        doubled = {each.name: 2 * (each.shape[1] or 1) for each in group}
        longer = _recurrent_steps(model, doubled)
        if longer and longer != steps:
            rest = {name: {k: v for k, v in doubled.items() if k != name} for name in doubled}
            return [name for name in doubled if len(group) == 1 or _recurrent_steps(model, rest[name]) != longer]
    return [i.name for i in sized if sized[i] in (steps or []) and (len(i.shape) > 2 or i.dtype.startswith("int"))]


def _recurrent_steps(model: Model, sizes: Mapping[str, int]) -> list[int] | None:
    """Return the T of each recurrent call when inputs have these sizes along axis 1; None where that doesn't run."""
    try:
        return [made.sequences.shape[1] for made in model.eagerly(model.draw(sizes, 2, np.random.default_rng(0)))[1]]
    except Exception:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
        return None


def _trials(model: Model, timed: list[str]) -> tuple[dict[str, int], bool, tuple[Trial, Trial]]:
    """Find T the model runs with: one each for every timed input, or one for all, or the ones it declares.

    Returns:
        (timed input -> T of the first run, whether T is free, two runs of different batch and T).
    """
    declared = {each.name: each.shape[1] or 0 for each in model.inputs if each.name in timed}
    pairs = [
        ({n: t + 11 * k for k, n in enumerate(timed)}, {n: u + 17 * k for k, n in enumerate(timed)}) for t, u in TRIALS
    ]
    if len(timed) > 1:
        pairs += [(dict.fromkeys(timed, t), dict.fromkeys(timed, u)) for t, u in TRIALS]
    if all(declared.values()):
        pairs = [*(pairs if timed else []), (declared, declared)]
    reason = ""
    for pair in pairs:
        try:
            drawn = [
                model.draw(sizes, batch, np.random.default_rng(1)) for sizes, batch in zip(pair, ROWS, strict=True)
            ]
            first, second = (Trial(feeds, *model.eagerly(feeds)) for feeds in drawn)
        except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
            reason = one_line(error)
            continue
        if not first.calls and not model.repeated:
            raise UnsupportedModel(
                f"model {model.keras.name!r} has recurrent layers but doesn't call them: there is no state."
            )
        return pair[0], pair[0] is not declared, (first, second)
    raise UnsupportedModel(
        f"model {model.keras.name!r} can't be run on random data ({reason}).\n  Check that it predicts in Keras."
    )


def _fixed(sizes: Mapping[str, int]) -> str:
    if not sizes:
        return "No input has a time axis: the recurrent layers run on something of a fixed size."
    return f"The model runs with exactly {max(sizes.values())} time steps."


def _facts(made: Call, again: Call, times: Mapping[str, tuple[int, int]]) -> CallFacts:
    _, time, *shape = _shape(f"steps_{made.name}", made.outputs[0].shape, again.outputs[0].shape, times)
    return CallFacts(made.name, made.recurrence, time, tuple(shape), made.own, made.given)


def _shape(port: str, first: Any, second: Any, times: Mapping[str, tuple[int, int]]) -> tuple[int | str, ...]:
    """Return a symbolic shape from the shapes of two runs that differ in batch and T."""
    dims: list[int | str] = ["batch"]
    for axis, pair in enumerate(zip(first[1:], second[1:], strict=True), start=1):
        time = next((dim for dim, both in times.items() if both == pair), None) if axis == 1 else None
        fixed = pair[0] if pair[0] == pair[1] else f"{port}_{axis}"
        dims.append(time or fixed)
    return tuple(dims)
