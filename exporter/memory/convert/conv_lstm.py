"""`keras.layers.ConvLSTM1D`, `2D` and `3D` to a Recurrence: an LSTM whose products are convolutions.

The lowerings call the Keras cell, which is made of convolutions that every target has; the reference has its own.
"""

from dataclasses import replace
from typing import Any

from signatures.errors import UnsupportedModel

from ..recurrence import Convolution, Recurrence
from .options import called, input_shape, over_time, read


def convert(layer: Any, name: str) -> Recurrence:
    """Read a built ConvLSTM layer; see Converter."""
    cell = layer.cell
    if cell.data_format != "channels_last":
        raise UnsupportedModel(
            f"layer {layer.name!r} ({type(layer).__name__}): data_format={cell.data_format!r} is not supported.\n"
            "  Supported: 'channels_last'. Move the channels to the last axis."
        )
    shapes = layer.compute_output_shape(input_shape(layer))
    shape = tuple((shapes[0] if layer.return_state else shapes)[-cell.rank - 1 :])
    made = read(cell, name, "conv_lstm", {"h": shape, "c": shape})
    convolution = Convolution(tuple(cell.strides), tuple(cell.dilation_rate), cell.padding)
    return over_time(replace(made, convolution=convolution, cell=called(cell, [0, 0])), layer)
