"""What the command line can train: models with their loss, data and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import (
    Sequential,
    binary_cross_entropy_with_logits,
    cross_entropy,
    logistic,
    sigmoid,
    small_cnn,
    softmax,
    to_numpy,
)
from ..core.arrays import Array
from ..core.operation import Operation


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how unless options say otherwise."""

    network: Callable[[int], Sequential]
    loss: Operation[Any, Any]
    momentum: float
    data: str
    epochs: int
    batch_size: int
    learning_rate: float

    def targets(self, labels: NDArray[np.int64]) -> NDArray[Any]:
        """Return labels as the loss takes them."""
        if self.loss is binary_cross_entropy_with_logits:
            return labels[:, None].astype(np.float32)  # (N, 1)
        return labels.astype(np.int32)  # JAX has no int64 unless it is told to


RECIPES = {
    "cnn": Recipe(
        network=small_cnn,
        loss=cross_entropy,
        momentum=0.9,
        data="embedded",
        epochs=3,
        batch_size=64,
        learning_rate=0.05,
    ),
    "logistic": Recipe(
        network=logistic,
        loss=binary_cross_entropy_with_logits,
        momentum=0.0,
        data="spambase",
        epochs=5,
        batch_size=1,  # the stochastic gradient descent of textbooks
        learning_rate=0.02,
    ),
}


def probabilities(logits: Array) -> NDArray[np.floating]:
    """Return the probability of each class, (N, classes), also for one logit of two classes."""
    if logits.shape[1] == 1:
        p = to_numpy(sigmoid(logits))
        return np.concatenate([1 - p, p], axis=1)  # (N, 2)
    return to_numpy(softmax(logits))
