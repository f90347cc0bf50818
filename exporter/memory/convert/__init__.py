"""Keras layers to recurrences: one converter per layer class, found in a literal table.

A converter reads a layer's weights and options into a Recurrence and refuses, by layer and option, what it has no
right form for. To add a layer write its module here and its line below.
"""

from typing import Any, Protocol

from signatures.errors import UnsupportedModel

from ..recurrence import Recurrence
from . import conv_lstm, rnn
from .options import class_name


class Converter(Protocol):
    """Turn one built layer into plain data."""

    def __call__(self, layer: Any, name: str) -> Recurrence:
        """Convert a layer.

        Args:
            layer: A built Keras layer of exactly the class the table names.
            name: Port prefix for it.

        Raises:
            UnsupportedModel: Naming the layer, the option and what is accepted.
        """


CONVERTERS: dict[str, Converter] = {
    "keras.layers.ConvLSTM1D": conv_lstm.convert,
    "keras.layers.ConvLSTM2D": conv_lstm.convert,
    "keras.layers.ConvLSTM3D": conv_lstm.convert,
    "keras.layers.GRU": rnn.convert,
    "keras.layers.LSTM": rnn.convert,
    "keras.layers.RNN": rnn.convert,
    "keras.layers.SimpleRNN": rnn.convert,
}


def convert(layer: Any, name: str) -> Recurrence:
    """Return the recurrence of a Keras recurrent layer.

    Raises:
        UnsupportedModel: When its class is not in CONVERTERS, or its converter refuses an option.
    """
    converter = CONVERTERS.get(class_name(layer))
    if converter is None:
        accepted = ", ".join(sorted(CONVERTERS))
        raise UnsupportedModel(
            f"layer {layer.name!r} ({type(layer).__name__}): this recurrent layer is not supported.\n"
            f"  Supported: {accepted} (exactly these classes, not subclasses).\n"
            "  Replace the layer by one of these; its weights can be copied with set_weights where the equations agree."
        )
    return converter(layer, name)
