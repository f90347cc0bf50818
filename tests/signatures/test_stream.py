"""However the time steps are cut, a stream gives the same numbers; a push that is refused changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signatures import Port
from signatures.errors import ArtifactError, FeedError
from signatures.stream import cut, join

TOTAL = 12


def pushed(stream, feeds, sizes):
    """Push feeds in pieces of these sizes; return timed outputs in a row and the last of the others."""
    pieces, start = [], 0
    for size in sizes:
        timed = {name: v[:, start : start + size] if v.ndim == 3 else v for name, v in feeds.items()}
        pieces.append(stream.push(**timed))
        start += size
    timed = {n: np.concatenate([p[n] for p in pieces], axis=1) for n in ("scores", "memory_sequences")}
    return {**pieces[-1], **timed}


def assert_same(got, want):
    assert set(got) == set(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, atol=1e-6, err_msg=name)


def zero_state(fake, rows, **options):
    """Return feeds without states, and what the LSTM gives for them from zero state in one go."""
    feeds = fake.feeds(TOTAL, rows, state=False, **options)
    zeros = {name: np.zeros((rows, 4), np.float32) for name in ("memory_h_in", "memory_c_in")}
    return feeds, fake.lstm({**feeds, **zeros})


@pytest.mark.parametrize("speaker", [False, True], ids=["one_input", "and_a_static_one"])
@pytest.mark.parametrize("names", [("sequence", "step"), ("sequence",), ("step",)], ids="+".join)
@pytest.mark.parametrize(
    "sizes", [[TOTAL], [1] * TOTAL, [5, 1, 4, 2], [11, 1]], ids=["whole", "steps", "chunks", "end"]
)
@pytest.mark.parametrize("rows", [1, 3])
def test_the_stream_law(fake, speaker, names, sizes, rows):
    feeds, want = zero_state(fake, rows, speaker=speaker)
    stream = fake.artifact(names=names, speaker=speaker).stream(rows)
    assert_same(pushed(stream, feeds, sizes), want)
    assert_same(stream.state, {f"{name}_in": want[name] for name in ("memory_h", "memory_c")})


@given(cuts=st.sets(st.integers(1, TOTAL - 1)))
def test_the_stream_law_for_any_chunks(fake, cuts):
    feeds, want = zero_state(fake, 2)
    sizes = np.diff([0, *sorted(cuts), TOTAL])
    assert_same(pushed(fake.artifact().stream(2), feeds, sizes), want)


def test_fixed_time_steps_run_as_many_calls(fake):
    feeds, want = zero_state(fake, 2)
    stream = fake.artifact(names=("sequence",), dims={"time": 4}).stream(2)
    assert_same(stream.push(feeds["x"]), want)


@pytest.mark.parametrize(
    ("names", "dims", "total", "called"),
    [
        (("sequence", "step"), {}, 5, ["sequence"]),
        (("sequence", "step"), {}, 1, ["step"]),
        (("sequence",), {}, 1, ["sequence"]),
        (("step",), {}, 3, ["step"] * 3),
        (("sequence", "step"), {"time": 4}, 4, ["sequence"]),
        (("sequence", "step"), {"time": 4}, 3, ["step"] * 3),
        (("sequence",), {"time": 4}, 8, ["sequence"] * 2),
    ],
)
def test_which_signature_is_called(fake, names, dims, total, called):
    calls = []

    def call(signature, feeds):
        calls.append(signature)
        return fake.lstm(feeds)

    fake.artifact(call, names=names, dims=dims).stream(2).push(fake.feeds(total, 2)["x"])
    assert calls == called


def test_reset_goes_back_to_the_start(fake):
    feeds, want = zero_state(fake, 2)
    stream = fake.artifact().stream(2)
    stream.push(feeds["x"][:, ::-1])
    assert stream.state["memory_h_in"].any()
    stream.reset()
    assert not any(state.any() for state in stream.state.values())
    assert_same(stream.push(feeds["x"]), want)


def test_a_state_can_be_kept_and_resumed_in_another_stream(fake):
    feeds, want = zero_state(fake, 2)
    artifact = fake.artifact()
    first = artifact.stream(2)
    first.push(feeds["x"][:, :5])
    kept = first.state
    first.push(feeds["x"][:, ::-1])
    second = artifact.stream(2)
    second.state = kept
    assert_same(second.push(feeds["x"][:, 5:]), {**want, **{n: want[n][:, 5:] for n in ("scores", "memory_sequences")}})


def test_streams_of_one_artifact_are_independent(fake):
    feeds, want = zero_state(fake, 1)
    artifact = fake.artifact()
    one, other = artifact.stream(), artifact.stream()
    one.push(feeds["x"][:, :5])
    other.push(feeds["x"][:, ::-1])
    assert_same({n: one.push(feeds["x"][:, 5:])[n] for n in ("memory_h",)}, {"memory_h": want["memory_h"]})


def test_h_and_c_go_back_where_they_came_from(fake):
    stream = fake.artifact().stream(2)
    outputs = stream.push(fake.feeds(3, 2)["x"])
    assert not np.allclose(outputs["memory_h"], outputs["memory_c"])
    np.testing.assert_array_equal(stream.state["memory_h_in"], outputs["memory_h"])
    np.testing.assert_array_equal(stream.state["memory_c_in"], outputs["memory_c"])


@pytest.mark.parametrize("sizes", [[TOTAL], [5, 1, 6], [1] * TOTAL], ids=["whole", "chunks", "steps"])
def test_lengths_left_out_means_every_step_is_valid(fake, sizes):
    feeds, want = zero_state(fake, 2)
    assert_same(pushed(fake.artifact(lengths=True).stream(2), feeds, sizes), want)


@pytest.mark.parametrize("names", [("sequence",), ("step",)], ids="+".join)
def test_lengths_end_the_state_where_they_say(fake, names):
    """Each row's final state is the one after its own valid steps, also where the push becomes several calls."""
    lengths = np.array([0, 1, 7, TOTAL], np.int32)
    feeds, _ = zero_state(fake, len(lengths))
    outputs = fake.artifact(names=names, lengths=True).stream(len(lengths)).push(**feeds, lengths=lengths)
    for row, steps in enumerate(lengths):
        alone = np.zeros((1, 4), np.float32)
        if steps:
            alone = fake.artifact().stream().push(feeds["x"][row : row + 1, :steps])["memory_c"]
        np.testing.assert_allclose(outputs["memory_c"][row : row + 1], alone, atol=1e-6)


def test_cut_slices_what_is_timed_and_counts_lengths_from_the_start():
    ports = (Port("x", "input", ("batch", "time", 1), time_axis=1), Port("s", "input", ("batch", 9)))
    feeds = {"x": np.arange(10).reshape(1, 10, 1), "s": np.arange(9)[None], "lengths": np.array([2, 5, 10])}
    piece = cut(feeds, ports, 4, 3)
    assert piece["x"].ravel().tolist() == [4, 5, 6]
    assert piece["s"].tolist() == [list(range(9))]
    assert piece["lengths"].tolist() == [0, 1, 3]
    assert piece["lengths"].dtype == np.int32


def test_join_puts_timed_outputs_in_a_row_and_keeps_the_last_of_the_others():
    ports = (Port("y", "output", ("batch", "time"), time_axis=1), Port("h", "state", ("batch", 2)))
    joined = join([{"y": np.array([[k]]), "h": np.array([[k, k]])} for k in (1, 2, 3)], ports)
    assert joined["y"].tolist() == [[1, 2, 3]]
    assert joined["h"].tolist() == [[3, 3]]


FRAMES = np.zeros((2, 6, 3), np.float32)
SPEAKER = np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(
    ("options", "inputs", "sentence"),
    [
        ({}, {}, "Input 'x' is missing; push x."),
        ({"speaker": True}, {"x": FRAMES}, "Input 'speaker' is missing; push x, speaker."),
        ({}, {"x": FRAMES, "y": FRAMES}, "there is no input 'y'"),
        ({}, {"x": FRAMES[0]}, "input 'x' has shape [6, 3]; it must be ["),
        ({}, {"x": FRAMES[..., :2]}, "input 'x' has shape [2, 6, 2]; it must be [2, 6, 3]"),
        ({}, {"x": FRAMES.astype(np.float64)}, "input 'x' is float64; it must be float32"),
        (
            {"speaker": True},
            {"x": FRAMES, "speaker": SPEAKER[:1]},
            "input 'speaker' has shape [1, 2]; it must be [2, 2]",
        ),
        ({}, {"x": FRAMES[:, :0]}, "input 'x' is empty, shape [2, 0, 3]"),
        ({}, {"x": FRAMES[0, 0]}, "input 'x' has shape [3]; it must be [2, time, 3]"),
        ({}, {"x": FRAMES, "memory_h_in": FRAMES[:, 0]}, "'memory_h_in' is carried by the stream: set .state instead"),
        (
            {"dims": {"time": 4}, "names": ("sequence",)},
            {"x": FRAMES},
            "6 time steps were pushed; push a multiple of 4",
        ),
        ({"lengths": True}, {"x": FRAMES, "lengths": np.zeros((2, 1), np.int32)}, "input 'lengths' has shape [2, 1]"),
    ],
    ids=[
        "missing",
        "static_missing",
        "unknown",
        "rank",
        "size",
        "dtype",
        "static_shape",
        "empty",
        "no_time_axis",
        "carried",
        "not_a_multiple",
        "lengths_shape",
    ],
)
def test_a_bad_push_is_refused_and_changes_nothing(fake, options, inputs, sentence):
    stream = fake.artifact(**options).stream(2)
    good = fake.feeds(4, 2, speaker=options.get("speaker", False), state=False)
    stream.push(**good)
    before = {name: state.copy() for name, state in stream.state.items()}
    with pytest.raises(FeedError) as refused:
        stream.push(**inputs)
    assert sentence in str(refused.value)
    assert before["memory_h_in"].any()
    for name in before:
        np.testing.assert_array_equal(stream.state[name], before[name])


def test_a_push_that_fails_half_way_changes_nothing(fake):
    calls = []

    def fails_third(_, feeds):
        calls.append(feeds)
        if len(calls) == 3:
            raise RuntimeError("the runtime gave up")
        return fake.lstm(feeds)

    stream = fake.artifact(fails_third, names=("step",)).stream(2)
    with pytest.raises(ArtifactError, match="the runtime can't run this artifact .*gave up"):
        stream.push(FRAMES)
    assert not any(state.any() for state in stream.state.values())


def test_outputs_are_the_callers_to_change(fake):
    stream = fake.artifact().stream(2)
    outputs = stream.push(FRAMES + 1)
    before = stream.state["memory_h_in"].copy()
    outputs["memory_h"][:] = 7
    np.testing.assert_array_equal(stream.state["memory_h_in"], before)


def test_a_multiple_of_the_fixed_time_steps_takes_few_calls(fake):
    calls = []

    def call(signature, feeds):
        calls.append(signature)
        return fake.lstm(feeds)

    fake.artifact(call, dims={"time": 4}).stream(2).push(fake.feeds(8, 2)["x"])
    assert calls == ["sequence"] * 2


def test_a_second_timed_input_without_a_time_axis_is_refused(fake):
    contract = fake.contract()
    sequence = contract.signatures["sequence"]
    both = replace(sequence, inputs=(*sequence.inputs, Port("z", "input", ("batch", "time"), time_axis=1)))
    stream = fake.artifact(contract=replace(contract, signatures={"sequence": both})).stream(2)
    with pytest.raises(FeedError, match="'z'"):
        stream.push(x=FRAMES, z=np.zeros(6, np.float32))


def test_lengths_of_another_type_are_refused(fake):
    with pytest.raises(FeedError, match="'lengths' is float64; it must be int32"):
        fake.artifact(lengths=True).stream(2).push(x=FRAMES, lengths=np.array([2.7, 6.0]))


def test_two_inputs_are_pushed_by_name(fake):
    with pytest.raises(FeedError, match=r"^The model has 2 inputs: push them by name, x, speaker\.$"):
        fake.artifact(speaker=True).stream(2).push(FRAMES)


@pytest.mark.parametrize("rows", [1, 3])
def test_another_batch_than_the_streams_is_refused(fake, rows):
    with pytest.raises(FeedError, match=r"has shape .* it must be"):
        fake.artifact().stream(2).push(fake.feeds(4, rows)["x"])


def test_another_batch_than_the_streams_is_refused_at_the_input(fake):
    with pytest.raises(FeedError, match="'x'"):
        fake.artifact().stream(2).push(FRAMES[:1])


def test_a_model_without_step_cannot_be_streamed(fake):
    with pytest.raises(FeedError, match=r"^This model can't be streamed: layer 'flip' looks ahead\.$"):
        fake.artifact(names=("sequence",), no_step="layer 'flip' looks ahead.").stream()


@pytest.mark.parametrize(
    ("dims", "batch", "accepted"),
    [({"batch": 1}, 3, "1"), ({"batch": 2}, 1, "2"), ({}, 0, "at least 1"), ({}, -1, "at least 1")],
)
def test_a_batch_that_the_artifact_does_not_run_is_refused(fake, dims, batch, accepted):
    sentence = rf"^The artifact runs batches of {accepted}; batch={batch} was asked\.$"
    with pytest.raises(FeedError, match=sentence):
        fake.artifact(dims=dims).stream(batch)


@pytest.mark.parametrize(
    "state",
    [None, {}, {"foo": 1}, {"memory_h_in": np.zeros((2, 4), np.float32)}],
    ids=["none", "empty", "other", "one of two"],
)
def test_a_state_that_is_not_one_array_for_each_carry_is_refused(fake, state):
    stream = fake.artifact().stream(2)
    with pytest.raises(FeedError, match="The state is a dict of memory_h_in, memory_c_in"):
        stream.state = state


def test_a_state_of_another_shape_is_refused(fake):
    stream = fake.artifact().stream(2)
    with pytest.raises(FeedError, match=r"State 'memory_\w_in' is float32 \[1, "):
        stream.state = {name: value[:1] for name, value in stream.state.items()}
