"""Sources of batches: arrays, memory-mapped files, dask arrays, iterables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.arrays import (
    Array,
    array_namespace,
    device,
    dtype_kind,
    is_dask,
    is_half,
    library,
    narrow,
)
from ..core.checks import namespace
from ..core.conversion import detached, to_numpy, uploaded
from ..core.sparse import CSR, numbers_in
from ..operations.labels import is_labels

if TYPE_CHECKING:
    import numpy as np

RESTARTS = (
    "an iterable that starts anew each epoch, such as a list or an object with __iter__, "
    "not a generator"
)

Batch: TypeAlias = tuple[Array, Array]
Source: TypeAlias = "ArraySource | IterableSource"


def as_source(name: str, data: Any, like: Array, *, passes: int = 1) -> Source:
    """Return the batches that ``data`` stands for, in the library and on the device of ``like``.

    Parameters
    ----------
    name : str
        What errors call it.
    data : (x, y), or iterable of (x, y)
        A pair of arrays with the samples along axis 0, or of paths of .npy files, which are
        memory-mapped. Batches of memory-mapped and dask arrays become what ``like`` is: their
        numbers of its dtype, and all of its library and device; labels stay integers.
        An iterable is passed through once an epoch.
    like : array
        A parameter of the model.
    passes : int
        How often the batches will be passed through; an iterator lasts for one pass.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2 and not _is_batch_list(data):
        x, y = (_opened(part) for part in data)
        _check_pair(name, x, y)
        for part, array in (("x", x), ("y", y)):
            if is_stored(array):
                _check_numbers(name, part, array)
            else:
                namespace(params=like, **{f"{name} ({part})": numbers_in(array)})
        return ArraySource(detached(x), _takeable(detached(y)), like)
    if isinstance(data, Iterator) and passes > 1:
        raise ValueError(
            f"{name} is an iterator, which ends after one epoch of {passes}; pass {RESTARTS}"
        )
    if isinstance(data, Iterable) and not hasattr(data, "dtype"):
        return IterableSource(name, data)
    raise TypeError(
        f"{name} must be a pair (x, y) of arrays or of .npy paths, or an iterable of such pairs; "
        f"got {type(data).__name__}"
    )


def _is_batch_list(data: Any) -> bool:
    return all(isinstance(part, (tuple, list)) for part in data)


def _opened(part: Any) -> Array:
    if not isinstance(part, (str, os.PathLike)):
        return part
    import numpy as np

    try:
        return np.lib.format.open_memmap(part, mode="r")  # which takes no pickles
    except OSError:
        raise
    except Exception as error:  # of whatever kind its parsers raise
        raise ValueError(f"{os.fspath(part)} is no whole .npy file: {error}") from error


def _check_pair(name: str, x: Array, y: Array) -> None:
    for part, array in (("x", x), ("y", y)):
        if not hasattr(array, "shape"):
            raise TypeError(
                f"{name} must be a pair (x, y) of arrays or of .npy paths; "
                f"its {part} is {type(array).__name__}"
            )
    if x.ndim == 0 or y.ndim == 0 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"{name} must hold as many samples in x as in y, "
            f"got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.shape[0] == 0:
        raise ValueError(f"{name} must hold at least one sample, got x of shape {tuple(x.shape)}")


def _check_numbers(name: str, part: str, x: Array) -> None:
    if x.dtype.kind not in "biuf" and not is_half(x.dtype):
        raise TypeError(f"{name} must hold real numbers, but its {part} has dtype {x.dtype}")


def _takeable(y: Array) -> Array:
    """Return targets of which samples can be taken: torch has no `take` of unsigned labels."""
    if is_stored(y):
        return y
    xp = array_namespace(y)
    if not xp.isdtype(y.dtype, "unsigned integer"):
        return y
    try:
        xp.take(y[:1, ...], xp.asarray([0], device=device(y)), axis=0)
    except NotImplementedError:
        return xp.astype(y, xp.int64)
    return y


def is_stored(x: Array) -> bool:
    """Tell whether the samples lie in a file or a graph and are fetched batch by batch."""
    import numpy as np

    return isinstance(x, np.memmap) or is_dask(x)


def samples_of(source: Source) -> int | None:
    """Return how many samples a source has, where it knows."""
    return len(source) if isinstance(source, ArraySource) else None


@dataclass(frozen=True)
class ArraySource:
    """Samples along axis 0 of two arrays."""

    x: Array
    y: Array
    like: Array

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def batches(
        self, batch_size: int, rng: np.random.Generator | None = None, *, multiple: int = 1
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, shuffled by ``rng`` if there is one.

        They have a multiple of ``multiple`` samples in all; the last ones are left out.
        """
        order = None if rng is None else rng.permutation(len(self))
        x, y = self._picker(self.x, order, numbers), self._picker(self.y, order, targets)
        spans = map(self._cut, self._spans(batch_size, len(self) // multiple * multiple))
        yield from self._there((x(rows), y(rows)) for rows in spans)

    def _cut(self, batch: slice) -> slice:
        """Return which samples of a batch are handed out."""
        return batch

    def pieces(self, size: int) -> Iterator[Array]:
        """Yield ``x`` in order, ``size`` samples at a time."""
        pick = self._picker(self.x, None, numbers)
        for (piece,) in self._there((pick(rows),) for rows in self._spans(size, len(self))):
            yield piece

    def stored_targets(self, size: int) -> Iterator[Array]:
        """Yield ``y`` as it was given, in order and ``size`` samples at a time."""
        for rows in self._spans(size, len(self)):
            yield fetched(self.y[rows]) if is_stored(self.y) else self.y[rows, ...]

    def _spans(self, size: int, end: int) -> Iterator[slice]:
        for start in range(0, end, size):
            yield slice(start, min(start + size, end))

    def _picker(
        self, x: Array, order: np.ndarray | None, converted: Callable[[np.ndarray, Array], Any]
    ) -> Callable[[slice], Array]:
        """Return what picks samples of ``x`` by their places in the order.

        Stored ones come in NumPy, converted to what can be moved to where ``like`` is.
        """
        if isinstance(x, CSR):
            return lambda rows: x[rows if order is None else order[rows]]
        if is_stored(x):
            return lambda rows: converted(
                fetched(x[rows if order is None else order[rows]]), self.like
            )
        if order is None:
            return lambda rows: x[rows, ...]
        xp = array_namespace(x)
        places = xp.asarray(order, device=device(x))  # sent to a GPU once an epoch
        return lambda rows: xp.take(x, places[rows], axis=0)

    def _there(self, batches: Iterator[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
        """Return batches where ``like`` is."""
        if not (is_stored(self.x) or is_stored(self.y)):
            return batches
        moved = uploaded(batches, self.like)
        return (tuple([_in_dtype(x, self.like) for x in batch]) for batch in moved)


def fetched(x: Array) -> np.ndarray:
    """Return samples of a file or a graph as an array of NumPy's own type."""
    import numpy as np

    return np.asarray(to_numpy(x))


def numbers(x: np.ndarray, like: Array) -> np.ndarray:
    """Return numbers of a file or a graph in the dtype of ``like``, whose library may be another.

    bfloat16 is no dtype of NumPy: float32 becomes it where ``like`` is.
    """
    name = str(like.dtype).rpartition(".")[2]
    dtype = like.dtype if library(like) == "numpy" else name
    return x.astype("float32" if dtype == "bfloat16" else dtype, copy=False)


def targets(y: np.ndarray, like: Array) -> np.ndarray:
    """Return targets of a file or a graph: numbers in the dtype of ``like``, or integers.

    These are labels: whatever dtype they were stored in, they become that of indices.
    """
    if not is_labels(y):
        return numbers(y, like) if dtype_kind(array_namespace(y), y.dtype) != "bool" else y
    known = array_namespace(like).__array_namespace_info__().dtypes(kind="integral")
    labels = y.astype("int64" if "int64" in known else "int32")
    if (labels != y).any():
        wrong = y[labels != y].flat[0]
        raise ValueError(f"y holds {wrong}, which is no index: it does not fit {labels.dtype}")
    return labels


def _in_dtype(x: Array, like: Array) -> Array:
    return x if dtype_kind(array_namespace(x), x.dtype) != "real floating" else narrow(x, like)


@dataclass(frozen=True)
class IterableSource:
    """Batches that somebody else makes, in their own order."""

    name: str
    data: Iterable[Batch]

    def batches(
        self, batch_size: int, rng: np.random.Generator | None = None, *, multiple: int = 1
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, as they come."""
        empty = True
        for batch in self.data:
            empty = False
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(f"{self.name} must yield pairs (x, y), got {type(batch).__name__}")
            x, y = map(detached, batch)
            yield x, y
        if empty:
            raise ValueError(f"{self.name} yielded no batch; pass {RESTARTS}")
