"""Follow time through a model: which of its layers remember, what, and when the rows of each tensor come.

The model is run on a recording while every call of a layer or operation is watched, and each is asked what it does with
rows. Nothing is believed: law.py then holds the model with these memories to what Keras gives on whole recordings.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from signatures.contract import identifier, state_input, state_output, unique
from signatures.errors import UnsupportedModel, one_line

from ..memory.fold import folded
from ..memory.form import Form, Memories, Memory
from ..memory.recurrence import port_dtype
from ..memory.ring import LONG, Ring
from ..memory.window import Clock, Past, Wait, Window
from . import reach
from .attention import cached
from .function import Axis, Model
from .law import exactly
from .probe import ENDLESS, POOLINGS, SAMPLES, WHOLE, Found, found_by_options, probe
from .remember import Watched, on_rows, watched
from .swap import recurrent_layers

RECORDING = 720
"""Time steps of the recording, at least and of which it is a multiple: one of most strides."""


@dataclass(frozen=True)
class Row:
    """What is known of a tensor.

    Attributes:
        clock: When its rows come; None where it has none.
        late: Whether it is made of rows of which a stream hasn't given the last ones.
        of_all: Whether it is one row made of those of a whole recording.
    """

    clock: Clock | None
    late: bool = False
    of_all: bool = False


@dataclass
class Walk:
    """What is known of the tensors of one run.

    Attributes:
        taken: Names of ports that are taken.
        total: Time steps of the recording.
        cache: Rows that an attention may keep; None where none are given.
        rows: Tensor's id -> what is known of it.
        seen: Every tensor that rows come in, the latest one last.
        found: Calls that remember.
        future: For messages: the layers that look ahead and by how many time steps.
        probed: What a layer does with rows of some shape.
    """

    taken: set[str]
    total: int
    cache: int | None = None
    rows: dict[int, Row] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)
    found: list[Memory] = field(default_factory=list)
    future: list[tuple[str, int]] = field(default_factory=list)
    probed: dict[Any, Found | None] = field(default_factory=dict)

    def learn(self, tensor: Any, row: Row) -> None:
        """Remember what is known of a tensor."""
        self.rows[id(tensor)] = row
        if row.clock:
            self.seen.append(tensor)

    def of(self, tensor: Any) -> Row:
        """Return what is known of a tensor; of one that comes from where nobody looks, what is of one as long."""
        if id(tensor) in self.rows:
            return self.rows[id(tensor)]
        alike = (x for x in reversed(self.seen) if len(tensor.shape) > 1 and x.shape[:2] == tensor.shape[:2])
        return next((self.rows[id(x)] for x in alike), Row(None))

    def visit(self, entry: Watched, dtypes: Sequence[str]) -> None:
        """Follow the rows through one call.

        Args:
            entry: Which.
            dtypes: Of its inputs, where the model computes in its own types.

        Raises:
            UnsupportedModel: Naming the layer, where no state makes it right.
        """
        rows = [self.of(x) for x in entry.inputs]
        timed = [(x, row) for x, row in zip(entry.inputs, rows, strict=True) if row.clock]
        kept = [dtype for dtype, row in zip(dtypes, rows, strict=True) if row.clock]
        if timed and any(row.of_all for row in rows) and not isinstance(entry.target, keras.layers.RNN):
            raise UnsupportedModel(
                f"{entry.what} joins each time step with what is made of all of them, those of the future too"
            )
        clock, form = self._form(entry, timed, kept)
        late = any(row.late for row in rows) or any(row.clock.ahead for _, row in timed if row.clock)
        if clock and isinstance(entry.target, keras.layers.RNN):
            [y, *_] = entry.outputs
            clock = clock if y.shape[:2] == timed[0][0].shape[:2] else None
        if clock is None and late and not isinstance(entry.target, keras.layers.RNN):
            raise UnsupportedModel(f"{entry.what} makes one row of a whole recording, {self._why_late()}")
        for k, y in enumerate(entry.outputs):
            has_rows = clock is not None and len(y.shape) > 1 and (k == 0 or y.shape[:2] == entry.outputs[0].shape[:2])
            one = Row(None, late, bool(timed) or any(row.of_all for row in rows))
            self.learn(y, Row(self._ended(y, clock)) if has_rows and clock else one)
        if form is not None:
            clocks = tuple(row.clock for row in rows)
            self.found.append(Memory(self._name(entry, form), entry.target, entry.nth, clocks, form))

    def output(self, name: str, value: Any) -> Clock | None:
        """Return the clock of an output of the model.

        Raises:
            UnsupportedModel: When a stream can't give it.
        """
        row = self.of(value)
        if row.clock and row.clock.delay < 0:
            raise UnsupportedModel(f"Output {name!r} begins with {-row.clock.delay} rows of padding")
        if row.clock is None and row.late:
            raise UnsupportedModel(f"Output {name!r} is one row for a whole recording, {self._why_late()}")
        return row.clock

    def _ended(self, tensor: Any, clock: Clock) -> Clock:
        """Return the clock of a tensor with what is known from how many rows the recording has of it."""
        return replace(clock, ahead=int(tensor.shape[1] - (self.total / clock.rate - clock.delay)))

    def _why_late(self) -> str:
        if not self.future:
            return "whose last rows it leaves out"
        return f"whose end needs time steps of the future ({self.told()})"

    def told(self) -> str:
        """Return which layers look ahead and how far."""
        return ", ".join(f"{what[0].lower()}{what[1:]}: {steps}" for what, steps in self.future)

    def _form(
        self, entry: Watched, timed: list[tuple[Any, Row]], dtypes: Sequence[str]
    ) -> tuple[Clock | None, Form | None]:
        """Return when the rows of a call's output come, and what it remembers."""
        clocks = [row.clock for _, row in timed if row.clock]
        if not clocks:
            return None, None
        if _runs_over_time(entry.target):
            self._refuse_padded(entry, clocks[0])
            return clocks[0], None
        if len({clock.rate for clock in clocks}) > 1:
            raise UnsupportedModel(f"{entry.what} joins tensors whose rows come at different rates")
        shapes = [tuple(x.shape[2:]) for x, _ in timed]
        cache = cached(entry, [any(x is each for each, _ in timed) for x in entry.inputs], dtypes[0], self.cache)
        found = Found(ENDLESS) if cache else self._found(entry, timed, shapes)
        if len(set(clocks)) > 1:
            if found.window != Window():
                raise UnsupportedModel(f"{entry.what} joins rows of different delays and looks at several of them")
            wait = Wait(tuple(clocks), tuple(shapes), tuple(dtypes))
            return wait.after, wait
        if found.window in (WHOLE, ENDLESS):
            form = cache or (folded(entry.target, shapes[0], dtypes[0]) if len(timed) == 1 else None)
            if form is None:
                return self._whole(entry, timed, found)
            self._refuse_padded(entry, clocks[0])
            return (clocks[0] if found.window == ENDLESS else None), form
        assert isinstance(found.window, Window)
        if type(entry.target) in POOLINGS and found.window.left > 0:
            raise UnsupportedModel(
                f"{entry.what} makes its first rows of fewer time steps than the others (padding 'same'): use 'valid'"
            )
        after = found.window.after(clocks[0])
        if found.ahead:
            self.future.append((entry.what, math.ceil(found.ahead * clocks[0].rate)))
        if found.window.plain and not found.cropped and not found.ahead:
            return after, None
        if len(timed) > 1:
            raise UnsupportedModel(f"{entry.what} looks at several time steps of several inputs")
        past = Past(found.window, clocks[0], shapes[0], dtypes[0], found.padded, found.cropped)
        size = (found.window.stride == 1) * past.keep * math.prod(shapes[0]) * np.dtype(port_dtype(dtypes[0])).itemsize
        return after, Ring(past) if size >= LONG and type(found.padded) is keras.layers.Conv1D else past

    def _whole(self, entry: Watched, timed: list[tuple[Any, Row]], found: Found) -> tuple[Clock | None, Form | None]:
        """Let pass what gives the last row alone; refuse what looks at all."""
        if found.window == WHOLE and _last_only(entry, timed):
            return None, None
        raise UnsupportedModel(
            f"{entry.what} looks at all time steps, and nothing is known that can be carried instead"
        )

    def _found(self, entry: Watched, timed: Any, shapes: list[tuple[int, ...]]) -> Found:
        known = found_by_options(entry.target) if len(timed) == 1 else None
        key = (
            id(entry.target),
            tuple(shapes),
            entry.nth if len(entry.inputs) > 1 or not isinstance(entry.target, keras.Layer) else 0,
        )
        if known is None and key not in self.probed:
            self.probed[key] = probe(_on_rows(entry, timed), shapes, [x.dtype.name for x, _ in timed])
        found = known or self.probed[key]
        return found or Found(Window())  # where it can't be run alone the law has the word

    def _refuse_padded(self, entry: Watched, clock: Clock) -> None:
        if clock.delay < 0:
            raise UnsupportedModel(
                f"{entry.what} sees {-clock.delay} rows of padding before the first time step, which a stream doesn't"
            )

    def _name(self, entry: Watched, form: Form) -> str:
        base, shorts = identifier(entry.path), list(form.states)

        def ports(name: str) -> set[str]:
            return {made(name, short).lower() for short in shorts for made in (state_input, state_output)}

        lower = {name.lower() for name in self.taken}
        names = (base if not k else f"{base}_{k}" for k in range(len(lower) + 1))
        name = next(n for n in names if not ports(n) & lower)
        self.taken |= ports(name)
        return name


def _runs_over_time(target: Any) -> bool:
    """Whether a layer takes the time steps one by one by itself, whatever it holds."""
    if isinstance(target, keras.layers.Wrapper):
        return isinstance(target, keras.layers.TimeDistributed) or any(recurrent_layers(target))
    return isinstance(target, keras.layers.RNN)


def _on_rows(entry: Watched, timed: list[tuple[Any, Row]]) -> Callable[..., Any]:
    """Return a call of a layer on other rows in the place of its own."""
    return on_rows(entry.again, entry.inputs, [any(x is each for each, _ in timed) for x in entry.inputs])


def _last_only(entry: Watched, timed: list[tuple[Any, Row]]) -> bool:
    """Whether a layer gives the same when all rows but the last one are others."""
    again = _on_rows(entry, timed)
    others = [keras.ops.concatenate([x[:, :-1] * 0 + 1, x[:, -1:]], axis=1) for x, _ in timed]
    one, other = (keras.tree.flatten(again(*xs)) for xs in ([x for x, _ in timed], others))
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))


def find(
    model: Model,
    lengths: Mapping[Axis, int],
    timed: list[Axis],
    taken: set[str],
    blocks: frozenset[str],
    cache: int | None = None,
    every: int = 1,
) -> tuple[Memories, str]:
    """Run a model on a recording, then each of its layers alone, and return what it has to carry.

    Args:
        model: The model.
        lengths: Axes of inputs that count no time steps of a call -> their sizes.
        timed: Those that do.
        taken: Names of ports that are taken.
        blocks: Paths of layers that are taken as one.
        cache: Rows that an attention may keep; None where none are given.
        every: The recording is a multiple of so many time steps.

    Returns:
        (what it remembers, which layers look into the future and how far).

    Raises:
        UnsupportedModel: Naming the layer that no state makes right.
    """
    total, record = _recording(model, lengths, timed, blocks, every)
    sizes = {**lengths, **dict.fromkeys(timed, total)}
    walk = Walk(set(taken), total, cache)
    dtypes = [[x.dtype.name for x in entry.inputs] for entry in record]
    recurrent: dict[str, Clock] = {}
    rows: dict[tuple[int, int], Clock] = {}
    with exactly(model, sizes) as exact:
        with watched(model.keras, blocks) as record:
            ran = exact.eagerly(exact.draw(sizes, SAMPLES, np.random.default_rng(3)))
        for name, tensor in ran.inputs.items():
            walk.learn(tensor, Row(Clock() if (name, 1) in timed else None))
        made, own = iter(ran.calls), {id(layer) for layer, _ in exact.layers.values()}
        for entry, types in zip(record, dtypes, strict=True):
            walk.visit(entry, types)
            if given := walk.of(entry.outputs[0]).clock:
                rows[id(entry.target), entry.nth] = given
            if id(entry.target) in own:
                call, clock = next(made), walk.of(entry.inputs[0]).clock
                recurrent |= {call.name: clock} if clock else {}
    outputs = tuple(walk.output(name, value) for name, value in ran.outputs)
    every = math.lcm(*(row.clock.rate.numerator for row in walk.rows.values() if row.clock), 1)
    if total % every:
        return find(model, lengths, timed, taken, blocks, cache, every)
    gates = [clock for memory in walk.found if memory.form.gated for clock in memory.clocks if clock]
    steps = max((math.ceil(clock.delay * clock.rate) for clock in (*gates, *recurrent.values())), default=0)
    memories = Memories(
        calls=tuple(walk.found),
        every=every,
        timed=[each.name for each in model.inputs].index(timed[0][0]),
        counter=unique("steps", walk.taken),
        gated=-(-steps // every) * every,
        recurrent=recurrent,
        outputs=outputs,
        blocks=blocks,
        rows=rows,
    )
    late = any(clock.ahead > 0 and clock.delay > 0 for clock in (*outputs, *recurrent.values()) if clock)
    return memories, walk.told() if late else ""


def _recording(
    model: Model, lengths: Mapping[Axis, int], timed: list[Axis], blocks: frozenset[str], every: int
) -> tuple[int, list[Watched]]:
    """Return a number of time steps that the model runs with, beyond what its options reach, and its calls on them.

    Raises:
        UnsupportedModel: When it runs with none that was tried.
    """
    known, other = reach.named_steps(model.keras)
    unit, reason = math.lcm(RECORDING, every) if every <= RECORDING else every, ""
    for far in dict.fromkeys((known, max(known, other))):
        total = -(-(far + RECORDING) // unit) * unit
        feeds = model.draw({**lengths, **dict.fromkeys(timed, total)}, SAMPLES, np.random.default_rng(3))
        try:
            with watched(model.keras, blocks) as record:
                model.eagerly(feeds)
        except Exception as error:  # noqa: BLE001 - a layer raises what it likes when a length doesn't suit it
            reason = f"the model doesn't run on {total} time steps ({one_line(error)})"
        else:
            return total, record
    raise UnsupportedModel(reason)
