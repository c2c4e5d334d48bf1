"""Labels of a user's own: the names of classes, and their indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.texts import printable

KINDS = "biufSUM"
"""Of NumPy: truth values, numbers, texts and dates."""


def as_labels(name: str, y: NDArray[Any], samples: int) -> NDArray[Any]:
    """Return labels (N,), also of a column (N, 1) and of one-hot rows (N, classes).

    Raises
    ------
    ValueError
        If there is not one for each sample, or they name no classes.
    """
    if y.shape == (samples, 1):
        y = y[:, 0]
    if _is_one_hot(y):
        y = y.argmax(axis=1)
    if y.shape != (samples,):
        raise ValueError(
            f"{name} must hold a label for each sample, shape ({samples},), or rows of a 1 and "
            f"zeros, got {y.shape}"
        )
    if y.dtype.kind not in KINDS:
        raise ValueError(f"{name} must hold integers or texts, got dtype {y.dtype}")
    absent = ~np.isfinite(y) if y.dtype.kind in "fM" else np.zeros(samples, bool)
    if absent.any():
        raise ValueError(f"{name} has no label for sample {absent.argmax()}: {y[absent][0]}")
    if y.dtype.kind == "f" and (fractions := y[y != np.trunc(y)]).size:
        raise ValueError(f"{name} must hold classes, got fractions such as {fractions[0]}")
    return y


def _is_one_hot(y: NDArray[Any]) -> bool:
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf":
        return False
    return bool(((y == 0) | (y == 1)).all() and ((y == 1).sum(axis=1) == 1).all())


def class_names(name: str, y: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the classes of some labels, in the order of the labels.

    Raises
    ------
    ValueError
        If there is but one class.
    """
    names = tuple(map(_class_name, np.unique(y)))
    if len({*names}) < max(2, len(names)):
        raise ValueError(f"{name} must hold at least 2 classes of different names, got {names}")
    return names


def class_indices(name: str, y: NDArray[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the class of each label as its index.

    Raises
    ------
    ValueError
        If a label is none of the classes.
    """
    labels, inverse = np.unique(y, return_inverse=True)
    names = [*map(_class_name, labels)]
    if unknown := [name for name in names if name not in classes]:
        there, known = (", ".join(map(repr, some[:5])) for some in (unknown, classes))
        dots = ", ..." if len(classes) > 5 else ""
        raise ValueError(f"{name} must hold labels of the training, {known}{dots}; got {there}")
    indices = np.asarray([classes.index(name) for name in names], np.int64)
    return indices[inverse]


def _class_name(label: Any) -> str:
    """Return the name of a class, the same for 1 and 1.0, of characters that can be shown."""
    if isinstance(label, np.floating):
        return str(int(label))
    if isinstance(label, bytes):
        return printable(label.decode(errors="backslashreplace"))
    return printable(str(label))
