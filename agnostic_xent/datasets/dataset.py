"""A data set in memory, and how samples are held out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.checks import generator, number
from .columns import Columns

if TYPE_CHECKING:
    from .words import Words

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training part and a held-out part of labelled examples.

    Attributes
    ----------
    train_x, test_x : ndarray of float32
        Examples, images ``(N, C, H, W)`` in [0, 1], windows of signals ``(N, C, L)`` or rows
        ``(N, features)``.
    train_y, test_y : ndarray of int64, shape (N,)
        Labels from 0 to ``len(classes) - 1``.
    classes : tuple of str
        Name of each label.
    name : str
        Name of the data set.
    columns : Columns, Words or None
        Of a table: ``columns.rows(frame)`` makes the rows of another one numbers in the same way.
    test_recording, test_person : ndarray, shape (N,), or None
        Of windows: the number of the recording that each to test on is of, and who was recorded.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.zeros((3, 2), np.float32), np.asarray([0, 1, 1])
    >>> Dataset(x[:2], y[:2], x[2:], y[2:], classes=("no", "yes"), name="toy")
    Dataset(classes=('no', 'yes'), name='toy')
    """

    train_x: NDArray[np.float32] = field(repr=False)
    train_y: NDArray[np.int64] = field(repr=False)
    test_x: NDArray[np.float32] = field(repr=False)
    test_y: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...]
    name: str
    columns: Columns | Words | None = field(default=None, repr=False)
    test_recording: NDArray[np.int64] | None = field(default=None, repr=False)
    test_person: NDArray[Any] | None = field(default=None, repr=False)


Rows = NDArray[np.int64]


def split(
    count: int, test_fraction: float, rng: int | np.random.Generator | None
) -> tuple[Rows, Rows]:
    """Shuffle `count` row numbers and split them into a training and a held-out part."""
    held_out = round(count * number("test_fraction", test_fraction, "(0, 1)"))
    if not 0 < held_out < count:
        raise ValueError(
            f"test_fraction must leave some of the {count} rows in both parts, "
            f"got {test_fraction!r}"
        )
    rows = generator(rng).permutation(count)
    return rows[held_out:], rows[:held_out]


def split_by_class(
    labels: NDArray[Any], test_fraction: float, rng: int | np.random.Generator | None
) -> tuple[Rows, Rows]:
    """Split row numbers as `split` does, but each class for itself; one sample is for training."""
    fraction, rng = number("test_fraction", test_fraction, "(0, 1)"), generator(rng)
    train, test = [], []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held_out = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
        test.append(rows[:held_out])
        train.append(rows[held_out:])
    parts = rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))
    if not len(parts[1]):
        raise ValueError("a class must have at least 2 samples, for one to be held out")
    return parts


DRAWS = 100
"""So often groups are drawn to be held out, until all classes are among the others."""


def split_by_group(
    groups: NDArray[Any],
    labels: NDArray[Any],
    test_fraction: float,
    rng: int | np.random.Generator | None,
) -> tuple[Rows, Rows]:
    """Split row numbers so that each group is in one part, and every class is to be trained on."""
    fraction, rng = number("test_fraction", test_fraction, "(0, 1)"), generator(rng)
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"one of at least 2 groups is held out, but all are of {names[0]}")
    held_out = min(max(1, round(len(names) * fraction)), len(names) - 1)
    for _ in range(DRAWS):
        test = rng.permutation(len(names))[numbers] < held_out
        if len(np.unique(labels[~test])) == len(np.unique(labels)):
            return np.flatnonzero(~test), np.flatnonzero(test)
    raise ValueError(f"in {DRAWS} draws of groups to hold out, none left every class to train on")
