"""What threads find out together: a team is a power of two of them, lanes of a warp or a block.

Every thread of the block takes part, and all of a team get the same bits. ``room`` is shared memory
for 32 numbers, which a block alone needs.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from .device import SIMULATED
from .launching import cuda as _cuda
from .ptx import get, put, shuffle_xor

LANES = 32  # threads of a warp

cuda: Any = _cuda

if SIMULATED:
    simulator = importlib.import_module("numba.cuda.simulator.kernel")

    class Running:
        """The simulator's ``cuda`` of the kernel that runs, for functions outside of its file."""

        def __getattr__(self, name: str) -> Any:
            return getattr(simulator._get_kernel_context(), name)

    cuda = Running()


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let kernels call a function (decorator)."""
    if SIMULATED:
        return function
    made: Callable[..., Any] = cuda.jit(function, device=True, forceinline=True)
    return made


@device
def exchange(v: Any, room: Any, t: Any, team: Any) -> Any:
    """Return to each lane of the team the number v of one of its warps, in turn."""
    cuda.syncthreads()  # who still reads what was there before
    if t % LANES == 0:
        put(room, t // LANES, v)
    cuda.syncthreads()
    return get(room, t % (team // LANES))


@device
def team_sum(v: Any, room: Any, t: Any, team: Any) -> Any:
    """Return the sum of v over the threads of a team."""
    step = 1
    while step < min(team, LANES):
        v += shuffle_xor(v, step)
        step *= 2
    if team > LANES:
        v = exchange(v, room, t, team)
        step = 1
        while step < team // LANES:
            v += shuffle_xor(v, step)
            step *= 2
    return v


@device
def team_max(v: Any, room: Any, t: Any, team: Any) -> Any:
    """Return the greatest v of the threads of a team, none of which is NaN."""
    step = 1
    while step < min(team, LANES):
        v = max(v, shuffle_xor(v, step))
        step *= 2
    if team > LANES:
        v = exchange(v, room, t, team)
        step = 1
        while step < team // LANES:
            v = max(v, shuffle_xor(v, step))
            step *= 2
    return v


# --- softmax: the greatest number, and the sum of the others' exponentials -----------------------


@device
def absorb(top: Any, rest: Any, v: Any, sharpness: Any) -> Any:
    """Return the greatest number and the sum of ``exp(sharpness (z - top))`` over the others.

    That is of what was there before and of v. -inf is nothing; NaN makes the sum NaN.
    """
    if v == -math.inf:
        return top, rest
    e = math.exp(-abs(v - top) * sharpness)
    return (v, (rest + type(v)(1)) * e) if v > top else (top, rest + e)


@device
def merge(top: Any, rest: Any, other_top: Any, other_rest: Any, sharpness: Any) -> Any:
    """Return the pair (greatest, rest) of two such pairs together, whichever comes first."""
    one = type(top)(1)
    if top == other_top:
        return top, (rest + other_rest) + one
    e = math.exp(-abs(top - other_top) * sharpness)
    if top > other_top:
        return top, rest + (other_rest + one) * e
    return other_top, other_rest + (rest + one) * e


@device
def team_merge(top: Any, rest: Any, sharpness: Any, room: Any, t: Any, team: Any) -> Any:
    """Return the pair (greatest, rest) of a team; the rest is NaN if the greatest is infinite."""
    step = 1
    while step < min(team, LANES):
        other_top, other_rest = shuffle_xor(top, step), shuffle_xor(rest, step)
        top, rest = merge(top, rest, other_top, other_rest, sharpness)
        step *= 2
    if team > LANES:
        top, rest = exchange(top, room, t, team), exchange(rest, room, t, team)
        step = 1
        while step < team // LANES:
            other_top, other_rest = shuffle_xor(top, step), shuffle_xor(rest, step)
            top, rest = merge(top, rest, other_top, other_rest, sharpness)
            step *= 2
    if top - top != 0:  # infinite
        rest = type(rest)(math.nan)
    return top, rest
