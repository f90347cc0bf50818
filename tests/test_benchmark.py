"""The benchmark compares like with like: peers built by hand compute an LSTM, goals are ratios of the right rows."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def c(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import contenders

    return contenders


@pytest.fixture
def goals(c):
    import goals

    return goals


def lstm(c, problem):
    """Run the layers in float64, step by step."""
    y = c.frames(problem).astype(np.float64)
    for kernel, recurrent, bias in c.weights(problem.shape):
        h = state = np.zeros((problem.batch, problem.shape.units))
        steps = []
        for x in y.transpose(1, 0, 2):
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            state = f * state + i * np.tanh(g)
            h = o * np.tanh(state)
            steps.append(h)
        y = np.stack(steps, axis=1)
    return y


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["FUSED", "ONNX_FLOOR"])
def test_a_peer_built_by_hand_is_an_lstm(c, tmp_path, name, batch, layers):
    contender, problem = getattr(c, name), c.Problem(c.Shape(3, 5, layers), batch, 7)
    path = tmp_path / contender.file(problem)
    contender.build(problem, path)
    call, sequences = contender.open(path, problem)
    np.testing.assert_allclose(sequences, lstm(c, problem), atol=1e-5)
    call()


def test_the_limit_runs(c):
    call, sequences = c.LIMIT.open(Path(), c.Problem(c.Shape(3, 5, 2), 2, 100))
    assert sequences is None
    call()


def test_files_of_different_problems_have_different_names(c):
    problems = [c.Problem(c.Shape(3, u, k), b, t) for u in (4, 5) for k in (1, 2) for b in (1, 8) for t in (1, 96)]
    everything = {contender for compared in c.COMPARED.values() for contender in compared if contender.build}
    made = {}
    for contender in everything:
        for problem in problems:
            needed = tuple(getattr(problem, need) for need in contender.needs)
            key = contender.same or contender.name, problem.shape, needed
            assert made.setdefault(contender.file(problem), key) == key


def test_who_gives_other_numbers_than_the_first_peer_is_told(c):
    import run

    problem = c.Problem(c.Shape(3, 4), 1, 5)
    good = np.ones((1, 5, 4), np.float32)
    wrong, nothing = good + np.float32(1e-3), np.full_like(good, np.nan)
    entries = [(each, problem) for each in (c.TFLITE, c.FUSED, c.ONNX, c.KERAS_ONNX, c.LIMIT)]
    found = run.differences(entries, {0: wrong, 1: good, 2: good[:, :3], 3: nothing, 4: None})
    assert list(found) == [0, 3]
    assert found[0] == pytest.approx(1e-3, rel=1e-3)


def test_every_goal_is_about_contenders_that_are_compared(c, goals):
    for goal in goals.GOALS:
        assert {goal.own, goal.peer} <= set(c.COMPARED.get(goal.compared, [c.TFLITE])), goal.text
        assert set(goal.limits) <= set(map(str, goals.SHAPES))


def test_a_goal_is_a_ratio_of_time_per_step_in_the_same_turns(c, goals):
    shape = c.Shape(64, 128)
    rows = [
        goals.Row(c.TFLITE.name, 96, [2.0, 8.0, 2.0]),
        goals.Row(c.FUSED.name, 96, [4.0, 16.0, 2.0]),
        goals.Row(c.KERAS_UNROLLED.name, 96, note="not built"),
    ]
    long = [goals.Row(c.TFLITE.name, 96, [1.0]), goals.Row(c.TFLITE.name, 960, [11.0])]
    one, eight = goals.Comparison("lstm", shape, 1, rows), goals.Comparison("lstm", shape, 8, rows)
    results = goals.Results([one, eight, goals.Comparison("linear", shape, 1, long)])
    found = {each.goal: each for each in goals.outcomes(results)}
    assert set(found) == {"tflite sequence, any T / fused op", "tflite time per step, long / short"}
    fused = found["tflite sequence, any T / fused op"]
    assert (fused.where, fused.value, fused.limit, fused.reached) == ("64->128, T=96", 0.5, 0.75, True)
    assert found["tflite time per step, long / short"].value == pytest.approx(1.1)


def test_costs_are_held_against_the_weights(c, goals):
    weights = c.bytes_of_weights(c.Shape(16, 32))
    assert weights == 4 * (16 * 128 + 32 * 128 + 128)
    results = goals.Results(
        memory={(c.TFLITE.name, "16->32"): 9_000_000, (c.FUSED.name, "16->32"): 1},
        sizes={(c.TFLITE.name, "16->32", 960): weights + 65_000, (c.TFLITE_FIXED.name, "16->32", 1): weights},
        exports={
            "a net": {"import": 5, "golden": 61},
            "any": {"import": 9, "load": 14},
            "96": {"import": 1, "load": 10},
            "960": {"import": 8, "load": 13},
        },
        help=0.2,
    )
    assert [(each.goal.split()[0], each.reached) for each in goals.outcomes(results)] == [
        ("tflite", False),
        ("tflite", True),
        ("tflite", False),
        ("export", True),
        ("export", False),
        ("export", False),
        ("export-lstm", True),
    ]


def test_results_are_plain_data(c, goals):
    import json

    row = goals.Row(c.TFLITE.name, 10, [1e-3, 2e-3])
    results = goals.Results([goals.Comparison("lstm", c.Shape(3, 4), 1, [row])])
    [comparison] = json.loads(json.dumps(goals.facts(results)))["comparisons"]
    assert comparison["rows"][0]["us_per_step"] == [100.0, 200.0]
    assert (comparison["shape"], comparison["batch"]) == ("3->4", 1)
