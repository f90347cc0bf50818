"""Quantized artifacts: smaller, within their gate along a stream, lawful; and what is refused."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

import exporter
import signatures
from exporter import compare
from exporter.read import calibration
from exporter.targets import TARGETS, rounding
from signatures.errors import FeedError, LoadError, OutputError, ParityError, UnsupportedModel
from signatures.ports import Port
from signatures.quality import sqnr
from signatures.schemes import SCHEMES

FLOATS = [
    ("tflite", "float16"),
    ("tflite", "dynamic"),
    ("onnx", "float16"),
    ("onnx", "dynamic"),
    ("onnx", "int8"),
    ("c", "int8"),
]
SHARE = {"float16": 0.7, "dynamic": 0.6, "int8": 0.6}
"""Of the float32 file's bytes, which hold graphs and biases besides weights."""


def walk(steps: int, features: int, seed: int) -> np.ndarray:
    """Return a slow random walk [T, F], much unlike white noise: neighbouring features go together."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(size=(steps, features)) * 0.3, axis=0)
    x -= np.linspace(0, 1, steps)[:, None] * x[-1]
    return (x @ (np.eye(features) + 0.5)).astype(np.float32) / 4


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """An LSTM large enough for ONNX Runtime's own op, a GRU, a Dense layer."""
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 12), name="x")
    h = keras.layers.LSTM(128, return_sequences=True, name="lstm")(x)
    h = keras.layers.GRU(24, return_sequences=True, name="gru")(h)
    made = keras.Model(x, keras.layers.Dense(48, activation="softmax", name="classes")(h), name="mixed")
    for weight in made.weights:
        if "bias" in weight.path:
            weight.assign(0.1 * np.random.default_rng(0).normal(size=weight.shape))
    return made


RECORDINGS = [walk(300, 12, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def made(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], compare.Made]:
    """Return (target, scheme, or float32) -> what was made."""
    found, stages = {}, []
    for target in ("tflite", "onnx", "c"):
        schemes = [(scheme, False) for to, scheme in FLOATS if to == target]
        folder = tmp_path_factory.mktemp(target)
        for each in compare.make_all(model, target, schemes, folder, {"calibration": RECORDINGS}, stages.append):
            found[target, each.scheme] = each
    assert sum(stage == exporter.Stage("golden numbers", "float32", "t1") for stage in stages) == 3  # once a target
    return found


@pytest.mark.parametrize(("target", "scheme"), FLOATS)
def test_a_quantized_artifact_is_smaller_and_good(made, target: str, scheme: str) -> None:
    artifact, contract = made[target, scheme], signatures.read_contract(made[target, scheme].path)
    assert artifact.size < SHARE[scheme] * made[target, "float32"].size
    assert artifact.quality.time_steps >= calibration.ENOUGH
    assert artifact.quality.worst.sqnr > {"float16": 65, "dynamic": 36, "int8": 42}[scheme]
    assert artifact.quality.decisions > 0.98
    outputs = next(iter(contract.signatures.values())).outputs
    assert {each.port for each in artifact.quality.ports} == {port.name for port in outputs}
    assert contract.quantized.scheme == scheme


@pytest.mark.parametrize(("target", "scheme"), FLOATS)
def test_it_keeps_the_laws_of_streams(made, target: str, scheme: str) -> None:
    report = signatures.check(signatures.open(made[target, scheme].path, trust=True))
    assert report.ok, report.summary()
    ways = {"chunks", "reset"} | ({"steps", "repeat"} if target != "c" else set())  # C has steps alone, held to chunks
    assert {diff.check for diff in report.diffs} >= ways


def test_weights_are_stored_in_fewer_bits_and_multiplied_in_integers(made) -> None:
    content = made["tflite", "dynamic"].path.read_bytes()
    file = schema.ModelT.InitFromPackedBuf(content, 0)
    large = [t for graph in file.subgraphs for t in graph.tensors if t.buffer and np.prod(t.shape) >= 2048]
    assert large
    assert {t.type for t in large} == {schema.TensorType.INT8}
    ops = {scheme: TARGETS["onnx"].writer.ops(made["onnx", scheme].path) for scheme in ("dynamic", "int8")}
    assert ops["dynamic"]["DynamicQuantizeLSTM"] == 1
    assert ops["int8"]["LSTM"] == ops["int8"]["GRU"] == 1
    kept = onnx.load(made["onnx", "int8"].path).graph.initializer
    assert all(t.data_type != onnx.TensorProto.FLOAT for t in kept if np.prod(t.dims) >= 2048)


def test_rounding_by_real_inputs_is_better_than_rounding_each_weight(model, made) -> None:
    by_noise = exporter.export(
        model, "tflite", made["tflite", "float32"].path.parent / "noise.tflite", quantize="dynamic"
    )
    stream = signatures.open(by_noise[0].path).stream()
    exact = signatures.open(made["tflite", "float32"].path).stream()
    by_data = signatures.open(made["tflite", "dynamic"].path).stream()
    x = np.concatenate([walk(300, 12, seed) for seed in (90, 91, 92, 93)])[None]
    expect = exact.push(x)["lstm_sequences"]
    assert sqnr(expect, by_data.push(x)["lstm_sequences"]) > sqnr(expect, stream.push(x)["lstm_sequences"]) + 1


def test_tables_of_embeddings_are_narrowed(tmp_path: Path) -> None:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = keras.layers.Embedding(300, 16, name="table")(tokens)
    model = keras.Model(tokens, keras.layers.GRU(8, return_sequences=True, name="gru")(h), name="tokens")
    [whole] = exporter.export(model, "tflite", tmp_path, check=False)
    [narrow] = exporter.export(model, "tflite", tmp_path, quantize="dynamic")
    assert whole.size - narrow.size > 0.9 * (3 * 300 * 16 - 4 * 16) - 800  # less two ops in two graphs
    assert narrow.ops["GATHER"] == whole.ops["GATHER"]
    assert narrow.quality.worst.sqnr > 40


def test_below_the_gate_nothing_is_delivered(model, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"in dynamic is not delivered.* dB at port .* at least 60 are asked for"):
        exporter.export(model, "tflite", tmp_path, quantize="dynamic", gate=60, calibration=RECORDINGS)
    assert not list(tmp_path.iterdir())


def test_a_case_is_held_against_the_gate(model, made, tmp_path: Path) -> None:
    exporter.record_case(model, tmp_path / "case", feeds={"x": walk(200, 12, 50)[None]})
    case = signatures.Case.load(tmp_path / "case")
    report = signatures.check(signatures.open(made["onnx", "int8"].path), case)
    assert report.ok
    assert "dB where 20 are asked for" in report.summary()
    wrong = {name: value[..., ::-1] if name == "classes" else value for name, value in case.runs[0].expect.items()}
    run = signatures.Run("feeds", case.runs[0].feeds, wrong)
    report = signatures.check(signatures.open(made["onnx", "int8"].path), signatures.Case("wrong", (run,)))
    assert not report.ok
    assert "port 'classes'" in report.summary()


def test_schemes_are_compared_and_one_is_taken(made, tmp_path: Path) -> None:
    rows = compare.timed([each for (target, _), each in made.items() if target == "onnx"], lambda text: None, 60.0)
    assert [row.made.scheme for row in rows] == ["float32", "float16", "dynamic", "int8"]
    assert all(row.seconds for row in rows)
    assert rows[0].ratio is None
    assert compare.choice(rows).made.scheme == "int8"  # dynamic is as small, and not as close
    picture = tmp_path / "compared.svg"
    compare.draw(rows, picture)
    assert "</svg>" in picture.read_text()


@pytest.mark.fast
def test_schemes_are_those_of_the_target() -> None:
    assert compare.schemes_of("onnx", ["all"]) == [("float16", False), ("dynamic", False), ("int8", False)]
    assert ("int16x8", True) in compare.schemes_of("tflite", ["int16x8"])
    with pytest.raises(UnsupportedModel, match="onnx has no form for int16x8"):
        compare.schemes_of("onnx", ["int16x8"])


@pytest.mark.fast
def test_what_decides_otherwise_is_not_taken() -> None:
    def row(scheme: str, size: int, decibels: float, alike: float | None) -> compare.Compared:
        port = signatures.PortQuality("y", decibels, 0.0, alike)
        return compare.Compared(compare.Made(scheme, size, signatures.Quality(20, 1000, "noise", (port,))))

    rows = [compare.Compared(compare.Made("float32", 1000)), row("a", 500, 70, 1.0), row("b", 300, 30, 0.9)]
    assert compare.choice(rows) is rows[1]
    assert compare.choice([*rows, row("c", 300, 30, None), row("d", 310, 35, 0.995)]).made.scheme == "d"
    assert compare.choice([*rows, row("e", 200, 25, 0.0)]) is rows[1]
    assert compare.choice(rows[:1]) is None


@pytest.mark.fast
@pytest.mark.parametrize("name", ["compared.gif", "compared"])
def test_a_picture_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(OutputError, match=r"give a picture's path, \.png, \.svg or \.pdf"):
        compare.check_picture(Path(name))


@pytest.mark.fast
def test_rounding_makes_up_for_errors() -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(500, 4)) @ rng.normal(size=(4, n)) + 0.01 * rng.normal(size=(500, n)) for n in (20, 30)]
    weights = [rng.normal(size=(n, 16)) for n in (20, 30)]
    exact = sum(x @ w for x, w in zip(inputs, weights, strict=True))

    def off(rounded: list[rounding.Rounded]) -> float:
        return float(np.abs(sum(x @ r.real for x, r in zip(inputs, rounded, strict=True)) - exact).mean())

    assert off(rounding.compensated(weights, inputs)) < 0.5 * off([rounding.nearest(w) for w in weights])
    single = rounding.nearest(weights[0])
    assert np.abs(single.real - weights[0]).max() <= single.scale.max() / 2 * (1 + 1e-6)
    biased = inputs[0] + 3
    error = rounding.mean_error(weights[0], single, biased)
    np.testing.assert_allclose((biased @ single.real + error).mean(axis=0), (biased @ weights[0]).mean(axis=0))


@pytest.mark.fast
def test_rounding_takes_what_has_no_range() -> None:
    weights = np.zeros((3, 2))
    weights[:, 1] = 5
    found = rounding.compensated([weights], [np.zeros((10, 3))])[0]
    np.testing.assert_allclose(found.real, weights, atol=1e-6)


@pytest.mark.fast
def test_a_quantized_port_rounds_and_cuts_off() -> None:
    port = Port("h", "state", ("batch", 2), "int16", scale=0.5, zero_point=3, initial=-1.0)
    np.testing.assert_array_equal(port.stored(np.array([0.26, -1e9])), [4, -32768])
    np.testing.assert_array_equal(port.real(np.array([4, 3], np.int16)), np.array([0.5, 0], np.float32))
    np.testing.assert_array_equal(port.at_start({"batch": 1}), np.full((1, 2), 1, np.int16))
    with pytest.raises(FeedError, match="Port 'h' holds int16; there is NaN or infinity"):
        port.stored(np.array([0.0, -np.inf]))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("expect", "got", "decibels"),
    [
        (np.ones(10), np.ones(10), np.inf),
        (np.ones(10), np.full(10, 1.1), 20.0),
        (np.zeros(3), np.full(3, 1e-9), -np.inf),
        (np.ones(3), np.array([1, np.nan, 1]), -np.inf),
    ],
)
def test_signal_to_noise_ratio(expect: np.ndarray, got: np.ndarray, decibels: float) -> None:
    assert sqnr(expect, got) == pytest.approx(decibels)


SIGNATURE = signatures.Signature(
    "sequence",
    (Port("x", "input", ("batch", "time", 3), time_axis=1), Port("h_in", "state", ("batch", 2))),
    (Port("h", "state", ("batch", 2)),),
    (signatures.Carry("h", "h_in"),),
)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        (
            [np.zeros((5, 4))],
            FeedError,
            r"recording 0: input 'x' is float64 \[1, 5, 4\]; it must be \[batch, time, 3\]",
        ),
        ([np.full((5, 3), np.nan)], FeedError, "holds NaN or infinity"),
        ([{"y": np.zeros((5, 3))}], FeedError, "input 'x' is missing"),
        ([{"x": np.zeros((2, 5, 3)), "lengths": [5, 5, 5]}], FeedError, r"lengths of \[3\]; give 2, each from 0 to 5"),
        ([{"x": np.zeros((1, 5, 3)), "lengths": [-2]}], FeedError, "give 1, each from 0 to 5"),
        ([{"x": np.zeros((5, 3)), "lengths": [2.5, 2.5]}], FeedError, "whole numbers"),
        ([{"x": np.zeros((5, 3)), "lengths": [7, -2]}], FeedError, "whole numbers"),
        (5, FeedError, "calibration is a int"),
        ([np.array("x")], FeedError, "input 'x' is"),
        ([], FeedError, "there is no recording in it"),
        ("nowhere.npz", LoadError, "no such file"),
        ("nowhere.py:load", LoadError, r"nowhere.py:load: it fails \(FileNotFoundError"),
        ("README.md", LoadError, "the suffix '.md'"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(data: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        calibration.given(data, SIGNATURE)


@pytest.mark.fast
def test_calibration_is_read_from_files_folders_and_functions(tmp_path: Path) -> None:
    long = walk(4000, 3, 0)
    np.savez(tmp_path / "one.npz", x=long)
    one = calibration.given(tmp_path / "one.npz", SIGNATURE)
    np.testing.assert_array_equal(one.seen[0]["x"], long[None, :3000])
    np.testing.assert_array_equal(one.kept[0]["x"], long[None, 3000:])
    (tmp_path / "many").mkdir()
    for k in range(8):
        np.save(tmp_path / "many" / f"{k}.npy", long[k : k + 9])
    many = calibration.given(str(tmp_path / "many"), SIGNATURE)
    assert [each["x"][0, 0, 0] for each in many.kept] == [long[3, 0], long[7, 0]]
    stream = many.stream(SIGNATURE)["x"]
    assert stream.shape[1] >= calibration.ENOUGH
    np.testing.assert_array_equal(stream[0, :18], np.concatenate([long[3:12], long[7:16]]))
    np.savez(tmp_path / "padded.npz", x=np.stack([long[:10], long[10:20]]), lengths=[10, 4])
    padded = calibration.given(tmp_path / "padded.npz", SIGNATURE)
    assert [each["x"].shape for each in padded.seen] == [(1, 10, 3), (1, 4, 3)]
    code = f"import numpy\ndef load():\n    return [numpy.load({str(tmp_path / 'many' / '0.npy')!r})]\n"
    (tmp_path / "mine.py").write_text(code)
    np.testing.assert_array_equal(
        calibration.given(f"{tmp_path / 'mine.py'}:load", SIGNATURE).seen[0]["x"], long[None, :9]
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("to", "options", "error", "told"),
    [
        ("savedmodel", {"quantize": "float16"}, UnsupportedModel, "savedmodel has no form for 'float16'"),
        ("tflite", {"quantize": "int4"}, ValueError, "quantize='int4': give float16, dynamic"),
        ("onnx", {"quantize": "dynamic", "precise": True}, UnsupportedModel, "precise has no use in dynamic to onnx"),
        ("tflite", {"gate": 30.0}, ValueError, "gate goes with quantize"),
        ("tflite", {"quantize": "dynamic", "gate": float("nan")}, ValueError, "give decibels"),
    ],
)
def test_what_can_not_be_quantized_is_refused(to: str, options: dict, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        exporter.export("no model is looked at", to=to, **options)


def test_a_model_in_another_type_is_refused(model, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="computes in float64; only float32 is quantized"):
        exporter.export(model, "onnx", tmp_path, dtype="float64", quantize="dynamic")


@pytest.mark.parametrize("scheme", ["dynamic", "float16"])
def test_a_model_without_large_weights_is_refused(scheme: str, tmp_path: Path) -> None:
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, keras.layers.GRU(4, name="gru")(x))
    with pytest.raises(UnsupportedModel, match=rf"{scheme} has no use: the model has no weights of 1,024 numbers"):
        exporter.export(model, ["tflite", "onnx"][scheme == "float16"], tmp_path, quantize=scheme, check=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.fast
def test_every_scheme_of_a_target_is_in_the_table() -> None:
    for target in TARGETS.values():
        assert set(target.integers) <= set(target.schemes) <= set(SCHEMES)
