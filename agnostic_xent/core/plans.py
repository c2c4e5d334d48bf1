"""Plans: functions of one array of a known shape, made ready once and then run at one go.

``kernels/`` registers what makes a plan of a function of arrays of a library; this file is the one
place where it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple, Protocol

from .arrays import Array, library
from .operation import NoKernels, load_kernels


class Step(NamedTuple):
    """What a plan does in one step."""

    name: str
    parts: int
    """That threads share out."""
    seconds: float


class Plan(Protocol):
    """A function of so many samples at a time; calls in several threads are safe."""

    @property
    def size(self) -> int:
        """Bytes that a call needs beside the samples and the value."""

    def __call__(self, x: Array) -> Array:
        """Return the value for the samples x: so many, or a multiple."""

    def steps(self, x: Array) -> list[Step]:
        """Return what is done to so many samples, in order, and how long each step takes."""


Constants = MutableMapping[Any, list[Array]]
"""Arrays that do not depend on the argument, by dtype and shape: plans of a function share them."""


class NoPlan(Exception):
    """There is no plan of a function; the text says why."""


class Planner(NamedTuple):
    """What makes plans for a library."""

    plan: Callable[[Callable[[Array], Array], Array, Constants], Plan]
    """Of a function, given an array like the arguments; raises NoPlan if it cannot."""
    in_pieces: bool
    """Whether plans of fewer samples do a batch faster, one piece of it after the other."""
    kept: int
    """Plans of a function, for other numbers of samples, that are kept."""


PLANNERS: dict[str, Planner] = {}
"""Library -> what makes its plans."""


def planner_for(x: Array) -> Planner | None:
    """Return what makes plans of functions of arrays like x, if there is something."""
    name = library(x)
    return PLANNERS.get(name) if load_kernels(name) is None else None


def plan_of(function: Callable[[Array], Array], x: Array, constants: Constants) -> Plan:
    """Return the plan of a function for arrays like x, or raise NoPlan.

    The function has to be one of operations alone, which do the same whatever the values are.
    """
    planner = planner_for(x)
    if planner is None:
        raise NoPlan(f"nothing plans for {library(x)} arrays")
    try:
        return planner.plan(function, x, constants)
    except NoKernels as error:
        raise NoPlan(str(error)) from error
