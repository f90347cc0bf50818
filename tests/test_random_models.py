"""Random recurrent models give in every runtime what Keras gives: no wrong number and no refusal.

Each model is exported unchecked and run here through its signatures: from zero state against `model.predict`, from
random states against Keras' own loops, whole and step by step.
"""

import itertools
import os
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from keras import Input, layers, ops

import signatures
from exporter import export
from exporter.model.function import Model
from signatures.errors import UnsupportedModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning"),  # and drops it
    pytest.mark.filterwarnings("ignore:(?s).*You are using a softmax over axis:UserWarning"),  # of one time step
]

EXAMPLES = int(os.environ.get("RANDOM_MODELS", "10"))
"""How many are drawn: RANDOM_MODELS=200 makes a long run of it."""

PARTS = 2
"""That are tests of their own, so that two processes share them."""

SEED = int(os.environ.get("RANDOM_SEED", "0"))
"""Which ones."""

TARGETS = ("tflite", "onnx", "savedmodel")
VOCABULARY, F = 11, 3
MANY_GATES = ("lstm", "gru", "gru_before")
KINDS = (*MANY_GATES, "simple_rnn", "cells", "stacked")
BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "softsign", "hard_tanh", "relu6", "softmax")
ACTIVATIONS = (*BOUNDED, "relu", "linear", "elu", "selu", "gelu", "silu", "softplus", "leaky_relu", "mish")
FRONTS = ("plain", "masking", "masking", "embedding", "embedding", "film", "sentences", "bands", "smoothed", "adapted")
GATES = ("sigmoid", "hard_sigmoid", "sparse_sigmoid", "softmax")  # a gate beyond 0..1 soon overflows


@st.composite
def recurrent_layers(draw):
    """Draw one recurrent layer as (kind, units, options, how it is wrapped)."""
    kind = draw(st.sampled_from(KINDS))
    options = {"use_bias": draw(st.booleans())} if kind not in ("cells", "stacked") else {}
    if draw(st.booleans()):
        options["activation"] = draw(st.sampled_from(ACTIVATIONS))
        if kind in (*MANY_GATES, "cells"):
            options["recurrent_activation"] = draw(st.sampled_from(GATES))
    over_time = {
        "go_backwards": draw(st.integers(0, 4)) == 0,
        "zero_output_for_mask": draw(st.integers(0, 3)) == 0,
        "return_sequences": draw(st.integers(0, 4)) != 0,
    }
    merge = draw(st.sampled_from([None, None, None, "concat", "sum", "mul", "ave"]))
    return kind, draw(st.integers(2, 5)), options, over_time, merge


@st.composite
def models(draw):
    """Draw a model as plain data, which is what a failure prints."""
    return {
        "front": draw(st.sampled_from(FRONTS)),
        "chain": draw(st.lists(recurrent_layers(), min_size=1, max_size=3)),
        "between": draw(st.sampled_from(["nothing", "dense", "residual", *BETWEEN])),
        "shape": draw(st.sampled_from(["chain", "chain", "chain", "shared", "encoder_decoder"])),
        "head": draw(st.booleans()),
        "states_out": draw(st.booleans()),
        "batch": draw(st.sampled_from(["any", 2])),
        "total": draw(st.sampled_from([1, 2, 5, 9, 34])),
        "seed": draw(st.integers(0, 1000)),
    }


def make(drawn, **more):
    """Return a Keras layer."""
    kind, units, options, over_time, merge = drawn
    over_time = {**over_time, **more}
    one = {
        "lstm": lambda: layers.LSTM(units, **options, **over_time),
        "gru": lambda: layers.GRU(units, **options, **over_time),
        "gru_before": lambda: layers.GRU(units, reset_after=False, **options, **over_time),
        "simple_rnn": lambda: layers.SimpleRNN(units, **options, **over_time),
        "cells": lambda: layers.RNN(layers.LSTMCell(units, **options), **over_time),
        "stacked": lambda: layers.RNN([layers.GRUCell(units, **options), layers.LSTMCell(2)], **over_time),
    }[kind]()
    if merge is None or more.get("return_state"):
        return one
    if over_time["go_backwards"]:
        one.go_backwards = False
    return layers.Bidirectional(one, merge_mode=merge)


def front(spec):
    """Return the model's input and a sequence [B, T, F] of it."""
    kind = spec["front"]
    if kind == "embedding":
        tokens = Input((None,), dtype="int32", name="x")
        return tokens, layers.Embedding(VOCABULARY, F, mask_zero=True)(tokens)
    if kind == "film":
        x = Input((None, 6, 2), name="x")
        y = layers.ConvLSTM1D(2, 3, strides=spec["seed"] % 2 + 1, padding="same", return_sequences=True)(x)
        return x, layers.TimeDistributed(layers.Flatten())(y)
    if kind == "sentences":
        x = Input((None, 4, F), name="x")
        return x, layers.TimeDistributed(make((*spec["chain"][0][:3], {"return_sequences": False}, None)))(x)
    if kind == "bands":
        x = Input((None, 4, F), name="x")
        over_time = layers.TimeDistributed(make((*spec["chain"][0][:3], {"return_sequences": True}, None)))
        y = layers.Permute((2, 1, 3))(over_time(layers.Permute((2, 1, 3))(x)))
        return x, layers.Reshape((-1, 4 * y.shape[-1]))(y)
    x = Input((None, F), name="x")
    if kind == "smoothed":
        return x, layers.Conv1D(4, 3, padding="causal", activation="relu")(x)
    if kind == "adapted":
        return x, layers.Normalization(mean=[0.1, -0.2, 0.3], variance=[1.0, 2.0, 0.5])(x)
    return x, layers.Masking()(x) if kind == "masking" else x


def build(spec):
    """Return the Keras model of a drawn spec, its weights random and moderate."""
    keras.backend.clear_session()
    x, y = front(spec)
    outputs = []
    if spec["shape"] == "encoder_decoder":
        first = (*spec["chain"][0][:3], {**spec["chain"][0][3], "return_sequences": True}, None)
        encoded, *states = make(first, return_state=True)(y)
        y = make(first, return_sequences=True)(encoded, initial_state=states)
        chain = spec["chain"][1:]
    elif spec["shape"] == "shared":
        drawn = (*spec["chain"][0][:3], {**spec["chain"][0][3], "return_sequences": True}, None)
        y = layers.Dense(3)(y)
        twice = make((drawn[0], 3, *drawn[2:]) if drawn[0] != "stacked" else ("lstm", 3, {}, *drawn[3:]))
        y = twice(twice(y))
        chain = spec["chain"][1:]
    else:
        chain = spec["chain"]
    for k, drawn in enumerate(chain):
        last = k == len(chain) - 1
        if not last:
            drawn = (*drawn[:3], {**drawn[3], "return_sequences": True}, drawn[4])
        before = y
        if last and spec["states_out"] and drawn[4] is None:
            y, *states = keras.tree.flatten(make(drawn, return_state=True)(y))
            outputs += states
        else:
            y = make(drawn)(y)
        if spec["between"] == "dense":
            y = layers.Dense(4, activation="tanh")(y)
        elif spec["between"] in BETWEEN and len(y.shape) == 3:
            y = BETWEEN[spec["between"]](y)
        elif spec["between"] == "residual" and len(y.shape) == len(before.shape):
            y = layers.Concatenate()([before, y])
    outputs.insert(0, layers.Dense(2)(y) if spec["head"] else y)
    model = keras.Model(x, outputs if len(outputs) > 1 else outputs[0])
    rng = np.random.default_rng(spec["seed"])
    for weight in model.weights:
        drawn = 0.3 * rng.standard_normal(weight.shape)
        weight.assign(np.abs(drawn) + 0.1 if "variance" in weight.path else drawn)
    return model


def attended(y):
    return layers.Add()([y, layers.Attention(use_scale=True)([y, y])])


def scaled(y):
    """Operations between layers, one of them with a tensor that the model holds."""
    y = ops.clip(y * ops.arange(1, y.shape[-1] + 1, dtype="float32"), -0.8, 2.0)
    return ops.where(y > 0.1, ops.sqrt(ops.maximum(y, 0.0)), ops.tanh(y) - ops.mean(y, axis=-1, keepdims=True))


BETWEEN = {
    "norm": lambda y: layers.LayerNormalization()(y),
    "batch norm": lambda y: layers.BatchNormalization()(y),
    "rms": lambda y: layers.RMSNormalization()(y),
    "unit": lambda y: layers.UnitNormalization()(layers.ReLU()(y)),
    "causal": lambda y: layers.Conv1D(3, 2, padding="causal", dilation_rate=2)(y),
    "same": lambda y: layers.SeparableConv1D(3, 3, padding="same", activation="gelu")(y),
    "pointwise": lambda y: layers.Conv1D(4, 1, activation="silu")(y),
    "attention": attended,
    "heads": lambda y: layers.MultiHeadAttention(2, 3)(y, y),
    "pooled": lambda y: layers.AveragePooling1D(2, strides=1, padding="same")(y),
    "prelu": lambda y: layers.PReLU(shared_axes=[1])(y),
    "softmax": lambda y: layers.Activation("softmax")(y),
    "scaled": scaled,
    "gated": lambda y: y * ops.sigmoid(ops.roll(y, 1, axis=-1)),
}
"""What stands between recurrent layers -> from [B, T, U] to [B, T, something]."""


def feed(model, spec):
    """Return the model's own input: some steps are zeros, in the middle and at an end, and one row is all zeros."""
    rng = np.random.default_rng(spec["seed"] + 1)
    shape = (2, max(spec["total"], 3 if spec["between"] == "pooled" else 1), *model.input.shape[2:])
    if spec["front"] == "embedding":
        x = rng.integers(0, VOCABULARY, shape).astype(np.int32)
    else:
        x = rng.standard_normal(shape).astype(np.float32)
    masked = rng.random(shape[:2]) < 0.3
    masked[0, -1] = spec["seed"] % 2
    masked[1] |= spec["seed"] % 5 == 0
    x[masked] = 0
    return x


def agree(what, got, expected):
    """Compare to a few units of float32 after tens of steps, far below what a wrong gate or step gives."""
    assert got.shape == expected.shape, what
    worst = np.abs(got - expected).max()
    assert worst <= 2e-5 * max(1, np.abs(expected).max()), f"{what}: differs by {worst:.2g}"


def expectations(model, x, contract):
    """Return (state feeds, what every output port must give) for zero states, by predict, and for random ones."""
    sequence = contract.signatures["sequence"]
    zeros = sequence.initial_state(len(x))
    predicted = keras.tree.flatten(model.predict(x, verbose=0))
    yield "from zeros", zeros, dict(zip(contract.outputs, predicted, strict=True))

    rng = np.random.default_rng(5)
    states = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in zeros.items()}
    function, ports = Model(model), {port.name for port in sequence.outputs}
    for name in [name for name in function.layers if f"{name}_sequences" not in ports]:
        function.start_anew(name)  # inside a TimeDistributed over the time steps
    ran = function.eagerly({"x": x, **states})
    own, calls = ran.outputs, ran.calls
    expected = dict(zip(contract.outputs, (value for _, value in own), strict=True))
    for call in calls:
        sequences, finals = call.outputs
        expected[f"{call.name}_sequences"] = sequences
        for short, final in zip(call.recurrence.states, finals, strict=True):
            expected[f"{call.name}_{short}"] = final
    assert set(expected) == ports
    yield "from random states", states, {name: np.asarray(value) for name, value in expected.items()}


def stepped(runner, x, state):
    """Run the artifact's `step` on one time step after the other, its state carried."""
    signature, pieces = runner.contract.signatures["step"], []
    for t in range(x.shape[1]):
        pieces.append(runner.run("step", {"x": x[:, t : t + 1], **state}))
        state = {carry.input: pieces[-1][carry.output] for carry in signature.carries}
    outputs = {port.name: [piece[port.name] for piece in pieces] for port in signature.outputs}
    return {p.name: np.concatenate(outputs[p.name], 1) if p.timed else outputs[p.name][-1] for p in signature.outputs}


def chunked(runner, x, state):
    """Push the steps through a stream in chunks of other and other lengths."""
    stream = runner.stream(len(x))
    stream.state = state
    edges = [0, *sorted({1, x.shape[1] // 3, x.shape[1] // 2} - {0, x.shape[1]}), x.shape[1]]
    pieces = [stream.push(x=x[:, a:b]) for a, b in itertools.pairwise(edges) if a < b]
    ports = runner.contract.signatures["sequence"].outputs
    return {port.name: port.in_a_row([piece[port.name] for piece in pieces]) for port in ports}


def tried(spec, folder, outcomes):
    """Export a drawn model and compare its artifacts; count what came of it."""
    model = build(spec)
    x = feed(model, spec)
    if max(np.abs(y).max() for y in keras.tree.flatten(model(x))) > 1e3:
        reject()  # it grows with every step: nothing to compare
    folder = folder / str(sum(outcomes.values()))
    try:
        artifacts = export(model, "all", folder, check=False, batch=spec["batch"])
    except UnsupportedModel as refused:
        outcomes[str(refused).split("\n")[0]] += 1
        return
    outcomes["exported"] += 1
    runners = [signatures.open(artifact.path) for artifact in artifacts]
    assert [runner.target for runner in runners] == list(TARGETS)
    for start, states, expected in expectations(model, x, runners[0].contract):
        for runner in runners:
            ways = {"whole": runner.run("sequence", {"x": x, **states})}
            if "step" in runner.contract.signatures:
                ways["stepped"] = stepped(runner, x, states)
                ways["chunked"] = chunked(runner, x, states)
            for way, outputs in ways.items():
                for port, value in expected.items():
                    agree(f"{runner.target}, {port} {start}, {way}", outputs[port], value)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_random_model_gives_a_wrong_number(part, tmp_path):
    outcomes = Counter()

    @seed(PARTS * SEED + part)
    @settings(
        max_examples=EXAMPLES // PARTS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(models())
    def every(spec):
        tried(spec, tmp_path, outcomes)

    every()
    assert set(outcomes) == {"exported"}, outcomes  # what is drawn here every target takes
    assert outcomes["exported"] >= EXAMPLES // PARTS
