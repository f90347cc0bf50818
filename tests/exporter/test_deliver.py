"""Where artifacts go, and that they get there whole or not at all, whatever interrupts them and when."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import deliver, export
from exporter.deliver import check_free, clean, contract_beside, digest, joined, staged, strays
from exporter.request import named_targets
from signatures import Contract, Port, Signature, files
from signatures.contract import ArtifactInfo
from signatures.errors import OutputError

ALL = ("tflite", "onnx", "savedmodel")


def paths(stem, names, out):
    return deliver.paths(stem, named_targets(names), out)


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
    file, folder = tmp_path / "a" / "b" / "file", tmp_path / "a" / "b" / "folder"
    with staged([file, folder]) as stage:
        write_both(stage, file, folder)
        assert not (tmp_path / "a").exists()
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


# Interruptions. A process of its own delivers small files and forks for each interruption, so that all are quick.

FILES = ("m.onnx", "m_savedmodel", "m.contract.json")
PRELUDE = """
import itertools, json, os, random, shutil, signal, sys, time
from dataclasses import replace
from pathlib import Path
from exporter import deliver
from signatures import Contract, Port, Signature
from signatures.contract import ArtifactInfo

folder, exchange = Path(sys.argv[1]), sys.argv[2] == "exchange"
file, saved, contract = (folder / name for name in ("m.onnx", "m_savedmodel", "m.contract.json"))
if not exchange:
    deliver._exchange = lambda first, second: False

def write(places, text):
    places[file].write_text(text)
    places[saved].mkdir()
    for name in ("saved_model.pb", "weights"):
        (places[saved] / name).write_text(text)
    told = {"onnx": file, "savedmodel": saved}
    infos = {target: ArtifactInfo(path.name, sha256=deliver.digest(places[path])) for target, path in told.items()}
    x, y = Port("x", "input", ("batch", "time", 3), time_axis=1), Port("y", "output", ("batch", 2))
    made = Contract({"name": text, "sha256": text}, ("y",), {"sequence": Signature("sequence", (x,), (y,), ())})
    places[contract].write_text(replace(made, artifacts=infos).to_json())

def export(text):
    with deliver.staged([file, saved, contract]) as places:
        write(places, text)

def state():
    told = {}
    for path in (file, saved, contract):
        parts = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
        texts = {json.loads(p.read_text())["model"]["name"] if p == contract else p.read_text() for p in parts}
        whole = not path.is_dir() or len(parts) == 2
        told[path.name] = texts.pop() if len(texts) == 1 and whole else "missing" if not parts else "broken"
    return told

def look(**seen):
    before, strays = state(), [path.name for path in deliver.strays(contract)]
    deliver.clean(folder)
    left = [path.name for path in folder.iterdir() if path not in (file, saved, contract)]
    print(json.dumps({"before": before, "strays": strays, "after": state(), "left": left, **seen}))
"""

AT_EACH_RENAME = """
def forked(n, after):
    counted = itertools.count(1)
    def killing(move):
        def moved(*args):
            k = next(counted)
            if k == n and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = move(*args)
            if k == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return moved
    if exchange:
        deliver._exchange = killing(deliver._exchange)
    os.rename, os.replace = killing(os.rename), killing(os.replace)
    export("new")
    os._exit(0)

for n in itertools.count(1):
    for after in (False, True):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if sys.argv[3] == "replaced":
            export("old")
        pid = os.fork() or forked(n, after)
        done = os.waitpid(pid, 0)[1] == 0
        look(n=n, after_it=after, done=done)
    if done:
        break
"""

AT_RANDOM = """
seed = random.Random(7)
def forked():
    for k in itertools.count():
        export("new" if k % 2 == 0 else "old")

export("old")
for k in range(int(sys.argv[3])):
    pid = os.fork() or forked()
    time.sleep(seed.uniform(0.0005, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    look()
"""


def interrupted(tmp_path, program, *arguments):
    """Run a program that interrupts deliveries; return what it saw, one dict an interruption."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + program, str(tmp_path / "out"), *arguments]
    (tmp_path / "out").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def hold(seen, missing_until_cleaned=False):
    """Hold what was seen after one interruption to what must be so."""
    accepted = {"old", "new"}
    assert set(seen["after"].values()) <= accepted, seen
    assert set(seen["before"].values()) <= accepted | ({"missing"} if missing_until_cleaned else set()), seen
    assert all(seen["after"][name] == text for name, text in seen["before"].items() if text != "missing"), seen
    mixed = len(set(seen["before"].values()) - {"missing"}) > 1
    assert bool(seen["strays"]) == mixed, seen
    assert seen["left"] == []


@pytest.mark.parametrize(("way", "renames"), [("exchange", 3), ("two renames", 4)])
def test_killed_at_any_rename_each_path_is_whole_and_what_is_mixed_is_told(tmp_path, way, renames):
    sights = interrupted(tmp_path, AT_EACH_RENAME, way, "replaced")
    assert sum(not seen["done"] for seen in sights) == 2 * renames
    for seen in sights:
        hold(seen, missing_until_cleaned=way != "exchange")
    assert {tuple(seen["after"].values()) for seen in sights} >= {("old",) * 3, ("new",) * 3, ("new", "old", "old")}


def test_killed_at_any_rename_of_a_first_export_what_is_there_is_new(tmp_path):
    sights = interrupted(tmp_path, AT_EACH_RENAME, "exchange", "first")
    assert sum(not seen["done"] for seen in sights) == 2 * 3
    for seen in sights:
        assert seen["before"] == seen["after"]
        assert set(seen["before"].values()) <= {"new", "missing"}
        assert (seen["strays"], seen["left"]) == ([], [])
    assert sights[-1]["after"] == dict.fromkeys(FILES, "new")


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_killed_at_random_moments_each_path_is_whole_and_what_is_mixed_is_told(tmp_path, way):
    for seen in interrupted(tmp_path, AT_RANDOM, way, "50"):
        hold(seen, missing_until_cleaned=way != "exchange")


def old_and_new(tmp_path):
    """Return a file and a folder that are there, and a context that replaces them."""
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "inner").write_text("old")

    def export():
        with staged([file, folder]) as stage:
            write_both(stage, file, folder)

    return export, lambda: (file.read_text(), (folder / "inner").read_text())


def without_exchange(monkeypatch):
    monkeypatch.setattr(deliver, "_exchange", lambda first, second: False)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("exchange", [True, False])
def test_a_move_that_fails_puts_back_what_was_moved(tmp_path, monkeypatch, exchange, n):
    export, state = old_and_new(tmp_path)
    put, calls = deliver._put, []

    def failing(source, path, spare):
        calls.append(path)
        if len(calls) == n:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return put(source, path, spare)

    if not exchange:
        without_exchange(monkeypatch)
    monkeypatch.setattr(deliver, "_put", failing)
    with pytest.raises(OutputError, match="can't be written"):
        export()
    assert state() == ("old", "old")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_a_move_that_cannot_be_undone_is_told(tmp_path, monkeypatch):
    export, state = old_and_new(tmp_path)
    put, calls = deliver._put, []

    def failing(source, path, spare):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return put(source, path, spare)

    monkeypatch.setattr(deliver, "_put", failing)
    with pytest.raises(OutputError, match=r"file: new, but what goes with it can't be written .*--force"):
        export()
    assert state() == ("new", "old")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_amid_the_moves_waits_until_all_is_in_place(tmp_path, monkeypatch, number):
    export, state = old_and_new(tmp_path)
    put, came = deliver._put, []

    def disturbed(source, path, spare):
        signal.raise_signal(number)
        return put(source, path, spare)

    def stop(number, frame):
        came.append(state())
        raise KeyboardInterrupt

    monkeypatch.setattr(deliver, "_put", disturbed)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            export()
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert came[0] == state() == ("new", "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_what_an_export_at_work_has_staged_is_left_alone_and_what_a_dead_one_left_is_removed(tmp_path):
    file = tmp_path / "file"
    left = tmp_path / ".export-lstm-left"
    (left / "new").mkdir(parents=True)
    (left / "new" / "file").write_text("half")
    with staged([file]) as stage:
        stage[file].write_text("new")
        clean(tmp_path)
        assert not left.exists()
        assert stage[file].read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_nothing_is_put_back_outside_the_folder(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    outside.mkdir()
    (inside / ".export-lstm-x" / "old").mkdir(parents=True)
    (inside / ".export-lstm-x" / "old" / "planted").write_text("")
    (inside / ".export-lstm-x" / "folder").write_text(str(outside))
    (inside / ".export-lstm-link").symlink_to(outside)
    clean(inside)
    assert outside.is_dir()
    assert not any(outside.iterdir())


def test_nothing_is_put_back_from_elsewhere(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (inside / ".export-lstm-x").mkdir(parents=True)
    (inside / ".export-lstm-x" / "old").symlink_to(outside)
    (inside / ".export-lstm-x" / "folder").write_text(str(inside))
    (inside / ".export-lstm-y" / "old").mkdir(parents=True)
    (inside / ".export-lstm-y" / "old" / "planted").write_text("")
    (inside / ".export-lstm-y" / "folder").write_text(str(inside / ".." / "outside"))
    (inside / ".export-lstm-z" / "old").mkdir(parents=True)
    os.mkfifo(inside / ".export-lstm-z" / "folder")
    clean(inside)
    assert [path.name for path in outside.iterdir()] == ["mine"]
    assert not any(inside.iterdir())


def test_two_exports_to_the_same_paths_do_not_mix(tmp_path):
    both = (
        PRELUDE
        + """
for k in range(40):
    export(sys.argv[3])
"""
    )
    command = [sys.executable, "-c", both, str(tmp_path), "exchange"]
    running = [subprocess.Popen([*command, text]) for text in ("a", "b")]
    assert [each.wait(timeout=100) for each in running] == [0, 0]
    text = (tmp_path / "m.onnx").read_text()
    assert text == (tmp_path / "m_savedmodel" / "weights").read_text()
    assert json.loads((tmp_path / "m.contract.json").read_text())["model"]["name"] == text
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(FILES)


def test_what_was_left_above_a_folder_that_is_there_now_is_cleaned(tmp_path):
    """A killed export into a new folder left its stage in the one above; another's is none of its business."""
    for folder in (tmp_path / "new" / "out", tmp_path / "other"):
        stage = tmp_path / f".export-lstm-{folder.name}"
        (stage / "old").mkdir(parents=True)
        (stage / "folder").write_text(str(folder))
    (tmp_path / "new" / "out").mkdir(parents=True)
    assert len(list(tmp_path.glob(".export-lstm-*"))) == 2
    clean(tmp_path / "new" / "out")
    [left] = tmp_path.glob(".export-lstm-*")
    assert (left / "folder").read_text() == str(tmp_path / "other")


def test_while_one_export_moves_its_files_another_waits(tmp_path):
    file = tmp_path / "m.onnx"
    command = [sys.executable, "-c", PRELUDE + "export('second')", str(tmp_path), "exchange"]

    def look(stage):
        process = subprocess.Popen(command)
        while not any(tmp_path.glob(".export-lstm-*/new/m.contract.json")):
            time.sleep(0.01)
        time.sleep(0.3)
        waited.append((process.poll() is None, file.exists()))
        processes.append(process)

    waited, processes = [], []
    with staged([file], look) as stage:
        stage[file].write_text("first")
    assert waited == [(True, False)]
    assert processes[0].wait(timeout=60) == 0
    assert file.read_text() == "second"


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_links_and_things_of_another_kind_are_replaced_themselves(tmp_path, monkeypatch, taken):
    for exchange in (True, False):
        there, kind = tmp_path / f"there {exchange}", tmp_path / f"wanted {exchange}"
        there.mkdir()
        (there / "mine").write_text("mine")
        kind.symlink_to(there)
        if not exchange:
            without_exchange(monkeypatch)
        with staged([kind]) as stage:
            stage[kind].write_text("new") if taken == "file" else stage[kind].mkdir()
        assert not kind.is_symlink()
        assert kind.is_file() == (taken == "file")
        assert (there / "mine").read_text() == "mine"


def test_an_export_that_comes_second_to_a_free_path_is_refused(tmp_path):
    file = tmp_path / "file"

    def come_second():
        with staged([file], lambda stage: check_free([file], force=False)) as stage:
            stage[file].write_text("second")
            file.write_text("first")

    with pytest.raises(OutputError, match="exists already"):
        come_second()
    assert file.read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [RuntimeError("disk: No space left on device [Op:SaveV2]"), OSError(28, "full")])
def test_a_full_disk_is_told_whoever_writes(tmp_path, error):
    def fill():
        with staged([tmp_path / "file"]):
            raise error

    with pytest.raises(OutputError, match="file: can't be written"):
        fill()


def test_an_error_of_another_kind_is_not_taken_for_the_disk(tmp_path):
    def fail():
        with staged([tmp_path / "file"]):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere")

    with pytest.raises(FileNotFoundError):
        fail()


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"can't be written \(File name too long\)"):
        check_free([tmp_path / ("n" * 300)], force=False)


# What lies beside each other.

PORT = Port("x", "input", ("batch", "time", 3), time_axis=1)
SEQUENCE = Signature("sequence", (PORT,), (replace(PORT, name="y", role="output"),), ())


def contract(name="m", sha256="ab", keras="3", **artifacts):
    model = {"name": name, "sha256": sha256}
    return Contract(model, ("y",), {"sequence": SEQUENCE}, artifacts=artifacts, provenance={"keras": keras})


@pytest.fixture
def beside(tmp_path):
    """A TFLite file and the contract beside it; return the contract's path."""
    (tmp_path / "m.tflite").write_text("artifact")
    info = ArtifactInfo("m.tflite", {"batch": 1}, {}, digest(tmp_path / "m.tflite"))
    (tmp_path / "m.contract.json").write_text(contract(tflite=info).to_json())
    return tmp_path / "m.contract.json"


NEW = ArtifactInfo("m.onnx")


@pytest.mark.parametrize("force", [False, True])
def test_a_contract_of_the_same_model_keeps_other_targets(beside, force):
    new, there = contract(onnx=NEW), Contract.from_json(beside.read_text())
    beside.write_text(replace(there, provenance={"keras": "3", "other": "1"}).to_json())
    both = joined(beside, replace(new, provenance={"keras": "3", "onnxruntime": "2"}), force)
    assert both.artifacts == {**there.artifacts, "onnx": NEW}
    assert both.provenance == {"keras": "3", "other": "1", "onnxruntime": "2"}
    again = contract(tflite=NEW)
    assert joined(beside, again, force) == again
    assert joined(beside.with_name("none.contract.json"), new, force) == new


REFUSED = {
    "another model": (contract("other", onnx=NEW), "m.tflite of another model, 'm'.*not 'other'"),
    "the model trained further": (contract(sha256="cd", onnx=NEW), r"another model, 'm' \(sha256 ab\).*\(sha256 cd\)"),
    "another model of the same target": (contract("other", tflite=NEW), "another model"),
    "a model in memory": (contract(sha256=None, onnx=NEW), "another model.*in memory"),
    "other ports": (replace(contract(onnx=NEW), signatures={"step": SEQUENCE}), "other ports.*--signatures"),
    "another version": (contract(keras="4", onnx=NEW), "made with keras 3, which now is 4"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_contract_that_cannot_be_added_to_is_refused_by_name_and_replaced_by_force(beside, kind):
    new, said = REFUSED[kind]
    with pytest.raises(OutputError, match=rf"m\.contract\.json: .*{said}.*--force"):
        joined(beside, new, force=False)
    assert joined(beside, new, force=True) == new


STEP = replace(SEQUENCE, name="step", dims={"time": 1})
BOTH = {"sequence": SEQUENCE, "step": STEP}


def test_a_contract_tells_of_a_target_that_has_a_step_alone_beside_others(beside):
    info = ArtifactInfo("m_c", signatures=("step",))
    there, new = Contract.from_json(beside.read_text()), replace(contract(c=info), signatures={"step": STEP})
    with pytest.raises(OutputError, match="with other ports"):  # the other one could have a step too
        joined(beside, new, force=False)
    beside.write_text(replace(there, signatures=BOTH).to_json())
    both = joined(beside, new, force=False)
    assert both == replace(there, signatures=BOTH, artifacts={**there.artifacts, "c": info})
    (beside.parent / "m_c").mkdir()
    own = replace(new, artifacts={"c": replace(info, sha256=digest(beside.parent / "m_c"))})
    beside.write_text(own.to_json())
    again = joined(beside, replace(contract(onnx=NEW), signatures=BOTH), force=False)
    assert (list(again.signatures), set(again.artifacts)) == (["sequence", "step"], {"c", "onnx"})
    assert Contract.from_json(again.to_json()) == again


def test_what_is_no_contract_is_refused_and_replaced_by_force(beside):
    beside.write_text("mine")
    with pytest.raises(OutputError, match="exists already and is no contract"):
        joined(beside, contract(onnx=NEW), force=False)
    assert joined(beside, contract(onnx=NEW), force=True) == contract(onnx=NEW)


def test_models_in_memory_are_told_apart_by_their_weights(beside):
    model = {"name": "m", "sha256": None, "weights": "12"}
    there = replace(Contract.from_json(beside.read_text()), model=model)
    beside.write_text(there.to_json())
    both = joined(beside, replace(contract(onnx=NEW), model=model), force=False)
    assert both.artifacts == {**there.artifacts, "onnx": NEW}
    with pytest.raises(OutputError, match="another model"):
        joined(beside, replace(contract(onnx=NEW), model={**model, "weights": "34"}), force=False)


def test_an_artifact_that_the_contract_does_not_tell_of_is_found(beside):
    folder = beside.parent
    assert strays(beside) == []
    (folder / "m.onnx").write_text("of nobody")
    (folder / "other.onnx").write_text("of another name")
    assert strays(beside) == [folder / "m.onnx"]
    (folder / "m.tflite").write_text("another")
    assert strays(beside) == [folder / "m.tflite", folder / "m.onnx"]
    with pytest.raises(OutputError, match=r"m\.tflite beside it is not the one"):
        joined(beside, contract(onnx=NEW), force=False)
    (folder / "m.tflite").unlink()  # taken elsewhere
    assert strays(beside) == [folder / "m.onnx"]
    assert strays(folder / "none.contract.json") == []


@pytest.mark.parametrize("name", ["../outside.tflite", "/etc/hostname", "a\0b", ".", "pipe"])
def test_a_strangers_contract_has_nothing_read_but_the_files_beside_it(beside, monkeypatch, name):
    os.mkfifo(beside.parent / "pipe")
    (beside.parent.parent / "outside.tflite").write_text("")
    read = []
    monkeypatch.setattr(deliver, "digest", lambda path: read.append(path) or "ab")
    beside.write_text(contract(savedmodel=ArtifactInfo(name, sha256="ab")).to_json())
    assert beside.with_name("m.tflite") in strays(beside)  # which the contract doesn't tell of
    with pytest.raises(OutputError, match="is not the one"):
        joined(beside, contract(onnx=NEW), force=False)
    assert read == []


@pytest.mark.parametrize("name", ["m.tflite", "m_savedmodel/data"])
def test_what_is_larger_than_any_artifact_of_ours_is_not_read(beside, monkeypatch, name):
    monkeypatch.setattr(deliver, "digest", lambda path: pytest.fail(f"{path} was read"))
    path = beside.parent / name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(deliver.MOST + 1)
    target, file = ("tflite", name) if path.suffix else ("savedmodel", "m_savedmodel")
    beside.write_text(contract(**{target: ArtifactInfo(file, sha256="ab")}).to_json())
    assert beside.with_name(file) in strays(beside)


def test_a_contract_that_is_no_file_or_a_large_one_is_not_read(tmp_path, monkeypatch):
    pipe, large = tmp_path / "pipe.contract.json", tmp_path / "large.contract.json"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(files.TEXT + 1)
    for path in (pipe, large):
        assert strays(path) == []
        with pytest.raises(OutputError, match="is no contract"):
            joined(path, contract(onnx=NEW), force=False)


def test_a_contract_without_digests_tells_of_any_file(beside):
    beside.write_text(contract(tflite=ArtifactInfo("m.tflite")).to_json())
    assert strays(beside) == []


def test_the_digest_is_what_sha256sum_gives(tmp_path):
    (tmp_path / "s" / "b").mkdir(parents=True)
    (tmp_path / "s" / "b" / "two").write_text("2")
    (tmp_path / "s" / "a").write_text("1")
    by_hand = "cd s && find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    told = subprocess.run(by_hand, shell=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert digest(tmp_path / "s") == told.split()[0]
    told = subprocess.run(["sha256sum", tmp_path / "s" / "a"], capture_output=True, text=True).stdout
    assert digest(tmp_path / "s" / "a") == told.split()[0]


@pytest.mark.parametrize(
    ("artifact", "name"),
    [("m.tflite", "m"), ("a/m.b.onnx", "m.b"), ("m_savedmodel", "m"), ("m_savedmodel/", "m"), ("m", "m")],
)
def test_where_the_contract_beside_an_artifact_is(tmp_path, monkeypatch, artifact, name):
    monkeypatch.chdir(tmp_path)
    assert contract_beside(Path(artifact)) == (tmp_path / artifact).with_name(f"{name}.contract.json")
    (tmp_path / "m_savedmodel").mkdir()
    monkeypatch.chdir(tmp_path / "m_savedmodel")
    assert contract_beside(Path()) == tmp_path / "m.contract.json"


def test_a_saved_model_whose_name_ends_like_c_has_its_own_contract(tmp_path):
    (tmp_path / "m_c").mkdir()
    assert contract_beside(tmp_path / "m_c") == tmp_path / "m.contract.json"
    (tmp_path / "m_c" / "saved_model.pb").touch()
    assert contract_beside(tmp_path / "m_c") == tmp_path / "m_c.contract.json"


def test_force_replaces_an_artifact_but_never_a_folder_of_something_else(tmp_path, golden_folder):
    model = golden_folder / "stacked" / "model.keras"
    (tmp_path / "model.tflite").mkdir()
    (tmp_path / "model.tflite" / "keep.txt").write_text("mine")
    with pytest.raises(OutputError, match="is a folder, and not an artifact"):
        export(model, "tflite", f"{tmp_path}/", force=True)
    assert (tmp_path / "model.tflite" / "keep.txt").read_text() == "mine"
    for _ in range(2):
        export(model, "savedmodel", f"{tmp_path}/", force=True, check=False)
    (tmp_path / "other_savedmodel").write_text("a file")
    export(model, "savedmodel", tmp_path / "other_savedmodel", force=True, check=False)
    assert (tmp_path / "other_savedmodel" / "saved_model.pb").is_file()
