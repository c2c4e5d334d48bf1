"""Learning-rate schedules: functions from the step, counted from 0, to the learning rate.

Named in lower case, as they are used as functions are; as dataclasses they can be stored and told
apart. Of an array of steps they give an array of rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.checks import number, set_integers, set_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["constant", "cosine", "step_decay", "warmup"]

Schedule: TypeAlias = Callable[[int], float]


def rate_of(rate: float | Schedule, step: int) -> float:
    """Return the learning rate of a step."""
    if not callable(rate):
        return rate
    return number("the schedule's learning rate", rate(step), "(-inf, inf]")


def rates_of(rate: float | Schedule, steps: NDArray[Any]) -> NDArray[Any]:
    """Return the learning rate of each of some steps.

    A function is asked for all at once. If it takes no array, or answers otherwise than step by
    step at either end, as integer powers that overflow do, it is asked for one after the other.
    """
    import numpy as np

    if not callable(rate):
        return np.full(steps.shape, rate)
    if len(steps) > 2:
        try:
            with np.errstate(all="ignore"):
                rates = np.asarray(rate(steps), "float64")  # type: ignore[arg-type]
        except Exception:  # of any kind; if the steps are not to blame it comes again below
            rates = np.empty(0)
        ends = [rate_of(rate, int(step)) for step in steps[[0, -1]]]
        if rates.shape == steps.shape and all(map(math.isclose, rates[[0, -1]], ends)):
            return rates
    return np.fromiter((rate_of(rate, step) for step in steps.tolist()), "float64", len(steps))


@dataclass(frozen=True)
class constant:
    """The schedule that is always ``rate``.

    Parameters
    ----------
    rate : float
        The learning rate.

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """

    rate: float

    def __post_init__(self) -> None:
        set_numbers(self, rate="(-inf, inf)")

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, or those of an array of steps."""
        return self.rate + 0.0 * step


@dataclass(frozen=True)
class step_decay:
    """The schedule ``rate * factor ** (step // every)``.

    Parameters
    ----------
    rate, factor : float
        As in the formula.
    every : int
        The number of steps with the same rate.

    Examples
    --------
    >>> step_decay(1.0, every=10, factor=0.5)(25)
    0.25
    """

    rate: float
    _: KW_ONLY
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        set_numbers(self, rate="(-inf, inf)", factor="(-inf, inf)")
        set_integers(self, "every")

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, or those of an array of steps."""
        return self.rate * self.factor ** (step // self.every)


@dataclass(frozen=True)
class cosine:
    """Half a cosine from ``rate`` at step 0 to ``final`` at ``steps`` and after.

    Parameters
    ----------
    rate, final : float
        The first and the last learning rate.
    steps : int
        The number of steps between them.

    Examples
    --------
    >>> round(cosine(1.0, steps=100)(50), 6)
    0.5

    References
    ----------
    Loshchilov and Hutter, SGDR, arXiv:1608.03983 (one cycle).
    """

    rate: float
    _: KW_ONLY
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        set_numbers(self, rate="(-inf, inf)", final="(-inf, inf)")
        set_integers(self, "steps")

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, or those of an array of steps."""
        part = _minimum(step / self.steps, 1.0)
        return self.final + (self.rate - self.final) * (1 + _cos(math.pi * part)) / 2


@dataclass(frozen=True)
class warmup:
    """Another schedule with its first ``steps`` steps scaled by ``(step + 1) / steps``.

    Parameters
    ----------
    schedule : callable
        Such as `cosine`.
    steps : int
        The number of steps that are scaled.

    Examples
    --------
    >>> warmup(constant(1.0), steps=4)(1)
    0.5
    """

    schedule: Schedule
    _: KW_ONLY
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise ValueError(
                f"schedule must be a function of the step such as constant(0.1), "
                f"got {self.schedule!r}"
            )
        set_integers(self, "steps")

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, or those of an array of steps."""
        return _of(self.schedule, step) * _minimum((step + 1) / self.steps, 1.0)


@dataclass(frozen=True)
class Later:
    """A schedule from some step on, as if that were the first."""

    schedule: Schedule
    first: int

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, or those of an array of steps."""
        return _of(self.schedule, step + self.first)


@dataclass(frozen=True)
class Scaled:
    """A schedule whose rates are all multiplied by a factor."""

    schedule: Schedule
    factor: float

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, or those of an array of steps."""
        return self.factor * _of(self.schedule, step)


# --- of numbers and of arrays --------------------------------------------------------------------


def _is_array(x: Any) -> bool:
    return getattr(x, "ndim", 0) > 0


def _of(schedule: Schedule, step: Any) -> Any:
    return rates_of(schedule, step) if _is_array(step) else schedule(step)


def _minimum(x: Any, bound: float) -> Any:
    if not _is_array(x):
        return min(x, bound)
    import numpy as np  # a number needs no NumPy, which is slow to import

    return np.minimum(x, bound)


def _cos(x: Any) -> Any:
    if not _is_array(x):
        return math.cos(x)
    import numpy as np

    return np.cos(x)
