"""Labels: integers that name classes, of any integer dtype.

They are whole numbers in all comparisons, whatever dtype holds them: the uint64 2^64 - 1 is not -1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from ..core.arrays import Array, all_below, array_namespace, dtype_kind, is_true, library
from ..core.conversion import to_numpy


def is_labels(target: Array) -> bool:
    """Tell labels from probabilities."""
    return dtype_kind(array_namespace(target), target.dtype) == "integral"


def as_indices(labels: Array) -> Array:
    """Return labels as int32 or int64, which libraries compare and count with.

    Unsigned ones too large for it become negative, so they are out of range there as well.
    """
    xp = array_namespace(labels)
    dtype = _index_dtype(xp, labels.dtype)
    return labels if labels.dtype == dtype else xp.astype(labels, dtype)


@lru_cache
def _index_dtype(xp: ModuleType, dtype: Any) -> Any:
    return xp.int64 if xp.iinfo(dtype).bits == 64 else xp.int32


def not_ignored(target: Array, ignore_index: int | None) -> Array | None:
    """Return which labels are not to be ignored; None if all count, as probabilities do."""
    if ignore_index is None or not is_labels(target):
        return None
    xp, indices = array_namespace(target), as_indices(target)
    ignored = ignored_label(ignore_index, xp.iinfo(target.dtype), xp.iinfo(indices.dtype).bits)
    return None if ignored is None else indices != ignored


def ignored_label(ignore_index: int | None, limits: Any, bits: int) -> int | None:
    """Return ``ignore_index`` as labels within ``limits`` become signed integers of so many bits.

    None if no label can equal it, such as -100 for unsigned ones.
    """
    if ignore_index is None or not limits.min <= ignore_index <= limits.max:
        return None
    return ignore_index if ignore_index < 2 ** (bits - 1) else ignore_index - 2**bits


# --- labels out of range -------------------------------------------------------------------------


def label_check(
    position: int, target: Array, classes: int, ignore_index: int | None
) -> Callable[..., None] | None:
    """Return the check of the labels among the arrays of a call; None for probabilities."""
    if not is_labels(target):
        return None
    return lambda *arrays: check_label_range("target", arrays[position], classes, ignore_index)


def check_label_range(
    name: str, labels: Array, classes: int, ignore_index: int | None = None
) -> None:
    """Raise ValueError that names the first label outside [0, classes); traced arrays pass."""
    if library(labels) == "numpy" and all_below(labels, classes):
        return
    xp, indices = array_namespace(labels), as_indices(labels)
    bad = (indices < 0) | (indices >= classes)
    counted = not_ignored(labels, ignore_index)
    if counted is not None:
        bad = bad & counted
    if is_true(xp.any(bad)):
        where = to_numpy(bad)
        position = tuple(int(found[0]) for found in where.nonzero()) if where.ndim else ()
        place = f"{name}[{', '.join(map(str, position))}]" if position else name
        label = int(to_numpy(labels)[position])
        raise ValueError(f"{place} is {label}, but labels must be in [0, {classes})")
