"""Round weights to 8 bits so that the product with real inputs stays what it was, rather than each weight.

The rounding error of one weight is made up for by the weights that are rounded after it, by the inputs that a recording
gives them: each row's error is spread over the others along the inverse Hessian X'X of the squared error of the
product (E. Frantar et al., GPTQ, 2022, arXiv:2210.17323, section 3; the inverse by Cholesky, step 3 there). Then each
is rounded again, given all others: coordinate descent on the same error.
"""

from dataclasses import dataclass

import numpy as np

from signatures.ports import Array
from signatures.quality import HUGE

MOST = 127
"""The largest integer: the ranges of int8 are symmetric in every runtime."""

PASSES = 3
"""How often each weight is rounded again, given all others: on the example it gains 0.9 dB of h, ten times no more."""

BLOCK = 64
"""Rows whose errors are spread over all later ones at once, as one product of matrices."""

DAMPING = 1e-4
"""Share of the Hessian's mean diagonal that is added to it, so that inputs that never vary have an inverse, too."""


@dataclass(frozen=True)
class Rounded:
    """A matrix in 8 bits.

    Attributes:
        values: [K, N], int8.
        scale: Of each output, [N], float32.
    """

    values: Array
    scale: Array

    @property
    def real(self) -> Array:
        """The numbers it stands for, [K, N], float64."""
        return self.values.astype(np.float64) * self.scale.astype(np.float64)


def scales(weights: Array) -> Array:
    """Return the number that 1 stands for of each output [N], float32, of weights [..., N]."""
    most = np.abs(weights.reshape(-1, weights.shape[-1])).max(axis=0, initial=0.0) / MOST
    return np.where(most > np.finfo(np.float32).tiny, most, 1.0).astype(np.float32)


def nearest(weights: Array) -> Rounded:
    """Round each weight [..., N] by itself."""
    scale = scales(weights)
    return Rounded(np.clip(np.rint(weights / scale.astype(np.float64)), -MOST, MOST).astype(np.int8), scale)


def compensated(weights: list[Array], inputs: list[Array]) -> list[Rounded]:
    """Round matrices whose products are added, together.

    Args:
        weights: Each [K, N], the same N.
        inputs: What each is multiplied with, [n, K], row i of all at the same time.

    Returns:
        One for each matrix.
    """
    whole, seen = np.concatenate(weights).astype(np.float64), np.concatenate(inputs, axis=1).astype(np.float64)
    seen = seen[(np.abs(seen) < HUGE).all(axis=1)]
    scale = np.concatenate([np.broadcast_to(scales(each).astype(np.float64), each.shape) for each in weights])
    hessian = seen.T @ seen / max(len(seen), 1)
    hessian += ((DAMPING * np.trace(hessian) / len(hessian)) or 1.0) * np.eye(len(hessian))
    values = _refined(whole, scale, hessian, _spread(whole, scale, hessian))
    ends = np.cumsum([len(each) for each in weights])[:-1]
    return [Rounded(part, scales(each)) for part, each in zip(np.split(values, ends), weights, strict=True)]


def _spread(whole: Array, scale: Array, hessian: Array) -> Array:
    """Round row after row, the largest inputs first, and spread the error of each over those that follow."""
    order = np.argsort(-np.diag(hessian), kind="stable")
    spread = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    left, values = whole[order], np.zeros(whole.shape)
    for first in range(0, len(order), BLOCK):
        block = range(first, min(first + BLOCK, len(order)))
        errors = np.zeros((len(block), whole.shape[1]))
        for k in block:
            row = order[k]
            values[row] = np.clip(np.rint(left[k] / scale[row]), -MOST, MOST)
            errors[k - first] = (left[k] - values[row] * scale[row]) / spread[k, k]
            left[k + 1 : block.stop] -= np.outer(spread[k, k + 1 : block.stop], errors[k - first])
        left[block.stop :] -= spread[first : block.stop, block.stop :].T @ errors  # of all of them at once
    return values


def _refined(whole: Array, scale: Array, hessian: Array, values: Array) -> Array:
    """Round each row again, given all others, as often as that makes the squared error of the product smaller."""
    slope = hessian @ (whole - values * scale)
    for _ in range(PASSES):
        for k in range(len(whole)):
            best = np.clip(np.rint(values[k] + slope[k] / (hessian[k, k] * scale[k])), -MOST, MOST)
            others = np.flatnonzero(best != values[k])
            change = (values[k, others] - best[others]) * scale[k, others]
            slope[:, others] += np.outer(hessian[:, k], change)
            values[k] = best
    return values.astype(np.int8)


def mean_error(weights: Array, rounded: Rounded, inputs: Array) -> Array:
    """Return by how much the product with inputs [n, K] is too small on average, [N], which a bias can make up for."""
    seen = inputs[(np.abs(inputs) < HUGE).all(axis=1)].astype(np.float64)
    mean = seen.mean(axis=0) if len(seen) else np.zeros(len(weights))
    return np.asarray(mean @ (weights.astype(np.float64) - rounded.real))
