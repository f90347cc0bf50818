"""Which lowering a recurrence gets in each target, and what is refused."""

import pytest

from exporter.lowerings import LOWERINGS
from exporter.plan import UNROLL_LIMIT, Plan, describe, plan
from signatures.errors import UnsupportedModel


@pytest.mark.parametrize(
    ("target", "steps", "choice", "expected"),
    [
        ("savedmodel", None, "auto", "block"),
        ("savedmodel", 1, "auto", "block"),
        ("onnx", None, "auto", "native"),
        ("onnx", 1, "auto", "native"),
        ("tflite", 1, "auto", "unrolled"),
        ("tflite", 1, "loop", "unrolled"),
        ("tflite", 2, "auto", "loop"),
        ("tflite", None, "auto", "loop"),
        ("tflite", 10_000, "loop", "loop"),
        ("tflite", 2, "unrolled", "unrolled"),
        ("tflite", UNROLL_LIMIT, "unrolled", "unrolled"),
    ],
)
def test_each_signature_of_each_target_gets_its_lowering(target, steps, choice, expected):
    chosen = plan(target, steps, choice)
    assert chosen.lowering == expected
    assert chosen.lowering == "native" or chosen.lowering in LOWERINGS
    assert chosen.reason


@pytest.mark.parametrize(("steps", "said"), [(None, "any number of"), (UNROLL_LIMIT + 1, str(UNROLL_LIMIT + 1))])
def test_unrolling_too_much_is_refused_with_a_way_out(steps, said):
    with pytest.raises(UnsupportedModel) as refused:
        plan("tflite", steps, "unrolled")
    for each in (said, str(UNROLL_LIMIT), "--time", "--lowering loop"):
        assert each in str(refused.value)


def test_unrolled_is_for_tflite_alone():
    assert plan("onnx", None, "unrolled").lowering == "native"
    assert plan("savedmodel", 9999, "unrolled").lowering == "block"


def test_a_reason_is_told_for_each_signature():
    assert (
        describe({"sequence": Plan("loop", "why a"), "step": Plan("unrolled", "why b")})
        == "sequence: why a; step: why b"
    )
