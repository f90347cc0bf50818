"""Random feeds for ports: what every trial, check and timing is made on."""

from collections.abc import Iterable, Mapping

import numpy as np

from .ports import TIME, Array, Port

HOLES = 0.2
"""Share of time steps that are all zero, so that a model with a Masking layer has something to mask."""


def random_feeds(
    ports: Iterable[Port], dims: Mapping[str, int], rng: np.random.Generator, plain: bool = False
) -> dict[str, Array]:
    """Draw feeds for input ports: normal floats, integers below the port's bound, lengths from 0 to T.

    Args:
        ports: What to draw.
        dims: Dimension -> size.
        rng: Where the numbers come from.
        plain: Whether every time step is valid, none zero, and states are as a stream starts.
    """
    feeds: dict[str, Array] = {}
    for port in ports:
        shape = [int(d) for d in port.sized(dims)]
        if port.role == "lengths":
            drawn = np.full(shape, dims[TIME]) if plain else rng.integers(0, dims[TIME] + 1, shape)
        elif port.role == "state" and plain:
            drawn = port.at_start(dims)
        elif np.issubdtype(np.dtype(port.dtype), np.integer) and port.scale is None:
            drawn = rng.integers(0, port.below or 2, shape)
        else:
            drawn = rng.standard_normal(shape)
            if port.time_axis is not None and port.role == "input" and not plain:
                steps = np.moveaxis(drawn, port.time_axis, 1)
                steps[rng.random(steps.shape[:2]) < HOLES] = 0
        feeds[port.name] = port.stored(drawn).astype(port.dtype)
    return feeds
