"""A learning rate to begin with: the loss as the rate rises, and what it suggests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..core.arrays import Array
from ..core.checks import generator, integer, number
from ..network.layers import Layer, Params
from .batches import Batch, Source, as_source
from .divergence import DivergenceError
from .history import Callback, Epoch
from .loop import Loss, fit
from .optimizers import SGD, AdamW

__all__ = ["LearningRates", "find_learning_rate"]


@dataclass(frozen=True)
class LearningRates:
    """What `find_learning_rate` found: the loss at each rate, and a rate to begin with.

    Examples
    --------
    >>> LearningRates([0.1, 1.0, 10.0], [0.7, 0.5, 3.0]).suggestion
    0.1
    """

    rates: list[float]
    losses: list[float]
    """Smoothed."""

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the loss was least: there it still falls."""
        return self.rates[self.losses.index(min(self.losses))] / 10


def find_learning_rate(
    model: Layer,
    params: Mapping[str, Array],
    data: Any,
    *,
    loss: Loss,
    optimizer: SGD | AdamW,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 128,
    rng: Any = None,
) -> LearningRates:
    """Take steps at growing learning rates until the loss has risen far, and suggest a rate.

    Parameters
    ----------
    model, params, data, loss, batch_size, rng
        As for `fit`; ``params`` are not changed.
    optimizer : SGD or AdamW
        Its learning rate is replaced.
    lowest, highest : float
        The rates of the first and of the last step; between them they grow by one factor.
    steps : int
        At most so many; they end when the smoothed loss is over 4 times its least.

    Returns
    -------
    LearningRates
        ``rates``, ``losses`` and ``suggestion``.

    Raises
    ------
    ValueError
        If the rates do not grow, or the loss is not finite at the lowest.

    Examples
    --------
    >>> x, y = xp.asarray([[0.0], [1.0]] * 8), xp.asarray([0, 1] * 8)
    >>> w = {"0.weight": xp.zeros((2, 1)), "0.bias": xp.zeros(2)}
    >>> found = find_learning_rate(
    ...     Sequential(Dense(2)), w, (x, y), loss=cross_entropy, optimizer=SGD(0.1), rng=0
    ... )
    >>> 0.01 < found.suggestion < 10.0
    True

    References
    ----------
    Smith, Cyclical learning rates for training neural networks, arXiv:1506.01186.
    """
    lowest, highest = (
        number(name, x, "(0, inf)") for name, x in {"lowest": lowest, "highest": highest}.items()
    )
    if not lowest < highest:
        raise ValueError(f"lowest must be below highest, got {lowest!r} and {highest!r}")
    steps = integer("steps", steps, least=2)
    rng, curve = generator(rng), _Curve()
    source = as_source("data", data, next(iter(params.values())), passes=steps)
    with suppress(DivergenceError):  # the highest rates may be too high
        fit(
            model,
            params,
            _OneByOne(source, batch_size, rng),
            loss=loss,
            optimizer=replace(
                optimizer,
                learning_rate=lambda step: lowest * (highest / lowest) ** (step / (steps - 1)),
            ),
            epochs=steps,
            rng=rng,
            callbacks=[curve],
        )
    if not curve.losses:
        raise ValueError(f"the loss is not finite at the lowest learning rate, {lowest!r}")
    return LearningRates(curve.rates, curve.losses)


class _OneByOne:
    """One batch a pass, so that `fit` tells the loss of every step."""

    def __init__(self, source: Source, batch_size: int, rng: Any):
        self._batches = _endless(source, batch_size, rng)

    def __iter__(self) -> Iterator[Batch]:
        yield next(self._batches)


def _endless(source: Source, batch_size: int, rng: Any) -> Iterator[Batch]:
    while True:
        yield from source.batches(batch_size, rng)


class _Curve(Callback):
    """Losses smoothed by an exponential mean, and their rates; the end of a run that got worse."""

    MEMORY, WORSE = 0.9, 4.0

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._sum = 0.0

    def on_epoch(self, epoch: Epoch, params: Params) -> bool:
        self._sum = self.MEMORY * self._sum + (1 - self.MEMORY) * epoch.loss
        smoothed = self._sum / (1 - self.MEMORY**epoch.epoch)
        self.rates.append(epoch.learning_rate)
        self.losses.append(smoothed)
        return smoothed > self.WORSE * min(self.losses)
