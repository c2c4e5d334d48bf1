"""The kernels of the means of whole planes, by a warp or a block."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, narrow, put, widen
from ..toolchain.teams import LANES, cuda, team_sum

THREADS = 256
LARGE = 1024  # pixels of a plane


def make_plane_means(code: str, team: int) -> Callable[..., None]:
    """Return the kernel of the means of whole planes, by a warp or a block."""
    kind: Any = WIDE[code]

    def plane_means(x: Any, y: Any, planes: int, pixels: int) -> None:
        room = cuda.shared.array(32, kind)
        t = cuda.threadIdx.x
        plane = np.int64(cuda.blockIdx.x) * (THREADS // team) + t // team
        start = min(plane, planes - 1) * pixels
        total = kind(0)
        for i in range(t % team, pixels, team):
            total += widen(get(x, start + i))
        total = team_sum(total, room, t, team)
        if t % team == 0 and plane < planes:
            put(y, plane, narrow(y, total / kind(pixels)))

    plane_means.__qualname__ = f"plane_means_{team}"
    return plane_means


def team_of(pixels: int) -> int:
    """Return the threads of a plane of so many pixels."""
    return LANES if pixels <= LARGE else THREADS


@functools.cache
def kernel(code: str, team: int) -> Kernel:
    """Return the kernel of the means of planes for a dtype and a team, made once."""
    return Kernel(make_plane_means(code, team), f"{code}* {code}* i8 i8", THREADS, 6)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [kernel(code, team) for code in WIDE for team in (LANES, THREADS)]
