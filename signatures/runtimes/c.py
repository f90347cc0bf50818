"""A C compiler runs folders of C: the source is compiled into a library in a temporary folder, and its step called.

That runs code of whoever made the folder. So it has to be trusted first.
"""

import ctypes
import math
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..contract import Contract
from ..errors import ArtifactError, MissingRuntime, UnsafeArtifact
from ..ports import Array, Feeds
from . import contract_in, own

CONTRACT = own("c").marker
SELF_TEST = "self_test.c"
DAMAGED = "The folder is damaged or not of C that export-lstm wrote"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = "-O3 -march=native"
"""How a source is compiled, unless the environment's CFLAGS says otherwise."""

CALL = """
#include <stddef.h>
#include "{name}.h"
const size_t state_bytes = sizeof({name}_state);
void **bound;
void call_step(void **with) {{ {name}_step({arguments}); }}
void call_bound(void) {{ call_step(bound); }}
"""
"""What is compiled with the source, so that a call takes one argument, or none, which takes Python the least time."""


class Step:
    """A step in C. Each call has a state of its own, so that any number of threads may run it at once."""

    def __init__(self, path: Path, contract: Contract) -> None:
        """Compile the source of a folder and load it."""
        signature = contract.signatures["step"]
        [info] = contract.artifacts.values()
        sizes = {**info.dims, **signature.dims}
        ports = signature.ports
        self._shapes = {name: tuple(int(size) for size in port.sized(sizes)) for name, port in ports.items()}
        self._types = {name: np.dtype(port.dtype) for name, port in ports.items()}
        carried = {carry.input: carry.output for carry in signature.carries}
        self._takes = [port.name for port in signature.inputs]
        self._states = {name: carried[name] for name in self._takes if name in carried}
        self._inputs = [name for name in self._takes if name not in carried]
        self._outputs = [port.name for port in signature.outputs if port.name not in carried.values()]
        self._compiled = _compiled(path, len(self._inputs) + len(self._outputs))
        library = _loaded(self._compiled)
        self._state_bytes = ctypes.c_size_t.in_dll(library, "state_bytes").value
        self._call = library.call_step
        self._call.argtypes, self._call.restype = [ctypes.c_void_p], None

    def takes(self, signature: str) -> Mapping[str, Sequence[Any]]:
        """Return the sizes of the inputs; see Session."""
        return {name: self._shapes[name] for name in self._takes}

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run the step once; see Session."""
        made = _Arguments(self, feeds)
        self._call(made.pointer)
        return {**made.outputs, **{output: made.states[name].copy() for name, output in self._states.items()}}

    def bind(self, signature: str, feeds: Feeds) -> Callable[[], object]:
        """Return a call that goes on from its own state; see Session."""
        made, library = _Arguments(self, feeds), _loaded(self._compiled, ctypes.PyDLL)  # which holds Python's lock
        ctypes.c_void_p.in_dll(library, "bound").value = made.pointer.value
        call: Any = library.call_bound
        call.restype = None
        call.made = made  # what is pointed to lives as long as the call
        return cast(Callable[[], object], call)


class _Arguments:
    """The arrays of one call: the state, whose members lie in it in the order of their ports, and the other ports."""

    def __init__(self, step: Step, feeds: Feeds) -> None:
        """Copy the feeds; make room for the outputs."""
        self._state = np.zeros(step._state_bytes, np.uint8)
        self.states: dict[str, Array] = {}
        at = 0
        for name in step._states:
            dtype, shape = step._types[name], step._shapes[name]
            at = -(-at // dtype.itemsize) * dtype.itemsize  # where C aligns it
            end = at + math.prod(shape) * dtype.itemsize
            self.states[name] = self._state[at:end].view(dtype).reshape(shape)
            self.states[name][...] = feeds[name]
            at = end
        self._inputs = [np.array(feeds[name], step._types[name], order="C") for name in step._inputs]
        self.outputs = {name: np.zeros(step._shapes[name], step._types[name]) for name in step._outputs}
        arrays = [self._state, *self._inputs, *self.outputs.values()]
        self._pointers = (ctypes.c_void_p * len(arrays))(*(each.ctypes.data for each in arrays))
        self.pointer = ctypes.cast(self._pointers, ctypes.c_void_p)


def load(path: Path, trust: bool, threads: int) -> tuple[Contract, Step]:
    """Open a folder of C, which compiles and runs it; see Module."""
    contract = read_contract(path)
    if not trust:
        raise UnsafeArtifact(
            "It is C, which is compiled and run: it may do whatever its author likes. "
            "If you trust who made it, pass --trust (in Python: signatures.open(path, trust=True))."
        )
    return contract, Step(path, contract)


def session(path: Path, threads: int) -> Step:
    """Open a folder of C that is trusted; see Module."""
    return Step(path, read_contract(path))


def read_contract(path: Path) -> Contract:
    """Return the contract of a folder of C, its `export-lstm.contract.json`; nothing of it is run.

    Raises:
        ArtifactError: When there is none.
    """
    contract = contract_in(path / CONTRACT)
    if "step" not in contract.signatures:
        raise ArtifactError("The folder's contract has no signature 'step', which is all that C has.")
    return contract


def compiler() -> list[str]:
    """Return the command of the C compiler: the environment's CC, else cc, gcc or clang.

    Raises:
        MissingRuntime: When there is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    found = next((each for each in (named[:1] or COMPILERS) if shutil.which(each)), None)
    if found is None:
        looked = f"{named[0]!r}, which CC names, isn't" if named else f"none of {', '.join(COMPILERS)} is"
        raise MissingRuntime(
            f"C is checked with a C compiler, and {looked} there. Install one, or name it: CC=/path/to/cc"
        )
    return [found, *named[1:]]


def _loaded(library: bytes, kind: type[ctypes.CDLL] = ctypes.CDLL) -> ctypes.CDLL:
    """Load a library, a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="export-lstm-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "step.so")
        path.write_bytes(library)
        return kind(str(path))


def _compiled(path: Path, arguments: int) -> bytes:
    """Compile the source of a folder and return the library.

    Raises:
        ArtifactError: When there isn't one source, or it doesn't compile.
        MissingRuntime: When there is no compiler.
    """
    sources = [each for each in path.glob("*.c") if each.name != SELF_TEST]
    if len(sources) != 1:
        raise ArtifactError(f"The folder holds {len(sources)} sources where export-lstm writes one.")
    [source] = sources
    handed = ", ".join(f"with[{k}]" for k in range(1 + arguments))
    with tempfile.TemporaryDirectory(prefix="export-lstm-", ignore_cleanup_errors=True) as folder:
        call, library = Path(folder, "call.c"), Path(folder, "step.so")
        call.write_text(CALL.format(name=source.stem, arguments=handed), encoding="utf-8")
        flags = ["-std=c99", *shlex.split(os.environ.get("CFLAGS", FLAGS)), "-shared", "-fPIC", "-I", str(path)]
        command = [*compiler(), *flags, str(source), str(call), "-o", str(library), "-lm"]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ran.returncode:
            said = next((line for line in ran.stderr.splitlines() if "error" in line), ran.stderr.strip()[:200])
            raise ArtifactError(
                f"The C compiler {command[0]!r} refuses {source.name}: {said.removeprefix(f'{path}/')}."
            )
        return library.read_bytes()
