"""The kernels of an optimizer's step: up to TOGETHER parameters in one launch, one read, one write.

A block does BLOCK elements of one parameter; a table says which. It depends on the parameters'
sizes alone and stays on the device, so that a step copies nothing there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .toolchain import dtypes
from .toolchain.capturing import CAPTURING, Numbers
from .toolchain.device import SIMULATED, contiguous, register_routine, uploaded, xp
from .toolchain.launching import Kernel, codes_of, cuda
from .toolchain.ptx import get, put

THREADS = 256
PER_THREAD = 16  # elements
BLOCK = THREADS * PER_THREAD
TABLE = 3  # numbers of a row: which parameter, its first element of the block, its end
TOGETHER = 56
"""Parameters of a launch: seven pointers to each fit the 4 KB that a kernel is given."""


def takes(*arrays: Any, **options: Any) -> str | None:
    """Return why these lists of arrays, one after another, are not taken; None if they are."""
    first, *others = [x for x in arrays if hasattr(x, "dtype")]
    if first.dtype.name not in ("float32", "float64"):
        return f"it takes float32 and float64, not {first.dtype}"
    if any(x.dtype != first.dtype for x in others):
        return "it takes arrays of one dtype"
    return dtypes.takes(first, *others)


# --- the kernels ---------------------------------------------------------------------------------


class SGDNumbers(NamedTuple):
    """The numbers of a step of SGD; ``fresh`` is 1 - dampening."""

    momentum: float
    fresh: float
    decay: float
    rate: float


def make_sgd(replayed: bool) -> Callable[..., None]:
    """Return the kernel of SGD; for a step that is replayed, which reads the rate on the device."""

    def sgd(
        weights: Any, grads: Any, velocities: Any, new_weights: Any, new_velocities: Any,
        table: Any, changing: Any, momentum: float, fresh: float, decay: float, rate: float,
        nesterov: int, first: int,
    ) -> None:  # fmt: skip
        """Write parameters and velocities after a step; at the first one there are no velocities.

        Without momentum there are none at all.
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


class AdamWNumbers(NamedTuple):
    """The numbers of a step of AdamW: ``c1`` is 1 - b1, and of the others see `adamw_numbers`."""

    b1: float
    c1: float
    b2: float
    c2: float
    eps: float
    root: float
    keep: float
    rate: float


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


class Rule(NamedTuple):
    """How parameters are stepped: the maker of the kernel, and what the kernel takes."""

    make: Callable[[bool], Callable[..., None]]
    lists: int
    """Of arrays: those that are read, with the parameters first, and those that are written."""
    numbers: type
    flags: int


SGD = Rule(make_sgd, lists=5, numbers=SGDNumbers, flags=2)
ADAMW = Rule(make_adamw, lists=7, numbers=AdamWNumbers, flags=1)


@functools.cache
def kernel(rule: Rule, code: str, replayed: bool) -> Kernel:
    """Return the kernel of a rule for parameters of the dtype ``code``, made once."""
    lists, flags = f"{code}*{TOGETHER} " * rule.lists, " i4" * rule.flags
    parameters = f"{lists}i8* {code}* {codes_of(rule.numbers, code)}{flags}"
    return Kernel(rule.make(replayed), parameters, THREADS, 4)


# --- the steps -----------------------------------------------------------------------------------


def run(
    rule: Rule,
    lists: Sequence[Any],
    new: Sequence[Any],
    numbers: tuple[float, ...],
    place: Any,
    *flags: bool,
) -> None:
    """Write ``new`` lists of arrays, from others, of which the first are the parameters.

    ``place`` is where on the device the changing numbers lie, in a step that is replayed.
    """
    weights, *_ = lists
    dtype = weights[0].dtype
    made = kernel(rule, dtype.str[1:], place is not None)
    for start in range(0, len(weights), TOGETHER):
        part = slice(start, start + TOGETHER)
        table = blocks_of(tuple([w.size for w in weights[part]]))
        if table.size:
            arrays = [pointers(x[part]) for x in (*lists, *new)]
            made(
                table.size // TABLE, *arrays, table, place, *map(dtype.type, numbers), *flags
            )  # fmt: skip


def placed(changing: Numbers, rate: float, like: Any) -> Any:
    """Return where numbers that change lie, in a captured step: an array like another; or None."""
    capture = CAPTURING.now
    return None if capture is None else capture.on_device(changing, rate, like.dtype)


def results(arrays: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Return where a step writes: new arrays like others; in a captured one the old, if any."""
    replayed = CAPTURING.now is not None
    return [
        x if replayed and x is not None else xp.empty(w.shape, w.dtype)
        for x, w in zip(arrays, like, strict=True)
    ]


def pointers(arrays: Sequence[Any]) -> tuple[Any, ...]:
    """Return as many arrays as a launch has pointers to, with None for those that are missing."""
    there = [None if x is None else contiguous(x) for x in arrays]
    return *there, *[None] * (TOGETHER - len(there))


def blocks_of(sizes: tuple[int, ...]) -> Any:
    """Return the table of blocks for parameters of these sizes, on the current device."""
    return _blocks_of(sizes, None if SIMULATED else xp.cuda.Device().id)


@functools.lru_cache(maxsize=64)
def _blocks_of(sizes: tuple[int, ...], device: Any) -> Any:
    rows = [
        (k, start, min(size, start + BLOCK))
        for k, size in enumerate(sizes)
        for start in range(0, size, BLOCK)
    ]
    return uploaded(np.array(rows, np.int64).reshape(-1))


def places_of(keys: Iterable[Any]) -> dict[Any, list[int]]:
    """Return the positions at which each of the keys stands."""
    places: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    return places


def at(places: Sequence[int], *lists: Sequence[Any]) -> list[list[Any]]:
    """Return what each of the lists holds at some places."""
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
    numbers = SGDNumbers(momentum, 1 - dampening, weight_decay, rate)
    for first, places in places_of(v is None for v in velocities).items():
        lists, new = at(places, weights, grads, velocities), at(places, new_weights, new_velocities)
        place = placed(lambda rate, later: (rate,), rate, weights[0])
        run(SGD, lists, new, numbers, place, nesterov, first)
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
    new_weights, new_means, new_squares = (
        results(arrays, weights) for arrays in (weights, means, squares)
    )
    keys = [(t, m is None) for t, m in zip(steps, means, strict=True)]
    for (t, first), places in places_of(keys).items():
        changing = functools.partial(adamw_numbers, t, b1, b2, weight_decay)
        numbers = AdamWNumbers(b1, 1 - b1, b2, 1 - b2, eps, *changing(rate, 0))
        lists = at(places, weights, grads, means, squares)
        new = at(places, new_weights, new_means, new_squares)
        run(ADAMW, lists, new, numbers, placed(changing, rate, weights[0]), first)
    return new_weights, new_means, new_squares


def adamw_numbers(
    t: float, b1: float, b2: float, weight_decay: float, rate: float, later: int
) -> tuple[float, ...]:
    """Return root, keep and rate of `AdamWNumbers`, some steps ``later`` than step ``t``."""
    t += later
    return math.sqrt(1 - b2**t), 1 - rate * weight_decay, rate / (1 - b1**t)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [
        kernel(rule, code, replayed)
        for rule in (SGD, ADAMW)
        for code in ("f4", "f8")
        for replayed in (False, True)
    ]


register_routine(
    "sgd_step", sgd_step, takes, "rate", "momentum", "nesterov", "weight_decay", "dampening"
)
register_routine("adamw_step", adamw_step, takes, "rate", "b1", "b2", "eps", "weight_decay")
