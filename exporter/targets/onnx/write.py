"""ONNX: one graph with a native LSTM, GRU or RNN op per recurrent call and a dynamic time axis, for every signature.

tf2onnx converts the traced graph; each placeholder in it becomes

    x [B,T,F] -> (valid steps first) -> Transpose -> LSTM -> Transpose -> (back in place) -> sequences [B,T,U]
    h, c [B,U] -> Unsqueeze ----------------^ Y_h, Y_c -> Squeeze -> h, c [B,U]

where the parts in brackets are there for masks only. ONNX's LSTM has gate order i o f c, its GRU Keras' z r h; input
and recurrent biases stand one after the other; layout is 0, the only one ONNX Runtime runs.
"""

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tf2onnx.onnx_opset import controlflow
from tf2onnx.optimizer import back_to_back_optimizer, optimizer_base, transpose_optimizer

from signatures.contract import Contract
from signatures.errors import UnsupportedModel, one_line
from signatures.golden import Case
from signatures.ports import Signature
from signatures.runtimes.ort import METADATA

from ...inside import replaced
from ...lower import spelling
from ...lower.native import PLACEHOLDER
from ...lower.plan import Plan
from ...lower.trace import Traced
from ...memory.activations import ACTIVATIONS
from ...memory.recurrence import GATES, Recurrence, reorder
from ...model.swap import LOCK
from .facts import ONNX_OPS, holds
from .fuse import Fuser
from .halves import join_halves

OPSET = 17
"""The newest operators used; ONNX Runtime 1.12 (2022) and later run them."""

BEYOND = 1 << 30
"""More time steps than a call has."""

BOUNDED = ("hard_sigmoid", "keras2_hard_sigmoid", "sigmoid", "softsign", "tanh")
"""Activations within -1 and 1."""
SPELLINGS: Mapping[str, spelling.Spelling] = {
    "Atan2": spelling.atan2,
    "BiasAdd": spelling.bias_add,
    "BitwiseAnd": spelling.bitwise_and,
    "Expm1": spelling.expm1,
    "FloorDiv": spelling.floor_div,
    "Log1p": spelling.log1p,
    "Max": spelling.largest,
    "OneHot": spelling.one_hot,
    "Reshape": spelling.whole_product,
}
"""What tf2onnx has no form for or a wrong one: see Writer."""

INT32, INT64, BOOL = (getattr(onnx.TensorProto, kind) for kind in ("INT32", "INT64", "BOOL"))
FLOATS = tuple(getattr(onnx.TensorProto, kind) for kind in ("FLOAT16", "FLOAT", "DOUBLE"))


def write(traced: Traced, contract: Contract, path: Path, golden: Case | None) -> Contract:
    """Write an ONNX file; see Writer.write."""
    [function] = traced.functions.values()

    def native(graph: Any, node: Any, name: str, args: Any) -> None:
        recurrence = traced.placeholders[node.get_attr_str("token").encode()]
        _Nodes(graph, onnx.helper.np_dtype_to_tensor_dtype(recurrence.kernel.dtype)).replace(node, recurrence)

    signature = next(iter(contract.signatures.values()))
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it logs and goes on; the result is read back below

    handlers: dict[str, Any] = {op: (handler, []) for op, handler in {PLACEHOLDER: native, **HANDLERS}.items()}
    with _refusing(), _optimizing():
        definition, names = _frozen(function)
        model, _ = tf2onnx.convert._convert_common(
            definition, opset=OPSET, custom_op_handlers=handlers, continue_on_error=True, **names
        )
    kinds = sorted({(node.op_type, node.domain) for node in _nodes(model.graph)})
    if unknown := [kind for kind, domain in kinds if not onnx.defs.has(kind, OPSET, domain)]:
        raise _unsupported(f"ONNX has no form for an operation of the model: {', '.join(unknown)}")
    join_halves(model.graph)
    Fuser(model.graph).fuse()
    _name_dims(model.graph, signature)
    model.producer_name = "export-lstm"
    sides = {"inputs": model.graph.input, "outputs": model.graph.output}
    order = {side: [value.name for value in values] for side, values in sides.items()}
    contract = contract.ordered(dict.fromkeys(contract.signatures, order))
    onnx.helper.set_model_props(model, {METADATA: contract.embedded()})
    with _refusing():
        onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return contract


def _unsupported(what: str) -> UnsupportedModel:
    return UnsupportedModel(f"{what}.\n  Export to tflite or savedmodel, or replace that layer.")


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuse a model that tf2onnx trips over, or of which it writes what is no ONNX."""
    try:
        yield
    except Exception as error:  # whatever its own code raises
        raise _unsupported(f"tf2onnx can't write an operation of the model ({one_line(error)})") from error


def _frozen(concrete: Any) -> tuple[Any, dict[str, Any]]:
    """Return a ConcreteFunction as a GraphDef, with what it holds as constants, and how tf2onnx is to name its ports.

    tf2onnx's own way there takes held tensors for inputs, such as the mean that Normalization keeps.
    """
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)
    definition = _without_compiled(frozen.graph.as_graph_def(add_shapes=True))
    inputs, outputs = ([tensor.name for tensor in side] for side in (frozen.inputs, frozen.outputs))
    ports = [*(spec.name for spec in concrete.structured_input_signature[0]), *sorted(concrete.structured_outputs)]
    renamed = dict(zip([*inputs, *outputs], ports, strict=True))
    names = {"input_names": inputs, "output_names": outputs, "tensors_to_rename": renamed}
    with tf.Graph().as_default():
        return tf2onnx.tf_loader.tf_optimize(inputs, outputs, definition), names


def _without_compiled(definition: Any) -> Any:
    """Let a GraphDef's functions be taken apart that TensorFlow compiles as a whole, as Keras has it do; return it."""
    functions = definition.library.function
    for holder in (*definition.node, *functions, *(node for function in functions for node in function.node_def)):
        for attribute in ("_noinline", "_XlaMustCompile"):
            holder.attr.pop(attribute, None)
    return definition


@contextmanager
def _optimizing() -> Iterator[None]:
    """Have tf2onnx optimize a graph as it should.

    It would make one cast of two: what the first one rounds or cuts off would come back. It would move away a transpose
    that gives an output, and fail. And it would copy the graph before each of its passes, in case one fails, and write
    and count its nodes after each, which takes longer than they do; it does so only if one has failed. And it would
    look anew for what each output is made of whenever it leaves out what nothing reads, and copy, with the condition of
    a loop, the graph around it.
    """

    def optimize(graph: Any, catch_errors: bool, optimizers: Any) -> Any:
        try:
            with replaced(optimizer_base.GraphOptimizerBase, {"optimize": quickly}):
                return optimize_graph(copy.deepcopy(graph), False, optimizers)
        except Exception:  # noqa: BLE001 - whatever its own code raises
            return optimize_graph(graph, True, optimizers)

    def quickly(optimizer: Any, graph: Any, iteration: int) -> Any:
        optimizer.opt_iteration = iteration
        graph = optimizer._optimize(graph)
        graph.delete_unused_nodes(graph.outputs)
        return graph

    def read_once(optimizer: Any, nodes: Sequence[Any]) -> bool:
        given = any(name in optimizer._g.outputs for node in nodes for name in node.output)
        return not given and has_one_reader(optimizer, nodes)

    def inlined(parent: Any, graph: Any, scope: str, binding: Any) -> Any:
        with replaced(graph, {"parent_graph": None}):
            return inline_subgraph(parent, graph, scope, binding)

    with LOCK:  # what is replaced is every thread's
        inline_subgraph = controlflow.inline_subgraph
        optimize_graph, pairs = tf2onnx.optimizer.optimize_graph, dict(back_to_back_optimizer._func_map)
        has_one_reader = transpose_optimizer.TransposeOptimizer._nodes_has_single_consumer_node
        del pairs[("Cast",)]
        with (
            replaced(tf2onnx.optimizer, {"optimize_graph": optimize}),
            replaced(back_to_back_optimizer, {"_func_map": pairs}),
            replaced(transpose_optimizer.TransposeOptimizer, {has_one_reader.__name__: read_once}),
            replaced(tf2onnx.graph.Graph, {"delete_unused_nodes": _without_unused}),
            replaced(controlflow, {"inline_subgraph": inlined}),
        ):
            yield


def _without_unused(graph: Any, outputs: Sequence[str]) -> None:
    """Leave out the nodes of a tf2onnx graph, and of the graphs inside it, of which no output is made; inputs stay."""
    if not outputs:
        return
    made = {name: node for node in graph.get_nodes() for name in node.output}
    kept: set[Any] = set()
    wanted = [*outputs, *(name for node in graph.inputs for name in node.output[:1])]
    while wanted:
        node = made.get(wanted.pop())
        if node is not None and node not in kept:
            kept.add(node)
            wanted += [*node.input, *(node.get_implicit_inputs() if node.get_body_graphs() else ())]
    for node in kept:
        for inner in (node.get_body_graphs() or {}).values():
            inner.delete_unused_nodes(inner.outputs)
    graph.reset_nodes(list(kept))


def ops(path: Path) -> Counter[str]:
    """Count the nodes of the graph and of the graphs inside it; see Writer.ops."""
    return Counter(node.op_type for node in _nodes(onnx.load(path, load_external_data=False).graph))


def _nodes(graph: Any) -> list[Any]:
    """Return the nodes of a graph and of the graphs inside it."""
    inner = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*graph.node, *(node for each in inner for node in _nodes(each))]


def faults(ops: Counter[str], planned: Sequence[tuple[Recurrence, Plan]]) -> list[str]:
    """Require one native op per recurrent call that has one; see Writer.faults.

    A call that runs backwards may share its op with one that runs forwards: Bidirectional's two halves.
    """
    native = [recurrence for recurrence, plan in planned if plan.lowering == "native"]
    wanted = Counter(ONNX_OPS[recurrence.kind] for recurrence in native)
    shared = Counter(ONNX_OPS[recurrence.kind] for recurrence in native if recurrence.reverse)
    return [
        f"it holds {ops[op]} {op} op(s) for {wanted[op]} recurrent calls"
        for op in ONNX_OPS.values()
        if not wanted[op] - shared[op] <= ops[op] <= wanted[op]
    ]


def _conv3d(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write Conv3D with its groups, which tf2onnx has for two dimensions only."""
    shapes, last = [graph.get_shape(each) for each in node.input], node.get_attr_str("data_format") != "NCDHW"
    tf2onnx.onnx_opset.nn.ConvOp.version_13(graph, node)
    if all(shapes):
        node.set_attr("group", shapes[0][-1 if last else 1] // shapes[1][-2])


def _erfc(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write Erfc, which gelu is made of, as 1 - Erf: tf2onnx has no form for it."""
    [x], [output] = node.input, node.output
    nodes = _Nodes(graph, graph.get_dtype(x))
    graph.remove_node(node.name)
    graph.make_node("Sub", [nodes.number(1), nodes.op("Erf", [x])], outputs=[output], dtypes=[nodes.dtype])


def _where(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write SelectV2 of floats as Where: tf2onnx writes a sum of products, NaN where infinity is left out.

    Others as it does: ONNX Runtime has no Where for bool and int16.
    """
    if graph.get_dtype(node.output[0]) in FLOATS:
        node.type = "Where"
    else:
        tf2onnx.onnx_opset.controlflow.Select.version_7(graph, node)


def _floor_mod(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write FloorMod as Mod, its sign the divisor's: tf2onnx's is that of the dividend for integers, and inexact."""
    a, b = node.input
    [output] = node.output
    nodes = _Nodes(graph, graph.get_dtype(output))
    graph.remove_node(node.name)
    if nodes.dtype not in FLOATS:
        graph.make_node("Mod", [a, b], outputs=[output], dtypes=[nodes.dtype])
        return
    rest, zero = nodes.op("Mod", [a, b], fmod=1), nodes.number(0)
    apart = nodes.op("Xor", [nodes.op("Less", [rest, zero], BOOL), nodes.op("Less", [b, zero], BOOL)], BOOL)
    some = nodes.op("Not", [nodes.op("Equal", [rest, zero], BOOL)], BOOL)
    moved = nodes.op("Add", [rest, b])
    graph.make_node(
        "Where", [nodes.op("And", [some, apart], BOOL), moved, rest], outputs=[output], dtypes=[nodes.dtype]
    )


def _name_dims(graph: Any, signature: Signature) -> None:
    """Name the open dimensions of inputs and outputs as the contract does."""
    ports = {port.name: port for port in (*signature.inputs, *signature.outputs)}
    for value in (*graph.input, *graph.output):
        shape, wanted = value.type.tensor_type.shape.dim, ports[value.name].shape
        while len(shape) < len(wanted):  # tf2onnx doesn't know the rank of what a loop or a branch gives
            shape.add()
        for found, dim in zip(shape, wanted, strict=True):
            if not found.HasField("dim_value"):
                found.dim_param = str(dim)


def _weights(recurrence: Recurrence) -> list[Any]:
    """Return W [1, G U, F], R [1, G U, U] and B [1, 2 G U], gates in ONNX's order."""
    gates = GATES[recurrence.kind]
    order = "iofc" if recurrence.kind == "lstm" else gates
    biases = recurrence.bias if recurrence.reset_after else np.stack([recurrence.bias, np.zeros_like(recurrence.bias)])
    kernels = [reorder(kernel, gates, order).T[None] for kernel in (recurrence.kernel, recurrence.recurrent_kernel)]
    return [*kernels, reorder(biases, gates, order).reshape(1, -1)]


def _saturating(recurrence: Recurrence) -> float:
    """Return an input of an LSTM's gates that saturates them, whatever else they get.

    Within float16, in which some runtimes compute what is float32 here, unless h has no bound.
    """
    return 2.0**14 if recurrence.activation in BOUNDED or recurrence.dtype == "float16" else 2.0**100


def _attributes(recurrence: Recurrence) -> dict[str, Any]:
    """Return the node's attributes: functions of the gates first, then of the candidate and, for an LSTM, of c."""
    names = {
        "lstm": ("recurrent_activation", "activation", "activation"),
        "gru": ("recurrent_activation", "activation"),
    }
    used = [ACTIVATIONS[getattr(recurrence, name)].onnx for name in names.get(recurrence.kind, ("activation",))]
    functions = [function for function in used if function is not None]
    alphas, betas = ([values[k] for values in functions if values[k] is not None] for k in (1, 2))
    attributes = {"hidden_size": recurrence.units, "activations": [name for name, _, _ in functions]}
    others = {"activation_alpha": alphas, "activation_beta": betas, "linear_before_reset": int(recurrence.reset_after)}
    return {**attributes, **{name: value for name, value in others.items() if value}}


def _resize(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write a resize to a size: tf2onnx gives a scale where it knows the shape, whose rounding may cost a pixel."""
    x = node.input[0]
    open_shape = graph.make_node("Identity", [x], shapes=[[-1] * 4], dtypes=[graph.get_dtype(x)])
    graph.replace_input(node, x, open_shape.output[0], 0)
    tf2onnx.onnx_opset.nn.Resize.version_11(graph, node)


def _scatter(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write ScatterNd with what goes to one place added up: tf2onnx's keeps the last."""
    tf2onnx.onnx_opset.tensor.ScatterND.version_11(graph, node)
    node.type = "ScatterND"
    node.set_attr("reduction", "add")


def _split(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write Split with its sizes: ONNX Runtime takes two of one tensor for one, whatever parts they have."""
    parts, axis = len(node.output), node.inputs[0].get_tensor_value()
    tf2onnx.onnx_opset.tensor.Split.version_13(graph, node)
    x, nodes = node.input[0], _Nodes(graph, INT64)
    shape = graph.get_shape(x)
    if shape and shape[axis] > 0:
        sizes = nodes.const([shape[axis] // parts] * parts)
    else:
        size = nodes.op("Gather", [nodes.op("Shape", [x]), nodes.const([axis])])
        sizes = nodes.op("Expand", [nodes.op("Div", [size, nodes.const([parts])]), nodes.const([parts])])
    graph.replace_inputs(node, [x, sizes])


def _top_k(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write TopKV2 in the numbers' own type where ONNX Runtime has it: tf2onnx makes floats of large integers."""
    (x, k), (values, indices) = node.input, node.output
    dtype, counted = graph.get_dtype(x), graph.get_dtype(indices)
    if dtype not in (INT32, INT64, onnx.TensorProto.DOUBLE):
        node.type = "TopK"
        tf2onnx.onnx_opset.tensor.TopKV2.any_version_after10(OPSET, graph, node)
        return
    nodes = _Nodes(graph, dtype)
    graph.remove_node(node.name)
    count = nodes.op("Unsqueeze", [nodes.op("Cast", [k], INT64, to=INT64), nodes.const([0])], INT64)
    places = tf2onnx.utils.make_name(indices)
    graph.make_node("TopK", [x, count], outputs=[values, places], dtypes=[dtype, INT64])
    graph.make_node("Cast", [places], attr={"to": counted}, outputs=[indices], dtypes=[counted])


def _refused(graph: Any, node: Any, name: str, args: Any) -> None:
    """Leave an operation as it is, so that it is refused by its name."""


HANDLERS = {
    "CTCGreedyDecoder": _refused,
    "Conv3D": _conv3d,
    "Erfc": _erfc,
    "FloorMod": _floor_mod,
    "ResizeArea": _refused,
    "ResizeBicubic": _refused,
    "ResizeBilinear": _resize,
    "ResizeNearestNeighbor": _resize,
    "ScatterNd": _scatter,
    "SelectV2": _where,
    "Split": _split,
    "SparseSoftmaxCrossEntropyWithLogits": _refused,
    "TopKV2": _top_k,
}
"""TensorFlow operation -> what writes it in ONNX, where tf2onnx has no form for it or a wrong one."""


class _Nodes:
    """The ONNX nodes that take a placeholder's place in a tf2onnx graph."""

    def __init__(self, graph: Any, dtype: int) -> None:
        """Write into a graph; dtype is the ONNX type that floats have."""
        self.graph, self.dtype = graph, dtype

    def replace(self, node: Any, recurrence: Recurrence) -> None:
        """Replace a placeholder (x, states..., [mask]) -> (sequences, states...) by the native op."""
        x, *rest = node.input
        states, mask = rest[: len(recurrence.states)], rest[len(recurrence.states) :]
        ports = list(node.output)
        self.graph.remove_node(node.name)
        if mask:
            results = self.masked(recurrence, x, states, *mask)
        else:
            direction = {"direction": "reverse"} if recurrence.reverse else {}
            first = [self.op("Unsqueeze", [state, self.const([0])]) for state in states]
            outputs, finals = self.native(recurrence, x, _weights(recurrence), "", first, **direction)
            results = [self.op("Transpose", [outputs], perm=[1, 0, 2]), *finals]
        for value, port in zip(results, ports, strict=True):
            self.graph.make_node("Identity", [value], outputs=[port], dtypes=[self.dtype])

    def masked(self, recurrence: Recurrence, x: str, states: Sequence[str], mask: str) -> list[str]:
        """Run the valid steps one after the other and put their outputs back in place.

            mask      1  0  1  1  0
            place     1  1  2  3  3     counted from the end where time runs backwards
            x         x0 x2 x3 .  .     in that order, then run forwards
            outputs   h  y1 y2 y3 .  .  after the initial state
            sequences y1 y1 y2 y3 y3

        ONNX Runtime stops at sequence_lens; others may run on. So h is the sequences' last one, whatever the op gives,
        and an LSTM's c is held by its own gates, see `hold`.

        Returns:
            Sequences and final states.
        """
        held = holds(recurrence)
        mask = self.op("Unsqueeze", [mask, self.const([2])], BOOL)  # [B, T, 1], like all places
        valid = self.op("Cast", [mask], INT64, to=INT64)
        before = self.op("CumSum", [valid, self.const(1)], INT64, exclusive=1, reverse=int(recurrence.reverse))
        place = self.op("Add", [before, valid], INT64)
        total = self.op("ReduceMax", [place], INT64, axes=[1, 2], keepdims=0)  # [B]
        weights, steps, counts = _weights(recurrence), self.order(recurrence, mask, before), total
        if held:
            x, weights[0] = self.hold(recurrence, x, weights[0])
            counts = self.op("Max", [total, self.const(1)], INT64)  # for no step ONNX Runtime gives zeros
        counts = self.op("Cast", [counts], INT32, to=INT32)
        x = self.op("GatherND", [x, steps], batch_dims=1)
        first = [self.op("Unsqueeze", [state, self.const([0])]) for state in states]
        outputs, finals = self.native(recurrence, x, weights, counts, first)
        outputs = self.op("Transpose", [self.op("Concat", [first[0], outputs], axis=0)], perm=[1, 0, 2])
        sequences = self.op("GatherND", [outputs, place], batch_dims=1)
        finals[0] = self.op("Gather", [sequences, self.const(0 if recurrence.reverse else -1)], axis=1)
        if recurrence.kind == "lstm" and not held:
            some = self.op("Greater", [self.op("Unsqueeze", [total, self.const([1])], INT64), self.const(0)], BOOL)
            finals[1] = self.op("Where", [some, finals[1], states[1]])
        return [sequences, *finals]

    def order(self, recurrence: Recurrence, mask: str, before: str) -> str:
        """Return the time steps of each row [B, T, 1], valid ones first, in the order they are run.

        Not every runtime's TopK keeps the order of equal keys: no two valid steps have the same.

        Args:
            recurrence: If it holds its states, each masked step becomes T, the row that `hold` adds.
            mask: [B, T, 1].
            before: How many valid steps are run before each, [B, T, 1].
        """
        total = self.op("Shape", [before], INT64, start=1, end=2)
        if recurrence.reverse:
            before = self.op("Sub", [before, self.const(BEYOND)], INT64)
        keys = self.op("Where", [mask, before, total], INT64)
        top = self.graph.make_node(
            "TopK", [keys, total], attr={"axis": 1, "largest": 0}, output_count=2, dtypes=[INT64, INT64]
        )
        keys, steps = top.output
        if not holds(recurrence):
            return str(steps)
        return self.op("Max", [keys, steps], INT64)  # a valid step's key is never more than the step

    def hold(self, recurrence: Recurrence, x: str, kernel: Any) -> tuple[str, Any]:
        """Return x [B, T + 1, F + 1] and W: step T keeps an LSTM's c.

        It is all ones; the added feature is 0 elsewhere and so has weights that hold the forget gate open there and
        the others shut, whatever h is and whatever a masked x.
        """
        dtype, size = kernel.dtype, _saturating(recurrence)
        wide = self.op("Pad", [x, self.const([0, 0, 0, 0, 0, 1])])
        longer = self.op("Pad", [wide, self.const([0, 0, 0, 0, 1, 0]), self.number(1)])
        others = kernel.sum(axis=2)  # what the other features of that row, 1 as well, add
        wanted = np.repeat(np.array([-size, -size, size, 0], dtype), recurrence.units)  # gates i o f c
        return longer, np.concatenate([kernel, (wanted - others)[..., None]], axis=2)

    def native(
        self,
        recurrence: Recurrence,
        x: str,
        weights: Sequence[Any],
        counts: str,
        first: Sequence[str],
        **direction: str,
    ) -> tuple[str, list[str]]:
        """Add the op that runs x [B, T, F] from the states [1, B, U]; return outputs [T, B, U] and final states."""
        made = self.graph.make_node(
            ONNX_OPS[recurrence.kind],
            [self.op("Transpose", [x], perm=[1, 0, 2]), *map(self.const, weights), counts, *first],
            attr={**_attributes(recurrence), **direction},
            output_count=1 + len(first),
            dtypes=[self.dtype] * (1 + len(first)),
        )
        y, *last = made.output
        finals = [self.op("Squeeze", [final, self.const([0])]) for final in last]
        return self.op("Squeeze", [y, self.const([1])]), finals

    def number(self, value: int) -> str:
        """Add a number of the graph's floats."""
        return self.const(value, onnx.helper.tensor_dtype_to_np_dtype(self.dtype))

    def op(self, kind: str, inputs: Sequence[str], dtype: int | None = None, **attributes: Any) -> str:
        """Add a node with one output, of the graph's floats unless told, and return that."""
        return str(self.graph.make_node(kind, list(inputs), attr=attributes, dtypes=[dtype or self.dtype]).output[0])

    def const(self, value: Any, dtype: Any = None) -> str:
        """Add a constant; plain integers become int64."""
        array = np.ascontiguousarray(np.asarray(value, dtype or (None if isinstance(value, np.ndarray) else np.int64)))
        shaped = array.reshape(np.shape(value))  # ascontiguousarray makes scalars 1-d
        return str(self.graph.make_const(tf2onnx.utils.make_name("export_lstm"), shaped).output[0])
