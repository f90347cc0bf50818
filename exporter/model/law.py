"""The stream law: running a model piece by piece, state carried, gives what one call of all time steps gives.

It is found out by doing it in Keras, one step at a time and in two pieces, of which the first is longer than the model
could look back. A model that breaks it (a convolution over time, a pooling, a state of the model's own) can't have a
`step`, and the layer where the numbers first part is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import going_in, sequences_output, state_output
from signatures.errors import one_line
from signatures.ports import Array, Port
from signatures.stream import cut

from ..memory.form import Memories
from ..memory.masks import as_layer
from ..memory.window import Clock
from . import swap
from .function import Axis, Model, carried_states
from .remember import Watched, limited, watched
from .swap import Call, Compute

AGREE = {"float64": 1e-9, "float32": 1e-4}
"""How closely the two must agree, absolute and relative: far above rounding, far below a wrong state."""

ROWS = 2

NOBODY = "An operation between the model's layers doesn't treat each time step alone."

Named = list[tuple[str, Any]]


@dataclass(frozen=True)
class Ports:
    """What is cut into pieces and compared.

    Attributes:
        inputs: The model's own inputs.
        outputs: Every output port by name, recurrent ones too.
        order: Ports of the model's own outputs, in the model's order.
        lengths: Axis of an input -> its size where it counts no time steps of a call.
    """

    inputs: tuple[Port, ...]
    outputs: Mapping[str, Port]
    order: tuple[str, ...]
    lengths: Mapping[Axis, int]

    def draw(self, model: Model, total: int) -> dict[str, Array]:
        """Return random feeds of so many time steps."""
        steps = {(port.name, port.time_axis): total for port in self.inputs if port.time_axis is not None}
        return model.draw({**self.lengths, **steps}, ROWS, np.random.default_rng(2))


@contextmanager
def exactly(model: Model, sizes: Mapping[Axis, int]) -> Iterator[Model]:
    """Yield the model computing in float64, which hides no small difference; where it can't, in its own type.

    16-bit types would hide one: in float32 then.

    Args:
        model: The model.
        sizes: Time axes -> sizes that it runs with.
    """
    for dtype in ("float64", "float32"):
        try:
            with swap.computing_in(model.keras, dtype):
                exact = model.again()
                exact.eagerly({**exact.draw(sizes, ROWS, np.random.default_rng(0)), **exact.initial(ROWS)})
        except Exception:  # noqa: BLE001 - a layer of one's own raises what it likes in a type that it wasn't made for
            continue
        with swap.computing_in(model.keras, dtype):
            yield exact
        return
    yield model


def stand_in(model: Model, ports: Ports) -> Compute:
    """Return a quick recurrence that keeps the law, for long runs: what is around the layers is in question there.

    s_t = s_(t-1) + the mean of the inputs of a valid step, weighted      s_0 = the mean of all states
    output_t = sin(w s_t), w different for each unit                      all states after the last step = s_T

    It forgets nothing, and no number is far from another one's in size.
    """

    def compute(made: Call) -> tuple[Any, list[Any]]:
        port = ports.outputs.get(sequences_output(made.name))
        if port is None:  # a layer without ports
            return model.quick(made)
        x, dtype = made.sequences, made.recurrence.dtype
        weights = tf.constant(np.random.default_rng(0).uniform(0.5, 1.5, x.shape[2:]), dtype)
        rate = tf.reduce_mean(x * weights, axis=list(range(2, len(x.shape))))
        rate = rate if made.mask is None else tf.where(made.mask, rate, 0)
        before = tf.add_n([tf.reduce_mean(tf.reshape(s, [x.shape[0], -1]), axis=1) for s in made.states])
        path = before[:, None] / len(made.states) + tf.cumsum(rate, axis=1)
        shape = [int(size) for size in port.shape[2:]]
        units = np.random.default_rng(1).uniform(0.5, 1.5, shape[-1:])
        waves = tf.sin(path[..., None] * tf.constant(units, dtype))
        waves = tf.reshape(waves, [*path.shape, *[1] * (len(shape) - 1), shape[-1]])
        outputs = as_layer(made.recurrence, tf.broadcast_to(waves, [*path.shape, *shape]), made.mask, True)
        last = path[:, -1]
        return outputs, [tf.reshape(last, [-1, *[1] * (len(s.shape) - 1)]) + tf.zeros_like(s) for s in made.states]

    return compute


def why_pieces_differ(model: Model, ports: Ports, sizes: Sequence[int], compute: Compute | None = None) -> str | None:
    """Return why running a model piece by piece differs from running it whole, one sentence; None where it doesn't.

    Args:
        model: The model.
        ports: What is cut and compared.
        sizes: Time steps of the pieces.
        compute: What computes the recurrent layers; None: their own equations.
    """
    total, within = sum(sizes), AGREE.get(model.dtype, AGREE["float32"])
    feeds, memories = ports.draw(model, total), model.memories
    with limited(memories), _watching(model) as seen, swap.recorded(model.keras) as whole:
        try:
            ran = model.eagerly(feeds, compute)
        except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
            return f"The model doesn't run on {total} time steps ({one_line(error)})."
    links: dict[str, str] = {going_in(port.name): port.name for port in memories.ports}
    for made in ran.calls:
        states = carried_states(made)
        if made.recurrence.reverse:
            return f"Layer {made.name!r} runs from the last time step to the first."
        if len(states) != len(made.states):
            return f"Layer {made.name!r} gets its initial state from the model itself on every call."
        if set(states) & set(links):
            return f"Layer {made.name!r} starts from the same input as another layer, whose state goes on differently."
        links.update({port: state_output(made.name, short) for port, short in states.items()})

    state: dict[str, Array] = {**model.initial(ROWS), **{name: x for name, x in feeds.items() if name in links}}
    pieces: list[dict[str, Any]] = []
    records: list[Named] = []
    watches: list[list[Watched]] = []
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        with _watching(model) as watch, swap.recorded(model.keras) as record:
            try:
                now = model.eagerly({**cut(feeds, ports.inputs, int(start), size), **state}, compute)
            except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
                if apart := not memories.calls and _apart(whole, [*records, record[:-1]], sizes, within):
                    return apart
                steps = "one time step" if size == 1 else f"{size} time steps"
                if empty := next((what for what, value in record[:-1] if 0 in value.shape), None):
                    return f"{empty} gives nothing for {steps}."
                return f"{record[-1][0] if record else 'The model'} doesn't run on {steps} ({one_line(error)})."
        pieces.append(now.ports(ports.order))
        state = {port: np.asarray(pieces[-1][output]) for port, output in links.items()}
        records.append(record)
        watches.append(watch)

    clocks = clocks_of(memories, ports.order, ran.calls)
    for name, value in ran.ports(ports.order).items():
        port, clock = ports.outputs[name], clocks.get(name, Clock())
        if clock is None:  # a last state that Keras never has
            continue
        axis = port.time_axis
        parts: Sequence[Any] = [piece[name] for piece in pieces]
        if axis is not None and not memories.calls and value.shape[axis] != total:
            return f"Output {name!r} has {value.shape[axis]} time steps for {total} that go in."
        rows: Sequence[int] = [int(size / clock.rate) for size in sizes]
        if axis is not None and memories.calls:
            parts, rows, value = _on_time(parts, rows, value, clock.delay, axis)
        if not _agree(value, parts, rows, within, axis):
            if memories.calls:
                what = _first_apart(memories, seen, watches, sizes, within) or f"Output {name!r}"
                return f"{what} of a stream isn't that of a whole recording."
            return _apart(whole, records, sizes, within) or NOBODY
    return None


def _watching(model: Model) -> AbstractContextManager[list[Watched]]:
    """Watch the calls of a model whose layers remember; others are recorded by name alone."""
    return watched(model.keras, model.memories.blocks) if model.memories.calls else nullcontext([])


def _first_apart(
    memories: Memories,
    whole: Sequence[Watched],
    pieces: Sequence[Sequence[Watched]],
    sizes: Sequence[int],
    within: float,
) -> str | None:
    """Return the first layer or operation whose rows in a stream aren't those of a whole recording; None for none."""
    for k, entry in enumerate(whole):
        clock = memories.rows.get((id(entry.target), entry.nth))
        if clock is None or clock.delay < 0 or any(len(piece) != len(whole) for piece in pieces):
            continue
        parts, rows = [piece[k].outputs[0] for piece in pieces], [int(size / clock.rate) for size in sizes]
        if any(part.shape[1] != n for part, n in zip(parts, rows, strict=True)):  # rows that are cut off afterwards
            continue
        late, rest, some = _on_time(parts, rows, entry.outputs[0], clock.delay, 1)
        if not _agree(some, late, rest, within, 1):
            return entry.what
    return None


def clocks_of(memories: Memories, order: Sequence[str], calls: Sequence[Call]) -> dict[str, Clock | None]:
    """Return the clocks of outputs over time; None for a last state that Keras has on longer recordings only."""
    late: dict[str, None] = {}
    for made in calls:
        if memories.recurrent.get(made.name, Clock()).ahead:
            late.update(dict.fromkeys(state_output(made.name, short) for short in made.recurrence.states))
    return {**memories.clocks(order), **late}


def _on_time(
    parts: Sequence[Any], rows: Sequence[int], whole: Any, delay: int, axis: int
) -> tuple[Sequence[Any], Sequence[int], Any]:
    """Return the pieces of a delayed output without the rows before its first, and as many rows of the whole."""
    if any(part.shape[axis] != n for part, n in zip(parts, rows, strict=True)):
        return parts, rows, whole
    joined = np.moveaxis(np.concatenate(parts, axis=axis), axis, 0)[delay:]
    rest = np.moveaxis(np.asarray(whole), axis, 0)[: len(joined)]
    joined = joined[: len(rest)]
    return [np.moveaxis(joined, 0, axis)], [len(joined)], np.moveaxis(rest, 0, axis)


def _apart(whole: Named, records: list[Named], sizes: Sequence[int], within: float) -> str | None:
    """Return a sentence about the first layer whose pieces aren't its whole; None where there is none so far.

    Args:
        whole: What `swap.recorded` gave for the run of all steps.
        records: The same for each piece that was run, the last one perhaps not to its end.
        sizes: Time steps of all pieces.
        within: How closely they must agree.
    """
    total, run = sum(sizes), sizes[: len(records)]
    for k, (what, value) in enumerate(whole):
        parts = [record[k] if k < len(record) else ("", None) for record in records]
        if sum(run) < total and (k >= len(records[-1]) or value is None):
            continue  # not run yet
        known = all(name == what and part is not None for name, part in parts)
        axis = _time_axis(value, [part for _, part in parts], total, run) if known else None
        if sum(run) < total:  # only what has a time axis can be compared already
            if axis is None and known:
                continue
            value = value if axis is None else value[(*[slice(None)] * axis, slice(sum(run)))]
        if not known or not _agree(value, [part for _, part in parts], run, within, axis):
            return f"{what} doesn't treat each time step alone."
    return None


def _time_axis(whole: Any, parts: Sequence[Any], total: int, run: Sequence[int]) -> int | None:
    """Return the axis of a layer's tensor that is as long as the time steps, in the whole and in each piece."""
    shapes = [tuple(part.shape) for part in parts]
    if any(len(shape) != len(whole.shape) for shape in shapes):
        return None
    fits = (a for a, n in enumerate(whole.shape) if n == total and [s[a] for s in shapes] == list(run))
    return next((axis for axis in fits if axis), None)


def _agree(whole: Any, parts: Sequence[Any], sizes: Sequence[int], within: float, axis: int | None) -> bool:
    """Whether the parts, joined along the time axis, else the last one, are the whole."""
    whole, pieces = np.asarray(whole), [np.asarray(part) for part in parts]
    if axis is not None and any(p.ndim != whole.ndim or p.shape[axis] != n for p, n in zip(pieces, sizes, strict=True)):
        return False
    joined = pieces[-1] if axis is None else np.concatenate(pieces, axis=axis)
    return whole.shape == joined.shape and bool(np.allclose(whole, joined, atol=within, rtol=within, equal_nan=True))
