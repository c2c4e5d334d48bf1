"""What the command line can train: models with their loss, data and settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import (
    SGD,
    AdamW,
    binary_cross_entropy_with_logits,
    cosine,
    cross_entropy,
    sigmoid,
    softmax,
    to_numpy,
)
from ..core.arrays import Array
from ..core.operation import Operation
from ..evaluation.folder import NETWORKS, of_texts
from ..network.layers import Layer
from ..training.objective import Loss
from ..training.recipe import RATE, recipe_optimizer

SAMPLES = 50_000
"""Of all epochs together."""


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how unless options say otherwise."""

    network: Callable[[int, tuple[int, ...]], Layer]
    """Of so many classes and samples of a shape."""
    optimizer: Callable[[float, int], SGD | AdamW]
    """Of a learning rate and so many steps."""
    data: str
    epochs: tuple[int, int]
    """The most, and the fewest: so many as `SAMPLES` samples in all allow."""
    batch_size: int
    learning_rate: float

    def epochs_of(self, samples: int) -> int:
        """Return the epochs over so many samples."""
        most, fewest = self.epochs
        return min(most, max(fewest, SAMPLES // samples))


RECIPES = {
    "cnn": Recipe(
        network=NETWORKS["cnn"],
        optimizer=recipe_optimizer,
        data="embedded",
        epochs=(30, 3),
        batch_size=64,
        learning_rate=RATE,
    ),
    "signals": Recipe(
        network=NETWORKS["signals"],
        optimizer=functools.partial(recipe_optimizer, signals=True),
        data="watch",
        epochs=(30, 3),
        batch_size=64,
        learning_rate=RATE,
    ),
    "logistic": Recipe(
        network=NETWORKS["logistic"],
        optimizer=lambda rate, steps: SGD(cosine(rate, steps=steps)),
        data="spambase",
        epochs=(5, 5),
        batch_size=1,  # the stochastic gradient descent of textbooks
        learning_rate=0.02,
    ),
}

TEXTS = replace(
    RECIPES["logistic"],
    network=of_texts,
    learning_rate=2.0,  # rows of texts have length 1
)
"""What "logistic" is for texts."""


def loss_of(model: str, classes: int) -> Operation[Any, Any]:
    """Return the loss of a model of so many classes."""
    one_logit = model == "logistic" and classes == 2
    return binary_cross_entropy_with_logits if one_logit else cross_entropy


def targets(loss: Loss, labels: NDArray[np.int64]) -> NDArray[Any]:
    """Return labels as a loss takes them."""
    if loss is binary_cross_entropy_with_logits:
        return labels[:, None].astype(np.float32)  # (N, 1)
    return labels.astype(np.int32)  # JAX has no int64 unless it is told to


def probabilities(logits: Array) -> NDArray[np.floating]:
    """Return the probability of each class, (N, classes), also for one logit of two classes."""
    if logits.shape[1] == 1:
        p = to_numpy(sigmoid(logits))
        return np.concatenate([1 - p, p], axis=1)  # (N, 2)
    return to_numpy(softmax(logits))
