"""The kernels of an optimizer's step: up to TOGETHER parameters in one launch, one read, one write.

A block does BLOCK elements of one parameter; a table says which. It depends on the parameters'
sizes alone and stays on the device, so that a step copies nothing there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .toolchain import dtypes
from .toolchain.capturing import CAPTURING, Numbers
from .toolchain.device import SIMULATED, contiguous, register_routine, xp
from .toolchain.launching import Kernel, cuda
from .toolchain.ptx import get, put

THREADS = 256
PER_THREAD = 16  # elements
BLOCK = THREADS * PER_THREAD
TABLE = 3  # numbers of a row: which parameter, its first element of the block, its end
TOGETHER = 56
"""Parameters of a launch: seven pointers to each fit the 4 KB that a kernel is given."""

Make = Callable[[bool], Callable[..., None]]


def takes(*arrays: Any, **options: Any) -> str | None:
    """Say why these arguments are not taken, if they are not."""
    given = [x for x in arrays if hasattr(x, "dtype")]
    if given[0].dtype.name not in ("float32", "float64"):
        return f"it takes float32 and float64, not {given[0].dtype}"
    if any(x.dtype != given[0].dtype for x in given):
        return "it takes arrays of one dtype"
    return dtypes.takes(*given)


# --- the kernels ---------------------------------------------------------------------------------


def make_sgd(replayed: bool) -> Callable[..., None]:
    """Return the kernel of SGD; for a step that is replayed, which reads the rate on the device."""

    def sgd(
        weights: Any, grads: Any, velocities: Any, new_weights: Any, new_velocities: Any,
        table: Any, changing: Any, momentum: float, fresh: float, decay: float, rate: float,
        nesterov: int, first: int,
    ) -> None:  # fmt: skip
        """Write parameters and velocities after a step; at the first one there are no velocities.

        Without momentum there are none at all. ``fresh`` is 1 - dampening.
        """
        if replayed:
            rate = get(changing, 0)
        row = np.int64(cuda.blockIdx.x) * TABLE
        k, end = get(table, row), get(table, row + 2)
        w, g, v = weights[k], grads[k], velocities[k]
        new_w, new_v = new_weights[k], new_velocities[k]
        start = get(table, row + 1) + cuda.threadIdx.x
        for u in range(PER_THREAD):
            i = start + u * THREADS
            if i < end:
                old, step = get(w, i), get(g, i)
                if decay != 0:
                    step += decay * old
                if momentum != 0:
                    speed = step if first else momentum * get(v, i) + fresh * step
                    put(new_v, i, speed)
                    step = step + momentum * speed if nesterov else speed
                put(new_w, i, old - rate * step)

    sgd.__qualname__ = "sgd_replayed" if replayed else "sgd"
    return sgd


def make_adamw(replayed: bool) -> Callable[..., None]:
    """Return the kernel of AdamW; for a step that is replayed, which reads three numbers there."""

    def adamw(
        weights: Any, grads: Any, means: Any, squares: Any,
        new_weights: Any, new_means: Any, new_squares: Any, table: Any, changing: Any,
        b1: float, c1: float, b2: float, c2: float, eps: float, root: float, keep: float,
        rate: float, first: int,
    ) -> None:  # fmt: skip
        """Write parameters and their state after a step; at the first one the state is zeros."""
        if replayed:
            root, keep, rate = get(changing, 0), get(changing, 1), get(changing, 2)
        row = np.int64(cuda.blockIdx.x) * TABLE
        k, end = get(table, row), get(table, row + 2)
        w, g, m, v = weights[k], grads[k], means[k], squares[k]
        new_w, new_m, new_v = new_weights[k], new_means[k], new_squares[k]
        start = get(table, row + 1) + cuda.threadIdx.x
        for u in range(PER_THREAD):
            i = start + u * THREADS
            if i < end:
                slope = get(g, i)
                mean, square = c1 * slope, c2 * slope * slope
                if not first:
                    mean += b1 * get(m, i)
                    square += b2 * get(v, i)
                put(new_m, i, mean)
                put(new_v, i, square)
                put(new_w, i, get(w, i) * keep - rate * (mean / (math.sqrt(square) / root + eps)))

    adamw.__qualname__ = "adamw_replayed" if replayed else "adamw"
    return adamw


@functools.cache
def kernel(make: Make, code: str, replayed: bool) -> Kernel:
    """Return a kernel for a dtype's code."""
    arrays, floats, integers = SHAPES[make]
    lists, numbers = f"{code}*{TOGETHER} " * arrays, f"{code} " * floats + "i4 " * integers
    parameters = f"{lists}i8* {code}* {numbers}"
    return Kernel(make(replayed), parameters, THREADS, 4)


SHAPES: dict[Make, tuple[int, int, int]] = {make_sgd: (5, 4, 2), make_adamw: (7, 8, 1)}
"""Lists of arrays, floating numbers and integers that a kernel takes."""

# --- the steps -----------------------------------------------------------------------------------


def run(
    make: Make,
    lists: Sequence[Any],
    new: Sequence[Any],
    fixed: Sequence[float],
    changing: Numbers,
    rate: float,
    *flags: bool,
) -> None:
    """Write ``new`` lists of arrays, of other lists, and of numbers.

    ``changing`` numbers, which depend on the rate and the step, follow the ``fixed`` ones.
    """
    dtype, capture = lists[0][0].dtype, CAPTURING.now
    place = None if capture is None else capture.on_device(changing, rate, dtype)
    made = kernel(make, dtype.str[1:], capture is not None)
    numbers = *map(dtype.type, (*fixed, *changing(rate, 0))), *flags
    for start in range(0, len(lists[0]), TOGETHER):
        part = slice(start, start + TOGETHER)
        table = blocks_of(tuple([w.size for w in lists[0][part]]))
        if table.size:
            arrays = [pointers(x[part]) for x in (*lists, *new)]
            made(table.size // TABLE, *arrays, table, place, *numbers)


def results(arrays: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Return where a step writes: new arrays; in one that is replayed, the old ones if there."""
    replayed = CAPTURING.now is not None
    return [
        x if replayed and x is not None else xp.empty(w.shape, w.dtype)
        for x, w in zip(arrays, like, strict=True)
    ]


def pointers(arrays: Sequence[Any]) -> tuple[Any, ...]:
    """Return as many arrays as a launch has pointers; None stands for those that are not there."""
    there = [None if x is None else contiguous(x) for x in arrays]
    return *there, *[None] * (TOGETHER - len(there))


def blocks_of(sizes: tuple[int, ...]) -> Any:
    """Return the table of blocks for parameters of these sizes."""
    return _blocks_of(sizes, None if SIMULATED else xp.cuda.Device().id)


@functools.lru_cache(maxsize=64)
def _blocks_of(sizes: tuple[int, ...], device: Any) -> Any:
    rows = [
        (k, start, min(size, start + BLOCK))
        for k, size in enumerate(sizes)
        for start in range(0, size, BLOCK)
    ]
    return xp.asarray(np.array(rows, np.int64).reshape(-1))


def places_of(keys: Iterable[Any]) -> dict[Any, list[int]]:
    """Return the places of each key."""
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    return places


def at(places: Sequence[int], *lists: Sequence[Any]) -> list[list[Any]]:
    """Return what lists hold at some places."""
    return [[x[i] for i in places] for x in lists]


def sgd_step(
    weights: Sequence[Any],
    grads: Sequence[Any],
    velocities: Sequence[Any],
    *,
    rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    dampening: float,
) -> tuple[list[Any], list[Any]]:
    """Return the weights and velocities after a step of `SGD`."""
    new_weights = results(weights, weights)
    new_velocities = results(velocities, weights) if momentum else [None] * len(weights)
    fixed = momentum, 1 - dampening, weight_decay
    for first, places in places_of(v is None for v in velocities).items():
        lists, new = at(places, weights, grads, velocities), at(places, new_weights, new_velocities)
        run(make_sgd, lists, new, fixed, lambda rate, later: (rate,), rate, nesterov, first)
    return new_weights, new_velocities


def adamw_step(
    weights: Sequence[Any],
    grads: Sequence[Any],
    means: Sequence[Any],
    squares: Sequence[Any],
    steps: Sequence[float],
    *,
    rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the weights, means and squares after a step of `AdamW`."""
    new = [results(arrays, weights) for arrays in (weights, means, squares)]
    fixed = b1, 1 - b1, b2, 1 - b2, eps
    keys = [(t, m is None) for t, m in zip(steps, means, strict=True)]
    for (t, first), places in places_of(keys).items():
        changing = functools.partial(adamw_numbers, t, b1, b2, weight_decay)
        lists = at(places, weights, grads, means, squares)
        run(make_adamw, lists, at(places, *new), fixed, changing, rate, first)
    return new[0], new[1], new[2]


def adamw_numbers(
    t: float, b1: float, b2: float, weight_decay: float, rate: float, later: int
) -> tuple[float, ...]:
    """Return what changes of `AdamW` some steps after the one of ``t``."""
    t += later
    return math.sqrt(1 - b2**t), 1 - rate * weight_decay, rate / (1 - b1**t)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [
        kernel(make, code, replayed)
        for make in SHAPES
        for code in ("f4", "f8")
        for replayed in (False, True)
    ]


register_routine(
    "sgd_step", sgd_step, takes, "rate", "momentum", "nesterov", "weight_decay", "dampening"
)
register_routine("adamw_step", adamw_step, takes, "rate", "b1", "b2", "eps", "weight_decay")
