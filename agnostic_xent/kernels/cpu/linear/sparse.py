"""Kernels of sparse rows: the products with a matrix and with its transpose.

Weights are read and written as (columns, units), so that an entry meets the units side by side.
Every number is a sum of one order: that of a row's entries, or that of a column's rows. Threads
share out rows, or columns; so bits do not depend on how many they are.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ....core.operation import ROUTINES, Implementation
from ..simd.elementary import borrowed, fma, inlined
from ..toolchain.arguments import flat, why_not
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Array, Integers, Read1, Read2, Write2
from .sgd import sums
from .units import add_multiple, sum_rows

INDICES = (np.dtype(np.int32), np.dtype(np.int64))
Columns = Annotated[Any, Array("index", 1)]

SAMPLE = 1024
"""Entries that are looked at to cut the columns into parts of about as much work."""

FEW = 1 << 14
"""Entries times units up to which a product is done in the thread of the caller."""


def why_no_rows(like: Any, data: Any, indices: Any, indptr: Any) -> str | None:
    """Return why sparse rows are not taken together with an array, or None."""
    if why := why_not(like, data):
        return why
    if data.dtype != like.dtype:
        return "it takes arrays of one dtype"
    if indices.dtype not in INDICES or indptr.dtype != np.int64:
        return f"it takes indices of int32 or int64, not {indices.dtype.str}"
    return None


def flat_rows(rows: Any) -> list[Any]:
    """Return the arrays of sparse rows as loops read them."""
    return [flat(x) for x in rows]


# --- rows times weights --------------------------------------------------------------------------


def product(weights: Any, rows: Any) -> Any:
    """Return ``x w^T``."""
    (w,), (data, indices, indptr) = weights, flat_rows(rows)
    turned = np.ascontiguousarray(w.T)
    z = np.empty((len(indptr) - 1, len(w)), w.dtype)
    loop = row_products[w.dtype, indices.dtype]
    loop(turned, data, indices, indptr, z, alone=data.size * len(w) <= FEW)
    return z


@compiled_in_parts(pieces=4, kind=FLOATS, index=INDICES)
def row_products(
    w: Read2, data: Read1, indices: Columns, indptr: Integers, z: Write2, parts: int, part: int
) -> None:
    """Write the products of a part of the rows to z."""
    rows, units = z.shape
    data, indices, z = borrowed(data), borrowed(indices), borrowed(z)
    for i in range(rows * part // parts, rows * (part + 1) // parts):
        x, columns = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        if units == 1:
            z[i, 0] = row_product(w, x, columns)
        else:
            sum_rows(z, i, units, w, x, columns)


@inlined
def row_product(w: Any, x: Any, columns: Any) -> Any:
    """Return the inner product of a row's entries with the weights of one unit.

    Four sums, which do not wait for each other.
    """
    a = b = c = d = w.dtype.type(0)
    fours = x.size // 4 * 4
    for p in range(0, fours, 4):
        a = fma(x[p], w[np.uint64(columns[p]), 0], a)
        b = fma(x[p + 1], w[np.uint64(columns[p + 1]), 0], b)
        c = fma(x[p + 2], w[np.uint64(columns[p + 2]), 0], c)
        d = fma(x[p + 3], w[np.uint64(columns[p + 3]), 0], d)
    for p in range(fours, x.size):
        a = fma(x[p], w[np.uint64(columns[p]), 0], a)
    return (a + b) + (c + d)


@sums
def add(to: Any, i: Any, factor: Any, rows: Any, j: Any) -> None:
    """Add a multiple of row j of an array to row i of another."""
    for c in range(to.shape[1]):
        to[i, c] += factor * rows[j, c]


# --- factors times rows --------------------------------------------------------------------------


def column_totals(factors: Any, rows: Any, *, columns: int) -> Any:
    """Return ``d^T x``."""
    (d,), (data, indices, indptr) = factors, flat_rows(rows)
    d = np.ascontiguousarray(d)
    g = np.zeros((columns, d.shape[1]), d.dtype)
    seen = np.sort(indices[:: max(1, indices.size // SAMPLE)]).astype(np.int64)
    loop = column_sums[d.dtype, indices.dtype]
    loop(d, data, indices, indptr, seen, g, alone=data.size * d.shape[1] <= FEW)
    return g.T


@compiled_in_parts(kind=FLOATS, index=INDICES)
def column_sums(
    d: Read2, data: Read1, indices: Columns, indptr: Integers, seen: Integers, g: Write2,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Add the rows, times their factors, to a part of the columns; ``seen`` are some, in order."""
    columns, units = g.shape
    data, indices = borrowed(data), borrowed(indices)
    low = 0 if part == 0 or not seen.size else seen[seen.size * part // parts]
    high = columns if part == parts - 1 or not seen.size else seen[seen.size * (part + 1) // parts]
    for i in range(d.shape[0]):
        stop = indptr[i + 1]
        p = first_from(indices, indptr[i], stop, low) if low else indptr[i]
        if part < parts - 1:
            stop = first_from(indices, p, stop, high)
        if units == 1:
            spread(g, d[i, 0], data[p:stop], indices[p:stop])
        else:
            for q in range(p, stop):
                add_multiple(g, data, d, np.int64(indices[q]), q, i, units)


@inlined
def spread(g: Any, factor: Any, x: Any, columns: Any) -> None:
    """Add a multiple of a row's entries to the sums of one unit."""
    for p in range(x.size):
        j = np.uint64(columns[p])
        g[j, 0] = fma(factor, x[p], g[j, 0])


@sums
def first_from(indices: Any, start: Any, stop: Any, column: Any) -> Any:
    """Return where, among a row's entries, those of this column and the later ones begin."""
    while start < stop:
        middle = (start + stop) // 2
        if indices[middle] < column:
            start = middle + 1
        else:
            stop = middle
    return start


def takes_product(w: Any, data: Any, indices: Any, indptr: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_no_rows(w, data, indices, indptr)


def takes_sums(d: Any, data: Any, indices: Any, indptr: Any, *, columns: int) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_no_rows(d, data, indices, indptr)


ROUTINES["sparse_product"].add_kernel(
    "numpy", Implementation("Numba loops", product, takes=takes_product)
)
ROUTINES["sparse_sums"].add_kernel(
    "numpy",
    Implementation("Numba loops", column_totals, takes=takes_sums, options=("columns",)),
)
