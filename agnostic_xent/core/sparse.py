"""Sparse rows of numbers: those of SciPy, and of CuPy by the same lines.

No array standard knows them. Here they are three arrays, which kernels read; a portable definition
makes their library's own matrix of them again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from .arrays import Array, array_namespace, library

LIBRARIES = {"numpy": "scipy.sparse", "cupy": "cupyx.scipy.sparse"}
"""Library of the arrays -> where its sparse matrices are."""


def sparse_library(x: Any) -> str | None:
    """Return the library of arrays that a sparse matrix belongs to; None of anything else."""
    for arrays, name in LIBRARIES.items():
        module = sys.modules.get(name)
        if module is not None and module.issparse(x):
            return arrays
    return None


def numbers_in(x: Any) -> Array:
    """Return the array of the numbers that rows have, dense or sparse."""
    return x.data if isinstance(x, CSR) else x


@dataclass(frozen=True)
class CSR:
    """Rows of which the entries alone are kept, those of a row by column and each column once."""

    data: Array
    """Shape (entries,): their numbers."""
    indices: Array
    """Shape (entries,): their columns."""
    indptr: Array
    """Shape (N + 1,): where each row's entries begin, and the last one's end."""
    columns: int

    def __len__(self) -> int:
        return int(self.indptr.shape[0]) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), self.columns

    @property
    def dtype(self) -> Any:
        """That of the numbers."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Rows are of one dimension."""
        return 2

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return int(self.data.shape[0])

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """What kernels are given."""
        return self.data, self.indices, self.indptr

    @property
    def matrix(self) -> Any:
        """The library's own matrix, which shares the memory."""
        return _matrices(self.data).csr_matrix(self.arrays, shape=self.shape)

    def __getitem__(self, rows: Any) -> CSR:
        """Return some of the rows: a slice of step 1, or the rows of these numbers."""
        rows = rows[0] if isinstance(rows, tuple) else rows
        if not isinstance(rows, slice):
            return _parts(self.matrix[rows])
        start, stop, _ = rows.indices(len(self))
        indptr = self.indptr[start : max(start, stop) + 1]
        first, end = int(indptr[0]), int(indptr[-1])
        return CSR(self.data[first:end], self.indices[first:end], indptr - first, self.columns)

    def times(self, factors: Array) -> CSR:
        """Return the rows, each times a factor of its own."""
        xp = array_namespace(self.data)
        counts = self.indptr[1:] - self.indptr[:-1]
        return replace(self, data=self.data * xp.repeat(factors, counts))


def as_csr(matrix: Any) -> CSR:
    """Return a CSR matrix of a library as rows; nothing is written to, and copied only in need.

    Raises
    ------
    ValueError
        If an entry is in no row, or outside of the columns: kernels would read past the ends.
    """
    matrix = type(matrix)((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    rows = _parts(matrix)
    xp, (_, indices, indptr) = array_namespace(rows.data), rows.arrays
    ordered = int(indptr[0]) == 0 and int(indptr[-1]) == rows.entries == indices.shape[0]
    if not ordered or bool(xp.any(indptr[1:] < indptr[:-1])):
        raise ValueError("X is no whole CSR matrix: its indptr does not rise from 0 to its entries")
    if rows.entries and not 0 <= int(xp.min(indices)) <= int(xp.max(indices)) < rows.columns:
        raise ValueError(f"X is no whole CSR matrix: it has entries beyond {rows.columns} columns")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
        rows = _parts(matrix)
    return rows


def _parts(matrix: Any) -> CSR:
    xp = array_namespace(matrix.data)
    indptr = xp.astype(matrix.indptr, xp.int64, copy=False)
    return CSR(matrix.data, matrix.indices, indptr, int(matrix.shape[1]))


def _matrices(data: Array) -> ModuleType:
    """Return where an array's library has its sparse matrices; the rows came from there."""
    return sys.modules[LIBRARIES[library(data)]]
