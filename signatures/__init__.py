"""Run, stream and check what export-lstm wrote; needs NumPy and the artifact's own runtime, never TensorFlow by itself.

import signatures
stream = signatures.open("model.tflite").stream()
outputs = stream.push(frames)          # [1, T, F], any T; the state is carried
"""

from .contract import Contract
from .golden import Case, Run, Tolerance
from .parity import ParityReport, PortDiff, check
from .ports import Carry, Port, Signature
from .quality import PortQuality, Quality
from .runner import Runner
from .runtimes import open, read_contract
from .stream import Stream

__all__ = [
    "Carry",
    "Case",
    "Contract",
    "ParityReport",
    "Port",
    "PortDiff",
    "PortQuality",
    "Quality",
    "Run",
    "Runner",
    "Signature",
    "Stream",
    "Tolerance",
    "check",
    "open",
    "read_contract",
]
