"""Steps of an optimizer with an l1 penalty, which sets weights to 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.arrays import Array, array_namespace
from .optimizers import SGD, Params, State


@dataclass(frozen=True)
class Proximal:
    """SGD with the penalty ``l1 sum |w|``: after a step, weights come nearer to 0, at most to it.

    By the learning rate times l1; biases do not. That is the proximal step (Duchi and Singer,
    Efficient online and batch learning using forward backward splitting, JMLR 2009).
    """

    optimizer: SGD
    l1: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.optimizer.rate(step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step."""
        return self.optimizer.init(params)

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        less = self.rate(state["step"]) * self.l1
        params, state = self.optimizer.update(params, grads, state)
        weights = [name for name in grads if not name.endswith("bias")]
        return params | {name: shrunk(params[name], less) for name in weights}, state


def shrunk(x: Array, limits: Any) -> Array:
    """Return numbers nearer to 0 by their limits, numbers or an array, at most at 0."""
    xp = array_namespace(x)
    return xp.sign(x) * xp.clip(xp.abs(x) - limits, min=0)
