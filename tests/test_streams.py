"""Models that remember windows, folds and waits: their streams, in every runtime, against plain Keras."""

import itertools
import json
import re

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from custom import Around
from keras import ops
from streaming_models import (
    ZOO,
    kws,
    long_past,
    looking_ahead,
    masked_convolution,
    masked_mean,
    scrambled,
    several_inputs,
    shared,
    wake_word,
)

import signatures
from exporter import export, pipeline
from exporter.memory.window import Past, Wait
from exporter.model.remember import Remembering
from exporter.pipeline import load_model, open_model, record_case
from signatures.errors import FeedError, UnsupportedModel
from signatures.feeds import random_feeds
from signatures.ports import time_dims

AHEAD = ("looking_ahead", "unaligned")
"""Models that look into the future."""

CACHED = {"attending": 100}
"""Models that attend to the past -> a cache of more rows than the recordings have."""


def of_model(name):
    """Have one worker run all tests of a model, which is surveyed and exported once for them."""
    return pytest.mark.xdist_group(f"streamed {name}")


def each(names):
    return [pytest.param(name, marks=of_model(name)) for name in names]


@pytest.fixture(scope="module")
def opened():
    """Return a function: name of a model -> (the model, what running it showed)."""
    made = {}

    def of(name):
        if name not in made:
            model = scrambled(ZOO[name]())
            made[name] = model, open_model(load_model(model), lookahead=name in AHEAD, attention_cache=CACHED.get(name))
        return made[name]

    return of


@pytest.fixture(scope="module")
def streamed(opened, tmp_path_factory):
    """Return a function: name of a model -> (the model, its artifacts, checked)."""
    made = {}

    def of(name):
        if name not in made:
            model, showed = opened(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pipeline, "open_model", lambda *given: showed)
                made[name] = model, export(model, ["all", "c"], f"{tmp_path_factory.mktemp('streamed')}/")
        return made[name]

    return of


def ways(artifact):
    """Return the ways in which an artifact is called when it is checked."""
    return {"steps", "chunks", "reset", *(("sequence", "repeat") if artifact.target != "c" else ())}


def recording(model, calls, every, samples=2):
    shape = [int(size) for size in model.inputs[0].shape[2:]]
    return np.random.default_rng(7).standard_normal((samples, calls * every, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", each(ZOO))
def test_a_stream_gives_what_keras_gives_on_the_recording(streamed, name):
    model, artifacts = streamed(name)
    every = artifacts[0].contract.signatures["step"].every
    x = recording(model, 97, every)
    expected = dict(zip(artifacts[0].contract.outputs, keras.tree.flatten(model.predict(x, verbose=0)), strict=True))
    for artifact in artifacts:
        assert artifact.parity.ok
        assert artifact.parity.share < 1
        assert {diff.check for diff in artifact.parity.diffs} == ways(artifact)
        for sample in (0, 1):
            stream = signatures.open(artifact.path, trust=True).stream(buffer=True, trim=True)
            cuts = np.cumsum([0, 3, 1, 8 * every, 40 * every + 1, len(x[0])])
            pieces = [stream.push(x[sample : sample + 1, a:b]) for a, b in itertools.pairwise(cuts)]
            pieces = [piece for piece in pieces if piece]
            for name_of, want in expected.items():
                port = artifacts[0].contract.signatures["sequence"].ports[name_of]
                got = port.in_a_row([piece[name_of] for piece in pieces])
                want = want[sample : sample + 1]
                rows = min(got.shape[1], want.shape[1])
                assert rows >= 90 // 3 or not port.timed
                np.testing.assert_allclose(got[:, :rows], want[:, :rows], atol=1e-5, rtol=1e-4)


@of_model("looking_ahead")
@pytest.mark.parametrize("name", each(ZOO))
def test_devices_without_xnnpack_get_the_same(streamed, name):
    """LiteRT's own kernels write where they read: nothing that others still need may lie there."""
    [artifact] = [artifact for artifact in streamed(name)[1] if artifact.target == "tflite"]
    content, info = artifact.path.read_bytes(), artifact.contract.artifacts["tflite"]
    plain = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    fast, own = (Interpreter(model_content=content, **options) for options in ({}, plain))
    for signature in artifact.contract.signatures.values():
        steps = dict.fromkeys(time_dims(signature.inputs), 6 * signature.every)
        feeds = random_feeds(signature.inputs, {**steps, **info.dims, **signature.dims}, np.random.default_rng(5))
        expected = {port: value.copy() for port, value in fast.get_signature_runner(signature.name)(**feeds).items()}
        for port, value in own.get_signature_runner(signature.name)(**feeds).items():
            np.testing.assert_allclose(value, expected[port], atol=2e-5, err_msg=f"{signature.name} {port}")


def test_a_stream_that_ends_gives_the_rows_that_look_into_the_future(streamed):
    model, artifacts = streamed("looking_ahead")
    contract = artifacts[0].contract
    assert contract.signatures["step"].delay == {"c2": 3, "gru_sequences": 2}
    assert contract.signatures["step"].ahead == {"c2": 3, "gru_sequences": 2}
    x = recording(model, 50, 1, samples=1)
    want = model.predict(x, verbose=0)
    stream = signatures.open(artifacts[0].path).stream(trim=True)
    got = [stream.push(x)["c2"], stream.flush()["c2"]]
    assert [piece.shape[1] for piece in got] == [47, 3]
    np.testing.assert_allclose(got[0], want[:, :47], atol=1e-5)
    np.testing.assert_allclose(stream.push(x)["c2"], got[0], atol=0)  # it began anew


def test_one_layer_that_looks_ahead_ends_as_keras_ends(tmp_path):
    x = keras.Input((None, 3), name="x")
    model = scrambled(keras.Model(x, keras.layers.Conv1D(2, 5, padding="same", name="y")(x)))
    [artifact] = export(model, "onnx", f"{tmp_path}/", lookahead=True)
    x = recording(model, 20, 1, samples=1)
    stream = signatures.open(artifact.path).stream(trim=True)
    got = np.concatenate([stream.push(x)["y"], stream.flush()["y"]], axis=1)
    np.testing.assert_allclose(got, model.predict(x, verbose=0), atol=1e-5)


@of_model("kws")
def test_time_steps_that_no_call_takes_are_kept_or_refused(streamed):
    model, artifacts = streamed("kws")
    x = recording(model, 10, 2, samples=1)
    plain = signatures.open(artifacts[0].path).stream()
    with pytest.raises(FeedError, match="3 time steps; a call takes a multiple of 2"):
        plain.push(x[:, :3])
    want = plain.push(x)["y"]
    kept = signatures.open(artifacts[0].path).stream(buffer=True)
    assert kept.push(x[:, :1]) == {}
    pieces = [kept.push(x[:, 1:4]), kept.push(x[:, 4:19])]
    assert [piece["y"].shape[1] for piece in pieces] == [2, 7]
    got = np.concatenate([piece["y"] for piece in (*pieces, kept.flush())], axis=1)
    np.testing.assert_allclose(got[:, :9], want[:, :9], atol=1e-6)


@of_model("wake_word")
def test_the_contract_tells_every_state_and_when_rows_come(streamed):
    _, artifacts = streamed("wake_word")
    for artifact in artifacts:
        step = artifact.contract.signatures["step"]
        assert (step.every, step.dims["time"], step.delay) == (3, 3, {"y": 32})
        assert step.ports["y"].shape == ("batch", "time / 3", 1)
        pasts = {port.name: port.shape[1] for port in step.inputs if port.name.endswith("_past_in")}
        assert sorted(pasts.values()) == [3, 4, 8, 19]
        written = json.loads(artifact.contract.to_json())["signatures"]["step"]
        assert (written["every"], written["delay"]) == (3, {"y": 32})
        assert {carry.input for carry in step.carries} >= set(pasts)


@of_model("unaligned")
def test_rows_that_come_too_early_wait(streamed):
    _, artifacts = streamed("unaligned")
    ports = artifacts[0].contract.signatures["step"].ports
    assert ports["y_wait_1_in"].shape == ("batch", 3, 5)
    assert ports["late_past_in"].shape == ("batch", 3, 6)


@of_model("tcn")
def test_a_model_of_convolutions_alone_is_accepted_and_one_without_memory_is_not(opened):
    assert opened("tcn")[1].survey.no_step is None
    x = keras.Input((None, 3))
    with pytest.raises(UnsupportedModel, match=r"(?s)'plain' has no recurrent layer.*No layer remembers anything"):
        open_model(load_model(keras.Model(x, keras.layers.Dense(2)(x), name="plain")))


def over_all():
    x = y = keras.Input((None, 6), name="x")
    y = keras.layers.GRU(5, return_sequences=True)(y)
    return keras.Model(x, y - keras.ops.mean(y, axis=1, keepdims=True))


def attention():
    x = y = keras.Input((None, 6), name="x")
    y = keras.layers.GRU(8, return_sequences=True)(y)
    return keras.Model(x, keras.layers.MultiHeadAttention(2, 4, name="mha")(y, y, use_causal_mask=True))


def rates():
    x = keras.Input((None, 6), name="x")
    half = keras.layers.AveragePooling1D(2)(keras.layers.GRU(6, return_sequences=True)(x))
    return keras.Model(x, Around(lambda two: keras.ops.repeat(two[0], 2, axis=1) + two[1], name="sum")([half, x]))


def padded():
    x = y = keras.Input((None, 6), name="x")
    y = keras.layers.ZeroPadding1D((2, 0), name="pad")(y)
    return keras.Model(x, keras.layers.GRU(5, return_sequences=True, name="gru")(y))


def pooled():
    x = y = keras.Input((None, 6), name="x")
    y = keras.layers.AveragePooling1D(5, strides=2, padding="same", name="pool")(y)
    return keras.Model(x, keras.layers.Dense(3, name="y")(keras.layers.GRU(5, return_sequences=True)(y)))


def final_row_ahead():
    x = y = keras.Input((None, 6), name="x")
    y = keras.layers.Conv1D(6, 3, padding="same", name="c1")(y)
    return keras.Model(x, keras.layers.Dense(2, name="y")(keras.layers.GRU(5, name="gru")(y)))


REFUSED = {
    "the future": (looking_ahead, False, r"needs time steps of the future \(layer 'c1': 2, layer 'c2': 1\)"),
    "all of a recording": (over_all, True, "'subtract\\w*' joins each time step with what is made of all of them"),
    "attention": (attention, True, r"'mha' attends to all time steps so far: --attention-cache N lets it"),
    "different rates": (rates, True, "'sum' joins tensors whose rows come at different rates"),
    "padding before a recurrence": (padded, True, "'gru' sees 2 rows of padding before the first time step"),
    "same pooling": (
        pooled,
        True,
        r"'pool' makes its first rows of fewer time steps than the others \(padding 'same'\)",
    ),
    "the end of the future": (final_row_ahead, True, r"'y' makes one row of a whole recording.*\(layer 'c1': 1\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_streamed_is_told_by_its_name(case):
    make, lookahead, told = REFUSED[case]
    try:
        reason = open_model(load_model(scrambled(make())), lookahead=lookahead).survey.no_step
    except UnsupportedModel as refused:
        reason = str(refused)
    assert re.search(told, reason)


def test_lengths_are_refused_by_the_layer_that_remembers(tmp_path):
    with pytest.raises(UnsupportedModel, match="lengths can't be had: layer 'front' remembers"):
        export(scrambled(kws()), "onnx", f"{tmp_path}/", lengths=True)


def test_a_fixed_time_is_a_multiple_of_what_a_call_takes(tmp_path):
    with pytest.raises(UnsupportedModel, match="time 5 can't be had: a call takes a multiple of 2"):
        export(scrambled(kws()), "onnx", f"{tmp_path}/", time=5)
    [artifact] = export(scrambled(kws()), "tflite", f"{tmp_path}/", time=6, signatures=["sequence"], batch=2)
    assert artifact.parity.ok


MORE = {
    "a mean over a mask": (masked_mean, {}),
    "a convolution after a mask": (masked_convolution, {}),
    "several inputs": (several_inputs, {}),
    "shared layers": (shared, {}),
    "any batch": (kws, {"batch": "any", "to": "all"}),
    "a ring of several samples": (long_past, {"batch": 3}),
    "a ring of one sample": (long_past, {"to": "tflite"}),
    "16 bits": (kws, {"dtype": "float16", "to": ["onnx", "savedmodel"]}),
    "brain floats": (wake_word, {"dtype": "bfloat16", "to": "savedmodel"}),
}


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("case", MORE)
def test_streams_of_other_kinds_are_proven(case, tmp_path):
    make, options = MORE[case]
    for artifact in export(scrambled(make()), **{"to": ["all", "c"], "out": f"{tmp_path}/", **options}):
        assert artifact.parity.ok
        assert {diff.check for diff in artifact.parity.diffs} == ways(artifact)


def no_gate(monkeypatch):
    monkeypatch.setattr(Remembering, "counts", lambda self, clock, rows: None)


def residual_without_wait(monkeypatch):
    monkeypatch.setattr(Wait, "advance", lambda self, call, inputs, states, valid: (call(*inputs), list(states)))


def window_too_short(monkeypatch):
    own = Past.advance

    def short(self, call, inputs, states, valid):
        return own(self, call, inputs, [_first_silent(state) for state in states], valid)

    monkeypatch.setattr(Past, "advance", short)


def _first_silent(state):
    return keras.ops.concatenate([state[:, :1] * 0, state[:, 1:]], axis=1)


def phase_off(monkeypatch):
    own = Past.advance

    def shifted(self, call, inputs, states, valid):
        rolled = [keras.ops.roll(x, 1, axis=1) for x in inputs] if self.window.stride > 1 else inputs
        return own(self, call, rolled, states, valid)

    monkeypatch.setattr(Past, "advance", shifted)


MUTATIONS = {
    "no gate": (no_gate, "valid rnnoise"),
    "a residual that doesn't wait": (residual_without_wait, "unaligned"),
    "a window that is too short": (window_too_short, "tcn"),
    "the phase of a stride": (phase_off, "wake_word"),
}
MUTATED = [pytest.param(case, marks=of_model(name)) for case, (_, name) in MUTATIONS.items()]


@pytest.mark.parametrize("case", MUTATED)
def test_what_is_wrong_in_a_stream_is_seen_by_the_law(case, monkeypatch):
    mutate, name = MUTATIONS[case]
    mutate(monkeypatch)
    try:
        told = open_model(load_model(scrambled(ZOO[name]())), lookahead=True).survey.no_step
        assert "isn't that of a whole recording" in told
    except UnsupportedModel as refused:
        assert "isn't that of a whole recording" in str(refused)  # noqa: PT017 - a model of convolutions alone


@pytest.mark.parametrize("case", MUTATED)
def test_what_is_wrong_in_a_stream_is_seen_by_golden_numbers(case, opened, monkeypatch, tmp_path):
    mutate, name = MUTATIONS[case]
    model, showed = opened(name)
    monkeypatch.setattr(pipeline, "open_model", lambda *given: showed)  # where the law would see it
    golden = record_case(model, tmp_path / "case")
    mutate(monkeypatch)
    [artifact] = export(model, "savedmodel", f"{tmp_path}/", check=False)
    report = signatures.check(signatures.open(artifact.path), golden)
    assert not report.ok
    assert not any(failure.note for failure in report.failures)


def delta(x):
    return gru(x[:, 1:] - x[:, :-1])


def gru(x):
    return keras.layers.GRU(3, return_sequences=True, name="gru")(x)


@keras.saving.register_keras_serializable("streaming")
class Doubled(keras.layers.Wrapper):
    """A wrapper of a user's own."""

    def call(self, x):
        return 2 * self.layer(x)


def valid_tcn(x):
    for dilation in (1, 4, 16, 64, 256):
        x = keras.layers.Conv1D(4, 3, dilation_rate=dilation)(x)
    return gru(x)


SHAPES = {
    "a dilation of 512": lambda x: gru(keras.layers.Conv1D(4, 3, dilation_rate=512)(x)),
    "dilations that add up": valid_tcn,
    "a convolution in wrappers": lambda x: gru(
        keras.layers.TimeDistributed(keras.layers.SpectralNormalization(keras.layers.Dense(4)))(
            Doubled(keras.layers.Conv1D(4, 3, padding="causal"))(
                keras.layers.SpectralNormalization(keras.layers.Conv1D(4, 4, strides=2))(x)
            )
        )
    ),
    "a slice far in": lambda x: gru(x[:, 300:]),
    "rows cropped at both ends": lambda x: gru(keras.layers.Cropping1D((1, 1))(x)),
    "rows cropped before a convolution": lambda x: keras.layers.Conv1D(3, 3, name="y")(x[:, 3:-1]),
    "first differences": delta,
    "every 31st row": lambda x: gru(x[:, ::31]),
    "a spectrogram": lambda x: gru(
        keras.layers.STFTSpectrogram("magnitude", frame_length=32, frame_step=8, window=None)(x[..., :1])
    ),
    "a running mean": lambda x: gru(ops.cumsum(x, axis=1) / ops.cumsum(ops.ones_like(x), axis=1)),
    "a mask that is computed": lambda x: gru(
        keras.layers.Masking()(keras.layers.Conv1D(4, 3, padding="causal", activation="relu")(x))
    ),
    "a choice between early and late": lambda x: gru(
        ops.where(x > 0, x, keras.layers.Conv1D(6, 3)(keras.layers.ZeroPadding1D((2, 0))(x)))
    ),
    "a transposed convolution without a stride": lambda x: keras.layers.Conv1DTranspose(4, 3)(gru(x))[:, :-2],
    "what is remembered only if it is large": lambda x: gru(
        Around(lambda x: ops.concatenate([x[:, :7] * 0, ops.relu(x[:, :-7] - 5000.0)], axis=1) + x, name="loud")(x)
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_time_of_any_shape_streams_to_what_keras_gives(shape, tmp_path):
    x = keras.Input((None, 6), name="x")
    model = scrambled(keras.Model(x, SHAPES[shape](x)))
    [artifact] = export(model, "onnx", f"{tmp_path}/")
    assert artifact.parity.ok
    every = artifact.contract.signatures["step"].every
    recorded = recording(model, 1400 // every, every, samples=1)
    stream = signatures.open(artifact.path).stream(trim=True)
    cuts = every * np.array([0, 1, 2, 10, 1400 // every])
    [name] = artifact.contract.outputs
    got = np.concatenate([stream.push(recorded[:, a:b])[name] for a, b in itertools.pairwise(cuts)], axis=1)
    want = model.predict(recorded, verbose=0)
    rows = min(got.shape[1], want.shape[1])
    assert rows >= want.shape[1] > 0
    np.testing.assert_allclose(got[:, :rows], want[:, :rows], atol=1e-4)


def test_a_stream_that_is_resumed_gives_every_row(tmp_path):
    x = keras.Input((None, 6), name="x")
    model = scrambled(keras.Model(x, gru(keras.layers.Conv1D(5, 4)(x))))
    [artifact] = export(model, "onnx", f"{tmp_path}/", check=False)
    recorded, runner = recording(model, 40, 1, samples=1), signatures.open(artifact.path)
    first = runner.stream(trim=True)
    rows = [first.push(recorded[:, :20])["gru_sequences"]]
    second = runner.stream(trim=True)
    second.state = first.state
    rows.append(second.push(recorded[:, 20:])["gru_sequences"])
    np.testing.assert_allclose(np.concatenate(rows, axis=1), model.predict(recorded, verbose=0), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*float16:UserWarning")
def test_what_adds_up_over_a_long_stream_is_kept_in_32_bits(tmp_path):
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, {"sum": ops.sum(x, axis=1), "mean": keras.layers.GlobalAveragePooling1D()(x)})
    [artifact] = export(model, "savedmodel", f"{tmp_path}/", dtype="bfloat16")
    stream = signatures.open(artifact.path).stream()
    for value in (0.0, 1.0):
        for _ in range(300):
            outputs = stream.push(np.full((1, 1, 3), value, np.float32))
    np.testing.assert_allclose(outputs["sum"], 300, rtol=1e-2)
    np.testing.assert_allclose(outputs["mean"], 0.5, rtol=1e-2)
