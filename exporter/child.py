"""A process of its own for what may crash, hang or take all memory: native libraries at work on a file.

    parent                              child
    Child()                             serve(): requests come from stdin, replies go to what was stdout
    ask(function, *arguments)  ------>  function(*arguments)
    answer(progress)           <------  each stage, as it starts; the child goes on when the parent has seen it
    answer()                   <------  the result, or the refusal

A child ends with its parent, however that ends. Signals of the terminal are the parent's: a child has them blocked and
is killed when the parent wants it to end. What libraries print never reaches stdout.
"""

import contextlib
import errno
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from signatures.errors import ExportLSTMError, one_line

Progress = Callable[[Any], None]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks a program to end."""

TIMEOUT = 120.0
"""Seconds that a stranger's artifact may take."""

MEMORY = 8 << 30
"""Bytes that a stranger's artifact may take; held to where /proc tells what a process takes."""

UNLIMITED = "If you trust the file, open it in Python: signatures.open sets no limit."

PATHS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EIO)
"""What the system says of a path that can't be used."""

TICK = 0.1
"""Seconds between two looks at what a child takes."""

_live: "set[Child]" = set()


class Lost(ExportLSTMError):
    """The process came to its end without an answer.

    Attributes:
        advice: What to do where it ran an artifact; the message itself says how it ended: "crashed (SIGSEGV)".
    """

    def __init__(self, reason: str, advice: str = "Export the Keras model again.") -> None:
        """Tell how it ended."""
        super().__init__(reason)
        self.advice = advice


class TooLong(Lost, TimeoutError):
    """The process gave no answer in time and was ended."""


class Surprise(ExportLSTMError):
    """Something else than a refusal of ours was raised in the process; the message is it in one line."""


class Child:
    """A process that runs the functions it is sent, one after the other."""

    def __init__(self, variables: Mapping[str, str] = {}, echo: Callable[[str], object] | None = None) -> None:
        """Start it.

        Args:
            variables: Its environment variables besides those there are.
            echo: Called in a thread with each line that it writes to stderr; None drops them.

        Raises:
            ExportLSTMError: When there is no Python to run it.
        """
        places = [place for place in sys.path if isinstance(place, str)]  # Python itself goes by no others
        start = f"import sys; sys.path[:] = {places!r}; from exporter.child import serve; serve({os.getpid()})"
        with _signals_blocked():  # a child has the signals blocked that its parent has when it starts it
            self._process = subprocess.Popen(
                [_python(), *_flags(), "-c", start],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if echo is None else subprocess.PIPE,
                env={**os.environ, **variables},
            )
        _live.add(self)
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=_listen, args=(self._process.stdout, self._inbox), daemon=True)]
        if echo is not None:
            self._threads.append(threading.Thread(target=_copy_lines, args=(self._process.stderr, echo), daemon=True))
        for thread in self._threads:
            thread.start()

    def ask(self, function: Callable[..., Any], *arguments: Any, told: bool = False) -> None:
        """Send a function to run and don't wait.

        Args:
            function: Picklable, by the name of its module.
            arguments: Its arguments.
            told: Whether it takes `progress`, a function to call with the name of each stage as it starts.
        """
        self._send((function, arguments, told))

    def answer(self, progress: Progress | None = None, limit: float | None = None, memory: int | None = None) -> Any:
        """Wait for what the function returns.

        Args:
            progress: Called with the name of each stage as it starts; the child goes on when it has returned.
            limit: Seconds to wait at most.
            memory: Bytes that the process may take.

        Raises:
            Lost: When it crashes or takes more memory, and was ended; TooLong: when it takes longer.
            Surprise: When the function raised something that isn't a refusal of ours.
            ExportLSTMError: The refusal that it raised.
        """
        end = None if limit is None else time.monotonic() + limit
        while True:
            try:
                message = self._inbox.get(timeout=TICK)
            except queue.Empty:
                if end is not None and time.monotonic() > end:
                    self.close()
                    raise TooLong(f"gave no answer within {limit:g} s", "Allow it more with --timeout.") from None
                if memory is not None and self._resident() > memory:
                    self.close()
                    raise Lost(f"took more than {memory / (1 << 30):g} GB of memory", UNLIMITED) from None
                continue
            if message is None:
                self._inbox.put(None)  # nor will another answer come
                raise Lost(_ending(self._process.wait()))
            kind, value = pickle.loads(message)
            if kind == "stage":
                if progress is not None:
                    progress(value)
                self._send(None)
            elif kind == "raised":
                raise value
            else:
                return value

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(1)
        _live.discard(self)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what it holds can't be written any more
                    pipe.close()

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the process has ended: `answer` tells
            _send(self._process.stdin, message)

    def _resident(self) -> int:
        """Return the bytes of memory that the process takes, 0 where nothing tells."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")


def run(
    function: Callable[..., Any],
    *arguments: Any,
    progress: Progress | None = None,
    variables: Mapping[str, str] = {},
    echo: Callable[[str], object] | None = None,
    limit: float | None = None,
    memory: int | None = None,
) -> Any:
    """Run one function in a process of its own; see Child."""
    with contextlib.closing(Child(variables, echo)) as child:
        child.ask(function, *arguments, told=progress is not None)
        return child.answer(progress, limit, memory)


def refusal(error: Exception) -> ExportLSTMError:
    """Return an exception as a refusal: itself, what a path that was given is like, or else a surprise."""
    if isinstance(error, ExportLSTMError):
        return error
    if isinstance(error, OSError) and error.errno in PATHS and error.filename is not None:
        return ExportLSTMError(f"{os.fsdecode(error.filename)}: {error.strerror}.")
    return Surprise(one_line(error))


def end_all() -> None:
    """End all children there are; safe to call from a signal handler, whatever it interrupted."""
    for child in list(_live):
        child._process.kill()
    end = time.monotonic() + 2
    while any(child._process.poll() is None for child in _live) and time.monotonic() < end:
        time.sleep(0.001)  # not Popen.wait: what the signal interrupted may hold its lock


def serve(parent: int) -> None:
    """Run what is asked for until the parent ends; the child's main function."""
    _end_with(parent)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what libraries print is no reply
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox, lambda: os._exit(1)), daemon=True).start()

    def progress(stage: Any) -> None:
        _send(replies, ("stage", stage))
        inbox.get()

    while (message := inbox.get()) is not None:
        try:
            function, arguments, told = pickle.loads(message)
            reply = "returned", function(*arguments, **({"progress": progress} if told else {}))
            sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 - whatever a library raises is told in one line
            traceback.print_exc()
            reply = "raised", refusal(error)
        _send(replies, reply)


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent ends, also while a library holds Python's lock."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before that
            os._exit(1)


def _listen(
    stream: BinaryIO, inbox: "queue.SimpleQueue[bytes | None]", at_end: Callable[[], None] | None = None
) -> None:
    """Put each message into the inbox; when no more can come call `at_end`, then put None."""
    with contextlib.suppress(OSError, ValueError):
        while len(size := stream.read(8)) == 8 and len(data := stream.read(count := int.from_bytes(size))) == count:
            inbox.put(data)
    if at_end is not None:
        at_end()
    inbox.put(None)


def _send(stream: Any, message: Any) -> None:
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(8) + data)
    stream.flush()


def _copy_lines(stream: BinaryIO, echo: Callable[[str], object]) -> None:
    for line in stream:
        echo(line.decode(errors="backslashreplace").rstrip("\n"))


def _ending(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended by itself (exit code {code})"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        return "was killed (SIGKILL, as when memory runs out)" if name == "SIGKILL" else f"crashed ({name})"
    return f"crashed (signal {-code})"


def _python() -> str:
    """Return the Python that runs a child: this one, or the one that multiprocessing.set_executable was told.

    Raises:
        ExportLSTMError: When this one is part of another program, which would start itself once more.
    """
    spawn = sys.modules.get("multiprocessing.spawn")  # nobody told it anything where it isn't imported
    chosen = os.fsdecode((spawn and spawn.get_executable()) or sys.executable or "")
    named = re.search("python|pypy", Path(chosen).name, re.IGNORECASE)
    if not named or (chosen == sys.executable and getattr(sys, "frozen", False)):
        raise ExportLSTMError(
            f"a process that works on files can't be started, this Python is of another program ({chosen or '?'}). "
            "Name one that has export-lstm: multiprocessing.set_executable('.../python')."
        )
    return chosen


def _flags() -> list[str]:
    """Return the interpreter's options that a child needs to import the same modules and warn alike."""
    flags = sys.flags
    chosen = {"-I": flags.isolated, "-E": flags.ignore_environment, "-s": flags.no_user_site, "-S": flags.no_site}
    return [flag for flag, on in chosen.items() if on] + [f"-W{each}" for each in sys.warnoptions]


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let signals wait, where there is such a thing: none is lost."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def answering(stop: Callable[[int, object], None]) -> Iterator[None]:
    """Answer the signals that ask the program to end, but for those that whoever started it has it ignore."""
    before = {}
    try:
        for each in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(each) not in (signal.SIG_IGN, None):
                before[each] = signal.signal(each, stop)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
