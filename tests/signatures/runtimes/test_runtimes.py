"""An artifact is opened by what it is; what can't be opened is refused in a sentence that names the path."""

import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

import signatures
from signatures.errors import ArtifactError, FeedError, MissingRuntime
from signatures.runtimes import own, target_of

FILES = ["onnx", "tflite"]


@pytest.fixture
def put(tmp_path, total):
    """Write an artifact of a target, its contract for `targets` (or `text`), and return its path."""

    def written(target, *targets, text=None):
        path = tmp_path / f"total.{target}"
        text = text if text is not None else total.contract(*(targets or [target])).to_json()
        path.write_bytes(getattr(total, target)(text))
        return path

    return written


def reload(monkeypatch, target):
    """Have the target's module imported anew during this test, and forgotten after it."""
    name = f"signatures.runtimes.{own(target).module}"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.delitem(sys.modules, name)


def refusal(path, kind=ArtifactError):
    with pytest.raises(kind) as refused:
        signatures.open(path)
    assert type(refused.value) is kind
    assert str(refused.value).startswith(f"{path}: ")
    return str(refused.value).removeprefix(f"{path}: ")


# What it is ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.tflite", "tflite"),
        ("a.onnx", "onnx"),
        ("a.b.onnx", "onnx"),
        ("saved/saved_model.pb", "savedmodel"),
        ("c/export-lstm.contract.json", "c"),
    ],
)
@pytest.mark.parametrize("as_given", [str, lambda path: path], ids=["text", "path"])
def test_the_target_is_what_is_on_disk(tmp_path, name, target, as_given):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert target_of(as_given(file if file.suffix in (".tflite", ".onnx") else file.parent)) == target


def test_a_saved_model_folder_may_have_any_name(tmp_path):
    (tmp_path / "odd.onnx").mkdir()
    (tmp_path / "odd.onnx" / "saved_model.pb").touch()
    assert target_of(tmp_path / "odd.onnx") == "savedmodel"


def test_what_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "a.tflite").startswith(
        "no such file. Give a .tflite or .onnx file, or a folder of SavedModel, C or TFLM"
    )


@pytest.mark.parametrize("name", ["a.keras", "a.pb", "saved_model.pb", "a"])
def test_another_suffix_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert refusal(tmp_path / name).startswith("not an artifact. Give a .tflite or .onnx file or a folder with")


@pytest.mark.parametrize("name", ["plain", "a.tflite", "a.onnx"])
def test_a_folder_without_a_saved_model_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name).startswith("not an artifact.")


# Whether its runtime is there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "needs", "package"),
    [
        ("tflite", "ai_edge_litert", "ai-edge-litert"),
        ("onnx", "onnxruntime", "onnxruntime"),
        ("savedmodel", "tensorflow", "tensorflow"),
    ],
)
def test_a_missing_runtime_is_named_with_how_to_install_it(tmp_path, monkeypatch, target, needs, package):
    path = tmp_path / f"a.{target}"
    if target == "savedmodel":
        path.mkdir()
    (path / "saved_model.pb" if target == "savedmodel" else path).touch()
    reload(monkeypatch, target)
    monkeypatch.setitem(sys.modules, needs, None)
    sentence = refusal(path, MissingRuntime)
    assert sentence.startswith(f"running it takes {package} (")
    assert sentence.endswith(f"Install it: pip install {package}")


# Whether it is whole and ours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"not a model at all", b"\x1c\0\0\0TFL", b"\x1c\0\0\0TFL2" + bytes(64)]
)
def test_bytes_without_the_tflite_identifier_are_refused(tmp_path, content):
    (tmp_path / "a.tflite").write_bytes(content)
    assert refusal(tmp_path / "a.tflite") == "The file is not TFLite: its identifier is missing."


@pytest.mark.parametrize("keep", [8, 9, 20, 40, 100])
def test_a_tflite_file_cut_short_is_refused(put, keep):
    path = put("tflite")
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(path).startswith("The file is damaged or not TFLite (")


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95])
def test_an_onnx_file_cut_short_is_refused(put, part):
    path = put("onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert refusal(path).startswith("The file is damaged or not ONNX (")


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_bytes_that_are_not_onnx_are_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    sentence = refusal(tmp_path / "a.onnx")
    assert sentence.startswith("The file is damaged or not ONNX (")
    assert "\n" not in sentence


@pytest.mark.parametrize("target", FILES)
def test_a_strangers_file_is_refused(tmp_path, total, target):
    """The file is good, it just wasn't written by export-lstm."""
    path = tmp_path / f"a.{target}"
    path.write_bytes(getattr(total, target)(None))
    assert refusal(path) == "The file carries no export-lstm contract. Export the Keras model with export-lstm."


@pytest.mark.parametrize("target", FILES)
@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}'])
def test_a_broken_contract_is_refused(put, target, text):
    assert refusal(put(target, text=text)).startswith("The text is not an export-lstm contract (")


@pytest.mark.parametrize("target", FILES)
def test_a_contract_of_a_later_version_is_refused(put, target):
    assert refusal(put(target, text='{"schema": 9}')).startswith("The contract has schema 9;")


@pytest.mark.parametrize(("target", "other"), [("onnx", "tflite"), ("tflite", "onnx")])
def test_a_contract_for_another_target_is_refused(put, target, other):
    assert refusal(put(target, other, "savedmodel")) == f"its contract is for {other}, savedmodel, not for {target}."


def test_a_tflite_file_without_the_contracts_signature_is_refused(put, total):
    text = total.contract("tflite").to_json().replace('"sequence"', '"step"')
    assert refusal(put("tflite", text=text)).startswith("The file is damaged or not TFLite (ValueError:")


@pytest.mark.parametrize("target", FILES)
@pytest.mark.parametrize(
    "shape", ['"time",\n            300000000', '"time",\n            3,\n            1', '"time"']
)
def test_a_contract_that_says_other_sizes_than_the_graph_is_refused(put, total, target, shape):
    text = total.contract(target).to_json()
    honest = next(each for each in ('"time",\n            3',) if each in text)
    sentence = refusal(put(target, text=text.replace(honest, shape, 1)))
    if "300000000" in shape:
        assert sentence.startswith("The text is not an export-lstm contract (ValueError: size 300000000)")
    else:
        assert sentence.startswith("its contract says that sequence takes 'x' as [batch, time")
        assert sentence.endswith("Export it again.")


def saved_model(tmp_path, monkeypatch):
    """Return a folder with an empty saved_model.pb, which TensorFlow must not be asked to load."""
    import tensorflow as tf

    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail(f"{path} was loaded"))
    (tmp_path / "saved" / "assets.extra").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").touch()
    return tmp_path / "saved"


def test_a_strangers_saved_model_is_refused_unread(tmp_path, monkeypatch):
    folder = saved_model(tmp_path, monkeypatch)
    assert refusal(folder).startswith("The folder carries no export-lstm contract.")


@pytest.mark.parametrize("content", [b"not a protocol buffer", b"\x0a\xff\xff\xff\xff\x0f", bytes(9)])
def test_a_damaged_saved_model_is_refused(tmp_path, monkeypatch, total, content):
    folder = saved_model(tmp_path, monkeypatch)
    (folder / "assets.extra" / "contract.json").write_text(total.contract("savedmodel").to_json())
    (folder / "saved_model.pb").write_bytes(content)
    sentence = refusal(folder)
    assert sentence.startswith("The folder is damaged: saved_model.pb can't be read (DecodeError: ")
    assert "\n" not in sentence


# Whether it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", FILES)
def test_open_gives_the_contract_and_the_target(put, total, target):
    artifact = signatures.open(str(put(target)))
    assert artifact.target == target
    assert artifact.contract == total.contract(target)
    assert artifact.dims == {}


@pytest.mark.parametrize("target", FILES)
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 5), (3, 40), (1, 2)])
def test_an_artifact_runs_any_batch_and_any_number_of_time_steps(put, target, rows, steps):
    x = np.random.default_rng(0).normal(size=(rows, steps, 3)).astype(np.float32)
    before = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    outputs = signatures.open(put(target)).run("sequence", {"x": x, "total_h_in": before})
    np.testing.assert_allclose(outputs["total_h"], before + x.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(outputs["total_sequences"], before[:, None] + x.cumsum(axis=1), atol=1e-5)


@pytest.mark.parametrize("target", FILES)
def test_an_artifact_streams_and_holds_the_laws(put, target):
    artifact = signatures.open(put(target))
    stream = artifact.stream(2)
    for _ in range(3):
        stream.push(np.ones((2, 4, 3), np.float32))
    np.testing.assert_array_equal(stream.state["total_h_in"], np.full((2, 3), 12, np.float32))
    report = signatures.check(artifact)
    assert report.ok, report.summary()


@pytest.mark.parametrize("target", FILES)
def test_outputs_are_fresh_arrays(put, target):
    """A later call doesn't write into what an earlier one returned, nor does a caller into the artifact."""
    artifact = signatures.open(put(target))
    feeds = {"x": np.ones((1, 4, 3), np.float32), "total_h_in": np.zeros((1, 3), np.float32)}
    first = artifact.run("sequence", feeds)
    first["total_h"][:] = 7
    second = artifact.run("sequence", {**feeds, "x": feeds["x"] * 2})
    assert first["total_h"].tolist() == [[7, 7, 7]]
    assert second["total_h"].tolist() == [[8, 8, 8]]


@pytest.mark.parametrize("target", FILES)
def test_bad_feeds_do_not_reach_the_runtime(put, target):
    with pytest.raises(FeedError, match=r"^sequence: input 'total_h_in' is missing"):
        signatures.open(put(target)).run("sequence", {"x": np.ones((1, 4, 3), np.float32)})


@pytest.mark.parametrize(("dims", "rows", "steps"), [({"batch": 2}, 3, 4), ({"time": 5}, 2, 4)])
def test_what_the_artifact_fixes_is_required_of_every_call(fake, dims, rows, steps):
    with pytest.raises(FeedError, match=r"^sequence: input 'x' has shape"):
        fake.artifact(dims=dims).run("sequence", fake.feeds(steps, rows))


def test_a_signature_that_is_not_there_is_refused_with_the_reason(fake):
    artifact = fake.artifact(names=("sequence",), no_step="Layer 'flip' looks ahead.")
    sentence = r"^There is no signature 'step'; there is sequence\. Layer 'flip' looks ahead\.$"
    with pytest.raises(ArtifactError, match=sentence):
        artifact.run("step", fake.feeds(1))


def test_onnx_runtime_keeps_no_records_at_home(put, tmp_path):
    """Its telemetry would, from version 1.31 on."""
    home = tmp_path / "home"
    home.mkdir()
    code = f"import signatures; signatures.open({str(put('onnx'))!r})"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []
