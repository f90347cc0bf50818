"""The C++ of a folder: the model as an array, what its tensors are, the ops to register, a program with the loop."""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from signatures.contract import Contract
from signatures.ports import Port, Signature

from ..c import names as c

SPECIAL = {"BATCH_MATMUL": "BatchMatMul", "CUMSUM": "CumSum", "PADV2": "PadV2"}
"""Ops whose method of a resolver isn't called as its name's words are."""

KEYWORDS = c.KEYWORDS | {"co_await", "co_return", "co_yield", "consteval", "constinit", "main", "std", "tflite"}
"""What a name in C++ can't be: more of newer C++, and the namespace that a source uses."""

GLOBAL = frozenset(
    """abs accept atof atoi bind clock close connect cos div dup exit exp fork free gamma getc index j0 j1 jn kill link
    listen log main malloc open pause pipe poll pow printf putc puts qsort raise rand random read recv remove rename
    round select send shutdown sign signal sin sleep socket sqrt stat strlen sync system tan time truncate unlink wait
    write y0 y1 yn""".split()  # noqa: SIM905
)
"""Functions of C and POSIX that headers have outside of any namespace, so that none can be called as they are."""

OWN = ("kArenaBytes", "kModel", "kModelBytes", "kOps")
"""Constants that every header has."""

TYPES = {
    "float32": "float",
    "bool": "bool",
    **{name: f"{name}_t" for name in ("int8", "int16", "int32", "int64", "uint8", "uint32")},
}
"""Type of a port -> that of C++."""

A_LINE = 20
"""Bytes of the model in a line of its array."""


@dataclass(frozen=True)
class Model:
    """What the texts tell of.

    Attributes:
        name: Of the namespace and the files.
        contract: Of the artifact.
        content: Its TFLite file.
        ops: The ops it has, by TFLite's names, each once.
        arena: Bytes that it needs.
        measured: What the arena was measured with, in words.
    """

    name: str
    contract: Contract
    content: bytes
    ops: tuple[str, ...]
    arena: int
    measured: str

    @property
    def step(self) -> Signature:
        """Its signature."""
        return self.contract.signatures["step"]

    @property
    def order(self) -> Mapping[str, list[str]]:
        """The names of its inputs and outputs in the order of the graph."""
        [info] = self.contract.artifacts.values()
        return {side: list(names) for side, names in info.tensors["step"].items()}

    def size(self, port: Port) -> int:
        """Return how many numbers a port holds."""
        [info] = self.contract.artifacts.values()
        return math.prod(int(size) for size in port.sized({**info.dims, **self.step.dims}))


def called(name: str) -> str:
    """Return a name that C++ takes: of letters, digits and _ already, but maybe one of its own."""
    return f"{name}_" if name in KEYWORDS else name


def namespace(stem: str) -> str:
    """Return the name of a model in C++, of its file's."""
    clean = re.sub(r"\W", "_", stem, flags=re.ASCII).lower()
    named = clean if clean[:1].isalpha() else f"model_{clean}".rstrip("_")
    return f"{named}_model" if named in GLOBAL else called(named)


def method(op: str) -> str:
    """Return the method of a resolver that registers an op: "FULLY_CONNECTED" -> "AddFullyConnected"."""
    words = [re.sub(r"\d[a-z]", lambda found: found[0].upper(), word.capitalize()) for word in op.split("_")]
    return f"Add{SPECIAL.get(op) or ''.join(words)}"


def array(model: Model) -> str:
    """Return the source of the model as an array."""
    rows = (model.content[k : k + A_LINE] for k in range(0, len(model.content), A_LINE))
    lines = ",\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    return f"""// export-lstm.tflite as an array, where the interpreter reads it. Written by export-lstm.
#include "{model.name}.h"

namespace {model.name} {{

alignas(16) const unsigned char kModel[] = {{
{lines}}};
const std::size_t kModelBytes = sizeof(kModel);

}}  // namespace {model.name}
"""


def header(model: Model) -> str:
    """Return the header: sizes, scales, the state and a step."""
    step, name = model.step, model.name
    states = {carry.input: carry.output for carry in step.carries}
    ports = step.ports
    members = {
        "Inputs": [ports[each] for each in model.order["inputs"] if each not in states],
        "State": [ports[each] for each in model.order["inputs"] if each in states],
        "Outputs": [ports[each] for each in model.order["outputs"] if each not in states.values()],
    }
    structs = "\n\n".join(_struct(model, kind, each) for kind, each in members.items() if each)
    starts = "\n".join(f"  {_start(model, port)}" for port in members["State"])
    order, feeds = model.order, "Inputs" if members["Inputs"] else ""
    given = [("state", each) if each in states else ("inputs", each) for each in order["inputs"]]
    back = {output: each for each, output in states.items()}
    taken = [("state", back[each], each) if each in back else ("outputs", each, each) for each in order["outputs"]]
    assert feeds, "a step takes something"
    return f"""// A step of the model {model.contract.model["name"]!r} for TensorFlow Lite for Microcontrollers.
// Written by export-lstm.
//
//   {name}::State state;
//   {name}::Reset(state);                                 // a stream starts
//   {name}::Step(interpreter, inputs, state, outputs);    // {step.every} time step(s); the state is carried on
//
// main.cc is a whole program. Integers stand for (n - zero point) * scale, see Tensor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "tensorflow/lite/micro/micro_interpreter.h"

namespace {name} {{

alignas(16) extern const unsigned char kModel[];
extern const std::size_t kModelBytes;

// What the interpreter's arena needs: measured with {model.measured}.
constexpr std::size_t kArenaBytes = {model.arena};

// A tensor's place among the interpreter's inputs or outputs, how many numbers it holds, and what they stand for;
// scale 0: what they are.
struct Tensor {{
  int index;
  int size;
  float scale;
  int zero_point;
}};

{_tensors(model, "inputs")}

{_tensors(model, "outputs")}

{structs}

// Set a state to the start of a stream.
inline void Reset(State& state) {{
{starts}
}}

// Run {step.every} time step(s). The interpreter may use the memory of its inputs for anything while it runs, so that
// all of them are set before each call, and the state lies here.
inline TfLiteStatus Step(tflite::MicroInterpreter& interpreter, const Inputs& inputs, State& state, Outputs& outputs) {{
{_copies([(f"interpreter.input({k})->data.data", f"{where}.{called(each)}") for k, (where, each) in enumerate(given)])}
  const TfLiteStatus status = interpreter.Invoke();
  if (status != kTfLiteOk) return status;
{_copies([(f"{w}.{called(to)}", f"interpreter.output({k})->data.data") for k, (w, to, _) in enumerate(taken)])}
  return kTfLiteOk;
}}

// Register the ops that the model has, in a tflite::MicroMutableOpResolver<{name}::kOps>.
constexpr unsigned int kOps = {len(model.ops)};

template <class Resolver>
TfLiteStatus AddOps(Resolver& resolver) {{
{chr(10).join(f"  if (resolver.{method(op)}() != kTfLiteOk) return kTfLiteError;" for op in model.ops)}
  return kTfLiteOk;
}}

}}  // namespace {name}
"""


def _tensors(model: Model, side: str) -> str:
    lines = []
    for k, name in enumerate(model.order[side]):
        port = model.step.ports[name]
        scale = f"{port.scale!r}f" if port.scale else "0.0f"
        told = f"{k}, {model.size(port)}, {scale}, {port.zero_point or 0}"
        lines.append(f"constexpr Tensor {_constants(model)[name]}{{{told}}};")
    return "\n".join(lines)


def _constants(model: Model) -> dict[str, str]:
    """Return port -> what its constant is called: "lstm_h" is kLstmH, each name once and none of the header's own."""
    taken, names = {*OWN}, {}
    for port in (name for side in ("inputs", "outputs") for name in model.order[side]):
        wish = "k" + "".join(part.capitalize() for part in port.split("_"))
        wishes = itertools.chain([wish], (f"{wish}_{k}" for k in itertools.count(2)))
        names[port] = next(each for each in wishes if each not in taken)
        taken.add(names[port])
    return names


def _struct(model: Model, kind: str, ports: list[Port]) -> str:
    lines = "\n".join(f"  {TYPES[port.dtype]} {called(port.name)}[{model.size(port)}];" for port in ports)
    return f"struct {kind} {{\n{lines}\n}};"


def _start(model: Model, port: Port) -> str:
    value = port.at_start({"batch": 1}).ravel()[0]
    number = f"{float(value)!r}f" if port.dtype == "float32" else str(int(value))
    member = f"state.{called(port.name)}"
    return f"std::fill(std::begin({member}), std::end({member}), {TYPES[port.dtype]}({number}));"


def _copies(pairs: list[tuple[str, str]]) -> str:
    """Return a copy for each (to, from), as long as the one of both that is an array."""
    sizes = ((to if from_.startswith("interpreter") else from_) for to, from_ in pairs)
    return "\n".join(
        f"  std::memcpy({to}, {from_}, sizeof {size});" for (to, from_), size in zip(pairs, sizes, strict=True)
    )


def program(model: Model) -> str:
    """Return a program that runs a stream through the model."""
    name = model.name
    return f"""// A stream through {name}: replace Read and Use by what your board does. Written by export-lstm.
#include <cstdio>

#include "{name}.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {{

alignas(16) uint8_t arena[{name}::kArenaBytes];
{name}::Inputs inputs;
{name}::State state;
{name}::Outputs outputs;
int left = 10;

// Fill `inputs` with what came since the last call; false at the end of the stream.
bool Read() {{ return left-- > 0; }}

// Do something with `outputs`.
void Use() {{ std::printf("%g\\n", static_cast<double>(*outputs.{called(_first(model))})); }}

}}  // namespace

int main() {{
  static tflite::MicroMutableOpResolver<{name}::kOps> resolver;
  if ({name}::AddOps(resolver) != kTfLiteOk) return 1;
  static tflite::MicroInterpreter interpreter(tflite::GetModel({name}::kModel), resolver, arena, sizeof arena);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  {name}::Reset(state);
  while (Read()) {{
    if ({name}::Step(interpreter, inputs, state, outputs) != kTfLiteOk) return 1;
    Use();
  }}
  return 0;
}}
"""


def _first(model: Model) -> str:
    """Return an output that isn't carried: there is one, h of every time step at least."""
    carried = {carry.output for carry in model.step.carries}
    named = [each for each in model.contract.outputs if each not in carried]
    return next(iter([*named, *(each for each in model.order["outputs"] if each not in carried)]))
