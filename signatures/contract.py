"""The contract: what an artifact's callables take, give and carry, as JSON that any language can read.

Names of ports are made here and only here. The same contract is embedded in each artifact and written beside it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .errors import ArtifactError
from .golden import ROUNDINGS, noises
from .ports import Carry, Port, Signature

SCHEMA = 1
LENGTHS = "lengths"


@dataclass(frozen=True)
class ArtifactInfo:
    """What differs between the artifacts of one export.

    Attributes:
        file: The artifact's file or folder name.
        dims: Dimensions fixed in this artifact, {"batch": 1}; what is not named here a call may choose.
        lowerings: Recurrent layer -> how it became ops of this target, one sentence.
    """

    file: str
    dims: Mapping[str, int] = field(default_factory=dict)
    lowerings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contract:
    """All signatures of an export and what made it.

    Attributes:
        model: {"name", "sha256" of the model file or None for a model in memory}.
        outputs: Port names of the model's own outputs, in the model's order.
        signatures: Signature name -> Signature.
        step: Why there is no `step` signature, None where there is one.
        example: Time dimension -> a number of steps that the model is known to run with.
        artifacts: Target -> ArtifactInfo; an embedded contract lists its own artifact only.
        provenance: Package -> version.
        dtype: The coarsest type its layers compute in, a name of golden.ROUNDINGS; ports hold 16-bit floats as float32.
        noise: Output port -> its largest noise in the golden runs the artifacts were held to, see golden.Run.
        inputs: Golden run -> the kind of numbers it was fed with; empty for an artifact that was not checked.
    """

    model: Mapping[str, str | None]
    outputs: tuple[str, ...]
    signatures: Mapping[str, Signature]
    step: str | None = None
    example: Mapping[str, int] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactInfo] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    noise: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the contract as JSON text, two spaces of indentation, ending with a newline."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Contract":
        """Read a contract.

        Raises:
            ArtifactError: When the text is not a contract of this schema.
        """
        try:
            data = json.loads(text)
            schema = data.pop("schema")
            if schema != SCHEMA:
                raise ArtifactError(f"The contract has schema {schema}; this version of export-lstm reads {SCHEMA}.")
            data["outputs"] = tuple(map(str, data["outputs"]))
            data["example"] = {str(dim): int(size) for dim, size in data["example"].items()}
            data["signatures"] = {name: _signature(value) for name, value in data["signatures"].items()}
            data["artifacts"] = {
                target: ArtifactInfo(**{**value, "dims": _sizes(value["dims"])})
                for target, value in data["artifacts"].items()
            }
            if data.setdefault("dtype", "float32") not in ROUNDINGS:
                raise ValueError(f"dtype {data['dtype']!r}")
            data["noise"] = noises(data.get("noise", {}))
            data["inputs"] = {str(run): str(kind) for run, kind in data.get("inputs", {}).items()}
            if not data["signatures"]:
                raise ArtifactError("The contract has no signature. Export the Keras model again.")
            for signature in data["signatures"].values():
                names = {port.name for port in signature.outputs}, {port.name for port in signature.inputs}
                if any(carry.output not in names[0] or carry.input not in names[1] for carry in signature.carries):
                    raise ArtifactError(
                        f"The contract's signature {signature.name!r} carries a port that it doesn't have."
                    )
            return cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"The text is not an export-lstm contract ({type(error).__name__}: {error}).") from None


def _signature(data: dict[str, Any]) -> Signature:
    inputs, outputs = (tuple(_port(port) for port in data[side]) for side in ("inputs", "outputs"))
    carries = tuple(Carry(str(carry["output"]), str(carry["input"])) for carry in data["carries"])
    return Signature(str(data["name"]), inputs, outputs, carries, _sizes(data["dims"]))


def _port(data: dict[str, Any]) -> Port:
    shape = tuple(dim if isinstance(dim, str) else int(dim) for dim in data["shape"])
    below = data["below"] if data["below"] is None else int(data["below"])
    if not isinstance(data["shape"], list) or any(isinstance(dim, int) and dim < 1 for dim in shape):
        raise ValueError(f"shape {data['shape']!r}")
    return Port(str(data["name"]), data["role"], shape, np.dtype(data["dtype"]).name, below)


def _sizes(data: dict[str, Any]) -> dict[str, int]:
    """Return dimension -> size, both of the right kind."""
    sizes = {str(dim): int(size) for dim, size in dict(data).items()}
    if any(size < 1 for size in sizes.values()):
        raise ValueError(f"dimensions {data!r}")
    return sizes


def identifier(name: str) -> str:
    """Return a name that every target takes: characters outside [A-Za-z0-9_] become _, and it begins with a letter."""
    clean = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return clean if clean[:1].isalpha() else f"x{clean}"


def unique(name: str, taken: Iterable[str]) -> str:
    """Return name, or name_1, name_2, ...: the first that is not taken, in upper or lower case."""
    used = {other.lower() for other in taken}
    candidates = (name, *(f"{name}_{k}" for k in range(1, len(used) + 1)))
    return next(candidate for candidate in candidates if candidate.lower() not in used)


def state_output(layer: str, state: str) -> str:
    """Return the port that gives a final state: `<layer>_h`, `<layer>_c`."""
    return f"{layer}_{state}"


def state_input(layer: str, state: str) -> str:
    """Return the port that takes an initial state: `<layer>_h_in`, `<layer>_c_in`."""
    return f"{layer}_{state}_in"


def sequences_output(layer: str) -> str:
    """Return the port that gives every time step's h: `<layer>_sequences` [B, T, U]."""
    return f"{layer}_sequences"
