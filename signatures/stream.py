"""Streaming: push chunks of any length through an artifact, the state carried from one to the next."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .contract import LENGTHS, Contract
from .errors import FeedError
from .ports import TIME, Array, Feeds, Port, Signature, show


class Stream:
    """One stream (or `batch` streams side by side) through an artifact.

    Pushing T time steps at once, one by one or in chunks of any length gives the same numbers: that is the law every
    artifact is checked for.

    An output may have a `delay` of some rows (see Signature): its first rows then mean nothing, and where layers look
    into the future the last ones come by `flush`.

    Attribute `state` is what the next push starts from; it may be set to resume a stream. A stream belongs to one
    thread at a time; any number of streams, in any threads, may share a runner.
    """

    def __init__(
        self,
        contract: Contract,
        dims: Mapping[str, int],
        run: Callable[[str, Feeds], dict[str, Array]],
        batch: int = 1,
        *,
        buffer: bool = False,
        trim: bool = False,
        quantized: bool = False,
    ) -> None:
        """Start from the beginning; `Runner.stream` is the usual way here.

        Args:
            contract: Of the artifact.
            dims: Dimensions that are fixed in it.
            run: Runs one of its signatures, see Runner.run.
            batch: How many independent streams run side by side.
            buffer: Whether time steps that no call takes yet are kept for the next push.
            trim: Whether the rows of outputs that come before the model's first one are left out.
            quantized: Whether outputs are what quantized ports hold, and not the numbers that they stand for. Inputs
                may be either; the state is always what the ports hold.

        Raises:
            FeedError: When the model can't be streamed, or the artifact is fixed to another batch size.
        """
        if contract.no_step is not None:
            raise FeedError(f"This model can't be streamed: {contract.no_step}")
        fixed = dims.get("batch", batch)
        if not isinstance(batch, int) or batch < 1 or batch != fixed:
            raise FeedError(f"The artifact runs batches of {dims.get('batch', 'at least 1')}; batch={batch} was asked.")
        self._contract, self._dims, self._run = contract, dims, run
        self._batch, self._buffer, self._trim, self._quantized = batch, buffer, trim, quantized
        # The ports of any signature, for any number of time steps.
        self._ports = replace(next(iter(contract.signatures.values())), dims={})
        self._timed = [port for port in self._ports.inputs if port.timed]
        self.reset()

    @property
    def state(self) -> Mapping[str, Array]:
        """What the next push starts from, input port name -> array [B, U]. Set it to resume a stream.

        One that is resumed is past its start: nothing is trimmed from its outputs, and nothing is left in its buffer.

        Raises:
            FeedError: When what is set isn't one array for each carried input.
        """
        return self._state

    @state.setter
    def state(self, state: Mapping[str, Array]) -> None:
        wanted = self._ports.initial_state(self._batch)
        if not isinstance(state, Mapping) or set(state) != set(wanted):
            raise FeedError(f"The state is a dict of {', '.join(wanted) or 'nothing'}: one array each.")
        for name, zero in wanted.items():
            found = np.asarray(state[name])
            if found.shape != zero.shape or found.dtype != zero.dtype:
                raise FeedError(
                    f"State {name!r} is {found.dtype} {show(found.shape)}; it must be {zero.dtype} {show(zero.shape)}."
                )
        self._state = dict(state)
        self._rest: dict[str, Array] = {}
        self._early: dict[str, int] = {}

    def reset(self) -> None:
        """Go back to the start of the stream."""
        self.state = self._ports.initial_state(self._batch)
        self._early = dict(self._ports.delay) if self._trim else {}

    def push(self, x: Array | None = None, /, **inputs: Array) -> dict[str, Array]:
        """Run the next T time steps.

        Args:
            x: The input [B, T, F], where the model has just one.
            **inputs: Port name -> array, for models with several inputs; inputs without a time axis are given with
                every push. `lengths` may be left out: every step is then valid.

        Returns:
            Output port -> array. Outputs with a time axis have their rows of these T steps; the others are those of the
            last step. With `buffer` and too few steps for a call an empty dict.

        Raises:
            FeedError: When names, shapes or types don't fit; the state is then unchanged.
        """
        feeds = self._named(x, inputs)
        lengths = {
            feeds[port.name].shape[port.time_axis]
            for port in self._timed
            if port.time_axis is not None and np.ndim(feeds.get(port.name, 0)) == len(port.shape)
        }
        if any(port.name == LENGTHS for port in self._ports.inputs):
            feeds.setdefault(LENGTHS, np.full(self._batch, max(lengths, default=0), np.int32))
        checked = replace(self._ports, every=1) if self._buffer else self._ports
        checked.check_feeds({**feeds, **self.state}, {"batch": self._batch})
        if len(lengths) != 1:
            raise FeedError(f"All inputs with a time axis take the same number of time steps; got {sorted(lengths)}.")
        [total] = lengths
        if self._buffer:
            for port in self._timed:
                feeds[port.name] = port.in_a_row([*([self._rest[port.name]] if self._rest else []), feeds[port.name]])
            total = self._ports.time_steps(feeds)
            whole = total // self._unit * self._unit
            self._rest = cut(feeds, self._ports.inputs, whole, total - whole) if total > whole else {}
            if not whole:
                return {}
            feeds, total = cut(feeds, self._ports.inputs, 0, whole), whole
        return self._pushed(feeds, total)

    def flush(self) -> dict[str, Array]:
        """End the stream: give the rows of outputs that look into the future, as if zeros came, and start again.

        Keras pads each layer that looks ahead with zeros, not the recording. Where one such layer stands on the inputs
        themselves that is the same; elsewhere rows that look beyond the end differ from Keras'.

        Returns:
            Output port -> array, the rows that were still to come, of outputs with a time axis alone. Buffered time
            steps that make no whole row are left out.

        Raises:
            FeedError: When the model has inputs without a time axis, and nothing is buffered.
        """
        ports, rest = self._ports, self._ports.time_steps(self._rest) if self._rest else 0
        late = max((math.ceil(rows * ports.steps_a_row(port)) for port, rows in ports.ahead.items()), default=0)
        total = -(-(rest + late) // self._unit) * self._unit
        if not total:
            self.reset()
            return {}
        feeds = dict(self._rest)
        for port in self._timed:
            shape = port.sized({"batch": self._batch, str(port.time): total - rest})
            zeros = np.zeros([int(size) for size in shape], port.dtype)
            feeds[port.name] = port.in_a_row([feeds[port.name], zeros]) if rest else zeros
        if missing := [port.name for port in ports.inputs if port.name not in {*feeds, *self.state}]:
            raise FeedError(f"Input {missing[0]!r} has no time axis: push zeros with it instead of flushing.")
        outputs = self._pushed(feeds, total)
        kept = {}
        for port in (port for port in ports.outputs if port.timed):
            per_row = ports.steps_a_row(port.name)
            rows = math.floor(rest / per_row) + ports.ahead.get(port.name, 0)
            kept[port.name] = port.steps(outputs[port.name], 0, rows)
        self.reset()
        return kept

    def _pushed(self, feeds: dict[str, Array], total: int) -> dict[str, Array]:
        signature = self._signature_for(total)
        chunk = signature.dims.get(TIME, self._dims.get(TIME, total))
        if total % chunk:
            raise FeedError(f"{signature.name}: {total} time steps were pushed; push a multiple of {chunk}.")
        state, pieces = dict(self.state), []
        for start in range(0, total, chunk):
            outputs = self._run(signature.name, {**cut(feeds, signature.inputs, start, chunk), **state})
            state = {carry.input: outputs[carry.output].copy() for carry in signature.carries}
            pieces.append(outputs)
        self._state = state
        outputs = join(pieces, signature.outputs)
        for port in (port for port in signature.outputs if self._early.get(port.name)):
            assert port.time_axis is not None
            rows = outputs[port.name].shape[port.time_axis]
            early = min(self._early[port.name], rows)
            self._early[port.name] -= early
            outputs[port.name] = port.steps(outputs[port.name], early, rows - early)
        if self._quantized:
            return outputs
        return {port.name: port.real(outputs[port.name]) for port in signature.outputs}

    @property
    def _unit(self) -> int:
        """Time steps that the smallest call takes."""
        signatures = self._contract.signatures
        every = self._ports.every
        return every if "step" in signatures else self._dims.get(TIME, every)

    def _signature_for(self, total: int) -> Signature:
        """Return the signature that runs `total` steps in the fewest calls."""
        signatures = self._contract.signatures
        sequence, step = signatures.get("sequence"), signatures.get("step")
        fits = total % self._dims.get(TIME, total) == 0
        if sequence is None or (step is not None and (total == step.dims.get(TIME, 1) or not fits)):
            return step or self._ports
        return sequence

    def _named(self, x: Array | None, inputs: Feeds) -> dict[str, Array]:
        wanted = [port.name for port in self._ports.inputs if port.name not in self.state and port.name != LENGTHS]
        feeds = dict(inputs)
        if x is not None:
            if len(wanted) != 1:
                raise FeedError(f"The model has {len(wanted)} inputs: push them by name, {', '.join(wanted)}.")
            if wanted[0] in feeds:
                raise FeedError(f"Input {wanted[0]!r} was pushed twice: by position and by name.")
            feeds = {wanted[0]: x, **feeds}
        if missing := [name for name in wanted if name not in feeds]:
            raise FeedError(f"Input {missing[0]!r} is missing; push {', '.join(wanted)}.")
        if carried := [name for name in feeds if name in self.state]:
            raise FeedError(f"{carried[0]!r} is carried by the stream: set .state instead of pushing it.")
        ports = self._ports.ports
        given = {name: np.asarray(value) for name, value in feeds.items()}
        return {name: ports[name].stored(value) if name in ports else value for name, value in given.items()}


def cut(feeds: Feeds, ports: tuple[Port, ...], start: int, steps: int) -> dict[str, Array]:
    """Return the feeds of the time steps [start, start + steps): timed arrays sliced, lengths counted from start."""
    piece = {
        port.name: port.steps(feeds[port.name], start, steps) for port in ports if port.timed and port.name in feeds
    }
    if LENGTHS in feeds:
        piece[LENGTHS] = np.clip(feeds[LENGTHS] - start, 0, steps).astype(np.int32)
    return {**feeds, **piece}


def join(pieces: list[dict[str, Array]], ports: tuple[Port, ...]) -> dict[str, Array]:
    """Return the outputs of consecutive calls as one: timed outputs in a row, the last call's for the others."""
    return {port.name: port.in_a_row([piece[port.name] for piece in pieces]) for port in ports}
