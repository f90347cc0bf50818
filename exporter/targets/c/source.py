"""The files: a header that says in words how it is used, and a source of constants, functions and one step."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from signatures.contract import Contract
from signatures.ports import Array, Signature, show

from .names import KERNELS
from .pointwise import C_TYPES, literal
from .program import Member, Program, scratch_name
from .text import Lines, indented

MATHS = ("atan2f", "ceilf", "cosf", "floorf", "fmodf", "powf", "rintf", "sinf", "sqrtf")
"""Functions of the C library's mathematics that a source may call; all else it computes itself."""

VECTORS = """\
#if defined(__GNUC__) && !defined(__clang__) /* as clang does by itself; no infinity or NaN is another */
#pragma GCC optimize("no-trapping-math", "fp-contract=fast")
#endif
"""
"""Without the first GCC doesn't vectorise what chooses; by the second a product and a sum are one instruction."""


@dataclass(frozen=True)
class Model:
    """What the files are made of.

    Attributes:
        name: Of the files and functions.
        contract: What is promised.
        signature: Of the step, with its dimensions.
        dims: Those that are fixed in this artifact.
        program: The step.
    """

    name: str
    contract: Contract
    signature: Signature
    dims: Mapping[str, int]
    program: Program

    def shape(self, port: str) -> tuple[int, ...]:
        """Return the sizes of a port."""
        sizes = {**self.dims, **self.signature.dims}
        return tuple(int(size) for size in self.signature.ports[port].sized(sizes))

    def size(self, port: str) -> int:
        """Return how many numbers a port holds."""
        return int(np.prod(self.shape(port)))

    def c_type(self, port: str) -> str:
        """Return the type of a port's numbers."""
        return C_TYPES[self.signature.ports[port].dtype]

    @property
    def inputs(self) -> list[str]:
        """The ports that are handed in."""
        return [port.name for port in self.signature.inputs if port.name in self.program.arguments]

    @property
    def outputs(self) -> list[str]:
        """The ports that are handed out."""
        return [port.name for port in self.signature.outputs if port.name in self.program.arguments]

    @property
    def library(self) -> list[str]:
        """The functions of the C library's mathematics that the source calls."""
        text = "\n".join(self.program.body)
        return [name for name in MATHS if re.search(rf"\b{name}\(", text)]


def header(model: Model) -> str:
    """Return NAME.h."""
    name, program = model.name, model.program
    guard = f"{name.upper()}_H"
    lines = [
        f"/* {_about(model)}",
        "",
        *_use(model),
        "*/",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdbool.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* What a stream remembers from one call to the next. It may be copied, stored and put back. */",
        f"typedef struct {name}_state {{",
        *(f"    {_member(model, member)}" for member in program.members),
        *(
            f"    {C_TYPES[dtype]} {scratch_name(dtype)}[{count}]; /* what a call works with; it isn't remembered */"
            for dtype, count in program.scratch.items()
        ),
        f"}} {name}_state;",
        "",
        "/* Makes a state ready, once before anything else is done with it. */",
        f"void {name}_init({name}_state *state);",
        "",
        "/* Goes back to the start of a stream. */",
        f"void {name}_reset({name}_state *state);",
        "",
        *_step_told(model),
        f"{_prototype(model)};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def source(model: Model) -> str:
    """Return NAME.c."""
    name, program = model.name, model.program
    kernels = _kernels("\n".join(program.body))
    constants = [_constant(each, numbers) for each, numbers in program.constants.items()]
    functions = "\n".join(KERNELS[each] for each in kernels)
    body = [
        f"void {name}_init({name}_state *state)",
        "{",
        "    memset(state, 0, sizeof *state);",
        f"    {name}_reset(state);",
        "}",
        "",
        f"void {name}_reset({name}_state *state)",
        "{",
        *indented([line for member in program.members for line in _start(model, member)] or ["(void)state;"]),
        "}",
        "",
        _prototype(model, definition=True),
        "{",
        *indented(program.body),
        "}",
    ]
    text = "\n".join([*body, *constants, functions])
    includes = [f'#include "{name}.h"', ""]
    if model.library or re.search(r"\b(INFINITY|NAN)\b", text):
        includes.append("#include <math.h>")
    includes.append("#include <string.h>")
    parts = [f"/* {_about(model)} How it is used: {name}.h. */", "\n".join(includes), VECTORS.rstrip(), *constants]
    return "\n\n".join([*parts, *([functions.rstrip()] if functions else []), "\n".join(body)]) + "\n"


def _about(model: Model) -> str:
    return f"One step of the Keras model {_plain(str(model.contract.model.get('name')))!r}, written by export-lstm."


def _plain(text: str) -> str:
    """Return a text that can't end the comment it stands in."""
    return re.sub(r"[^\w .,()\[\]-]", "_", text, flags=re.ASCII)


def _use(model: Model) -> Lines:
    name, outputs = model.name, [model.program.arguments[port] for port in model.outputs]
    inputs = [model.program.arguments[port] for port in model.inputs]
    every = model.signature.every
    steps = "the next time step" if every == 1 else f"the next {every} time steps"
    held = [f"{member.output}, state->{member.name}" for member in model.program.members
            if member.output in model.contract.outputs]  # fmt: skip
    late = [f"{model.program.arguments.get(port, port)} by {rows}" for port, rows in model.signature.delay.items()]
    data = sum(each.nbytes for each in model.program.constants.values())
    return [
        "   A stream, which gives what the model gives on all time steps at once:",
        "",
        f"       static {name}_state state;",
        f"       {name}_init(&state);",
        f"       while (...)  // {', '.join(inputs)}: {steps}",
        f"           {name}_step(&state, {', '.join([*inputs, *outputs])});",
        "",
        f"   Any number of streams: one state each. No memory is allocated; {data:,} bytes of constants.",
        *([f"   Of the model's outputs the state holds: {'; '.join(held)}."] if held else []),
        *([f"   Rows come late: {', '.join(late)}; the first so many mean nothing."] if late else []),
        *(["   Link with -lm: it calls " + ", ".join(model.library) + "."] if model.library else []),
        "   Check it where it runs, if there is self_test.c: "
        f"cc self_test.c {name}.c{' -lm' * bool(model.library)} && ./a.out",
    ]


def _member(model: Model, member: Member) -> str:
    initial = model.signature.ports[member.input].initial
    told = f"; starts from {initial:g}" if initial else ""
    shape = show(model.shape(member.input))
    return f"{model.c_type(member.input)} {member.name}[{model.size(member.input)}]; /* {shape}{told} */"


def _step_told(model: Model) -> Lines:
    """Return the comment of the step: its arguments, one a line."""
    lines = [
        "/* Takes the next " + ("time step" if model.signature.every == 1 else f"{model.signature.every} time steps")
    ]
    lines[0] += " and gives the outputs; arrays are by rows, and an output that isn't wanted may be NULL."
    own = set(model.contract.outputs)
    for port in (*model.inputs, *model.outputs):
        role = model.signature.ports[port].role
        what = {"lengths": "how many of them are valid", "state": "a state to start from, with every call"}.get(
            role, role
        )
        if role == "sequences" and port not in own:
            what = "every step's output of the layer"
        below = model.signature.ports[port].below
        told = f", from 0 to {below - 1}" if below is not None else ""
        lines.append(f"   {model.program.arguments[port]}: {show(model.shape(port))} {what}{told}")
    lines[-1] += " */"
    return lines


def _prototype(model: Model, definition: bool = False) -> str:
    kept = "restrict " if definition else ""
    arguments = [f"{model.name}_state *{kept}state"]
    arguments += [f"const {model.c_type(port)} *{kept}{model.program.arguments[port]}" for port in model.inputs]
    arguments += [f"{model.c_type(port)} *{kept}{model.program.arguments[port]}" for port in model.outputs]
    return _wrapped(f"void {model.name}_step(", arguments, ")")


def _wrapped(head: str, parts: Sequence[str], tail: str) -> str:
    """Return parts in lines of up to 120 columns, aligned behind the head."""
    lines, line = Lines(), head
    for k, part in enumerate(parts):
        text = part + (", " if k < len(parts) - 1 else tail)
        if len(line) + len(text.rstrip()) > 120 and line.strip():
            lines.append(line.rstrip())
            line = " " * len(head)
        line += text
    return "\n".join([*lines, line])


def _start(model: Model, member: Member) -> Lines:
    """Return what puts a state back to its start."""
    port = model.signature.ports[member.input]
    value = port.at_start({**model.dims, **model.signature.dims}).flat[0]
    if value == 0:
        return [f"memset(state->{member.name}, 0, sizeof state->{member.name});"]
    count = model.size(member.input)
    return [f"for (int i = 0; i < {count}; i++)", f"    state->{member.name}[i] = {literal(value, port.dtype)};"]


def _kernels(text: str) -> list[str]:
    """Return the functions that a text calls, and those that they call, each after what it calls."""
    found: list[str] = []
    for name in KERNELS:
        if re.search(rf"\b{name}\(", text):
            own = KERNELS[name].partition("{")[2]
            found += [each for each in (*_kernels(own), name) if each not in found]
    return found


def _constant(name: str, numbers: Array) -> str:
    return f"static const {C_TYPES[str(numbers.dtype)]} {name}[{numbers.size}] = {{\n{rows(numbers)}\n}};"


def rows(numbers: Array) -> str:
    """Return numbers as lines of an initialiser."""
    dtype = str(numbers.dtype)
    texts = [literal(value, dtype) for value in numbers.ravel()]
    return "\n".join("    " + ", ".join(texts[k : k + 8]) + "," for k in range(0, len(texts), 8))
