"""Golden numbers: recorded when two witnesses agree, and not otherwise."""

import keras
import numpy as np
import pytest
from keras import Input, layers, ops

from exporter import reference, witness
from exporter.boundary import contract
from exporter.model import Model
from exporter.survey import survey
from signatures.errors import FeedError, ParityError, UnsupportedModel

# Keras 3.15 itself trips over NumPy 2 while it reads arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

F, U = 3, 4


def opened(keras_model, **options):
    model = Model(keras_model)
    found = survey(model)
    return model, found, contract(found, {"name": "m", "sha256": None}, {"keras": "3"}, **options)


@pytest.fixture(scope="module")
def plain(scramble):
    x = Input((None, F), name="x")
    y = layers.LSTM(U, return_sequences=True, name="lstm")(x)
    return opened(scramble(keras.Model(x, layers.Dense(2, name="y")(y))))


@pytest.fixture(scope="module")
def masked(scramble):
    x = Input((None, F), name="x")
    y = layers.LSTM(U, return_sequences=True, name="lstm")(layers.Masking()(x))
    return opened(scramble(keras.Model(x, y)), lengths=True)


def recorded(opened_model, totals=(1, 7), **options):
    model, _, ports = opened_model
    return witness.record(model, ports, {}, totals=totals, **options)


def test_runs_are_of_the_asked_lengths_with_odd_rows_and_states_that_differ(plain):
    seen = []
    case = recorded(plain, progress=seen.append)
    assert [run.name for run in case.runs] == ["t1", "t7"] == seen
    for run, total in zip(case.runs, (1, 7), strict=True):
        assert {name: value.shape for name, value in run.feeds.items()} == {
            "x": (3, total, F),
            "lstm_h_in": (3, U),
            "lstm_c_in": (3, U),
        }
        assert set(run.expect) == {"y", "lstm_sequences", "lstm_h", "lstm_c"}
        assert np.abs(run.feeds["lstm_h_in"] - run.feeds["lstm_c_in"]).min() > 0
        assert all(value.dtype == np.float32 for value in (*run.feeds.values(), *run.expect.values()))


def test_what_is_recorded_is_what_the_equations_give(plain, by_numbers):
    run = recorded(plain).runs[1]
    weights = plain[0].layers["lstm"][1]
    sequences, h, c = by_numbers(
        *(run.feeds[name] for name in ("x", "lstm_h_in", "lstm_c_in")),
        weights.kernel,
        weights.recurrent_kernel,
        weights.bias,
    )
    np.testing.assert_allclose(run.expect["lstm_sequences"], sequences, atol=1e-6)
    np.testing.assert_allclose(run.expect["lstm_h"], h, atol=1e-6)
    np.testing.assert_allclose(run.expect["lstm_c"], c, atol=1e-6)
    kernel, bias = plain[0].keras.layers[-1].get_weights()
    np.testing.assert_allclose(run.expect["y"], sequences @ kernel + bias, atol=1e-5)


def test_masks_and_lengths_are_recorded_as_the_equations_have_them(masked, by_numbers):
    weights = masked[0].layers["lstm"][1]
    lengths_seen, holes = set(), 0
    for run in recorded(masked, totals=(2, 7, 9)).runs:
        x, lengths = run.feeds["x"], run.feeds["lengths"]
        valid = x.any(axis=-1) & (np.arange(x.shape[1]) < lengths[:, None])
        lengths_seen |= set(lengths)
        holes += (~x.any(axis=-1)).sum()
        expected = by_numbers(
            x,
            run.feeds["lstm_h_in"],
            run.feeds["lstm_c_in"],
            weights.kernel,
            weights.recurrent_kernel,
            weights.bias,
            valid,
        )
        for port, value in zip(("lstm_sequences", "lstm_h", "lstm_c"), expected, strict=True):
            np.testing.assert_allclose(run.expect[port], value, atol=1e-6)
    assert len(lengths_seen) > 2
    assert holes


def test_the_largest_difference_of_the_witnesses_is_told(plain):
    recipe = recorded(plain).recipe
    assert 0 < recipe["largest_difference"] < 1e-5
    assert recipe["provenance"] == {"keras": "3"}
    assert len(recipe["witnesses"]) == 2


@pytest.mark.parametrize("wrong", ["sequences", "h", "c"])
def test_no_case_is_recorded_when_the_witnesses_disagree(plain, monkeypatch, wrong):
    honest = reference.run

    def off_by_a_little(*args):
        sequences, (h, c) = honest(*args)
        return sequences + 1e-4 * (wrong == "sequences"), [h + 1e-4 * (wrong == "h"), c + 1e-4 * (wrong == "c")]

    monkeypatch.setattr(reference, "run", off_by_a_little)
    with pytest.raises(ParityError, match=f"witnesses disagree(.|\n)*t1, port '(y|lstm_{wrong})'"):
        recorded(plain)


# NumPy tells of the NaN that these models give, which is what is tested.
not_finite = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


def logarithm(offset=0.0):
    x = Input((None, F), name="x")
    return keras.Model(x, layers.LSTM(U, name="lstm")(ops.log(x + offset)))


@not_finite
def test_a_model_that_takes_logarithms_is_recorded_on_positive_feeds(scramble):
    case = recorded(opened(scramble(logarithm())))
    for run in case.runs:
        assert run.feeds["x"].min() > 0
        assert all(np.isfinite(value).all() for value in run.expect.values())


@not_finite
def test_a_model_that_is_never_finite_is_refused_with_a_way_out(scramble):
    with pytest.raises(UnsupportedModel, match=r"NaN or infinity(.|\n)*--feeds FILE.npz"):
        recorded(opened(scramble(logarithm(offset=-1000.0))))


def test_the_callers_feeds_are_one_run_from_zero_state(plain):
    x = np.random.default_rng(0).standard_normal((2, 5, F)).astype(np.float32)
    [run] = recorded(plain, feeds={"x": x}).runs
    assert run.name == "feeds"
    np.testing.assert_array_equal(run.feeds["x"], x)
    assert not run.feeds["lstm_h_in"].any()
    assert not run.feeds["lstm_c_in"].any()
    assert run.expect["y"].shape == (2, 5, 2)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"y": np.zeros((1, 2, F), np.float32)}, "'x' is missing"),
        ({"x": np.zeros((1, 2, F + 1), np.float32)}, f"[1, 2, {F + 1}]"),
        ({"x": np.zeros((1, 2, F))}, "float64"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(plain, feeds, said):
    with pytest.raises(FeedError) as refused:
        recorded(plain, feeds=feeds)
    assert said in str(refused.value)


def test_time_axes_of_their_own_differ_in_length(scramble):
    source, target = Input((None, F), name="source"), Input((None, 2), name="target")
    _, h, c = layers.LSTM(U, return_state=True, name="encoder")(source)
    y = layers.LSTM(U, return_sequences=True, name="decoder")(target, initial_state=[h, c])
    both = opened(scramble(keras.Model([source, target], y)))
    for run in recorded(both, totals=(1, 6)).runs:
        assert run.feeds["source"].shape[1] != run.feeds["target"].shape[1]


def test_a_fixed_time_overrides_the_totals(plain):
    model, _, ports = plain
    case = witness.record(model, ports, {"time": 4}, totals=(1, 7))
    assert [run.feeds["x"].shape[1] for run in case.runs] == [4]


def test_totals_are_short_and_odd_or_what_the_model_takes(plain, scramble):
    totals = witness.totals_for(plain[1])
    assert {1, 2} <= set(totals)
    assert any(total > 2 and total % 2 for total in totals)
    assert any(total > 32 for total in totals)  # past one block of TFLite's loop
    pooled = keras.Sequential([Input((None, F)), layers.AveragePooling1D(4), layers.LSTM(U)])
    for total in witness.totals_for(opened(scramble(pooled))[1]):
        assert pooled(np.zeros((1, total, F), np.float32)).shape == (1, U)


def test_a_model_that_amplifies_rounding_is_recorded_on_the_rows_where_that_matters_least(monkeypatch):
    """Its first rows are Keras' own float32 rounding, seventy times over; the numbers recorded are still right."""
    model = keras.Sequential([Input((25, F), name="x"), layers.LSTM(8, name="lstm")])
    rng = np.random.default_rng(0)
    model.set_weights([(3 * rng.standard_normal(w.shape)).astype(w.dtype) for w in model.get_weights()])
    found = opened(model)
    case = recorded(found, (25,))
    [run] = case.runs
    assert len(run.feeds["x"]) == witness.ROWS
    first, _ = witness._draws(found[2].signatures["sequence"], {}, 25, 0, witness.ROWS)
    silent = (first["x"] == 0).all(-1)
    assert silent.any()
    assert np.array_equal((run.feeds["x"] == 0).all(-1), silent)  # calm, but not because nothing is run
    monkeypatch.setattr(witness, "CALM", np.inf)
    assert case.recipe["largest_difference"] < 0.3 * recorded(found, (25,)).recipe["largest_difference"]
    h, c = (run.feeds[f"lstm_{short}_in"].astype(float) for short in "hc")
    kernel, recurrent, bias = (w.astype(float) for w in model.get_weights())
    for x in np.moveaxis(run.feeds["x"].astype(float), 1, 0):
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    np.testing.assert_allclose(run.expect["lstm_c"], c, rtol=1e-6, atol=1e-6)
