"""Measure quantized artifacts: how close to the model along a real stream, how large, how quick, beside the peers.

    python benchmarks/quantized.py            # closeness alone, three minutes
    python benchmarks/quantized.py --speed    # sizes and times, too

Three models on the recordings of the example: its own, and an LSTM and a GRU of 64 units that are trained here, with a
fixed seed, to name the speaker of each frame in streams of several. 200 recordings, drawn with a fixed seed, are
quantized by; 1,200 time steps of the others, in a row, are measured by. Times are ratios of calls side by side, one
thread each, see exporter/bench.py.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from contenders import Problem, Shape, open_own, open_step
from rich.console import Console
from rich.table import Table
from streams import shares

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "japanese_vowels"

GOALS: Mapping[tuple[str, str], tuple[float, float, float]] = {
    ("tflite", "float16"): (66, 72, 74),
    ("tflite", "dynamic"): (42, 48, 47),
    ("tflite", "int8"): (36, 42, 42),
    ("tflite", "int16x8"): (45, 52, 50),
    ("tflite", "int16x8 precise"): (66, 70, 74),
    ("onnx", "dynamic"): (36, 43, 43),
    ("onnx", "int8"): (45, 52, 50),
}
"""(target, scheme) -> dB of every h port: of the example's model, the LSTM and the GRU."""

DRIFT = 3.0
"""dB by which the last quarter of a stream may be worse than the first, of every step's h; more has a !."""

SIZES = {64: 0.37, 128: 0.37, 256: 0.30, 512: 0.27}
"""Units of an LSTM -> what an 8-bit file may be of the float32 file; 64 units aren't held to it."""

SEQUENCES = {
    ("tflite", Shape(16, 32)): 0.95,
    ("tflite", Shape(64, 128)): 0.72,
    ("tflite", Shape(128, 256)): 0.45,
    ("tflite", Shape(257, 512)): 0.16,
    ("onnx", Shape(64, 128)): 0.55,
    ("onnx", Shape(128, 256)): 0.40,
    ("onnx", Shape(257, 512)): 0.11,
}
"""(target, LSTM) -> what `sequence` in dynamic may take of float32's time, 960 time steps."""

CORES = {"core": 0.42, "core behind a Dense of 512": 0.25}
"""A speech-enhancement core -> what its TFLite `step` in dynamic may take of float32's time."""

TOTAL = 960
SEEN, STEPS = 200, 1200


def data() -> tuple[list[np.ndarray], np.ndarray]:
    """Return the recordings [T, 12] and who speaks each."""
    with np.load(EXAMPLE / "recordings.npz") as found:
        parts = np.split(found["frames"].astype(np.float32), np.cumsum(found["lengths"])[:-1])
        return parts, found["speaker"]


def split(recordings: list[np.ndarray]) -> Any:
    """Return what to quantize by and what to measure by."""
    from exporter.read.calibration import Recordings

    order = np.random.default_rng(0).permutation(len(recordings))
    seen, kept = ([recordings[k] for k in part] for part in (order[:SEEN], order[SEEN:]))
    stream = np.concatenate(kept)[None, :STEPS]
    return Recordings("the example's", tuple({"frames": each[None]} for each in seen), ({"frames": stream},))


def trained(layer: str) -> tuple[Any, list[np.ndarray]]:
    """Return a model of 64 units that names the speaker of each frame, and the recordings as it takes them."""
    import keras

    keras.utils.set_random_seed(0)
    recordings, speakers = data()
    mean, spread = (getattr(np.concatenate(recordings), how)(axis=0) for how in ("mean", "std"))
    order = np.random.default_rng(0).permutation(len(recordings))
    scaled, speakers = [(recordings[k] - mean) / spread for k in order], speakers[order]
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(600):  # streams of four recordings, so that it learns to go from one to the next
        picked = rng.choice(SEEN, 4)
        x = np.concatenate([scaled[k] + 0.1 * rng.normal(size=scaled[k].shape) for k in picked])
        who = np.concatenate([np.full(len(scaled[k]), speakers[k]) for k in picked])
        rows.append((np.resize(x, (64, 12)), np.resize(who, 64)))
    model = keras.Sequential(
        [
            keras.layers.Input((None, 12), name="frames"),
            getattr(keras.layers, layer)(64, return_sequences=True, name=layer.lower()),
            keras.layers.Dense(9, activation="softmax", name="speaker"),
        ],
        name=f"{layer.lower()}64",
    )
    model.compile(keras.optimizers.AdamW(4e-3, weight_decay=0.02), "sparse_categorical_crossentropy")
    x, who = (np.stack(side) for side in zip(*rows, strict=True))
    model.fit(x.astype(np.float32), who, epochs=12, batch_size=32, verbose=0)
    return model, [scaled[k].astype(np.float32) for k in np.argsort(order)]


def peers(target: str, whole: Path, folder: Path) -> dict[str, Path]:
    """Return what the runtime's own tools make of the float32 artifact, name -> file."""
    if target == "tflite":  # TFLiteConverter takes neither a Keras LSTM nor our file: nothing to hold against
        return {}
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = folder / "onnxruntime_dynamic.onnx"
    quantize_dynamic(whole, made, weight_type=QuantType.QUInt8, per_channel=True)
    return {"onnxruntime's quantize_dynamic": made}


def right(path: Path, recordings: list[np.ndarray], speakers: np.ndarray) -> int:
    """Return how many recordings an artifact names the speaker of at their end, each from the start of a stream."""
    import signatures

    stream = signatures.open(path).stream()
    named = []
    for each in recordings:
        stream.reset()
        named.append(int(stream.push(each[None])["speaker"].reshape(-1, 9)[-1].argmax()))
    return int((np.array(named) == speakers).sum())


def closeness(table: Table) -> bool:
    """Measure the three models in every scheme; return whether every goal is reached."""
    import keras

    import signatures
    from exporter.compare import make_all, schemes_of
    from exporter.pipeline import opening
    from exporter.prove.trial import trial

    example = keras.saving.load_model(EXAMPLE / "model.keras")
    models = {"example": (example, data()[0]), "lstm64": trained("LSTM"), "gru64": trained("GRU")}
    reached = True
    for k, (name, (model, recordings)) in enumerate(models.items()):
        for target in ("tflite", "onnx"):
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                options = {"calibration": split(recordings), "gate": 0.0}
                rows = make_all(model, target, schemes_of(target, ["all"]), folder, options)
                named = {
                    each.scheme: right(each.path, *data()) for each in rows if name == "example" and not each.refused
                }
                qualities = {each.scheme: (each.quality, each.size, each.refused) for each in rows}
                for peer, path in peers(target, rows[0].path, folder).items():
                    with opening(model, None, 8.0, lambda stage: None) as opened:
                        contract = opened.contract(())
                        held = trial(opened.model, contract, split(recordings))
                        found = held.measured(signatures.open(path), 0.0)
                        qualities[peer] = (found, path.stat().st_size, "")
                for scheme, (quality, size, refused) in qualities.items():
                    goal = GOALS.get((target, scheme))
                    if quality is None:
                        told = [refused or f"{size / 1000:.0f} kB", "", "", ""]
                        reached &= goal is None
                    else:
                        ports = [port for port in quality.ports if port.port.endswith("_sequences")]
                        least, drift = min(port.sqnr for port in ports), max(port.drift for port in ports)
                        fits = goal is None or least >= goal[k]
                        reached &= fits and (goal is None or drift < DRIFT)
                        told = [
                            f"{size / 1000:.0f} kB",
                            f"{least:.1f}",
                            f"{drift:.1f}{'!' * (drift >= DRIFT)}",
                            f"{quality.decisions:.1%}",
                        ]
                    asked = "" if goal is None else f"{goal[k]:g}"
                    many = str(named.get(scheme, ""))
                    reached &= scheme not in named or abs(named[scheme] - named["float32"]) <= 1
                    verdict = "" if goal is None else "reached" if quality is not None and fits else "missed"
                    table.add_row(name, target, scheme, *told, many, asked, verdict)
    return reached


def lstm(shape: Shape) -> Any:
    """Return an LSTM with random weights."""
    import keras

    keras.utils.set_random_seed(1)
    x = keras.Input((None, shape.features), name="x")
    return keras.Model(x, keras.layers.LSTM(shape.units, return_sequences=True, name="lstm")(x))


def core(dense: bool) -> Any:
    """Return the core of a speech enhancer: two LSTMs of 128 units and a mask of 257 bins."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    x = y = keras.Input((None, 257), name="x")
    y = layers.Dense(512, activation="relu")(y) if dense else y
    for _ in range(2):
        y = layers.LSTM(128, return_sequences=True)(y)
    return keras.Model(x, layers.Dense(257, activation="sigmoid")(y))


def speed(table: Table) -> bool:
    """Measure sizes and times; return whether every goal is reached."""
    from exporter import export

    reached = True

    def add(what: str, share: float, most: float) -> None:
        nonlocal reached
        reached &= share <= most
        table.add_row(what, f"{share:.2f}", f"{most:g}", "reached" if share <= most else "missed")

    with tempfile.TemporaryDirectory() as made:
        for number, ((target, shape), most) in enumerate(SEQUENCES.items()):
            folder = Path(made) / str(number)
            [whole] = export(lstm(shape), target, folder / f"a{target}/", check=False)
            [small] = export(lstm(shape), target, folder / f"b{target}/", quantize="dynamic", check=False)
            openers = [partial(open_own, each.path, Problem(shape, 1, TOTAL)) for each in (whole, small)]
            add(f"{target} dynamic `sequence`, LSTM {shape}", shares(openers)[1], most)
            if shape.units in SIZES and shape.units >= 128:
                add(f"{target} dynamic file, LSTM {shape}", small.size / whole.size, SIZES[shape.units])
        for name, most in CORES.items():
            folder = Path(made) / name
            model = core(name != "core")
            [whole] = export(model, "tflite", folder / "a/", check=False)
            [small] = export(model, "tflite", folder / "b/", quantize="dynamic", check=False)
            add(f"tflite dynamic `step`, {name}", shares([partial(open_step, x.path) for x in (whole, small)])[1], most)
    return reached


def main() -> int:
    """Measure and print; return 1 where a goal isn't reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", action="store_true", help="measure sizes and times, too")
    arguments = parser.parse_args()
    table = Table(
        "model", "target", "scheme", "size", "dB of h", "drift", "decided alike", "right of 370", "dB asked for", ""
    )
    reached = closeness(table)
    Console(width=160).print(table)
    if arguments.speed:
        table = Table("of float32", "share", "goal", "")
        reached &= speed(table)
        Console(width=160).print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
