"""The second witness: recurrences in float64 NumPy, written from the equations, no code shared with a lowering."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory.activations import ACTIVATIONS
from ..memory.recurrence import GATES, Convolution, Recurrence

Array = NDArray[Any]


def run(
    recurrence: Recurrence,
    x: Array,
    states: Sequence[Array],
    mask: Array | None = None,
    continues: bool = True,
    change: Callable[[Array], Array] = np.asarray,
) -> tuple[Array, list[Array]]:
    """Run a recurrence over a batch of sequences.

    A masked step changes no state and repeats the previous output (zeros with zero_masked).

    Args:
        recurrence: Which one.
        x: Inputs, [B, T, F] (conv_lstm: [B, T, spatial..., F]).
        states: Initial states, [B, ...] each.
        mask: Valid steps, [B, T] bool; None when all are.
        continues: What the output before the first valid step is: the state that is the output (the stream goes on)
            or, as in a Keras call with an initial_state of the model's own, zeros.
        change: What is done to every new state: nothing, or what shows how much rounding matters.

    Returns:
        Sequences [B, T, U] in the order the steps are run, and the final states; all float64.
    """
    recurrence = _in_float64(recurrence)
    x, states = np.asarray(x, np.float64), [np.asarray(state, np.float64) for state in states]
    mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    if recurrence.reverse:
        x, mask = x[:, ::-1], mask[:, ::-1]
    z = _from_inputs(recurrence, x)
    output = states[recurrence.output] if continues and recurrence.output is not None else None
    sequences = []
    for t in range(x.shape[1]):
        new_output, new_states = _advance(recurrence, z[:, t], states)
        valid = mask[:, t]
        states = [_where(valid, change(new), old) for new, old in zip(new_states, states, strict=True)]
        output = _where(valid, new_output, np.zeros_like(new_output) if output is None else output)
        sequences.append(_where(valid, output, np.zeros_like(output)) if recurrence.zero_masked else output)
    return np.stack(sequences, axis=1), states


def step(recurrence: Recurrence, x: Array, states: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Advance one time step: inputs [B, F], states [B, ...] -> output [B, U], new states."""
    return _advance(recurrence, _from_inputs(recurrence, x), states)


def _from_inputs(recurrence: Recurrence, x: Array) -> Array:
    """Return x @ W + b for any number of time steps at once; x itself for cells that are more than one product."""
    if recurrence.kind not in GATES:
        return x
    return np.asarray(x @ recurrence.kernel + (recurrence.bias[0] if recurrence.reset_after else recurrence.bias))


def _advance(recurrence: Recurrence, x: Array, states: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Advance one time step from what `_from_inputs` gave for it."""
    if recurrence.kind == "stack":
        new: list[Array] = []
        for cell in recurrence.cells:
            x, advanced = step(cell, x, states[len(new) : len(new) + len(cell.states)])
            new += advanced
        return x, new
    if recurrence.kind == "cell":
        return _called(recurrence, x, states)
    return CELLS[recurrence.kind](recurrence, x, *states)


def lstm(recurrence: Recurrence, z: Array, h: Array, c: Array) -> tuple[Array, list[Array]]:
    """Advance an LSTM cell; z is x @ W + b.

    i, f, o = gate(x @ W + h @ R + b),  g = act(x @ W + h @ R + b)      gate order i f g o
    c' = f * c + i * g
    h' = o * act(c')

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    act, gate, _, recurrent, _ = _parts(recurrence)
    a = z + h @ recurrent
    u = h.shape[-1]
    i, f, g, o = gate(a[:, :u]), gate(a[:, u : 2 * u]), act(a[:, 2 * u : 3 * u]), gate(a[:, 3 * u :])
    c = f * c + i * g
    h = o * act(c)
    return h, [h, c]


def gru(recurrence: Recurrence, z: Array, h: Array) -> tuple[Array, list[Array]]:
    """Advance a GRU cell; z is x @ W + b.

    z, r = gate(x @ W + h @ R + b)                                       gate order z r h
    n = act(x @ Wh + bh + r * (h @ Rh + ch))     with reset_after, else act(x @ Wh + bh + (r * h) @ Rh)
    h' = z * h + (1 - z) * n

    Source: Cho et al. 2014; reset_after: the form of cuDNN.
    """
    act, gate, _, recurrent, bias = _parts(recurrence)
    u = h.shape[-1]
    from_h = h @ recurrent[:, : 2 * u] + (bias[1, : 2 * u] if recurrence.reset_after else 0)
    update, r = gate(z[:, :u] + from_h[:, :u]), gate(z[:, u : 2 * u] + from_h[:, u:])
    if recurrence.reset_after:
        n = act(z[:, 2 * u :] + r * (h @ recurrent[:, 2 * u :] + bias[1, 2 * u :]))
    else:
        n = act(z[:, 2 * u :] + (r * h) @ recurrent[:, 2 * u :])
    h = update * h + (1 - update) * n
    return h, [h]


def simple_rnn(recurrence: Recurrence, z: Array, h: Array) -> tuple[Array, list[Array]]:
    """Advance an Elman cell: h' = act(x @ W + h @ R + b); z is x @ W + b."""
    act, _, _, recurrent, _ = _parts(recurrence)
    h = act(z + h @ recurrent)
    return h, [h]


def conv_lstm(recurrence: Recurrence, x: Array, h: Array, c: Array) -> tuple[Array, list[Array]]:
    """Advance a ConvLSTM cell: an LSTM whose products are convolutions, the recurrent one "same" and without stride.

    Source: Shi et al. 2015, without peepholes, as Keras.
    """
    act, gate, kernel, recurrent, bias = _parts(recurrence)
    given = recurrence.convolution
    assert given is not None, "a conv_lstm says how it is convolved"
    once = (1,) * len(given.strides)
    a = _convolve(x, kernel, given) + bias + _convolve(h, recurrent, Convolution(once, once, "same"))
    i, f, g, o = np.split(a, 4, axis=-1)
    c = gate(f) * c + gate(i) * act(g)
    h = gate(o) * act(c)
    return h, [h, c]


CELLS: dict[str, Callable[..., tuple[Array, list[Array]]]] = {
    "lstm": lstm,
    "conv_lstm": conv_lstm,
    "gru": gru,
    "simple_rnn": simple_rnn,
}


def _convolve(x: Array, kernel: Array, given: Convolution) -> Array:
    """Cross-correlate x [B, spatial..., C] with kernel [taps..., C, N], channels last."""
    axes = len(given.strides)
    sizes = kernel.shape[:axes]
    inside = padded(x, sizes, given.strides, given.dilation, given.padding)
    # [B, out..., C, taps...] times [taps..., C, N]
    taps = list(range(axes + 2, 2 * axes + 2))
    seen = windows(inside, sizes, given.strides, given.dilation)
    return np.tensordot(seen, kernel, axes=([*taps, axes + 1], [*range(axes), axes]))


def padded(
    x: Array, taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int], padding: str, outside: float = 0
) -> Array:
    """Return x [B, spatial..., C] with what is outside of it, where padding is "same": as many windows as strides."""
    pads = [(0, 0)] * x.ndim
    if padding == "same":
        for k, (size, count, stride, apart) in enumerate(zip(x.shape[1:], taps, strides, dilation, strict=False)):
            needed = max((-(-size // stride) - 1) * stride + (count - 1) * apart + 1 - size, 0)
            pads[k + 1] = (needed // 2, needed - needed // 2)
    return np.pad(x, pads, constant_values=outside)


def windows(x: Array, taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Array:
    """Return what each window sees of x [B, spatial..., C]: [B, out..., C, taps...]."""
    reach = [(count - 1) * apart + 1 for count, apart in zip(taps, dilation, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(1, len(reach) + 1)))
    picks: Any = (slice(None), *(slice(None, None, stride) for stride in strides))
    taken: Any = (..., *(slice(None, None, apart) for apart in dilation))
    return np.asarray(seen[picks][taken])


def _called(recurrence: Recurrence, x: Array, states: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Advance a cell of the user's own by calling it: its equations have no other source."""
    output, new = recurrence.cell(x.astype(recurrence.dtype), [state.astype(recurrence.dtype) for state in states])
    new = new if isinstance(new, (list, tuple)) else [new]
    return np.asarray(output, np.float64), [np.asarray(state, np.float64) for state in new]


def _parts(recurrence: Recurrence) -> Any:
    functions = (ACTIVATIONS[name].numpy for name in (recurrence.activation, recurrence.recurrent_activation))
    return *functions, recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias


def _in_float64(recurrence: Recurrence) -> Recurrence:
    kernel, recurrent, bias = (
        np.asarray(w, np.float64) for w in (recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)
    )
    cells = tuple(map(_in_float64, recurrence.cells))
    return replace(recurrence, kernel=kernel, recurrent_kernel=recurrent, bias=bias, cells=cells)


def _where(valid: Array, new: Array, old: Array) -> Array:
    return np.where(valid.reshape(-1, *[1] * (new.ndim - 1)), new, old)
