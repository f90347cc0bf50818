"""Which calls of attention layers look into the past alone, and how far: what a cache of time steps can stand for."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from signatures.errors import UnsupportedModel

from .. import inside
from ..memory.attention import HEADS, PLAIN, Cache, part, window_of
from .remember import Watched

CACHED = (*HEADS, *PLAIN)
"""The layers that attend."""

MASKS = ("mask", "query_mask", "value_mask", "key_mask")
"""Arguments that tell which time steps count."""

PLACES = {"inputs_0": "query", "inputs_1": "value", "inputs_2": "key"}
"""What the tensors are that Attention and AdditiveAttention take in a list."""


class Uncached(UnsupportedModel):
    """A layer that attends to all time steps so far can be streamed with a cache of the last ones alone."""


def cached(entry: Watched, timed: Sequence[bool], dtype: str, most: int | None) -> Cache | None:
    """Return what a call of an attention layer carries; None for another layer, or one that attends within a row.

    Args:
        entry: The call.
        timed: Which of its inputs have rows.
        dtype: Of its inputs, where the model computes in its own types.
        most: Rows that a cache may hold; None where none is given.

    Raises:
        Uncached: When it looks at all rows so far, and no number of them is given.
        UnsupportedModel: When it looks at others than those, or can't go on from a cache.
    """
    if type(entry.target) not in CACHED:
        return None
    roles, options = _given(entry)
    given = dict(zip(roles, entry.inputs, strict=True))
    with_rows = [role for role, has_rows in zip(roles, timed, strict=True) if has_rows]
    if not {"query", "value"} <= {*with_rows} or 1 not in _axes(entry.target, given["query"]):
        return None
    if (rank := len(given["query"].shape)) != 3:
        raise UnsupportedModel(
            f"{entry.what} attends to time steps of tensors with {rank} axes: give it [batch, time, features]"
        )
    mask, causal = given.get("attention_mask"), bool(options.get("use_causal_mask"))
    if mask is None and not causal:
        raise UnsupportedModel(
            f"{entry.what} attends to all time steps, those of the future too: call it with use_causal_mask=True"
        )
    reach = _reach(given["query"].shape[1], mask, causal)
    if reach is None:
        raise UnsupportedModel(
            f"{entry.what} attends to time steps by a mask that doesn't choose itself and the last ones before it"
        )
    if any(each is not None for name in MASKS for each in keras.tree.flatten(options.get(name))):
        raise UnsupportedModel(
            f"{entry.what} attends to time steps under a mask of the model's, whose gaps no cache keeps"
        )
    if options.get("return_attention_scores"):
        raise UnsupportedModel(
            f"{entry.what} gives its attention scores, which have a place for every time step so far: leave them out"
        )
    own = min([rows for rows in (reach, window_of(entry.target)) if rows], default=None)
    if own is None and most is None:
        raise Uncached(
            f"{entry.what} attends to all time steps so far: --attention-cache N lets it attend to the last N of them."
        )
    rows = own if own and own <= (most or own) else most
    assert rows is not None
    return Cache(entry.target, tuple(with_rows), rows, _rows(entry.target, given), dtype, rows == own)


def _given(entry: Watched) -> tuple[list[str], Mapping[str, Any]]:
    """Return what each tensor is that a layer is called with, and all its arguments by name."""
    args, kwargs = entry.given
    parameters = list(inside.arguments(entry.target))
    roles = []
    for path, value in keras.tree.flatten_with_path((args, {k: v for k, v in kwargs.items() if k != "mask"})):
        if keras.ops.is_tensor(value):
            by_name, place, *inner = path
            name = "_".join(map(str, [place if by_name else parameters[place], *inner]))
            roles.append(PLACES.get(name, name))
    return roles, {**dict(zip(parameters, args, strict=False)), **kwargs}


def _axes(layer: Any, query: Any) -> Sequence[int]:
    """Return the axes that a layer attends over."""
    return layer.get_config().get("attention_axes") or range(1, len(query.shape) - 1)


def _reach(rows: int, mask: Any, causal: bool) -> int | None:
    """Return how many rows each row looks at by the masks it is given: itself and those before, 0 for all of these.

    None where it looks at others.
    """
    place = np.arange(rows)
    apart = place[:, None] - place[None, :]
    seen = apart >= 0 if causal else np.ones((rows, rows), bool)
    if mask is not None:
        given = np.asarray(mask).astype(bool)
        if given.shape[-2:] != seen.shape:
            return None
        seen = given.reshape(-1, rows, rows) & seen
        if (seen != seen[0]).any():
            return None
        seen = seen[0]
    reach = int(seen[-1].sum())
    if not reach or (seen != ((apart >= 0) & (apart < reach))).any():
        return None
    return 0 if reach == rows else reach


def _rows(layer: Any, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of a row of each state."""
    if type(layer) in PLAIN:
        raw = {"keys": given.get("key"), "values": given["value"]}
        return {short: tuple(x.shape[2:]) for short, x in raw.items() if x is not None}
    return {short: tuple(part(layer, short).kernel.shape[1:]) for short in ("keys", "values")}
