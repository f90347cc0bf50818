"""What is particular to C: its functions, each operator, where states are kept, the files as a person compiles them."""

import ctypes
import itertools
import math
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import signatures
from exporter import export
from exporter.lower.trace import Traced
from exporter.targets.c.graph import read
from exporter.targets.c.memory import Span, packed
from exporter.targets.c.names import KERNELS, Names, prefix
from exporter.targets.c.program import program
from exporter.targets.c.source import Model, header, source
from exporter.targets.tflite.write import converted
from signatures import Carry, Contract, Port, Signature
from signatures.contract import ArtifactInfo
from signatures.errors import ArtifactError, MissingRuntime, UnsafeArtifact, UnsupportedModel
from signatures.runtimes import c as runtime

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1")


def cc(folder, *arguments, compiler="cc"):
    """Compile in a folder; return what the compiler says."""
    done = subprocess.run([compiler, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def run(folder, program="./a.out"):
    done = subprocess.run([program], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def in_c(tmp_path_factory):
    """Return a function: a TensorFlow function, its inputs and which outputs are carried -> a session of it in C."""
    if not any(shutil.which(name) for name in runtime.COMPILERS):
        pytest.skip("there is no C compiler")

    def compiled(function, inputs, carries=()):
        """Compile a function of a dict of arrays to a dict of tensors; `carries` is output -> input."""
        specs = {name: tf.TensorSpec(value.shape, value.dtype, name) for name, value in inputs.items()}
        made = tf.function(lambda **feeds: function(feeds), autograph=False).get_concrete_function(**specs)
        folder = tmp_path_factory.mktemp("in_c")
        graph = read(converted(Traced({"step": made}, tf.Module()), folder), "step")
        states = {own: output for output, own in dict(carries).items()}
        ports = [Port(n, "state" if n in states else "input", v.shape, str(v.dtype)) for n, v in inputs.items()]
        results = {
            name: Port(name, "output", tuple(t.shape), t.dtype.name) for name, t in made.structured_outputs.items()
        }
        carried = tuple(Carry(output, own) for own, output in states.items())
        signature = Signature("step", tuple(ports), tuple(results.values()), carried)
        contract = Contract(
            {"name": "ops"}, tuple(results), {"step": signature}, artifacts={"c": ArtifactInfo("ops_c")}
        )
        model = Model("ops", contract, signature, {}, program(graph, signature))
        (folder / "ops.h").write_text(header(model))
        (folder / "ops.c").write_text(source(model))
        session = runtime.Step(folder, contract)
        session.folder = folder
        return session

    return compiled


# Functions ------------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "exp_f32": (np.exp, 1.1),
    "expm1_f32": (np.expm1, 8),
    "tanh_f32": (np.tanh, 6),
    "sigmoid_f32": (lambda x: 1 / (1 + np.exp(-x)), 3),
    "log_f32": (np.log, 2.5),
    "erf_f32": (np.vectorize(math.erf), 8),
}
"""Function -> what it should give in float64, and by how many units of the last place it may be off."""


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functions")
    order = ["power_of_two_f32", "exp_f32", "tanh_f32", "sigmoid_f32", "expm1_f32", "log_f32", "erf_f32"]
    texts = ["#include <math.h>\n#include <stdint.h>\n#include <string.h>", *(KERNELS[name] for name in order)]
    texts += [
        f"void all_{name}(const float *x, float *y, int n) {{ for (int i = 0; i < n; i++) y[i] = {name}(x[i]); }}"
        for name in FUNCTIONS
    ]
    (folder / "functions.c").write_text("\n".join(texts))
    cc(folder, "-std=c99", "-O1", "-shared", "-fPIC", "functions.c", "-o", "functions.so")
    library = ctypes.CDLL(str(folder / "functions.so"))

    def call(name, x):
        y = np.empty_like(x)
        getattr(library, f"all_{name}")(*(ctypes.c_void_p(each.ctypes.data) for each in (x, y)), len(x))
        return y

    return call


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_as_exact_as_its_comment_says(name, functions):
    exact, units = FUNCTIONS[name]
    every = np.arange(0, 1 << 32, 40_009, dtype=np.uint64).astype(np.uint32).view(np.float32)  # of all floats
    special = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 88.72, 88.73, -87.4, -103.9])
    x = np.concatenate([every, special, np.linspace(-20, 20, 40_001, dtype=np.float32)])
    with np.errstate(all="ignore"):
        wanted = exact(x.astype(np.float64))
        got, nearest = functions(name, x), wanted.astype(np.float32)
    finite = np.isfinite(nearest)
    np.testing.assert_array_equal(got[~finite], nearest[~finite])
    smallest = np.finfo(np.float32).tiny if name == "sigmoid_f32" else 0  # e^-x overflows where it is less
    unit = np.maximum(np.spacing(np.abs(nearest[finite])).astype(np.float64), smallest)
    assert (np.abs(got[finite] - wanted[finite]) / unit).max() <= units
    assert finite.sum() > 70_000
    if name in ("tanh_f32", "erf_f32"):
        assert np.abs(got[finite]).max() == 1
        np.testing.assert_array_equal(got[np.abs(x) > 10], np.sign(x[np.abs(x) > 10]))  # 1 + erf is 0 there


# Operators ------------------------------------------------------------------------------------------------------------


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X, IMAGE, NUMBERS = drawn(2, 3, 4), drawn(1, 6, 7, 4, seed=1), np.int32([[3, -7, 0], [5, 2, -1]])
FILTER, DEPTH = drawn(3, 2, 4, 5, seed=2), drawn(3, 3, 4, 2, seed=3)
FEEDS = {"x": X, "image": IMAGE, "numbers": NUMBERS, "on": X > 0, "places": np.int32([1])}


def pooled(kind, padding, size=3, stride=2):
    pool = {"mean": tf.nn.avg_pool2d, "most": tf.nn.max_pool2d}[kind]
    return lambda f: pool(f["image"], size, stride, padding)


OPERATIONS = {
    # One number for each
    "abs": lambda f: tf.abs(f["x"]),
    "broadcast to rows": lambda f: f["x"] + drawn(4, seed=5),
    "broadcast to columns": lambda f: f["x"] * drawn(2, 1, 4, seed=6),
    "broadcast both": lambda f: f["x"][:, :1] - f["x"][:1, :, :1],
    "a number": lambda f: 2.5 / f["x"],
    "larger": lambda f: tf.maximum(f["x"], 0.25),
    "smaller": lambda f: tf.minimum(f["x"], f["x"][:1]),
    "negated": lambda f: -f["x"],
    "exp": lambda f: tf.exp(f["x"]),
    "log": lambda f: tf.math.log(tf.abs(f["x"])),
    "root": lambda f: tf.sqrt(tf.abs(f["x"])),
    "rsqrt": lambda f: tf.math.rsqrt(tf.abs(f["x"]) + 1),
    "square": lambda f: tf.square(f["x"]),
    "power": lambda f: tf.pow(tf.abs(f["x"]), 1.5),
    "sine": lambda f: tf.sin(f["x"]) + tf.cos(f["x"]),
    "sigmoid": lambda f: tf.sigmoid(f["x"]),
    "tanh": lambda f: tf.tanh(f["x"]),
    "relu": lambda f: tf.nn.relu(f["x"]),
    "relu6": lambda f: tf.nn.relu6(9 * f["x"]),
    "leaky": lambda f: tf.nn.leaky_relu(f["x"], 0.3),
    "elu": lambda f: tf.nn.elu(f["x"]),
    "gelu": lambda f: keras.ops.gelu(1.1 * f["x"], approximate=False),
    "gelu by tanh": lambda f: keras.ops.gelu(0.9 * f["x"], approximate=True),
    "swish": lambda f: f["x"] * tf.nn.relu6(f["x"] + 3) / 6,
    "floor": lambda f: tf.floor(3 * f["x"]),
    "ceil": lambda f: tf.math.ceil(3 * f["x"]),
    "round": lambda f: tf.round(3 * f["x"]),
    "sign": lambda f: tf.sign(f["x"]),
    "choice": lambda f: tf.where(f["on"], f["x"], -2.0),
    "choice of rows": lambda f: tf.where(f["on"][:, :1, :1], f["x"], drawn(3, 4, seed=7)),
    "comparisons": lambda f: tf.stack(
        [f["x"] < 0.1, f["x"] >= 0.1, tf.equal(f["x"], f["x"]), f["x"] > f["x"][:1], tf.not_equal(f["x"], 1.0)]
    ),
    "logic": lambda f: tf.logical_or(tf.logical_and(f["on"], tf.logical_not(f["on"][:1])), f["on"][:, :1]),
    "cast": lambda f: tf.cast(f["on"], tf.float32) + tf.cast(tf.cast(3 * f["x"], tf.int32), tf.float32),
    "whole numbers": lambda f: tf.math.floordiv(f["numbers"], 4) * 10 + tf.math.floormod(f["numbers"], 4),
    "difference": lambda f: tf.math.squared_difference(f["x"], f["x"][:1]),
    # Matrices
    "dense": lambda f: tf.matmul(tf.reshape(f["x"], [6, 4]), drawn(4, 100, seed=8)),
    "dense and bias": lambda f: tf.nn.relu(
        tf.matmul(tf.reshape(f["x"], [6, 4]), drawn(4, 7, seed=8)) + drawn(7, seed=9)
    ),
    "sum of products": lambda f: (
        tf.matmul(f["x"][0], drawn(4, 40, seed=8)) + tf.matmul(f["x"][1], drawn(4, 40, seed=9))
    ),
    "product": lambda f: tf.matmul(f["x"], f["x"], transpose_b=True),
    "product turned": lambda f: tf.matmul(f["x"], f["x"], transpose_a=True),
    "product with one": lambda f: tf.matmul(f["x"], drawn(1, 4, 3, seed=10)),
    "softmax": lambda f: tf.nn.softmax(f["x"]),
    "log of softmax": lambda f: tf.nn.log_softmax(f["x"]),
    # Windows
    "convolution": lambda f: tf.nn.conv2d(f["image"], FILTER, 1, "VALID"),
    "convolution with padding": lambda f: tf.nn.conv2d(f["image"], FILTER, 2, "SAME"),
    "convolution with holes": lambda f: tf.nn.conv2d(f["image"], FILTER, 1, "VALID", dilations=2),
    "convolution in groups": lambda f: tf.nn.conv2d(f["image"], drawn(2, 3, 2, 6, seed=4), 1, "SAME"),
    "depthwise": lambda f: tf.nn.depthwise_conv2d(f["image"], DEPTH, [1, 1, 1, 1], "SAME"),
    "depthwise with strides": lambda f: tf.nn.depthwise_conv2d(f["image"], DEPTH[..., :1], [1, 2, 2, 1], "VALID"),
    "transposed": lambda f: tf.nn.conv2d_transpose(f["image"], drawn(3, 3, 2, 4, seed=4), [1, 12, 14, 2], 2, "SAME"),
    "transposed, all of it": lambda f: tf.nn.conv2d_transpose(
        f["image"], drawn(3, 2, 2, 4, seed=4), [1, 13, 14, 2], 2, "VALID"
    ),
    "mean of a window": pooled("mean", "VALID"),
    "mean of a window at the edge": pooled("mean", "SAME"),
    "most of a window": pooled("most", "VALID"),
    "most of a window at the edge": pooled("most", "SAME"),
    # Moves
    "joined": lambda f: tf.concat([f["x"], f["x"][:, :2], -f["x"]], 1),
    "joined at the end": lambda f: tf.concat([f["x"], f["x"][..., :1]], -1),
    "stacked": lambda f: tf.stack([f["x"], -f["x"]], 2),
    "unstacked": lambda f: tf.add_n([(k + 1) * each for k, each in enumerate(tf.unstack(f["x"], axis=1))]),
    "split": lambda f: tf.concat(tf.split(f["x"], [1, 3], 2)[::-1], 2),
    "a part": lambda f: f["x"][1, 1:, ::2],
    "backwards in steps": lambda f: f["x"][:, ::-2],
    "turned": lambda f: tf.transpose(f["x"], [2, 0, 1]),
    "reversed": lambda f: tf.reverse(f["x"], [0, 2]),
    "repeated": lambda f: tf.tile(f["x"], [1, 2, 3]),
    "spread": lambda f: tf.broadcast_to(f["x"][:, :1], [2, 5, 4]),
    "padded": lambda f: tf.pad(f["x"], [[0, 1], [2, 0], [1, 1]]),
    "padded with a number": lambda f: tf.pad(f["x"], [[0, 0], [1, 1], [0, 0]], constant_values=-3.0),
    "rows by number": lambda f: tf.gather(f["x"], [2, 0], axis=1),
    "rows by numbers given": lambda f: tf.gather(drawn(9, 4, seed=11), tf.abs(f["numbers"])),
    "rows of each sample": lambda f: tf.gather(f["x"], [[2, 0], [1, 1]], axis=1, batch_dims=1),
    "numbers by number": lambda f: tf.gather(f["x"], f["places"], axis=2),
    "rows by several numbers": lambda f: tf.gather_nd(f["x"], [[1, 2], [0, 0]]),
    "rows put in their place": lambda f: tf.scatter_nd([[2], [0], [2]], tf.reshape(f["x"][:1], [3, 4]), [4, 4]),
    "rows written over": lambda f: tf.tensor_scatter_nd_update(f["x"], [[0, 1], [1, 2]], drawn(2, 4, seed=15)),
    "filled": lambda f: tf.fill([2, 3], f["x"][0, 0, 0]),
    "one of many": lambda f: tf.one_hot(f["numbers"], 6),
    # Folds
    "sum": lambda f: tf.reduce_sum(f["x"], [0, 2]),
    "mean": lambda f: tf.reduce_mean(f["x"], 1, keepdims=True),
    "most": lambda f: tf.reduce_max(f["x"], -1),
    "least": lambda f: tf.reduce_min(f["x"], [0, 1, 2]),
    "any": lambda f: tf.reduce_any(f["on"], 1),
    "all": lambda f: tf.reduce_all(f["on"], [1, 2]),
    "product of all": lambda f: tf.reduce_prod(f["x"], 1),
    "largest whole number": lambda f: tf.reduce_max(f["numbers"], 1),
    "place of the largest": lambda f: tf.argmax(f["x"], 1, output_type=tf.int32),
    "place of the smallest": lambda f: tf.argmin(f["x"], 2, output_type=tf.int32),
    "running sum": lambda f: tf.cumsum(f["x"], 1),
}


@pytest.fixture(scope="module")
def operated(in_c):
    """Return the folder of one graph of all operations, what C gives of each, and what TensorFlow gives."""
    names = {name: f"y{k}" for k, name in enumerate(OPERATIONS)}
    step = in_c(lambda f: {names[name]: operation(f) for name, operation in OPERATIONS.items()}, FEEDS)
    got = step.run("step", FEEDS)
    inputs = {name: tf.constant(value) for name, value in FEEDS.items()}
    wanted = {name: operation(inputs).numpy() for name, operation in OPERATIONS.items()}
    return step.folder, {name: got[short] for name, short in names.items()}, wanted


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_tensorflow_gives(name, operated):
    got, wanted = (each[name] for each in operated[1:])
    assert got.dtype == wanted.dtype
    if wanted.dtype == np.float32:
        np.testing.assert_allclose(got, wanted, atol=2e-6, rtol=2e-6)
    else:
        np.testing.assert_array_equal(got, wanted)


def test_an_index_beyond_the_rows_reads_none_beyond_them(in_c):
    table = drawn(5, 2)
    step = in_c(lambda f: {"y": tf.gather(tf.constant(table), f["at"])}, {"at": np.int32([0, 1])})
    got = step.run("step", {"at": np.int32([99, -99])})["y"]
    np.testing.assert_array_equal(got, table[[4, 0]])


def test_what_is_left_of_a_multiple_is_as_large_as_tensorflow_has_it(in_c):
    x, y = np.float32([1.5, -1.5, 0.9, 7.0, -0.0, 1e9]), np.float32([0.3, 0.3, -0.3, 3.5, 2.0, 0.3])
    got = in_c(lambda f: {"y": tf.math.floormod(f["x"], tf.constant(y))}, {"x": x}).run("step", {"x": x})["y"]
    np.testing.assert_array_equal(got, tf.math.floormod(x, y).numpy())


def test_the_program_has_no_name_of_a_port(tmp_path):
    [artifact] = export(named("call", "first", "wrong", "worst"), "c", f"{tmp_path}/")
    cc(artifact.path, *STRICT, "self_test.c", f"{artifact.path.name.removesuffix('_c')}.c", "-o", "../right")
    code, told, _ = run(artifact.path, "../right")
    assert code == 0, told


def test_an_operator_without_a_form_is_refused_by_its_name(in_c):
    with pytest.raises(UnsupportedModel, match=r"C has no form for TOPK_V2 of '?.*\n  Export to tflite, onnx"):
        in_c(lambda f: {"y": tf.math.top_k(f["x"], 2).values}, {"x": X})


# States ---------------------------------------------------------------------------------------------------------------

A, B = drawn(1, 5, seed=12), drawn(1, 5, seed=13)
STATES = {
    "swapped": lambda f: {"a": f["b_in"], "b": f["a_in"]},
    "one after the other": lambda f: {"a": tf.tanh(f["x"] + f["a_in"]), "b": f["a_in"]},
    "read later": lambda f: {"a": f["a_in"] + f["x"], "b": tf.reduce_sum(f["a_in"]) + f["b_in"] * tf.ones_like(f["x"])},
    "read turned": lambda f: {"a": f["a_in"] * f["x"], "b": tf.reverse(f["a_in"], [1]) + f["b_in"]},
    "moved along": lambda f: {"a": tf.concat([f["a_in"][:, 1:], f["x"][:, :1]], 1), "b": f["b_in"]},
    "all alike": lambda f: {"a": f["x"] * 2, "b": f["x"] * 2},
    "given as it was": lambda f: {"a": f["x"], "b": f["b_in"] + 1, "y": f["a_in"] * 1 + 0, "z": f["b_in"]},
    "read by another number": lambda f: {"a": f["a_in"] + f["a_in"][:, ::-1], "b": f["b_in"] - f["a_in"][:, 1:2]},
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_is_not_written_before_its_old_numbers_are_read(name, in_c):
    function = STATES[name]
    feeds = {"a_in": A, "b_in": B, "x": drawn(1, 5, seed=14)}
    step = in_c(function, feeds, {"a": "a_in", "b": "b_in"})
    for _ in range(3):
        got = step.run("step", feeds)
        wanted = function({name: tf.constant(value) for name, value in feeds.items()})
        assert set(got) == set(wanted)
        for port, value in wanted.items():
            np.testing.assert_allclose(got[port], value, atol=1e-6, err_msg=port)
        feeds = {"a_in": got["a"], "b_in": got["b"], "x": feeds["x"] + 1}


def test_an_lstm_is_one_loop_and_its_states_are_written_in_place(folder):
    text = (folder / "model.c").read_text()
    step = text[text.index("_step(") :]
    for layer in ("low", "high"):
        [loop] = (part for part in step.split("\n\n") if f"state->{layer}_c[i] = " in part)
        assert loop.count("for (") == 1
        assert f"state->{layer}_h[i] = " in loop
    assert not re.search(r"memcpy\(state->", step)


def test_gcc_vectorises_what_a_layer_makes_of_its_products(in_c):
    """With -O3 alone: a function that it can't see through costs three quarters of the speed."""
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")

    def gates(f):
        i, forget, g, o = tf.split(f["x"], 4, 1)
        c = tf.sigmoid(forget) * f["c_in"] + tf.sigmoid(i) * tf.tanh(g)
        valid = tf.reduce_any(f["x"] > 0, 1, keepdims=True)
        return {"c": tf.where(valid, c, f["c_in"]), "h": tf.sigmoid(o) * tf.tanh(c)}

    folder = in_c(gates, {"x": drawn(1, 128), "c_in": drawn(1, 32)}, {"c": "c_in"}).folder
    lines = (folder / "ops.c").read_text().splitlines()
    [loop] = (k for k, line in enumerate(lines, 1) if "for (int i = 0; i < 32;" in line)
    said = cc(folder, "-std=c99", "-O3", "-fopt-info-vec", "-c", "ops.c", "-o", "/dev/null", compiler="gcc")
    assert f"ops.c:{loop}:" in said
    assert "loop vectorized" in next(line for line in said.splitlines() if line.startswith(f"ops.c:{loop}:"))


def test_tensors_that_are_needed_at_once_lie_apart():
    rng = np.random.default_rng(0)
    spans = [
        Span(int(rng.integers(1, 9)), first := int(rng.integers(40)), first + int(rng.integers(9))) for _ in range(60)
    ]
    starts, total = packed(spans)
    for (a, one), (b, other) in itertools.combinations(zip(starts, spans, strict=True), 2):
        if one.first <= other.last and other.first <= one.last:
            assert a + one.size <= b or b + other.size <= a
    live = [sum(s.size for s in spans if s.first <= step <= s.last) for step in range(50)]
    assert max(live) <= total <= 1.3 * max(live)


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden_folder):
    """A golden case with masks and two layers."""
    place = tmp_path_factory.mktemp("masked")
    [artifact] = export(golden_folder / "masked" / "model.keras", "c", f"{place}/", check=False)
    return artifact.path


def named(*names):
    """Return a model whose ports are called so: two inputs, an output, a layer."""
    first, second, output, layer = names
    a, b = keras.Input((None, 2), name=first), keras.Input((None, 2), name=second)
    y = layers.GRU(3, return_sequences=True, name=layer)(layers.Add()([a, b]))
    return keras.Model([a, b], layers.Dense(2, name=output)(y))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model checked on delivery whose name and ports are keywords or what the source itself uses."""
    model = named("double", "state", "dense_f32", "i")
    [artifact] = export(model, "c", f"{tmp_path_factory.mktemp('odd')}/2 self-test.d_c")
    return artifact


def test_an_artifact_is_checked_and_its_program_checks_it_again(odd):
    assert odd.parity.ok
    assert {diff.check for diff in odd.parity.diffs} == {"steps", "chunks", "reset"}
    assert max(int(name[1:]) for name in odd.parity.inputs if name[1:].isdigit()) > 1
    name = "x2_self_test_d"
    assert {file.name for file in odd.path.iterdir()} == {f"{name}.c", f"{name}.h", "self_test.c", runtime.CONTRACT}
    cc(odd.path, *STRICT, "self_test.c", f"{name}.c", "-o", "../right")
    code, told, _ = run(odd.path, "../right")
    assert code == 0
    assert re.fullmatch(rf"{name}: right, golden run \w+: \d+ numbers, at most [\d.e-]+ of tolerance\n", told)


def test_the_program_fails_where_a_weight_is_another(odd, tmp_path):
    place = shutil.copytree(odd.path, tmp_path / "changed")
    source = place / "x2_self_test_d.c"
    text = source.read_text()
    start = text.index("_weights")
    number = re.search(r"-?\d+\.\d+f", text[start:])
    source.write_text(text[: start + number.start()] + "0.9f" + text[start + number.end() :])
    cc(place, "-std=c99", "self_test.c", source.name)
    code, told, _ = run(place)
    assert code == 1
    assert re.fullmatch(r"x2_self_test_d: wrong, golden run \w+: \w+ of call \d+, number \d+: .* instead of .*\n", told)


SANE = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def test_the_sanitizers_find_nothing_in_a_model(odd, tmp_path):
    cc(odd.path, *SANE, "self_test.c", "x2_self_test_d.c", "-o", str(tmp_path / "sane"))
    code, told, said = run(odd.path, str(tmp_path / "sane"))
    assert (code, said) == (0, ""), told


def test_the_sanitizers_find_nothing_in_any_operation(operated, tmp_path):
    """And the strictest compiler has no complaint."""
    folder, _, _ = operated
    text = (folder / "ops.h").read_text()
    arguments = re.sub(r"\s+", " ", text[text.index("void ops_step(") :].partition(");")[0]).split(", ")[1:]
    values = {"x": ("float", X), "image": ("float", IMAGE), "numbers": ("int32_t", NUMBERS), "places": ("int32_t", [1])}
    values["on"] = "bool", X > 0
    lines = ['#include "ops.h"', "static ops_state state;", "static float y[100000];"]
    for name, (kind, numbers) in values.items():
        texts = ", ".join(str(n).lower() for n in np.ravel(numbers).tolist())
        lines.append(f"static const {kind} {name}[] = {{{texts}}};")
    names = [a.rpartition("*")[2] for a in arguments]
    given = ", ".join(name if name in values else "(void *)y" for name in names)
    lines.append(f"int main(void) {{ ops_init(&state); ops_step(&state, {given}); return 0; }}")
    (tmp_path / "main.c").write_text("\n".join(lines))
    cc(tmp_path, *STRICT, *SANE, "-I", str(folder), "main.c", str(folder / "ops.c"), "-lm")
    assert run(tmp_path) == (0, "", "")


def test_cpp_takes_the_header(odd, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("there is no g++")
    name = "x2_self_test_d"
    program = f'#include "{name}.h"\nint main() {{ static {name}_state state; {name}_init(&state); return 0; }}\n'
    (tmp_path / "main.cpp").write_text(program)
    cc(tmp_path, "-std=c99", "-c", str(odd.path / f"{name}.c"), "-I", str(odd.path), "-o", "model.o")
    cc(tmp_path, "-Wall", "-Wextra", "-pedantic", "-Werror", "-I", str(odd.path), "main.cpp", "model.o", compiler="g++")
    assert run(tmp_path)[0] == 0


def test_the_same_model_gives_the_same_bytes(folder, golden_folder, tmp_path):
    [again] = export(golden_folder / "masked" / "model.keras", "c", f"{tmp_path}/", check=False)
    assert {file.name: file.read_bytes() for file in again.path.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_an_output_that_is_not_wanted_may_be_null(folder, tmp_path):
    text = (folder / "model.h").read_text()
    [arguments] = re.findall(r"_step\(([^;]*)\);", text[text.index("void model_step") :].replace("\n", " "))
    inputs = [a.split("*")[-1].strip() for a in arguments.split(",")[1:] if "const" in a]
    nulls = ", ".join("0" for a in arguments.split(",")[1:] if "const" not in a)
    (tmp_path / "main.c").write_text(
        '#include "model.h"\nint main(void) { static model_state s; static const float x[64]; model_init(&s);'
        f" model_step(&s, {', '.join('x' for _ in inputs)}, {nulls}); model_reset(&s); return 0; }}"
    )
    cc(tmp_path, *STRICT, "-I", str(folder), "main.c", str(folder / "model.c"))
    assert run(tmp_path)[0] == 0


def test_names_are_no_words_of_the_language_and_each_once():
    names = Names(["x"])
    assert [names.new(each) for each in ("x", "x", "double", "tanh_f32", "a/b", "a__b", "2", "virtual")] == [
        "x_2", "x_3", "double_2", "tanh_f32_2", "a_b", "a_b_2", "x2", "virtual_2",
    ]  # fmt: skip
    assert [prefix(each) for each in ("model", "2.1", "math", "Self_Test", "a-b")] == [
        "model", "x2_1", "xmath", "xSelf_Test", "a_b",
    ]  # fmt: skip


# Opening --------------------------------------------------------------------------------------------------------------


def test_c_is_run_where_it_is_trusted_alone(folder):
    with pytest.raises(UnsafeArtifact, match=r"It is C, which is compiled and run.*trust=True"):
        signatures.open(folder)
    assert signatures.read_contract(folder).artifacts["c"].signatures == ("step",)
    runner = signatures.open(folder, trust=True)
    assert (runner.target, list(runner.contract.signatures)) == ("c", ["step"])


def test_without_a_compiler_one_sentence_says_so(folder, monkeypatch, tmp_path, golden_folder):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingRuntime, match=r"none of cc, gcc, clang is there. Install one, or name it: CC="):
        signatures.open(folder, trust=True)
    with pytest.raises(MissingRuntime, match=r"(?s)none of cc, gcc, clang.*unchecked: --no-check"):
        export(golden_folder / "masked" / "model.keras", "c", f"{tmp_path}/")
    monkeypatch.setenv("CC", "no-such-cc -O1")
    with pytest.raises(MissingRuntime, match="'no-such-cc', which CC names, isn't there"):
        signatures.open(folder, trust=True)


def test_what_does_not_compile_is_one_sentence(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "broken")
    source = place / "model.c"
    source.write_text(source.read_text().replace("void model_reset(", "void model_reset((", 1))
    with pytest.raises(ArtifactError, match=r"The C compiler '\w+' refuses model.c: .*error.*\.$"):
        signatures.open(place, trust=True)
    source.unlink()
    with pytest.raises(ArtifactError, match="holds 0 sources where export-lstm writes one"):
        signatures.open(place, trust=True)


def test_what_c_cannot_have_is_refused(tmp_path, golden_folder):
    def refused(case, match, **options):
        with pytest.raises(UnsupportedModel, match=match):
            export(golden_folder / case / "model.keras", "c", f"{tmp_path}/", check=False, **options)

    refused(
        "one_layer", "signature 'sequence' can't be had in target 'c', which has step alone", signatures=["sequence"]
    )
    refused("backwards", r"(?s)target 'c' has the signature 'step' alone.*'lstm' runs from the last.*Export to tflite")
    refused("one_layer", r"(?s)fixed sizes, and port 'x' is \[batch, .*Give --batch N", batch="any")
    refused("narrow", "computes in float16, which the c runtime doesn't")


def test_several_samples_side_by_side(tmp_path, golden_folder):
    [artifact] = export(golden_folder / "one_layer" / "model.keras", "c", f"{tmp_path}/", batch=3)
    assert artifact.parity.ok
    assert artifact.contract.artifacts["c"].dims["batch"] == 3
    cc(artifact.path, *STRICT, "self_test.c", f"{artifact.path.name.removesuffix('_c')}.c", "-o", "../right")
    code, told, _ = run(artifact.path, "../right")
    assert code == 0, told
