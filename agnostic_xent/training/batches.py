"""Sources of batches: arrays, memory-mapped files, dask arrays, iterables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.arrays import Array, array_namespace, device, is_dask
from ..core.checks import namespace
from ..core.conversion import detached, to_numpy, uploaded

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
        memory-mapped. Batches of memory-mapped and dask arrays are moved to where ``like`` is.
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
            if not is_stored(array):
                namespace(params=like, **{f"{name} ({part})": array})
        return ArraySource(detached(x), detached(y), like)
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
        return np.load(part, mmap_mode="r", allow_pickle=False)
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


def is_stored(x: Array) -> bool:
    """Tell whether the samples lie in a file or a graph and are fetched batch by batch."""
    import numpy as np

    return isinstance(x, np.memmap) or is_dask(x)


@dataclass(frozen=True)
class ArraySource:
    """Samples along axis 0 of two arrays."""

    x: Array
    y: Array
    like: Array

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def batches(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch, shuffled by ``rng`` if there is one."""
        order = None if rng is None else rng.permutation(len(self))
        x, y = self._picker(self.x, order), self._picker(self.y, order)
        spans = (
            self._cut(start, min(start + batch_size, len(self)))
            for start in range(0, len(self), batch_size)
        )
        yield from self._there((x(rows), y(rows)) for rows in spans)

    def _cut(self, start: int, stop: int) -> slice:
        """Return which samples of a batch are handed out."""
        return slice(start, stop)

    def pieces(self, x: Array, size: int) -> Iterator[Array]:
        """Yield ``x``, one of the two arrays, in order and ``size`` samples at a time."""
        pick = self._picker(x, None)
        starts = range(0, len(self), size)
        found = ((pick(slice(start, min(start + size, len(self)))),) for start in starts)
        for (piece,) in self._there(found):
            yield piece

    def _picker(self, x: Array, order: np.ndarray | None) -> Callable[[slice], Array]:
        """Return what picks samples of ``x`` by their places in the order; stored ones as NumPy."""
        if is_stored(x):
            return lambda rows: fetched(x[rows if order is None else order[rows]])
        if order is None:
            return lambda rows: x[rows, ...]
        xp = array_namespace(x)
        places = xp.asarray(order, device=device(x))  # sent to a GPU once an epoch
        return lambda rows: xp.take(x, places[rows], axis=0)

    def _there(self, batches: Iterator[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
        """Return batches where ``like`` is."""
        stored = is_stored(self.x) or is_stored(self.y)
        return uploaded(batches, self.like) if stored else batches


def fetched(x: Array) -> np.ndarray:
    """Return samples of a file or a graph as an array of NumPy's own type."""
    import numpy as np

    return np.asarray(to_numpy(x))


@dataclass(frozen=True)
class IterableSource:
    """Batches that somebody else makes, in their own order."""

    name: str
    data: Iterable[Batch]

    def batches(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[Batch]:
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
