"""The contract: what an artifact's callables take, give and carry, as JSON that any language can read.

Names of ports are made here and only here. The same contract is embedded in each artifact and written beside it.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from typing import Any, get_args

import numpy as np

from .errors import ArtifactError
from .golden import ROUNDINGS, noises
from .ports import FOLDED, TIME, Carry, Dim, Port, Role, Signature, factors
from .schemes import SCHEMES, Io, Quantized

SCHEMA = 2
MOST = 1 << 28
"""The largest size of an axis, and number of values of a sample's time step, that a contract may name."""
DTYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64"}
)
SIGNATURES = ("sequence", "step")
"""The callables that an artifact may have."""

EVERY = 10_000
"""Time steps of which a call takes a multiple, at most: a check runs some of them."""

LENGTHS = "lengths"


@dataclass(frozen=True)
class ArtifactInfo:
    """What differs between the artifacts of one export.

    Attributes:
        file: The artifact's file or folder name.
        dims: Dimensions fixed in this artifact, {"batch": 1}; what is not named here a call may choose.
        lowerings: Recurrent layer -> how it became ops of this target, one sentence.
        sha256: Of the artifact, in the contract beside it; None in the one embedded, which can't tell its own. Of a
            folder: that of the lines "<sha256>  <path>" of its files, sorted by path.
        tensors: Signature -> {"inputs": names in the order of the graph, "outputs": the same}, for runtimes that know
            no names; empty where the target has no order.
        signatures: Which of the signatures it has, where the target can't have all there are; else None: all.
    """

    file: str
    dims: Mapping[str, int] = field(default_factory=dict)
    lowerings: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None
    tensors: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    signatures: Sequence[str] | None = None


@dataclass(frozen=True)
class Proven:
    """How far the artifacts of a contract were tried.

    Attributes:
        time_steps: How many time steps back a layer's memory of inputs would have been seen, where there is a `step`:
            one call of all steps, single steps and pieces gave the same. 0 where there is none.
        atol: The absolute part of the tolerance that golden numbers were held to; None where nothing was checked.
        rtol: Its relative part.
        inputs: Golden run -> the kind of numbers it was fed with.
        noise: Output port -> its largest noise in these runs, see golden.Run.
    """

    time_steps: int = 0
    atol: float | None = None
    rtol: float | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contract:
    """All signatures of an export and what made it.

    Attributes:
        model: {"name", "sha256" of the model file or None for a model in memory, which has "weights" instead: their
            digest}.
        outputs: Port names of the model's own outputs, in the model's order.
        signatures: Signature name -> Signature.
        no_step: Why there is no `step` signature, None where there is one.
        example: Time dimension -> a number of steps that the model is known to run with.
        artifacts: Target -> ArtifactInfo; an embedded contract lists its own artifact only.
        provenance: Package -> version.
        scheme: What weights and states are computed in: the coarsest type of its layers, a name of golden.ROUNDINGS.
            Ports hold 16-bit floats as float32.
        proven: How far its artifacts were tried.
        quantized: How its artifacts are quantized; None where they compute as the model does.
    """

    model: Mapping[str, str | None]
    outputs: tuple[str, ...]
    signatures: Mapping[str, Signature]
    _: KW_ONLY
    no_step: str | None = None
    example: Mapping[str, int] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactInfo] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "float32"
    proven: Proven = Proven()
    quantized: Quantized | None = None

    def ordered(self, tensors: Mapping[str, Mapping[str, Sequence[str]]]) -> "Contract":
        """Return the contract of one artifact with the order of its tensors told; see ArtifactInfo."""
        return replace(self, artifacts={name: replace(info, tensors=tensors) for name, info in self.artifacts.items()})

    def to_json(self) -> str:
        """Return the contract as JSON text, two spaces of indentation, ending with a newline."""
        return json.dumps(self._data(), indent=2) + "\n"

    def embedded(self) -> str:
        """Return the same on one line, which takes half as many bytes inside of an artifact."""
        return json.dumps(self._data(), separators=(",", ":"))

    def _data(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, text: str | bytes) -> "Contract":
        """Read a contract.

        Raises:
            ArtifactError: When the text is not a contract of this schema.
        """
        try:
            data = _mapping(json.loads(text), str, object)
            schema = data.pop("schema")
            if schema != SCHEMA:
                raise ArtifactError(
                    f"The contract has schema {schema!r:.100}; this version of export-lstm reads {SCHEMA}. "
                    "Export the Keras model again."
                )
            data["model"] = _mapping(data["model"], str, (str, type(None)))
            data["outputs"] = tuple(_checked(name, str) for name in _checked(data["outputs"], list))
            data["example"] = _sizes(data["example"])
            data["provenance"] = _mapping(data["provenance"], str, str)
            data["no_step"] = _checked(data["no_step"], (str, type(None)))
            data["signatures"] = {
                name: _signature(name, value) for name, value in _mapping(data["signatures"], str, dict).items()
            }
            data["artifacts"] = {
                target: _artifact(value) for target, value in _mapping(data["artifacts"], str, dict).items()
            }
            if data["scheme"] not in ROUNDINGS:
                raise ValueError(f"scheme {data['scheme']!r:.100}")
            data["proven"] = _proven(_mapping(data["proven"], str, object))
            data["quantized"] = None if data.get("quantized") is None else _quantized(data["quantized"])
            if not data["signatures"]:
                raise ArtifactError("The contract has no signature. Export the Keras model again.")
            made = cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ArithmeticError) as error:
            raise ArtifactError(f"The text is not an export-lstm contract ({type(error).__name__}: {error}).") from None
        first = next(iter(made.signatures.values()))
        if made.no_step is None and not any(port.timed for port in first.inputs):
            raise ArtifactError("The contract says that it can be streamed, but none of its inputs counts time steps.")
        for signature in made.signatures.values():
            _check_ports(made, signature)
            if signature.every != first.every or signature.dims.get(TIME, first.every) % first.every:
                raise ArtifactError(f"The contract's signature {signature.name!r} takes no multiple of {first.every}.")
            if _names(signature) != _names(first):
                raise ArtifactError(f"The contract's signatures {first.name!r} and {signature.name!r} differ in ports.")
        return made


def _checked(value: Any, kind: Any) -> Any:
    """Return a value that is of a kind."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.100} where {getattr(kind, '__name__', 'something else')} is expected")
    return value


def _mapping(value: Any, key: Any, inner: Any) -> dict[Any, Any]:
    """Return a dict whose keys and values are of a kind."""
    return {_checked(k, key): _checked(v, inner) for k, v in _checked(value, dict).items()}


def _artifact(data: dict[str, Any]) -> ArtifactInfo:
    made = ArtifactInfo(**data)
    _checked(made.file, str)
    _sizes(made.dims)
    _mapping(made.lowerings, str, str)
    _checked(made.sha256, (str, type(None)))
    for sides in _mapping(made.tensors, str, dict).values():
        for names in _mapping(sides, str, list).values():
            for each in names:
                _checked(each, str)
    if made.signatures is None:
        return made
    return replace(made, signatures=tuple(_checked(name, str) for name in _checked(made.signatures, list)))


def _proven(data: dict[str, Any]) -> Proven:
    made = Proven(**data)
    _checked(made.time_steps, int)
    for part in (made.atol, made.rtol):
        _checked(part, (float, int, type(None)))
    return replace(made, inputs=_mapping(made.inputs, str, str), noise=noises(made.noise))


def _quantized(data: dict[str, Any]) -> Quantized:
    made = Quantized(**_checked(data, dict))
    _checked(made.calibration, str)
    if made.scheme not in SCHEMES or type(made.precise) is not bool or made.io not in get_args(Io):
        raise ValueError(f"quantized {made.scheme!r:.100}")
    gate = float(_checked(made.gate, (float, int)))
    if not math.isfinite(gate):
        raise ValueError(f"a gate of {gate} dB")
    return replace(made, gate=gate)


def _signature(name: str, data: dict[str, Any]) -> Signature:
    inputs, outputs = (tuple(_port(port) for port in _checked(data[side], list)) for side in ("inputs", "outputs"))
    carries = tuple(
        Carry(_checked(carry["output"], str), _checked(carry["input"], str))
        for carry in _checked(data["carries"], list)
    )
    if data["name"] != name:
        raise ValueError(f"signature {name!r} has the name {data['name']!r:.100}")
    delay, ahead = (_rows(data[key], key, outputs) for key in ("delay", "ahead"))
    return Signature(name, inputs, outputs, carries, _sizes(data["dims"]), _size(data["every"], EVERY), delay, ahead)


def _rows(data: Any, key: str, outputs: tuple[Port, ...]) -> dict[str, int]:
    """Return output over time -> rows, as few as an axis can have."""
    timed, rows = {port.name for port in outputs if port.timed}, _mapping(data, str, int)
    if wrong := [f"{name!r:.100} by {n}" for name, n in rows.items() if name not in timed or not 0 <= n <= MOST]:
        raise ValueError(f"{key} of {wrong[0]}")
    return rows


def _port(data: dict[str, Any]) -> Port:
    name, role, dtype = (_checked(data[key], str) for key in ("name", "role", "dtype"))
    shape = tuple(_dim(dim) for dim in _checked(data["shape"], list))
    below = None if data["below"] is None else _size(data["below"])
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or role not in get_args(Role) or dtype not in DTYPES:
        raise ValueError(f"port {name!r:.100} of role {role!r:.100} and type {dtype!r:.100}")
    if math.prod(dim for dim in shape if isinstance(dim, int)) > MOST:
        raise ValueError(f"port {name!r} of shape {data['shape']!r:.100}")
    axis = data["time_axis"]
    if axis is not None and not (type(axis) is int and 1 <= axis < len(shape) and isinstance(shape[axis], str)):
        raise ValueError(f"port {name!r} with time axis {axis!r:.100}")
    initial = float(_checked(data["initial"], (float, int)))
    scale, zero_point = (
        _checked(data["scale"], (float, int, type(None))),
        _checked(data["zero_point"], (int, type(None))),
    )
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"port {name!r} of scale {scale!r}")
    start = initial if scale is None else round(initial / scale) + (zero_point or 0)
    kind = np.dtype(dtype).kind
    most = float(np.finfo(dtype).max) if kind == "f" else np.iinfo(dtype).max if kind in "iu" else 1
    least = np.iinfo(dtype).min if kind in "iu" else -most
    if not least <= start <= most:
        raise ValueError(f"port {name!r} of type {dtype} starts from {start!r}")
    return Port(name, role, shape, dtype, below, axis, initial, scale, zero_point)


def _dim(value: Any) -> Dim:
    """Return a size, or the name of a dimension."""
    if isinstance(value, str) and not (FOLDED.fullmatch(value) and len(value) <= 100):
        raise ValueError(f"dimension {value!r:.100}")
    return value if isinstance(value, str) else _size(value)


def _size(value: Any, most: int = MOST) -> int:
    """Return a number that an axis can have."""
    size: int = _checked(value, int)
    if not 1 <= size <= most:
        raise ValueError(f"size {size}")
    return size


def _sizes(data: Any) -> dict[str, int]:
    """Return dimension -> size, both of the right kind."""
    return {str(_dim(dim)): _size(size) for dim, size in _mapping(data, str, int).items()}


def _names(signature: Signature) -> tuple[set[str], ...]:
    ports = (signature.inputs, signature.outputs)
    return *({port.name for port in each} for each in ports), {f"{c.output} {c.input}" for c in signature.carries}


def _check_ports(contract: Contract, signature: Signature) -> None:
    """Refuse a signature that can't be called as its contract says."""
    inputs, outputs = ({port.name: port for port in ports} for ports in (signature.inputs, signature.outputs))
    if len(inputs) < len(signature.inputs) or len(outputs) < len(signature.outputs) or not inputs or not outputs:
        raise ArtifactError(f"The contract's signature {signature.name!r} has no ports, or two of one name.")
    if odd := [port.name for port in signature.ports.values() if factors((*port.shape, 1)[0])[0] != "batch"]:
        raise ArtifactError(f"The first axis of port {odd[0]!r} in the contract isn't the batch.")
    if any(carry.output not in outputs or carry.input not in inputs for carry in signature.carries):
        raise ArtifactError(f"The contract's signature {signature.name!r} carries a port that it doesn't have.")
    if lost := [name for name in contract.outputs if name not in outputs]:
        raise ArtifactError(f"The contract's signature {signature.name!r} has no port for the output {lost[0]!r:.100}.")


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
    return going_in(state_output(layer, state))


def going_in(output: str) -> str:
    """Return the port that takes what another one gave after the last call: `<output>_in`."""
    return f"{output}_in"


def sequences_output(layer: str) -> str:
    """Return the port that gives every time step's h: `<layer>_sequences` [B, T, U]."""
    return f"{layer}_sequences"
