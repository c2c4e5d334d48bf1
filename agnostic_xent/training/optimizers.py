"""Optimizers as pure functions of parameters, gradients and state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..core.arrays import Array, array_namespace, narrow, widen
from ..core.checks import is_number, set_numbers
from ..core.conversion import detached
from ..core.operation import Routine
from .schedules import Schedule, rate_of

__all__ = ["SGD", "AdamW"]

Params: TypeAlias = dict[str, Array]
State: TypeAlias = dict[str, Any]


class Optimizer(Protocol):
    """What `fit` needs of an optimizer."""

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step."""

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""


def averages_of(optimizer: Any, params: Params, state: State) -> Params:
    """Return the parameters that an optimizer stands for: its averages where it has some."""
    has_some = hasattr(optimizer, "averages")
    found: Params = optimizer.averages(params, state) if has_some else params
    return found


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError for what is no optimizer."""
    if isinstance(optimizer, type) or not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be one such as SGD(0.1), got {optimizer!r}")


def _taken(params: Mapping[str, Array], grads: Mapping[str, Array]) -> tuple[Params, Params]:
    """Return parameters and gradients as a step takes them."""
    unknown = grads.keys() - params.keys()
    if unknown:
        raise ValueError(f"grads has no parameter for {', '.join(sorted(unknown))}")
    return detached(params), detached(grads)


def _take_rate(optimizer: Any) -> None:
    """Take the learning rate as a float, unless it is a schedule."""
    if not callable(optimizer.learning_rate):
        set_numbers(optimizer, learning_rate="[0, inf)")


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with torch's conventions.

    ``g = grad + weight_decay * w``; with momentum ``v = momentum * v + (1 - dampening) * g``
    (``v = g`` at a parameter's first step) and ``g = g + momentum * v`` (Nesterov) or ``g = v``;
    ``w = w - learning_rate * g``.

    Parameters
    ----------
    learning_rate : float or callable
        A number, or a schedule: step (from 0) -> number.
    momentum, weight_decay, dampening : float
        As in the formula.
    nesterov : bool
        Look ahead along the momentum; needs momentum > 0 and no dampening.
    decay_bias : bool
        Whether the weight decay is also that of parameters whose name ends in "bias".

    Examples
    --------
    >>> w = {"w": xp.asarray([1.0])}
    >>> sgd = SGD(0.5)
    >>> w, state = sgd.update(w, {"w": xp.asarray([1.0])}, sgd.init(w))
    >>> float(w["w"][0])
    0.5

    References
    ----------
    Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
    """

    learning_rate: float | Schedule
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    dampening: float = 0.0
    decay_bias: bool = True

    def __post_init__(self) -> None:
        _take_rate(self)
        set_numbers(self, momentum="[0, inf)", weight_decay="[0, inf)", dampening="[0, inf)")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening = 0, got momentum={self.momentum!r}, "
                f"dampening={self.dampening!r}"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return rate_of(self.learning_rate, step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step."""
        return {"step": 0, "velocity": {}}

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        params, grads = _taken(params, grads)
        updated, kept = params, dict(state["velocity"])
        spared = [] if self.decay_bias else [name for name in grads if name.endswith("bias")]
        decayed = [name for name in grads if name not in spared]
        for names, weight_decay in ((decayed, self.weight_decay), (spared, 0.0)):
            if not names:
                continue
            weights, velocity = sgd_step(
                [params[name] for name in names],
                [grads[name] for name in names],
                [kept.get(name) for name in names],
                rate=self.rate(state["step"]),
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=weight_decay,
                dampening=self.dampening,
            )
            updated |= zip(names, weights, strict=True)
            kept |= zip(names, velocity, strict=True)
        return updated, {"step": state["step"] + 1, "velocity": kept if self.momentum else {}}


@Routine
def sgd_step(
    weights: Sequence[Array],
    grads: Sequence[Array],
    velocities: Sequence[Array | None],
    *,
    rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    dampening: float,
) -> tuple[list[Array], list[Array | None]]:
    """Return the weights and velocities after a step of `SGD`; a velocity of None is the first.

    Of weights in half precision, velocities are float32, as is all that is computed.
    """
    new_weights, new_velocities = [], []
    for like, g, v in zip(weights, grads, velocities, strict=True):
        w, g = widen(like), widen(g)
        if weight_decay:
            g = g + weight_decay * w
        if momentum:
            v = g if v is None else momentum * widen(v) + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        new_weights.append(narrow(w - rate * g, like))
        new_velocities.append(v)
    return new_weights, new_velocities


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, with torch's conventions.

    ``w = w - rate * weight_decay * w``; ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g^2``;
    ``w = w - rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``, where t is 1 at
    a parameter's first gradient.

    Parameters
    ----------
    learning_rate : float or callable
        A number, or a schedule: step (from 0) -> number.
    betas : (float, float)
        b1 and b2, in [0, 1).
    eps, weight_decay : float
        As in the formula.

    Examples
    --------
    >>> w = {"w": xp.asarray([1.0])}
    >>> adamw = AdamW(0.5, weight_decay=0.0)
    >>> w, state = adamw.update(w, {"w": xp.asarray([3.0])}, adamw.init(w))
    >>> round(float(w["w"][0]), 6)
    0.5

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, arXiv:1711.05101.
    """

    learning_rate: float | Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        _take_rate(self)
        set_numbers(self, eps="[0, inf)", weight_decay="[0, inf)")
        betas = self.betas if isinstance(self.betas, (tuple, list)) else ()
        if len(betas) != 2 or not all(is_number(beta) and 0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        object.__setattr__(self, "betas", tuple(map(float, betas)))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return rate_of(self.learning_rate, step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step."""
        return {"step": 0, "steps": {}, "mean": {}, "square": {}}

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        params, grads = _taken(params, grads)
        steps = {name: state["steps"].get(name, 0.0) + 1 for name in grads}
        b1, b2 = self.betas
        weights, means, squares = adamw_step(
            [params[name] for name in grads],
            list(grads.values()),
            [state["mean"].get(name) for name in grads],
            [state["square"].get(name) for name in grads],
            list(steps.values()),
            rate=self.rate(state["step"]),
            b1=b1,
            b2=b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )
        updated = params | dict(zip(grads, weights, strict=True))
        return updated, {
            "step": state["step"] + 1,
            "steps": state["steps"] | steps,
            "mean": state["mean"] | dict(zip(grads, means, strict=True)),
            "square": state["square"] | dict(zip(grads, squares, strict=True)),
        }


@Routine
def adamw_step(
    weights: Sequence[Array],
    grads: Sequence[Array],
    means: Sequence[Array | None],
    squares: Sequence[Array | None],
    steps: Sequence[float],
    *,
    rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
) -> tuple[list[Array], list[Array], list[Array]]:
    """Return the weights, means and squares after a step of `AdamW`; None stands for zeros.

    Of weights in half precision, means and squares are float32, as is all that is computed.
    """
    new_weights, new_means, new_squares = [], [], []
    for like, g, m, v, t in zip(weights, grads, means, squares, steps, strict=True):
        w, g = widen(like), widen(g)
        m = (1 - b1) * g if m is None else b1 * widen(m) + (1 - b1) * g
        v = (1 - b2) * g * g if v is None else b2 * widen(v) + (1 - b2) * g * g
        root = array_namespace(v).sqrt(v) / math.sqrt(1 - b2**t) + eps
        w = w * (1 - rate * weight_decay)
        new_weights.append(narrow(w - rate / (1 - b1**t) * (m / root), like))
        new_means.append(m)
        new_squares.append(v)
    return new_weights, new_means, new_squares
