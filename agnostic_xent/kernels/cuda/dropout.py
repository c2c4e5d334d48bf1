"""The kernel of dropout: one read of the elements and of the mask, and one write."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.operation import Pullback
from .toolchain.device import contiguous, register, xp
from .toolchain.dtypes import WIDE, code_of, given, stored, takes
from .toolchain.launching import Kernel
from .toolchain.ptx import get, narrow, put, widen
from .toolchain.teams import cuda

THREADS = 256
AT_ONCE = 8  # elements that a thread waits for together
BLOCK = THREADS * AT_ONCE


def make_dropout(code: str) -> Callable[..., None]:
    """Return the kernel for elements of the dtype ``code``."""
    kind: Any = WIDE[code]

    def dropout(x: Any, keep: Any, y: Any, n: int, kept: float) -> None:
        v = cuda.local.array(AT_ONCE, kind)
        mask = cuda.local.array(AT_ONCE, np.uint8)
        first = np.int64(cuda.blockIdx.x) * BLOCK + cuda.threadIdx.x
        for u in range(AT_ONCE):
            i = first + u * THREADS
            if i < n:
                v[u], mask[u] = widen(get(x, i)), get(keep, i)
        for u in range(AT_ONCE):
            i = first + u * THREADS
            if i < n:
                put(y, i, narrow(y, v[u] / kind(kept) if mask[u] else kind(0)))

    dropout.__qualname__ = "dropout"
    return dropout


@functools.cache
def dropout_kernel(code: str) -> Kernel:
    """Return the kernel for elements of the dtype ``code``, made once."""
    return Kernel(make_dropout(code), f"{code}* u1* {code}* i8 f8", THREADS, 4)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return list(map(dropout_kernel, WIDE))


def value(x: Any, *, keep: Any, rate: float) -> Any:
    """Return x over 1 - rate where ``keep``, and 0 elsewhere."""
    y = xp.empty(x.shape, x.dtype)
    mask = contiguous(keep).view(xp.uint8)
    dropout_kernel(code_of(x))(-(-y.size // BLOCK), given(x), mask, stored(y), y.size, 1 - rate)
    return y


def vjp(x: Any, *, keep: Any, rate: float) -> tuple[Any, Pullback]:
    """Return the value and its pullback, which is the same function of the cotangent."""
    return value(x, keep=keep, rate=rate), lambda dy: (value(dy, keep=keep, rate=rate),)


register("dropout", value, vjp, takes, "keep", "rate")
