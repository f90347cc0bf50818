"""The ops that a stranger's SavedModel may hold, by what TensorFlow registers of each.

Where a new TensorFlow changes what an op is, a test here says which.
"""

import re

import pytest
from tensorflow.python.framework import op_def_registry

from signatures.runtimes.tensorflow_ops import CALLING, COMPUTING, LISTS, VARIABLES

STRING, RESOURCE, VARIANT = 7, 20, 21  # in types.proto
CHECKING = {"Assert", "CheckNumerics"}  # which raise
STATEFUL = (CALLING - {"PartitionedCall", "StatelessWhile", "StatelessIf", "StatelessCase"}) | CHECKING
REACHING = re.compile(r"file|path|url|address|_dir|descriptor|vocab_|region|token|server")
NOT_THEM = re.compile(
    r"^_|Debug|Copy(?!OnRead)|Custom|Mlir|Abort|TPU|Tpu|DTensor|Infeed|PyFunc|Dataset|Queue|Reader|Barrier|Risc|Cudnn"
    r"|Summary|Table|Iterator|Collective|Remote|Send|Recv|TemporaryVariable|Sdca|BoostedTrees|Grad$|^Apply|^Ref"
)


@pytest.fixture(scope="module")
def registered():
    """Each op as TensorFlow registers it."""
    found = {op: op_def_registry.get(op) for op in sorted(COMPUTING)}
    assert not [op for op, known in found.items() if known is None]
    return found


def test_none_has_a_state_but_variables_in_memory(registered):
    assert {op for op, known in registered.items() if known.is_stateful} == VARIABLES | STATEFUL


def test_none_runs_a_function_but_calls_and_control_flow(registered):
    calling = {
        op for op, known in registered.items() if any(each.type in ("func", "list(func)") for each in known.attr)
    }
    assert calling == CALLING


def test_none_takes_or_gives_a_string_or_something_that_a_process_holds(registered):
    for op, known in registered.items():
        kinds = {argument.type for argument in (*known.input_arg, *known.output_arg)} & {STRING, RESOURCE, VARIANT}
        wanted = {RESOURCE} if op in VARIABLES else {VARIANT} if op in LISTS else set()
        assert kinds <= wanted, op


def test_none_changes_a_tensor_in_place(registered):
    assert not [op for op, known in registered.items() if any(each.is_ref for each in known.input_arg)]


def test_none_is_told_of_a_place(registered):
    told = {op: [each.name for each in known.attr if REACHING.search(each.name)] for op, known in registered.items()}
    assert not {op: names for op, names in told.items() if names}


def test_none_is_of_a_kind_that_reaches_beyond():
    assert not [op for op in COMPUTING if NOT_THEM.search(op)]
    assert {op for op in COMPUTING if op.startswith("Xla")} == {"XlaDynamicSlice", "XlaDynamicUpdateSlice"}
    assert {op for op in COMPUTING if re.match("Unb|Batch", op)} == {
        *("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "BatchToSpace", "BatchToSpaceND")
    }
    assert "MapDefun" not in COMPUTING
    assert "SymbolicGradient" not in COMPUTING
