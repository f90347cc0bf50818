"""The program as it is started: signals at any moment, streams that are closed or full, a library that crashes.

What a child does is put in place of the export, so that no TensorFlow is imported here.
"""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

HEARING = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
"""The tests may run in the background of a shell, which has its jobs ignore Ctrl-C."""

HELPER = """
import json, os, signal, sys, time
from pathlib import Path

from exporter.deliver import staged
from exporter.request import DELIVERING
from signatures.errors import OutputError, ParityError

def export(model, targets, check, options, progress):
    here, how = Path(options["out"]), Path(model).stem
    beside = Path(model).parent
    progress("loading")
    os.write(1, b"printed by a library\\n")
    print("printed by Python", flush=True)
    if how == "aborts":
        with staged([here / "m.onnx"]) as places:
            places[here / "m.onnx"].write_text("half")
            progress("onnx: converting")
            os.abort()
    if how == "breaks":
        raise KeyError("\\x1b[31m'[bold]no\\r")
    if how == "refuses":
        raise ParityError("layer '\\x1b]0;title\\x07[bold]' is off.\\n  What to do.")
    wanted = [here / "m.onnx", here / "m.contract.json"]
    with staged(wanted, lambda places: deliver(beside, how, progress)) as places:
        for path in places.values():
            path.write_text("new")
        if how == "waits":
            (beside / "pid").write_text(str(os.getpid()))
            sum(range(10**12))
    return []

def deliver(beside, how, progress):
    if how == "sleeps":
        (beside / "pid").write_text(str(os.getpid()))
        time.sleep(60)
    progress(DELIVERING)
    if how in ("delivers", "fails", "dies late"):
        (beside / "pid").write_text(str(os.getpid()))
        time.sleep(1)
    if how == "fails":
        raise OutputError("m.onnx: can't be written (No space left on device). Give another --out.")
    if how.startswith("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
"""

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import helper
from exporter import cli, tables
cli._export = helper.export
tables.print_artifacts = lambda artifacts: tables._say(tables._console(), "a table\\n" * 2000)
from exporter.__main__ import main
main()
"""


@pytest.fixture
def started(tmp_path):
    """Start an export that does what the model's name says; return the process and its folder."""
    (tmp_path / "helper.py").write_text(HELPER)
    out = tmp_path / "new" / "out"

    processes = []

    def start(how, *options, **streams):
        model = tmp_path / f"{how}.keras"
        model.write_text("a model")
        command = [
            sys.executable,
            "-c",
            PROGRAM.format(folder=str(tmp_path)),
            str(model),
            "--to",
            "onnx",
            "-o",
            str(out),
        ]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        processes.append(subprocess.Popen([*command, *options], text=True, **{"preexec_fn": HEARING, **streams}))
        return processes[-1], out

    yield start
    for process in processes:
        process.kill()
        process.wait()


def pid_beside(out):
    told = out.parent.parent / "pid"
    for _ in range(6000):
        if told.exists() and told.read_text():
            return int(told.read_text())
        time.sleep(0.01)
    raise AssertionError("the child didn't start")


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("how", ["waits", "sleeps"])
def test_a_signal_ends_the_export_and_leaves_nothing(started, number, how):
    process, out = started(how)
    pid = pid_beside(out)
    process.send_signal(number)
    told = process.communicate(timeout=60)
    assert (process.returncode, *told) == (SIGNALS[number], "", "interrupted; nothing was written\n")
    assert not running(pid)
    assert not out.parent.exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_amid_delivery_ends_the_export_when_all_is_in_place(started, number):
    process, out = started("delivers")
    pid = pid_beside(out)
    process.send_signal(number)
    told = process.communicate(timeout=60)
    said = "interrupted; all that was asked for is delivered\n"
    assert (process.returncode, *told) == (SIGNALS[number], "", said)
    assert not running(pid)
    assert sorted(path.name for path in out.iterdir()) == ["m.contract.json", "m.onnx"]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("how", "said"), [("fails", "OutputError: m.onnx: can't be written"), ("dies late", "was killed (SIGKILL")]
)
def test_a_signal_amid_a_delivery_that_fails_is_answered_when_that_is_told(started, number, how, said):
    process, out = started(how)
    pid = pid_beside(out)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == SIGNALS[number]
    assert said in told
    assert told.endswith("\ninterrupted\n")
    assert not running(pid)


def test_a_second_signal_does_not_wait(started):
    process, out = started("delivers")
    pid = pid_beside(out)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    told = process.communicate(timeout=60)
    said = "interrupted; in the midst of moving files into place: each is wholly old or wholly new\n"
    assert (process.returncode, *told) == (130, "", said)
    assert not running(pid)
    assert not out.parent.exists()


def test_what_a_killed_export_leaves_is_cleaned_by_the_next(started):
    process, out = started("waits")
    pid = pid_beside(out)
    process.kill()
    process.communicate(timeout=60)
    while running(pid):
        time.sleep(0.01)
    assert len(list(out.parent.parent.glob(".export-lstm-*"))) == 1
    process, _ = started("refuses")
    process.communicate(timeout=60)
    assert not list(out.parent.parent.glob(".export-lstm-*"))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["click", "signatures", "numpy"])
def test_a_signal_amid_the_imports_ends_the_program_in_a_sentence(tmp_path, number, module):
    (tmp_path / f"{module}.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from exporter.__main__ import main; main()"
    command = [sys.executable, "-c", program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, preexec_fn=HEARING)
    assert (done.returncode, done.stdout) == (SIGNALS[number], "")
    assert done.stderr == "interrupted\n"


def test_a_signal_that_is_to_be_ignored_is(started):
    def ignoring():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    process, out = started("delivers", "--json", preexec_fn=ignoring)
    pid_beside(out)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60) == ("[]\n", "")
    assert process.returncode == 0


def test_a_crash_is_a_sentence_with_the_stage_and_the_signal(started):
    process, out = started("aborts")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "crashed (SIGABRT) at the stage 'onnx: converting'. Nothing was written." in stderr
    assert "--lowering" in stderr
    assert not out.parent.exists()


def test_a_crash_amid_delivery_is_not_told_as_nothing_written(started):
    process, _ = started("dies")
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Nothing" not in stderr
    assert "each is wholly old or wholly new; export again with --force" in stderr


def test_json_is_all_there_is_on_stdout(started):
    process, _ = started("writes", "--json")
    assert process.communicate(timeout=60) == ("[]\n", "")
    process, _ = started("writes", "--json", "--force", "-v")
    stdout, stderr = process.communicate(timeout=60)
    assert json.loads(stdout) == []
    assert "printed by a library" in stderr
    assert "printed by Python" in stderr


@pytest.mark.parametrize(
    ("how", "said"), [("breaks", "This is a bug in export-lstm: KeyError"), ("refuses", "ParityError")]
)
@pytest.mark.parametrize("options", [(), ("-v",)])
def test_what_a_terminal_would_act_on_is_written_out(started, how, said, options):
    process, _ = started(how, *options)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert said in stderr
    assert "\\x1b" in stderr
    assert "[bold]" in stderr
    assert not any(ord(character) < 32 and character != "\n" for character in stderr)


@pytest.mark.parametrize(
    ("stdout", "said"), [("/dev/full", "No space left on device"), (None, "it is closed"), ("a pipe", "Broken pipe")]
)
def test_a_stdout_that_takes_nothing_is_told_and_so_is_what_was_delivered(started, stdout, said):
    streams = {}
    if stdout is None:
        streams = {"stdout": None, "preexec_fn": lambda: os.close(1)}
    elif stdout == "a pipe":
        far, near = os.pipe()
        os.close(far)
        streams = {"stdout": near}
    else:
        streams = {"stdout": os.open(stdout, os.O_WRONLY)}
    process, out = started("writes", **streams)
    stderr = process.communicate(timeout=60)[1]
    if streams["stdout"] is not None:
        os.close(streams["stdout"])
    assert stderr == (
        f"OutputError: the result can't be written to stdout ({said}). All that was asked for is delivered.\n"
    )
    assert process.returncode == 1
    assert sorted(path.name for path in out.iterdir()) == ["m.contract.json", "m.onnx"]


@pytest.mark.parametrize("closed", [(2,), (0, 2), (0, 1, 2)])
def test_without_stderr_the_exit_code_tells_and_no_file_takes_its_place(started, closed):
    def close():
        for number in closed:
            os.close(number)

    process, out = started("writes", "--json", stderr=None, stdin=None, preexec_fn=close)
    process.communicate(timeout=60)
    assert process.returncode == (1 if 1 in closed else 0)
    assert (out / "m.onnx").read_text() == (out / "m.contract.json").read_text() == "new"
    process, _ = started("refuses", stderr=None, stdin=None, preexec_fn=close)
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_a_stderr_nobody_reads_ends_nothing(started):
    far, near = os.pipe()
    os.close(far)
    process, _ = started("writes", "--json", "-v", stderr=near)
    os.close(near)
    assert process.communicate(timeout=60)[0] == "[]\n"
    assert process.returncode == 0


def test_help_on_a_full_stdout_is_no_traceback():
    program = "from exporter.__main__ import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "can't be written: No space left on device\n")


def test_a_current_folder_that_was_removed_is_told(tmp_path):
    (tmp_path / "gone").mkdir()
    program = f"import os; os.rmdir({str(tmp_path / 'gone')!r}); from exporter.__main__ import main; main()"
    command = [sys.executable, "-c", program, "inspect", "model.keras"]
    done = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "OutputError: the current folder was removed. Change to one that exists.\n"


def test_a_package_that_hides_ours_is_told(tmp_path):
    (tmp_path / "signatures.py").write_text("")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from exporter.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("another package named 'signatures'")


@pytest.mark.parametrize("command", [("inspect",), ("export", "--to", "onnx"), ("golden", "-o", "case")])
def test_a_wrong_suffix_is_refused_before_any_process_is_started(tmp_path, command):
    (tmp_path / "model.pb").write_text("a model")
    program = "from exporter import child; child.Child = None; from exporter.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "model.pb"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("LoadError: model.pb has the suffix '.pb'")
    assert (".onnx" in done.stderr) == (command == ("inspect",))
