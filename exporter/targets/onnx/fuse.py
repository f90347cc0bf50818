"""Make a convolution over time one node, with what is added to and multiplied with each channel after it.

    Given   Unsqueeze -> Conv [N, C, 1, k] -> Squeeze -> Add (bias) -> Mul -> Add (normalization)
    Result  Conv [N, C, k] with a bias

A runtime does the same for convolutions over two axes; between Unsqueeze and Squeeze it doesn't see it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .halves import reads

Array = NDArray[Any]


class Fuser:
    """A graph whose convolutions are fused, in place."""

    def __init__(self, graph: Any) -> None:
        """Look up what makes and what reads each tensor."""
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {output: node for node in graph.node for output in node.output}
        self.outputs = {value.name for value in graph.output}

    def fuse(self) -> None:
        """Fuse what can be fused, and leave out what nothing reads any more."""
        for conv in [node for node in self.graph.node if node.op_type == "Conv" and node.input[1] in self.constants]:
            self._flatten(conv)
            while self._absorb(conv):
                pass
        while self._prune():
            pass
        for value in [value for value in self.graph.value_info if value.name not in self.makers]:
            self.graph.value_info.remove(value)

    def _flatten(self, conv: Any) -> None:
        """Have a convolution over one of two axes, the other of size 1, be one over one axis."""
        before, after = self.makers.get(conv.input[0]), self._reader(conv.output[0])
        weights = self._value(conv.input[1])
        if before is None or after is None or weights.ndim != 4 or weights.shape[2] != 1:
            return
        given = self.makers.get(before.input[0]) if before.op_type == "Transpose" else None
        if self._axes(before, "Unsqueeze") == [2]:
            source = before.input[0]
        elif given is not None and _perm(before) == [0, 3, 1, 2] and self._axes(given, "Unsqueeze") == [1]:
            source = self._transposed(given.input[0], conv)
        else:
            return
        if self._axes(after, "Squeeze") == [2]:
            last, back = after, False
        else:
            found = self._reader(after.output[0]) if _perm(after) == [0, 2, 3, 1] else None
            if found is None or self._axes(found, "Squeeze") != [1]:
                return
            last, back = found, True
        conv.input[0] = source
        conv.input[1] = self._constant(f"{conv.output[0]}_kernel", weights[:, :, 0])
        for attribute in conv.attribute:
            if attribute.name in ("dilations", "strides", "kernel_shape"):
                del attribute.ints[0]
            elif attribute.name == "pads":
                attribute.ints[:] = attribute.ints[1::2]
        output = last.output[0]
        last.output[0] = f"{output}_apart"
        if back:
            conv.output[0] = f"{output}_channels"
            self._add(helper.make_node("Transpose", [conv.output[0]], [output], perm=[0, 2, 1]), conv, later=True)
        else:
            conv.output[0] = output
        self.makers[conv.output[0]] = conv

    def _absorb(self, conv: Any) -> bool:
        """Have a convolution do what its only reader does to each channel; whether there was such a reader."""
        after, weights = self._reader(conv.output[0]), self._value(conv.input[1])
        if after is None or after.op_type not in ("Add", "Mul"):
            return False
        [other] = [name for name in after.input if name != conv.output[0]] or [""]
        by = self._by_channel(other, weights)
        if by is None:
            return False
        bias = self._value(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(len(weights))
        exact = weights.astype(np.float64)
        if after.op_type == "Mul":
            exact, bias = exact * by.reshape(-1, *[1] * (weights.ndim - 1)), bias * by
            conv.input[1] = self._constant(f"{after.output[0]}_kernel", exact.astype(weights.dtype))
        else:
            bias = bias.astype(np.float64) + by
        del conv.input[2:]
        conv.input.append(self._constant(f"{after.output[0]}_bias", bias.astype(weights.dtype)))
        output = after.output[0]
        after.output[0] = f"{output}_apart"
        conv.output[0] = output
        self.makers[output] = conv
        return True

    def _by_channel(self, name: str, weights: Array) -> Array | None:
        """Return a constant's number for each channel; None where it isn't one that has such."""
        if name not in self.constants:
            return None
        value = self._value(name).astype(np.float64)
        shape = (1,) * (weights.ndim - value.ndim) + value.shape
        if value.ndim > weights.ndim or any(size > 1 for axis, size in enumerate(shape) if axis != 1):
            return None
        return np.broadcast_to(value.reshape(-1), len(weights)) if shape[1] in (1, len(weights)) else None

    def _reader(self, name: str) -> Any:
        """Return the only node that reads a tensor; None where there are others, or the graph gives it."""
        readers = [node for node in self.graph.node if name in reads(node)]
        one = len(readers) == 1 and list(readers[0].input).count(name) == 1 and name not in self.outputs
        return readers[0] if one else None

    def _axes(self, node: Any, kind: str) -> Sequence[int] | None:
        """Return the axes of a Squeeze from, or an Unsqueeze to, four axes; None for another node."""
        if node.op_type != kind or len(node.input) < 2 or node.input[1] not in self.constants:
            return None
        return [int(axis) % 4 for axis in self._value(node.input[1])]

    def _transposed(self, name: str, before: Any) -> str:
        node = helper.make_node("Transpose", [name], [f"{before.output[0]}_rows"], perm=[0, 2, 1])
        self._add(node, before)
        return str(node.output[0])

    def _add(self, node: Any, beside: Any, later: bool = False) -> None:
        place = next(k for k, each in enumerate(self.graph.node) if each is beside or each == beside)
        self.graph.node.insert(place + later, node)
        self.makers[node.output[0]] = node

    def _value(self, name: str) -> Array:
        value: Array = numpy_helper.to_array(self.constants[name])
        return value

    def _constant(self, name: str, value: Array) -> str:
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name

    def _prune(self) -> bool:
        """Leave out nodes and constants that nothing reads; whether there were any nodes."""
        read = Counter(name for node in self.graph.node for name in reads(node)) + Counter(self.outputs)
        idle = [node for node in self.graph.node if not any(read[name] for name in node.output)]
        for node in idle:
            self.graph.node.remove(node)
            for output in node.output:
                self.makers.pop(output, None)
        for tensor in [tensor for tensor in self.graph.initializer if not read[tensor.name]]:
            self.graph.initializer.remove(tensor)
        return bool(idle)


def _perm(node: Any) -> list[int] | None:
    found = (attribute.ints for attribute in node.attribute if attribute.name == "perm")
    return list(next(found, [])) if node.op_type == "Transpose" else None
