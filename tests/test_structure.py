"""What the artifacts are made of: which ops may occur, how many, and that nothing grows with T."""

import copy
from collections import Counter
from dataclasses import replace

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from exporter import export
from exporter.lower.plan import Plan
from exporter.memory.recurrence import Recurrence
from exporter.targets.c import write as c
from exporter.targets.onnx import write as onnx
from exporter.targets.savedmodel import write as savedmodel
from exporter.targets.tflite import write as tflite
from signatures.contract import Contract

CASES = ("stacked", "masked", "tokens", "encoder_decoder", "nested_twice")
RECURRENT_CALLS = {"stacked": 2, "masked": 2, "tokens": 1, "encoder_decoder": 2, "nested_twice": 3}


def test_onnx_holds_the_weights_in_the_type_that_is_computed_in(exported):
    """ONNX Runtime's CPU kernels run a float16 LSTM in float32; others run it as it stands."""
    import onnx as onnx_

    for name, kind in (("narrow", onnx_.TensorProto.FLOAT16), ("wide", onnx_.TensorProto.DOUBLE)):
        graph = onnx_.load(exported(name)["onnx"].path).graph
        weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 3 and min(tensor.dims[1:]) > 2]
        assert weights if name == "narrow" else not weights  # LSTM and GRU ops; ONNX Runtime has no float64 ones
        assert all(tensor.data_type == kind for tensor in weights)


@pytest.mark.parametrize("name", CASES)
def test_onnx_has_one_native_lstm_a_call_and_no_loop(name, exported):
    ops = onnx.ops(exported(name)["onnx"].path)
    assert ops["LSTM"] == RECURRENT_CALLS[name]
    assert not {"Loop", "Scan", "If"} & set(ops)


@pytest.mark.parametrize("name", CASES)
def test_tflite_has_builtin_ops_and_no_hidden_state(name, exported):
    ops = tflite.ops(exported(name)["tflite"].path)
    assert not [op for op in ops if op.startswith(("CUSTOM", "VAR_", "READ_", "ASSIGN_"))]
    assert not [op for op in ops if "SEQUENCE_LSTM" in op or op == "LSTM"]
    assert ops["FULLY_CONNECTED"] >= 2 * RECURRENT_CALLS[name]


@pytest.mark.parametrize("name", CASES)
def test_savedmodel_has_blocklstm_and_no_loop(name, exported):
    ops = savedmodel.ops(exported(name)["savedmodel"].path)
    assert ops["BlockLSTMV2"] >= RECURRENT_CALLS[name]
    assert not {"While", "StatelessWhile", "TensorListReserve"} & set(ops)


def test_tflite_stores_the_weights_once(exported, golden_folder):
    """Two signatures, one copy: every large buffer of the file is different."""
    from ai_edge_litert import schema_py_generated as schema

    content = exported("nested_twice")["tflite"].path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    large = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None and len(buffer.data) >= 96]
    assert len(large) >= 4
    assert len(set(large)) == len(large)


def test_tflite_holds_no_names_empty_buffers_and_scales_that_nobody_reads(exported):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(exported("stacked")["tflite"].path.read_bytes(), 0)
    assert [k for k, buffer in enumerate(model.buffers) if buffer.data is None] == [0]
    signed = {signature.subgraphIndex for signature in model.signatureDefs}
    ends = sum(len({*model.subgraphs[k].inputs, *model.subgraphs[k].outputs}) for k in signed)
    named = [tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.name]
    assert 0 < len(named) <= ends
    assert all(tensor.quantization is None for graph in model.subgraphs for tensor in graph.tensors)


def test_tflite_does_not_grow_with_time(tmp_path, golden_folder):
    model = golden_folder / "one_layer" / "model.keras"
    sizes = [export(model, "tflite", tmp_path / f"{t}.tflite", time=t, check=False)[0].size for t in (40, 1800, 9600)]
    assert max(sizes) < 64_000
    assert abs(sizes[2] - sizes[1]) < 64  # of as many loops; the first has fewer


def planned(kind, lowering):
    return Recurrence("layer", kind, {}), Plan(lowering, "")


def test_faults_name_what_breaks_the_promise():
    native, block, loop = planned("lstm", "native"), planned("lstm", "block"), planned("lstm", "loop")
    assert "2 recurrent calls" in onnx.faults(Counter(LSTM=1), [native] * 2)[0]
    assert "FlexTensorListReserve" in tflite.faults(Counter({"CUSTOM FlexTensorListReserve": 1}), [loop])[0]
    assert "READ_VARIABLE" in tflite.faults(Counter(READ_VARIABLE=2), [loop])[0]
    assert "1 BlockLSTMV2" in savedmodel.faults(Counter(BlockLSTMV2=1), [block] * 2)[0]
    assert not onnx.faults(Counter(LSTM=2), [native] * 2)


def test_each_kind_is_held_to_its_own_op_and_loops_of_the_model_are_its_own():
    gru, rnn, scan = planned("gru", "native"), planned("simple_rnn", "native"), planned("gru", "scan")
    assert not onnx.faults(Counter(GRU=1, RNN=1), [gru, rnn])
    assert "0 GRU op(s) for 1" in onnx.faults(Counter(RNN=1), [gru, rnn])[0]
    assert "0 GRU op(s) for 1" in onnx.faults(Counter(Loop=1), [gru])[0]
    assert "1 LSTM op(s) for 0" in onnx.faults(Counter(GRU=1, LSTM=1), [gru])[0]
    assert not onnx.faults(Counter(GRU=1, Loop=2), [gru, scan])
    assert not savedmodel.faults(Counter(BlockLSTMV2=1, While=2), [planned("lstm", "block"), scan])
    assert "0 BlockLSTMV2" in savedmodel.faults(Counter(While=1), [planned("lstm", "block"), scan])[0]


@pytest.mark.parametrize("name", [name for name in CASES if name != "encoder_decoder"])  # which can't be stepped
def test_c_has_no_loop_over_time_and_each_product_once(name, exported):
    ops = c.ops(exported(name)["c"].path)
    assert RECURRENT_CALLS[name] <= ops["FULLY_CONNECTED"] <= 2 * RECURRENT_CALLS[name] + 1
    assert not {"WHILE", "RESHAPE"} & set(ops)


@pytest.mark.parametrize("target", ["tflite", "onnx", "savedmodel", "c"])
def test_the_contract_is_embedded_and_beside(target, exported):
    from signatures import Contract, read_contract

    artifact = exported("stacked")[target]
    beside = Contract.from_json(artifact.contract_path.read_text())
    embedded = read_contract(artifact.path)
    info = beside.artifacts[target]
    own = {name: beside.signatures[name] for name in info.signatures or beside.signatures}
    assert (list(own), info.signatures) == ((["step"], ("step",)) if target == "c" else (["sequence", "step"], None))
    assert info.sha256 == artifact.sha256  # which the one inside can't tell
    assert embedded == replace(beside, signatures=own, artifacts={target: replace(info, sha256=None)})
    assert set(beside.artifacts) == {"tflite", "onnx", "savedmodel", "c"}
    assert embedded.artifacts[target].file == artifact.path.name


def test_bidirectional_halves_share_one_onnx_op(tmp_path):
    """Halves of one size become one op, whatever their activations; masked ones run in other orders and stay two."""
    import keras
    from keras import Input, layers

    def ops_of(*around, **options):
        inner = layers.LSTM(4, return_sequences=True)
        both = layers.Bidirectional(inner, **options)
        model = keras.Sequential([Input((None, 3)), *around, both, layers.Bidirectional(layers.GRU(2))])
        [artifact] = export(model, "onnx", tmp_path / "m.onnx", force=True)
        assert artifact.parity.ok
        return artifact.ops["LSTM"], artifact.ops["GRU"]

    other = layers.LSTM(4, activation="elu", go_backwards=True, return_sequences=True)
    assert ops_of() == (1, 1)
    assert ops_of(backward_layer=other) == (1, 1)
    assert ops_of(layers.Masking()) == (2, 2)

    x = Input((None, 3))
    sequences, *states = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    back = layers.LSTM(4, go_backwards=True)(x, initial_state=states)  # which needs the other's end
    [artifact] = export(keras.Model(x, [sequences, back]), "onnx", tmp_path / "linked.onnx")
    assert artifact.ops["LSTM"] == 2


def test_tflite_has_no_rsqrt_by_whatever_code_it_is_told():
    """A converter may give one kernel several codes, as of several versions."""
    function = tf.function(lambda x: {"y": tf.math.rsqrt(x) + tf.math.rsqrt(x + 1)})
    made = function.get_concrete_function(tf.TensorSpec([2], tf.float32))
    model = schema.ModelT.InitFromPackedBuf(tf.lite.TFLiteConverter.from_concrete_functions([made]).convert(), 0)
    rsqrt = schema.BuiltinOperator.RSQRT
    code = next(k for k, each in enumerate(model.operatorCodes) if each.builtinCode == rsqrt)
    *_, last = (each for each in model.subgraphs[0].operators if each.opcodeIndex == code)
    last.opcodeIndex = len(model.operatorCodes)
    model.operatorCodes.append(copy.copy(model.operatorCodes[code]))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    content, _ = tflite.embed(bytes(builder.Output()), Contract({"name": "m"}, ("y",), {}))
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert {each["op_name"] for each in interpreter._get_ops_details()} & {"RSQRT", "SQRT"} == {"SQRT"}
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.float32([4, 0.25]))
    interpreter.invoke()
    given = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(given, [0.5 + 5**-0.5, 2 + 1.25**-0.5], rtol=1e-6)


@pytest.mark.parametrize(("layer", "shape"), [("Conv1D", (4,)), ("Conv2D", (6, 6, 2))])
def test_a_dilated_convolution_is_one_op(layer, shape, tmp_path):
    """tf.nn.convolution moves what it skips into the batch and back, which converters leave for an open T."""
    import keras

    inner = getattr(keras.layers, layer)(3, 2, dilation_rate=2, padding="same")
    around = inner if layer == "Conv1D" else keras.layers.TimeDistributed(inner)
    flat = keras.layers.TimeDistributed(keras.layers.Flatten())
    model = keras.Sequential([keras.Input((None, *shape)), around, flat, keras.layers.LSTM(2)])
    for artifact in export(model, "all", f"{tmp_path}/"):
        assert artifact.parity.ok
        assert not [op for op in artifact.ops if "tobatch" in op.lower().replace("_", "")]
