"""A float32 TFLite file as one of integers: `step` alone, its states on one scale where they leave and come back.

    int16x8   weights int8, all else int16
    int8      the same, but states that products read are int8 where they leave and come back: h and pasts, not c
    precise   weights int16, too

Scales are those of recordings that stream through the float32 graph, see calibrate.py and scales.py; weights are
rounded so that their products change least on these, see targets/rounding.py. An op that has no integer kernel is run
in float32 between two conversions; one that nothing here knows is refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from signatures.contract import Contract
from signatures.errors import UnsupportedModel
from signatures.ports import Feeds, Port, Signature

from ...rounding import Rounded
from ..graph import Graph, Tensor, read, written
from ..rewrite import rewritten
from .calibrate import calibrated
from .emit import KNOWN, Emitter, make
from .joined import joined
from .products import Product, is_product, sums
from .scales import LAYOUT, scales
from .weights import product, rounded

NESTED = {"CALL", "CALL_ONCE", "CUSTOM", "IF", "WHILE"}
"""Ops that run other graphs, or code that isn't TFLite's."""

WIDER = 256
"""int16 numbers for each int8 one where a state is int8: those it holds are then int16 numbers, too, exactly."""


def of_integers(
    content: bytes, contract: Contract, scheme: str, precise: bool, recordings: Sequence[Feeds]
) -> tuple[bytes, Contract]:
    """Return a float32 file of ours as one of integers, and a contract that fits it; `write.embed` joins them.

    Args:
        content: What `write` made for one sample a call, with a signature `step`.
        contract: Of this file.
        scheme: "int8" or "int16x8", see above.
        precise: Whether weights are int16.
        recordings: Input port -> array [1, T, ...], each from the start of a stream; inputs without a time axis as they
            are.

    Raises:
        UnsupportedModel: When the model has no step, or an op of it no integer form.
        FeedError: When recordings don't fit the model's inputs.
    """
    step = contract.signatures.get("step")
    if step is None:
        raise UnsupportedModel(
            f"{scheme} runs a stream step by step, and this model has no step: {contract.no_step}\n"
            "  Give float16 or dynamic, or leave --quantize out."
        )
    contract = replace(contract, signatures={"step": step})
    graph = rewritten(read(content, "step"))
    _check(graph)
    carried = _carried(graph, step, scheme)
    found = sums(graph)
    calibration = calibrated(graph, contract, recordings, found)
    narrow = {key for key, dtype in carried.items() if dtype == "int8"}
    on = scales(graph, step, calibration.most, narrow, precise)
    if not precise:
        graph, found, calibration = joined(graph, found, calibration, on)
        on = scales(graph, step, calibration.most, narrow, precise)
    emitter = Emitter(on)
    states = {name for carry in step.carries for name in (carry.input, carry.output)}
    outside = contract.quantized is not None and contract.quantized.io == "float"
    floats = {*graph.inputs, *graph.outputs} - states if outside else set()
    weights = {} if precise else rounded(found, calibration.inputs)
    made = _made(graph, emitter, carried, floats, weights)
    return written(made, "step"), replace(contract, signatures={"step": _typed(step, made)})


def _check(graph: Graph) -> None:
    """Refuse a graph with an op that has no form among integers.

    Raises:
        UnsupportedModel: Naming the op.
    """
    for op in graph.ops:
        numbers = any(each.floating for each in (*op.reads, *op.outputs))
        if (numbers and not is_product(op) and op.kind not in KNOWN) or op.kind in NESTED:
            loop = "--lowering unrolled, " if op.kind == "WHILE" else ""
            raise UnsupportedModel(
                f"op {op.kind} has no form in int8 and int16x8, which a step of this model needs.\n"
                f"  Give {loop}float16 or dynamic, or leave --quantize out."
            )


def _carried(graph: Graph, step: Signature, scheme: str) -> dict[int, str]:
    """Choose the types of states.

    One that is itself and what comes, a sum or a mean, is float32: the one has no largest value, the other changes by
    less and less. Where there are int8 states, they are those that a product reads, whose weights are as coarse.

    Returns:
        Where a state of floats goes in or comes out, a tensor's id -> the type it has there.
    """
    types = {}
    for carry in step.carries:
        inside, outside = graph.inputs[carry.input], graph.outputs[carry.output]
        maker = graph.maker(outside)
        if not inside.floating:
            continue
        if maker is not None and maker.kind == "ADD" and any(each is inside for each in maker.reads):
            kind = "float32"
        else:
            kind = "int8" if scheme == "int8" and _multiplied(graph, inside) else "int16"
        types[id(inside)] = types[id(outside)] = kind
    return types


def _multiplied(graph: Graph, tensor: Tensor) -> bool:
    """Whether a product with a constant reads a tensor, or a part of it, as it is."""
    readers = graph.readers(tensor)
    parts = [each for op in readers if op.kind in LAYOUT for each in op.outputs]
    return any(map(is_product, readers)) or any(_multiplied(graph, each) for each in parts)


def _made(
    graph: Graph, emitter: Emitter, carried: Mapping[int, str], floats: Collection[str], weights: Mapping[int, Rounded]
) -> Graph:
    """Return the graph of integers; the ports that `floats` names are float32, and others that an op gives so."""
    inputs = {}
    for name, tensor in graph.inputs.items():
        usual = "float32" if name in floats else "int16"
        dtype = carried.get(id(tensor), usual) if tensor.floating else tensor.dtype
        inputs[name] = Tensor(tensor.shape, dtype, scale=_scale(emitter, tensor, dtype))
        emitter.given(tensor, inputs[name])
        if name in floats and tensor.floating:  # what reads it is of integers all the same
            emitter.native[id(tensor)] = emitter.integer(tensor)
    for op in graph.ops:
        if is_product(op):
            product(emitter, Product(op), weights)
        else:
            make(emitter, op, floating=any(carried.get(id(each)) == "float32" for each in op.reads))
    outputs = {}
    for name, tensor in graph.outputs.items():
        usual = "float32" if not tensor.floating or emitter.native[id(tensor)].floating else "int16"
        dtype = "float32" if name in floats else carried.get(id(tensor), usual)
        scale = _scale(emitter, tensor, dtype)
        outputs[name] = emitter.plain(tensor) if scale is None else emitter.integer(tensor, scale, dtype)
    return Graph(inputs, outputs, emitter.ops).pruned()


def _scale(emitter: Emitter, tensor: Tensor, dtype: str) -> float | None:
    """Return what 1 stands for in a port."""
    if dtype not in ("int8", "int16"):
        return None
    scale = emitter.scales[id(tensor)]
    return scale * WIDER if dtype == "int8" else scale


def _typed(step: Signature, made: Graph) -> Signature:
    """Return the signature with the types and scales of a graph's ports."""

    def typed(port: Port, tensor: Tensor) -> Port:
        if tensor.scale is None:
            return port
        limits, scale = np.iinfo(tensor.dtype), float(np.float32(tensor.scale))
        initial = min(max(port.initial, limits.min * scale), limits.max * scale)
        return replace(port, dtype=tensor.dtype, scale=scale, zero_point=0, initial=initial)

    inputs = tuple(typed(port, made.inputs[port.name]) for port in step.inputs)
    outputs = tuple(typed(port, made.outputs[port.name]) for port in step.outputs)
    return replace(step, inputs=inputs, outputs=outputs)
