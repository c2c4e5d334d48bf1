"""Averages over the steps of an optimizer, which can be continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.arrays import Array
from .optimizers import Optimizer, Params, State, averages_of

DECAY = 3.0
"""Averages forget: iterate i of t counts about as ``(i / t) ** DECAY``."""


@dataclass
class Averaged:
    """An optimizer that averages, and can be continued.

    The average is of polynomial decay (Shamir and Zhang, Stochastic gradient descent for
    non-smooth optimization, ICML 2013): Polyak's, but the first iterates fade.
    """

    optimizer: Optimizer
    average: bool = False
    state: State | None = None
    """After the last step; what to continue from."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.optimizer.rate(step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the next step."""
        if self.state is None:
            self.state = state_after(0, self.optimizer.init(params), params)
        return self.state

    def averages(self, params: Params, state: State) -> Params:
        """Return the averages, if there are some."""
        if not self.average:
            return averages_of(self.optimizer, params, state["inner"])
        mean: Params = state["mean"]
        return mean

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        params, inner = self.optimizer.update(params, grads, state["inner"])
        step, mean = state["step"] + 1, state["mean"]
        if self.average:
            mean = {name: mean[name] + share(step) * (w - mean[name]) for name, w in params.items()}
        self.state = {"step": step, "inner": inner, "mean": mean, "last": params}
        return params, self.state


def share(step: Any) -> Any:
    """Return the share of the average that the iterate of a step, counted from 1, has then.

    Of an array of steps, an array.
    """
    return (DECAY + 1) / (DECAY + step)


def state_after(steps: int, inner: State, params: Mapping[str, Array]) -> State:
    """Return the state of `Averaged` that has not averaged, given that of the inner optimizer."""
    return {"step": steps, "inner": inner, "mean": dict(params), "last": dict(params)}
