"""Ports know their axes; feeds are refused for names, then shapes, then types, each in a sentence."""

from dataclasses import replace

import numpy as np
import pytest

from signatures import Carry, Port, Signature
from signatures.errors import FeedError

SIGNATURE = Signature(
    "sequence",
    inputs=(
        Port("x", "input", ("batch", "time", 3), time_axis=1),
        Port("token", "input", ("batch", "time"), "int32", below=10, time_axis=1),
        Port("h_in", "state", ("batch", 4)),
        Port("back_h_in", "state", ("batch", 5)),
    ),
    outputs=(Port("h", "state", ("batch", 4)), Port("back_h", "state", ("batch", 5))),
    carries=(Carry("h", "h_in"),),
)


def good(rows=2, total=6):
    return {
        "x": np.zeros((rows, total, 3), np.float32),
        "token": np.zeros((rows, total), np.int32),
        "h_in": np.zeros((rows, 4), np.float32),
        "back_h_in": np.zeros((rows, 5), np.float32),
    }


def refusal(change, dims=None, signature=SIGNATURE):
    """Return the sentence that good feeds are refused with after a change; None takes a port away."""
    feeds = {name: value for name, value in {**good(), **change}.items() if value is not None}
    with pytest.raises(FeedError) as refused:
        signature.check_feeds(feeds, dims or {})
    return str(refused.value)


def test_a_port_says_itself_which_axis_counts_time():
    assert Port("p", "input", ("batch", 4, "steps", 3), time_axis=2).timed
    assert Port("p", "input", ("batch", 4, "steps", 3), time_axis=2).time == "steps"
    assert not Port("time", "input", ("batch", "time_memory", 3)).timed


def test_time_steps_are_cut_and_joined_along_their_axis():
    port = Port("p", "input", ("batch", 4, "time", 3), time_axis=2)
    array = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    pieces = [port.steps(array, 0, 2), port.steps(array, 2, 4)]
    np.testing.assert_array_equal(pieces[1], array[:, :, 2:])
    np.testing.assert_array_equal(port.in_a_row(pieces), array)
    assert Port("p", "output", ("batch", 4)).in_a_row([array, pieces[0]]) is pieces[0]


@pytest.mark.parametrize(
    ("lead", "rows"), [("batch * 2", [2, 3, 0, 1]), ("2 * batch", [1, 0, 4, 3]), ("batch", [1, 0])]
)
def test_samples_that_have_several_rows_are_picked_and_put_together_whole(lead, rows):
    port = Port("p", "state", (lead, 3))
    count = len(rows) // 2 * 3 if len(rows) > 2 else 3
    array = np.arange(count * 3).reshape(count, 3)
    np.testing.assert_array_equal(port.samples(array, np.array([1, 0])), array[rows])
    parts = [port.samples(array, np.array([k])) for k in range(3)]
    np.testing.assert_array_equal(port.side_by_side(parts), array)


@pytest.mark.parametrize(
    ("dim", "size"), [("batch", 3), ("batch * 4", 12), ("4 * batch", 12), ("time", "time"), (7, 7)]
)
def test_a_dimension_is_sized_where_what_it_counts_is_known(dim, size):
    assert Port("p", "state", (dim,)).sized({"batch": 3}) == (size,)


def test_feeds_of_folded_rows_must_be_as_many_as_the_samples_make():
    ports = Port("h_in", "state", ("batch * 4", 2)), Port("x", "input", ("batch", "time", 3), time_axis=1)
    signature = Signature("sequence", ports, (), ())
    feeds = {"x": np.zeros((2, 5, 3), np.float32), "h_in": np.zeros((8, 2), np.float32)}
    signature.check_feeds(feeds)
    assert signature.count(feeds) == 2
    assert signature.initial_state(2)["h_in"].shape == (8, 2)
    with pytest.raises(FeedError, match=r"'h_in' has shape \[2, 2\]; it must be \[8, 2\]"):
        signature.check_feeds({**feeds, "h_in": np.zeros((2, 2), np.float32)})


def test_sized_fills_in_what_is_fixed_and_leaves_the_rest():
    assert Port("p", "input", ("batch", "time", 3), time_axis=1).sized({"time": 9}) == ("batch", 9, 3)


@pytest.mark.parametrize("batch", [1, 3])
def test_initial_state_is_zeros_for_every_state_input(batch):
    state = SIGNATURE.initial_state(batch)
    assert list(state) == ["h_in", "back_h_in"]
    assert state["h_in"].shape == (batch, 4)
    assert state["h_in"].dtype == np.float32
    assert not state["h_in"].any()


def test_initial_state_is_fresh_each_time():
    SIGNATURE.initial_state()["h_in"] += 1
    assert not SIGNATURE.initial_state()["h_in"].any()


@pytest.mark.parametrize(("rows", "total"), [(1, 1), (2, 6), (5, 1000)])
def test_any_batch_and_any_number_of_time_steps_fit(rows, total):
    SIGNATURE.check_feeds(good(rows, total))


def test_what_the_artifact_fixes_fits_when_it_matches():
    SIGNATURE.check_feeds(good(), {"batch": 2, "time": 6})


ROWS2 = np.zeros((2, 6, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"token": None}, "input 'token' is missing; give back_h_in, h_in, token, x"),
        ({"y": ROWS2}, "there is no input 'y'; inputs are back_h_in, h_in, token, x"),
        ({"x": ROWS2[0]}, "input 'x' has shape [6, 3]; it must be [batch, time, 3]"),
        ({"x": ROWS2[..., :2]}, "input 'x' has shape [2, 6, 2]; it must be [2, 6, 3]"),
        ({"x": ROWS2[:, :0]}, "input 'x' is empty, shape [2, 0, 3]; give at least one"),
        ({"x": ROWS2[:0]}, "input 'x' is empty, shape [0, 6, 3]; give at least one"),
        ({"token": np.zeros((2, 5), np.int32)}, "input 'token' has shape [2, 5]; it must be [2, 6]"),
        ({"h_in": np.zeros((3, 4), np.float32)}, "input 'h_in' has shape [3, 4]; it must be [2, 4]"),
        ({"x": ROWS2.astype(np.float64)}, "input 'x' is float64; it must be float32"),
        ({"token": np.zeros((2, 6), np.int64)}, "input 'token' is int64; it must be int32"),
        ({"h_in": np.zeros((2, 4), np.float16)}, "input 'h_in' is float16; it must be float32"),
    ],
    ids=["missing", "unknown", "rank", "size", "no_time", "no_rows", "time", "batch", "float64", "int64", "float16"],
)
def test_a_bad_feed_is_refused_in_a_sentence(change, sentence):
    assert refusal(change) == f"sequence: {sentence}."


def test_a_call_takes_a_multiple_of_some_time_steps():
    pairs = replace(SIGNATURE, every=2)
    pairs.check_feeds(good(total=6))
    said = "sequence: input 'x' has 5 time steps; a call takes a multiple of 2."
    with pytest.raises(FeedError) as refused:
        pairs.check_feeds(good(total=5))
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"token": None, "y": ROWS2}, "'token' is missing"),
        ({"y": ROWS2, "x": ROWS2[0]}, "no input 'y'"),
        ({"x": np.zeros((2, 6, 9), np.float64)}, "'x' has shape"),
    ],
    ids=["missing_before_unknown", "names_before_shapes", "shapes_before_types"],
)
def test_the_order_of_the_checks(change, first):
    assert first in refusal(change)


@pytest.mark.parametrize(("dims", "shape"), [({"batch": 1}, "[1, time, 3]"), ({"time": 5}, "[2, 5, 3]")])
def test_dims_fixed_by_the_artifact_are_required(dims, shape):
    assert refusal({}, dims) == f"sequence: input 'x' has shape [2, 6, 3]; it must be {shape}."


def test_a_signatures_own_dims_come_before_the_artifacts():
    """`step` takes one time step even where the artifact's `sequence` is fixed to six."""
    step = Signature("step", SIGNATURE.inputs, SIGNATURE.outputs, SIGNATURE.carries, {"time": 1})
    step.check_feeds(good(total=1), {"time": 6})
    assert refusal({}, {"time": 6}, step) == "step: input 'x' has shape [2, 6, 3]; it must be [2, 1, 3]."
