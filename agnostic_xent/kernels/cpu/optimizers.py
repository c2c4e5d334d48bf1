"""The kernels of an optimizer's step: one pass over a parameter, its gradient and its state.

They round as the portable definitions do, operation by operation: the results are the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from ...core.operation import ROUTINES, Implementation
from .simd.elementary import plain
from .simd.elements import FEW
from .toolchain.arguments import flat, flat_or_nothing, why_not
from .toolchain.compiling import compiled_in_parts
from .toolchain.memory import empty
from .toolchain.signatures import FLOATS, Read1, Unnamed, Write1
from .toolchain.threads import PIECES


def takes(*arrays: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    given = [x for x in arrays if not isinstance(x, float)]
    why = why_not(*given)
    if why is None and any(x is not None and x.dtype != arrays[0].dtype for x in given):
        why = "it takes arrays of one dtype"
    return why


# --- SGD -----------------------------------------------------------------------------------------


@plain
def decayed(g: Any, decay: Any, w: Any) -> Any:
    """Return the gradient g plus ``decay * w``."""
    return g + decay * w if decay != 0 else g


class Descent(NamedTuple):
    """The numbers of a step of SGD."""

    rate: float
    momentum: float
    fresh: float
    """The share of a gradient in the velocity: 1 - dampening."""
    decay: float
    nesterov: bool


DescentIn = Annotated[Any, Unnamed(Descent)]


@compiled_in_parts(PIECES, kind=FLOATS)
def sgd(
    w: Read1, g: Read1, v: Read1, step: DescentIn, new_w: Write1, new_v: Write1,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write a parameter and its velocity after a step to new_w and new_v.

    Without momentum new_v has no elements; at the first step v has none.
    """
    kind, step = w.dtype.type, Descent(*step)
    rate, momentum, fresh = kind(step.rate), kind(step.momentum), kind(step.fresh)
    decay, nesterov = kind(step.decay), step.nesterov
    first, last = w.size * part // parts, w.size * (part + 1) // parts
    w, g, v = w[first:last], g[first:last], v[first:last]
    new_w, new_v = new_w[first:last], new_v[first:last]
    if new_v.size == 0:
        for i in range(w.size):
            new_w[i] = w[i] - rate * decayed(g[i], decay, w[i])
    elif v.size == 0:
        for i in range(w.size):
            speed = new_v[i] = decayed(g[i], decay, w[i])
            new_w[i] = w[i] - rate * (speed + momentum * speed if nesterov else speed)
    else:
        for i in range(w.size):
            slope = decayed(g[i], decay, w[i])
            speed = new_v[i] = momentum * v[i] + fresh * slope
            new_w[i] = w[i] - rate * (slope + momentum * speed if nesterov else speed)


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
    new_weights, new_velocities = [], []
    dtype = weights[0].dtype
    step = tuple(Descent(rate, momentum, 1 - dampening, weight_decay, nesterov))
    for w, g, v in zip(weights, grads, velocities, strict=True):
        new_w = empty(w.shape, dtype)
        new_v = empty(w.shape, dtype) if momentum else None
        sgd[dtype](
            flat(w), flat(g), flat_or_nothing(v, dtype), step, flat(new_w),
            flat_or_nothing(new_v, dtype), alone=w.size < FEW,
        )  # fmt: skip
        new_weights.append(new_w)
        new_velocities.append(new_v)
    return new_weights, new_velocities


# --- AdamW ---------------------------------------------------------------------------------------


class Adaption(NamedTuple):
    """The numbers of a step of AdamW."""

    b1: float
    c1: float
    """1 - b1."""
    b2: float
    c2: float
    root: float
    """The square root of what the mean of the squares lacks: 1 - b2 ** steps."""
    eps: float
    keep: float
    """What a weight's decay leaves of it."""
    rate: float
    """Over what the mean of the gradients lacks: 1 - b1 ** steps."""


AdaptionIn = Annotated[Any, Unnamed(Adaption)]


def adaption(t: float, rate: float, b1: float, b2: float, eps: float, decay: float) -> Adaption:
    """Return the numbers of step t, which is counted from 1."""
    root = math.sqrt(1 - b2**t)
    return Adaption(b1, 1 - b1, b2, 1 - b2, root, eps, 1 - rate * decay, rate / (1 - b1**t))


@compiled_in_parts(PIECES, kind=FLOATS)
def adamw(
    w: Read1, g: Read1, m: Read1, v: Read1, step: AdaptionIn, new_w: Write1, new_m: Write1,
    new_v: Write1, parts: int, part: int,
) -> None:  # fmt: skip
    """Write a parameter and its state after a step to new_w, new_m and new_v."""
    kind, step = w.dtype.type, Adaption(*step)
    b1, c1, b2, c2 = kind(step.b1), kind(step.c1), kind(step.b2), kind(step.c2)
    root, eps, keep, rate = kind(step.root), kind(step.eps), kind(step.keep), kind(step.rate)
    first, last = w.size * part // parts, w.size * (part + 1) // parts
    w, g, m, v = w[first:last], g[first:last], m[first:last], v[first:last]
    new_w, new_m, new_v = new_w[first:last], new_m[first:last], new_v[first:last]
    for i in range(w.size):
        mean = new_m[i] = b1 * m[i] + c1 * g[i]
        square = new_v[i] = b2 * v[i] + c2 * g[i] * g[i]
        new_w[i] = w[i] * keep - rate * (mean / (np.sqrt(square) / root + eps))


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
    new: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    dtype = weights[0].dtype
    numbers = {t: tuple(adaption(t, rate, b1, b2, eps, weight_decay)) for t in set(steps)}
    for w, g, m, v, t in zip(weights, grads, means, squares, steps, strict=True):
        m = np.zeros(w.shape, dtype) if m is None else m
        v = np.zeros(w.shape, dtype) if v is None else v
        made = [empty(w.shape, dtype) for _ in new]
        arrays = *map(flat, (w, g, m, v)), numbers[t], *map(flat, made)
        adamw[dtype](*arrays, alone=w.size < FEW)
        for values, x in zip(new, made, strict=True):
            values.append(x)
    return new


for step, options in (
    (sgd_step, ("rate", "momentum", "nesterov", "weight_decay", "dampening")),
    (adamw_step, ("rate", "b1", "b2", "eps", "weight_decay")),
):
    kernel = Implementation("Numba loop", step, takes=takes, options=options)
    ROUTINES[step.__name__].add_kernel("numpy", kernel)
