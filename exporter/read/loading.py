"""Turn a `.keras` or `.h5` file into a Keras model, or refuse it in a sentence; the only reader of such files.

Everything a file claims (archive members, configuration, HDF5 structure) is checked before Keras builds anything from
it, because the file may come from a stranger. Nothing is extracted to disk here, no custom class is imported, and the
training configuration is left alone. What Keras 2 wrote is then translated by `exporter/read/keras2.py`. Importing this
module imports neither Keras nor TensorFlow nor h5py.
"""

import atexit
import hashlib
import importlib
import io
import json
import math
import os
import re
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from signatures import files
from signatures.errors import ExportLSTMError, LoadError, UnsafeModel

from .. import child
from . import budget

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
WAKING = 120.0  # seconds that the process which reads files may take to start
LOOK = 20.0  # and to read a file
LOOK_BYTES = 20e6  # for so many bytes one more
MAX_BYTES = 4 << 30  # of the file, of all archive members, of all HDF5 datasets
MAX_CONFIG_BYTES = 64 << 20  # room for a vocabulary of a million words
MAX_EXPANSION = 200  # declared against stored bytes, above EXPANSION_FLOOR; Keras itself stores uncompressed
EXPANSION_FLOOR = 100 << 20
MAX_PACKED = 20  # as far as packed arrays count as stored when layers are held against them
# Honest models of some thousand layers have a tenth of these.
MAX_MEMBERS = 10_000  # of an archive
MAX_OBJECTS = 30_000  # groups and datasets of an HDF5 file
MAX_BRACKETS = 300_000  # dicts and lists of a configuration
MAX_COMMAS = 4_000_000
MAX_DEPTH = 100  # groups in groups, or dicts and lists in each other; a nested model takes four
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})  # of HDF5 and h5py themselves, as gzip and LZF; others load a plug-in

CODE_LAYERS = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
# Values, not objects: Keras turns these entries into tensors, tuples and slices without looking up a class.
PLAIN_VALUES = frozenset(
    {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
    | {"__tuple__", "TensorShape"}  # in .h5 files only
)
PATH_KEYS = frozenset({"vocabulary", "idf_weights", "filepath", "file_path", "path", "url"})
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# The bases of everything that a model's configuration may hold; `keras` has much else, such as downloaders.
MODEL_PARTS = (
    *("keras.Operation", "keras.Initializer", "keras.Regularizer", "keras.constraints.Constraint", "keras.Optimizer"),
    *("keras.DTypePolicy", "keras.dtype_policies.DTypePolicyMap", "keras.Quantizer", "keras.random.SeedGenerator"),
    *("keras.quantizers.QuantizationConfig", "keras.optimizers.schedules.LearningRateSchedule"),
    *("keras.Loss", "keras.Metric"),
)
FUNCTION_HOMES = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")
# Where an entry without a module, as legacy .h5 files have them, may come from.
CLASS_HOMES = ("layers", "src.models", "initializers", "regularizers", "constraints", "dtype_policies", "optimizers")
ANOTHER = "Copy the file again from where it came from, or save the model again with model.save."
WEIGHTS_ONLY = (
    "only weights, no architecture. Build the model by its author's program, load the weights into it and pass the "
    "model: exporter.export(model, ...); or have its author save the whole model with model.save('name.keras')."
)
PASS_IN_MEMORY = "If you trust the file, load it yourself in Python and pass the model: exporter.export(model, ...)."


@dataclass(frozen=True)
class Loaded:
    """A model and the file it came from.

    Args:
        model: keras.Model, not compiled.
        name: The file's name without its suffix.
        sha256: Of the file's bytes, in hex; None for a model that came from no file.
    """

    model: Any
    name: str
    sha256: str | None


@dataclass(frozen=True)
class Checked:
    """A file that was looked at.

    Args:
        config: The model's configuration.
        version: Of the Keras that wrote it, "" where it doesn't say.
        stored: Bytes of all its arrays.
    """

    config: dict[str, Any]
    version: str
    stored: int


def load(path: str | Path, max_memory: float = budget.MAX_MEMORY) -> Loaded:
    """Load a whole model saved by Keras 3 as `.keras`, `.h5` or `.hdf5`, or by Keras 2 or tf.keras as `.h5`.

    Args:
        path: The file.
        max_memory: GB that the weights, or one tensor of a call of 200 time steps, may take.

    Raises:
        LoadError: When the file is missing, damaged, oversized, or holds no whole Keras model.
        UnsafeModel: When loading would run code or read files of the file author's choosing, or needs classes that
            are not part of Keras and not registered in this program.
    """
    path = Path(path)
    check_path(path)
    with _named(str(path)):
        _LOOKOUT.look(path)
        checked = _read(path)
        _check_content(checked.config)
        budget.check_declared(_walk(checked.config), checked.stored)
        with _damaged("the file"), path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    keras = require_keras()
    with _named(str(path)):
        if path.suffix != ".keras" and checked.version.split(".")[0] in ("", "1", "2"):
            model = _load_legacy(keras, checked, path, max_memory)
        else:
            _check_classes(keras, checked.config, path)
            load_model = partial(keras.saving.load_model, str(path), compile=False, safe_mode=True)
            model = _built(keras, checked, max_memory, load_model, f"{path} holds")
    return Loaded(model, path.stem, sha256)


class _Lookout:
    """A process that reads files before this one does: HDF5's library may crash or never end on damaged bytes.

    It is started by the first file and kept, as starting takes longer than looking.
    """

    def __init__(self) -> None:
        self._child: child.Child | None = None
        self._owner = 0
        self._one = threading.Lock()

    def look(self, path: Path) -> None:
        """Refuse a file that can't be read in time and memory, and whatever `_read_all` refuses."""
        with self._one:
            for again in (True, False):
                try:
                    self._ask(path)
                    return
                except child.Lost as lost:
                    self.end()
                    # It ends with the thread that started it: what counts is how a new one ends.
                    if isinstance(lost, child.TooLong) or not again:
                        raise LoadError(
                            f"{path} can't be read: what reads it {lost}. If that is not the machine's fault: {ANOTHER}"
                        ) from None

    def _ask(self, path: Path) -> None:
        """Have the file read, and raise what that raises."""
        limit = LOOK + path.stat().st_size / LOOK_BYTES
        try:
            reader = self.start()
            reader.ask(_read_all, path.absolute())
            reader.answer(limit=limit, memory=child.MEMORY)
        except child.Surprise:
            pass  # what it is will show in this process too, and is told there
        except child.Lost:
            raise
        except ExportLSTMError as error:
            raise type(error)(str(error).replace(str(path.absolute()), str(path))) from None
        except BaseException:
            self.end()  # its answer is still to come
            raise

    def start(self) -> child.Child:
        """Return the process, a new one if there is none, or it is that of the process this one was forked from."""
        if self._child is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._child = child.Child()
            atexit.register(self.end)
            self._child.ask(_wake)
            self._child.answer(limit=WAKING)
        return self._child

    def end(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            if self._owner == os.getpid():
                self._child.close()
            self._child = None
            atexit.unregister(self.end)


_LOOKOUT = _Lookout()


def _wake() -> None:
    """Import what takes long, so that its time isn't the first file's."""
    importlib.import_module("h5py")


def _read_all(path: Path) -> None:
    """Check a file and read every array of it."""
    import h5py

    _read(path)
    file: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read("model.weights.h5"))
    with _damaged("the weights"), h5py.File(file, "r") as weights:
        weights.visititems(lambda _, item: item[()] is None if isinstance(item, h5py.Dataset) else None)


def require_keras() -> Any:
    """Import Keras on its TensorFlow backend and return the module.

    Raises:
        LoadError: When Keras or TensorFlow is missing, Keras is too old, or runs on another backend already.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        keras: Any = importlib.import_module("keras")
    except ImportError as error:
        raise LoadError(
            f"Keras on TensorFlow can't be imported ({_first_line(error)}): pip install 'keras==3.15.*' tensorflow."
        ) from error
    if (backend := keras.config.backend()) != "tensorflow":
        raise LoadError(
            f"Keras is already imported with the {backend} backend; the export needs TensorFlow. "
            "Set KERAS_BACKEND=tensorflow before importing keras: files trained on any backend load."
        )
    version = tuple(int(number) for number in re.findall(r"\d+", keras.__version__)[:3])
    if version < (3, 15):
        raise LoadError(
            f"Keras {keras.__version__} is installed, which has known holes in loading files; "
            "3.15 is needed: pip install 'keras==3.15.*'."
        )
    return keras


def _first_line(error: BaseException) -> str:
    """Say what an exception says, in one line of at most 300 characters."""
    text = str(error).rsplit("Exception encountered:", 1)[-1].split("Full object config", 1)[0]
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Say of which file something is refused inside, unless that begins with it."""
    try:
        yield
    except LoadError as error:
        text = str(error)
        if not text.startswith(file):
            text = f"{file}: {' '.join(text.split())}"  # names out of the file may have line breaks
        raise type(error)(text) from error


@contextmanager
def _damaged(what: str) -> Iterator[None]:
    """Turn whatever a parser raises on bad bytes into a LoadError."""
    try:
        yield
    except LoadError:
        raise
    except PermissionError as error:
        raise LoadError(f"{what} can't be read ({error.strerror}).") from error
    except Exception as error:
        reason = _first_line(error)
        raise LoadError(f"{what} can't be read, it may be truncated or damaged ({reason}). {ANOTHER}") from error


def check_path(path: Path) -> None:
    """Refuse what is not one non-empty file with a suffix that says how to read it; nothing heavy is imported.

    Raises:
        LoadError: Saying what is accepted.
    """
    found = files.kind(path)
    if found == "a folder":
        found = "a SavedModel folder" if (path / "saved_model.pb").exists() else found
        raise LoadError(f"{path} is {found}; the export needs the original .keras file, written by model.save.")
    if found is None:
        raise LoadError(f"{path} does not exist; give the .keras file written by model.save.")
    if path.suffix not in MODEL_SUFFIXES:
        accepted = ", ".join(MODEL_SUFFIXES)
        raise LoadError(f"{path} has the suffix {path.suffix!r}; accepted are {accepted}. {PASS_IN_MEMORY}")
    try:
        size = files.look(path, MAX_BYTES)
    except ValueError as error:
        raise LoadError(f"{path}: {error}. Give the .keras file written by model.save.") from None
    if not size:
        raise LoadError(f"{path} is empty. {ANOTHER}")


def _check_size(declared: int, stored: int, what: str) -> None:
    """Refuse what would take more memory than a model may, or far more than it takes on disk."""
    if declared > MAX_BYTES:
        raise LoadError(f"{what} declares {declared:,} bytes; at most {MAX_BYTES:,} are accepted.")
    if declared > EXPANSION_FLOOR and declared > MAX_EXPANSION * stored:
        raise LoadError(
            f"{what} declares {declared:,} bytes but stores {stored:,}, which would exhaust memory; "
            f"at most {MAX_EXPANSION} times what is stored is accepted. {ANOTHER}"
        )


def _read(path: Path) -> Checked:
    """Check a file as far as can be done without Keras."""
    return _read_keras(path) if path.suffix == ".keras" else _read_h5(path)


def _read_keras(path: Path) -> Checked:
    """Check a `.keras` archive."""
    import h5py

    if not zipfile.is_zipfile(path):
        if h5py.is_hdf5(path):
            raise LoadError(f"{path} is an HDF5 file, not a .keras archive; rename it to {path.stem}.h5.")
        raise LoadError(f"{path} is not a .keras archive (a zip file), or is truncated. {ANOTHER}")
    with _damaged("the archive"):
        with files.Listing(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            _check_members(archive, path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            config = _parse_config(archive.read("config.json"))
            metadata = {}
            if "metadata.json" in archive.namelist():
                metadata = _parse(archive.read("metadata.json"), "metadata.json")
            weights = io.BytesIO(archive.read("model.weights.h5"))
    with _damaged("model.weights.h5"), h5py.File(weights, "r") as file:
        stored = _check_hdf5(file)
    return Checked(config, str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else "", stored)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse members that are missing, doubled, bombs, packed in an unusual way, or named to land elsewhere."""
    members, names = archive.infolist(), archive.namelist()
    if len(members) > MAX_MEMBERS:
        raise LoadError(f"the archive holds {len(members):,} members; at most {MAX_MEMBERS:,} are accepted.")
    for name in names:
        if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in name.split("/"):
            raise UnsafeModel(f"the member {name!r} points outside the archive. {PASS_IN_MEMORY}")
    if len(set(names)) < len(names):
        raise LoadError(f"the archive holds two members of one name. {ANOTHER}")
    for member in members:
        if member.compress_type not in COMPRESSIONS or member.flag_bits & 1:
            raise LoadError(
                f"the member {member.filename!r} is encrypted, or packed in a way that Keras never uses. {ANOTHER}"
            )
    for member in members:
        _check_size(member.file_size, member.compress_size, f"the member {member.filename!r}")
    _check_size(sum(member.file_size for member in members), size, "the archive")
    if "config.json" not in names:
        found = WEIGHTS_ONLY if "model.weights.h5" in names else f"no config.json. {ANOTHER}"
        raise LoadError(f"the archive holds {found}")
    if "model.weights.h5" not in names:
        raise LoadError(f"the archive holds no model.weights.h5. {ANOTHER}")
    for member in members:
        if member.filename.endswith(".json") and member.file_size > MAX_CONFIG_BYTES:
            raise LoadError(f"{member.filename} is larger than the {MAX_CONFIG_BYTES:,} bytes accepted.")


def _read_h5(path: Path) -> Checked:
    """Check a whole-model HDF5 file."""
    import h5py

    if not h5py.is_hdf5(path):
        hint = f"; it is a zip, rename it to {path.stem}.keras" if zipfile.is_zipfile(path) else ""
        raise LoadError(f"{path} is not an HDF5 file{hint}. Accepted are whole models written by model.save.")
    with _damaged("the HDF5 file"), h5py.File(path, "r") as file:
        stored = _check_hdf5(file)
        if isinstance(file.get("model_weights"), h5py.Dataset):  # Keras would look for names in it, value by value
            raise LoadError(f"'model_weights' in it is an array, not a group of them. {ANOTHER}")
        text, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "")
    if text is None:
        raise LoadError(f"{path} holds {WEIGHTS_ONLY}")
    return Checked(_parse_config(text), version.decode() if isinstance(version, bytes) else str(version), stored)


def _parse_config(text: Any) -> Any:
    """Parse the JSON of a model's configuration; refuse what describes no object."""
    if not isinstance(text, (str, bytes)) or len(text) > MAX_CONFIG_BYTES:
        raise LoadError(f"the model's configuration is not a text of at most {MAX_CONFIG_BYTES:,} bytes.")
    config = _parse(text, "the model's configuration")
    if not isinstance(config, dict) or not {"class_name", "config"} <= config.keys():
        raise LoadError(f"the model's configuration describes no Keras model. {ANOTHER}")
    return config


def _parse(text: str | bytes, what: str) -> Any:
    """Parse JSON that makes no more objects than an honest file does."""
    # Bytes that are no text come from h5py as surrogates; json refuses them.
    content = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    for count, most in ((content.count(b"{") + content.count(b"["), MAX_BRACKETS), (content.count(b","), MAX_COMMAS)):
        if count > most:
            raise LoadError(f"{what} has {count:,} parts; at most {most:,} are accepted.")
    with _damaged(what):
        return json.loads(content)


def _check_hdf5(file: Any) -> int:
    """Refuse HDF5 content that lies in other files or is swollen, else return the bytes of what it stores."""
    import h5py

    total, counted, count, seen = 0, 0, 0, set()
    groups = [(file, 0)]
    while groups:
        group, depth = groups.pop()
        count += len(group)
        if count > MAX_OBJECTS or depth > MAX_DEPTH:
            raise LoadError(
                f"the HDF5 content has over {MAX_OBJECTS:,} parts, or is over {MAX_DEPTH} deep; "
                "no model of Keras is like that."
            )
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise UnsafeModel(f"{where} is a {type(link).__name__} to other data. {PASS_IN_MEMORY}")
            item = group[name]
            if (address := h5py.h5o.get_info(item.id).addr) in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append((item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                declared, stored = _check_dataset(item, where)
                total, counted = total + declared, counted + stored
    _check_size(total, total, "the weights")
    return counted


def _check_dataset(dataset: Any, where: str) -> tuple[int, int]:
    """Refuse a dataset stored in other files or swollen, else return the bytes it declares, and those that count."""
    if dataset.external or dataset.is_virtual:
        kind = "external storage" if dataset.external else "a virtual dataset"
        raise UnsafeModel(f"{where} is {kind}, which reads other files. {PASS_IN_MEMORY}")
    made = dataset.id.get_create_plist()
    if others := {made.get_filter(k)[0] for k in range(made.get_nfilters())} - FILTERS:
        raise UnsafeModel(f"{where} is packed by the HDF5 plug-in {min(others)}. {PASS_IN_MEMORY}")
    declared: int = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    _check_size(declared, stored, f"the dataset {where}")
    return declared, min(declared, MAX_PACKED * stored)


def _check_content(config: dict[str, Any]) -> None:
    """Refuse a configuration that names files or addresses to read from, or holds code; lists of words are data."""
    for entry, layer in _walk(config):
        for key, value in entry.items():
            if isinstance(value, str) and (key in PATH_KEYS or URL.match(value)):
                raise UnsafeModel(
                    f"{layer} would read {key}={value[:100]!r}, a file of its author's choosing; "
                    f"only values inside the model are accepted. {PASS_IN_MEMORY}"
                )
        name = entry.get("class_name")
        if name in CODE_LAYERS or name == "__lambda__":
            kind = "holds the bytecode of a Python function" if name == "__lambda__" else f"is a {name} layer"
            raise UnsafeModel(
                f"{layer} {kind}, which would run code of the file's author. "
                f"Replace it by a built-in layer, keras.ops or a Layer subclass. {PASS_IN_MEMORY}"
            )


def _check_classes(keras: Any, config: dict[str, Any], path: Path) -> None:
    """Refuse a configuration that holds classes or functions neither of Keras nor registered in this program."""
    for entry, layer in _walk(config):
        if "class_name" not in entry:
            continue
        name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
        kind = "function" if name == "function" else "class"
        if kind == "function":
            name = registered = entry.get("config")
        if isinstance(name, str) and isinstance(registered, str | None) and isinstance(module, str | None):
            if name in PLAIN_VALUES or keras.saving.get_registered_object(registered or name) is not None:
                continue
            if ">" not in (registered or "") and _is_builtin(keras, kind, module, name):
                continue
        source = f"of module {module!r}" if module and module != "builtins" else "without a module"
        format_hint = "" if path.suffix == ".keras" or module else ".h5 files can't hold keras.ops; save as .keras. "
        raise UnsafeModel(
            f"{layer} uses the {kind} {name!r} {source}; it is not part of Keras {keras.__version__} and not "
            f"registered in this program. {format_hint}Load the file in Python with custom_objects and pass the model: "
            "exporter.export(model, ...)."
        )


def _walk(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every dict of a configuration with the layer it belongs to, as messages name it."""
    # Keras drops the outermost compile_config under compile=False, so a custom loss there does no harm.
    nodes: list[tuple[Any, str, int]] = [({**config, "compile_config": None}, "the model", 0)]
    while nodes:
        node, layer, depth = nodes.pop()
        if depth > MAX_DEPTH:
            raise LoadError(f"{layer}: its configuration is over {MAX_DEPTH} deep; no model of Keras is like that.")
        if isinstance(node, dict):
            inner = node.get("config")
            if "class_name" in node and isinstance(inner, dict) and isinstance(inner.get("name"), str):
                layer = f"layer {inner['name']!r}"
            yield node, layer
            nodes.extend((value, layer, depth + 1) for value in node.values())
        elif isinstance(node, list):
            nodes.extend((value, layer, depth + 1) for value in node)


def _is_builtin(keras: Any, kind: str, module: str | None, name: str) -> bool:
    """Tell whether Keras itself defines this class or function as a part of models."""
    if kind == "function":
        inside = module is None or module == "builtins"
        homes = [f"keras.{home}" for home in FUNCTION_HOMES if inside or module == f"keras.{home}"]
        return any(callable(_find(keras, home, name)) for home in homes)
    parts = tuple(filter(None, (_find(keras, *base.rsplit(".", 1)) for base in MODEL_PARTS)))
    code = tuple(filter(None, (_find(keras, "keras.layers", layer) for layer in CODE_LAYERS)))
    found = [_find(keras, home, name) for home in ([module] if module else [f"keras.{home}" for home in CLASS_HOMES])]
    return any(isinstance(cls, type) and issubclass(cls, parts) and not issubclass(cls, code) for cls in found)


def _find(keras: Any, module: str, name: str) -> Any:
    """Look a name up in `keras` or a module below it without importing anything; None when it is not there."""
    first, *rest = module.split(".")
    found = keras if first == "keras" else None
    for part in (*rest, name):
        found = getattr(found, part, None)
    return found


def _load_legacy(keras: Any, checked: Checked, path: Path, max_memory: float) -> Any:
    """Translate the configuration of a checked Keras 2 file, build it in Keras 3 and set its weights."""
    import h5py

    from . import keras2

    with _damaged("the configuration of Keras 2"), _named(f"{path}, saved by Keras 2"):
        translated = keras2.translate(checked.config)
    _check_content(translated)
    _check_classes(keras, translated, path)
    make = partial(keras.saving.deserialize_keras_object, translated, safe_mode=True)
    model = _built(keras, checked, max_memory, make, f"{path}, saved by Keras 2: it holds")
    with _damaged("the weights"), h5py.File(path, "r") as file, _named(f"{path}, saved by Keras 2"):
        keras2.load_weights(model, checked.config, file)
    return model


def _built(keras: Any, checked: Checked, max_memory: float, make: Callable[[], Any], holds: str) -> Any:
    """Let Keras make a checked file's model, quietly and within its budget; say what it refuses, and what is none."""
    try:
        with warnings.catch_warnings(), budget.held_to(keras, checked.stored, max_memory):
            warnings.simplefilter("ignore")
            model = make()
            budget.run_shapes(keras, model)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(
            f"Keras {keras.__version__} can't load it ({_first_line(error)}). "
            "If it loads in your program, pass the model from there: exporter.export(model, ...)."
        ) from error
    if not isinstance(model, keras.Model):
        raise LoadError(f"{holds} a {type(model).__name__}, not a keras.Model; save a whole model.")
    return model
