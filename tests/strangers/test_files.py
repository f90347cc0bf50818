"""Files that aren't what they seem, or that declare far more than they hold, are refused early and in little memory."""

import inspect
import json
import os
import re
import subprocess
import sys
import threading
import zipfile

import h5py
import numpy as np
import pytest

from exporter.read import budget, loading
from exporter.read.budget import LEAST
from exporter.read.loading import load
from signatures.errors import LoadError

KINDS = (".keras", ".h5", "old.h5")

# What is at the path ----------------------------------------------------------------------------------------------


def sparse(path, size):
    with path.open("wb") as file:
        file.truncate(size)


NO_FILES = {
    "a pipe": (os.mkfifo, "a named pipe, not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
    "a folder": (lambda path: path.mkdir(), "a folder"),
    "a link to itself": (lambda path: path.symlink_to(path), "does not exist"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "6 GB of nothing": (lambda path: sparse(path, 6 << 30), "at most 4,294,967,296 are accepted"),
    "3 GB of nothing": (lambda path: sparse(path, 3 << 30), "is not a"),
    "nothing": (lambda path: path.touch(), "is empty"),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_file(tmp_path, refused, case, suffix):
    create, words = NO_FILES[case]
    create(tmp_path / f"model{suffix}")
    assert words in refused(tmp_path / f"model{suffix}")


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "\x1b[2J", "a\nb"])
def test_a_name_that_no_file_has(tmp_path, refused, name):
    path = tmp_path / f"{name}.keras"
    if "\n" in name:
        path = tmp_path / "ab.keras"
    assert "does not exist" in refused(path)


# Archives ---------------------------------------------------------------------------------------------------------


def rewrite(path, change):
    """Change the bytes of a file."""
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def listing(content):
    """Return where the list of members starts."""
    end = content.rindex(b"PK\5\6")
    return int.from_bytes(content[end + 16 : end + 20], "little")


def encrypt(content):
    content[listing(content) + 8] |= 1


def repack(method):
    def change(content):
        content[listing(content) + 10] = method

    return change


def list_many(count):
    """List a member of its own name for each of `count`, all of them the first one's bytes."""

    def change(content):
        start, end = listing(content), content.rindex(b"PK\5\6")
        entry, tail = content[start : start + 46], content[end:]
        entry[28:34] = (7).to_bytes(2, "little") + bytes(4)  # the length of its name, nothing else
        entries = b"".join(bytes(entry) + f"{number:07}".encode() for number in range(count))
        tail[8:12] = min(count, 0xFFFF).to_bytes(2, "little") * 2
        tail[12:16] = len(entries).to_bytes(4, "little")
        content[start:] = entries + tail

    return change


def swell_listing(content):
    end = content.rindex(b"PK\5\6")
    content[end + 12 : end + 16] = (len(content) * 2).to_bytes(4, "little")


def lie_about_size(content):
    at = listing(content)
    content[at + 24 : at + 28] = (0xFFFFFF00).to_bytes(4, "little")


def add(name, content=b"x", compression=zipfile.ZIP_DEFLATED):
    def change(path):
        with zipfile.ZipFile(path, "a", compression) as archive:
            archive.writestr(name, content)

    return change


def bomb(path):
    add("assets/zeros", bytes(loading.EXPANSION_FLOOR + 1))(path)


def double(path):
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")


def link(path):
    """A member that unpacks to a link: nothing is unpacked to disk, and as a configuration it is no JSON."""
    members = zipfile.ZipFile(path)
    others = {name: members.read(name) for name in members.namelist() if name != "config.json"}
    member = zipfile.ZipInfo("config.json")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "/etc/passwd")
        for name, content in others.items():
            archive.writestr(name, content)


ARCHIVES = {
    "a member above": (add("../outside"), "outside the archive"),
    "a member at the root": (add("/etc/outside"), "outside the archive"),
    "a member above, deeper": (add("assets/a/../../../outside"), "outside the archive"),
    "a member in the words of Windows": (add("assets\\..\\outside"), "outside the archive"),
    "a member on a drive": (add("C:outside"), "outside the archive"),
    "two members of one name": (double, "two members of one name"),
    "a bomb": (bomb, "would exhaust memory"),
    "a link": (link, "can't be read"),
    "200,000 members": (lambda path: rewrite(path, list_many(200_000)), "list of members"),
    "20,000 members": (lambda path: rewrite(path, list_many(20_000)), "at most 10,000"),
    "an encrypted member": (lambda path: rewrite(path, encrypt), "encrypted"),
    "a member packed by LZMA": (lambda path: rewrite(path, repack(14)), "packed in a way that Keras never uses"),
    "a member packed by nobody": (lambda path: rewrite(path, repack(99)), "packed in a way that Keras never uses"),
    "a listing longer than the file": (lambda path: rewrite(path, swell_listing), "archive"),
    "a member of 4 GB": (lambda path: rewrite(path, lie_about_size), "would exhaust memory"),
    "no configuration": (lambda path: write_only(path, "model.weights.h5"), "only weights, no architecture"),
    "no weights": (lambda path: write_only(path, "config.json"), "no model.weights.h5"),
    "no members": (lambda path: write_only(path), "no config.json"),
}


def write_only(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive(make, refused, case):
    spoil, words = ARCHIVES[case]
    path = make(".keras")
    spoil(path)
    assert words in refused(path)


def test_a_compressed_configuration_is_held_to_the_same_limit(make, refused, base):
    path = make(".keras")
    members = {**base.members, "config.json": b'{"a": "' + b" " * (65 << 20) + b'"}'}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "config.json is larger than" in refused(path)


# HDF5 -------------------------------------------------------------------------------------------------------------


def link_outside(file):
    file["stolen"] = h5py.ExternalLink("/etc/hostname", "/x")


def link_softly(file):
    file.create_group("a")["b"] = h5py.SoftLink("/elsewhere")


def store_outside(file):
    file.create_dataset("a/stolen", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def make_virtual(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("stolen", layout)


def link_in_place_of_weights(file):
    where = next(name for name in walk(file) if name.endswith(("kernel", "0", "kernel:0")))
    del file[where]
    file[where] = h5py.ExternalLink("/etc/hostname", "/x")


def walk(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def declare(shape, chunk=8):
    def swell(file):
        file.create_dataset("big", shape, "u1", chunks=(chunk,) * len(shape))

    return swell


def many_large(file):
    for number in range(50):
        file.create_dataset(f"big{number}", (loading.EXPANSION_FLOOR,), "u1", chunks=(1024,))


def pack_well(file):
    file.create_dataset("big", data=np.zeros(256 << 20, "u1"), chunks=(1 << 20,), compression="gzip", shuffle=True)


def many_groups(file, count=40_000):
    group = file.create_group("g")
    for number in range(count):
        group[str(number)] = file  # a link is made sooner than a group


def deep_groups(file):
    file.create_group("g/" * 2000)


def plug_in(file):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((4,))
    made.set_filter(307, h5py.h5z.FLAG_OPTIONAL, (1,))  # bzip2's number, which no HDF5 has by itself
    h5py.h5d.create(file.id, b"packed", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((8,)), made)


HDF5 = {
    "a link to another file": (link_outside, "is a ExternalLink"),
    "a link in place of a weight": (link_in_place_of_weights, "is a ExternalLink"),
    "a soft link": (link_softly, "is a SoftLink"),
    "data in another file": (store_outside, "is external storage"),
    "a view of another file": (make_virtual, "is a virtual dataset"),
    "a plug-in": (plug_in, "packed by the HDF5 plug-in 307"),
    "a terabyte": (declare((2**40,)), "at most 4,294,967,296"),
    "2**80 bytes": (declare((2**20,) * 4), "at most 4,294,967,296"),
    "256 MB of nothing": (declare((2**28,)), "stores 0"),
    "5 GB in parts": (many_large, "at most 4,294,967,296"),
    "256 MB packed into little": (pack_well, "would exhaust memory"),
    "40,000 groups": (many_groups, "over 30,000 parts"),
    "2,000 groups in each other": (deep_groups, "over 100 deep"),
}


@pytest.mark.parametrize("kind", [".keras", ".h5"])
@pytest.mark.parametrize("case", HDF5)
def test_hdf5(make, refused, case, kind):
    change, words = HDF5[case]
    assert words in refused(make(kind, change_hdf5=change))


def test_files_are_loaded_in_any_thread(make):
    """The process that reads them first ends with the thread that started it."""
    loading._LOOKOUT.end()
    path, loaded = make(".keras"), []
    for _ in range(2):
        thread = threading.Thread(target=lambda: loaded.append(load(path)))
        thread.start()
        thread.join()
    load(path)
    assert len(loaded) == 2
    loading._LOOKOUT.end()  # the end of the last thread may still reach it


@pytest.mark.parametrize("kind", [".h5", "old.h5"])
@pytest.mark.parametrize("group", ["model_weights", "model_weights/memory", "model_weights/top_level_model_weights"])
def test_an_array_in_place_of_a_group(make, refused, kind, group):
    """Looking for a name in it would read it value by value, for a minute."""

    def change(file):
        del file[group]
        file[group] = np.zeros(200_000)

    message = refused(make(kind, change_hdf5=change))
    assert "is an array, not a group" in message or (kind == ".h5" and "can't load it" in message)


def test_what_never_ends_is_ended(make, refused, monkeypatch):
    """HDF5's library loops on some damaged files; here looking takes longer than it may."""
    monkeypatch.setattr(loading, "LOOK", 0.0)
    monkeypatch.setattr(loading, "LOOK_BYTES", 1e12)
    many = make(".h5", change_hdf5=lambda file: many_groups(file, 20_000))
    assert "can't be read: what reads it gave no answer within" in refused(many)
    monkeypatch.undo()
    load(make(".h5"))  # by a process anew


def test_a_group_that_holds_itself_is_read_once(make):
    load(make(".h5", change_hdf5=lambda file: file.__setitem__("again", file["/"])))


@pytest.mark.parametrize("value", [np.arange(5), 7, np.void(b"x"), h5py.Empty("f4"), "", "null", np.array(["{}"], "S")])
def test_a_configuration_that_is_no_text(make, refused, value):
    def change(file):
        file.attrs["model_config"] = value

    path = make(".h5")
    with h5py.File(path, "r+") as file:
        change(file)
    assert "configuration" in refused(path)


# Configurations -----------------------------------------------------------------------------------------------------

TEXTS = {
    "60 MB of lists in lists": "[" * (60 << 20),
    "60 MB of objects in objects": '{"a":' * (12 << 20),
    "60 MB of small objects": '{"class_name": "Sequential", "config": [' + "{}," * (20 << 20) + "{}]}",
    "60 MB of numbers": '{"class_name": "Sequential", "config": [' + "1," * (30 << 20) + "1]}",
    "a million small layers": json.dumps({"class_name": "Sequential", "config": [{"class_name": "Dense"}] * 1_000_000}),
    "a number of 10,000 digits": '{"class_name": "Sequential", "config": ' + "9" * 10_000 + "}",
    "100,000 lists in lists": '{"class_name": "Sequential", "config": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "bytes that are no text": "\ud800",
    "nothing": "",
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_text(make, refused, base, case):
    path = make(".keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in base.members.items():
            archive.writestr(name, TEXTS[case].encode(errors="surrogatepass") if name == "config.json" else content)
    assert "configuration" in refused(path)


@pytest.mark.parametrize("case", ["a million small layers", "60 MB of lists in lists"])
def test_a_text_in_hdf5(make, refused, case):
    assert "configuration" in refused(make(".h5", text=TEXTS[case][: 40 << 20]))


def nested(depth):
    """Return a model in a model, `depth` deep."""

    def change(config):
        inner = config
        for number in range(depth):
            inner = {
                "module": "keras",
                "class_name": "Sequential",
                "config": {"name": f"m{number}", "layers": [inner]},
            }
        return inner

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [40, 200])
def test_models_in_models(make, refused, kind, depth):
    assert "over 100 deep" in refused(make(kind, nested(depth)))


# What is declared ---------------------------------------------------------------------------------------------------


def layer(name, **options):
    """Put a layer before the recurrent one."""

    def change(config):
        made = {"module": "keras.layers", "class_name": name, "config": {"name": "large", **options}}
        config["config"]["layers"].insert(1, {**made, "registered_name": None})

    return change


def memory(**options):
    def change(config):
        config["config"]["layers"][1]["config"].update(options)

    return change


def fed(shape, *then):
    """Declare another input, and change more."""

    def change(config):
        config["config"]["layers"][0]["config"].update(batch_shape=shape, batch_input_shape=shape)
        config["config"].pop("build_input_shape", None)
        for part in (config, *config["config"]["layers"]):
            part.pop("build_config", None)
        for each in then:
            each(config)

    return change


def repeat(count, make_layer):
    def change(config):
        for number in range(count):
            make_layer(config)
            config["config"]["layers"][1]["config"]["name"] = f"large{number}"

    return change


WEIGHTS = {
    "15,000 units": memory(units=15_000),
    "2**31 units": memory(units=2**31),
    "2**70 units": memory(units=2**70),
    "a dense layer of 10**9 units": layer("Dense", units=10**9),
    "a dense layer of 20,000,000 units": layer("Dense", units=20_000_000),
    "a vocabulary of 2**40": layer("Embedding", input_dim=2**40, output_dim=1),
    "a vocabulary of 10**6 of 10**6": layer("Embedding", input_dim=10**6, output_dim=10**6),
    "10**9 filters": layer("Conv1D", filters=10**9, kernel_size=[1]),
    "a kernel of 10**9": layer("Conv1D", filters=1, kernel_size=[10**9], padding="same"),
    "a GRU of 20,000 units": layer("GRU", units=20_000, return_sequences=True),
    "a SimpleRNN of 40,000 units": layer("SimpleRNN", units=40_000, return_sequences=True),
    "a cell of 20,000 units": lambda config: config["config"]["layers"][1].update(
        class_name="RNN",
        module="keras.layers",
        config={
            "name": "memory",
            "cell": {"module": "keras.layers", "class_name": "LSTMCell", "config": {"name": "c", "units": 20_000}},
        },
    ),
    "10**7 features": fed([None, None, 10**7]),
    "10**9 features": fed([None, None, 10**9]),
    "features that a normalisation counts": fed([None, None, 10**9], layer("LayerNormalization")),
    "2,000 units, which take a while to draw": memory(units=2000),
    "30 layers of 3,000 units": repeat(30, layer("Dense", units=3000)),
    "in both directions": lambda config: config["config"]["layers"][1].update(
        class_name="Bidirectional",
        module="keras.layers",
        config={
            "name": "memory",
            "layer": {
                "module": "keras.layers",
                "class_name": "LSTM",
                "config": {"name": "memory", "units": 15_000, "recurrent_activation": "sigmoid"},
            },
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", WEIGHTS)
def test_more_weights_than_are_stored(make, refused, kind, case):
    message = refused(make(kind, WEIGHTS[case]))
    assert "with it the model declares" in message
    assert "layer '" in message


TENSORS = {
    "10**8 times as many steps": layer("UpSampling1D", size=10**8),
    "10**12 copies": fed([None, 3], layer("RepeatVector", n=10**12)),
    "10**10 steps of padding": layer("ZeroPadding1D", padding=[10**10, 0]),
    "10**12 steps": fed([None, 10**12, 3]),
    "10**9 samples": fed([10**9, 1000, 3]),
    "images of 10**6 by 10**6": fed([None, 2, 2, 1], layer("Resizing", height=10**6, width=10**6)),
    "upsampled images": fed([None, 2, 2, 1], layer("UpSampling2D", size=[10**5, 10**5])),
    "four times 1,000": repeat(4, layer("UpSampling1D", size=1000)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_beyond_memory(make, refused, kind, case):
    if kind == "old.h5" and "Resizing" in case:
        pytest.skip("Keras 2's Resizing is not translated")
    message = refused(make(kind, TENSORS[case]))
    assert "--max-memory" in message or "known equal in Keras 3" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequential_that_keras_takes_minutes_to_load(make, refused, kind):
    assert "a Sequential of 403 layers" in refused(make(kind, repeat(400, layer("ReLU"))))


def test_models_in_models_that_keras_takes_minutes_to_load(make, monkeypatch):
    """Each is short; the tensors that Keras makes for all of them are counted."""

    def change(config):
        layers = config["config"]["layers"]
        inner = [{"module": "keras.layers", "class_name": "ReLU", "config": {"name": f"r{k}"}} for k in range(9)]
        for number in range(9):
            layers.insert(1, sequence(f"s{number}", [{**layers[0], "config": {**layers[0]["config"]}}, *inner]))

    monkeypatch.setattr(budget, "MAX_TENSORS", 300)
    with pytest.raises(LoadError, match="takes Keras over 300 tensors"):
        load(make(".keras", change))


def sequence(name, layers):
    return {"module": "keras", "class_name": "Sequential", "config": {"name": name, "layers": layers}}


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention", "MultiHeadAttention"])
def test_attention_over_a_million_steps(tmp_path, refused, kind):
    """No tensor between layers is large; the one inside the layer is."""
    import keras

    x = keras.Input((10**6, 3))
    options = {"num_heads": 1, "key_dim": 2} if kind == "MultiHeadAttention" else {}
    keras.Model(x, getattr(keras.layers, kind)(**options)(*([x, x] if options else [[x, x]]))).save(
        tmp_path / "model.keras"
    )
    assert "a tensor [1, 1000000, 1000000] takes 4,000.0 GB" in refused(tmp_path / "model.keras")


def test_zeros_packed_into_little_do_not_count_as_weights(make, refused):
    """100 kB on disk say that they are 90 MB of weights, so that a layer of as many might be built."""

    def pack(file):
        file.create_dataset("big", data=np.zeros(90 << 20, "u1"), chunks=(1 << 20,), compression="gzip")

    assert "with it the model declares" in refused(make(".keras", memory(units=4000), pack))


def test_memory_may_be_raised(make, refused, base):
    path = make(".keras", layer("UpSampling1D", size=20_000))
    load(path)  # 200 steps of 3 numbers: 48 MB
    assert "takes 0.0 GB; at most 0.01 are given" in refused(path, opener=lambda path: load(path, 0.01))


def test_honest_layers_have_at_least_what_the_table_says():
    """Whatever their options: the table is a lower bound, so that no honest file is refused."""
    import keras

    options = {"units": 2, "filters": 2, "kernel_size": 3, "input_dim": 7, "output_dim": 5, "num_heads": 2}
    options |= {"key_dim": 3, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 3, "depth_multiplier": 2}
    options |= {"use_bias": False}
    seen = 0
    for name, least in LEAST.items():
        if name.startswith("CuDNN"):
            continue  # Keras 3 has them under their plain names
        cls = getattr(keras.layers, name)
        known = {key for parent in cls.__mro__[:-1] for key in inspect.signature(parent.__init__).parameters}
        made = cls(**{key: value for key, value in options.items() if key in known})
        rank = int(re.sub(r"\D", "", name) or 1)
        shape = (1, *([2] if "ConvLSTM" in name else []), *([6] * rank), 1)
        shape = {"Embedding": (1, 4), "Attention": (1, 6, 1)}.get(name, (1, 1) if "Cell" in name else shape)
        made.build(*[shape] * (2 if "Attention" in name else 1))
        assert 1 < least(made.get_config()) <= made.count_params(), name
        seen += 1
    assert seen > 20


def test_a_forked_process_reads_files_too(golden_folder):
    """Its reading process is its own: the one it was forked with answers its parent."""
    program = """
import os, sys
from pathlib import Path
from exporter.read import loading
path = Path(sys.argv[1])
loading._LOOKOUT.look(path)
if not (pid := os.fork()):
    loading._LOOKOUT.look(path)
    os._exit(0)
_, status = os.waitpid(pid, 0)
loading._LOOKOUT.look(path)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    command = [sys.executable, "-W", "ignore", "-c", program, golden_folder / "one_layer" / "model.keras"]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
