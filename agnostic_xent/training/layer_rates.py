"""Learning rates that differ by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.arrays import Array
from ..core.checks import number
from ..network.containers import prefix_of
from .optimizers import SGD, AdamW, Params, State
from .schedules import Scaled, Schedule

__all__ = ["LayerRates"]


@dataclass(frozen=True)
class LayerRates:
    """An optimizer whose learning rate is multiplied by a factor in some layers.

    Layers near the input of a trained network are often moved less than those after them. The
    decoupled weight decay of `AdamW` is multiplied along with the rate.

    Parameters
    ----------
    optimizer : SGD or AdamW
        Whose learning rate, which may be a schedule, is that of all other parameters. To clip
        gradients, give all of this to `ClipByNorm`.
    factors : dict of str to float
        Factors >= 0, by the name of a layer or parameter: "0.body" is for all whose names begin
        with "0.body."; the longest name that fits counts.

    Examples
    --------
    >>> w = {"0.weight": xp.asarray([1.0]), "2.weight": xp.asarray([1.0])}
    >>> sgd = LayerRates(SGD(0.5), {"0": 0.1})
    >>> w, _ = sgd.update(w, {name: xp.asarray([1.0]) for name in w}, sgd.init(w))
    >>> [round(float(x[0]), 6) for x in w.values()]
    [0.95, 0.5]

    References
    ----------
    J. Howard, S. Ruder. Universal language model fine-tuning for text classification. ACL 2018,
    arXiv:1801.06146.
    """

    optimizer: SGD | AdamW
    factors: dict[str, float]

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, SGD | AdamW):
            raise TypeError(f"optimizer must be SGD or AdamW, got {self.optimizer!r}")
        if not isinstance(self.factors, Mapping) or not self.factors:
            raise TypeError(
                f'factors must be a dict of names to numbers such as {{"0": 0.1}}, '
                f"got {self.factors!r}"
            )
        factors = {
            name: number(f"factors[{name!r}]", factor, "[0, inf)")
            for name, factor in self.factors.items()
        }
        object.__setattr__(self, "factors", factors)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, where the factor is 1."""
        return self.optimizer.rate(step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step, which is the optimizer's.

        Raises
        ------
        ValueError
            If a factor is for no parameter.
        """
        for name in self.factors:
            if not any(_is_within(own, name) for own in params):
                raise ValueError(
                    f"factors has {name!r}, which is no layer or parameter; "
                    f"the parameters are {', '.join(params)}"
                )
        return self.optimizer.init(params)

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        groups: dict[float, Params] = {}
        for name, grad in grads.items():
            groups.setdefault(self._factor(name), {})[name] = grad
        after, step = dict(params), state["step"]
        for factor, own in groups.items():
            optimizer = replace(self.optimizer, learning_rate=self._rate(factor))
            after, state = optimizer.update(after, own, state | {"step": step})
        return after, state | {"step": step + 1}

    def _factor(self, name: str) -> float:
        fitting = [of for of in self.factors if _is_within(name, of)]
        return self.factors[max(fitting, key=len)] if fitting else 1.0

    def _rate(self, factor: float) -> float | Schedule:
        rate: Any = self.optimizer.learning_rate
        return Scaled(rate, factor) if callable(rate) else rate * factor


def _is_within(name: str, of: str) -> bool:
    """Return whether a parameter is the one of a name, or in the layer of that name."""
    return name == of or name.startswith(prefix_of(of))
