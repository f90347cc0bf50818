"""What can go wrong, one class per thing a caller can do about it.

Every message says what was found, where, what is accepted and what to do; the command line prints it as it is.
"""

import re


def one_line(error: BaseException) -> str:
    """Return another library's exception as one line: its type and the first two lines that say something."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\{\{.*?\}\} ?|\[Op:.*", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}" if lines else type(error).__name__


class ExportLSTMError(Exception):
    """The base of every refusal; `except ExportLSTMError` catches them all and nothing else."""


class LoadError(ExportLSTMError):
    """The model file is missing, damaged or not a Keras model: give another file."""


class UnsafeModel(LoadError):
    """Loading the file would run code or read files of its author's choosing: pass the model in memory instead."""


class UnsupportedModel(ExportLSTMError):
    """The model is read but has no right form in this target: change the layer, the option or the target."""


class OutputError(ExportLSTMError):
    """The output path is taken or can't be written: choose another or pass force."""


class ArtifactError(ExportLSTMError):
    """The artifact can't be opened: it is missing, damaged or was not written by export-lstm."""


class UnsafeArtifact(ArtifactError):
    """Running the artifact may read or write files or run code: look at who made it, then pass trust if you may."""


class MissingRuntime(ExportLSTMError):
    """The package that runs this kind of artifact is not installed: install it."""


class FeedError(ExportLSTMError, ValueError):
    """The arrays given to an artifact don't fit its ports: names, then shapes, then types."""


class ParityError(ExportLSTMError):
    """The artifact's numbers differ from the golden ones: nothing was delivered."""
