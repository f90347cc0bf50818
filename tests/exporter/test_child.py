"""A process of its own: what it answers, how it ends, and that it never outlives the one that started it."""

import io
import multiprocessing
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from exporter import child
from exporter.child import Child, Lost, Surprise, TooLong, run
from signatures.errors import ExportLSTMError, FeedError

HELPER = """
import os, sys, time
from pathlib import Path

from signatures.errors import FeedError

def staged(folder, progress):
    for stage in "ab":
        progress(stage)
        (Path(folder) / stage).write_text("")
    return os.getpid()

def refuse():
    raise FeedError("input 'x' is missing.")

def noisy():
    print("python")
    os.write(1, b"native\\n")
    os.write(2, b"an error \\x1b[31m\\xff\\n")
    return "result"

def hold(size):
    taken = bytearray(size)
    taken[::4096] = b"x" * len(taken[::4096])
    time.sleep(60)

def say_and_wait(path, lock):
    Path(path).write_text(str(os.getpid()))
    if lock:
        sum(range(10**12))  # holds Python's lock, so that none of its threads runs
    time.sleep(60)
"""


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A module of functions to run, which a child finds as its parent does."""
    name = f"helper_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(name)


def gone(pid):
    """Whether a process ends within ten seconds."""
    for _ in range(1000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def wait_for(path):
    for _ in range(3000):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"no {path}")


def test_it_gives_what_the_function_returns_from_another_process():
    assert run(divmod, 17, 5) == (3, 2)
    assert run(os.getpid) != os.getpid()
    assert run(os.getenv, "A_VARIABLE", variables={"A_VARIABLE": "7"}) == "7"


def test_a_refusal_keeps_its_kind_and_anything_else_is_one_line(helper):
    with pytest.raises(FeedError, match=r"^input 'x' is missing\.$"):
        run(helper.refuse)
    with pytest.raises(Surprise, match=r"^ZeroDivisionError: .*by zero$"):
        run(divmod, 1, 0)


@pytest.mark.parametrize(("program", "frozen"), [("", False), (None, False), ("/bin/cat", False), (None, True)])
def test_a_python_within_another_program_is_told_and_another_one_can_be_named(monkeypatch, program, frozen):
    python = sys.executable
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    monkeypatch.setattr(sys, "executable", python if frozen else program)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", sys.executable)
    with pytest.raises(ExportLSTMError, match=r"of another program .* multiprocessing\.set_executable"):
        run(os.getpid)
    other = Path(python).with_name(f"python{sys.version_info.major}") if frozen else python
    multiprocessing.set_executable(str(other))
    assert run(os.getpid) != os.getpid()


def test_it_starts_where_the_streams_are_no_files(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    assert run(os.getpid) != os.getpid()


def test_several_questions_to_one_process():
    made = Child()
    try:
        for question in (1, 2):
            made.ask(divmod, question, 1)
            assert made.answer() == (question, 0)
        made.ask(divmod, 1, 0)
        with pytest.raises(Surprise):
            made.answer()
        made.ask(divmod, 3, 1)
        assert made.answer() == (3, 0)
    finally:
        made.close()


def test_what_it_prints_never_reaches_stdout(helper, capfd):
    lines = []
    assert run(helper.noisy, echo=lines.append) == "result"
    assert run(helper.noisy) == "result"
    assert capfd.readouterr() == ("", "")
    assert sorted(lines) == ["an error \x1b[31m\\xff", "native", "python"]


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (os.abort, (), r"^crashed \(SIGABRT\)$"),
        (signal.raise_signal, (signal.SIGSEGV,), r"^crashed \(SIGSEGV\)$"),
        (signal.raise_signal, (signal.SIGKILL,), r"^was killed \(SIGKILL, as when memory runs out\)$"),
        (os._exit, (3,), r"^ended by itself \(exit code 3\)$"),
    ],
)
def test_an_end_without_an_answer_is_told_with_the_signal(function, arguments, said):
    made = Child()
    try:
        made.ask(function, *arguments)
        for _ in range(2):
            with pytest.raises(Lost, match=said):
                made.answer()
    finally:
        made.close()


def test_a_limit_of_time_and_one_of_memory_end_it(helper):
    for limits, function, arguments, kind, said in (
        ({"limit": 0.3}, time.sleep, (60,), TooLong, r"gave no answer within 0\.3 s"),
        ({"memory": 200 << 20}, helper.hold, (400 << 20,), Lost, r"took more than 0\.195312 GB of memory"),
    ):
        made = Child()
        try:
            made.ask(function, *arguments)
            with pytest.raises(kind, match=said) as ended:
                made.answer(**limits)
            assert made._process.poll() is not None
            assert ended.value.advice
        finally:
            made.close()


def test_it_goes_on_when_its_stage_has_been_seen(helper, tmp_path):
    seen = []

    def progress(stage):
        time.sleep(0.2)  # it must wait for this
        seen.append((stage, (tmp_path / "a").exists(), (tmp_path / "b").exists()))

    run(helper.staged, str(tmp_path), progress=progress)
    assert seen == [("a", False, False), ("b", True, False)]
    assert (tmp_path / "b").exists()


def test_signals_of_the_terminal_are_its_parents(helper, tmp_path):
    made = Child()
    try:
        made.ask(helper.say_and_wait, str(tmp_path / "pid"), False)
        pid = int(wait_for(tmp_path / "pid"))
        for number in child.SIGNALS:
            os.kill(pid, number)
        with pytest.raises(TooLong):
            made.answer(limit=0.5)
    finally:
        made.close()


def test_starting_one_leaves_the_parents_signals_as_they_were():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        run(os.getpid)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before | {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("lock", [False, True])
def test_it_ends_with_its_parent(helper, tmp_path, lock):
    program = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    import {helper.__name__} as helper
    from exporter.child import run
    run(helper.say_and_wait, {str(tmp_path / "pid")!r}, {lock})
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    pid = int(wait_for(tmp_path / "pid"))
    parent.kill()
    parent.wait()
    assert gone(pid)


def test_end_all_ends_all(helper, tmp_path):
    made = [Child(), Child()]
    try:
        for k, each in enumerate(made):
            each.ask(helper.say_and_wait, str(tmp_path / f"{k}"), False)
            wait_for(tmp_path / f"{k}")
        child.end_all()
        assert all(each._process.poll() is not None for each in made)
    finally:
        for each in made:
            each.close()
