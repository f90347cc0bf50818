"""Which lowering a recurrence gets in each target, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from exporter.lower.lowering import LOWERINGS
from exporter.lower.plan import STEP_BY_STEP, Plan, Schedule, describe
from exporter.memory.recurrence import Recurrence
from exporter.targets import TARGETS
from exporter.targets.tflite.facts import UNROLL_LIMIT
from signatures.errors import UnsupportedModel

LSTM = Recurrence("lstm", "lstm", {"h": (4,), "c": (4,)})


def plan(made, target, *arguments, **options):
    return TARGETS[target].facts.plan(made, *arguments, **options)


def recurrence(kind, **options):
    return Recurrence("layer", kind, {"h": (4,)}, **options)


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
    chosen = plan(LSTM, target, steps, choice)
    assert chosen.lowering == expected
    assert chosen.lowering == "native" or chosen.lowering in LOWERINGS
    assert chosen.reason


def sized(units, kind="lstm"):
    return recurrence(kind, recurrent_kernel=np.zeros((units, 4 * units), np.float32))


@pytest.mark.parametrize(
    ("units", "steps", "unroll", "blocks"),
    [
        (32, None, 12, (240, 1200)),
        (46, 960, 8, (112, 560)),
        (64, 96, 8, ()),
        (64, 112, 8, ()),
        (64, 113, 8, (112,)),
        (65, None, 1, (14, 70, 350, 1400)),
        (128, 960, 1, (14, 70, 350)),
        (129, None, 1, (7, 49, 245, 1225)),
        (512, 7, 1, ()),
        (512, 8, 1, (7,)),
        (32, 2, 2, ()),
        (32, 13, 7, ()),
        (32, 16, 8, ()),
    ],
)
def test_a_loop_s_schedule_follows_from_the_size_of_the_recurrent_kernel_and_t(units, steps, unroll, blocks):
    chosen = plan(sized(units), "tflite", steps, "loop", batch=1)
    assert chosen.schedule == Schedule(unroll, blocks)
    assert ("copies" in chosen.reason) == (unroll > 1)
    assert ("longer than a turn" in chosen.reason) == (unroll == 1)
    assert all(block % unroll == 0 for block in chosen.schedule.blocks)
    assert all(str(block) in chosen.reason for block in blocks or (steps,))
    copies = unroll * sized(units).recurrent_kernel.nbytes
    assert copies <= 512 << 10 or unroll == 1


@pytest.mark.parametrize(
    ("units", "steps", "batch", "kind", "expected"),
    [
        (32, 16, 1, "lstm", "unrolled"),
        (32, 17, 1, "lstm", "loop"),
        (32, None, 1, "lstm", "loop"),
        (32, 16, 2, "lstm", "loop"),
        (32, 16, None, "lstm", "loop"),
        (32, 16, 1, "cell", "loop"),
        (64, 16, 1, "gru", "unrolled"),
        (64, 17, 1, "lstm", "loop"),
        (128, 4, 1, "lstm", "unrolled"),
        (128, 5, 1, "lstm", "loop"),
        (512, 2, 1, "lstm", "loop"),
    ],
)
def test_a_few_fixed_steps_are_unrolled_where_all_copies_fit_in_the_cache(units, steps, batch, kind, expected):
    assert plan(sized(units, kind), "tflite", steps, batch=batch).lowering == expected


@pytest.mark.parametrize(("kind", "batch"), [("lstm", None), ("gru", 2), ("stack", 1), ("cell", 1), ("conv_lstm", 1)])
def test_any_cell_and_batch_run_step_by_step(kind, batch):
    assert plan(sized(32, kind), "tflite", None, batch=batch).schedule == STEP_BY_STEP


@pytest.mark.parametrize("steps", [None, 1, 7])
@pytest.mark.parametrize(("kind", "op"), [("lstm", "LSTM"), ("gru", "GRU"), ("simple_rnn", "RNN")])
def test_onnx_runs_its_own_op_where_it_has_the_activations(kind, op, steps):
    for options in ({}, {"activation": "relu", "recurrent_activation": "hard_sigmoid"}, {"activation": "softsign"}):
        chosen = plan(recurrence(kind, **options), "onnx", steps)
        assert chosen.lowering == "native"
        assert op in chosen.reason


@pytest.mark.parametrize("option", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn"])
@pytest.mark.parametrize("unknown", ["gelu", "silu", "relu6"])
def test_onnx_runs_an_activation_it_does_not_have_in_a_loop(kind, option, unknown):
    made = recurrence(kind, **{option: unknown})
    assert plan(made, "onnx", None).lowering == "scan"
    assert plan(made, "onnx", 7).lowering == "scan"
    assert plan(made, "onnx", 1).lowering == "unrolled"


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}])
def test_a_block_lstm_knows_tanh_and_sigmoid_only(options):
    made = recurrence("lstm", **options)
    assert plan(made, "savedmodel", None).lowering == "scan"
    assert plan(made, "savedmodel", 1).lowering == "unrolled"


@pytest.mark.parametrize("kind", ["gru", "simple_rnn", "conv_lstm", "stack", "cell"])
def test_other_layers_run_in_a_loop_where_there_is_no_op_for_them(kind):
    made = recurrence(kind)
    assert plan(made, "savedmodel", None).lowering == "scan"
    assert plan(made, "savedmodel", 9).lowering == "scan"
    assert plan(made, "savedmodel", 1).lowering == "unrolled"
    assert plan(made, "tflite", None).lowering == "loop"
    assert plan(made, "tflite", 1).lowering == "unrolled"
    assert plan(made, "tflite", 9, "unrolled").lowering == "unrolled"
    if kind in ("conv_lstm", "stack", "cell"):
        assert plan(made, "onnx", None).lowering == "scan"
        assert plan(made, "onnx", 1).lowering == "unrolled"


@pytest.mark.parametrize("option", ["reverse", "zero_masked"])
@pytest.mark.parametrize("target", ["savedmodel", "onnx", "tflite"])
def test_direction_and_masks_do_not_change_the_lowering(target, option):
    assert plan(recurrence("lstm", **{option: True}), target, None) == plan(recurrence("lstm"), target, None)


@pytest.mark.parametrize(("steps", "said"), [(None, "any number of"), (UNROLL_LIMIT + 1, str(UNROLL_LIMIT + 1))])
def test_unrolling_too_much_is_refused_with_a_way_out(steps, said):
    with pytest.raises(UnsupportedModel) as refused:
        plan(LSTM, "tflite", steps, "unrolled")
    for each in (said, str(UNROLL_LIMIT), "--time", "--lowering loop"):
        assert each in str(refused.value)


def test_xla_is_for_savedmodel_alone_and_not_for_one_step():
    for made in (LSTM, sized(3, "gru")):
        assert plan(made, "savedmodel", None, "xla").lowering == "xla"
    assert plan(LSTM, "savedmodel", 1, "xla").lowering == "block"
    assert plan(LSTM, "tflite", None, "xla").lowering == "loop"
    assert plan(LSTM, "onnx", None, "xla").lowering == "native"


def test_a_large_input_kernel_is_taken_out_of_the_loop():
    """BlockLSTMV2 would read it on every step."""
    for features, expected in ((192, "block"), (193, "scan")):
        kernel = np.zeros((features, 4 * 256), np.float32)
        chosen = plan(replace(LSTM, kernel=kernel), "savedmodel", None)
        assert chosen.lowering == expected
    assert "product" in chosen.reason


def test_unrolled_is_for_tflite_alone():
    assert plan(LSTM, "onnx", None, "unrolled").lowering == "native"
    assert plan(LSTM, "savedmodel", 9999, "unrolled").lowering == "block"


def test_a_reason_is_told_for_each_signature():
    assert (
        describe({"sequence": Plan("loop", "why a"), "step": Plan("unrolled", "why b")})
        == "sequence: why a; step: why b"
    )
