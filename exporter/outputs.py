"""Where artifacts go, and how they get there: whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from signatures.errors import OutputError

SUFFIX = {"tflite": ".tflite", "onnx": ".onnx", "savedmodel": "_savedmodel"}
TARGETS = tuple(SUFFIX)


def paths(stem: str, targets: Sequence[str], out: str | Path | None) -> tuple[dict[str, Path], Path]:
    """Return target -> path, and the contract's path.

    Args:
        stem: The model's name, for default names: stem.tflite, stem.onnx, stem_savedmodel/, stem.contract.json.
        targets: What is written.
        out: None for the current folder; a folder; or, for a single target, the artifact's own path (a name that ends
            in the target's suffix; for savedmodel any name that isn't an existing folder).

    Raises:
        OutputError: When `out` has the suffix of something else.
    """
    out_path = Path(out) if out is not None else Path()
    folder = out is None or out_path.is_dir() or str(out).endswith(("/", os.sep))
    if not folder and len(targets) == 1:
        [target] = targets
        if out_path.suffix == SUFFIX[target] or (target == "savedmodel" and not out_path.suffix):
            name = out_path.name.removesuffix(SUFFIX[target])
            return {target: out_path}, out_path.parent / f"{name}.contract.json"
    if not folder and out_path.suffix:
        kinds = " or ".join(SUFFIX[target] for target in targets if target != "savedmodel")
        wanted = f"a folder, or a name that ends in {kinds}" if len(targets) == 1 and kinds else "a folder"
        raise OutputError(f"{out}: the output of {', '.join(targets)} goes to {wanted}.")
    return {t: out_path / f"{stem}{SUFFIX[t]}" for t in targets}, out_path / f"{stem}.contract.json"


def check_free(wanted: Sequence[Path], force: bool) -> None:
    """Refuse paths that are taken, unless force, and folders that can't be written.

    Raises:
        OutputError: With the first such path.
    """
    for path in wanted:
        if os.path.lexists(path) and not force:
            raise OutputError(f"{path}: exists already. Give another path, or force to replace it (--force).")
        if path.is_dir() and not path.is_symlink() and not (path / "saved_model.pb").is_file():
            raise OutputError(f"{path}: is a folder, and not a SavedModel to replace. Give another path.")
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise OutputError(
                f"{path}: can't be written, {existing} is not a folder you may write to. Give another --out."
            )


@contextmanager
def staged(wanted: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Yield final path -> temporary path beside it; move all into place at the end, none if anything raises."""
    folders = {path.absolute().parent for path in wanted}
    made = sorted({each for folder in folders for each in (folder, *folder.parents) if not each.exists()}, reverse=True)
    stages: dict[Path, Path] = {}
    done = False
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            stages[folder] = Path(tempfile.mkdtemp(prefix=".export-lstm-", dir=folder))
        yield {path: stages[path.absolute().parent] / path.name for path in wanted}
        staging = {path: stages[path.absolute().parent] / path.name for path in wanted}
        for temporary in staging.values():
            temporary.lstat()  # all there, before the first one replaces anything
        for path, temporary in staging.items():
            if os.path.lexists(path) and (path.is_dir() or temporary.is_dir()):
                path.replace(temporary.with_name(f"{path.name}.old"))  # goes with the stage
            temporary.replace(path)
        done = True
    except OSError as error:
        raise OutputError(f"{wanted[0]}: can't be written ({error.strerror}). Give another --out.") from error
    finally:
        for stage in stages.values():
            shutil.rmtree(stage, ignore_errors=True)
        for folder in made if not done else ():
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
