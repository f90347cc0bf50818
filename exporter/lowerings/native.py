"""A placeholder that the ONNX target replaces by its own LSTM op.

TensorFlow has no op that stands for ONNX's LSTM with its per-sample lengths and final states, so the traced graph holds
one NumPy-function op per recurrence, and exporter/targets/onnx.py turns each into native nodes by its token. The graph
is for conversion only: run in TensorFlow, the placeholder raises.
"""

from typing import Any

import tensorflow as tf

Tensor = Any

PLACEHOLDER = "PyFuncStateless"
"""The TensorFlow op type of the placeholder."""


def placeholder(x: Tensor, h: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, bytes]:
    """Return sequences [B, T, U], h, c and the token by which the op is found in the converted graph."""

    def only_converts(*args: Any) -> Any:
        raise RuntimeError("This graph is traced for conversion to ONNX; it doesn't run in TensorFlow.")

    arguments = [x, h, c] if mask is None else [x, h, c, mask]
    sequences, final_h, final_c = tf.numpy_function(only_converts, arguments, [tf.float32] * 3, stateful=False)
    token = sequences.op.get_attr("token")
    shapes = [x.shape[0], x.shape[1], h.shape[1]], h.shape, c.shape
    shaped = (tf.ensure_shape(t, s) for t, s in zip((sequences, final_h, final_c), shapes, strict=True))
    return *shaped, token
