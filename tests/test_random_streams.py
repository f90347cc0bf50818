"""Random models that remember windows, folds and states stream in every runtime to what Keras gives on a recording.

Each model is exported unchecked and its stream is run here from the start, in calls of random lengths, against
`model.predict` on the whole recording; a model that can't be stepped has to be one that the table in docs/ refuses.
"""

import os

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from keras import Input, layers, ops

import signatures
from exporter import export
from signatures.errors import UnsupportedModel

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")  # and drops it

EXAMPLES = int(os.environ.get("RANDOM_STREAMS", "4"))
"""How many are drawn: RANDOM_STREAMS=60 makes a long run of it."""

SEED = int(os.environ.get("RANDOM_SEED", "0"))
TARGETS = ("tflite", "onnx", "savedmodel")
F = 6

CONVOLUTIONS = {
    "conv": layers.Conv1D,
    "separable": layers.SeparableConv1D,
    "depthwise": lambda filters, *rest, **options: layers.DepthwiseConv1D(*rest, **options),
}


@st.composite
def convolutions(draw):
    """Draw a convolution over time, strided or dilated or neither."""
    kind, padding = draw(st.sampled_from(list(CONVOLUTIONS))), draw(st.sampled_from(["causal", "valid", "same"]))
    kernel, dilation = draw(st.integers(1, 5)), draw(st.sampled_from([1, 1, 1, 2, 3]))
    dilation = 1 if kernel == 1 else dilation
    return {
        "is": "convolution",
        "kind": kind,
        "padding": "valid" if (kind, padding) == ("depthwise", "causal") else padding,
        "kernel": kernel,
        "dilation": dilation,
        "stride": draw(st.sampled_from([1, 1, 2, 3])) if dilation == 1 else 1,
        "activation": draw(st.sampled_from(["relu", "tanh", None])),
    }


def block(is_a, **options):
    return st.fixed_dictionaries({"is": st.just(is_a), **options})


KINDS, SIZES = st.sampled_from(["max", "average"]), st.integers(2, 4)
BLOCKS = st.one_of(
    convolutions(),
    convolutions(),
    block("recurrent", kind=st.sampled_from(["lstm", "gru", "simple_rnn"])),
    block("pool", kind=KINDS, size=SIZES, stride=st.sampled_from([None, 1, 2])),
    block("residual", of=convolutions(), merge=st.sampled_from(["add", "concat"])),
    block("crop", rows=st.integers(1, 4)),
    block("pad", rows=st.integers(1, 3), kernel=st.integers(2, 4)),
    block("up", by=st.sampled_from([2, 3])),
    block("two axes", kernel=st.integers(1, 3), padding=st.sampled_from(["valid", "same"])),
    block("normalized"),
    block("cumsum"),
)


@st.composite
def streams(draw):
    """Draw a model as plain data, which is what a failure prints."""
    return {
        "blocks": draw(st.lists(BLOCKS, min_size=1, max_size=4)),
        "head": draw(st.sampled_from(["dense", "nothing", "mean", "max", "last"])),
        "calls": draw(st.integers(0, 1000)),
    }


def convolved(block, x, units=5):
    stride = block["stride"]
    layer = CONVOLUTIONS[block["kind"]](
        *(units, block["kernel"]),
        strides=stride,
        padding=block["padding"],
        activation=block["activation"],
        dilation_rate=block["dilation"],
    )
    return layer(x)


def applied(block, x):
    """Return what a block makes of a sequence [B, T, F]."""
    kind = block["is"]
    if kind == "convolution":
        return convolved(block, x)
    if kind == "recurrent":
        made = {"lstm": layers.LSTM, "gru": layers.GRU, "simple_rnn": layers.SimpleRNN}[block["kind"]]
        return made(4, return_sequences=True)(x)
    if kind == "pool":
        made = {"max": layers.MaxPooling1D, "average": layers.AveragePooling1D}[block["kind"]]
        return made(block["size"], strides=block["stride"])(x)
    if kind == "residual":
        inner = {**block["of"], "stride": 1}
        y = convolved(inner, x, x.shape[-1])
        if block["of"]["kind"] == "depthwise" or y.shape[-1] == x.shape[-1]:
            skip = x if inner["padding"] != "valid" else x[:, inner["dilation"] * (inner["kernel"] - 1) :]
            return layers.Add()([y, skip]) if block["merge"] == "add" else layers.Concatenate()([y, skip])
        return y
    if kind == "crop":
        return x[:, block["rows"] :]
    if kind == "pad":
        return layers.Conv1D(4, block["kernel"])(layers.ZeroPadding1D((block["rows"], 0))(x))
    if kind == "up":
        return layers.UpSampling1D(block["by"])(x)
    if kind == "two axes":
        y = layers.Reshape((-1, x.shape[-1], 1))(x)
        y = layers.Conv2D(2, (block["kernel"], 3), padding=block["padding"], activation="relu")(y)
        return layers.Reshape((-1, y.shape[-2] * 2))(y)
    if kind == "normalized":
        return layers.ReLU()(layers.BatchNormalization()(x))
    if kind == "cumsum":
        return ops.cumsum(x, axis=1) / 10
    raise AssertionError(kind)


def built(spec):
    x = y = Input((None, F), name="x")
    for block in spec["blocks"]:
        y = applied(block, y)
    if spec["head"] == "dense":
        y = layers.Dense(3, name="y")(y)
    elif spec["head"] in ("mean", "max"):
        pool = {"mean": layers.GlobalAveragePooling1D, "max": layers.GlobalMaxPooling1D}[spec["head"]]
        y = layers.Dense(2, name="y")(pool()(y))
    elif spec["head"] == "last":
        y = layers.GRU(3, name="y")(y)
    return keras.Model(x, y)


def scrambled(model, number):
    """Return the model with random weights, variances above zero."""
    rng = np.random.default_rng(number)
    for variable in model.weights:
        value = rng.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


def hold(spec, folder):
    """Stream a model in every target and compare with Keras.

    Raises:
        UnsupportedModel: When it can't be stepped.
    """
    model = scrambled(built(spec), spec["calls"])
    artifacts = export(model, TARGETS, f"{folder}/", check=False, lookahead=True, force=True)
    contract = artifacts[0].contract
    if contract.no_step is not None:
        raise UnsupportedModel(contract.no_step)
    signature = contract.signatures["sequence"]
    every = signature.every
    rng = np.random.default_rng(spec["calls"])
    sizes = [every * int(n) for n in rng.integers(1, 6, 24)] + [every] * 8
    x = rng.standard_normal((1, sum(sizes), F)).astype(np.float32)
    expected = keras.tree.flatten(model.predict(x, verbose=0))
    for artifact in artifacts:
        stream = signatures.open(artifact.path).stream(trim=True)
        pieces, start = [], 0
        for size in sizes:
            pieces.append(stream.push(x[:, start : start + size]))
            start += size
        for name, want in zip(contract.outputs, expected, strict=True):
            port = signature.ports[name]
            got = port.in_a_row([piece[name] for piece in pieces])
            if port.timed:
                ahead = signature.ahead.get(name, 0)
                assert got.shape[1] + ahead >= want.shape[1], artifact.target
                rows = min(got.shape[1], want.shape[1])
                assert rows > 0
                got, want = got[:, :rows], want[:, :rows]
            np.testing.assert_allclose(got, want, atol=2e-5, rtol=2e-4, err_msg=f"{artifact.target}: {spec}")


def refused_by_the_table(reason):
    """Whether a refusal is one that the table of docs/ names."""
    return any(told in reason for told in ("No layer remembers anything", "rows of padding", "of the future"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@seed(SEED)
@given(spec=streams())
def test_random_models_stream_to_what_keras_gives(spec, tmp_path_factory):
    try:
        built(spec)
    except ValueError:  # a merge of rows that don't fit
        reject()
    try:
        hold(spec, tmp_path_factory.mktemp("streams"))
    except UnsupportedModel as refused:
        reason = str(refused)
    else:
        return
    assert refused_by_the_table(reason), f"{spec}: {reason}"
    reject()
