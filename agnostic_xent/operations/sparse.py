"""The affine map of sparse rows, and its gradient: products with a matrix and its transpose."""

from __future__ import annotations

from collections.abc import Callable

from ..core.arrays import Array, array_namespace
from ..core.operation import Routine
from ..core.sparse import CSR

OfAffine = Callable[[Array], tuple[Array, Array]]
"""From the cotangent (N, units) to the gradients of weights and bias."""

Parts = tuple[Array, Array, Array]
"""The arrays of a `CSR`."""


@Routine
def sparse_product(weights: list[Array], rows: Parts) -> Array:
    """Return ``x w^T``, shape (N, units), for the arrays of a `CSR` and w, (units, columns)."""
    (w,) = weights
    return CSR(*rows, w.shape[1]).matrix @ array_namespace(w).matrix_transpose(w)


@Routine
def sparse_sums(factors: list[Array], rows: Parts, *, columns: int) -> Array:
    """Return ``d^T x``, shape (units, columns), for the arrays of a `CSR` and d, (N, units)."""
    (d,) = factors
    sums = CSR(*rows, columns).matrix.T @ d
    return array_namespace(sums).matrix_transpose(sums)


def sparse_affine(x: CSR, w: Array, b: Array | None = None) -> Array:
    """Return ``x w^T + b``, as `dense` does of dense rows."""
    y = sparse_product([w], x.arrays)
    return y if b is None else y + b[None, :]


def sparse_affine_vjp(x: CSR, w: Array, b: Array | None = None) -> tuple[Array, OfAffine]:
    """Return the same, and its pullback to weights and bias."""

    def pullback(dy: Array) -> tuple[Array, Array]:
        dw = sparse_sums([dy], x.arrays, columns=x.columns)
        return dw, array_namespace(dy).sum(dy, axis=0)

    return sparse_affine(x, w, b), pullback
