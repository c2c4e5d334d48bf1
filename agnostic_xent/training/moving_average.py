"""An exponential moving average of the weights along the steps of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.arrays import Array, narrow, widen
from ..core.checks import set_numbers
from ..network.layers import split_statistics
from .optimizers import Optimizer, Params, State, check_optimizer

__all__ = ["MovingAverage"]


@dataclass(frozen=True)
class MovingAverage:
    """An optimizer whose weights are averaged: the averages are evaluated, kept and returned.

    ``m = m + (1 - d) (w - m)`` after each step t, counted from 1, with
    ``d = min(decay, (1 + t) / (10 + t))``, so that the first weights are soon forgotten. The steps
    themselves are those of the optimizer. Running statistics are averaged, too.

    `fit` evaluates, hands to callbacks and returns the averages; its checkpoint keeps both.

    Parameters
    ----------
    optimizer : optimizer
        Such as `SGD`, `AdamW` or `ClipByNorm`.
    decay : float
        In [0, 1): about ``1 / (1 - decay)`` steps are averaged.

    Examples
    --------
    >>> w = {"w": xp.asarray([2.0])}
    >>> sgd = MovingAverage(SGD(1.0))
    >>> w, state = sgd.update(w, {"w": xp.asarray([1.0])}, sgd.init(w))
    >>> float(w["w"][0]), round(float(sgd.averages(w, state)["w"][0]), 6)
    (1.0, 1.181818)

    References
    ----------
    B. T. Polyak, A. B. Juditsky. Acceleration of stochastic approximation by averaging. SIAM J.
    Control Optim. 30, 1992; S. Busbridge et al. How to scale your EMA. arXiv:2307.13813.
    """

    optimizer: Optimizer
    decay: float = 0.999

    def __post_init__(self) -> None:
        set_numbers(self, decay="[0, 1)")
        check_optimizer(self.optimizer)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.optimizer.rate(step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step; of half precision the averages are float32."""
        mean = {name: widen(w) for name, w in params.items()}
        return {"step": 0, "inner": self.optimizer.init(params), "mean": mean}

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        after, inner = self.optimizer.update(params, grads, state["inner"])
        step, mean = state["step"] + 1, dict(state["mean"])
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name in (*grads, *split_statistics(after)[1]):  # the others are where they were
            mean[name] = mean[name] + share * (widen(after[name]) - mean[name])
        return after, {"step": step, "inner": inner, "mean": mean}

    def averages(self, params: Params, state: State) -> Params:
        """Return the averages, in the dtypes of the parameters."""
        return {name: narrow(state["mean"][name], w) for name, w in params.items()}
