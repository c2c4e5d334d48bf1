"""What each threshold of a probability of two classes brings: ROC, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Thresholds:
    """The samples that are called positive, those with a score at least as high, by threshold.

    References
    ----------
    T. Fawcett. An introduction to ROC analysis. Pattern Recognition Letters 27, 2006.
    """

    thresholds: NDArray[np.floating]
    """From the highest score to the lowest."""
    hits: NDArray[np.int64]
    """How many of those that are called positive are."""
    called: NDArray[np.int64]
    """How many are called positive."""
    positives: int
    samples: int

    @classmethod
    def of(cls, scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Thresholds | None:
        """Return them for samples; None where these are of one class."""
        positives, samples = int(positive.sum()), len(positive)
        if positives in (0, samples):
            return None
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        last = np.append(np.flatnonzero(np.diff(scores)), samples - 1)  # of equal scores
        return cls(scores[last], np.cumsum(positive[order])[last], last + 1, positives, samples)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of the positive samples that are called so."""
        return self.hits / self.positives

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of those called positive that are."""
        return self.hits / self.called

    @property
    def false_alarms(self) -> NDArray[np.float64]:
        """The share of the negative samples that are called positive."""
        return (self.called - self.hits) / (self.samples - self.positives)

    @property
    def area(self) -> float:
        """The area under the ROC curve: how often a positive sample has the higher score."""
        x, y = (np.append(0, values) for values in (self.false_alarms, self.recall))
        return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))

    @property
    def average_precision(self) -> float:
        """The mean precision over the positive samples, each at its own score."""
        return float(np.sum(np.diff(np.append(0, self.recall)) * self.precision))

    def at_precision(self, wanted: float) -> tuple[float, float] | None:
        """Return the lowest threshold that has a precision, and its recall; None if none has."""
        reached = np.flatnonzero(self.precision >= wanted)
        if not len(reached):
            return None
        return float(self.thresholds[reached[-1]]), float(self.recall[reached[-1]])
