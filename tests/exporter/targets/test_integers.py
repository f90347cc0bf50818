"""TFLite files of integers: how near they are, and that their states are carried exactly."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import Input, layers

from exporter import export
from exporter.memory.convert import convert
from exporter.prove import reference
from exporter.targets.tflite import graph as graphs
from exporter.targets.tflite.integers import of_integers, products
from exporter.targets.tflite.integers.calibrate import calibrated
from exporter.targets.tflite.integers.scales import scales
from exporter.targets.tflite.rewrite import rewritten
from signatures.errors import FeedError, UnsupportedModel
from signatures.runtimes.litert import read_contract
from signatures.schemes import Quantized
from signatures.stream import Stream

F, U, ABOVE, STEPS = 6, 24, 12, 700
KINDS = {"lstm": layers.LSTM, "gru": layers.GRU, "simple_rnn": layers.SimpleRNN}
SCHEMES = {"int16x8": ("int16x8", False), "int8": ("int8", False), "precise": ("int16x8", True)}
NEAR = {"int16x8": 42, "int8": 38, "precise": 66}
"""dB that h is above its error, with random weights on smooth inputs."""


def recording(seed, steps=STEPS):
    """Return a stream that changes slowly, as features of sounds do, [1, T, F]."""
    noise = np.random.default_rng(seed).normal(size=(steps + 8, F))
    return (sum(noise[k : k + steps] for k in range(8)) / 3)[None].astype(np.float32)


def recurrent():
    """All three kinds side by side, one above, and what stands around them."""
    x = Input((None, F), name="x")
    sequences = [make(U, return_sequences=True, name=name)(x) for name, make in KINDS.items()]
    sequences.append(layers.LSTM(ABOVE, return_sequences=True, name="above")(sequences[0]))
    sequences.append(layers.SimpleRNN(4, activation="softsign", return_sequences=True, name="soft")(x))  # a division
    y = layers.LayerNormalization()(layers.Concatenate()(sequences))
    return keras.Model(x, layers.Dense(5, "softmax", name="y")(y))


def memories():
    """What remembers rows, means and maxima, with a mask."""
    x = Input((None, F), name="x")
    y = layers.Conv1D(8, 3, dilation_rate=2, padding="causal", activation="relu", name="conv")(x)
    y = layers.DepthwiseConv1D(1, name="deep")(y)
    h = layers.LSTM(8, return_sequences=True, name="lstm")(layers.Masking()(y))
    return keras.Model(x, [layers.GlobalAveragePooling1D(name="mean")(h), layers.GlobalMaxPooling1D(name="most")(y)])


@pytest.fixture(scope="module")
def made(tmp_path_factory, scramble):
    """Return a function: model's name -> (model, its float32 file, the contract of it)."""
    found = {}

    def one(name):
        if name not in found:
            model = scramble({"recurrent": recurrent, "memories": memories}[name]())
            model.set_weights([0.4 * w for w in model.get_weights()])  # larger ones amplify what is rounded
            path = tmp_path_factory.mktemp(name) / "model.tflite"
            export(model, "tflite", path, signatures=["step"], check=False)
            content = path.read_bytes()
            found[name] = model, content, read_contract(content)
        return found[name]

    return one


@pytest.fixture(scope="module")
def integers(made):
    """Return a function: model's name, scheme's -> what it is quantized to, on two recordings."""
    found = {}

    def one(name, scheme):
        if (name, scheme) not in found:
            _, content, contract = made(name)
            kind, precise = SCHEMES[scheme]
            growing = np.linspace(0.2, 1, STEPS)[:, None].astype(np.float32)
            data = [{"x": growing * recording(1)}, {"x": growing * recording(2)}]
            found[name, scheme] = of_integers(content, contract, kind, precise, data)
        return found[name, scheme]

    return one


def streamed(content, contract, x):
    """Return the outputs of a stream as numbers, and the state in which it ends."""
    step = contract.signatures["step"]
    runner = Interpreter(model_content=content).get_signature_runner("step")
    stream = Stream(replace(contract, signatures={"step": step}), {"batch": 1}, lambda _, feeds: dict(runner(**feeds)))
    return stream.push(x), stream.state


def decibels(expected, found):
    return 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_h_is_near_the_equations(scheme, made, integers):
    model, _, _ = made("recurrent")
    x = recording(3)
    quant = integers("recurrent", scheme)
    found, _ = streamed(*quant, x)
    for name in KINDS:
        recurrence = convert(model.get_layer(name), name)
        expected, _ = reference.run(recurrence, x, [np.zeros((1, U)) for _ in recurrence.states])
        quarters = [slice(0, STEPS // 4), slice(-STEPS // 4, None)]
        first, last = (decibels(expected[:, part], found[f"{name}_sequences"][:, part]) for part in quarters)
        assert min(first, last) > NEAR[scheme], name
        assert last > first - 3
    assert decibels(model.predict(x, verbose=0), found["y"]) > NEAR[scheme] - 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["recurrent", "memories"])
def test_a_state_comes_back_on_the_scale_it_left_on(name, scheme, integers):
    step = integers(name, scheme)[1].signatures["step"]
    for carry in step.carries:
        out, into = step.ports[carry.output], step.ports[carry.input]
        assert (out.dtype, out.scale, out.zero_point) == (into.dtype, into.scale, into.zero_point)
        assert into.dtype == "float32" or into.scale or into.dtype == "int32"
    types = {carry.input: step.ports[carry.input].dtype for carry in step.carries}
    narrow = "int8" if scheme == "int8" else "int16"
    if name == "recurrent":
        of_h = {f"{layer}_h_in": narrow for layer in [*KINDS, "above", "soft"]}
        assert types == {**of_h, "lstm_c_in": "int16", "above_c_in": "int16"}
    else:
        assert types["conv_past_in"] == narrow
        assert types["lstm_c_in"] == types["most_max_in"] == "int16"
        assert (types["mean_mean_in"], types["mean_count_in"]) == ("float32", "int32")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_integers_in_are_integers_out(scheme, integers):
    """Rows that wait for their turn in a past stay what they were, whatever they are."""
    quant = integers("memories", scheme)
    step = quant[1].signatures["step"]
    past = step.ports["conv_past_in"]
    rng, limits = np.random.default_rng(0), np.iinfo(past.dtype)
    state = step.initial_state()
    rows = rng.integers(limits.min, limits.max, state["conv_past_in"].shape, endpoint=True).astype(past.dtype)
    x = np.zeros((1, 1, F), step.ports["x"].dtype)
    outputs = Interpreter(model_content=quant[0]).get_signature_runner("step")(x=x, **{**state, "conv_past_in": rows})
    assert np.array_equal(outputs["conv_past"][:, :-1], rows[:, 1:])
    assert not outputs["conv_past"][:, -1:].any()


def test_floats_outside_are_the_same_numbers(made, integers):
    _, content, contract = made("recurrent")
    growing = np.linspace(0.2, 1, STEPS)[:, None].astype(np.float32)
    data = [{"x": growing * recording(1)}, {"x": growing * recording(2)}]
    outside = replace(contract, quantized=Quantized("int16x8", 30.0, "", io="float"))
    floats = of_integers(content, outside, "int16x8", False, data)
    ports, states = floats[1].signatures["step"].ports, {c.output for c in contract.signatures["step"].carries}
    assert {ports[name].dtype for name in states} == {"int16"}
    assert {port.dtype for name, port in ports.items() if name in ("x", "y", "lstm_sequences")} == {"float32"}
    x = recording(3, 40)
    inside, (found, _) = streamed(*integers("recurrent", "int16x8"), x)[0], streamed(*floats, x)
    for name, value in inside.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6 if name in states else 1e-4, err_msg=name)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_means_and_maxima_are_those_of_what_came(scheme, made, integers):
    """A mean of a long stream doesn't stand still; a maximum starts from the least integer."""
    model, content, contract = made("memories")
    quant = integers("memories", scheme)
    x = recording(4)
    x[:, 5:9] = 0  # masked
    expected, _ = streamed(content, contract, x)
    found, state = streamed(*quant, x)
    for name in ("mean", "most"):
        assert decibels(expected[name], found[name]) > NEAR[scheme] - 6
    assert state["mean_count_in"] == expected["mean_count"]
    start = quant[1].signatures["step"].initial_state()["most_max_in"]
    assert np.all(start == -32768)


@pytest.mark.parametrize("name", ["recurrent", "memories"])
def test_a_graph_is_rewritten_to_the_same_numbers(name, made):
    _, content, contract = made(name)
    graph = graphs.read(content, "step")
    changed = rewritten(graph)
    x = recording(5, 40)
    expected, _ = streamed(content, contract, x)
    found, _ = streamed(graphs.written(changed, "step"), contract, x)
    for port, value in expected.items():
        np.testing.assert_allclose(found[port], value, atol=5e-6)
    if name == "recurrent":
        kinds = [op.kind for op in changed.ops]
        assert kinds.index("SPLIT") < kinds.index("LOGISTIC")
        assert not any(op.kind == "FULLY_CONNECTED" and len(op.reads) > 2 for op in changed.ops)
        mixed = [each for op in changed.ops for each in op.outputs if each.mix]
        assert [each.shape for each in mixed] == [(1, U)]


def test_a_reshape_that_an_addition_undoes_is_left_out():
    """LiteRT would add up in the memory of what is reshaped, which others read later."""
    x, once, flat, both, late = (
        graphs.Tensor(shape, "float32") for shape in ((1, 1, 4), (1, 1, 4), (4,), (1, 1, 4), (4,))
    )
    four = graphs.constant([4], "int32")
    ops = [
        graphs.Op("TANH", [x], [once]),
        graphs.Op("RESHAPE", [once, four], [flat], schema.ReshapeOptionsT(newShape=[4])),
        graphs.Op("ADD", [x, flat], [both], schema.AddOptionsT()),
        graphs.Op("RESHAPE", [both, four], [late], schema.ReshapeOptionsT(newShape=[4])),
    ]
    changed = rewritten(graphs.Graph({"x": x}, {"once": once, "late": late}, ops))
    assert [op.kind for op in changed.ops] == ["TANH", "ADD", "RESHAPE"]
    assert changed.ops[1].reads == [x, once]


@pytest.mark.parametrize("name", ["recurrent", "memories"])
def test_tensors_share_a_scale_where_one_passes_the_other_on(name, made):
    """Whatever was seen of each: of the end of a state that comes back less than of that which leaves."""
    _, content, contract = made(name)
    graph = rewritten(graphs.read(content, "step"))
    tensors = [each for each in graph.tensors() if each.floating and each.data is None]
    found = scales(graph, contract.signatures["step"], {id(each): 1 + k for k, each in enumerate(tensors)}, {}, False)
    pairs = [(graph.outputs[c.output], graph.inputs[c.input]) for c in contract.signatures["step"].carries]
    pairs += [(op.outputs[0], op.reads[0]) for op in graph.ops if op.kind in ("RESHAPE", "STRIDED_SLICE")]
    pairs = [pair for pair in pairs if pair[0].floating]
    assert len(pairs) > 6
    for a, b in pairs:
        assert found[id(a)] == found[id(b)]
    if name == "recurrent":  # what gates let through is within 1
        assert {found[id(graph.outputs[f"{layer}_h"])] for layer in [*KINDS, "above"]} == {1 / 32768}
        gates = {id(each) for op in graph.ops if op.kind in ("LOGISTIC", "TANH") for each in op.reads}
        cells = {found[id(graph.outputs[f"{layer}_c"])] for layer in ("lstm", "above")}
        assert {found[each] for each in gates} == {1 / 3072, *cells}


def test_products_that_are_added_up_are_rounded_together(made):
    _, content, contract = made("recurrent")
    graph = rewritten(graphs.read(content, "step"))
    found = products.sums(graph)
    sizes = sorted(tuple(sorted(each.size for each in total.products)) for total in found)
    # The GRU's products are split before they meet: its reset gate comes between.
    assert sizes == [(4, F), (F,), (F, U), (F, U), (ABOVE, U), (U,), (3 * U + ABOVE + 4,)]
    seen = calibrated(graph, contract, [{"x": recording(6)}], found)
    lstm = next(k for k, total in enumerate(found) if total.products[0].matrix.shape[1] == 4 * U)
    rows = seen.inputs[lstm]
    assert {each.shape for each in rows} == {(STEPS, F), (STEPS, U)}
    assert any(each.shape == recording(6)[0].shape and np.allclose(each, recording(6)[0]) for each in rows)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_of_inputs_on_one_scale_are_one(scheme, made, integers):
    """Those of a layer above another: h of both is on one scale."""
    _, content, contract = made("recurrent")
    products_of = {"FULLY_CONNECTED", "BATCH_MATMUL"}
    ops = [op for op in graphs.read(integers("recurrent", scheme)[0], "step").ops if op.kind in products_of]
    inputs = sorted(op.reads[1].shape[-1] for op in ops)
    if scheme == "precise":
        assert inputs == [4, F, F, F, F, ABOVE, U, U, U, U, 3 * U + ABOVE + 4]
    else:
        assert inputs == [4, F, F, F, F, U, U, U, U + ABOVE, 3 * U + ABOVE + 4]
    x = recording(8)
    expected, found = streamed(content, contract, x)[0], streamed(*integers("recurrent", scheme), x)[0]
    assert decibels(expected["above_sequences"], found["above_sequences"]) > NEAR[scheme] - 4


def test_units_that_are_never_on_end_no_process(tmp_path):
    x = Input((None, F), name="x")
    dense = layers.Dense(8, activation="relu", name="off")
    model = keras.Model(x, layers.LSTM(4, return_sequences=True, name="lstm")(dense(x)))
    dense.set_weights([0.1 * dense.get_weights()[0], np.full(8, -100.0)])
    export(model, "tflite", tmp_path / "m.tflite", signatures=["step"], check=False)
    content = (tmp_path / "m.tflite").read_bytes()
    made = of_integers(content, read_contract(content), "int16x8", False, [{"x": recording(1, 100)}])
    found, _ = streamed(*made, recording(2, 20))  # LiteRT aborts where scales are too far apart
    assert np.isfinite(found["lstm_sequences"]).all()


def test_an_op_without_a_form_is_named():
    x, y = graphs.Tensor((1, 1, F), "float32"), graphs.Tensor((1, 1, F), "float32")
    graph = graphs.Graph({"x": x}, {"y": y}, [graphs.Op("LOCAL_RESPONSE_NORMALIZATION", [x], [y])])
    from exporter.targets.tflite.integers import _check

    with pytest.raises(UnsupportedModel, match="op LOCAL_RESPONSE_NORMALIZATION has no form in int8 and int16x8"):
        _check(graph)


def test_recordings_that_fit_nothing_are_refused(made):
    _, content, contract = made("recurrent")
    with pytest.raises(FeedError, match="no recording is as long as a call, 1 time steps"):
        of_integers(content, contract, "int8", False, [])
    with pytest.raises(FeedError, match="'x' is missing"):
        of_integers(content, contract, "int8", False, [{"frames": recording(0)}])
    with pytest.raises(FeedError, match="gives NaN"):
        of_integers(content, contract, "int8", False, [{"x": np.full((1, 3, F), np.nan, np.float32)}])
