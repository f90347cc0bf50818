"""A program that holds the step to golden numbers where it runs: on the board itself.

It calls the step for each time step of one golden run, from that run's states, compares all outputs and the states at
the end, prints one line, and ends with 0 where all is right and 1 where it isn't.
"""

from collections.abc import Mapping

import numpy as np

from signatures.contract import LENGTHS
from signatures.golden import Case, Run
from signatures.ports import Array
from signatures.stream import cut

from .names import Names
from .source import Model, rows
from .text import indented

MOST_CALLS, MOST_NUMBERS = 24, 50_000
"""Of the golden runs the longest is taken that has no more calls and no more numbers."""

COMPARE = """\
static void compare_{short}(const char *port, int call, const {type} *got, const {type} *expected, int count,
                  double atol, double rtol)
{{
    for (int i = 0; i < count; i++) {{
        const double wanted = (double)expected[i], allowed = atol + rtol * (wanted < 0 ? -wanted : wanted);
        const double difference = (double)got[i] - wanted, off = difference < 0 ? -difference : difference;
        compared++;
        if (!(off <= allowed)) {{ /* nor is NaN right */
            if (wrong++ == 0)
                sprintf(first, "%s of call %d, number %d: %g instead of %g", port, call, i, (double)got[i], wanted);
        }} else if (off > worst * allowed)
            worst = off / allowed;
    }}
}}
"""


def self_test(model: Model, golden: Case) -> str:
    """Return self_test.c."""
    run = _chosen(model, golden)
    names = Names([*model.program.arguments.values(), *(member.name for member in model.program.members)])
    calls, given, expected, ends = _vectors(model, run)
    arrays: dict[str, str] = {}

    def array(what: str, numbers: Array) -> str:
        name = names.new(what)
        c_type = "float" if numbers.dtype == np.float32 else f"{numbers.dtype}_t" if numbers.dtype != bool else "bool"
        arrays[name] = f"static const {c_type} {name}[] = {{\n{rows(numbers)}\n}};"
        return name

    used = {port: model.program.arguments[port] for port in (*model.inputs, *model.outputs)}
    now = {port: names.new(f"{used[port]}_now") for port in model.outputs}  # no name that the program has itself
    start = {each.name: array(f"{each.name}_at_start", run.feeds[each.input]) for each in model.program.members}
    feeds = {port: array(f"{used[port]}_given", numbers) for port, numbers in given.items()}
    wanted = {port: (first, array(f"{used[port]}_expected", numbers)) for port, (first, numbers) in expected.items()}
    at_end = {port: array(f"{port}_at_end", numbers) for port, numbers in ends.items()}

    def compare(port: str, call: str, got: str, want: str) -> str:
        factor = golden.tolerance.factor(run.expect[port], run.noise.get(port, 0.0))
        limits = ", ".join(repr(float(factor * part)) for part in (golden.tolerance.atol, golden.tolerance.rtol))
        return f'compare_{_short(model, port)}("{port}", {call}, {got}, {want}, {model.size(port)}, {limits});'

    handed = [f"{feeds[port]} + {model.size(port)} * call" for port in model.inputs]
    loop = [f"{model.name}_step({', '.join(['&state', *handed, *(now[port] for port in model.outputs)])});"]
    for port, (first, want) in wanted.items():
        at = f"{want} + {model.size(port)} * " + (f"(call - {first})" if first else "call")
        lines = [compare(port, "call + 1", now[port], at)]
        loop += [f"if (call >= {first})", *indented(lines)] if first else lines
    members = {member.output: f"state.{member.name}" for member in model.program.members}
    body = [
        f"static {model.name}_state state;",
        *(f"static {model.c_type(port)} {now[port]}[{model.size(port)}];" for port in model.outputs),
        f"{model.name}_init(&state);",
        *(f"memcpy(state.{name}, {each}, sizeof state.{name});" for name, each in start.items()),
        f"for (int call = 0; call < {calls}; call++) {{",
        *indented(loop),
        "}",
        *(compare(port, str(calls), members.get(port, now.get(port, "")), each) for port, each in at_end.items()),
        "if (wrong > 0) {",
        f'    printf("{model.name}: wrong, {_told(run)}: %s; %d of %d\\n", first, wrong, compared);',
        "    return 1;",
        "}",
        f'printf("{model.name}: right, {_told(run)}: %d numbers, at most %.2g of tolerance\\n", compared, worst);',
        "return 0;",
    ]
    types = {_short(model, port): model.c_type(port) for port in (*wanted, *at_end)}
    parts = [
        f"/* {model.name}.c held to golden numbers: prints one line; ends with 0 where all is right, else with 1. */",
        f'#include "{model.name}.h"\n\n#include <stdio.h>\n#include <string.h>',
        "static int compared, wrong;\nstatic double worst;\nstatic char first[200];",
        *arrays.values(),
        *(COMPARE.format(short=short, type=c_type).rstrip() for short, c_type in types.items()),
        "\n".join(["int main(void)", "{", *indented(body), "}"]),
    ]
    return "\n\n".join(parts) + "\n"


def _told(run: Run) -> str:
    return f"golden run {''.join(c if c.isalnum() else '_' for c in run.name)}"


def _short(model: Model, port: str) -> str:
    return model.c_type(port).removesuffix("_t")


def _calls(model: Model, run: Run) -> int:
    """Return how many calls a run is."""
    port = next(port for port in model.signature.inputs if port.timed)
    return int(run.feeds[port.name].shape[port.time_axis or 0]) // model.signature.every


def _chosen(model: Model, golden: Case) -> Run:
    """Return the run that the program goes through."""

    def length(run: Run) -> int:
        return _calls(model, run)

    each = sum(model.size(port) for port in model.inputs + model.outputs)
    fit = [run for run in golden.runs if length(run) <= MOST_CALLS and length(run) * each <= MOST_NUMBERS]
    return max(fit, key=length) if fit else min(golden.runs, key=length)


def _vectors(model: Model, run: Run) -> tuple[int, dict[str, Array], dict[str, tuple[int, Array]], dict[str, Array]]:
    """Return what a run's calls take and give.

    Returns:
        How many calls; input port -> its numbers of all calls; output over time -> the first call from which on it is
        expected, and its numbers; other output or state -> its numbers after the last call.
    """
    signature, calls = model.signature, _calls(model, run)
    every = signature.every
    feeds = dict(run.feeds)
    if LENGTHS in model.inputs and LENGTHS not in feeds:
        feeds[LENGTHS] = np.full(signature.count(feeds), calls * every, np.int32)
    pieces = [cut(feeds, signature.inputs, call * every, every) for call in range(calls)]
    given = {port: np.concatenate([piece[port].ravel() for piece in pieces]) for port in model.inputs}
    expected, ends = {}, {}
    for name, numbers in run.expect.items():
        port = signature.ports[name]
        if port.time_axis is None:
            ends[name] = numbers.ravel()
            continue
        each = model.shape(name)[port.time_axis]
        early = calls * each - numbers.shape[port.time_axis]
        first = -(-early // each)
        parts = [port.steps(numbers, call * each - early, each).ravel() for call in range(first, calls)]
        if parts:
            expected[name] = first, np.concatenate(parts)
    return calls, given, expected, ends


def for_batch(model: Model, golden: Case) -> Case:
    """Return a case with the first samples of its runs, as many as a call takes."""

    def cut_down(run: Run, arrays: Mapping[str, Array]) -> dict[str, Array]:
        ports = {name: value for name, value in arrays.items() if name in model.signature.ports}
        picks = np.minimum(np.arange(model.dims["batch"]), model.signature.count(run.feeds) - 1)
        return model.signature.samples(ports, picks)

    runs = tuple(
        Run(run.name, cut_down(run, run.feeds), cut_down(run, run.expect), run.noise, run.inputs) for run in golden.runs
    )
    return Case(golden.name, runs, golden.tolerance)
