"""Files are looked at before they are read: a stranger's may be a pipe, a device, or far larger than it is worth.

What is wrong is a ValueError whose text goes on after the path, which callers know: "it is a named pipe, not a file".
"""

import io
import math
import os
import stat
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from .errors import one_line
from .ports import Array

MOST = 2 << 30
"""Bytes of an artifact or of an array: neither flatbuffers nor protocol buffers go beyond."""
TEXT = 64 << 20
"""Bytes of a JSON text."""
LISTING = 4 << 20
"""Bytes of an archive's list of members."""

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def kind(path: Path) -> str | None:
    """Return what is at a path, "a file", "a folder", ...; None where nothing is, nor can be by this name."""
    try:
        return KINDS[stat.S_IFMT(path.stat().st_mode)]
    except PermissionError:
        return "out of reach"
    except (OSError, ValueError):
        return None


def look(path: Path, most: int = MOST) -> int:
    """Return the size of a file in bytes.

    Raises:
        ValueError: When it is missing, no regular file, or larger than `most`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"it can't be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"it is {KINDS[stat.S_IFMT(status.st_mode)]}, not a file")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size:,} bytes; at most {most:,} are accepted")
    return status.st_size


def read(path: Path, most: int = MOST) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError: See look; or when it may not be read.
    """
    size = look(path, most)
    try:
        with path.open("rb") as file:
            return file.read(size)  # not of `most`: that much memory would be asked for
    except OSError as error:
        raise ValueError(f"it can't be read ({error.strerror})") from None


def check_tree(folder: Path) -> None:
    """Refuse a folder that holds anything but files and folders.

    Raises:
        ValueError: With what it "holds ...": a pipe, a device, or a link to something outside.
    """
    root = os.path.realpath(folder)
    for here, folders, names in os.walk(folder):
        for number, name in enumerate((*names, *folders)):
            path = Path(here, name)
            inside = os.path.relpath(path, folder)
            if os.path.commonpath([root, os.path.realpath(path)]) != root:
                raise ValueError(f"holds {inside!r}, a link to something outside")
            if number < len(names):
                try:
                    look(path, most=MOST)
                except ValueError as error:
                    raise ValueError(f"holds {inside!r}: {error}") from None


def read_array(file: IO[bytes], size: int) -> Array:
    """Read what a `.npy` file holds after its header was held against its size.

    Args:
        file: At its start; it can seek.
        size: Its bytes.

    Raises:
        ValueError: When it is something else, says another size, or holds Python objects.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"version {version} of the format")
        shape, _, dtype = HEADERS[version](file)
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {dtype}, not numbers")
        declared = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or declared != size - file.tell():
            raise ValueError(f"its header says {declared:,} bytes, {size - file.tell():,} follow")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - NumPy reads the header as Python, which fails in many ways
        raise ValueError(f"it is no .npy of plain numbers ({one_line(error)})") from None


def read_npy(path: Path) -> Array:
    """Read an `.npy` file; see read_array."""
    size = look(path)
    with path.open("rb") as file:
        return read_array(file, size)


class Listing(io.BufferedReader):
    """A file that gives at most LISTING bytes at once, all that zipfile needs to list an honest archive."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes."""
        if size is not None and size > LISTING:
            raise ValueError(f"the archive's list of members takes {size:,} bytes, which is too long")
        return super().read(size)


def read_npz(path: Path) -> dict[str, Array]:
    """Read an `.npz` file, array by name; see read_array.

    Raises:
        ValueError: When it is something else, or larger than MOST when unpacked.
    """
    look(path)
    arrays = {}
    try:
        with Listing(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if (total := sum(member.file_size for member in members)) > MOST:
                raise ValueError(f"it holds {total:,} bytes; at most {MOST:,} are accepted")
            for member in members:
                with archive.open(member) as inside:
                    arrays[member.filename.removesuffix(".npy")] = read_array(inside, member.file_size)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile and zlib raise errors of many kinds on damaged bytes
        raise ValueError(f"it is no .npz ({one_line(error)})") from None
    return arrays
