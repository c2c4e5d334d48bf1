"""Tables that estimators are given as y: soft labels, or several labels a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from .samples import Labelled, Samples, checked_weights, host

TOLERANCE = 1e-3
"""How far from 1 the sum of a sample's probabilities may be: they are rounded to some dtype."""


def as_table(y: Any) -> NDArray[Any] | None:
    """Return y as a table of numbers of several columns; None where it has one label a sample.

    Integers and booleans become int64 (several labels a sample), floats float64 (probabilities).

    Raises
    ------
    ValueError
        If they are no numbers, or none that mean either.
    """
    table = np.asarray(host(y))
    if table.ndim != 2 or table.shape[1] < 2:
        return None
    if table.dtype.kind in "biu":
        if not np.isin(table, (0, 1)).all():
            raise ValueError(
                "y of several columns of integers must be 0 or 1, whether a sample has a label; "
                f"got {table[~np.isin(table, (0, 1))][0]}"
            )
        return table.astype(np.int64)
    if table.dtype.kind != "f":
        raise ValueError(
            "y must be labels, one a sample, or of shape (N, classes): integers 0 and 1 for "
            f"several labels a sample, or floats, their probabilities; got dtype {table.dtype}"
        )
    table = table.astype(np.float64)
    sums = table.sum(axis=1)
    if not (np.isfinite(table).all() and (table >= 0).all()):
        raise ValueError("y of several columns of floats must be probabilities, in [0, 1]")
    if (wrong := np.abs(sums - 1) > TOLERANCE).any():
        raise ValueError(
            "y of several columns of floats must be probabilities, whose sum is 1 for each sample; "
            f"got {sums[wrong][0]:g} (for several labels a sample, pass integers 0 and 1)"
        )
    normalised: NDArray[np.float64] = table / sums[:, None]
    return normalised


def tabled(
    samples: Samples,
    table: NDArray[Any],
    classes: NDArray[Any] | None,
    sample_weight: Any,
    class_weight: Any,
) -> Labelled:
    """Return samples with a table of targets; ``classes`` are those of a training in parts."""
    if len(table) != len(samples):
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {len(samples)}, y has {len(table)}"
        )
    known = np.arange(table.shape[1]) if classes is None else classes
    if len(known) != table.shape[1]:
        raise ValueError(
            f"y must have a column for each of {len(known)} classes, got {table.shape}"
        )
    best, several = np.argmax(table, axis=1), table.dtype.kind == "i"
    weights = checked_weights(sample_weight, None, known, best)
    if class_weight is None:
        return Labelled(samples, known, best, weights, table, several)
    if several:
        raise ValueError("class_weight is for one label a sample; pass None, and sample_weight")
    of_class = table * _of_classes(class_weight, known, table, weights)
    mass = of_class.sum(axis=1)
    weights = mass if weights is None else weights * mass
    table = of_class / np.where(mass > 0, mass, 1)[:, None]
    return Labelled(samples, known, best, weights, table, several)


def _of_classes(
    class_weight: Any,
    classes: NDArray[Any],
    table: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Return the factor of each class."""
    if isinstance(class_weight, dict):
        found: NDArray[np.float64] = compute_class_weight(class_weight, classes=classes, y=classes)
        return found
    if class_weight != "balanced":
        raise ValueError(
            f'class_weight must be a dict from label to weight, "balanced" or None, '
            f"got {class_weight!r}"
        )
    mass = (table if weights is None else weights[:, None] * table).sum(axis=0)
    balanced: NDArray[np.float64] = (
        mass.sum() / np.count_nonzero(mass) / np.where(mass > 0, mass, np.inf)
    )
    return balanced
