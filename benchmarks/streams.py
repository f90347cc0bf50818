"""Time a step of a streaming model against recomputing its window with Keras' own conversion, side by side.

    python benchmarks/streams.py

Each model is exported here to TFLite and ONNX, and converted by Keras' way for a batch of 1 and as many time steps as
its window has. One thread each, one process after the other, see exporter/bench.py; what is told is the median of the
ratios turn by turn.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from contenders import open_step, open_window
from rich.console import Console
from rich.table import Table

from exporter.bench import Worker, ratio, take_turns
from signatures.runtimes import target_of


@dataclass(frozen=True)
class Goal:
    """What a step may take of the time of recomputing the window.

    Attributes:
        window: Time steps of it.
        most: Target -> its share.
    """

    window: int
    most: dict[str, float]


GOALS = {
    "tcn": Goal(61, {"tflite": 1 / 12, "onnx": 1 / 5}),
    "kws": Goal(98, {"tflite": 1 / 60, "onnx": 1 / 30}),
    "rnnoise": Goal(100, {"tflite": 1 / 150, "onnx": 1 / 90}),
}


def tcn(filters: int = 64, dilations: tuple[int, ...] = (1, 2, 4, 8)) -> Any:
    """Return blocks of two convolutions of kernel 3 and a residual."""
    import keras
    from keras import layers

    x = y = keras.Input((None, 12))
    y = layers.Conv1D(filters, 1)(y)
    for dilation in dilations:
        z = y
        for _ in range(2):
            z = layers.Conv1D(filters, 3, dilation_rate=dilation, padding="causal")(z)
            z = layers.ReLU()(layers.BatchNormalization()(z))
        y = layers.Add()([y, z])
    return keras.Model(x, layers.Dense(5)(y))


def kws() -> Any:
    """Return a keyword spotter: a strided convolution, a GRU."""
    import keras
    from keras import layers

    x = keras.Input((None, 40))
    y = layers.Conv1D(64, 5, strides=2, padding="causal", activation="relu")(x)
    return keras.Model(x, layers.Dense(12)(layers.GRU(64, return_sequences=True)(y)))


def rnnoise() -> Any:
    """Return a noise suppressor: two convolutions, three GRUs, two outputs of all of them."""
    import keras
    from keras import layers

    x = y = keras.Input((None, 42))
    y = layers.Conv1D(128, 3, padding="causal", activation="tanh")(y)
    y = layers.Conv1D(128, 3, padding="causal", activation="tanh")(y)
    seen = [y]
    for _ in range(3):
        y = layers.GRU(128, return_sequences=True)(y)
        seen.append(y)
    joined = layers.Concatenate()(seen)
    return keras.Model(x, [layers.Dense(22, "sigmoid")(joined), layers.Dense(1, "sigmoid")(joined)])


MODELS = {"tcn": tcn, "kws": kws, "rnnoise": rnnoise}


def converted(model: Any, window: int, path: Path) -> Path:
    """Write Keras' own conversion of a model for one sample of so many time steps."""
    import keras
    import tensorflow as tf

    x = keras.Input(batch_shape=(1, window, model.inputs[0].shape[-1]))
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(x, model(x))).convert())
    return path


def shares(openers: list[Any]) -> list[float]:
    """Return the time of each call as a share of the first one's."""
    workers = [Worker() for _ in openers]
    try:
        for worker, opener in zip(workers, openers, strict=True):
            worker.ask(opener)
            worker.answer()
        took = take_turns(workers)
        return [ratio(each, took[0]).median for each in took]
    finally:
        for worker in workers:
            worker.close()


def deep(folder: Path) -> float:
    """Return the time of a TFLite step with dilations 1 to 512 as a share of the same without dilation."""
    from exporter import export

    paths = []
    for name, dilations in (("plain", (1,) * 10), ("dilated", tuple(2**k for k in range(10)))):
        [made] = export(tcn(32, dilations), "tflite", folder / f"{name}.tflite", check=False)
        paths.append(made.path)
    return shares([partial(open_step, path) for path in paths])[1]


def main() -> int:
    """Measure and print; return 1 where a goal isn't reached."""
    from exporter import export

    table = Table("model", "target", "a step / its window by Keras' conversion", "goal", "ops", "size", "")
    reached = True
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, goal in GOALS.items():
            model = MODELS[name]()
            artifacts = export(model, ["tflite", "onnx"], folder / name, check=False)
            peer = converted(model, goal.window, folder / f"{name}_window.tflite")
            steps = [partial(open_step, artifact.path) for artifact in artifacts]
            found = shares([partial(open_window, peer), *steps])[1:]
            for artifact, share in zip(artifacts, found, strict=True):
                most = goal.most[target_of(artifact.path)]
                reached &= share <= most
                told = ("reached" if share <= most else "missed",)
                size = f"{artifact.size / 1000:,.0f} kB"
                ops = str(sum(artifact.ops.values()))
                table.add_row(name, artifact.target, f"1/{1 / share:.1f}", f"1/{1 / most:.0f}", ops, size, *told)
        share = deep(folder)
        reached &= share <= 2
        table.add_row(
            "dilations to 512", "tflite", f"{share:.1f} of none", "2", "", "", "reached" if share <= 2 else "missed"
        )
    Console().print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
