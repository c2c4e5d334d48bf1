"""Sums over the samples of an epoch, kept on the device until it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..core.arrays import Array, array_namespace, constant, dtype_kind, widen
from ..operations.class_loss import not_ignored


@dataclass
class Totals:
    """Sums over samples: numbers, or scalar arrays."""

    samples: int = 0
    loss: Any = 0
    correct: Any = 0
    terms: Any = 0
    """Of the loss: what its mean and the accuracy divide by."""

    def add(self, other: Totals) -> None:
        """Add the totals of other samples."""
        self.samples += other.samples
        self.loss = self.loss + other.loss
        self.correct = self.correct + other.correct
        self.terms = self.terms + other.terms

    def means(self) -> tuple[float, float]:
        """Return mean loss and accuracy, NaN where no term counts; this reads from the device."""
        terms = float(self.terms) or math.nan
        return float(self.loss) / terms, float(self.correct) / terms


def totals_of(
    mean_loss: Array, output: Array, target: Array, axis: int, ignore_index: int | None
) -> Totals:
    """Return the totals of a batch."""
    xp, mean_loss, hits = array_namespace(output), widen(mean_loss), _hits(output, target, axis)
    counted = not_ignored(target, ignore_index)
    terms: Any
    if counted is None:
        terms = math.prod(hits.shape)
        loss = mean_loss * terms
    else:
        hits, terms = hits & counted, xp.count_nonzero(counted)
        loss = mean_loss * xp.astype(terms, mean_loss.dtype)
        loss = xp.where(terms == 0, constant(0, loss), loss)  # of nothing the mean may be NaN
    return Totals(output.shape[0], loss, xp.count_nonzero(hits), terms)


def _hits(output: Array, target: Array, axis: int) -> Array:
    """Tell which predictions are right: the largest logit, or of a single one its sign."""
    xp = array_namespace(output)
    if dtype_kind(xp, target.dtype) == "integral":
        return xp.argmax(output, axis=axis) == target
    if output.shape[axis] == 1:
        return (output > 0) == (target > 0.5)
    return xp.argmax(output, axis=axis) == xp.argmax(target, axis=axis)
