"""A placeholder that the ONNX target replaces by its own LSTM, GRU or RNN op.

TensorFlow has no op that stands for ONNX's recurrent ops with their per-sample lengths and final states, so the traced
graph holds one NumPy-function op per recurrence, and exporter/targets/onnx/write.py turns each into native nodes by its
token. The graph is for conversion only: run in TensorFlow, the placeholder raises.
"""

from typing import Any

import tensorflow as tf

Tensor = Any

PLACEHOLDER = "PyFuncStateless"
"""The TensorFlow op type of the placeholder."""


def placeholder(x: Tensor, states: list[Tensor], mask: Tensor | None) -> tuple[Tensor, list[Tensor], bytes]:
    """Return sequences [B, T, U], final states and the token by which the op is found in the converted graph."""

    def only_converts(*args: Any) -> Any:
        raise RuntimeError("This graph is traced for conversion to ONNX; it doesn't run in TensorFlow.")

    arguments = [x, *states] if mask is None else [x, *states, tf.cast(mask, tf.bool)]
    results = tf.numpy_function(only_converts, arguments, [x.dtype] * (1 + len(states)), stateful=False)
    shapes = [[x.shape[0], x.shape[1], states[0].shape[1]], *(state.shape for state in states)]
    sequences, *finals = (tf.ensure_shape(t, shape) for t, shape in zip(results, shapes, strict=True))
    return sequences, finals, results[0].op.get_attr("token")
