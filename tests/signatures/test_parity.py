"""A right artifact passes; every way in which exported LSTMs are known to go wrong fails, at the port that is wrong."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signatures import Case, ParityReport, Port, PortDiff, Run, Tolerance, check, parity
from signatures.errors import ArtifactError
from signatures.feeds import random_feeds
from signatures.parity import compare

STATES, STATES_IN = ("memory_h", "memory_c"), ("memory_h_in", "memory_c_in")
EVERY_PORT = {"scores", "label", "memory_sequences", *STATES}


def found(report):
    """Return what failed, check -> ports."""
    return {name: {d.port for d in report.failures if d.check == name} for name in {d.check for d in report.failures}}


# Right artifacts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("sequence", "step"), ("sequence",), ("step",)], ids="+".join)
@pytest.mark.parametrize("options", [{}, {"speaker": True}, {"lengths": True}], ids=["plain", "static", "lengths"])
@pytest.mark.parametrize("dims", [{}, {"batch": 1}, {"batch": 2}, {"batch": 3}, {"batch": 8}], ids=str)
def test_a_right_artifact_passes(fake, names, options, dims):
    """Three rows, whatever batch the artifact is fixed to."""
    case = fake.case(1, 2, 9, speaker="speaker" in options)
    report = check(fake.artifact(names=names, dims=dims, **options), case)
    assert report.ok, report.summary()
    assert {d.port for d in report.diffs} == EVERY_PORT
    assert {d.run for d in report.diffs} == {"t1", "t2", "t9"}


@pytest.mark.parametrize(
    ("names", "checks"),
    [
        (("sequence", "step"), {"sequence", "repeat", "steps", "chunks", "reset"}),
        (("sequence",), {"sequence", "repeat", "chunks", "reset"}),
        (("step",), {"steps", "chunks"}),
    ],
)
def test_every_call_that_the_artifact_has_is_tried(fake, names, checks):
    report = check(fake.artifact(names=names), fake.case(9))
    assert {d.check for d in report.diffs} >= checks
    for name in checks:
        assert {d.port for d in report.diffs if d.check == name} == EVERY_PORT


@pytest.mark.parametrize("names", [("sequence",), ("sequence", "step"), ("step",)])
def test_calls_are_of_a_multiple_of_what_the_contract_says(fake, names):
    made = fake.contract(names=names).signatures
    dims = {"sequence": {}, "step": {"time": 2}}
    pairs = {name: replace(each, every=2, dims=dims[name]) for name, each in made.items()}
    called = {name: set() for name in names}

    def noting(name, feeds):
        called[name].add(feeds["x"].shape[1])
        return fake.lstm(feeds)

    artifact = fake.artifact(noting, contract=replace(fake.contract(names=names), signatures=pairs))
    assert check(artifact).ok
    assert check(artifact, fake.case(20)).ok
    assert called.pop("step", {2}) == {2}
    for totals in called.values():
        assert {total % 2 for total in totals} == {0}
        assert len(totals) > 5


@pytest.mark.parametrize(
    "options", [{}, {"speaker": True}, {"lengths": True}, {"dims": {"batch": 2, "time": 5}}], ids=str
)
def test_a_right_artifact_passes_the_stream_laws_on_its_own(fake, options):
    assert check(fake.artifact(**options)).ok


def test_a_model_that_cannot_be_streamed_is_only_run_whole(fake):
    report = check(fake.artifact(names=("sequence",), no_step="it looks ahead"), fake.case(5))
    assert report.ok
    assert {d.check for d in report.diffs} == {"sequence", "repeat"}


def test_fixed_time_steps_are_compared_where_a_run_has_as_many(fake):
    report = check(fake.artifact(names=("sequence",), dims={"time": 5}), fake.case(5, 7))
    assert report.ok
    assert {d.run for d in report.diffs if d.check == "sequence"} == {"t5"}


def test_lengths_of_the_case_are_used(fake):
    case = fake.case(6)
    feeds = {**case.runs[0].feeds, "lengths": np.array([6, 0, 3], np.int32)}
    stopped = replace(case, runs=(Run("stopped", feeds, fake.lstm(feeds)),))
    assert check(fake.artifact(lengths=True), stopped).ok
    ignores = fake.artifact(lambda _, f: fake.lstm({n: v for n, v in f.items() if n != "lengths"}), lengths=True)
    assert found(check(ignores, stopped))["sequence"] == EVERY_PORT


# Wrong artifacts ----------------------------------------------------------------------------------------------------


def outputs_changed(change):
    return lambda call: lambda signature, feeds: change(dict(call(signature, feeds)))


def feeds_changed(change):
    return lambda call: lambda signature, feeds: call(signature, change(dict(feeds)))


def swap(one, other):
    return lambda values: {**values, one: values[other], other: values[one]}


def scale_on(port, factor):
    return lambda values: {**values, port: values[port] * np.float32(factor)}


def shift_in_time(port):
    return lambda values: {**values, port: np.roll(values[port], 1, axis=1)}


def zero_states(feeds):
    return {**feeds, **{name: np.zeros_like(feeds[name]) for name in STATES_IN}}


def nan_in(port):
    def change(outputs):
        spoilt = outputs[port].copy()
        spoilt.flat[-1] = np.nan
        return {**outputs, port: spoilt}

    return change


def row(port, k):
    """Spoil one row of a port."""

    def change(outputs):
        spoilt = outputs[port].copy()
        spoilt[k:, ...] += 1
        return {**outputs, port: spoilt}

    return change


def keeps_hidden_state(call):
    """Start every call but the first from what the one before left behind, when it was as large."""
    left = {}

    def hidden(signature, feeds):
        if left and left["memory_h_in"].shape == feeds["memory_h_in"].shape:
            feeds = {**feeds, "memory_h_in": feeds["memory_h_in"] + left["memory_h_in"]}
        outputs = call(signature, feeds)
        left["memory_h_in"] = outputs["memory_h"]
        return outputs

    return hidden


WRONG = {
    "state swapped on the way in": (feeds_changed(swap(*STATES_IN)), EVERY_PORT),
    "state swapped on the way out": (outputs_changed(swap(*STATES)), set(STATES)),
    "state ignored": (feeds_changed(zero_states), EVERY_PORT),
    "scores one step late": (outputs_changed(shift_in_time("scores")), {"scores"}),
    "h of every step one step late": (outputs_changed(shift_in_time("memory_sequences")), {"memory_sequences"}),
    "c slightly off": (outputs_changed(scale_on("memory_c", 1.001)), {"memory_c"}),
    "one NaN": (outputs_changed(nan_in("memory_c")), {"memory_c"}),
    "another type": (outputs_changed(lambda o: {**o, "label": o["label"].astype(np.float64)}), {"label"}),
    "another shape": (outputs_changed(lambda o: {**o, "label": o["label"][:, None]}), {"label"}),
    "the wrong last step": (outputs_changed(lambda o: {**o, "label": o["scores"][:, 0]}), {"label"}),
    "last row wrong": (outputs_changed(row("label", 2)), {"label"}),
}


@pytest.mark.parametrize(("wrong", "ports"), WRONG.values(), ids=WRONG)
def test_a_wrong_artifact_fails_at_the_port_that_is_wrong(fake, wrong, ports):
    report = check(fake.artifact(wrong(lambda _, feeds: fake.lstm(feeds))), fake.case(4))
    assert not report.ok
    assert found(report)["sequence"] == ports
    assert any(repr(port) in report.summary() for port in EVERY_PORT)


@pytest.mark.parametrize("gates", ["igfo", "iofg", "figo", "ifog"])
def test_a_wrong_gate_order_fails(fake, gates):
    wrong = fake.artifact(lambda _, feeds: fake.lstm(feeds, gates=gates))
    assert found(check(wrong, fake.case(3)))["sequence"] == EVERY_PORT


def test_hidden_state_fails_the_repeated_call(fake):
    """The first call is right: only calling again shows it."""
    report = check(fake.artifact(keeps_hidden_state(lambda _, feeds: fake.lstm(feeds))), fake.case(4))
    assert "sequence" not in found(report)
    assert found(report)["repeat"] == EVERY_PORT
    assert "reset" in found(report)


def test_the_repeated_call_is_held_to_the_last_bit(fake):
    """A difference far below the tolerance is still hidden state."""
    calls = []

    def drifts(_, feeds):
        calls.append(1)
        outputs = fake.lstm(feeds)
        return {**outputs, "label": outputs["label"] + np.float32(2e-7 * len(calls))}

    report = check(fake.artifact(drifts), fake.case(4))
    assert found(report) == {"repeat": {"label"}, "reset": {"label"}}


@pytest.mark.parametrize("signature", ["sequence", "step"])
def test_each_signature_is_checked(fake, signature):
    def wrong(called, feeds):
        outputs = fake.lstm(feeds)
        return {**outputs, **({"memory_c": outputs["memory_c"] + 1} if called == signature else {})}

    assert found(check(fake.artifact(wrong), fake.case(4)))["sequence" if signature == "sequence" else "steps"]


def test_an_artifact_that_is_right_only_for_all_steps_at_once_fails_in_chunks(fake):
    def wrong(_, feeds):
        outputs = fake.lstm(feeds)
        return {**outputs, "memory_c": outputs["memory_c"] + (feeds["x"].shape[1] not in (1, 20))}

    assert set(found(check(fake.artifact(wrong, names=("sequence",)), fake.case(20)))) == {"chunks"}


def test_a_port_that_the_case_lacks_fails(fake):
    case = fake.case(4)
    expect = {name: value for name, value in case.runs[0].expect.items() if name != "memory_c"}
    report = check(fake.artifact(), replace(case, runs=(replace(case.runs[0], expect=expect),)))
    assert found(report)["sequence"] == {"memory_c"}
    assert "port 'memory_c': not in the case" in report.summary()


def test_a_port_that_the_contract_lacks_fails(fake):
    contract = fake.contract(names=("sequence",))
    sequence = contract.signatures["sequence"]
    without = replace(sequence, outputs=tuple(port for port in sequence.outputs if port.name != "label"))
    report = check(fake.artifact(contract=replace(contract, signatures={"sequence": without})), fake.case(4))
    assert found(report)["sequence"] == {"label"}
    assert "port 'label': missing from the artifact" in report.summary()


def test_a_port_that_the_artifact_lacks_fails(fake):
    """The contract promises memory_h; the file doesn't give it."""
    lacking = fake.artifact(lambda _, feeds: {n: v for n, v in fake.lstm(feeds).items() if n != "memory_h"})
    try:
        sentence = check(lacking, fake.case(4)).summary()
    except ArtifactError as refused:
        sentence = str(refused)
    assert "'memory_h'" in sentence


def test_run_gives_the_ports_of_the_contract_and_no_others(fake):
    artifact = fake.artifact(outputs_changed(lambda o: {**o, "scratch": o["label"]})(lambda _, feeds: fake.lstm(feeds)))
    assert set(artifact.run("sequence", fake.feeds(4))) == EVERY_PORT


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_keep_their_place_when_the_batch_is_fixed(fake, batch):
    """Three rows in groups of one or two: a wrong value of the third row is found in the third row."""
    case = fake.case(4)
    case.runs[0].expect["memory_c"][2, 1] += 1
    diffs = [d for d in check(fake.artifact(dims={"batch": batch}), case).failures if d.check == "sequence"]
    assert [(d.port, d.worst) for d in diffs] == [("memory_c", (2, 1))]


@pytest.mark.parametrize(
    "wrong",
    [
        feeds_changed(swap(*STATES_IN)),
        feeds_changed(zero_states),
        outputs_changed(swap(*STATES)),
        outputs_changed(shift_in_time("scores")),
        outputs_changed(nan_in("label")),
        keeps_hidden_state,
    ],
    ids=["swapped_in", "ignored", "swapped_out", "late", "nan", "hidden"],
)
def test_the_stream_laws_alone_find_what_breaks_a_stream(fake, wrong):
    assert not check(fake.artifact(wrong(lambda _, feeds: fake.lstm(feeds)))).ok


@pytest.mark.parametrize(
    ("no_step", "totals"), [(None, {1, 2, 23}), ("it looks ahead", {6})], ids=["streamed", "whole"]
)
def test_the_stream_laws_are_tried_on_lengths_that_the_model_runs(fake, no_step, totals):
    """A model that can't be streamed is only known to run with the contract's example, six time steps."""
    seen = set()

    def call(_, feeds):
        seen.add(feeds["x"].shape[1])
        return fake.lstm(feeds)

    report = check(fake.artifact(call, names=("sequence",), no_step=no_step))
    assert report.ok
    assert seen >= totals if no_step is None else seen == totals


def test_a_contract_without_an_example_is_held_to_the_stream_laws(fake):
    assert check(fake.artifact(contract=replace(fake.contract(), example={}))).ok


@pytest.mark.parametrize("names", [("sequence", "step"), ("sequence",), ("step",)], ids="+".join)
def test_the_stream_laws_compare_nothing_with_itself(fake, names):
    """The first way of calling a run is what the others are held to; it isn't one of the comparisons."""
    held_to = "sequence" if "sequence" in names else "steps"
    report = check(fake.artifact(names=names))
    assert report.ok
    assert report.diffs
    assert held_to not in {diff.check for diff in report.diffs}
    assert {d.check for d in check(fake.artifact(names=names), fake.case(9)).diffs} >= {held_to}


def test_the_stream_laws_hold_outputs_to_the_contract(fake):
    flat = fake.artifact(outputs_changed(lambda o: {**o, "label": o["label"][:, 0]})(lambda _, f: fake.lstm(f)))
    with pytest.raises(ArtifactError, match=r"output 'label' is float32 \[2\] where its contract says"):
        check(flat)


def test_the_stream_laws_alone_cannot_see_wrong_numbers(fake):
    """A wrong gate order streams as well as a right one: that is what cases are for."""
    wrong = fake.artifact(lambda _, feeds: fake.lstm(feeds, gates="igfo"))
    assert check(wrong).ok
    assert not check(wrong, fake.case(4)).ok


# The report ---------------------------------------------------------------------------------------------------------


def test_nothing_compared_is_not_ok(fake):
    """A model that can't be streamed, fixed to five time steps, and a case of other lengths."""
    fixed = fake.artifact(names=("sequence",), dims={"time": 5}, no_step="it looks ahead")
    report = check(fixed, fake.case(4, 6))
    assert report.diffs == ()
    assert not report.ok
    assert report.summary().startswith("Nothing was compared")


def test_comparing_an_artifact_with_itself_only_is_not_ok(fake):
    """Ten time steps never meet an artifact of five, whose gates are in the wrong order."""
    wrong = fake.artifact(lambda _, f: fake.lstm(f, gates="igfo"), names=("sequence",), dims={"time": 5})
    assert not check(wrong, fake.case(10)).ok


def test_a_first_run_that_does_not_fit_fixed_time_steps_is_passed_over(fake):
    fixed = fake.artifact(names=("sequence",), dims={"time": 5})
    assert check(fixed, fake.case(4, 5)).ok


def test_a_case_without_runs_is_not_ok(fake):
    assert not check(fake.artifact(), Case("empty", ())).ok


def test_the_tolerance_is_the_cases_own(fake):
    off = fake.artifact(outputs_changed(scale_on("label", 1.01))(lambda _, feeds: fake.lstm(feeds)))
    case = fake.case(4)
    assert not check(off, case).ok
    wide = check(off, replace(case, tolerance=Tolerance(0.1, 0.1)))
    assert wide.ok
    assert wide.tolerance == Tolerance(0.1, 0.1)


def test_progress_hears_each_run(fake):
    heard = []
    check(fake.artifact(), fake.case(1, 4), heard.append)
    assert heard == ["t1", "t4"]


def test_the_report_names_target_and_case(fake):
    report = check(fake.artifact(), fake.case(2))
    assert (report.target, report.case) == ("tflite", "tiny")


def test_failures_come_worst_first():
    diffs = [PortDiff("sequence", "t1", p, needed=n, ok=n < 0.1) for p, n in [("a", 0.2), ("b", 0), ("c", np.inf)]]
    report = ParityReport("onnx", "tiny", Tolerance(), tuple(diffs))
    assert [d.port for d in report.failures] == ["c", "a"]
    assert report.summary().startswith("2 of 3 comparisons differ. Worst: sequence of t1, port 'c'")


# compare() ----------------------------------------------------------------------------------------------------------

WANT = np.array([[1.0, -2.0, 0.0], [4.0, 0.5, 100.0]], np.float32)


THOUSANDTH = Tolerance(1e-3, 1e-3)


def diff(got, want=WANT, tolerance=THOUSANDTH):
    [one] = compare("sequence", "t1", {"h": want}, {"h": got}, tolerance)
    return one


def test_what_is_equal_passes_with_no_tolerance():
    same = diff(WANT.copy(), tolerance=Tolerance(0, 0))
    assert (same.ok, same.max_abs, same.needed) == (True, 0, 0)


def test_ports_are_compared_by_name_from_both_sides():
    diffs = compare("steps", "t2", {"a": WANT, "b": WANT}, {"b": WANT, "c": WANT}, Tolerance())
    assert [(d.check, d.run, d.port, d.ok) for d in diffs] == [
        ("steps", "t2", "a", False),
        ("steps", "t2", "b", True),
        ("steps", "t2", "c", False),
    ]
    assert diffs[0].note == "missing from the artifact"
    assert diffs[2].note.startswith("not in the case")


SPOILT = np.full((2, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("got", "want", "note"),
    [
        (SPOILT.astype(np.float64)[0], WANT, "shape [3] where [2, 3] was expected"),
        (WANT[:1], WANT, "shape [1, 3] where [2, 3] was expected"),
        (np.ones(1, np.float32), np.ones((1, 1), np.float32), "shape [1] where [1, 1] was expected"),
        (SPOILT.astype(np.float64), WANT, "float64 where float32 was expected"),
        (SPOILT, WANT, "NaN or infinity"),
        (WANT, SPOILT, "NaN or infinity"),
        (SPOILT, SPOILT, "NaN or infinity"),
        (np.full((2, 3), np.inf, np.float32), np.full((2, 3), np.inf, np.float32), "NaN or infinity"),
    ],
    ids=[
        "shape_first",
        "no_broadcast",
        "same_size",
        "then_type",
        "nan_got",
        "nan_expected",
        "nan_both",
        "infinity_both",
    ],
)
def test_what_cannot_be_compared_fails_with_a_note(got, want, note):
    fault = diff(got, want, Tolerance(1e9, 1e9))
    assert (fault.ok, fault.note, fault.needed) == (False, note, np.inf)
    assert str(fault) == f"sequence of t1, port 'h': {note}."


def test_the_numbers_of_a_difference():
    """Off by 0.02 at -2 (1 %) and by 0.5 at 100 (0.5 %): the first needs the wider tolerance, 0.02 / (1 + 2)."""
    got = WANT.copy()
    got[0, 1] += 0.02
    got[1, 2] += 0.5
    off = diff(got)
    assert not off.ok
    assert off.max_abs == pytest.approx(0.5, rel=1e-4)
    assert off.max_rel == pytest.approx(0.01, rel=1e-4)
    assert off.needed == pytest.approx(0.02 / 3, rel=1e-4)
    assert off.worst == (1, 2)  # 0.5 is 0.399 beyond 0.101; 0.02 is 0.017 beyond 0.003
    assert diff(got, tolerance=Tolerance(0, 0.0075)).worst == (0, 1)  # 100 may be off by 0.75, -2 by 0.015
    assert str(off) == "sequence of t1, port 'h': at [1, 2], max |difference| 0.5; a tolerance of 0.0067 would pass."


def test_p99_leaves_out_the_few_largest():
    want = np.zeros(1001, np.float32)
    got = want.copy()
    got[:5] = 3
    got[5:] = 0.25
    assert (diff(got, want).max_abs, diff(got, want).p99) == (3, 0.25)


def test_relative_tolerance_counts_from_what_was_expected():
    """9 where 10 was expected is 10 % off; 10 where 9 was expected is more."""
    nine, ten = np.float32([9]), np.float32([10])
    assert diff(nine, ten, Tolerance(0, 0.101)).ok
    assert not diff(ten, nine, Tolerance(0, 0.101)).ok


FLOATS = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=6))
def test_the_needed_tolerance_is_the_smallest_that_passes(pairs):
    got, want = np.array(pairs, np.float32).T
    needed = diff(got, want).needed
    wide, narrow = needed * (1 + 1e-9), needed * (1 - 1e-6)
    assert diff(got, want, Tolerance(wide, wide)).ok
    assert needed == 0 or not diff(got, want, Tolerance(narrow, narrow)).ok


def test_integers_are_compared_too():
    want = np.array([2**31 - 1, 5], np.int32)
    assert diff(want.copy(), want, Tolerance(0, 0)).ok
    assert not diff(want - np.int32(1), want, Tolerance(0, 0)).ok


def test_the_tolerance_in_the_sentence_would_pass():
    want, got = np.zeros(1, np.float32), np.float32([0.0124])
    stated = float(str(diff(got, want)).split("a tolerance of ")[1].split()[0])
    assert diff(got, want, Tolerance(stated, stated)).ok


def noisy(off, noise):
    """Return the difference of a port in [0, 1] that is off by a number of tolerances, with a noise."""
    want = np.linspace(0, 1, 11, dtype=np.float32)
    got = want.copy()
    got[0] += np.float32(1e-5 * off)
    [one] = compare("sequence", "t1", {"h": want}, {"h": got}, Tolerance(), {"h": noise})
    return one


def test_a_port_may_be_off_by_four_times_its_noise():
    assert noisy(0.9, 0).ok
    assert not noisy(1.1, 0).ok
    assert noisy(11.9, 3).ok
    assert not noisy(12.1, 3).ok
    assert noisy(11.9, 3).share == pytest.approx(11.9, rel=1e-3)
    assert noisy(11.9, 3).noise == 3


def test_noise_widens_nothing_where_the_model_is_calm_or_the_noise_is_large():
    assert not noisy(1.1, 0.25).ok
    assert not noisy(1.1, 51).ok  # beyond a thousandth of what the port holds: 1e-3 of 1 is 50 tolerances of 2e-5


def test_noise_is_held_against_the_range_of_all_samples_where_some_are_run(fake, monkeypatch):
    """Steps of long runs are those of one call, whose values may lie close to each other."""
    monkeypatch.setattr(parity, "ALL_STEPPED", 3)
    [run] = fake.case(4).runs
    run.feeds["x"][0] = 0.5

    def last(feeds, off):
        return {**fake.lstm(feeds), "label": feeds["x"][:, -1, :2] + np.float32(off)}

    run = replace(run, expect=last(run.feeds, 0), noise={"label": 3.0})
    case = Case("tiny", (run,))
    artifact = partial(fake.artifact, dims={"batch": 1})
    assert {d.check for d in check(artifact(lambda _, feeds: last(feeds, 0)), case).diffs} >= {"steps"}
    assert check(artifact(lambda _, feeds: last(feeds, 3e-5)), case).ok
    assert not check(artifact(lambda _, feeds: last(feeds, 3e-4)), case).ok


def test_nothing_in_a_port_is_nothing_wrong():
    assert diff(np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)).ok


def test_the_report_tells_the_share_of_the_tolerance_and_the_noise(fake):
    case = fake.case(4)
    quiet = check(fake.artifact(), case)
    assert 0 < quiet.share < 1
    assert f"{len(quiet.diffs)} comparisons within 1e-05 (" in quiet.summary()
    run = replace(case.runs[0], noise=dict.fromkeys(EVERY_PORT, 3.0), inputs="smooth")
    off = fake.artifact(outputs_changed(scale_on("memory_c", 1.00005))(lambda _, feeds: fake.lstm(feeds)))
    report = check(off, replace(case, runs=(run,)))
    assert report.ok
    assert "within 4 times the noise" in report.summary()
    assert report.inputs == {"t4": "smooth"}
    assert not check(off, case).ok


# random_feeds() -----------------------------------------------------------------------------------------------------


def test_random_feeds_fit_their_ports():
    ports = (
        Port("x", "input", ("batch", "time", 3), time_axis=1),
        Port("word", "input", ("batch", "time"), "int32", below=5, time_axis=1),
        Port("flag", "input", ("batch",), "int32"),
        Port("lengths", "lengths", ("batch",), "int32"),
        Port("h_in", "state", ("batch", 4)),
    )
    feeds = random_feeds(ports, {"batch": 40, "time": 20}, np.random.default_rng(0))
    for port in ports:
        assert feeds[port.name].shape == port.sized({"batch": 40, "time": 20})
        assert feeds[port.name].dtype == port.dtype
    assert set(feeds["word"].ravel()) == set(range(5))
    assert set(feeds["flag"]) == {0, 1}
    assert (feeds["lengths"].min(), feeds["lengths"].max()) == (0, 20)


def test_random_feeds_leave_holes_for_masks_but_not_in_states():
    ports = (Port("x", "input", ("batch", "time", 3), time_axis=1), Port("h_in", "state", ("batch", 4)))
    feeds = random_feeds(ports, {"batch": 50, "time": 50}, np.random.default_rng(0))
    assert 0.1 < (feeds["x"] == 0).all(axis=2).mean() < 0.3
    assert (feeds["h_in"] != 0).all()


def test_random_feeds_are_the_same_for_the_same_seed():
    draw = partial(random_feeds, (Port("x", "input", ("batch", "time", 3), time_axis=1),), {"batch": 2, "time": 5})
    one, again, other = (draw(np.random.default_rng(seed))["x"] for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
