"""`keras.layers.ConvLSTM1D`, `2D` and `3D` to a Recurrence: an LSTM whose products are convolutions.

The lowerings call the Keras cell, which is made of convolutions that every target has; the reference has its own.
"""

from typing import Any

from signatures.errors import UnsupportedModel

from ..recurrence import Convolution, Recurrence
from .options import activation, array, bias, called, input_shape, over_time


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built ConvLSTM layer; see Converter."""
    cell = layer.cell
    if cell.data_format != "channels_last":
        raise UnsupportedModel(
            f"layer {layer.name!r} ({type(layer).__name__}): data_format={cell.data_format!r} is not supported.\n"
            "  Supported: 'channels_last'. Move the channels to the last axis."
        )
    kernel = array(cell.kernel, cell)
    shapes = layer.compute_output_shape(input_shape(layer))
    shape = tuple((shapes[0] if layer.return_state else shapes)[-cell.rank - 1 :])
    recurrence = Recurrence(
        name,
        "conv_lstm",
        {"h": shape, "c": shape},
        kernel=kernel,
        recurrent_kernel=array(cell.recurrent_kernel, cell),
        bias=bias(cell, kernel),
        activation=activation(cell, "activation"),
        recurrent_activation=activation(cell, "recurrent_activation"),
        convolution=Convolution(tuple(cell.strides), tuple(cell.dilation_rate), cell.padding),
        dtype=cell.compute_dtype,
        cell=called(cell, [0, 0]),
    )
    return over_time(recurrence, layer)
