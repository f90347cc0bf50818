"""What TFLM's interpreter says of a model: how large an arena it needs, and which op it has no kernel for.

It is run in a process of its own, which it may crash: its arena is memory that it lays out by itself.
"""

import re
import subprocess
import sys

from ai_edge_litert import schema_py_generated as schema

from signatures.errors import UnsupportedModel
from signatures.runtimes.tflm import room

PROGRAM = """
import sys

import numpy
from tflite_micro.python.tflite_micro import runtime

model = runtime.Interpreter.from_bytes(sys.stdin.buffer.read(), arena_size=int(sys.argv[1]))
for k in range(int(sys.argv[2])):
    found = model.get_input_details(k)
    model.set_input(numpy.zeros(found["shape"], found["dtype"]), k)
model.invoke()
model.print_allocations()
"""

STEP = 1.01
"""How much larger an arena is tried after one that was too small."""

TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
OP = re.compile(r"Node (\w+) \(number|builtin opcode '(\w+)'")


def arena(content: bytes) -> int:
    """Return the bytes of the arena that a model needs, at most 1 % more.

    Raises:
        UnsupportedModel: Naming the op that TFLM has no kernel for.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    inputs = len(model.subgraphs[0].inputs)
    code, told = _ran(content, room(model), inputs)
    found = TOTAL.search(told)
    if code or found is None:
        raise UnsupportedModel(f"{_reason(code, told)}\n  Export to tflite or c, or replace that layer.")
    size = int(found[1])
    while _ran(content, size, inputs)[0]:  # planning takes memory, too, which isn't in the total
        size = int(size * STEP) // 16 * 16 + 16
    return size


def _reason(code: int, told: str) -> str:
    """Return what is wrong by what the interpreter said: an op, and the line before it where there is one."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    at = next((k for k, line in enumerate(lines) if OP.search(line)), None)
    if at is None:
        return f"TFLM can't run the model: it ended with {code}, {(lines or ['without a word'])[-1].rstrip('.')}."
    [(node, missing)] = OP.findall(lines[at])[:1]
    return f"TFLM has no kernel for {node or missing} of the model: {lines[max(at - 1, 0)].rstrip('.')}."


def _ran(content: bytes, size: int, inputs: int) -> tuple[int, str]:
    """Run a model once in an arena of a size; return how the process ended, and what was said."""
    command = [sys.executable, "-c", PROGRAM, str(size), str(inputs)]
    ran = subprocess.run(command, input=content, capture_output=True, check=False)
    return ran.returncode, ran.stderr.decode(errors="replace")
