"""Where artifacts go, and how they get there: whole, or not at all.

They are written to a stage first, a hidden folder beside where they go:

    .export-lstm-XXXXXXXX/folder      where they go
    .export-lstm-XXXXXXXX/new/NAME    what is written; moved into place at the end
    .export-lstm-XXXXXXXX/old/NAME    what was there, where the two can't be swapped in one step

The process that writes holds a lock on its stage, which the system takes back when the process ends, however it ends.
So a stage without one was left behind: the next export puts back what is missing and removes it. Each path is wholly
old or wholly new at any moment; which files were delivered together is told by their digests in the contract.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from signatures import files
from signatures.contract import SIGNATURES, ArtifactInfo, Contract
from signatures.errors import ArtifactError, OutputError
from signatures.runtimes import of_folder

from .child import answering
from .targets import TARGETS, Target

CONTRACT = ".contract.json"
STAGE = ".export-lstm-"
Staged = Mapping[Path, Path]
MOST = 16 << 30
"""Bytes of an artifact that is held against its digest, twice what --max-memory takes: a stranger's is no larger."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What a disk says that takes no more."""


def paths(stem: str, targets: Sequence[Target], out: str | Path | None) -> tuple[dict[str, Path], Path]:
    """Return target -> path, and the contract's path.

    Args:
        stem: The model's name, for default names: stem.tflite, stem.onnx, stem_savedmodel/, stem_c/,
            stem.contract.json.
        targets: What is written.
        out: None for the current folder; a folder; or, for a single target, the artifact's own path (a name that ends
            in the target's suffix; for one that is a folder any name that isn't an existing one).

    Raises:
        OutputError: When `out` has the suffix of something else.
    """
    out_path = Path(out) if out is not None else Path()
    folder = out is None or out_path.is_dir() or str(out).endswith(("/", os.sep))
    if not folder and len(targets) == 1:
        [target] = targets
        if out_path.name.endswith(target.suffix) or (target.folder and not out_path.suffix):
            name = out_path.name.removesuffix(target.suffix)
            return {target.name: out_path}, out_path.parent / f"{name}{CONTRACT}"
    if not folder and out_path.suffix:
        kinds = " or ".join(target.suffix for target in targets if not target.folder)
        wanted = f"a folder, or a name that ends in {kinds}" if len(targets) == 1 and kinds else "a folder"
        raise OutputError(f"{out}: the output of {', '.join(target.name for target in targets)} goes to {wanted}.")
    return {target.name: out_path / f"{stem}{target.suffix}" for target in targets}, out_path / f"{stem}{CONTRACT}"


def check_free(wanted: Sequence[Path], force: bool) -> None:
    """Refuse paths that are taken, unless force, and folders that can't be written.

    Raises:
        OutputError: With the first such path.
    """
    for path in wanted:
        try:
            if os.path.lexists(path) and not force:
                raise OutputError(f"{path}: exists already. Give another path, or force to replace it (--force).")
            if _is_folder(path) and of_folder(path) is None:
                raise OutputError(f"{path}: is a folder, and not an artifact to replace. Give another path.")
            folder = _existing(path.absolute().parent)
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                reason = f"{folder} is not a folder you may write to"
                raise OutputError(f"{path}: can't be written, {reason}. Give another --out.")
        except OSError as error:
            raise OutputError(f"{path}: can't be written ({error.strerror}). Give another --out.") from None


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists; one of a name that no file can have does not."""
    return next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110


def missing(folder: Path) -> list[Path]:
    """Return a folder and those above it, the innermost first, as far as they don't exist."""
    folder = folder.absolute()
    return [each for each in (folder, *folder.parents) if not os.path.exists(each)]  # noqa: PTH110


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that an export made and put nothing into, the innermost first."""
    for each in folders:
        with contextlib.suppress(OSError):  # something is in it, or it was never made
            each.rmdir()


def joined(contract_path: Path, new: Contract, force: bool) -> Contract:
    """Return a new contract that tells also of what the one that is there tells of: other targets' artifacts.

    Args:
        contract_path: Where the contract of all artifacts goes.
        new: What is exported now, its artifacts included.
        force: Whether a contract that can't be added to is replaced.

    Raises:
        OutputError: When there is something else at the path, a contract of another model or of other ports, or an
            artifact beside it that it doesn't tell of; not with force.
    """
    if not os.path.lexists(contract_path):
        return new
    try:
        there = read_contract(contract_path)
    except ArtifactError as error:
        reason: str | None = f"exists already and is no contract of export-lstm's that can be added to ({error})"
    else:
        others = {target: info for target, info in there.artifacts.items() if target not in new.artifacts}
        reason = _difference(contract_path, there, new, others)
        if reason is None:
            versions = {**there.provenance, **new.provenance} if others else new.provenance
            unchecked = [each.proven for each in (there, new) if each.proven.atol is None]
            proven = unchecked[0] if others and unchecked else new.proven  # what is true of all
            all_ = {**there.signatures, **new.signatures} if others else new.signatures
            signatures = {name: all_[name] for name in SIGNATURES if name in all_}
            artifacts = {**others, **new.artifacts}
            return replace(new, signatures=signatures, artifacts=artifacts, provenance=versions, proven=proven)
    if force:
        return new
    raise OutputError(f"{contract_path}: {reason}. Give another path, or force to replace it (--force).")


def _difference(contract_path: Path, there: Contract, new: Contract, others: Mapping[str, ArtifactInfo]) -> str | None:
    """Say why artifacts of two contracts can't be told of by one; None where they can."""
    files = " and ".join(info.file for info in there.artifacts.values())
    if not same_model(there, new):
        return f"belongs to {files} of another model, {_named(there)}, not {_named(new)}"
    if not others:
        return None
    files = " and ".join(info.file for info in others.values())
    same = all(getattr(there, part) == getattr(new, part) for part in ("outputs", "no_step", "scheme"))
    if not same or not _same_signatures(there, others, new):
        return f"belongs to {files} with other ports: --signatures, --lengths and --dtype must be the same"
    for package, version in new.provenance.items():
        if (was := there.provenance.get(package, version)) != version:
            return f"belongs to {files}, made with {package} {was}, which now is {version}"
    if strange := [
        each.file for each in others.values() if not _plain(each.file) or not _told(contract_path.parent, each)
    ]:
        return f"{strange[0]} beside it is not the one that it tells of"
    return None


def _same_signatures(there: Contract, others: Mapping[str, ArtifactInfo], new: Contract) -> bool:
    """Tell whether signatures of one name are the same, and none is missing where an artifact could have it."""
    shared = there.signatures.keys() & new.signatures.keys()
    if any(there.signatures[name] != new.signatures[name] for name in shared):
        return False
    sides = ((there, others), (new, new.artifacts))
    whole = [set(each.signatures) for each, infos in sides if any(info.signatures is None for info in infos.values())]
    return all(each == {*there.signatures, *new.signatures} for each in whole)


def same_model(first: Contract, second: Contract) -> bool:
    """Tell whether two contracts are of one model, by its name and its file's or its weights' digest."""
    one, other = first.model, second.model
    digests = [(one.get(kind), other.get(kind)) for kind in ("sha256", "weights")]
    return one.get("name") == other.get("name") and any(a is not None and a == b for a, b in digests)


def _named(contract: Contract) -> str:
    sha256 = contract.model.get("sha256")
    return f"{contract.model.get('name')!r} ({'in memory' if sha256 is None else f'sha256 {str(sha256)[:12]}'})"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex; of a folder, that of what `sha256sum` prints of its files, by path."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    return hashlib.sha256("".join(f"{digest(path / name)}  {name}\n" for name in files).encode()).hexdigest()


def contract_beside(artifact: Path) -> Path:
    """Return where the contract beside an artifact would be."""
    artifact = Path(os.path.abspath(artifact))  # noqa: PTH100 - "." and ".." have no name, and no link is to be followed
    kind = of_folder(artifact)  # one of another kind may end in the suffix of this
    targets = TARGETS.values() if kind is None else [TARGETS[kind]]
    known = next((target.suffix for target in targets if artifact.name.endswith(target.suffix)), "")
    return artifact.with_name(f"{artifact.name.removesuffix(known)}{CONTRACT}")


def strays(contract_path: Path) -> list[Path]:
    """Return the artifacts beside a contract that aren't those it tells of: of another export, or changed since.

    None where there is no contract of ours; a contract without digests, as earlier versions wrote, tells of any file.
    """
    try:
        told = read_contract(contract_path).artifacts
    except ArtifactError:
        return []
    stem, folder = contract_path.name.removesuffix(CONTRACT), contract_path.parent
    infos = {info.file: info for info in told.values() if _plain(info.file)}
    names = dict.fromkeys([*(f"{stem}{target.suffix}" for target in TARGETS.values()), *infos])
    there = [name for name in names if os.path.lexists(folder / name)]
    return [folder / name for name in there if name not in infos or not _told(folder, infos[name])]


def read_contract(path: Path) -> Contract:
    """Read a contract that lies beside artifacts, perhaps a stranger's.

    Raises:
        ArtifactError: When it can't be read or is no contract of ours.
    """
    try:
        return Contract.from_json(files.read(path, files.TEXT))
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}.") from None


def _plain(name: object) -> bool:
    """Whether a name out of a contract is that of something beside it."""
    return isinstance(name, str) and "\0" not in name and Path(name).name == name


def _told(folder: Path, info: ArtifactInfo) -> bool:
    """Whether an artifact is the one that a contract tells of, or isn't there at all."""
    path = folder / info.file
    try:
        if info.sha256 is None or not os.path.lexists(path):
            return True
        inside = [each for each in (path, *path.rglob("*")) if each.is_file()]
        small = sum(each.stat().st_size for each in inside) <= MOST
        return small and (path.is_file() or path.is_dir()) and digest(path) == info.sha256
    except OSError:
        return False


@contextmanager
def staged(wanted: Sequence[Path], seal: Callable[[Staged], None] = lambda new: None) -> Iterator[Staged]:
    """Yield final path -> temporary path; move all into place at the end, none if anything raises.

    Args:
        wanted: Where things go, all in one folder. What is there is replaced.
        seal: Called with the same when all else is written, while no other export can move anything into that folder;
            it may still write and raise.

    Raises:
        OutputError: When something can't be written or moved.
    """
    [folder] = {path.absolute().parent for path in wanted}
    made, base = missing(folder), _existing(folder)
    done = False
    try:
        with _stage(folder, base) as stage:
            new = {path: stage / "new" / path.name for path in wanted}
            yield new
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder.resolve(), wait=True):
                seal(new)
                for temporary in new.values():
                    temporary.lstat()  # all there, before the first one replaces anything
                with _undisturbed():
                    _move_all(new, stage / "old")
                    done = True
    except Exception as error:
        if isinstance(error, OutputError) or (reason := _disk_says(error, base / STAGE, folder)) is None:
            raise
        raise OutputError(f"{wanted[0]}: can't be written ({reason}). Give another --out.") from error
    finally:
        if not done:
            remove_empty(made)


def clean(folder: Path) -> None:
    """Remove what exports into a folder left behind when they were killed; put back what they had taken away.

    Where the folder was to be made, they left it in the nearest one above that there was then.
    """
    folder = folder.absolute()
    base = _existing(folder)
    for place in (base, *base.parents):
        with contextlib.suppress(OSError):
            for stage in place.glob(f"{STAGE}*"):
                if place == base or _goes_to(stage) == folder:
                    _remove(stage, place)


def _remove(stage: Path, base: Path) -> None:
    """Remove a stage that nobody is at work in."""
    with _locked(stage) as lock:
        if lock is not None and (not hasattr(os, "getuid") or os.fstat(lock).st_uid == os.getuid()):
            with contextlib.suppress(OSError):
                _put_back(stage, base)
            shutil.rmtree(stage, ignore_errors=True)


def _goes_to(stage: Path) -> Path | None:
    """Return where what a stage holds goes; None where it doesn't tell: a stranger may have made it."""
    told = stage / "folder"
    try:
        return Path(told.read_text(encoding="utf-8")) if stat.S_ISREG(told.lstat().st_mode) else None
    except (OSError, ValueError):
        return None


def _put_back(stage: Path, base: Path) -> None:
    """Move what a killed export had taken away back to where nothing is now.

    A stranger may have made the stage: it is looked at closely, and nothing is moved from or to another place.
    """
    folder, taken = _goes_to(stage), stage / "old"
    if folder is None or not stat.S_ISDIR(taken.lstat().st_mode):
        return
    for old in taken.iterdir() if base in (folder, *folder.parents) and ".." not in folder.parts else ():
        if not os.path.lexists(folder / old.name):
            old.rename(folder / old.name)


@contextmanager
def _stage(folder: Path, base: Path) -> Iterator[Path]:
    """Make a stage for what goes into a folder, locked where there is such a thing, and remove it in the end."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=STAGE, dir=base))
        with _locked(stage, wait=True):
            if not stage.exists():  # another export took it for left behind before it was locked
                continue
            try:
                (stage / "folder").write_text(str(folder), encoding="utf-8")
                (stage / "new").mkdir()
                (stage / "old").mkdir()
                yield stage
                return
            finally:
                shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[int | None]:
    """Lock a folder against other exports and yield the open file; None where it is locked or can't be."""
    file = held = None
    with contextlib.suppress(ImportError, OSError):  # Windows has no such thing
        import fcntl

        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        held = file
    try:
        yield held
    finally:
        if file is not None:
            os.close(file)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals that ask the program to end wait for a moment, then answer them as before."""
    came: list[int] = []
    try:
        with answering(lambda number, frame: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


def _move_all(new: Mapping[Path, Path], old: Path) -> None:
    """Move everything into place; when one thing can't be, put back what was there.

    Args:
        new: Final path -> where it is now.
        old: An empty folder, for what is there and can't be swapped.
    """
    moved: list[tuple[Path, Path | None]] = []
    try:
        for path, temporary in new.items():
            moved.append((path, _put(temporary, path, old / path.name)))
    except OSError as error:
        stay = [path for path, former in reversed(moved) if not _undone(path, former, new[path])]
        if stay:
            names = ", ".join(map(str, stay))
            raise OutputError(
                f"{names}: new, but what goes with it can't be written ({error.strerror}). Export again with --force."
            ) from error
        raise


def _put(source: Path, path: Path, spare: Path) -> Path | None:
    """Put a file or folder where another may be, in one step where the system can.

    Args:
        source: What is put.
        path: Where to.
        spare: A free path, for what is there.

    Returns:
        Where what was there is now; None where there was nothing.
    """
    if not os.path.lexists(path):
        source.rename(path)
        return None
    if _exchange(source, path):
        return source
    if not _is_folder(path) and not _is_folder(source):
        try:
            os.link(path, spare, follow_symlinks=False)
        except (OSError, NotImplementedError):
            shutil.copy2(path, spare, follow_symlinks=False)
        source.replace(path)
        return spare
    path.rename(spare)  # no folder takes another's place in one step: `clean` puts it back
    try:
        source.rename(path)
    except OSError:
        spare.rename(path)
        raise
    return spare


def _undone(path: Path, former: Path | None, source: Path) -> bool:
    """Put back what was at a path; tell whether that could be done."""
    try:
        if former is None:
            path.rename(source)
        else:
            _put(former, path, former.with_name(f"{former.name}.undone"))
    except OSError:
        return False
    return True


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths swap places in one step; False where that can't be had, and nothing has changed."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # another C library than glibc, or an old one
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def _disk_says(error: Exception, *places: Path) -> str | None:
    """Return why something can't be written to some places, None where the error is about something else."""
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        ours = any(name.startswith(str(place)) for name in names for place in places)
        return error.strerror if ours or error.errno in FULL else None
    text = str(error)  # TensorFlow's writers raise errors of their own
    return next((os.strerror(code) for code in FULL if os.strerror(code) in text), None)
