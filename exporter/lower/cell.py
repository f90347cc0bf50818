"""One time step of each kind of recurrence in TensorFlow ops, and the weights it reads."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from ..memory.activations import in_tensorflow
from ..memory.masks import spread
from ..memory.recurrence import Recurrence

Tensor = Any
States = list[Tensor]
Function = Callable[[Tensor], Tensor]


def weights(recurrence: Recurrence) -> dict[str, NDArray[Any]]:
    """Return the arrays to store, by name, in Keras' shapes and gate order; none for cells that hold their own."""
    if recurrence.kind == "stack":
        return {f"{k}_{name}": w for k, cell in enumerate(recurrence.cells) for name, w in weights(cell).items()}
    if recurrence.cell is not None:
        return {}
    return {"kernel": recurrence.kernel, "recurrent_kernel": recurrence.recurrent_kernel, "bias": recurrence.bias}


def project(recurrence: Recurrence, x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Return the inputs' share of all gates, x @ kernel + bias [..., G U], for any number of steps at once.

    Cells without one product for the input (stack, conv_lstm, cell) get x itself.
    """
    if recurrence.kind == "stack" or recurrence.cell is not None:
        return x
    return tf.matmul(x, w["kernel"]) + (w["bias"][0] if recurrence.reset_after else w["bias"])


def step(recurrence: Recurrence, z: Tensor, states: States, w: dict[str, Tensor]) -> tuple[Tensor, States]:
    """Advance one time step.

    Args:
        recurrence: Which one.
        z: What `project` gave for this step, [B, G U].
        states: [B, U] each.
        w: What `weights` returned, as variables.

    Returns:
        The output [B, U] and the new states.
    """
    if recurrence.kind == "stack":
        new: States = []
        for k, cell in enumerate(recurrence.cells):
            own = {name.removeprefix(f"{k}_"): value for name, value in w.items() if name.startswith(f"{k}_")}
            before = states[len(new) : len(new) + len(cell.states)]
            z, after = step(cell, project(cell, z, own), before, own)
            new += after
        return z, new
    if recurrence.cell is not None:
        output, advanced = recurrence.cell(z, states)
        return output, advanced
    act, gate = in_tensorflow(recurrence.activation), in_tensorflow(recurrence.recurrent_activation)
    if recurrence.kind == "lstm":
        h, c = lstm_step(z, states[0], states[1], w["recurrent_kernel"], act, gate)
        return h, [h, c]
    if recurrence.kind == "gru":
        recurrent_bias = w["bias"][1] if recurrence.reset_after else None
        h = gru_step(z, states[0], w["recurrent_kernel"], recurrent_bias, act, gate)
    else:
        h = act(z + tf.matmul(states[0], w["recurrent_kernel"]))  # simple_rnn
    return h, [h]


def advance(
    recurrence: Recurrence, z: Tensor, states: States, output: Tensor, valid: Tensor | None, w: dict[str, Tensor]
) -> tuple[Tensor, States]:
    """Advance one time step where it is valid; elsewhere keep the states and the output.

    Args:
        recurrence: Which one.
        z: What `project` gave for this step.
        states: Before the step.
        output: Before the step; not read where the output is a state.
        valid: [B, 1] bool; None: everywhere.
        w: Weights.
    """
    new_output, new_states = step(recurrence, z, states, w)
    kept = masked(valid, new_states, states)
    if recurrence.output is not None:
        return kept[recurrence.output], kept
    return masked(valid, [new_output], [output])[0], kept


def first_output(recurrence: Recurrence, z: Tensor, states: States, w: dict[str, Tensor]) -> Tensor:
    """Return what a masked first step repeats: the state that is the output, else zeros of the output's shape."""
    if recurrence.output is not None:
        return states[recurrence.output]
    return tf.zeros_like(step(recurrence, z, states, w)[0])


def lstm_step(
    z: Tensor, h: Tensor, c: Tensor, recurrent_kernel: Tensor, act: Function = tf.tanh, gate: Function = tf.sigmoid
) -> tuple[Tensor, Tensor]:
    """Advance one LSTM cell by one time step.

    i, f, g, o = split(z + h @ recurrent_kernel)        i, f, o through gate, g through act; gate order i f g o
    c' = f * c + i * g
    h' = o * act(c')

    Args:
        z: The input's share, x @ kernel + bias, [B, 4U].
        h: Hidden state, [B, U].
        c: Cell state, [B, U].
        recurrent_kernel: [U, 4U].
        act: The function of the candidate and of c.
        gate: The function of the gates.

    Returns:
        (h', c'), both [B, U].

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    a = z + tf.matmul(h, recurrent_kernel)
    i, f, g, o = tf.split(a, 4, axis=-1)
    if gate is tf.sigmoid:  # one sigmoid over all four is quicker than three
        i, f, _, o = tf.split(gate(a), 4, axis=-1)
        g = a[:, 2 * recurrent_kernel.shape[0] : 3 * recurrent_kernel.shape[0]]
    else:
        i, f, o = gate(i), gate(f), gate(o)
    new_c = f * c + i * act(g)
    return o * act(new_c), new_c


def gru_step(
    z: Tensor, h: Tensor, recurrent_kernel: Tensor, recurrent_bias: Tensor | None, act: Function, gate: Function
) -> Tensor:
    """Advance one GRU cell by one time step.

    u, r = gate(split(z + h @ recurrent_kernel))                                gate order z r h
    n = act(zh + r * (h @ Rh + recurrent_bias_h))                               with reset_after
    n = act(zh + (r * h) @ Rh)                                                  without
    h' = u * h + (1 - u) * n

    Args:
        z: The input's share, x @ kernel + bias, [B, 3U].
        h: Hidden state, [B, U].
        recurrent_kernel: [U, 3U].
        recurrent_bias: [3U]: the reset gate acts after the recurrent product; None: before it.
        act: The function of the candidate.
        gate: The function of the gates.

    Returns:
        h', [B, U].

    Source: Cho et al. 2014; with recurrent_bias the form of cuDNN.
    """
    units = h.shape[-1]
    zu, zr, zh = tf.split(z, 3, axis=-1)
    if recurrent_bias is not None:
        hu, hr, hh = tf.split(tf.matmul(h, recurrent_kernel) + recurrent_bias, 3, axis=-1)
        u, r = gate(zu + hu), gate(zr + hr)
        n = act(zh + r * hh)
    else:
        hu, hr = tf.split(tf.matmul(h, recurrent_kernel[:, : 2 * units]), 2, axis=-1)
        u, r = gate(zu + hu), gate(zr + hr)
        n = act(zh + tf.matmul(r * h, recurrent_kernel[:, 2 * units :]))
    return u * h + (1 - u) * n


def masked(valid: Tensor | None, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    """Return the new tensors where a step is valid [B, 1] and the old ones elsewhere; None: valid everywhere."""
    if valid is None:
        return list(new)
    return [tf.where(spread(valid, after), after, before) for after, before in zip(new, old, strict=True)]


def time_major(x: Tensor) -> Tensor:
    """Swap the first two axes, [B, T, ...] <-> [T, B, ...]: for one sample a reshape."""
    if x.shape[0] == 1:
        return tf.reshape(x, [-1, 1, *x.shape[2:]])
    if x.shape[1] == 1:
        return tf.reshape(x, [1, -1, *x.shape[2:]])
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])
