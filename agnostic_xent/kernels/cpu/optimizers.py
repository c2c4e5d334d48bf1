"""The kernels of an optimizer's step: one pass over a parameter, its gradient and its state.

They round as the portable definitions do, operation by operation: the results are the same bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.operation import ROUTINES, Implementation
from .simd.elementary import BIAS, STRICT, njit
from .toolchain.arguments import why_not
from .toolchain.compiling import array_in, array_out, compiled_in_parts, types
from .toolchain.memory import empty
from .toolchain.threads import PIECES

SMALL = 65536
"""Elements below which one thread is faster than waking the others."""

plain = njit(**STRICT)


def takes(*arrays: Any, **options: Any) -> str | None:
    """Say why these arguments are not taken, if they are not."""
    given = [x for x in arrays if not isinstance(x, float)]
    why = why_not(*given)
    if why is None and any(x is not None and x.dtype != arrays[0].dtype for x in given):
        why = "it takes arrays of one dtype"
    return why


def flat(x: Any, dtype: Any) -> Any:
    """Return an array's elements as the loops read them; none for None."""
    return _NOTHING[dtype] if x is None else x.ravel()


_NOTHING = {dtype: np.empty(0, dtype) for dtype in BIAS}

# --- SGD -----------------------------------------------------------------------------------------


@plain
def decayed(g: Any, decay: Any, w: Any) -> Any:
    """Add the weight's decay to a gradient."""
    return g + decay * w if decay != 0 else g


def sgd(
    w: Any, g: Any, v: Any, rate: float, momentum: float, dampening: float, decay: float,
    nesterov: bool, new_w: Any, new_v: Any, parts: Any, part: Any,
) -> None:  # fmt: skip
    """Write a parameter and its velocity after a step.

    Without momentum new_v has no elements; at the first step v has none.
    """
    kind = w.dtype.type
    rate, momentum, fresh, decay = kind(rate), kind(momentum), kind(1 - dampening), kind(decay)
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
            step = decayed(g[i], decay, w[i])
            speed = new_v[i] = momentum * v[i] + fresh * step
            new_w[i] = w[i] - rate * (step + momentum * speed if nesterov else speed)


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
    for w, g, v in zip(weights, grads, velocities, strict=True):
        new_w = empty(w.shape, dtype)
        new_v = empty(w.shape, dtype) if momentum else None
        sgd_loop(dtype)(
            flat(w, dtype), flat(g, dtype), flat(v, dtype), rate, momentum, dampening,
            weight_decay, nesterov, new_w.ravel(), flat(new_v, dtype), alone=w.size < SMALL,
        )  # fmt: skip
        new_weights.append(new_w)
        new_velocities.append(new_v)
    return new_weights, new_velocities


@functools.cache
def sgd_loop(dtype: Any) -> Callable[..., None]:
    """Return the compiled loop for a dtype."""
    kind = types.float32 if dtype == np.float32 else types.float64
    read, write = array_in(kind, 1), array_out(kind, 1)
    signature = (*[read] * 3, *[types.float64] * 4, types.boolean, write, write)
    made: Callable[..., None] = compiled_in_parts(sgd, signature, PIECES)
    return made


# --- AdamW ---------------------------------------------------------------------------------------


def adamw(
    w: Any, g: Any, m: Any, v: Any, numbers: Any, new_w: Any, new_m: Any, new_v: Any,
    parts: Any, part: Any,
) -> None:  # fmt: skip
    """Write a parameter and its state after a step."""
    b1, c1, b2, c2 = numbers[0], numbers[1], numbers[2], numbers[3]
    root, eps, keep, rate = numbers[4], numbers[5], numbers[6], numbers[7]
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
    numbers = {}
    for t in set(steps):
        by, root = 1 - b1**t, math.sqrt(1 - b2**t)
        of_t = (b1, 1 - b1, b2, 1 - b2, root, eps, 1 - rate * weight_decay, rate / by)
        numbers[t] = np.array(of_t, dtype)
    for w, g, m, v, t in zip(weights, grads, means, squares, steps, strict=True):
        m = np.zeros(w.shape, dtype) if m is None else m
        v = np.zeros(w.shape, dtype) if v is None else v
        made = [empty(w.shape, dtype) for _ in new]
        arrays = *[x.ravel() for x in (w, g, m, v)], numbers[t], *[x.ravel() for x in made]
        adamw_loop(dtype)(*arrays, alone=w.size < SMALL)
        for values, x in zip(new, made, strict=True):
            values.append(x)
    return new


@functools.cache
def adamw_loop(dtype: Any) -> Callable[..., None]:
    """Return the compiled loop for a dtype."""
    kind = types.float32 if dtype == np.float32 else types.float64
    read, write = array_in(kind, 1), array_out(kind, 1)
    made: Callable[..., None] = compiled_in_parts(adamw, (*[read] * 5, *[write] * 3), PIECES)
    return made


for step, options in (
    (sgd_step, ("rate", "momentum", "nesterov", "weight_decay", "dampening")),
    (adamw_step, ("rate", "b1", "b2", "eps", "weight_decay")),
):
    kernel = Implementation("Numba loop", step, takes=takes, options=options)
    ROUTINES[step.__name__].add_kernel("numpy", kernel)
