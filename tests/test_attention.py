"""Causal attention that goes on from a cache, in every runtime: against plain Keras on recordings and their windows."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from streaming_models import scrambled

import signatures
from exporter import export
from exporter.memory.attention import Cache
from exporter.model import law
from exporter.model.remember import Remembering
from exporter.pipeline import load_model, open_model, record_case
from signatures.errors import UnsupportedModel

N = 8
"""Rows that are kept."""


def over_time(make, front=lambda x: layers.Dense(8)(x)):
    x = keras.Input((None, 6), name="x")
    return scrambled(keras.Model(x, layers.Dense(3, name="y")(make(front(x)))))


def heads(y, *others, **options):
    return layers.MultiHeadAttention(2, 4, name="mha", **options)(y, *(others or (y,)), use_causal_mask=True)


def every_kind(y):
    """Return the outputs of all layers that attend, each with an option of its own."""
    causal, other = {"use_causal_mask": True}, layers.Dense(5)(y)
    gated = layers.MultiHeadAttention(2, 4, value_dim=3, use_bias=False, output_shape=5, use_gate=True, dropout=0.3)
    return layers.Concatenate()(
        [
            heads(y),
            gated(query=y, value=other, key=y, **causal),
            layers.GroupQueryAttention(4, 4, 2)(y, y, **causal),
            layers.Attention(use_scale=True)([y, other, y], **causal),
            layers.AdditiveAttention()([y, y], **causal),
        ]
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = over_time(every_kind)
    return model, export(model, "all", f"{tmp_path_factory.mktemp('attention')}/", attention_cache=N)


def streamed(artifact, x):
    """Return y of a stream in steps, and in chunks shorter and longer than the cache."""
    stream = signatures.open(artifact.path).stream(trim=True)
    cuts = [0, 3, *range(4, 15), 15 + N, 15 + 3 * N, x.shape[1]]
    return np.concatenate([stream.push(x[:, a:b])["y"] for a, b in itertools.pairwise(cuts)], axis=1)


def recording(rows=60):
    return np.random.default_rng(7).standard_normal((1, rows, 6)).astype(np.float32)


@pytest.mark.parametrize("target", ["tflite", "onnx", "savedmodel"])
def test_each_row_is_that_of_keras_on_the_last_rows(exported, target):
    model, artifacts = exported
    [artifact] = [each for each in artifacts if each.target == target]
    assert artifact.parity.ok
    x = recording()
    got = streamed(artifact, x)
    np.testing.assert_allclose(got[:, :N], model.predict(x[:, :N], verbose=0), atol=1e-5, rtol=1e-4)
    windows = np.concatenate([x[:, t : t + N] for t in range(x.shape[1] - N + 1)])
    last = model.predict(windows, verbose=0)[:, -1]
    np.testing.assert_allclose(got[0, N - 1 :], last, atol=1e-5, rtol=1e-4)
    assert np.abs(got - model.predict(x, verbose=0)).max() > 0.1  # which looks at all rows so far


def test_the_cache_is_in_the_contract(exported):
    _, artifacts = exported
    step = artifacts[0].contract.signatures["step"]
    shapes = {port.name: port.shape[1:] for port in step.inputs}
    assert (shapes["mha_keys_in"], shapes["mha_values_in"], shapes["mha_count_in"]) == ((N, 2, 4), (N, 2, 4), ())
    assert shapes["additive_attention_values_in"] == (N, 8)
    assert "additive_attention_keys_in" not in shapes
    assert step.ports["mha_count_in"].dtype == "int32"


@keras.saving.register_keras_serializable("attention")
class Masked(layers.Layer):
    """Attention under a mask that the layer makes itself, of so many rows."""

    def __init__(self, rows=0, **options):
        super().__init__(**options)
        self.rows, self.inner = rows, layers.MultiHeadAttention(2, 4, name="inner")

    def build(self, shape):
        self.inner.build(shape, shape)

    def call(self, x):
        row, place = ops.arange(ops.shape(x)[1])[:, None], ops.arange(ops.shape(x)[1])
        mask = place <= row
        if self.rows:
            mask = ops.logical_and(mask, place > row - self.rows)
        return self.inner(x, x, attention_mask=mask[None])


def front(x):
    """Rows that come late, at half the rate."""
    return layers.Conv1D(8, 5, strides=2, activation="relu")(x)


KINDS = {
    "a mask of one's own": (lambda: over_time(Masked()), {"attention_cache": N}),
    "rows that come late": (lambda: over_time(heads, front), {"attention_cache": N, "batch": "any"}),
    "one row": (lambda: over_time(heads), {"attention_cache": 1}),
    "16 bits": (lambda: over_time(heads), {"attention_cache": N, "dtype": "float16", "to": "onnx"}),
    "a fixed time": (lambda: over_time(heads), {"attention_cache": N, "time": 5, "batch": 2, "to": "tflite"}),
}


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_other_kinds_is_proven(kind, tmp_path):
    make, options = KINDS[kind]
    for artifact in export(make(), **{"to": "savedmodel", "out": f"{tmp_path}/", **options}):
        assert artifact.parity.ok
        checks = {diff.check for diff in artifact.parity.diffs}
        assert checks == {"sequence", "steps", "chunks", "repeat", "reset"}


@pytest.mark.parametrize("own", [lambda y: heads(y, sliding_window=5), Masked(5)], ids=["option", "mask"])
def test_a_window_of_the_layers_own_is_exact_for_any_length(own, tmp_path):
    model = over_time(own)
    [artifact] = export(model, "onnx", f"{tmp_path}/")
    assert artifact.parity.ok
    assert {port.shape[1] for port in artifact.contract.signatures["step"].inputs if "keys" in port.name} == {5}
    x = recording()
    np.testing.assert_allclose(streamed(artifact, x), model.predict(x, verbose=0), atol=1e-5, rtol=1e-4)


@keras.saving.register_keras_serializable("attention")
class Positions(layers.Layer):
    """Adds what depends on the number of the time step."""

    def call(self, x):
        place = ops.cast(ops.arange(ops.shape(x)[1]), x.dtype)[None, :, None]
        return x + ops.sin(place * ops.exp(-ops.arange(8, dtype=x.dtype)))


def valid_rows(x):
    return layers.GRU(8, return_sequences=True)(layers.Masking()(x))


REFUSED = {
    "no cache": (lambda: over_time(heads), None, "'mha' attends to all time steps so far: --attention-cache N lets"),
    "the future": (
        lambda: over_time(lambda y: layers.MultiHeadAttention(2, 4, name="mha")(y, y)),
        N,
        "'mha' attends to all time steps, those of the future too: call it with use_causal_mask=True",
    ),
    "a mask": (lambda: over_time(heads, valid_rows), N, "'mha' attends to time steps under a mask"),
    "scores": (
        lambda: over_time(
            lambda y: layers.MultiHeadAttention(2, 4, name="mha")(
                y, y, use_causal_mask=True, return_attention_scores=True
            )[0]
        ),
        N,
        "'mha' gives its attention scores",
    ),
    "another mask": (
        lambda: over_time(Masked(-3, name="masked")),
        N,
        "'masked/inner' attends to time steps by a mask that doesn't",
    ),
    "more axes": (
        lambda: over_time(lambda y: layers.Reshape((-1, 8))(heads(layers.Reshape((-1, 2, 4))(y), attention_axes=(1,)))),
        N,
        "'mha' attends to time steps of tensors with 4 axes",
    ),
    "rows of different delays": (
        lambda: over_time(lambda y: heads(y[:, 1:], y[:, :-1])),
        N,
        "'mha' joins rows of different delays",
    ),
    "positions": (
        lambda: over_time(heads, lambda x: Positions(name="pos")(layers.Dense(8)(x))),
        N,
        "'pos' of a stream isn't that of a whole recording",
    ),
    "nothing to cache": (lambda: over_time(layers.GRU(3, return_sequences=True)), N, "of 8 can't be had: No layer"),
}


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_cache_is_refused_by_its_name(case):
    make, cache, told = REFUSED[case]
    with pytest.raises(UnsupportedModel) as refused:
        open_model(load_model(make()), attention_cache=cache)
    assert told in str(refused.value)


def test_attention_within_a_row_needs_no_cache():
    def within(y):
        rows = layers.Reshape((-1, 2, 4))(y)
        return layers.Reshape((-1, 8))(layers.MultiHeadAttention(2, 4, attention_axes=(2,))(rows, rows))

    assert open_model(load_model(over_time(within, layers.GRU(8, return_sequences=True)))).survey.no_step is None


def cache_too_short(monkeypatch):
    own = Cache._mask
    monkeypatch.setattr(Cache, "_mask", lambda self, total, *rest: own(self, total, *rest) & later(self, total))


def later(cache, total):
    row, place = ops.arange(total)[:, None], ops.arange(cache.rows - 1 + total)
    return (place > row)[None]


def count_forgotten(monkeypatch):
    own = Cache._mask
    monkeypatch.setattr(Cache, "_mask", lambda self, total, count, silent: own(self, total, self.rows, 0))


def no_gate(monkeypatch):
    monkeypatch.setattr(Remembering, "counts", lambda self, clock, rows: None)


MUTATIONS = {
    "a cache that is too short": (cache_too_short, None),
    "rows that never were": (count_forgotten, None),
    "no gate": (no_gate, front),
}


@pytest.mark.parametrize("case", MUTATIONS)
def test_what_is_wrong_in_a_cache_is_seen_by_the_law_and_by_golden_numbers(case, monkeypatch, tmp_path):
    mutate, before = MUTATIONS[case]
    model = over_time(heads, before) if before else over_time(heads)
    golden = record_case(model, tmp_path / "case", attention_cache=N)
    mutate(monkeypatch)
    with pytest.raises(UnsupportedModel, match="'mha' of a stream isn't that of a whole recording"):
        open_model(load_model(model), attention_cache=N)
    monkeypatch.setattr(law, "why_pieces_differ", lambda *given: None if given[0].memories.calls else law.NOBODY)
    [artifact] = export(model, "savedmodel", f"{tmp_path}/", check=False, attention_cache=N)
    report = signatures.check(signatures.open(artifact.path), golden)
    assert not report.ok
    assert not any(failure.note for failure in report.failures)
