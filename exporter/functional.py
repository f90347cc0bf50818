"""The plain-TensorFlow equivalent of a Keras LSTM layer, for use in any `tf.function`."""

from typing import Any

import tensorflow as tf

from signatures.errors import FeedError

from .lowerings.cell import lstm_step
from .lowerings.masking import silence_before_first

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
    kernel, recurrent_kernel = (tf.cast(w, inputs.dtype) for w in (kernel, recurrent_kernel))
    features, units = inputs.shape[-1], recurrent_kernel.shape[0]
    static = None if static_inputs is None else tf.cast(static_inputs, inputs.dtype)
    _check(inputs, kernel, recurrent_kernel, static)

    once = tf.zeros([4 * units], inputs.dtype) if bias is None else tf.cast(bias, inputs.dtype)
    if static is not None:
        once = (tf.matmul(static, kernel[features:]) + once)[:, None]
    z = tf.transpose(tf.matmul(inputs, kernel[:features]) + once, [1, 0, 2])
    batch, total = tf.shape(inputs)[0], tf.shape(inputs)[1]
    h, c = initial_state or [tf.zeros([batch, units], inputs.dtype)] * 2
    h, c = (tf.cast(state, inputs.dtype) for state in (h, c))
    mask = None if sequence_lengths is None else tf.sequence_mask(sequence_lengths, total)

    def step(t: Tensor, h: Tensor, c: Tensor, outputs: tf.TensorArray) -> tuple[Any, ...]:
        h, c = lstm_step(z[t], h, c, recurrent_kernel, None if mask is None else mask[:, t, None])
        return t + 1, h, c, outputs.write(t, h)

    outputs = tf.TensorArray(inputs.dtype, size=total, element_shape=[inputs.shape[0], units])
    invariant = (tf.TensorShape([]), *[tf.TensorShape([inputs.shape[0], units])] * 2, None)
    h.set_shape(invariant[1])
    c.set_shape(invariant[1])
    _, h, c, outputs = tf.while_loop(lambda t, *_: t < total, step, (tf.constant(0), h, c, outputs))
    sequences = tf.transpose(outputs.stack(), [1, 0, 2])
    sequences.set_shape([inputs.shape[0], inputs.shape[1], units])
    if mask is not None:
        sequences = silence_before_first(sequences, mask)
    output = sequences if return_sequences else sequences[:, -1]
    return (output, h, c) if return_state else output


def _check(inputs: Tensor, kernel: Tensor, recurrent_kernel: Tensor, static: Tensor | None) -> None:
    units, features = recurrent_kernel.shape[0], inputs.shape[-1]
    extra = 0 if static is None else static.shape[-1]
    if len(inputs.shape) != 3:
        raise FeedError(f"lstm: inputs have shape {inputs.shape}; they must be [batch, time, features].")
    if recurrent_kernel.shape[1] != 4 * units:
        raise FeedError(f"lstm: recurrent_kernel has shape {recurrent_kernel.shape}; it must be [units, 4 * units].")
    if tuple(kernel.shape) != (features + extra, 4 * units):
        wanted = [features + extra, 4 * units]
        raise FeedError(
            f"lstm: kernel has shape {kernel.shape}; {features} + {extra} features and {units} units take {wanted}."
        )
