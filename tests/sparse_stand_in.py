"""Sparse matrices of array_api_strict in place of CuPy's: what is asked of a library's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import array_api_strict as xp
import numpy as np
from scipy import sparse

from agnostic_xent import to_numpy

DEVICE = xp.Device("device1")  # from which NumPy reads nothing by itself


def there(x: Any) -> Any:
    """Return an array of NumPy on the device."""
    return xp.asarray(np.ascontiguousarray(x), device=DEVICE)


class Matrix:
    """A CSR matrix whose three arrays lie on the device."""

    ndim = 2

    def __init__(self, arrays: tuple[Any, Any, Any], shape: tuple[int, int]):
        self.data, self.indices, self.indptr = arrays
        self.shape = shape

    @classmethod
    def of(cls, matrix: Any) -> Matrix:
        """Return a matrix of SciPy on the device."""
        return cls((there(matrix.data), there(matrix.indices), there(matrix.indptr)), matrix.shape)

    @property
    def own(self) -> Any:
        """The same of SciPy."""
        arrays = [to_numpy(x) for x in (self.data, self.indices, self.indptr)]
        return sparse.csr_matrix(tuple(arrays), shape=self.shape)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    @property
    def T(self) -> Turned:
        return Turned(self)

    @property
    def has_canonical_format(self) -> bool:
        return bool(self.own.has_canonical_format)

    def sum_duplicates(self) -> None:
        own = self.own
        own.sum_duplicates()
        self.__init__(*Matrix.of(own).parts)  # type: ignore[misc]

    @property
    def parts(self) -> Any:
        return (self.data, self.indices, self.indptr), self.shape

    def tocsr(self) -> Matrix:
        return self

    def copy(self) -> Matrix:
        return Matrix.of(self.own)

    def astype(self, dtype: str) -> Matrix:
        return Matrix.of(self.own.astype(dtype))

    def toarray(self) -> Any:
        return there(self.own.toarray())

    def __getitem__(self, rows: Any) -> Matrix:
        return Matrix.of(self.own[rows])

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Turned):
            return Matrix.of(sparse.csr_matrix(self.own @ other.matrix.own.T))
        return there(self.own @ to_numpy(other))


class Turned:
    """A transposed matrix."""

    def __init__(self, matrix: Matrix):
        self.matrix = matrix

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Matrix):
            return Matrix.of(sparse.csr_matrix(self.matrix.own.T @ other.own))
        return there(self.matrix.own.T @ to_numpy(other))


MODULE = SimpleNamespace(csr_matrix=Matrix, issparse=lambda x: isinstance(x, Matrix))
