"""The float64 reference against two witnesses: the equations number by number, and ONNX's own reference evaluator."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from exporter import reference
from exporter.recurrence import Recurrence

B, T, F, U = 3, 6, 4, 3


@pytest.fixture(scope="module")
def recurrence():
    """Weights with four gate blocks that differ in size as well, so that no two can be taken for each other."""
    rng = np.random.default_rng(0)
    scale = np.repeat([0.3, 0.6, 0.9, 1.2], U)
    kernel, recurrent = (rng.standard_normal((rows, 4 * U)) * scale for rows in (F, U))
    return Recurrence("lstm", "lstm", kernel, recurrent, rng.standard_normal(4 * U) + np.repeat([0.5, -0.5, 1, -1], U))


@pytest.fixture(scope="module")
def feeds():
    rng = np.random.default_rng(1)
    return rng.standard_normal((B, T, F)), rng.standard_normal((B, U)), rng.standard_normal((B, U))


def onnx_lstm(x, h, c, recurrence):
    """Run ONNX's reference of its LSTM op (float32), whose gate order is i o f c and whose axes are [T, B, F]."""
    columns = [gate * U + u for gate in (0, 3, 1, 2) for u in range(U)]  # Keras' blocks are i f c o
    arrays = {
        "x": np.transpose(x, (1, 0, 2)),
        "w": recurrence.kernel[:, columns].T[None],
        "r": recurrence.recurrent_kernel[:, columns].T[None],
        "b": np.concatenate([recurrence.bias[columns], np.zeros(4 * U)])[None],
        "h": h[None],
        "c": c[None],
    }
    node = helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "y_h", "y_c"], hidden_size=U)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, each.shape) for name, each in arrays.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "lstm", inputs, outputs), opset_imports=[onnx.helper.make_opsetid("", 14)]
    )
    y, y_h, y_c = ReferenceEvaluator(model).run(None, {name: each.astype(np.float32) for name, each in arrays.items()})
    return np.transpose(y[:, 0], (1, 0, 2)), y_h[0], y_c[0]


def test_it_is_what_the_equations_say(recurrence, feeds, by_numbers):
    weights = recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias
    for got, expected in zip(reference.lstm(*feeds, recurrence), by_numbers(*feeds, *weights), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_it_is_what_onnx_defines(recurrence, feeds):
    for got, expected in zip(reference.lstm(*feeds, recurrence), onnx_lstm(*feeds, recurrence), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_float32_weights_and_inputs_are_computed_in_float64(recurrence, feeds, by_numbers):
    narrow = [
        each.astype(np.float32) for each in (*feeds, recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)
    ]
    got = reference.lstm(*narrow[:3], Recurrence("lstm", "lstm", *narrow[3:]))
    for ours, expected in zip(got, by_numbers(*narrow), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-13)


MASK = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], bool)  # holes; masked from the start; all


@pytest.mark.parametrize("continues", [True, False])
def test_masked_steps_keep_the_state_and_repeat_the_output(recurrence, feeds, by_numbers, continues):
    weights = recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias
    sequences, h, c = by_numbers(*feeds, *weights, MASK)
    if not continues:
        for row in range(B):
            for t in range(T):
                if not MASK[row, : t + 1].any():
                    sequences[row, t] = 0
    got = reference.lstm(*feeds, recurrence, MASK, continues)
    for ours, expected in zip(got, (sequences, h, c), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-13)


def test_a_call_that_continues_starts_from_h_on_masked_steps(recurrence, feeds):
    _, h, c = feeds
    sequences, last_h, last_c = reference.lstm(*feeds, recurrence, MASK)
    np.testing.assert_array_equal(sequences[1, :2], np.tile(h[1], (2, 1)))
    np.testing.assert_array_equal(sequences[2], np.tile(h[2], (T, 1)))
    np.testing.assert_array_equal(last_h[2], h[2])
    np.testing.assert_array_equal(last_c[2], c[2])
    fresh, last_h, last_c = reference.lstm(*feeds, recurrence, MASK, continues=False)
    np.testing.assert_array_equal(fresh[2], np.zeros((T, U)))
    np.testing.assert_array_equal(last_h[2], h[2])
    np.testing.assert_array_equal(last_c[2], c[2])


def test_a_masked_step_is_as_if_it_were_not_there(recurrence, feeds):
    x, h, c = (each[:1] for each in feeds)
    _, last_h, last_c = reference.lstm(x, h, c, recurrence, MASK[:1])
    _, cut_h, cut_c = reference.lstm(x[:, MASK[0]], h, c, recurrence)
    np.testing.assert_array_equal(last_h, cut_h)
    np.testing.assert_array_equal(last_c, cut_c)


def test_huge_inputs_saturate_without_overflow(recurrence, feeds):
    x, h, c = feeds
    with np.errstate(all="raise", under="ignore"):
        sequences, last_h, last_c = reference.lstm(1e6 * x, h, c, recurrence)
    assert np.isfinite(last_c).all()
    assert np.abs(sequences).max() <= 1
    assert np.abs(last_h).max() > 0.5
