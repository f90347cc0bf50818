"""Operators that slide a window over an image: convolutions and pooling, as loops over where the window stands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .env import Emitter, Env, bias_of, data_of, plus, start
from .graph import Operator, Tensor
from .products import panels
from .text import VARIABLES, Lines, index, loops, packed


@dataclass(frozen=True)
class Axis:
    """One axis of a window.

    Attributes:
        size: Of the input.
        places: Where the window stands, the output's size.
        taps: Of the window.
        stride: Between two places.
        dilation: Between two taps.
        before: Padding before the first number.
    """

    size: int
    places: int
    taps: int
    stride: int
    dilation: int
    before: int

    @property
    def inside(self) -> bool:
        """Whether the window never stands on padding."""
        return self.before == 0 and (self.places - 1) * self.stride + (self.taps - 1) * self.dilation < self.size


def _axis(size: int, places: int, taps: int, stride: int, dilation: int, same: bool) -> Axis:
    around = max((places - 1) * stride + (taps - 1) * dilation + 1 - size, 0) if same else 0
    return Axis(size, places, taps, stride, dilation, around // 2)


def _axes(operator: Operator, x: Tensor, y: Tensor, taps: tuple[int, int]) -> tuple[Axis, Axis]:
    """Return the two axes of the window of an operator over images [N, H, W, C]."""
    options, same = operator.options, operator.options["padding"] == schema.Padding.SAME
    return tuple(  # type: ignore[return-value]
        _axis(
            x.shape[1 + k],
            y.shape[1 + k],
            taps[k],
            options[f"stride{side}"],
            options.get(f"dilation{side}Factor", 1),
            same,
        )
        for k, side in enumerate("HW")
    )


def _walk(
    images: int, axes: tuple[Axis, Axis], before: Callable[[str], Lines], tap: Callable[[str, str, str], Lines],
    after: Callable[[str], Lines] = lambda place: [], pixels: tuple[int, int] = (1, 1),
) -> Lines:  # fmt: skip
    """Return loops over the places of a window and its taps.

    Args:
        images: How many.
        axes: The two of the window.
        before: Given the number of a place, what is done first.
        tap: Given the number of a place, of a pixel under it and of the tap, what is done with it; not for padding.
        after: As before, at the end.
        pixels: Numbers of the input and output pixel, that their numbers are multiplied with.
    """
    high, wide = axes

    def place(v: list[str]) -> Lines:
        out = index(v, [n * pixels[1] for n in packed((images, high.places, wide.places))])
        used = sum(name != "0" for name in v)

        def under(taps: list[str]) -> Lines:
            rows = [
                index([v[1 + k], taps[k]], [axis.stride, axis.dilation], -axis.before) for k, axis in enumerate(axes)
            ]
            names, lines, tests = list(rows), Lines(), []
            for k, (axis, name) in enumerate(zip(axes, ("row", "column"), strict=True)):
                if not axis.inside:
                    lines.append(f"const int {name} = {rows[k]};")
                    names[k] = name
                    tests.append(f"{name} >= 0 && {name} < {axis.size}")
            area = high.size * wide.size
            terms = index([v[0]], [area * pixels[0]])
            at = _sum(terms, _times(names[0], wide.size * pixels[0]), _times(names[1], pixels[0]))
            inner = tap(out, at, index(taps, [wide.taps, 1]))
            if tests:
                return [*lines, f"if ({' && '.join(tests)}) {{", *("    " + each for each in inner), "}"]
            return inner

        return [*before(out), *loops([high.taps, wide.taps], under, used), *after(out)]

    return loops([images, high.places, wide.places], place)


def _times(term: str, factor: int) -> str:
    if term == "0" or factor == 1:
        return term
    return f"{factor} * ({term})" if " " in term else f"{factor} * {term}"


def _sum(*terms: str) -> str:
    return " + ".join(term for term in terms if term != "0") or "0"


def convolution(env: Env, operator: Operator) -> Lines:
    """CONV_2D: at each place, what dense_f32 makes of the pixels under each tap, or under a row of taps at once."""
    x, y = (env.graph.tensors[ends[0]] for ends in (operator.inputs, operator.outputs))
    kernel = data_of(env, operator, operator.inputs[1], "the kernel")
    filters, *taps, taken = kernel.shape
    high, wide = _axes(operator, x, y, (taps[0], taps[1]))
    groups, channels = x.shape[-1] // taken, x.shape[-1]
    weights = kernel.transpose(1, 2, 3, 0)
    if groups == 1 and wide.dilation == 1 and wide.inside:  # a row of taps lies together
        weights = weights.reshape(taps[0], 1, taps[1] * taken, filters)
        taken, wide = taken * taps[1], Axis(wide.size, wide.places, 1, wide.stride, 1, 0)
    parts = weights.reshape(weights.shape[0] * weights.shape[1], taken, groups, filters // groups)
    flat = np.concatenate([panels(tap[:, group]) for tap in parts for group in range(groups)])
    constant = env.constant(flat, f"{env.name(operator.outputs[0])}_weights")
    source, into, bias = env.at(operator.inputs[0]), env.at(operator.outputs[0]), bias_of(env, operator, 2)
    own = filters // groups

    def tap(out: str, at: str, number: str) -> Lines:
        return [
            f"dense_f32({plus(source, _sum(at, str(group * taken)))}, {taken},"
            f" {plus(constant, _sum(_times(number, taken * filters), str(group * taken * own)))}, {own},"
            f" {plus(into, _sum(out, str(group * own)))});"
            for group in range(groups)
        ]

    return _walk(
        x.shape[0], (high, wide), lambda out: [start(into, bias, filters, out)], tap, pixels=(channels, filters)
    )


def depthwise(env: Env, operator: Operator) -> Lines:
    """DEPTHWISE_CONV_2D: each channel by itself."""
    x, y = (env.graph.tensors[ends[0]] for ends in (operator.inputs, operator.outputs))
    kernel = data_of(env, operator, operator.inputs[1], "the kernel")
    _, *taps, filters = kernel.shape
    channels, source, into = x.shape[-1], env.at(operator.inputs[0]), env.at(operator.outputs[0])
    weights = env.constant(np.ravel(kernel), f"{env.name(operator.outputs[0])}_weights")
    each = filters // channels

    def tap(out: str, at: str, number: str) -> Lines:
        w = _times(number, filters)

        def one(v: list[str]) -> Lines:
            to = index(v, [each, 1])
            places = into.at(_sum(out, to)), source.at(_sum(at, v[0])), weights.at(_sum(w, to))
            return [f"{places[0]} += {places[1]} * {places[2]};"]

        return loops([channels, each], one, _depth(out, number, at))

    bias = bias_of(env, operator, 2)
    axes = _axes(operator, x, y, (taps[0], taps[1]))
    return _walk(x.shape[0], axes, lambda out: [start(into, bias, filters, out)], tap, pixels=(channels, filters))


def _depth(*expressions: str) -> int:
    """Return how many loops there are around expressions of their variables: up to the last one that is in them."""
    words = {word for each in expressions for word in each.replace("(", " ").replace(")", " ").split()}
    return max((k + 1 for k, name in enumerate(VARIABLES) if name in words), default=0)


def pool(env: Env, operator: Operator) -> Lines:
    """AVERAGE_POOL_2D, of the pixels that aren't padding, and MAX_POOL_2D."""
    x, y = (env.graph.tensors[ends[0]] for ends in (operator.inputs, operator.outputs))
    source, into, channels = env.at(operator.inputs[0]), env.at(operator.outputs[0]), x.shape[-1]
    axes = _axes(operator, x, y, (operator.options["filterHeight"], operator.options["filterWidth"]))
    mean = operator.kind == "AVERAGE_POOL_2D"
    fixed = all(axis.inside for axis in axes)
    first = "0.0f" if mean else "-INFINITY"

    def each(out: str, what: Callable[[str, str], str]) -> Lines:
        return loops([channels], lambda v: [what(into.at(_sum(out, v[0])), v[0])], _depth(out))

    def before(out: str) -> Lines:
        return [*([] if fixed or not mean else ["int pixels = 0;"]), *each(out, lambda to, c: f"{to} = {first};")]

    def tap(out: str, at: str, number: str) -> Lines:
        def one(v: list[str]) -> Lines:
            to, taken = into.at(_sum(out, v[0])), source.at(_sum(at, v[0]))
            return [f"{to} += {taken};" if mean else f"{to} = {to} < {taken} ? {taken} : {to};"]

        count = [] if fixed or not mean else ["pixels++;"]
        return [*count, *loops([channels], one, _depth(out, at, number))]

    def after(out: str) -> Lines:
        count = f"{axes[0].taps * axes[1].taps}.0f" if fixed else "(float)pixels"
        return each(out, lambda to, c: f"{to} /= {count};") if mean else []

    return _walk(x.shape[0], axes, before, tap, after, pixels=(channels, channels))


def transposed(env: Env, operator: Operator) -> Lines:
    """TRANSPOSE_CONV: each pixel adds to all places that its window reaches."""
    _, kernel_, source_ = operator.inputs[:3]
    x, y = env.graph.tensors[source_], env.graph.tensors[operator.outputs[0]]
    kernel = data_of(env, operator, kernel_, "the kernel")
    filters, *taps, channels = kernel.shape
    source, into, bias = env.at(source_), env.at(operator.outputs[0]), bias_of(env, operator, 3)
    weights = kernel.transpose(1, 2, 3, 0).reshape(-1, channels, filters)
    constant = env.constant(
        np.concatenate([panels(tap) for tap in weights]), f"{env.name(operator.outputs[0])}_weights"
    )
    same = operator.options["padding"] == schema.Padding.SAME
    axes = tuple(  # the same window over the output, whose places are the input's pixels
        _axis(y.shape[1 + k], x.shape[1 + k], taps[k], operator.options[f"stride{side}"], 1, same)
        for k, side in enumerate("HW")
    )
    begin = loops([y.size // filters], lambda v: [start(into, bias, filters, index(v, [filters]))])

    def tap(out: str, at: str, number: str) -> Lines:
        w = plus(constant, _times(number, channels * filters))
        return [f"dense_f32({plus(source, out)}, {channels}, {w}, {filters}, {plus(into, at)});"]

    return [*begin, *_walk(x.shape[0], (axes[0], axes[1]), lambda out: [], tap, pixels=(filters, channels))]


WINDOWS: Mapping[str, Emitter] = {
    "AVERAGE_POOL_2D": pool,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "MAX_POOL_2D": pool,
    "TRANSPOSE_CONV": transposed,
}
"""Operator -> what writes it."""
