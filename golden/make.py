"""Record the golden cases from their recipes, or prove that the ones on disk are what the recipes give.

    python golden/make.py             record every case again
    python golden/make.py --check     compare: weights and feeds bit for bit, expectations within their noise

A recipe is a function below that builds a tiny Keras model. Its weights are drawn by NumPy from the case's seed, all
different and with a bias that is not zero, so that a swapped gate, state or row shows. To add a case add a function to
RECIPES and run `make golden`.
"""

import argparse
import os
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import Input, Model, Sequential, layers, ops

from exporter import record_case
from signatures import Case

HERE = Path(__file__).parent
NOISE = 1e-6
"""How far a float64 expectation may move between machines: the layers around the recurrence run in float32."""


@dataclass(frozen=True)
class Recipe:
    """How a case is made.

    Attributes:
        build: Makes the model.
        shows: What would break it.
        totals: Time steps of its runs; None means the recorder's own choice.
        lengths: Whether its calls take the valid steps of each sample.
        scale: Standard deviation of the weights, over the square root of their fan-in.
    """

    build: Callable[[], keras.Model]
    shows: str
    totals: tuple[int, ...] | None = None
    lengths: bool = False
    scale: float = 1.0


def one_layer() -> keras.Model:
    """Make a layer that returns everything: sequences, h and c, F != U."""
    x = Input((None, 3), name="x")
    return Model(x, layers.LSTM(5, return_sequences=True, return_state=True, name="lstm")(x))


def stacked() -> keras.Model:
    """Make two layers of different size with a Dense after each time step."""
    return Sequential(
        [
            Input((None, 4), name="x"),
            layers.LSTM(6, return_sequences=True, name="low"),
            layers.LSTM(3, return_sequences=True, name="high"),
        ]
        + [layers.Dense(2, name="y")]
    )


def classifier() -> keras.Model:
    """Make a layer whose last output alone is used, without a bias, unrolled, with dropout that must not act."""
    return Sequential(
        [
            Input((9, 4), name="x"),
            layers.LSTM(5, use_bias=False, unroll=True, dropout=0.5, recurrent_dropout=0.5, name="lstm"),
        ]
        + [layers.Dense(3, activation="softmax", name="y")]
    )


def masked() -> keras.Model:
    """Make a Masking layer before two LSTM layers: holes, padding and steps masked from the start."""
    return Sequential(
        [Input((None, 4), name="x"), layers.Masking(name="masking"), layers.LSTM(5, return_sequences=True, name="low")]
        + [layers.LSTM(3, name="high"), layers.Dense(2, name="y")]
    )


def tokens() -> keras.Model:
    """Make an Embedding whose zeros are masked."""
    return Sequential(
        [Input((None,), dtype="int32", name="tokens"), layers.Embedding(7, 4, mask_zero=True, name="embedding")]
        + [layers.LSTM(5, return_sequences=True, name="lstm"), layers.Dense(2, name="y")]
    )


def states_given() -> keras.Model:
    """Make a layer whose initial state is the model's own input, and so the state port."""
    x, h, c = Input((None, 3), name="x"), Input((4,), name="h0"), Input((4,), name="c0")
    y, last_h, last_c = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(x, initial_state=[h, c])
    return Model({"x": x, "h0": h, "c0": c}, {"y": layers.Dense(2, name="dense")(y), "h": last_h, "c": last_c})


def encoder_decoder() -> keras.Model:
    """Make a decoder that starts from the encoder's state, with time axes of their own and a masked encoder."""
    source, target = Input((None, 3), name="source"), Input((None, 2), name="target")
    _, h, c = layers.LSTM(4, return_state=True, name="encoder")(layers.Masking(name="masking")(source))
    y = layers.LSTM(4, return_sequences=True, name="decoder")(target, initial_state=[h, c])
    return Model([source, target], layers.Dense(2, name="y")(y))


def static_vector() -> keras.Model:
    """Make a vector that is joined to the features of every time step."""
    x, who = Input((None, 3), name="x"), Input((2,), name="who")
    repeated = ops.zeros_like(x[:, :, :2]) + ops.expand_dims(who, 1)
    y = layers.LSTM(4, return_sequences=True, name="lstm")(layers.Concatenate(name="joined")([x, repeated]))
    return Model([x, who], layers.Dense(2, name="y")(y))


def nested_twice() -> keras.Model:
    """Make a nested model, called once, around a layer that is called twice."""
    inner_x = Input((None, 3))
    shared = layers.LSTM(3, return_sequences=True, name="shared")
    inner = Model(inner_x, shared(shared(inner_x)), name="inner")
    x = Input((None, 3), name="x")
    return Model(x, [inner(x), layers.LSTM(2, name="side")(x)])


def gated() -> keras.Model:
    """Make both forms of GRU, masked."""
    return Sequential(
        [Input((None, 3), name="x"), layers.Masking(name="masking")]
        + [layers.GRU(5, return_sequences=True, name="after"), layers.GRU(4, reset_after=False, name="before")]
    )


def elman() -> keras.Model:
    """Make SimpleRNN layers, masked, the second without a bias."""
    return Sequential(
        [Input((None, 3), name="x"), layers.Masking(name="masking")]
        + [layers.SimpleRNN(5, return_sequences=True, name="low")]
        + [layers.SimpleRNN(4, activation="softsign", use_bias=False, name="high")]
    )


def activations() -> keras.Model:
    """Make layers with activations that ONNX's ops have: hard_sigmoid with Keras 3's slope, relu, elu, leaky_relu."""
    return Sequential(
        [Input((None, 3), name="x")]
        + [layers.LSTM(4, activation="elu", recurrent_activation="hard_sigmoid", return_sequences=True, name="hard")]
        + [layers.GRU(3, activation="leaky_relu", recurrent_activation="softsign", return_sequences=True, name="soft")]
        + [layers.SimpleRNN(4, activation="linear", return_sequences=True, name="linear")]
    )


def other_activations() -> keras.Model:
    """Make layers with activations that ONNX's ops don't have."""
    return Sequential(
        [Input((None, 3), name="x")]
        + [layers.LSTM(4, activation="silu", recurrent_activation="sparse_sigmoid", return_sequences=True, name="silu")]
        + [layers.GRU(3, activation="gelu", return_sequences=True, name="gelu")]
    )


def backwards() -> keras.Model:
    """Make a layer that runs from the last step to the first, masked."""
    return Sequential(
        [Input((None, 3), name="x"), layers.Masking(name="masking")]
        + [layers.LSTM(4, go_backwards=True, return_sequences=True, name="lstm")]
    )


def zero_masked() -> keras.Model:
    """Make a layer that gives zeros on masked steps."""
    return Sequential(
        [Input((None, 3), name="x"), layers.Masking(name="masking")]
        + [layers.LSTM(4, zero_output_for_mask=True, return_sequences=True, name="lstm")]
    )


def bidirectional() -> keras.Model:
    """Make Bidirectional layers, masked: different halves, states returned, merged in two ways."""
    x = Input((None, 3), name="x")
    back = layers.LSTM(4, activation="relu", go_backwards=True, return_sequences=True, return_state=True)
    both = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True, return_state=True), backward_layer=back, merge_mode="ave", name="both"
    )
    y, *states = both(layers.Masking(name="masking")(x))
    return Model(x, [layers.Bidirectional(layers.GRU(3), name="last")(y), *states])


def cells() -> keras.Model:
    """Make an RNN of stacked cells of all kinds, masked."""
    inner = [layers.LSTMCell(4), layers.GRUCell(3), layers.SimpleRNNCell(2)]
    return Sequential(
        [
            Input((None, 3), name="x"),
            layers.Masking(name="masking"),
            layers.RNN(inner, return_sequences=True, name="rnn"),
        ]
    )


def convolutional() -> keras.Model:
    """Make a ConvLSTM2D with strides, whose state is an image, and a ConvLSTM1D."""
    return Sequential(
        [Input((None, 6, 5, 2), name="x")]
        + [layers.ConvLSTM2D(2, (3, 2), strides=(2, 1), return_sequences=True, name="image")]
        + [layers.TimeDistributed(layers.Reshape((4, 4)), name="lines")]
        + [layers.ConvLSTM1D(3, 3, padding="same", name="line")]
    )


def narrow() -> keras.Model:
    """Make a mixed_float16 model: float32 weights, float16 arithmetic, a float32 head."""
    options = {"return_sequences": True, "dtype": "mixed_float16"}
    return Sequential(
        [Input((None, 3), name="x"), layers.Masking(dtype="mixed_float16", name="masking")]
        + [layers.LSTM(5, name="lstm", **options), layers.GRU(4, name="gru", **options)]
        + [layers.Dense(2, dtype="float32", name="y")]
    )


def wide() -> keras.Model:
    """Make a float64 model."""
    options = {"return_sequences": True, "dtype": "float64"}
    return Sequential(
        [Input((None, 3), dtype="float64", name="x"), layers.Masking(dtype="float64", name="masking")]
        + [layers.LSTM(5, name="lstm", **options), layers.GRU(4, name="gru", **options)]
    )


@keras.saving.register_keras_serializable("golden")
class Leaky(layers.Layer):
    """A cell of one's own: an average that leaks, and how many steps it saw; its output is neither."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.state_size, self.output_size = units, [units, 1], units

    def build(self, input_shape: Any) -> None:
        """Make the one kernel."""
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs: Any, states: Any) -> Any:
        """Advance one step."""
        average, count = states
        average = 0.9 * average + 0.1 * ops.matmul(inputs, self.kernel)
        return ops.tanh(average) / (1 + count), [average, count + 1]

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {**super().get_config(), "units": self.units}


def own_cell() -> keras.Model:
    """Make an RNN around a cell of one's own."""
    return Sequential([Input((None, 3), name="x"), layers.RNN(Leaky(4), return_sequences=True, name="leaky")])


def repeated() -> keras.Model:
    """Make a recurrent layer inside TimeDistributed: it starts anew at every outer step and has no ports."""
    return Sequential(
        [Input((None, 5, 2), name="x"), layers.TimeDistributed(layers.GRU(3), name="words")]
        + [layers.LSTM(4, return_sequences=True, name="lstm")]
    )


RECIPES = {
    "one_layer": Recipe(one_layer, "gate order, h and c swapped, bias, rows mixed up"),
    "stacked": Recipe(stacked, "states of two layers swapped, a layer left out"),
    "classifier": Recipe(classifier, "a bias that isn't there, dropout at inference, a fixed number of time steps"),
    "masked": Recipe(masked, "state that moves on masked steps, outputs not repeated, a mask lost on the way"),
    "tokens": Recipe(tokens, "integer inputs, the mask of an Embedding"),
    "states_given": Recipe(states_given, "names of state inputs the user chose, a dict of inputs and outputs"),
    "encoder_decoder": Recipe(encoder_decoder, "a state port where the model gives the state, time axes taken for one"),
    "static_vector": Recipe(static_vector, "an input without a time axis"),
    "nested_twice": Recipe(nested_twice, "names of nested layers and of second calls"),
    "lengths": Recipe(stacked, "state that moves after a sample's length, length 0", lengths=True),
    "gated": Recipe(gated, "gate order of a GRU, the reset gate before or after the product, its second bias"),
    "elman": Recipe(elman, "a recurrence without gates"),
    "activations": Recipe(activations, "slopes and parameters of activations in ONNX's ops", scale=0.5),
    "other_activations": Recipe(other_activations, "activations that no native op has"),
    "backwards": Recipe(backwards, "the order of a reversed sequence, a state carried where none goes on", (1, 6, 21)),
    "zero_masked": Recipe(zero_masked, "outputs repeated where zeros were asked for"),
    "bidirectional": Recipe(bidirectional, "halves swapped, the backward half's order and masks", (1, 6, 21)),
    "cells": Recipe(cells, "states of stacked cells mixed up"),
    "convolutional": Recipe(convolutional, "padding, strides, states that are images", (1, 2, 7)),
    "repeated": Recipe(repeated, "a state kept between outer steps"),
    "narrow": Recipe(narrow, "float16 computed in another type without a word"),
    "wide": Recipe(wide, "float64 computed in another type without a word"),
    "own_cell": Recipe(own_cell, "states and outputs of a cell whose equations are not known"),
    "long": Recipe(one_layer, "errors that add up over 1000 steps", totals=(1000,), scale=0.7),
    "saturated": Recipe(one_layer, "gates at 0 and 1, a large cell state", totals=(31,), scale=8.0),
}


def record(name: str, folder: Path) -> None:
    """Build a recipe's model and record its case."""
    recipe = RECIPES[name]
    keras.backend.clear_session()
    rng = np.random.default_rng(zlib.crc32(name.encode()))  # of its own, whatever else is recorded
    model = recipe.build()
    model.name = name
    model.set_weights(
        [recipe.scale * rng.standard_normal(w.shape).astype(w.dtype) / np.sqrt(w.shape[0]) for w in model.get_weights()]
    )
    how = {"made_by": "golden/make.py", "shows": recipe.shows}
    record_case(model, folder, totals=recipe.totals, lengths=recipe.lengths, recipe=how)


def differences(name: str, fresh: Path) -> list[str]:
    """Compare a freshly recorded case with the one on disk, one sentence a difference."""
    old, new = Case.load(HERE / name), Case.load(fresh)
    found = []
    if old.tolerance != new.tolerance:
        found.append(f"tolerance {old.tolerance} is now {new.tolerance}")
    weights = [keras.saving.load_model(folder / "model.keras").get_weights() for folder in (HERE / name, fresh)]
    if len(weights[0]) != len(weights[1]) or any(not np.array_equal(a, b) for a, b in zip(*weights, strict=False)):
        found.append("the model's weights differ")
    if [run.name for run in old.runs] != [run.name for run in new.runs]:
        return [*found, "the runs differ"]
    for a, b in zip(old.runs, new.runs, strict=True):
        if set(a.feeds) != set(b.feeds) or set(a.expect) != set(b.expect):
            found.append(f"{a.name}: the ports differ")
            continue
        found += [
            f"{a.name}: feed {port!r} differs" for port in a.feeds if not np.array_equal(a.feeds[port], b.feeds[port])
        ]
        for port, value in a.expect.items():
            gap = float(np.abs(value - b.expect[port]).max()) if value.shape == b.expect[port].shape else float("inf")
            if gap > NOISE * max(1.0, float(np.abs(value).max())):
                found.append(f"{a.name}: expectation {port!r} moved by {gap:.2g}")
    return found


def main() -> int:
    """Record or check every case; return the exit code."""
    parser = argparse.ArgumentParser(description="Record the golden cases, or prove that they are fresh.")
    parser.add_argument("--check", action="store_true", help="compare with what is on disk and change nothing")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    stale = {path.name for path in HERE.iterdir() if (path / "recipe.json").is_file()} - set(RECIPES)
    faults = {name: ["has no recipe"] for name in stale}
    with tempfile.TemporaryDirectory() as scratch:
        for name in RECIPES:
            record(name, Path(scratch) / name)
            if arguments.check:
                faults[name] = differences(name, Path(scratch) / name) if (HERE / name).is_dir() else ["is missing"]
            else:
                shutil.rmtree(HERE / name, ignore_errors=True)
                shutil.copytree(Path(scratch) / name, HERE / name)
            print(
                f"  {name:<18}{'; '.join(faults.get(name, [])) or 'fresh' if arguments.check else 'recorded'}",
                flush=True,
            )
    bad = {name: found for name, found in faults.items() if found}
    for name in sorted(stale):
        print(f"  {name:<18}has no recipe in golden/make.py: remove the folder")
    if bad:
        print("Stale cases. If the change is meant, run `make golden` and look at the difference before you commit it.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
