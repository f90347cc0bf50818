"""Where the program starts: it answers Ctrl-C, SIGTERM and closed streams rightly before anything else is imported."""

# What signal.py wraps: built in, where that one imports a dozen modules first.
import _signal  # type: ignore[import-not-found]
import io
import os
import sys


def main() -> None:
    """Run the command line."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(_signal, name, None)
        if number is not None and _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _stop)
    _fill_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # of names that its encoding doesn't have, too, as stderr does
        sys.stdout.reconfigure(errors="backslashreplace")
    from . import check_signatures

    try:
        check_signatures()
    except ImportError as error:
        sys.exit(str(error))
    from .cli import main as run

    try:
        run(prog_name="export-lstm")
    except OSError as error:  # of --help and what is said of wrong usage; commands answer for themselves
        _say(f"can't be written: {error.strerror}")
        os._exit(1)


def _stop(number: int, frame: object) -> None:
    """End at once: an exception raised in the midst of an import can be lost there."""
    _say("interrupted")
    os._exit(128 + number)


def _say(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:  # nobody listens
        return


def _fill_closed_streams() -> None:
    """Open what of stdin, stdout and stderr is closed, lest the next file that is opened takes its place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - a descriptor, for the life of the program


if __name__ == "__main__":
    main()
