"""Where artifacts go, and that they get there whole or not at all."""

import os
from pathlib import Path

import pytest

from exporter.outputs import check_free, paths, staged
from signatures.errors import OutputError

ALL = ("tflite", "onnx", "savedmodel")


def test_without_an_output_everything_goes_to_the_current_folder():
    artifacts, contract = paths("m", ALL, None)
    assert artifacts == {"tflite": Path("m.tflite"), "onnx": Path("m.onnx"), "savedmodel": Path("m_savedmodel")}
    assert contract == Path("m.contract.json")


@pytest.mark.parametrize("out", ["new/", "new", "existing", "dotted.d"])
def test_a_folder_takes_all(tmp_path, out):
    (tmp_path / "existing").mkdir()
    (tmp_path / "dotted.d").mkdir()
    folder = str(tmp_path / out) + ("/" if out.endswith("/") else "")
    artifacts, contract = paths("m", ALL, folder)
    assert {path.parent for path in (*artifacts.values(), contract)} == {tmp_path / out.rstrip("/")}


@pytest.mark.parametrize(
    ("target", "name", "contract"),
    [
        ("tflite", "a.tflite", "a.contract.json"),
        ("onnx", "a.b.onnx", "a.b.contract.json"),
        ("savedmodel", "a", "a.contract.json"),
        ("savedmodel", "a_savedmodel", "a.contract.json"),
    ],
)
def test_one_target_takes_a_path_of_its_own_and_the_contract_goes_beside_it(tmp_path, target, name, contract):
    assert paths("m", [target], tmp_path / name) == ({target: tmp_path / name}, tmp_path / contract)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_name_without_a_suffix_is_a_folder(tmp_path, target):
    artifacts, _ = paths("m", [target], tmp_path / "a")
    assert artifacts == {target: tmp_path / "a" / f"m.{target}"}


@pytest.mark.parametrize(
    ("targets", "out", "said"),
    [
        (["tflite"], "a.onnx", ".tflite"),
        (["onnx"], "a.tflite", ".onnx"),
        (["tflite"], "a.txt", ".tflite"),
        (["savedmodel"], "a.tflite", "a folder"),
        (["tflite", "onnx"], "a.tflite", "a folder"),
    ],
)
def test_the_suffix_of_something_else_is_refused(targets, out, said):
    with pytest.raises(OutputError) as refused:
        paths("m", targets, out)
    message = str(refused.value)
    assert message.startswith(f"{out}: ")
    assert said in message.removeprefix(out)
    assert all(target in message for target in targets)


def test_a_free_path_passes_and_a_taken_one_is_refused_unless_forced(tmp_path):
    free, taken = tmp_path / "new" / "deeper" / "free", tmp_path / "taken"
    taken.write_text("mine")
    check_free([free], force=False)
    check_free([free, taken], force=True)
    with pytest.raises(OutputError, match="taken: exists already.*--force"):
        check_free([free, taken], force=False)
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize("force", [False, True])
def test_a_path_below_a_file_is_refused(tmp_path, force):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is not a folder you may write to"):
        check_free([tmp_path / "file" / "a.onnx"], force)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root every folder can be
    with pytest.raises(OutputError, match="can't be written"):
        check_free([tmp_path / "a.onnx"], force=True)


def write_both(stage, file, folder, text="new"):
    stage[file].write_text(text)
    stage[folder].mkdir()
    (stage[folder] / "inner").write_text(text)


def test_everything_appears_at_the_end_and_nothing_else_is_left(tmp_path):
    file, folder = tmp_path / "a" / "b" / "file", tmp_path / "a" / "folder"
    with staged([file, folder]) as stage:
        write_both(stage, file, folder)
        assert not file.exists()
        assert not folder.exists()
    assert file.read_text() == (folder / "inner").read_text() == "new"
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a", "b", "file", "folder", "inner"]


def test_what_is_there_is_replaced_whole(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "stale").write_text("old")
    with staged([file, folder]) as stage:
        write_both(stage, file, folder)
        assert (file.read_text(), (folder / "stale").read_text()) == ("old", "old")
    assert file.read_text() == "new"
    assert [each.name for each in folder.iterdir()] == ["inner"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_leaves_the_old_output_as_it_was(tmp_path, error):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "inner").write_text("old")

    def fail():
        with staged([file, folder]) as stage:
            write_both(stage, file, folder)
            raise error("on purpose")

    with pytest.raises(error, match="on purpose"):
        fail()
    assert file.read_text() == (folder / "inner").read_text() == "old"
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["file", "folder", "inner"]


def test_an_error_inside_leaves_no_new_folder(tmp_path):
    wanted = [tmp_path / "a" / "b" / "file"]

    def fail():
        with staged(wanted) as stage:
            stage[wanted[0]].write_text("new")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert not any(tmp_path.iterdir())


def test_all_or_nothing_when_one_output_was_never_written(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")

    def forget():
        with staged([first, second]) as stage:
            stage[first].write_text("new")

    with pytest.raises(OutputError, match="can't be written"):
        forget()
    assert [each.name for each in tmp_path.iterdir()] == ["first"]
    assert first.read_text() == "old"


def test_a_full_disk_is_told_as_one(tmp_path):
    wanted = tmp_path / "file"

    def fill():
        with staged([wanted]) as stage:
            raise OSError(28, "No space left on device", str(stage[wanted]))

    with pytest.raises(OutputError, match="No space left on device"):
        fill()
    assert not any(tmp_path.iterdir())
