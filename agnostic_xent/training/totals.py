"""Sums over the samples of an epoch, kept on the device until it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Totals:
    """Sums over samples: numbers, or scalar arrays."""

    samples: int = 0
    loss: Any = 0
    correct: Any = 0
    terms: Any = 0
    """What the accuracy divides by."""
    divisor: Any = 0
    """What the mean of the loss divides by: the terms, or their weights."""

    def add(self, other: Totals) -> None:
        """Add the totals of other samples."""
        self.samples += other.samples
        self.loss = self.loss + other.loss
        self.correct = self.correct + other.correct
        self.terms = self.terms + other.terms
        self.divisor = self.divisor + other.divisor

    def means(self) -> tuple[float, float]:
        """Return mean loss and accuracy, NaN where no term counts; this reads from the device."""
        loss = float(self.loss) / (float(self.divisor) or math.nan)
        return loss, float(self.correct) / (float(self.terms) or math.nan)
