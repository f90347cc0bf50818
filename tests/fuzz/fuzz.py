"""Throw mutants of models, artifacts, contracts, cases and feeds at what reads them: `make fuzz SECONDS=600`.

A mutant follows from the seed, its kind and its number alone, which are printed with each finding:
`python tests/fuzz/fuzz.py --again KIND NUMBER` makes and opens it once more, and shows the traceback.

A finding is anything but an answer or a refusal in one sentence: another exception, which the command line would call
a bug; no answer within the limit; a file that is new or gone afterwards, beside the mutant, in the current folder, at
home, among temporary files or among the seeds; or the end of a process that isn't a child of its own in the command
line, as that of an artifact's runtime is. One mutant in BY_COMMAND is given to the command line itself.
"""

import argparse
import contextlib
import io
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CASES = ("one_layer", "masked", "cells", "nested_twice")
LIMIT = 20.0
"""Seconds for one mutant."""
BY_COMMAND = 499
"""One mutant in so many is opened by the command line: no multiple of the number of kinds."""
COMMAND_LIMIT = 180.0
"""Seconds for one of these, which imports TensorFlow anew."""
OWN = frozenset({".cache", ".config", ".keras", ".ses"})
"""What Keras, Matplotlib and ONNX Runtime make at home and among temporary files when they are imported."""
MEMORY = 8 << 30
KEEP = 40
"""Findings that are kept as files."""
ODD: list[Any] = [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, 0.5, "", "x", "\x1b[2J", "a\nb", "../x", "é" * 300]
ODD += [[], {}, [[]], [None], {"class_name": "Dense"}, "batch", "time", "float32", "float64", "lstm", "relu", [1, 2, 3]]


# Mutations --------------------------------------------------------------------------------------------------------


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Change, cut, double or insert bytes in one to four places."""
    mutant = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutant) or 1)
        size = rng.choice((1, 1, 1, 2, 4, 8, 64))
        what = rng.randrange(6)
        if what == 0 and mutant:
            mutant[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            mutant[at : at + size] = rng.randbytes(size)
        elif what == 2:
            mutant[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif what == 3:
            del mutant[at : at + size]
        elif what == 4:
            mutant[at:at] = mutant[at : at + size]
        elif rng.random() < 0.2:
            del mutant[at:]
    return bytes(mutant)


def mutate_json(rng: random.Random, data: Any) -> Any:
    """Replace, remove, double or swap values in one to three places of a tree."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        waiting = [data]
        while waiting:
            node = waiting.pop()
            if isinstance(node, (dict, list)):
                keys = list(node) if isinstance(node, dict) else range(len(node))
                places += [(node, key) for key in keys]
                waiting += [node[key] for key in keys]
        if not places:
            return rng.choice(ODD)
        node, key = rng.choice(places)
        what = rng.randrange(8)
        if what < 3:
            node[key] = rng.choice(ODD)
        elif what == 3:
            del node[key]
        elif what == 4:
            other, place = rng.choice(places)
            if place in other if isinstance(other, dict) else place < len(other):
                node[key] = json.loads(json.dumps(other[place]))
        elif what == 5 and isinstance(node[key], (int, float)):
            node[key] = node[key] * rng.choice((-1, 2, 1000, 10**6, 10**9)) + rng.choice((0, 1, -1))
        elif what == 6 and isinstance(node, dict):
            node[rng.choice(("name", "dtype", "units", "x", "shape", "\x1b"))] = rng.choice(ODD)
        elif isinstance(node[key], str):
            node[key] = node[key][: rng.randrange(len(node[key]) + 1)] + rng.choice(("", "x", "\0", "/", "é"))
        else:
            node[key] = [node[key]] * rng.choice((0, 2, 3))
    return data


def to_json(rng: random.Random, text: str | bytes) -> bytes:
    """Mutate a JSON text as a tree, or now and then as bytes."""
    if rng.random() < 0.1:
        return mutate_bytes(rng, text if isinstance(text, bytes) else text.encode())
    return json.dumps(mutate_json(rng, json.loads(text))).encode()


# Kinds: each writes a mutant and returns how it is opened -----------------------------------------------------------

Open = Callable[[], object]


@dataclass(frozen=True)
class Kind:
    """One sort of mutant.

    Attributes:
        make: (rng, seeds, folder to write in) -> what opens it.
        guarded: Whether the command line opens it in a process of its own, which may crash.
    """

    make: Callable[[random.Random, Path, Path], Open]
    guarded: bool = False


def pick(rng: random.Random, folder: Path, pattern: str) -> Path:
    return rng.choice(sorted(folder.glob(pattern)))


def load_model(rng: random.Random, path: Path) -> Open:
    """Load a model; inspect one in ten of those that load."""
    inspect = rng.random() < 0.1

    def run() -> object:
        from exporter import tables
        from exporter.pipeline import load_model as load
        from exporter.pipeline import open_model

        loaded = load(path, 1.0)
        return tables.model_facts(open_model(loaded)) if inspect else None

    return run


def keras_config(rng: random.Random, seeds: Path, place: Path) -> Open:
    with zipfile.ZipFile(pick(rng, seeds, "*.keras")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = "metadata.json" if rng.random() < 0.05 else "config.json"
    members[name] = to_json(rng, members[name])
    return load_model(rng, write_zip(place / "model.keras", members))


def keras_weights(rng: random.Random, seeds: Path, place: Path) -> Open:
    with zipfile.ZipFile(pick(rng, seeds, "*.keras")) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] = mutate_bytes(rng, members["model.weights.h5"])
    return load_model(rng, write_zip(place / "model.keras", members))


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def keras_bytes(rng: random.Random, seeds: Path, place: Path) -> Open:
    (place / "model.keras").write_bytes(mutate_bytes(rng, pick(rng, seeds, "*.keras").read_bytes()))
    return load_model(rng, place / "model.keras")


def h5_bytes(rng: random.Random, seeds: Path, place: Path) -> Open:
    (place / "model.h5").write_bytes(mutate_bytes(rng, pick(rng, seeds, "*.h5").read_bytes()))
    return load_model(rng, place / "model.h5")


def h5_config(rng: random.Random, seeds: Path, place: Path) -> Open:
    import h5py

    content = io.BytesIO(pick(rng, seeds, "*.h5").read_bytes())
    with h5py.File(content, "r+") as file:
        file.attrs["model_config"] = to_json(rng, file.attrs["model_config"])
        for name in ("keras_version", "backend"):
            if rng.random() < 0.05:
                file.attrs[name] = rng.choice((7, "", "1.0", "2.0", "3.99", "theano", "\x1b", [1, 2]))
    (place / "model.h5").write_bytes(content.getvalue())
    return load_model(rng, place / "model.h5")


def h5_parts(rng: random.Random, seeds: Path, place: Path) -> Open:
    """Remove, replace or add groups, datasets and attributes."""
    import h5py
    import numpy as np

    content = io.BytesIO(pick(rng, seeds, "*.h5").read_bytes())
    with h5py.File(content, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(names)
            if name not in file:
                continue
            what = rng.randrange(4)
            if what < 2:
                del file[name]
            if what == 1:
                shape = rng.choice(((), (0,), (1,), (3, 4), (2, 2, 2), (100_000,)))
                file[name] = np.zeros(shape, rng.choice(("f4", "f8", "i4", "S3", "f2", "u1")))
            elif what == 2:
                attributes = file[name].attrs if len(file[name].attrs) else file.attrs
                if len(attributes):
                    attributes[rng.choice(sorted(attributes))] = rng.choice((7, "x", [b"x"], [b"a/b:0"] * 3, [1.5]))
            elif what == 3:
                file[f"{name} again"] = file[name]
    (place / "model.h5").write_bytes(content.getvalue())
    return load_model(rng, place / "model.h5")


def check_artifact(path: Path) -> Open:
    def run() -> object:
        import signatures
        from exporter import tables

        tables.contract_facts(signatures.read_contract(path), path)
        return signatures.check(signatures.open(path))

    return run


def tflite_bytes(rng: random.Random, seeds: Path, place: Path) -> Open:
    (place / "model.tflite").write_bytes(mutate_bytes(rng, pick(rng, seeds, "*.tflite").read_bytes()))
    return check_artifact(place / "model.tflite")


def tflite_contract(rng: random.Random, seeds: Path, place: Path) -> Open:
    """Put a mutated contract, no longer than the honest one, in its place."""
    content = pick(rng, seeds, "*.tflite").read_bytes()
    start = content.index(b'{"schema"')
    text = content[start:].decode(errors="replace")
    end = start + len(text[: json.JSONDecoder().raw_decode(text)[1]].encode())
    mutant = to_json(rng, content[start:end])
    if len(mutant) <= end - start:
        content = content[:start] + mutant.ljust(end - start) + content[end:]
    (place / "model.tflite").write_bytes(content)
    return check_artifact(place / "model.tflite")


def onnx_bytes(rng: random.Random, seeds: Path, place: Path) -> Open:
    (place / "model.onnx").write_bytes(mutate_bytes(rng, pick(rng, seeds, "*.onnx").read_bytes()))
    return check_artifact(place / "model.onnx")


def onnx_contract(rng: random.Random, seeds: Path, place: Path) -> Open:
    import onnx

    model = onnx.load(pick(rng, seeds, "*.onnx"))
    for entry in model.metadata_props:
        if entry.key == "export-lstm.contract":
            entry.value = to_json(rng, entry.value).decode(errors="replace")
    (place / "model.onnx").write_bytes(model.SerializeToString())
    return check_artifact(place / "model.onnx")


def saved_bytes(rng: random.Random, seeds: Path, place: Path) -> Open:
    """Change the bytes of one file, or take it away."""
    folder = Path(shutil.copytree(pick(rng, seeds, "*_savedmodel"), place / "saved"))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "contract" not in path.name)
    file = folder / "saved_model.pb" if rng.random() < 0.7 else rng.choice(files)
    if rng.random() < 0.03:
        file.unlink()
    else:
        file.write_bytes(mutate_bytes(rng, file.read_bytes()))
    return check_artifact(folder)


def saved_contract(rng: random.Random, seeds: Path, place: Path) -> Open:
    folder = Path(shutil.copytree(pick(rng, seeds, "*_savedmodel"), place / "saved"))
    contract = folder / "assets.extra" / "contract.json"
    contract.write_bytes(to_json(rng, contract.read_bytes()))
    return check_artifact(folder)


def contract_text(rng: random.Random, seeds: Path, place: Path) -> Open:
    text = to_json(rng, pick(rng, seeds, "*.contract.json").read_bytes())

    def run() -> object:
        from signatures import Contract

        made = Contract.from_json(text)
        return Contract.from_json(made.to_json()) == made

    return run


def case_parts(rng: random.Random, seeds: Path, place: Path) -> Open:
    """Mutate a case's recipe or one of its arrays, and compare an honest artifact with it."""
    name = rng.choice(CASES)
    folder = Path(shutil.copytree(ROOT / "golden" / name, place / "case"))
    if rng.random() < 0.4:
        (folder / "recipe.json").write_bytes(to_json(rng, (folder / "recipe.json").read_bytes()))
    else:
        file = rng.choice(sorted(folder.rglob("*.npy")))
        content = file.read_bytes()
        header = mutate_bytes(rng, content[:128]) if rng.random() < 0.7 else content[:128]
        file.write_bytes(header + (content[128:] if rng.random() < 0.7 else mutate_bytes(rng, content[128:])))
        if rng.random() < 0.1:
            file.rename(file.with_name(rng.choice(("x.npy", "nobody.npy", "é.npy", "a b.npy"))))

    def run() -> object:
        import signatures

        return signatures.check(signatures.open(seeds / f"{name}.onnx"), signatures.Case.load(folder))

    return run


def feeds(rng: random.Random, seeds: Path, place: Path) -> Open:
    import numpy as np

    content = io.BytesIO()
    save = np.savez if rng.random() < 0.5 else np.savez_compressed
    save(content, x=np.ones((2, 5, 3), np.float32), other=np.arange(6))
    (place / "feeds.npz").write_bytes(mutate_bytes(rng, content.getvalue()))

    def run() -> object:
        from exporter.cli import read_feeds

        return read_feeds(place / "feeds.npz")

    return run


KINDS = {
    "keras config": Kind(keras_config),
    "keras weights": Kind(keras_weights),
    "keras bytes": Kind(keras_bytes),
    "h5 config": Kind(h5_config),
    "h5 parts": Kind(h5_parts),
    "h5 bytes": Kind(h5_bytes),
    "tflite bytes": Kind(tflite_bytes, guarded=True),
    "tflite contract": Kind(tflite_contract, guarded=True),
    "onnx bytes": Kind(onnx_bytes, guarded=True),
    "onnx contract": Kind(onnx_contract, guarded=True),
    "savedmodel bytes": Kind(saved_bytes, guarded=True),
    "savedmodel contract": Kind(saved_contract, guarded=True),
    "contract": Kind(contract_text),
    "case": Kind(case_parts, guarded=True),
    "feeds": Kind(feeds),
}


# Running ------------------------------------------------------------------------------------------------------------


def open_mutant(seed: str, kind: str, number: int, seeds: Path, place: Path) -> tuple[str, str]:
    """Make a mutant and open it; return what came of it: answered, refused or a finding, and the text."""
    shutil.rmtree(place, ignore_errors=True)
    for name in ("mutant", "here", "home", "tmp"):
        (place / name).mkdir(parents=True)
    os.chdir(place / "here")
    os.environ.update(HOME=str(place / "home"), TMPDIR=str(place / "tmp"))
    tempfile.tempdir = None  # it is looked for anew
    rng = random.Random(f"{seed}/{kind}/{number}")
    try:
        run = KINDS[kind].make(rng, seeds, place / "mutant")
    except (ValueError, OSError, KeyError, TypeError, RuntimeError) as error:  # HDF5 holds no attribute of this size
        return "not made", str(error)
    before = listed(place, seeds)
    words = command(place / "mutant", seeds) if number % BY_COMMAND == 0 else None
    outcome, text = opened(run) if words is None else commanded(words)
    if words is not None:
        shutil.rmtree(place / "mutant" / "recorded", ignore_errors=True)
    after = listed(place, seeds)
    return (outcome, text) if after == before else ("a file", f"{sorted(after ^ before)}")


def listed(*folders: Path) -> set[Path]:
    """Return all that is in some folders but for what libraries keep for themselves."""
    return {
        path for folder in folders for path in folder.rglob("*") if not OWN.intersection(path.relative_to(folder).parts)
    }


def opened(run: Open) -> tuple[str, str]:
    """Open a mutant in this process."""
    from signatures.errors import ExportLSTMError

    try:
        run()
    except ExportLSTMError as error:
        text = str(error)
        if "This is a bug" in text:
            return "a bug", text
        return "refused" if text and "\n" not in text else "a text of several lines", text
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        return type(error).__name__, traceback.format_exc()
    return "answered", ""


def command(mutant: Path, seeds: Path) -> list[str] | None:
    """Return the words of a command line that opens a mutant; None for one that lies in no file."""
    for path in mutant.iterdir():
        if path.name == "case":
            return ["check", str(seeds / f"{CASES[0]}.onnx"), "--golden", str(path)]
        if path.name == "feeds.npz":
            return ["golden", str(seeds / f"{CASES[0]}.keras"), "-o", str(mutant / "recorded"), "--feeds", str(path)]
        return ["inspect" if path.suffix in (".keras", ".h5") else "check", str(path)]
    return None


def commanded(words: list[str]) -> tuple[str, str]:
    """Open a mutant by the command line, whose own process must neither crash nor show a traceback."""
    made = subprocess.run(
        [sys.executable, "-m", "exporter", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    if made.returncode not in (0, 1) or "Traceback" in made.stderr or "This is a bug" in made.stderr:
        return f"exit code {made.returncode} of the command line", f"{' '.join(words)}\n{made.stderr}"
    return ("answered", "") if made.returncode == 0 else ("refused", made.stderr)


def work(pipe: Any, seed: str, seeds: Path, place: Path) -> None:
    """Open mutants until the other end closes."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, limits[1]))
    warnings.simplefilter("ignore")
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    while True:
        try:
            kind, number = pipe.recv()
        except EOFError:
            return
        pipe.send(open_mutant(seed, kind, number, seeds, place))


class Hand:
    """A process that opens mutants; a new one takes its place when it ends."""

    def __init__(self, context: Any, seed: str, seeds: Path, place: Path) -> None:
        self.context, self.seed, self.seeds, self.place = context, seed, seeds, place
        self.start()

    def start(self) -> None:
        self.pipe, far = self.context.Pipe()
        self.process = self.context.Process(target=work, args=(far, self.seed, self.seeds, self.place), daemon=True)
        self.process.start()
        far.close()
        self.fresh = True

    def ask(self, kind: str, number: int) -> None:
        self.asked, self.since = (kind, number), time.monotonic()
        with contextlib.suppress(OSError):  # it has ended: `answer` tells
            self.pipe.send((kind, number))

    def answer(self) -> tuple[str, str] | None:
        """Return what came of the mutant, or None while it is being opened."""
        limit = LIMIT if self.asked[1] % BY_COMMAND else COMMAND_LIMIT
        limit += 30 if self.fresh else 0  # the first one imports
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll(0):
                self.fresh = False
                return self.pipe.recv()
            if self.process.is_alive() and time.monotonic() - self.since < limit:
                return None
        self.process.join(1)
        code = self.process.exitcode
        self.close()
        self.start()
        return ("no answer", f"in {limit:g} s") if code is None else ("crash", f"exit code {code}")

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def make_seeds(folder: Path) -> None:
    """Make honest models and artifacts to start from."""
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.ERROR)
    from exporter import export
    from exporter.read.loading import load

    for name in CASES:
        model = folder / f"{name}.keras"
        shutil.copy(ROOT / "golden" / name / "model.keras", model)
        load(model).model.save(folder / f"{name}.h5")
        export(model, "all", folder, check=False)
    for path in (ROOT / "tests" / "exporter" / "read" / "legacy").glob("*.h5"):
        shutil.copy(path, folder / f"old_{path.name}")


def tell(counts: dict[str, Counter[str]], took: Counter[str], seconds: float) -> None:
    """Print how many mutants of each kind there were, what came of them, and how long one took."""
    total = sum(sum(count.values()) for count in counts.values())
    print(f"\n{total:,} mutants in {seconds:.0f} s, {total / max(seconds, 1):.0f} a second", flush=True)
    for kind, count in counts.items():
        mean = 1000 * took[kind] / max(1, sum(count.values()))
        print(f"  {kind:20} {mean:5.0f} ms: " + ", ".join(f"{n:,} {outcome}" for outcome, n in count.most_common()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--only", default="", help="kinds that contain this")
    parser.add_argument("--again", nargs=2, metavar=("KIND", "NUMBER"), help="open one mutant once more")
    options = parser.parse_args()
    if not any(options.only in kind for kind in KINDS):
        parser.error(f"--only {options.only}: no kind has it in its name; there are {', '.join(KINDS)}")
    if options.again and options.again[0] not in KINDS:
        parser.error(f"--again {options.again[0]}: no such kind; there are {', '.join(KINDS)}")
    kept = ROOT / "build" / "fuzz"
    with tempfile.TemporaryDirectory() as temporary:
        seeds, places = Path(temporary, "seeds"), Path(temporary, "places")
        seeds.mkdir()
        print(f"seed {options.seed}; making models and artifacts to start from", flush=True)
        made = multiprocessing.get_context("spawn").Process(target=make_seeds, args=(seeds,))
        made.start()
        made.join()
        if made.exitcode:
            return 1
        if options.again:
            kind, number = options.again
            print(*open_mutant(options.seed, kind, int(number), seeds, places), sep="\n")
            return 0
        return fuzz(options, seeds, places, kept)


def fuzz(options: argparse.Namespace, seeds: Path, places: Path, kept: Path) -> int:
    """Open mutants of all kinds in turn for some time; return the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["exporter.pipeline", "exporter.cli", "exporter.model.survey", "exporter.tables", "exporter.read.keras2"]
        + ["signatures.runtimes.litert", "signatures.runtimes.ort", "signatures.runtimes.tensorflow", "onnx", "h5py"]
        + ["exporter.targets.tflite.write", "exporter.targets.onnx.write", "exporter.targets.savedmodel.write"]
    )
    kinds = [kind for kind in KINDS if options.only in kind]
    hands = [Hand(context, options.seed, seeds, places / str(k)) for k in range(os.cpu_count() or 1)]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    took: Counter[str] = Counter()
    findings, number, start, told = 0, 0, time.monotonic(), time.monotonic()

    def next_mutant() -> tuple[str, int]:
        nonlocal number
        number += 1
        return kinds[number % len(kinds)], number

    for hand in hands:
        hand.ask(*next_mutant())
    while time.monotonic() - start < options.seconds:
        idle = True
        for hand in hands:
            if (answer := hand.answer()) is None:
                continue
            idle = False
            kind, which = hand.asked
            outcome, text = answer
            counts[kind][outcome] += 1
            took[kind] += time.monotonic() - hand.since
            if outcome not in ("answered", "refused", "not made") and not (outcome == "crash" and KINDS[kind].guarded):
                findings += 1
                print(f"\n--again {kind!r} {which} --seed {options.seed}: {outcome}\n{text}", flush=True)
                if findings <= KEEP and hand.place.exists():
                    shutil.copytree(hand.place / "mutant", kept / f"{kind} {which}", dirs_exist_ok=True)
            hand.ask(*next_mutant())
        if idle:
            time.sleep(0.001)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            tell(counts, took, told - start)
    for hand in hands:
        hand.close()
    tell(counts, took, time.monotonic() - start)
    for kind in (kind for kind, outcomes in counts.items() if set(outcomes) == {"not made"}):
        findings += 1
        print(f"\n{kind}: none could be made")
    print(f"{findings} findings" + (f", the first {KEEP} in {kept}" if findings else ""))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
