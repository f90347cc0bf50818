"""The plain-TensorFlow equivalent of a Keras LSTM layer, for use in any `tf.function`."""

from typing import Any

import tensorflow as tf

from signatures.errors import FeedError

from ..memory.masks import silence
from .cell import lstm_step, masked

Tensor = Any


def lstm(
    inputs: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None,
    *,
    initial_state: tuple[Tensor, Tensor] | None = None,
    sequence_lengths: Tensor | None = None,
    static_inputs: Tensor | None = None,
    return_sequences: bool = True,
    return_state: bool = True,
) -> Any:
    """Compute what `keras.layers.LSTM` computes, from its weights: `lstm(x, *layer.get_weights())`.

    ::

        i, f, g, o = split([x_t, static] @ kernel + h @ recurrent_kernel + bias)      gate order i f c o, as Keras
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    The inputs' product with the kernel is one matrix product for all time steps, the static inputs' one for the whole
    call. Differentiable; any float dtype; T and B may be unknown while tracing.

    Args:
        inputs: [B, T, F].
        kernel: Input weights, [F + S, 4U]; rows of the static inputs last.
        recurrent_kernel: [U, 4U].
        bias: [4U], or None for use_bias=False.
        initial_state: (h, c), [B, U] each; None means zeros.
        sequence_lengths: Valid time steps of each sample, [B] integers in 0..T; None means T. A sample's state stops
            at its length: its final h and c are those of its last valid step, the initial state for length 0. Later
            outputs repeat its last valid one (zeros for length 0), as Keras does with a mask.
        static_inputs: A vector joined to the features of every time step, [B, S]; None means there is none.
        return_sequences: Whether the first result is every step's output [B, T, U] or the last one [B, U].
        return_state: Whether to return the final h and c as well.

    Returns:
        (output, h [B, U], c [B, U]), or output alone without return_state.

    Raises:
        FeedError: When static shapes don't fit each other.

    Source: keras.layers.LSTM; Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    inputs = tf.convert_to_tensor(inputs)
    _check("inputs", inputs, "[batch, time, features]", [None, None, None])
    dtype, (samples, steps, features) = inputs.dtype, inputs.shape
    kernel, recurrent_kernel = (tf.cast(w, dtype) for w in (kernel, recurrent_kernel))
    units = recurrent_kernel.shape[0]
    _check("recurrent_kernel", recurrent_kernel, "[units, 4 * units]", [units, 4 * units])
    once = tf.zeros([4 * units], dtype) if bias is None else tf.cast(bias, dtype)
    _check("bias", once, "[4 * units]", [4 * units])
    batch, total = tf.shape(inputs)[0], tf.shape(inputs)[1]
    h, c = (tf.cast(s, dtype) for s in initial_state or [tf.zeros([batch, units], dtype)] * 2)
    _check("initial_state h", h, "[batch, units]", [samples, units])
    _check("initial_state c", c, "[batch, units]", [samples, units])
    joined = features
    if static_inputs is not None:
        static = tf.cast(static_inputs, dtype)
        _check("static_inputs", static, "[batch, static features]", [samples, None])
        joined += static.shape[1]
    _check("kernel", kernel, "[features + static features, 4 * units]", [joined, 4 * units])

    if static_inputs is not None:
        once = tf.expand_dims(tf.matmul(static, kernel[features:]) + once, 1)
    z = tf.transpose(tf.matmul(inputs, kernel[:features]) + once, [1, 0, 2])
    mask = None
    if sequence_lengths is not None:
        lengths = tf.convert_to_tensor(sequence_lengths)
        _check("sequence_lengths", lengths, "[batch]", [samples])
        mask = tf.sequence_mask(lengths, total)

    def step(t: Tensor, h: Tensor, c: Tensor, outputs: tf.TensorArray) -> tuple[Any, ...]:
        new = lstm_step(z[t], h, c, recurrent_kernel)
        h, c = masked(None if mask is None else mask[:, t, None], new, (h, c))
        return t + 1, h, c, outputs.write(t, h)

    outputs = tf.TensorArray(dtype, size=total, element_shape=[samples, units])
    for state in (h, c):
        state.set_shape([samples, units])  # zeros of an unknown batch don't know it
    _, h, c, outputs = tf.while_loop(lambda t, *_: t < total, step, (tf.constant(0), h, c, outputs))
    sequences = tf.transpose(outputs.stack(), [1, 0, 2])
    sequences.set_shape([samples, steps, units])
    if mask is not None:
        sequences = silence(sequences, tf.broadcast_to(mask[:, :1], tf.shape(mask)))  # zeros for length 0
    output = sequences if return_sequences else sequences[:, -1]
    return (output, h, c) if return_state else output


def _check(name: str, tensor: Tensor, axes: str, wanted: list[int | None]) -> None:
    """Refuse a tensor whose static shape doesn't fit; None fits any size."""
    found = tensor.shape.as_list()
    fits = len(found) == len(wanted) and all(
        None in pair or len(set(pair)) == 1 for pair in zip(found, wanted, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise FeedError(f"lstm: {name} has shape {found}; it must be {axes}, here [{sizes}].")
