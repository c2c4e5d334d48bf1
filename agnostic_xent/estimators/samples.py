"""What an estimator is given: samples of any kind, labels of any type, weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from ..core.arrays import (
    MASKED,
    Array,
    array_namespace,
    device,
    dtype_kind,
    is_dask,
    is_masked,
    library,
)
from ..core.conversion import detached, to_numpy
from ..core.sparse import CSR, as_csr, numbers_in, sparse_library
from ..training.batches import Batch, fetched, is_stored, numbers
from .rows import Rows, squares

BLOCK_BYTES = 64 << 20
"""How much of the samples is worked on at a time."""

CACHE_BYTES = 4 << 20
"""The same on a processor, whose cache then has what is read a second time."""


ENTRY_BYTES = 12
"""What an entry of a sparse matrix takes: its number and its column."""

ENTRIES_A_FEATURE = 8
"""So many entries a block of sparse rows has at least: each block costs a pass over the weights."""


@dataclass(frozen=True)
class Samples:
    """Rows of numbers, handed out as arrays of one library, device and floating dtype.

    A file mapped into memory and a dask array stay where they are: their rows are fetched and
    converted, to NumPy, when they are asked for.
    """

    x: Rows
    """Shape (N, features)."""
    like: Array
    """An array of the library, device and dtype that rows are handed out in."""
    divisor: int = 1
    """Of rows that are fetched."""
    scale: int = 1
    """What all rows were divided by."""

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def features(self) -> int:
        """The number of columns."""
        return int(self.x.shape[1])

    def take(self, rows: slice | NDArray[Any]) -> Rows:
        """Return some of the rows."""
        if isinstance(self.x, CSR):
            return self.x[rows]
        if is_stored(self.x):
            x = numbers(fetched(self.x[rows]), self.like)
            return x if self.divisor == 1 else x / self.divisor
        if isinstance(rows, slice):
            return self.x[rows, :]
        xp = array_namespace(self.x)
        return xp.take(self.x, xp.asarray(rows, device=device(self.x)), axis=0)

    def divided(self, divisor: int) -> Samples:
        """Return the same with all numbers divided."""
        if divisor == 1:
            return self
        if is_stored(self.x):
            return replace(self, divisor=divisor, scale=divisor)
        return replace(self, x=self.x / divisor, scale=divisor)

    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest number, as they were given."""
        found = [0.0] if isinstance(self.x, CSR) else []
        for span in self.spans():
            block = numbers_in(self.take(span))
            if math.prod(block.shape):
                xp = array_namespace(block)
                found += [float(xp.min(block)), float(xp.max(block))]
        return min(found) * self.scale, max(found) * self.scale

    def spans(self) -> list[slice]:
        """Return where the rows are cut into blocks; of a dask array, where its chunks end."""
        if is_dask(self.x):
            ends = np.cumsum(self.x.chunks[0]).tolist()
        else:
            rows = self._rows_of_a_block()
            ends = [*range(rows, len(self), rows), len(self)]
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def _rows_of_a_block(self) -> int:
        on_cpu = "cpu" in str(device(self.like)).lower()
        size = min(BLOCK_BYTES, CACHE_BYTES) if on_cpu else BLOCK_BYTES
        if not isinstance(self.x, CSR):
            return max(1, size // (8 * self.features))
        entries = max(size // ENTRY_BYTES, ENTRIES_A_FEATURE * self.features)
        return max(1, entries * len(self) // max(1, self.x.entries))

    def numbers(self, values: NDArray[Any]) -> Array:
        """Return numbers of the host as an array like the rows."""
        xp = array_namespace(self.like)
        return xp.asarray(values.astype(dtype_name(self.like)), device=device(self.like))

    def zeros(self, *shape: int) -> Array:
        """Return an array of zeros like the rows."""
        return self.numbers(np.zeros(shape))

    def indices(self, values: NDArray[Any]) -> Array:
        """Return integers of the host as an array where the rows are."""
        return array_namespace(self.like).asarray(values, device=device(self.like))


@dataclass(frozen=True)
class Labelled:
    """Samples with their labels and weights."""

    samples: Samples
    classes: NDArray[Any]
    labels: NDArray[np.int64]
    """The positions in ``classes``."""
    weights: NDArray[np.float64] | None
    """None if all are 1."""
    table: NDArray[Any] | None = None
    """Probabilities of the classes, or whether a sample has each of several labels."""
    several: bool = False
    """Whether samples have several labels."""

    @property
    def targets(self) -> NDArray[Any]:
        """What each sample has of each class, shape (N, classes)."""
        if self.table is not None:
            return self.table
        one_hot: NDArray[Any] = self.labels[:, None] == np.arange(len(self.classes))
        return one_hot

    @property
    def mass(self) -> NDArray[np.float64]:
        """The weight of each class in all samples together."""
        if self.table is None:
            counts = np.bincount(self.labels, self.weights, minlength=len(self.classes))
            return counts.astype(np.float64)
        found: Any = self.table.sum(axis=0) if self.weights is None else self.weights @ self.table
        return np.asarray(found, np.float64)

    groups: NDArray[Any] | None = None
    """What belongs together, such as the person of each sample."""

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(len(self.samples) if self.weights is None else self.weights.sum())

    def mean_square(self) -> float:
        """Return the weighted mean of |x|^2."""
        total = 0.0
        for span in self.samples.spans():
            found = squares(self.samples.take(span))
            if self.weights is not None:
                found = found * self.samples.numbers(self.weights[span])
            total += float(array_namespace(found).sum(found))
        check_squares(total)
        return total / self.total


def check_squares(total: float) -> None:
    """Raise ValueError where the squares of the samples' numbers are no numbers any more."""
    if not math.isfinite(total):
        raise ValueError(
            "the squares of the numbers in X are too large for its dtype; scale the features, such "
            "as by sklearn.preprocessing.StandardScaler"
        )


@dataclass(frozen=True)
class Batches:
    """Batches of stored samples and of their targets, in a new order on each pass.

    Of a dask array the chunks are shuffled and the rows within each, so that a pass computes a
    chunk once.
    """

    samples: Samples
    shape: tuple[int, ...]
    """Of one sample."""
    targets: NDArray[Any]
    """Of all samples."""
    rows: NDArray[np.int64]
    """The samples that take part."""
    batch_size: int
    rng: np.random.Generator | None

    def __iter__(self) -> Iterator[Batch]:
        if not is_dask(self.samples.x):
            for rows in self._cut(self._shuffled(self.rows)):
                yield self.samples.take(rows).reshape(-1, *self.shape), self.targets[rows]
            return
        chunk = np.searchsorted(np.cumsum(self.samples.x.chunks[0]), self.rows, side="right")
        for number in self._shuffled(np.unique(chunk)):
            rows = self._shuffled(self.rows[chunk == number])
            x = self.samples.take(rows)
            for part in self._cut(np.arange(len(rows))):
                yield x[part].reshape(-1, *self.shape), self.targets[rows[part]]

    def _shuffled(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows if self.rng is None else rows[self.rng.permutation(len(rows))]

    def _cut(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]


def checked_samples(
    estimator: Any, X: Any, *, reset: bool, dtypes: tuple[str, ...], sparse: bool = False
) -> Samples:
    """Check what was given as X, as scikit-learn would, in the library that it belongs to.

    Parameters
    ----------
    estimator : estimator
        Remembers the number and names of the features, or knows them.
    X : array, sparse matrix or array-like, shape (N, features)
        Arrays that follow the Array API standard, and sparse matrices of CuPy, stay in their
        library; anything else becomes NumPy.
    reset : bool
        Whether to remember or to compare.
    dtypes : tuple of str
        The accepted dtypes; the first is what others are converted to.
    sparse : bool
        Whether sparse matrices are taken: they become `CSR`.

    Raises
    ------
    ValueError, TypeError
        If X is no finite numbers in two dimensions, or has not the known features.
    """
    _check_kind(X)
    if not _keeps_its_library(X, sparse):
        accepted = "csr" if sparse else False
        X = validate_data(estimator, X, dtype=list(dtypes), reset=reset, accept_sparse=accepted)
        return _of_rows(as_csr(X) if sparse_library(X) else X)
    X = X.tocsr() if sparse_library(X) else X
    if X.ndim != 2 or any(math.isnan(n) for n in X.shape):
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array of shape {tuple(X.shape)} instead. Reshape "
            "your data with reshape(-1, 1) if it has one feature, reshape(1, -1) if it is one "
            "sample; of a dask array of unknown length, call compute_chunk_sizes()"
        )
    for count, (axis, name) in zip(X.shape, enumerate(("sample", "feature")), strict=True):
        if count == 0:
            raise ValueError(
                f"Found array with 0 {name}(s) (shape={tuple(X.shape)}) while a minimum of 1 is "
                f"required along axis {axis}."
            )
    kind = dtype_kind(array_namespace(X.data if sparse_library(X) else X), X.dtype)
    if kind not in ("real floating", "integral", "bool"):
        raise ValueError(f"X must be real numbers, got {X.dtype}. Complex data not supported")
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    samples = _floating(detached(X), dtypes)
    for span in samples.spans():
        block = numbers_in(samples.take(span))
        if not bool(array_namespace(block).all(array_namespace(block).isfinite(block))):
            raise ValueError("Input X contains NaN or infinity, or a value too large for its dtype")
    return samples


def _check_kind(X: Any) -> None:
    """Raise TypeError for what scikit-learn would make numbers of that mean something else."""
    if is_masked(X):
        raise TypeError(MASKED)
    dtypes = getattr(X, "dtypes", getattr(X, "dtype", None))  # a table has one for each column
    columns = dtypes if isinstance(dtypes, Iterable) else [dtypes]
    if any(getattr(dtype, "kind", "") in ("M", "m") for dtype in columns):
        raise TypeError("X must be real numbers, got dates or times; subtract and divide them")


def check_home(estimator: Any, x: Array, fitted: Array, method: str) -> None:
    """Raise ValueError unless x is where an estimator was fitted."""
    if library(x) == library(fitted) and (is_dask(x) or device(x) == device(fitted)):
        return
    raise ValueError(
        f"Inputs passed to {type(estimator).__name__}.{method}() must use the same namespace and "
        f"the same device as those passed to fit(): X is of {library(x)} on {device(x)}, the "
        f"estimator of {library(fitted)} on {device(fitted)}. agnostic_xent.to_backend("
        "estimator, xp, device) returns the estimator where X is"
    )


def as_array(X: Any) -> Any:
    """Return images that are no array, but in a list or a file, as one; anything else as it is."""
    if array_api_compat.is_array_api_obj(X):
        return X
    try:
        found = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X must hold samples of one shape: {error}") from error
    return found if found.ndim in (3, 4, 5) else X


def taken(X: Any, rows: NDArray[np.integer]) -> Any:
    """Return some samples of an array, on its device, or of anything else that has rows."""
    if not array_api_compat.is_array_api_obj(X) or is_dask(X):
        return _safe_indexing(X, rows)
    xp = array_namespace(X)
    return xp.take(X, xp.asarray(rows, device=device(X)), axis=0)


def host(x: Any) -> Any:
    """Return an array of any library as a NumPy array, and anything else as it is.

    Of pandas, integers and booleans that may be missing are such, and no floats, if none is.
    """
    if is_masked(x):
        raise TypeError(MASKED)
    nullable = getattr(getattr(x, "dtype", None), "numpy_dtype", None)
    if nullable is not None and not x.isna().any():
        return x.to_numpy(dtype=nullable)
    return to_numpy(x) if array_api_compat.is_array_api_obj(x) else x


def checked_labels(estimator: Any, y: Any, samples: Samples) -> NDArray[Any]:
    """Return labels as a NumPy array of one dimension, as many as there are samples."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, "
            "but the target y is None."
        )
    labels: NDArray[Any] = column_or_1d(host(y), warn=True)
    check_classification_targets(labels)
    if len(labels) != len(samples):
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {len(samples)}, y has {len(labels)}"
        )
    return labels


def classes_like(classes: NDArray[Any], like: Array) -> Array | None:
    """Return classes as an array of the library of ``like``; None if it cannot hold them exactly.

    JAX without ``jax_enable_x64`` rounds numbers of 64 bits, and torch cannot take elements of
    unsigned ones.
    """
    if classes.dtype.kind not in "biuf":
        return None
    xp = array_namespace(like)
    try:
        names = xp.asarray(classes, device=device(like))
        exact = np.array_equal(
            to_numpy(xp.take(names, xp.arange(len(classes), device=device(like)), axis=0)), classes
        )
    except (NotImplementedError, OverflowError, RuntimeError, TypeError, ValueError):
        return None
    return names if exact else None


def checked_groups(groups: Any, count: int) -> NDArray[Any] | None:
    """Return the group of each sample; None if there are none."""
    if groups is None:
        return None
    found: NDArray[Any] = column_or_1d(host(groups))
    if len(found) != count:
        raise ValueError(
            f"groups must have shape ({count},), one for each sample, got {found.shape}"
        )
    return found


def as_indices(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the position of each label among the sorted classes."""
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(f"y has labels that are not in classes: {unknown.tolist()}")
    return np.searchsorted(classes, labels)


def checked_weights(
    sample_weight: Any, class_weight: Any, classes: NDArray[Any], labels: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Return the weight of each sample, its class's included; None if all are 1.

    Raises
    ------
    ValueError
        If there are not as many as samples, one is negative, or all are 0.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights: NDArray[np.float64] = np.ones(len(labels))
    if sample_weight is not None:
        weights = weights * _sample_weights(host(sample_weight), len(labels))
    if class_weight == "balanced":
        counts = np.bincount(labels, weights=weights, minlength=len(classes))
        weights *= (
            weights.sum() / np.count_nonzero(counts) / np.where(counts > 0, counts, 1)[labels]
        )
        return weights
    if class_weight is None:
        return weights
    if not isinstance(class_weight, dict):
        raise ValueError(
            f'class_weight must be a dict from label to weight, "balanced" or None, '
            f"got {class_weight!r}"
        )
    weights *= compute_class_weight(class_weight, classes=classes, y=classes[labels])[labels]
    return weights


def _sample_weights(sample_weight: Any, count: int) -> NDArray[np.float64]:
    if isinstance(sample_weight, Real):
        sample_weight = np.full(count, sample_weight)
    weights: NDArray[np.float64] = check_array(
        sample_weight, ensure_2d=False, dtype="float64", input_name="sample_weight"
    )
    if weights.shape != (count,):
        raise ValueError(
            f"sample_weight must be a number or have shape ({count},), one a sample; "
            f"got {weights.shape}"
        )
    if np.any(weights < 0):
        raise ValueError(f"sample_weight must be >= 0, got {np.min(weights)}")
    if not np.any(weights):
        raise ValueError("sample_weight must contain at least one non-zero number, got zeros")
    return weights


def _keeps_its_library(X: Any, sparse: bool) -> bool:
    found = sparse_library(X)
    if found:
        return sparse and found != "numpy"
    return is_stored(X) or (array_api_compat.is_array_api_obj(X) and library(X) != "numpy")


def _of_rows(X: Rows) -> Samples:
    """Return samples that are handed out as they are."""
    return Samples(X, numbers_in(X)[:0])


def _floating(X: Array, dtypes: tuple[str, ...]) -> Samples:
    if sparse_library(X):
        return _of_rows(as_csr(X if dtype_name(X) in dtypes else X.astype(dtypes[0])))
    if is_stored(X):
        return Samples(X, np.empty(0, X.dtype if str(X.dtype) in dtypes else dtypes[0]))
    if dtype_name(X) not in dtypes:
        xp = array_namespace(X)
        known = xp.__array_namespace_info__().dtypes(device=device(X), kind="real floating")
        X = xp.astype(X, known.get(dtypes[0], xp.float32))
    return Samples(X, X[:0, :])


def dtype_name(x: Array) -> str:
    """Return the name of an array's dtype, such as "float32", whatever its library."""
    return str(x.dtype).rpartition(".")[2]
