"""Find out by running it what a Keras model takes, gives and carries.

The model is run in Keras on random data of three sizes. What that shows is a fact about this model and needs no
knowledge of its other layers: which axes count time, which outputs are recurrent states, which initial states are its
own inputs. The third run, if the model takes it, is longer than the numbers in the model reach (see reach.py), so that
nothing that ends at such a number, y[:, -300:], passes for a time axis.

Inputs that must be equally long share a clock, one named dimension. A clock that a recurrent layer runs over counts the
time steps of a call. What has another one is a memory, such as what an attention looks into: every call takes it whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from typing import Any

import numpy as np
import tensorflow as tf

from signatures.contract import LENGTHS, identifier, sequences_output, state_input, state_output, unique
from signatures.errors import UnsupportedModel
from signatures.ports import TIME, Dim, Port

from .. import inside
from ..memory.attention import TOGETHER, Cache
from ..memory.form import NOTHING, Memories
from ..memory.recurrence import Recurrence, port_dtype
from . import law, reach
from .function import Axis, Model, recurrent_ports
from .swap import Call
from .trials import Axes, Trial, declared, run_trials, time_axes

AFTER = 9
"""Time steps after those of which the state is carried: each of them may look back at an earlier one."""

SINGLE = 30
"""Time steps that are run one by one, at most."""


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
        batch: What its rows are: "batch", or "batch * 4" where it runs four rows of every sample side by side.
        timed: Whether its time steps are those of a call.
    """

    name: str
    recurrence: Recurrence
    time: Dim
    shape: tuple[Dim, ...]
    own: bool
    given: Mapping[str, str]
    batch: str = "batch"
    timed: bool = True

    @property
    def states(self) -> dict[str, Port]:
        """Short name of a state -> the port that gives it after the last time step."""
        dtype = port_dtype(self.recurrence.dtype)
        return {
            short: Port(state_output(self.name, short), "state", (self.batch, *shape), dtype)
            for short, shape in self.recurrence.states.items()
        }

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Every port that the call gives: its sequences, then its final states."""
        name, dtype = sequences_output(self.name), port_dtype(self.recurrence.dtype)
        shape = (self.batch, self.time, *self.shape)
        return Port(name, "sequences", shape, dtype, time_axis=1 if self.timed else None), *self.states.values()


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
        tried: Dimension of the inputs -> the two sizes it was run with.
        no_step: Why it can't be stepped; None if it can.
        one_clock: Whether every recurrent layer sees one clock's own time steps, so that lengths mean the same to all.
        proven: How many time steps back a look at earlier inputs would have been seen; 0 where it can't be stepped.
        memories: What its other layers remember.
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
    proven: int = 0
    memories: Memories = NOTHING


@dataclass(frozen=True)
class Dims:
    """The named dimensions of the inputs, for telling a symbolic shape from the shapes in all runs.

    Attributes:
        sizes: Name -> its size in each run.
        steps: Those that count the time steps of a call.
    """

    sizes: Mapping[str, tuple[int, ...]]
    steps: frozenset[str] = frozenset()

    def of(self, found: tuple[int, ...], otherwise: str) -> Dim:
        """Return the dimension that had these sizes, else the size if it is always one, else a name for it."""
        name = next((name for name, sizes in self.sizes.items() if sizes == found), None)
        return name or (found[0] if len(set(found)) == 1 else otherwise)

    def shape(self, port: str, tensors: Sequence[Any]) -> tuple[Dim, ...]:
        """Return the shape of a tensor that was [B, ...] in each run, without the batch axis."""
        pairs = zip(*(tensor.shape[1:] for tensor in tensors), strict=True)
        return tuple(self.of(found, f"{port}_{axis}") for axis, found in enumerate(pairs, start=1))

    def time_axis(self, shape: Sequence[Dim]) -> int | None:
        """Return the first axis of a shape [B, ...] that counts the time steps of a call."""
        return next((axis for axis, dim in enumerate(shape) if dim in self.steps), None)


def survey(model: Model) -> Survey:
    """Run the model on random data and return what that shows, as Keras has it or, with memories, as a stream.

    Raises:
        UnsupportedModel: When the model can't be run, or an input leaves other axes open than the batch and one more.
    """
    clocks, flexible, trials = run_trials(model, time_axes(model))
    if len({len(trial.calls) for trial in trials}) > 1:
        raise UnsupportedModel(
            f"model {model.keras.name!r} calls its recurrent layers more often for more time steps.\n"
            "  Let a recurrent layer run over the time steps."
        )
    leads = model.leads = _leads(model, trials, flexible)
    made = list(zip(*([call for call in t.calls if call.recurrence.name in leads] for t in trials), strict=True))
    ran = [tuple(call.sequences.shape[1] for call in calls) for calls in made]
    named = _names(clocks, trials, ran)
    sizes = {name: tuple(trial.sizes[clock[0]] for trial in trials) for name, clock in named.items()}
    slower = {} if TIME not in sizes else _slower(model.memories, sizes[TIME])
    every = Dims({**sizes, **slower})
    clocked = [every.of(found, f"steps_{calls[0].name}_1") for calls, found in zip(made, ran, strict=True)]
    steps = [name for name in sizes if name in clocked or (slower and name == TIME)] or [*sizes]
    dims = replace(every, steps=frozenset([*steps, *slower]))
    shapes = dims if flexible else Dims({})  # of one size alone nothing can be told
    facts = tuple(
        _facts(calls, time, shapes, time in dims.steps, leads) for calls, time in zip(made, clocked, strict=True)
    )

    axes = {axis: name for name, clock in named.items() for axis in clock}
    inputs = tuple(_input_port(model, each, axes, dims) for each in model.inputs)
    model.masked = tuple(port.name for port in inputs if port.time_axis == 1)
    outputs, order = _outputs(model, trials, [call[0] for call in made], shapes, [*sizes])
    no_step: str | None = _fixed(sizes)
    proven = 0
    if flexible:
        ports = {port.name: port for port in (*outputs, *(port for call in facts for port in call.outputs))}
        lengths = {axis: sizes[name][1] for axis, name in axes.items()}
        no_step, proven = _no_step(model, law.Ports(inputs, ports, order, lengths), trials)
    return Survey(
        inputs=inputs,
        declared={axes[axis]: size for axis, size in declared(model, axes).items()},
        flexible=flexible,
        calls=facts,
        outputs=outputs,
        order=order,
        tried={name: (found[0], found[1]) for name, found in sizes.items()},
        no_step=no_step,
        one_clock=set(clocked) == {TIME},
        proven=proven,
        memories=model.memories,
    )


def _slower(memories: Memories, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the dimensions of rows that come at another rate than time steps, and their sizes in each run."""
    rates = {clock.rate for clock in (*memories.recurrent.values(), *memories.outputs) if clock and clock.rate != 1}
    return {_dim(rate): tuple(int(size / rate) for size in sizes) for rate in sorted(rates)}


def _dim(rate: Fraction) -> str:
    """Return the dimension of rows that come so many time steps apart: "time / 2", "time * 2"."""
    times = f" * {rate.denominator}" if rate.denominator > 1 else ""
    return TIME + times + (f" / {rate.numerator}" if rate.numerator > 1 else "")


def _no_step(model: Model, ports: law.Ports, trials: Sequence[Trial]) -> tuple[str | None, int]:
    """Return why the model can't be stepped, None if it can, and how many time steps back was looked."""
    known, possible = reach.named_steps(model.keras)
    most = reach.most_steps(model.keras, trials[1].numbers)
    back, every = min(max(known, possible, reach.LEAST), most), model.memories.every
    back = -(-back // every) * every
    total = max(trials[0].sizes.values()) + 2  # other than the trials', so that a size of its own shows
    total = -(-total // every) + 2 * -(-model.memories.span // every)  # in calls of the fewest steps
    single = min(total, SINGLE)
    with law.exactly(model, trials[0].sizes) as exact:
        pieces = [every] * single + _cut(every * (total - single), model.memories)
        reason = law.why_pieces_differ(exact, ports, pieces)
        if reason and reason != law.NOBODY:
            return reason, 0
        far = law.why_pieces_differ(
            exact, ports, [*_cut(back, model.memories), AFTER * every], law.stand_in(exact, ports)
        )
    reason = far or reason
    if reason is None and known > most:
        return f"Its options name {known} time steps; at most {most} can be tried here.", 0
    return reason, 0 if reason else back


def _cut(total: int, memories: Memories) -> list[int]:
    """Return so many time steps in one piece; in several where each is compared with all that an attention keeps."""
    cached = any(isinstance(memory.form, Cache) for memory in memories.calls)
    most = TOGETHER * memories.every if cached else max(total, 1)
    return [min(most, total - begin) for begin in range(0, total, most)]


def _facts(calls: Sequence[Call], time: Dim, dims: Dims, timed: bool, leads: Mapping[str, str]) -> CallFacts:
    first = calls[0]
    shape = dims.shape(f"steps_{first.name}", [call.outputs[0] for call in calls])[1:]
    lead = leads[first.recurrence.name]
    return CallFacts(first.name, first.recurrence, time, shape, first.own, first.given, lead, timed)


def _input_port(model: Model, each: Any, axes: Mapping[Axis, str], dims: Dims) -> Port:
    shape = ("batch", *(axes.get((each.name, axis), int(d or 1)) for axis, d in enumerate(each.shape) if axis))
    below = model.vocabulary if each.dtype.startswith("int") else None
    return Port(each.name, "input", shape, each.dtype, below, dims.time_axis(shape))


def _outputs(
    model: Model, trials: Sequence[Trial], calls: Sequence[Call], dims: Dims, names: Sequence[str]
) -> tuple[tuple[Port, ...], tuple[str, ...]]:
    """Return the ports of the outputs that are no recurrent ports, and the ports of all, in the model's order."""
    recurrent = recurrent_ports(list(calls))
    states = [state_input(made.name, short) for made in calls for short in made.recurrence.states]
    outputs: list[Port] = []
    order: list[str] = []
    ports = _recurrent_outputs(model, trials[0])
    for port, *given in zip(ports, *(trial.outputs for trial in trials), strict=True):
        name, values = given[0][0], [value for _, value in given]
        if port not in recurrent:
            taken = [LENGTHS, *names, *(i.name for i in model.inputs), *recurrent, *states, *order]
            port = unique(identifier(name), taken)
            shape = (_output_lead(model, trials, name, values), *dims.shape(port, values))
            outputs.append(Port(port, "output", shape, port_dtype(values[0].dtype.name), None, dims.time_axis(shape)))
        order.append(port)
    return tuple(outputs), tuple(order)


def _recurrent_outputs(model: Model, trial: Trial) -> list[str | None]:
    """Return for each model output the recurrent port that it is, None where it is none.

    They are the same tensor when the model is run. But a branch that a run takes may give the tensor that goes into it,
    and another one not: where an output doesn't come from a recurrent layer itself, a graph shows that.
    """
    shapes = {made.name: made.outputs[0].shape for made in trial.calls}

    def compute(made: Call) -> tuple[Any, list[Any]]:
        if made.name not in shapes:
            return model.quick(made)
        some = tf.reduce_mean(made.sequences)  # a constant would decide a branch here
        return tf.fill(shapes[made.name], some), [state + tf.cast(some, state.dtype) for state in made.states]

    def found(outputs: law.Named, calls: list[Call]) -> list[str | None]:
        ports = recurrent_ports(calls).items()
        return [next((port for port, tensor in ports if tensor is value), None) for _, value in outputs]

    eagerly = found(trial.outputs, trial.calls)
    functional, own = inside.functional_of(model.keras), {layer.name for layer, _ in model.layers.values()}
    sources = [] if functional is None else [inside.source(output) for output in functional.outputs]
    direct = [port if source in own else None for port, source in zip_longest(eagerly, sources)]
    if direct == eagerly:
        return eagerly
    traced: list[str | None] = []
    feeds = {**model.draw(trial.sizes, trial.rows, np.random.default_rng(0)), **model.initial(trial.rows)}

    def graph(tensors: Mapping[str, Any]) -> None:
        ran = model.run(tensors, compute, lowered=True)
        traced[:] = found(ran.outputs, ran.calls)

    try:
        tf.function(graph, autograph=False).get_concrete_function({n: tf.constant(x) for n, x in feeds.items()})
    except Exception:  # noqa: BLE001 - what a layer makes of these numbers isn't known: a port of its own is right
        return direct
    return traced


def _output_lead(model: Model, trials: Sequence[Trial], name: str, values: Sequence[Any]) -> str:
    """Return what the rows of an output are: "batch", or "batch * 4" where a sample has several."""
    counts = {(*value.shape, 0)[0] / trial.rows for value, trial in zip(values, trials, strict=True) if value.shape}
    if len(counts) != 1 or not (count := counts.pop()) or count != int(count):
        raise UnsupportedModel(
            f"output {name!r} has shape {list(values[0].shape)} for {trials[0].rows} rows: its first axis isn't the"
            " batch.\n  Return it with the batch first."
        )
    return _layout(model, f"output {name!r}", int(count), trials[0], lambda outputs, calls: dict(outputs)[name])


def _names(clocks: Sequence[Axes], trials: Sequence[Trial], ran: Sequence[tuple[int, ...]]) -> dict[str, Axes]:
    """Return a name for each clock: "time" for the first one that a recurrent layer runs over."""
    sizes = [tuple(trial.sizes[clock[0]] for trial in trials) for clock in clocks]
    first = next((k for k, found in enumerate(sizes) if found in ran), 0)
    same = len(set(sizes)) == 1 and len(clocks) > 1  # as declared: they can't be told apart
    if same:
        return {TIME: [axis for clock in clocks for axis in clock]}
    return {TIME if k == first else f"time_{clock[0][0]}": clock for k, clock in enumerate(clocks)}


def _leads(model: Model, trials: Sequence[Trial], flexible: bool) -> dict[str, str]:
    """Return what the rows of each recurrent layer are, see CallFacts.batch, and let others start anew.

    A layer whose rows are as many as the time steps of an outer axis starts anew at each of them: it has no ports.
    """
    rows: dict[str, set[tuple[float, ...]]] = {}
    for calls in zip(*(trial.calls for trial in trials), strict=True):
        counts = tuple(call.sequences.shape[0] / trial.rows for call, trial in zip(calls, trials, strict=True))
        rows.setdefault(calls[0].recurrence.name, set()).add(counts)
    if not rows and model.layers:
        raise UnsupportedModel(
            f"model {model.keras.name!r} has recurrent layers but doesn't call them: there is no state."
        )

    def last(name: str) -> Callable[..., Any]:
        return lambda outputs, calls: next(call for call in calls if call.recurrence.name == name).outputs[1][0]

    leads = {}
    fixed = [] if flexible else list(trials[0].sizes.values())
    for name, found in rows.items():
        [count, *others] = {count for each in found for count in each}
        if others and len(found) > 1:
            raise UnsupportedModel(
                f"layer {name!r} is called on different numbers of rows.\n  Use a layer of its own for each call."
            )
        if others or count != int(count) or (count > 1 and any(count % size == 0 for size in fixed)):
            model.start_anew(name)
        else:
            leads[name] = _layout(model, f"layer {name!r}", int(count), trials[0], last(name))
    return leads


def _layout(model: Model, what: str, count: int, trial: Trial, pick: Callable[..., Any]) -> str:
    """Return whether a sample's rows come one after the other or once for all samples each, by swapping samples.

    Args:
        model: The model.
        what: What has these rows, for messages.
        count: Rows of a sample.
        trial: A run.
        pick: Outputs and recurrent calls of a run -> the tensor with these rows.
    """
    if count == 1:
        return "batch"
    if trial.rows == 1:
        return f"batch * {count}"
    feeds = model.draw(trial.sizes, trial.rows, np.random.default_rng(5))
    finals = []
    for given in (feeds, {port: value[::-1] for port, value in feeds.items()}):
        ran = model.eagerly(given)
        finals.append(np.asarray(pick(ran.outputs, ran.calls)))
    for dim in (f"batch * {count}", f"{count} * batch"):
        port = Port(what, "state", (dim,))
        swapped = port.samples(finals[0], np.arange(trial.rows)[::-1])
        if np.allclose(swapped, finals[1], rtol=1e-3, atol=1e-5, equal_nan=True):
            return dim
    raise UnsupportedModel(f"{what} has rows that mix the samples of a batch.\n  Keep each sample's rows apart.")


def _fixed(sizes: Mapping[str, tuple[int, ...]]) -> str:
    if not sizes:
        return "No input has a time axis: the recurrent layers run on something of a fixed size."
    return f"The model runs with exactly {max(found[0] for found in sizes.values())} time steps."
