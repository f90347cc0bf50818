"""Artifacts, cases and feeds of strangers: refused before a runtime reads a file, writes one or runs code."""

import json
import os
import shutil
import socket
import threading
import warnings
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from onnx import TensorProto, helper
from tensorflow.core.protobuf import saved_model_pb2

import signatures
from exporter import bench, cli
from signatures.contract import ArtifactInfo
from signatures.errors import ArtifactError, LoadError, UnsafeArtifact
from signatures.runtimes import litert, ort
from signatures.runtimes import tensorflow as tensorflow_runtime

SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx"}


@pytest.fixture(scope="session")
def artifacts(exported):
    """An honest artifact of each target."""
    return {target: artifact.path for target, artifact in exported("masked").items()}


@pytest.fixture
def folder(artifacts, tmp_path):
    """A copy of the honest SavedModel."""
    return Path(shutil.copytree(artifacts["savedmodel"], tmp_path / "saved"))


# SavedModel -------------------------------------------------------------------------------------------------------


def edit(folder, change):
    """Change the graphs of a SavedModel."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(saved)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


def function_of(saved, name="sequence"):
    """Return the function that a signature comes down to, and its name."""
    graph = saved.meta_graphs[0].graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    return next(function for key, function in sorted(functions.items()) if key.startswith("__inference_ports"))


def with_node(op, **attributes):
    """Put a node into a function that is called."""

    def change(saved):
        node = function_of(saved).node_def.add(name="more", op=op)
        for key, value in attributes.items():
            node.attr[key].CopyFrom(value)

    return change


def in_main_graph(saved):
    saved.meta_graphs[0].graph_def.node.add(name="more", op="WriteFile")


def in_a_function_of_its_own(saved):
    library = saved.meta_graphs[0].graph_def.library
    made = library.function.add()
    made.signature.name = "hidden"
    made.node_def.add(name="more", op="ReadFile")
    function_of(saved).node_def.add(name="call", op="hidden")


def calls_the_saver(saved):
    """A function that is run calls the one that writes the variables."""
    graph = saved.meta_graphs[0].graph_def
    saver = next(f.signature.name for f in graph.library.function if "traced_save" in f.signature.name)
    node = function_of(saved).node_def.add(name="more", op="StatefulPartitionedCall")
    node.attr["f"].func.name = saver


def names_the_saver_in_a_list(saved):
    graph = saved.meta_graphs[0].graph_def
    saver = next(f.signature.name for f in graph.library.function if "traced_save" in f.signature.name)
    node = function_of(saved).node_def.add(name="more", op="Case")
    node.attr["branches"].list.func.add(name=saver)


def publishes_the_saver(saved):
    graphs = saved.meta_graphs[0]
    saver = next(f.signature.name for f in graphs.graph_def.library.function if "traced_save" in f.signature.name)
    node = next(n for n in graphs.object_graph_def.nodes if n.WhichOneof("kind") == "bare_concrete_function")
    node.bare_concrete_function.concrete_function_name = saver


def differentiates_the_saver(saved):
    graph = saved.meta_graphs[0].graph_def
    saver = next(f.signature.name for f in graph.library.function if "traced_save" in f.signature.name)
    graph.library.gradient.add(function_name=function_of(saved).signature.name, gradient_func=saver)


def stands_in_for_another(saved):
    """The optimizer may put a function in place of one that says it does the same on another device."""
    library = saved.meta_graphs[0].graph_def.library
    for function in (function_of(saved), next(f for f in library.function if "traced_save" in f.signature.name)):
        function.attr["api_implements"].s = b"the same"


def names_another_saver(saved):
    """What the saver's own node calls is any function."""
    saver = saved.meta_graphs[0].saver_def
    saver.save_tensor_name = saver.restore_op_name = ""


def lists_an_asset(saved):
    asset = saved.meta_graphs[0].asset_file_def.add()
    asset.filename = "/etc/passwd"
    asset.tensor_info.name = "x:0"


def holds_an_asset(saved):
    saved.meta_graphs[0].object_graph_def.nodes.add().asset.asset_file_def_index = 0


def holds_a_resource(saved):
    saved.meta_graphs[0].object_graph_def.nodes.add().resource.device = "CPU"


def holds_a_keras_object(saved):
    saved.meta_graphs[0].object_graph_def.nodes.add().user_object.identifier = "_tf_keras_layer"


def has_a_saver_of_its_own(saved):
    nodes = saved.meta_graphs[0].object_graph_def.nodes
    next(node for node in nodes if node.WhichOneof("kind") == "variable").registered_saver = "mine"


def restores_by_a_function(saved):
    nodes = saved.meta_graphs[0].object_graph_def.nodes
    variable = next(node for node in nodes if node.WhichOneof("kind") == "variable")
    variable.saveable_objects["x"].restore_function = 1


def is_of_tensorflow_1(saved):
    saved.meta_graphs[0].ClearField("object_graph_def")


def string(value):
    return tf.compat.v1.AttrValue(s=value)


GRAPHS = {
    **{
        f"the op {op}": (with_node(op), f"the op {op!r}")
        for op in (
            *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PyFuncStateless", "PrintV2", "Print"),
            *("SaveV2", "RestoreV2", "MergeV2Checkpoints", "Save", "RestoreSlice", "ShardedFilename"),
            *("HashTableV2", "InitializeTableFromTextFileV2", "LookupTableImportV2", "TextLineDataset", "MapDataset"),
            *("TFRecordDataset", "SnapshotDataset", "SaveDataset", "CacheDataset", "GenerateVocabRemapping"),
            *("DebugIdentity", "DebugNumericSummary", "DebugIdentityV3", "Copy", "CopyHost", "ImmutableConst"),
            *("DecodeProtoV2", "EncodeProto", "LoadAndRemapMatrix", "RemoteCall", "XlaCustomCallV2", "XlaCallModule"),
            *("MlirPassthroughOp", "Abort", "TPUPartitionedCall", "FixedUnigramCandidateSampler", "Skipgram"),
            *("CreateSummaryFileWriter", "WholeFileReaderV2", "RandomUniform", "StaticRegexReplace", "_Send", "Nobody"),
            *("DataServiceDataset", "CollectiveReduceV2", "VariableV2", "FIFOQueueV2", "Barrier", "StringFormat"),
            *("BatchFunction", "Unbatch", "MapDefun", "SymbolicGradient", "TemporaryVariable", "RiscCondition"),
            *("XlaLaunchV2", "XlaAllReduce", "CudnnRNN", "QuantizedConv2D", "ApplyAdam", "FuncAttr", "HostConst"),
        )
    },
    "the main graph": (in_main_graph, "the op 'WriteFile' (main graph"),
    "a function of its own": (in_a_function_of_its_own, "the op 'ReadFile' (hidden"),
    "a call of the saver": (calls_the_saver, "traced_save"),
    "a list with the saver": (names_the_saver_in_a_list, "traced_save"),
    "the saver as a signature": (publishes_the_saver, "traced_save"),
    "the saver as a gradient": (differentiates_the_saver, "traced_save"),
    "the saver in place of another": (stands_in_for_another, "traced_save"),
    "no saver, but its functions": (names_another_saver, "traced_"),
    "a file beside it": (lists_an_asset, "reads the file '/etc/passwd'"),
    "an asset": (holds_an_asset, "object of the kind 'asset'"),
    "a resource": (holds_a_resource, "object of the kind 'resource'"),
    "an object of Keras": (holds_a_keras_object, "object of the kind '_tf_keras_layer'"),
    "a saver of its own": (has_a_saver_of_its_own, "object of the kind 'variable'"),
    "a function that restores": (restores_by_a_function, "object of the kind 'variable'"),
    "TensorFlow 1": (is_of_tensorflow_1, "not written by tf.saved_model.save of TensorFlow 2"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_does_more_than_compute(folder, refused, monkeypatch, case):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail(f"{path} was loaded"))
    change, words = GRAPHS[case]
    message = refused(edit(folder, change), UnsafeArtifact, signatures.open)
    assert words in message
    assert "--trust" in message


@pytest.mark.parametrize("count", [0, 2])
def test_any_number_of_graphs_but_one(folder, refused, monkeypatch, count):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail(f"{path} was loaded"))

    def change(saved):
        graphs = saved.meta_graphs[0]
        del saved.meta_graphs[:]
        saved.meta_graphs.extend([graphs] * count)

    assert f"holds {count} graphs" in refused(edit(folder, change), ArtifactError, signatures.open)


def link_outside(folder):
    (folder / "assets" / "link").symlink_to("/etc/hostname")


def link_weights(folder):
    [data] = (folder / "variables").glob("*.data*")
    data.unlink()
    data.symlink_to("/etc/hostname")


def link_folder(folder):
    shutil.rmtree(folder / "variables")
    (folder / "variables").symlink_to("/etc")


FOLDERS = {
    "a link": (link_outside, "a link to something outside"),
    "a link for its weights": (link_weights, "a link to something outside"),
    "a link for a folder": (link_folder, "a link to something outside"),
    "a pipe": (lambda folder: os.mkfifo(folder / "variables" / "more"), "it is a named pipe"),
    "3 GB of nothing": (lambda folder: os.truncate(folder / "variables/variables.index", 3 << 30), "bytes; at most"),
}
NO_CONTRACTS = {
    "a contract of 100 MB": (lambda file: os.truncate(file, 100 << 20), "bytes; at most"),
    "no contract": (lambda file: file.unlink(), "no export-lstm contract"),
    "a pipe for the contract": (lambda file: (file.unlink(), os.mkfifo(file)), "it is a named pipe, not a file"),
    "a folder for the contract": (lambda file: (file.unlink(), file.mkdir()), "it is a folder, not a file"),
    "a link to itself": (lambda file: (file.unlink(), file.symlink_to(file)), "no export-lstm contract"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_with_more_than_files(folder, refused, monkeypatch, case):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail(f"{path} was loaded"))
    spoil, words = FOLDERS[case]
    spoil(folder)
    message = refused(folder, UnsafeArtifact, signatures.open)
    assert words in message
    assert "--trust" in message


@pytest.mark.parametrize("case", NO_CONTRACTS)
@pytest.mark.parametrize("opener", [signatures.open, signatures.read_contract])
def test_a_folder_without_a_contract(folder, refused, monkeypatch, case, opener):
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail(f"{path} was loaded"))
    spoil, words = NO_CONTRACTS[case]
    spoil(folder / tensorflow_runtime.CONTRACT)
    assert words in refused(folder, ArtifactError, opener)


class Initialised(tf.Module):
    """A SavedModel that writes a file when it is loaded."""

    def __init__(self, marker):
        super().__init__()

        class Resource(tf.saved_model.experimental.TrackableResource):
            def _create_resource(self):
                return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="resource")

            def _initialize(self):
                tf.io.write_file(str(marker), "it ran")

            def _destroy_resource(self):
                pass

        self.resource = Resource()
        self.value = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def sequence(self, x):
        return {"y": x * self.value + 0 * tf.cast(tf.size(self.resource.resource_handle), tf.float32)}


@pytest.fixture
def initialised(artifacts, tmp_path):
    marker = tmp_path / "marker"
    module = Initialised(marker)
    tf.saved_model.save(module, str(tmp_path / "theirs"), signatures={"sequence": module.sequence})
    shutil.copytree(artifacts["savedmodel"] / "assets.extra", tmp_path / "theirs" / "assets.extra")
    marker.unlink(missing_ok=True)
    return tmp_path / "theirs", marker


def test_nothing_runs_when_a_saved_model_is_checked_or_looked_at(initialised, refused):
    path, marker = initialised
    assert "--trust" in refused(path, UnsafeArtifact, signatures.open)
    with pytest.raises(UnsafeArtifact):
        cli._check(path, None, False, lambda stage: None)
    with pytest.raises(UnsafeArtifact):
        bench._read_contract(path, trust=False)
    assert cli._artifact_facts(path, lambda stage: None)["ops"]["WriteFile"] == 1
    assert not marker.exists()


def test_what_is_trusted_is_loaded(initialised):
    """The one that --trust is for: its initialiser runs, so that the test above can fail."""
    path, marker = initialised
    with pytest.raises(ArtifactError, match="damaged or not a SavedModel"):  # it has no signature `step`
        signatures.open(path, trust=True)
    assert marker.exists()


OURS = ("activations", "masked", "repeated", "bidirectional")


@pytest.mark.parametrize("name", OURS)
def test_every_saved_model_of_ours_passes(name, exported):
    tensorflow_runtime.check(exported(name)["savedmodel"].path)


@pytest.mark.parametrize(
    "op",
    [
        *("MatMul", "Einsum", "FFT", "Cholesky", "Svd", "TopKV2", "Cumsum", "StridedSlice", "BlockLSTMV2", "Conv2D"),
        *("SparseTensorDenseMatMul", "TensorListStack", "XlaDynamicUpdateSlice", "StatelessRandomUniformV2", "Where"),
        *("While", "StatelessWhile", "If", "Case", "ReadVariableOp", "ResourceGather", "ResizeBilinear", "NoOp"),
    ],
)
def test_mathematics_passes(folder, op):
    tensorflow_runtime.check(edit(folder, with_node(op)))


# ONNX -------------------------------------------------------------------------------------------------------------


def elsewhere(location="secret.bin", data_location=TensorProto.EXTERNAL):
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.0, 0.0])
    tensor.ClearField("float_data")
    tensor.data_location = data_location
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def constant(**value):
    return helper.make_node("Constant", [], ["c"], **value)


def graph_with(*nodes, **more):
    return helper.make_graph(list(nodes), "g", [], [], **more)


def sparse():
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
    return helper.make_sparse_tensor(elsewhere(), indices, [4])


def branch():
    inner = graph_with(constant(value=elsewhere()))
    return helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=graph_with())


def nested_branch(depth=5):
    inner = graph_with(initializer=[elsewhere()])
    for _ in range(depth):
        inner = graph_with(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=graph_with()))
    return inner.node[0]


def of_a_list():
    node = constant()
    node.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(elsewhere())
    return node


def in_a_function(model):
    opsets = [helper.make_opsetid("", 18)]
    made = helper.make_function("ai.onnx", "F", ["x"], ["y"], [constant(value=elsewhere())], opsets)
    model.functions.append(made)


def in_training(model):
    model.training_info.add().initialization.initializer.append(elsewhere())


def add_initializer(tensor):
    return lambda model: model.graph.initializer.append(tensor)


def add_node(node):
    return lambda model: model.graph.node.append(node)


TENSORS = {
    "an initializer": add_initializer(elsewhere()),
    "one that says it is inside": add_initializer(elsewhere(data_location=TensorProto.DEFAULT)),
    "a path above": add_initializer(elsewhere("../../etc/passwd")),
    "an address in memory": add_initializer(elsewhere("*/_ORT_MEM_ADDR_/*")),
    "a constant": add_node(constant(value=elsewhere())),
    "a list of tensors": add_node(of_a_list()),
    "a sparse constant": add_node(constant(sparse_value=sparse())),
    "a sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse()),
    "a branch": add_node(branch()),
    "a branch of a branch": add_node(nested_branch()),
    "a function": in_a_function,
    "what it was trained from": in_training,
}


@pytest.fixture
def spoiled_onnx(artifacts, tmp_path, monkeypatch):
    """Change the honest ONNX file; the file that a tensor may name is there, the runtime must not be asked."""
    import onnxruntime

    def never(*args, **options):
        pytest.fail("ONNX Runtime saw it")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(np.float32([1, 2]).tobytes())

    def spoil(change, seen=False):
        model = onnx.load(artifacts["onnx"])
        change(model)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        if not seen:
            monkeypatch.setattr(onnxruntime, "InferenceSession", never)
        return tmp_path / "model.onnx"

    return spoil


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_in_another_file(spoiled_onnx, refused, case):
    assert "lies in another file" in refused(spoiled_onnx(TENSORS[case]), UnsafeArtifact, signatures.open)


@pytest.mark.parametrize(
    ("op", "domain"), [("EPContext", "com.microsoft"), ("Load", "mine"), ("LSTM", "ai.onnx.contrib"), ("Op", "\x1b[2J")]
)
def test_a_node_that_needs_a_library(spoiled_onnx, refused, op, domain):
    node = helper.make_node(op, ["x"], ["z"], domain=domain)
    assert "needs a library" in refused(spoiled_onnx(add_node(node)), UnsafeArtifact, signatures.open)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_numbers_are_read_as_protocol_buffers_read_them():
    """2**32 + 1 is 1 there, and a number may have more bytes than it needs."""
    for location in (varint(1), varint((1 << 32) + 1), b"\x81\x80\x80\x00"):
        model = field(7, field(5, varint(14 << 3) + location))
        with pytest.raises(UnsafeArtifact):
            ort.check(model)
    ort.check(field(7, field(5, varint(14 << 3) + varint(1 << 32))))


@pytest.mark.parametrize(
    "content",
    [
        field(7, b"")[:1],
        field(8, b""),
        field(7, b"\x0b\x0c"),
        field(7, varint(5 << 3 | 2) + varint(1 << 40)),
        b"\x00\x00",
        b"\xff" * 40,
        varint(1 << 35) + b"\0",
    ],
)
def test_bytes_that_are_no_protocol_buffer(tmp_path, refused, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert "damaged or not ONNX" in refused(tmp_path / "model.onnx", ArtifactError, signatures.open)


def test_a_file_of_onnx_runtimes_own_format(tmp_path, refused, monkeypatch):
    """Its bytes can be an ONNX model of one graph, too."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **options: pytest.fail("ONNX Runtime saw it"))
    content = field(2, b"..ORTM") + field(7, b"")
    assert content[4:8] == b"ORTM"
    (tmp_path / "model.onnx").write_bytes(content)
    assert "ONNX Runtime's own format" in refused(tmp_path / "model.onnx", UnsafeArtifact, signatures.open)


def test_small_fields_have_an_end(monkeypatch):
    monkeypatch.setattr(ort, "MOST_FIELDS", 1000)
    with pytest.raises(ValueError, match="more than 1,000 fields"):
        ort.check(field(7, b"\x08\x01" * 1000))


def test_depth_has_an_end(tmp_path):
    content = b""
    for _ in range(60):
        content = field(7, field(1, field(5, b"")) + content) if not content else field(1, field(5, field(6, content)))
    with pytest.raises(ValueError, match="deep"):
        ort.check(field(7, content))


@pytest.mark.parametrize("name", OURS)
def test_every_onnx_file_of_ours_passes(name, exported):
    ort.check(exported(name)["onnx"].path.read_bytes())


# TFLite -----------------------------------------------------------------------------------------------------------


def test_a_tflite_file_whose_weights_lie_in_another(artifacts, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(litert, "Interpreter", lambda **options: pytest.fail("LiteRT saw it"))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(artifacts["tflite"].read_bytes(), 0))
    group = schema.ExternalBufferGroupT()
    group.name = b"secret.bin"
    model.externalBufferGroups = [group]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "model.tflite").write_bytes(builder.Output())
    assert "in another file" in refused(tmp_path / "model.tflite", UnsafeArtifact, signatures.open)


def point_beyond(change):
    """Return a change of the first operator, tensor or signature that has what is changed."""

    def spoil(model):
        graph = model.subgraphs[0]
        change(model, graph, next(op for op in graph.operators if len(op.inputs) > 1), graph.tensors[graph.inputs[0]])

    return spoil


def set_to(owner, name, value):
    setattr(owner, name, value)


FLATBUFFERS = {
    "an operator's input": point_beyond(lambda model, graph, op, tensor: set_to(op, "inputs", [10**6] * 2)),
    "an operator's input below 0": point_beyond(lambda model, graph, op, tensor: set_to(op, "inputs", [-7] * 2)),
    "an operator's output": point_beyond(lambda model, graph, op, tensor: set_to(op, "outputs", [10**6])),
    "an operator's code": point_beyond(lambda model, graph, op, tensor: set_to(op, "opcodeIndex", 10**6)),
    "an operator without inputs": point_beyond(lambda model, graph, op, tensor: set_to(op, "inputs", [])),
    "a tensor's buffer": point_beyond(lambda model, graph, op, tensor: set_to(tensor, "buffer", 10**6)),
    "a tensor's size": point_beyond(lambda model, graph, op, tensor: set_to(tensor, "shape", [-5, 2**31 - 1])),
    "a tensor's type": point_beyond(lambda model, graph, op, tensor: set_to(tensor, "type", 99)),
    "a graph's input": point_beyond(lambda model, graph, op, tensor: set_to(graph, "inputs", [10**6])),
    "a signature's graph": lambda model: set_to(model.signatureDefs[0], "subgraphIndex", 10**6),
    "a signature's tensor": lambda model: set_to(model.signatureDefs[0].inputs[0], "tensorIndex", 10**6),
}


@pytest.mark.parametrize("case", FLATBUFFERS)
def test_a_flatbuffer_that_points_beyond_itself(artifacts, tmp_path, capfd, case):
    """LiteRT may crash on it: in a process of its own, and the command line says so in a sentence."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(artifacts["tflite"].read_bytes(), 0))
    FLATBUFFERS[case](model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "model.tflite").write_bytes(builder.Output())
    with warnings.catch_warnings():  # the command line silences the libraries for the whole process
        result = CliRunner().invoke(cli.main, ["check", str(tmp_path / "model.tflite")])
    said = result.stderr + capfd.readouterr().err
    assert result.exit_code == 1, said
    assert said.startswith("ArtifactError: ")
    for never in ("Traceback", "bug in export-lstm"):
        assert never not in said


# What is at the path ------------------------------------------------------------------------------------------------


def sparse_file(path, size, start=b""):
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def bind(path):
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


NO_FILES = {
    "a pipe": (os.mkfifo, "a named pipe, not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
    "a socket": (bind, "a socket, not a file"),
    "a folder": (lambda path: path.mkdir(), "not an artifact"),
    "a link to itself": (lambda path: path.symlink_to(path), "no such file"),
    "6 GB of nothing": (lambda path: sparse_file(path, 6 << 30), "at most 2,147,483,648 are accepted"),
    "nothing": (lambda path: path.touch(), "not"),
}


@pytest.mark.parametrize("suffix", SUFFIXES.values())
@pytest.mark.parametrize("case", NO_FILES)
@pytest.mark.parametrize("opener", [signatures.open, signatures.read_contract])
def test_what_is_no_artifact(tmp_path, refused, case, suffix, opener):
    create, words = NO_FILES[case]
    create(tmp_path / f"model{suffix}")
    assert words in refused(tmp_path / f"model{suffix}", ArtifactError, opener)


@pytest.mark.parametrize("name", ["x" * 5000 + ".onnx", "\x1b[2J.tflite"])
def test_a_name_that_no_file_has(tmp_path, refused, name):
    assert "no such file" in refused(tmp_path / name, ArtifactError, signatures.open)


# Contracts ----------------------------------------------------------------------------------------------------------

CONTRACTS = {
    "no model": ({"model": None}, ()),
    "a model of numbers": ({"model": {"name": 7}}, ()),
    "a list for the example": ({"example": [1]}, ()),
    "half a time step": ({"example": {"time": 1.5}}, ()),
    "infinite time steps": ({"example": {"time": float("inf")}}, ()),
    "no number of time steps": ({"example": {"time": float("nan")}}, ()),
    "versions that are none": ({"provenance": {"keras": 3}}, ()),
    "a reason that is a list": ({"step": ["x"]}, ()),
    "outputs that are numbers": ({"outputs": [1]}, ()),
    "outputs that aren't there": ({"outputs": ["nobody"]}, ()),
    "a type of nobody": ({"scheme": "float31"}, ()),
    "a type that is a list": ({"scheme": ["float32"]}, ()),
    "a name with an escape": (None, ("inputs", {"name": "\x1b[2J"})),
    "a name with a line break": (None, ("inputs", {"name": "a\nb"})),
    "a name that is a path": (None, ("inputs", {"name": "../x"})),
    "a name of the other side's shape": (None, ("inputs", {"name": 7})),
    "two ports of one name": (None, ("inputs", {"name": "lstm_h_in"})),
    "a role of nobody": (None, ("inputs", {"role": "king"})),
    "a port of objects": (None, ("inputs", {"dtype": "O"})),
    "a port of texts": (None, ("inputs", {"dtype": "U9"})),
    "a port of records": (None, ("inputs", {"dtype": "f4,i4"})),
    "a port of times": (None, ("inputs", {"dtype": "datetime64"})),
    "2**70 features": (None, ("inputs", {"shape": ["batch", "time", 2**70]})),
    "2**30 features in parts": (None, ("inputs", {"shape": ["batch", "time", 2**15, 2**15]})),
    "a dimension with an escape": (None, ("inputs", {"shape": ["batch", "\x1b[2J", 3]})),
    "a dimension of a page": (None, ("inputs", {"shape": ["batch", "t" * 5000, 3]})),
    "a dimension that is a list": (None, ("inputs", {"shape": ["batch", ["time"], 3]})),
    "a dimension that is true": (None, ("inputs", {"shape": ["batch", True, 3]})),
    "a shape that is a word": (None, ("inputs", {"shape": "batch"})),
    "values below nothing": (None, ("inputs", {"below": -1})),
    "values below half": (None, ("inputs", {"below": 0.5})),
}


@pytest.fixture(scope="module")
def contract(artifacts):
    return json.loads((artifacts["savedmodel"] / tensorflow_runtime.CONTRACT).read_text())


@pytest.mark.parametrize("case", CONTRACTS)
def test_a_contract_is_refused_in_a_sentence(contract, refused, case):
    change, port = CONTRACTS[case]
    data = json.loads(json.dumps(contract))
    data.update(change or {})
    if port:
        side, values = port
        data["signatures"]["sequence"][side][0].update(values)
        if values.get("name") == "lstm_h_in":
            values["name"] = data["signatures"]["sequence"][side][1]["name"]
            data["signatures"]["sequence"][side][0].update(values)
    message = refused(json.dumps(data), ArtifactError, signatures.Contract.from_json)
    assert "contract" in message
    assert "\x1b" not in message


def test_the_honest_contract_is_read(contract):
    made = signatures.Contract.from_json(json.dumps(contract))
    assert isinstance(made.artifacts["savedmodel"], ArtifactInfo)


# Cases and feeds ------------------------------------------------------------------------------------------------------


def npy(header, content=b"", version=b"\1\0"):
    text = header.encode().ljust(118 - 10 - 1) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + content


HEADERS = {
    "a terabyte": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", bytes(16)),
    "2**70 values": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424,)}", bytes(16)),
    "less than nothing": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}", bytes(16)),
    "less than it holds": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", bytes(16)),
    "more than it holds": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,)}", bytes(16)),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (4,)}", b"cos\nsystem\n(S'x'\ntR."),
    "texts": npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}", bytes(16)),
    "records": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}", bytes(16)),
    "no type": npy("{'descr': 'zz', 'fortran_order': False, 'shape': (4,)}", bytes(16)),
    "no dict": npy("[1, 2]", bytes(16)),
    "code": npy("__import__('os').system('true')", bytes(16)),
    "a deep header": npy("(" * 50, bytes(16)),
    "a shape of words": npy("{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}", bytes(16)),
    "an order of words": npy("{'descr': '<f4', 'fortran_order': 'x', 'shape': (4,)}", bytes(16)),
    "another version": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", bytes(16), b"\7\0"),
    "another format": b"not an array",
    "nothing": b"",
    "its first byte": b"\x93",
}


@pytest.fixture
def case(golden_folder, tmp_path):
    """A copy of a golden case, and one file of it."""
    copied = Path(shutil.copytree(golden_folder / "one_layer", tmp_path / "case"))
    return copied, next(copied.glob("feeds/t7/x.npy"))


@pytest.mark.parametrize("header", HEADERS)
def test_an_array_is_held_against_its_header(case, refused, header):
    folder, file = case
    file.write_bytes(HEADERS[header])
    assert "no .npy of plain numbers" in refused(folder, ArtifactError, signatures.Case.load)


@pytest.mark.parametrize("header", HEADERS)
def test_feeds_are_held_against_their_headers(tmp_path, refused, header):
    import zipfile

    with zipfile.ZipFile(tmp_path / "feeds.npz", "w") as archive:
        archive.writestr("x.npy", HEADERS[header])
    assert "no .npy of plain numbers" in refused(tmp_path / "feeds.npz", LoadError, cli.read_feeds)


@pytest.mark.parametrize("case_", [case for case in NO_FILES if case != "a folder"])
@pytest.mark.parametrize("part", ["x.npy", "recipe.json"])
def test_a_case_of_no_files(case, refused, case_, part):
    folder, file = case
    file = file if part == "x.npy" else folder / part
    file.unlink()
    NO_FILES[case_][0](file)
    assert "not a golden case" in refused(folder, ArtifactError, signatures.Case.load)


def test_feeds_of_too_many_arrays_are_not_listed(tmp_path, refused, monkeypatch):
    import zipfile

    monkeypatch.setattr(signatures.files, "LISTING", 1000)
    with zipfile.ZipFile(tmp_path / "feeds.npz", "w") as archive:
        for k in range(100):
            archive.writestr(f"{k}.npy", b"")
    assert "list of members takes" in refused(tmp_path / "feeds.npz", LoadError, cli.read_feeds)


@pytest.mark.parametrize("case_", NO_FILES)
def test_feeds_of_no_file(tmp_path, refused, case_):
    NO_FILES[case_][0](tmp_path / "feeds.npz")
    assert "Give an .npz of plain arrays" in refused(tmp_path / "feeds.npz", LoadError, cli.read_feeds)


@pytest.mark.parametrize(
    "recipe",
    [
        {"tolerance": {"atol": float("inf"), "rtol": 0}},
        {"tolerance": {"atol": float("nan"), "rtol": 0}},
        {"tolerance": {"atol": -1, "rtol": 0}},
        {"tolerance": {"colour": 1}},
        {"tolerance": 1},
        {"runs": ["../t7"]},
        {"runs": [7]},
        {"runs": ["a\0b"]},
        {"runs": None},
        {"runs": ["x" * 5000]},
        {"schema": 10**400},
        {"tolerance": {"atol": 10**400, "rtol": 0}},
    ],
)
def test_a_recipe_is_refused_in_a_sentence(case, refused, recipe):
    folder, _ = case
    data = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**data, **recipe}))
    message = refused(folder, ArtifactError, signatures.Case.load)
    assert "not a golden case" in message or "another schema" in message


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", "", '{"schema": 1}', "\ud800"])
def test_a_recipe_that_is_none(case, refused, text):
    folder, _ = case
    (folder / "recipe.json").write_bytes(text.encode(errors="surrogatepass"))
    assert "not a golden case" in refused(folder, ArtifactError, signatures.Case.load)


# Threads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tflite", "onnx", "savedmodel"])
def test_streams_in_four_threads_give_what_they_give_alone(exported, target):
    runner = signatures.open(exported("stacked")[target].path)
    rng = np.random.default_rng(0)
    steps = 400 if target != "savedmodel" else 120
    [x] = [port for port in runner.contract.signatures["sequence"].inputs if port.role == "input"]
    pushed = [rng.normal(size=(1, steps, x.shape[2])).astype(np.float32) for _ in range(4)]
    alone, together = ([[] for _ in pushed] for _ in range(2))

    def stream(frames, into):
        opened = runner.stream()
        for start in range(0, steps, 2):  # a chunk, then a step: two signatures
            into.append(opened.push(frames[:, start : start + 1]))
            into.append(opened.push(frames[:, start + 1 : start + 2]))

    for frames, into in zip(pushed, alone, strict=True):
        stream(frames, into)
    threads = [threading.Thread(target=stream, args=each) for each in zip(pushed, together, strict=True)]
    with warnings.catch_warnings():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for before, after in zip(alone, together, strict=True):
        assert len(before) == len(after) == steps
        for wanted, got in zip(before, after, strict=True):
            for name, value in wanted.items():
                np.testing.assert_array_equal(got[name], value)
