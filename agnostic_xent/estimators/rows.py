"""Sums over rows of numbers, dense or sparse: what the estimators compute of samples.

Sparse rows are never made dense: what a mean that is taken off makes of their zeros is added up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

from ..core.arrays import Array, array_namespace, constant
from ..core.sparse import CSR, numbers_in
from ..operations.dense import dense
from ..operations.sparse import OfAffine, sparse_affine, sparse_affine_vjp, sparse_sums

Rows: TypeAlias = Any
"""An array or a `CSR`, shape (N, features)."""


def affine(x: Rows, w: Array, b: Array | None = None) -> Array:
    """Return ``x w^T + b``, shape (N, units)."""
    return sparse_affine(x, w, b) if isinstance(x, CSR) else dense(x, w, b)


def affine_vjp(x: Rows, w: Array, b: Array) -> tuple[Array, OfAffine]:
    """Return the same, and its pullback to w and b."""
    if isinstance(x, CSR):
        return sparse_affine_vjp(x, w, b)
    y, pullback = dense.vjp(x, w, b, wrt=(1, 2))

    def of_parameters(dy: Array) -> tuple[Array, Array]:
        _, dw, db = pullback(dy)
        return dw, db

    return y, of_parameters


def sums(factors: Array, x: Rows) -> Array:
    """Return ``factors x``, shape (units, features), for factors (units, N)."""
    if isinstance(x, CSR):
        d = array_namespace(factors).matrix_transpose(factors)
        return sparse_sums([d], x.arrays, columns=x.columns)
    return factors @ x


def inner_products(x: Rows) -> Array:
    """Return ``x x^T``, dense."""
    if isinstance(x, CSR):
        return (x.matrix @ x.matrix.T).toarray()
    return x @ array_namespace(x).matrix_transpose(x)


def squares(x: Rows) -> Array:
    """Return each row's sum of squares."""
    numbers = numbers_in(x)
    xp, squared = array_namespace(numbers), numbers * numbers
    if isinstance(x, CSR):
        ones = xp.broadcast_to(constant(1, numbers), (1, x.columns))
        return sparse_affine(replace(x, data=squared), ones)[:, 0]
    return xp.sum(squared, axis=1)


def squares_about(mean: Array, factors: Array, x: Rows) -> Array:
    """Return ``factors (x - mean)^2``, shape (1, features), for a mean of the same shape."""
    if not isinstance(x, CSR):
        return factors[None, :] @ (x - mean) ** 2
    xp = array_namespace(x.data)
    there = replace(x, data=(x.data - xp.take(mean[0, :], x.indices)) ** 2)
    ones = replace(x, data=xp.ones_like(x.data))
    absent = xp.sum(factors) - sums(factors[None, :], ones)
    return sums(factors[None, :], there) + absent * mean**2


def products_about(mean: Array, factors: Array, x: Rows) -> tuple[Array, Array]:
    """Return, for z = x - mean, ``z^T diag(factors) z`` and ``factors z``, the latter as a row."""
    xp = array_namespace(factors)
    if not isinstance(x, CSR):
        centred = x - mean
        scaled = factors[:, None] * centred
        return xp.matrix_transpose(scaled) @ centred, xp.sum(scaled, axis=0, keepdims=True)
    total, plain = xp.sum(factors), sums(factors[None, :], x)
    products = (x.times(factors).matrix.T @ x.matrix).toarray()
    crossed = xp.matrix_transpose(mean) @ plain
    products = products - crossed - xp.matrix_transpose(crossed)
    return products + total * xp.matrix_transpose(mean) @ mean, plain - total * mean
