"""Gradients that are kept from being large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import set_numbers
from .optimizers import Optimizer, Params, State, averages_of, check_optimizer

__all__ = ["ClipByNorm"]


@dataclass(frozen=True)
class ClipByNorm:
    """An optimizer whose gradients are scaled down, all alike, where their norm is too large.

    ``g = g min(1, norm / |g|)`` with ``|g|`` the Euclidean norm of all gradients of a step
    together; on several ranks of those of the whole batch. Then the optimizer takes its step. A
    norm of NaN or inf stays visible in the parameters.

    Parameters
    ----------
    optimizer : optimizer
        Such as `SGD` or `AdamW`.
    norm : float
        > 0.

    Examples
    --------
    >>> w = {"w": xp.asarray([1.0, 1.0])}
    >>> sgd = ClipByNorm(SGD(1.0), norm=1.0)
    >>> w, state = sgd.update(w, {"w": xp.asarray([3.0, 4.0])}, sgd.init(w))
    >>> [round(float(w["w"][i]), 6) for i in range(2)]
    [0.4, 0.2]

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio. On the difficulty of training recurrent neural networks. ICML
    2013, arXiv:1211.5063.
    """

    optimizer: Optimizer
    norm: float

    def __post_init__(self) -> None:
        set_numbers(self, norm="(0, inf)")
        check_optimizer(self.optimizer)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.optimizer.rate(step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step, which is the optimizer's."""
        return self.optimizer.init(params)

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        # in the order of names, so that the sum has the same bits on every rank
        wide = [widen(grads[name]) for name in sorted(grads) if 0 not in grads[name].shape]
        if wide:
            factor = self._factor(wide)
            grads = {name: narrow(widen(g) * factor, g) for name, g in grads.items()}
        return self.optimizer.update(params, grads, state)

    def averages(self, params: Params, state: State) -> Params:
        """Return what is evaluated and returned: the averages of the optimizer, if it has some."""
        return averages_of(self.optimizer, params, state)

    def _factor(self, wide: Sequence[Array]) -> Array:
        """Return what the gradients are multiplied by."""
        xp = array_namespace(wide[0])
        top = xp.max(xp.stack([xp.max(xp.abs(g)) for g in wide]))  # no square may overflow
        unit = xp.where(top == 0, constant(1, top), top)
        total = unit * xp.sqrt(sum(xp.sum((g / unit) ** 2) for g in wide))
        return self.norm / xp.where(total > self.norm, total, constant(self.norm, total))
