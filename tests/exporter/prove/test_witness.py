"""Golden numbers: recorded when two witnesses agree, and not otherwise."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import Input, layers, ops

from exporter.lower.eager import InOnePiece
from exporter.memory.recurrence import reorder
from exporter.model.boundary import contract
from exporter.model.function import Model
from exporter.model.survey import survey
from exporter.prove import draws, reference, witness
from signatures import Runner, Tolerance, check
from signatures.contract import ArtifactInfo
from signatures.errors import FeedError, ParityError, UnsupportedModel
from signatures.golden import TIMES_NOISE

F, U = 3, 4


def opened(keras_model, **options):
    model = Model(keras_model, InOnePiece())
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
    assert [run.name for run in case.runs] == ["t1", "t7", "special"]
    assert seen == ["t1", "t7", "special values"]
    for run, total in zip(case.runs[:2], (1, 7), strict=True):
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
    for run in case.runs[:2]:
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
    assert [run.feeds["x"].shape[1] for run in case.runs] == [4, 4]


def test_totals_are_short_and_odd_or_what_the_model_takes(plain, scramble):
    totals = witness.totals_for(plain[1])
    assert {1, 2} <= set(totals)
    assert any(total > 2 and total % 2 for total in totals)
    assert any(total > 32 for total in totals)  # past one block of TFLite's loop
    pooled = keras.Sequential([Input((None, F)), layers.AveragePooling1D(4), layers.LSTM(U)])
    for total in witness.totals_for(opened(scramble(pooled))[1]):
        assert pooled(np.zeros((1, total, F), np.float32)).shape == (1, U)


# Models that amplify rounding ----------------------------------------------------------------------------------------

LONG = 25


def stirred(layer, scale, recurrent):
    """Return a model of one recurrent layer whose weights are so large that rounding doubles every few steps."""
    model = keras.Sequential([Input((LONG, F), name="x"), layer])
    rng = np.random.default_rng(0)
    weights = zip((scale, recurrent, scale), model.get_weights(), strict=True)
    model.set_weights([(size * rng.standard_normal(w.shape)).astype(w.dtype) for size, w in weights])
    return opened(model)


@pytest.fixture(scope="module")
def stirring():
    """A GRU, and what is recorded of it where no other kind of inputs is left to try."""
    found = stirred(layers.GRU(8, return_sequences=True, name="gru"), 0.5, 2.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(witness, "KINDS", draws.KINDS[:1])
        return found, recorded(found, (LONG,))


def computed(found, change, seed=9):
    """Return a runner of the model whose recurrence is changed before float64, shaken by a rounding, runs it."""
    model, _, ports = found

    def call(_, feeds):
        shaken = witness._shaken(seed).compute  # the same rounding in every call
        return witness._witness(model, ports, feeds, lambda made: shaken(change(made)))

    return Runner(replace(ports, artifacts={"onnx": ArtifactInfo("m.onnx", {"time": LONG})}), "onnx", call)


def of_recurrence(change):
    return lambda made: replace(made, recurrence=change(made.recurrence))


def swapped_gates(recurrence):
    kernel, recurrent, bias = (
        reorder(w, "zrh", "rzh") for w in (recurrence.kernel, recurrence.recurrent_kernel, recurrence.bias)
    )
    return replace(recurrence, kernel=kernel, recurrent_kernel=recurrent, bias=bias)


WRONG = {
    "gates swapped": of_recurrence(swapped_gates),
    "bias lost": of_recurrence(lambda r: replace(r, bias=0 * r.bias)),
    "another GRU": of_recurrence(lambda r: replace(r, reset_after=False, bias=r.bias.sum(axis=0))),
    "run backwards": of_recurrence(lambda r: replace(r, reverse=True)),
    "state lost": lambda made: replace(made, states=[tf.zeros_like(state) for state in made.states]),
    "one step late": lambda made: replace(made, sequences=tf.roll(made.sequences, 1, axis=1)),
    "a weight off by a thousandth": of_recurrence(lambda r: replace(r, kernel=1.001 * r.kernel)),
    "rows mixed up": lambda made: replace(made, states=[state[::-1] for state in made.states]),
}


def test_a_model_that_amplifies_rounding_is_recorded_with_its_noise(stirring):
    _, case = stirring
    run = case.runs[0]
    assert max(run.noise.values()) > 1  # float32 itself is off by more than the tolerance
    assert set(run.noise) == set(run.expect) == set(case.noise)
    assert case.inputs[run.name] == run.inputs == "normal"
    for port, noise in run.noise.items():
        off = noise * case.tolerance.around(run.expect[port]).max()
        assert off < 1e-3 * np.ptp(run.expect[port])


@pytest.mark.parametrize("seed", range(9, 14))
def test_rounding_as_large_as_the_noise_passes(stirring, seed):
    found, case = stirring
    report = check(computed(found, lambda made: made, seed), case)
    assert report.ok, report.summary()
    assert report.share > 1
    assert "times the noise" in report.summary()


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_artifact_of_a_model_that_amplifies_rounding_fails(stirring, wrong):
    found, case = stirring
    only = replace(case, runs=case.runs[:1])
    assert not check(computed(found, wrong), only).ok


def test_a_model_that_is_calm_on_other_inputs_is_recorded_on_those():
    """Normal inputs stir it; the numbers recorded are right, and not because nothing is run."""
    found = stirred(layers.LSTM(8, name="lstm"), 3, 3)
    normal = witness.Recorder(*found[::2], Tolerance(), {}, print)
    first = normal._tried("t", "normal", normal._drawn(LONG, draws.KINDS[0], witness.ROWS))
    run = recorded(found, (LONG,)).runs[0]
    assert len(run.feeds["x"]) == witness.ROWS
    assert run.inputs != "normal"
    assert max(run.noise.values()) < 0.1 * first.noisiest
    silent = (run.feeds["x"] == 0).all(-1).mean(axis=1)
    assert (silent < 0.6).all()
    h, c = (run.feeds[f"lstm_{short}_in"].astype(float) for short in "hc")
    kernel, recurrent, bias = (w.astype(float) for w in found[0].keras.get_weights())
    for x in np.moveaxis(run.feeds["x"].astype(float), 1, 0):
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    np.testing.assert_allclose(run.expect["lstm_c"], c, rtol=1e-6, atol=1e-6)


def test_a_calm_model_keeps_its_normal_inputs_and_its_tolerance(plain):
    case = recorded(plain)
    assert set(case.inputs.values()) == {"normal", "special values"}
    for run in case.runs:
        assert 0 < max(run.noise.values()) <= 1 / TIMES_NOISE
        assert {case.tolerance.factor(value, run.noise[port]) for port, value in run.expect.items()} == {1}


def test_the_search_ends_when_its_time_is_up(monkeypatch):
    found = stirred(layers.GRU(8, return_sequences=True, name="gru"), 0.5, 2.5)
    monkeypatch.setattr(witness, "CALM", 0.0)  # which no model is
    tried, told = [], []
    honest = witness.Recorder._tried
    monkeypatch.setattr(witness.Recorder, "_tried", lambda *args: tried.append(len(args[3]["x"])) or honest(*args))
    monkeypatch.setattr(witness, "SECONDS", np.inf)
    recorded(found, (LONG,), progress=told.append)
    everything = [text for text in told if "looking for inputs" in text]
    assert len(everything) == len(draws.KINDS) - 1
    assert max(tried) <= max(witness.CROWD, len(draws.SPECIAL) + witness.FOUND)
    told.clear()
    monkeypatch.setattr(witness, "SECONDS", 0.0)
    recorded(found, (LONG,), progress=told.append)
    assert len([text for text in told if "looking for inputs" in text]) < len(everything)


def test_rounding_between_the_layers_is_part_of_the_noise(scramble):
    """What Keras itself rounds before the recurrence is the same for both witnesses, and in no artifact."""
    x = Input((None, F), name="x")
    offset = layers.Dense(8, name="offset")(x)
    found = opened(scramble(keras.Model(x, layers.LSTM(U, name="lstm")((offset + 3000.0) - 3000.0))))
    run = recorded(found, (7,)).runs[0]
    assert max(run.noise.values()) > 1


# Special values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, len(draws.SPECIAL)])
def test_special_rows_reach_zeros_inside_the_model(scramble, monkeypatch, rows):
    """Also where no row that is drawn on purpose does: then some are looked for."""
    monkeypatch.setattr(witness, "SPECIAL", draws.SPECIAL[:rows])
    x = Input((None, F), name="x")
    clipped = layers.ReLU(name="clipped")(layers.Dense(4)(layers.LSTM(U, return_sequences=True, name="lstm")(x)))
    run = recorded(opened(scramble(keras.Model(x, layers.UnitNormalization(name="unit")(clipped))))).runs[-1]
    assert (run.name, run.inputs) == ("special", "special values")
    normalised = run.expect["unit"]
    assert (normalised == 0).all(axis=-1).any()
    assert not (normalised == 0).all(axis=-1).all()


def test_special_rows_are_zeros_ties_and_extremes(plain):
    run = recorded(plain).runs[-1]
    x, states = run.feeds["x"], np.concatenate([run.feeds["lstm_h_in"], run.feeds["lstm_c_in"]], axis=1)
    silent, from_zero = (x == 0).all(axis=(1, 2)), (states == 0).all(axis=1)
    assert (silent & from_zero).any()
    assert (silent & ~from_zero).any()
    assert ((np.abs(x) < 1e-29).all(axis=(1, 2)) & ~silent).any()
    assert (x <= -4).all(axis=(1, 2)).any()
    assert (x >= 4).all(axis=(1, 2)).any()
    assert ((x == x[..., :1]).all(axis=(1, 2)) & (x % 1 == 0.5).all(axis=(1, 2))).any()


def test_special_tokens_are_the_first_and_the_last(scramble):
    words = Input((None,), dtype="int32", name="words")
    y = layers.LSTM(U, name="lstm")(layers.Embedding(5, 3, mask_zero=True)(words))
    run = recorded(opened(scramble(keras.Model(words, y)))).runs[-1]
    assert (run.feeds["words"] == 0).all(axis=1).any()
    assert (run.feeds["words"] == 4).all(axis=1).any()


@not_finite
def test_special_rows_on_which_the_model_is_not_finite_are_left_out(scramble):
    run = recorded(opened(scramble(logarithm(offset=0.5)))).runs[-1]
    assert run.name == "special"
    assert run.feeds["x"].min() > -0.5
