"""The features of a linear model that speak most for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST = 12


def strongest(
    weights: NDArray[np.floating], names: Sequence[str], classes: Sequence[str]
) -> dict[str, list[str]]:
    """Return, by class, the names of the features with the largest weights > 0, those first.

    Weights are those of the logits, (classes, features), or (1, features) of the second of two.
    """
    rows = np.concatenate([-weights, weights]) if len(weights) == 1 else weights
    found = {}
    for name, row in zip(classes, rows, strict=True):
        most = min(MOST, len(row))
        best = np.argpartition(-row, most - 1)[:most]
        best = best[np.argsort(-row[best], kind="stable")]
        found[str(name)] = [str(names[i]) for i in best if row[i] > 0]
    return found
