"""Fewer samples than features: coefficients that are combinations of the samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..core.arrays import Array, array_namespace
from ..core.sparse import CSR
from ..training.batches import is_stored
from .rows import Rows, affine, inner_products, sums
from .samples import Samples, check_squares, dtype_name

MOST_SAMPLES = 512
"""Of more of them the axes would cost more than iterations over all features."""


@dataclass(frozen=True)
class SampleSpace:
    """The space that samples span, where the optimum lies, since the penalty draws all else to 0.

    Its coordinates belong to an orthonormal basis, so that the penalty is the same in them: to the
    principal axes of the weighted samples, which are ``mix^T x``.
    """

    x: Rows
    """Shape (N, features)."""
    mix: Array
    """Shape (N, coordinates)."""
    samples: Samples
    """The samples' own coordinates."""

    def coordinates(self, w: Array) -> Array:
        """Return the coordinates of what of coefficients lies in the space."""
        return array_namespace(w).matrix_transpose(affine(self.x, w)) @ self.mix

    def coefficients(self, v: Array) -> Array:
        """Return the coefficients that have these coordinates."""
        return sums(v @ array_namespace(v).matrix_transpose(self.mix), self.x)


def sample_space(samples: Samples, weights: Array) -> SampleSpace | None:
    """Return the space of weighted samples in memory, if they are few, and fewer than features.

    None also where rounding of ``x x^T`` would be seen in the coefficients: for float32, and for
    samples, weights or features of very different sizes; and for sparse samples that repeat.
    """
    x, few = samples.x, min(MOST_SAMPLES, samples.features - 1)
    if is_stored(x) or len(samples) > few or dtype_name(samples.like) != "float64":
        return None
    xp = array_namespace(weights)
    root = xp.sqrt(weights)[:, None]
    products = inner_products(x) * root * xp.matrix_transpose(root)
    check_squares(float(xp.linalg.trace(products)))
    squares, vectors = xp.linalg.eigh(products)
    eps, largest = float(xp.finfo(x.dtype).eps), squares[-1]
    count = int(xp.sum(xp.astype(squares > len(samples) * eps * largest, xp.int64)))
    squares, vectors = squares[len(samples) - count :], vectors[:, len(samples) - count :]
    if not count or float(squares[0]) < eps**0.5 * float(largest):
        return None
    lengths = xp.sqrt(squares)
    inverse = xp.where(root > 0, 1 / xp.where(root > 0, root, 1.0), 0.0)
    own = replace(samples, x=inverse * vectors * lengths)
    space = SampleSpace(x, root * vectors / lengths, own)
    if count == len(samples):
        return space
    return None if isinstance(x, CSR) or not _holds(space, root) else space


def _holds(space: SampleSpace, root: Array) -> bool:
    """Return whether each feature of the weighted samples is in the space, but for rounding.

    Directions may be left out because samples repeat, or because a huge feature hides all others.
    """
    xp, x = array_namespace(root), root * space.x
    missing = x - root * space.coefficients(space.samples.x)
    squares = [xp.sum(y * y, axis=0) for y in (missing, x)]
    return bool(xp.all(squares[0] <= 1e-16 * squares[1]))
