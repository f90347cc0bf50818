"""How artifacts are quantized, as data, and how many decibels an artifact must reach."""

from dataclasses import dataclass
from typing import Literal

Io = Literal["float", "quantized"]


@dataclass(frozen=True)
class Scheme:
    """A way to quantize.

    Attributes:
        name: What is asked for.
        gate: Signal-to-noise ratio in dB below which no artifact is delivered, unless another one is asked for: what
            trained models pass by 10 dB and more, and what a wrong scale or a lost bias doesn't.
    """

    name: str
    gate: float


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("float16", 50.0),  # weights in half the bytes, computed with as float32
        Scheme("dynamic", 30.0),  # weights int8, inputs of products quantized as they come
        Scheme("int8", 20.0),  # weights int8; to tflite and tflm states and all between them are integers, too
        Scheme("int16x8", 30.0),  # weights int8, states and all between them int16
    )
}
"""All there are."""


@dataclass(frozen=True)
class Quantized:
    """How an artifact was quantized and how good it must be.

    Attributes:
        scheme: A name of SCHEMES.
        gate: The least signal-to-noise ratio of any port, dB.
        calibration: What ranges and roundings come from, in words.
        precise: Whether weights are stored more closely than the scheme has them.
        io: Where states are integers, whether the other ports are, too, "quantized", or "float".
    """

    scheme: str
    gate: float
    calibration: str
    precise: bool = False
    io: Io = "quantized"
