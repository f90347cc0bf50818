"""Recurrences are run on arrays by loops that those of the same numbers share, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from exporter.lower.eager import InOnePiece
from exporter.memory.recurrence import Recurrence
from exporter.model.swap import Call
from exporter.prove import reference

RNG = np.random.default_rng(0)
GRU = Recurrence(
    "gru",
    "gru",
    {"h": (4,)},
    kernel=RNG.standard_normal((3, 12)).astype(np.float32),
    recurrent_kernel=RNG.standard_normal((4, 12)).astype(np.float32),
    bias=RNG.standard_normal(12).astype(np.float32),
)
OTHERS = {
    "kernel": {"kernel": 0.5 * GRU.kernel},
    "recurrent kernel": {"recurrent_kernel": 0.5 * GRU.recurrent_kernel},
    "bias": {"bias": 0.5 * GRU.bias},
    "activation": {"activation": "relu"},
    "gates": {"recurrent_activation": "hard_sigmoid"},
    "direction": {"reverse": True},
    "masked steps": {"zero_masked": True},
    "a type": {name: getattr(GRU, name).astype(np.float64) for name in ("kernel", "recurrent_kernel", "bias")}
    | {"dtype": "float64"},
}


@pytest.fixture(scope="module")
def quick():
    return InOnePiece()


def ran(quick, recurrence, rows=2, total=5):
    """Run a recurrence and the reference on the same call."""
    rng = np.random.default_rng(rows)
    x, h = (rng.standard_normal(shape).astype(recurrence.dtype) for shape in ((rows, total, 3), (rows, 4)))
    mask = rng.random((rows, total)) < 0.6
    call = Call(recurrence.name, recurrence, tf.constant(x), [tf.constant(h)], tf.constant(mask), True, {}, None)
    return quick(call), reference.run(recurrence, x, [h], mask, True)


@pytest.mark.parametrize("other", OTHERS)
def test_another_recurrence_is_run_by_its_own_numbers(quick, other):
    for recurrence in (GRU, replace(GRU, **OTHERS[other])):
        (sequences, [final]), (expected, [last]) = ran(quick, recurrence)
        np.testing.assert_allclose(sequences, expected, atol=1e-5)
        np.testing.assert_allclose(final, last, atol=1e-5)


def test_one_that_is_read_again_shares_its_loop_with_calls_of_any_size(monkeypatch):
    made, function = [], tf.function
    monkeypatch.setattr(tf, "function", lambda *args, **options: made.append(args) or function(*args, **options))
    quick = InOnePiece()
    for rows, name in ((1, "gru"), (3, "gru"), (2, "another")):
        (sequences, _), (expected, _) = ran(quick, replace(GRU, name=name), rows, total=3 + rows)
        np.testing.assert_allclose(sequences, expected, atol=1e-5)
    assert len(made) == 1
