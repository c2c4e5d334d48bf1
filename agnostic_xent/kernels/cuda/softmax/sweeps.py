"""The kernels of softmax and log_softmax that hold no row, and those of the pullbacks.

Rows are done by a thread, a warp or a block.

Two sweeps: the greatest number and the sum of the other exponentials, kept up to date as greater
numbers come; then the results, for which a row is read again while it is in cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import Kernel, codes_of
from ..toolchain.ptx import narrow, put
from ..toolchain.rows import AT_ONCE, TEAMS, THREADS, Layout, read_some
from ..toolchain.teams import absorb, cuda, team_merge, team_sum

BLOCKS = {"f4": 4, "f8": 2, "f2": 4, "u2": 4}  # of a multiprocessor


def make_value(code: str, team: int) -> Callable[..., None]:
    """Return the kernel of the values for a dtype, with ``team`` threads to a row."""
    kind: Any = WIDE[code]

    def softmax(x: Any, y: Any, rows: int, classes: int, inner: int, log: int) -> None:
        room = cuda.shared.array(32, kind)
        v = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        n = np.int64(cuda.blockIdx.x) * (THREADS // team) + t // team
        if n >= rows:  # all of a team
            return
        start = n // inner * classes * inner + n % inner
        top, rest, one, nothing = kind(-math.inf), kind(0), kind(1), kind(-math.inf)
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, x, start, j, team, classes, inner, nothing)
            for u in range(AT_ONCE):
                top, rest = absorb(top, rest, v[u], one)
        top, rest = team_merge(top, rest, one, room, t, team)
        log_sum = kind(math.log1p(rest))
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, x, start, j, team, classes, inner, nothing)
            for u in range(AT_ONCE):
                c, d = j + u * team, v[u] - top
                if c < classes:
                    p = d - log_sum if log else kind(math.exp(d)) / (one + rest)
                    put(y, start + c * inner, narrow(y, p))

    softmax.__qualname__ = f"softmax_{team}"
    return softmax


def make_gradient(code: str, team: int) -> Callable[..., None]:
    """Return the kernel of the pullbacks for a dtype and a team, from the values y."""
    kind: Any = WIDE[code]

    def gradient(y: Any, dy: Any, dx: Any, rows: int, classes: int, inner: int, log: int) -> None:
        room = cuda.shared.array(32, kind)
        v = cuda.local.array(AT_ONCE, kind)
        dv = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        n = np.int64(cuda.blockIdx.x) * (THREADS // team) + t // team
        if n >= rows:
            return
        start = n // inner * classes * inner + n % inner
        total, nothing = kind(0), kind(0)
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, y, start, j, team, classes, inner, nothing)
            read_some(dv, dy, start, j, team, classes, inner, nothing)
            for u in range(AT_ONCE):
                total += dv[u] if log else v[u] * dv[u]
        total = team_sum(total, room, t, team)
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, y, start, j, team, classes, inner, nothing)
            read_some(dv, dy, start, j, team, classes, inner, nothing)
            for u in range(AT_ONCE):
                c, p = j + u * team, v[u]
                d = dv[u] - kind(math.exp(p)) * total if log else p * (dv[u] - total)
                if c < classes:
                    put(dx, start + c * inner, narrow(dx, d))

    gradient.__qualname__ = f"softmax_gradient_{team}"
    return gradient


@functools.cache
def value_kernel(code: str, team: int) -> Kernel:
    """Return the kernel of the values for a dtype and a team, made once."""
    parameters = f"{code}* {code}* {codes_of(Layout)} i4"
    return Kernel(make_value(code, team), parameters, THREADS, BLOCKS[code])


@functools.cache
def gradient_kernel(code: str, team: int) -> Kernel:
    """Return the kernel of the pullbacks for a dtype and a team, made once."""
    parameters = f"{code}* {code}* {code}* {codes_of(Layout)} i4"
    return Kernel(make_gradient(code, team), parameters, THREADS, BLOCKS[code])


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = value_kernel, gradient_kernel
    return [make(code, team) for make in made for code in WIDE for team in TEAMS]
