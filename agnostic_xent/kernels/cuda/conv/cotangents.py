"""What stands between a convolution and its cotangent: ReLU and the bias."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import WIDE, code_of, given, of_wide, stored
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, put, widen
from ..toolchain.teams import cuda, team_sum
from .parts import write_sum

THREADS = 256
BLOCKS = 512  # that keep any GPU busy


def make_masked_sums(code: str, masks: bool) -> Callable[..., None]:
    """Return the kernel that sums a channel's cotangents, where ReLU let something through."""
    kind = WIDE[code]

    def masked_sums(
        dy: Any, y: Any, masked: Any, sums: Any, images: int, channels: int, plane: int
    ) -> None:
        room = cuda.shared.array(32, kind)
        t = cuda.threadIdx.x
        part, parts = np.int64(cuda.blockIdx.y), cuda.gridDim.y
        total = kind(0)
        for image in range(part, images, parts):
            start = (image * channels + cuda.blockIdx.x) * plane
            for i in range(start + t, start + plane, THREADS):
                v = get(dy, i)
                if masks:
                    if widen(get(y, i)) <= 0:
                        v = type(v)(0)
                    put(masked, i, v)
                total += widen(v)
        total = team_sum(total, room, t, THREADS)
        if t == 0:
            put(sums, part * channels + cuda.blockIdx.x, total)

    masked_sums.__qualname__ = "masked_sums" if masks else "plain_sums"
    return masked_sums


@functools.cache
def masked_sums_kernel(code: str, masks: bool) -> Kernel:
    """Return the kernel for a dtype, with a ReLU that ``masks`` or without, made once."""
    parameters = f"{code}* {code}* {code}* {of_wide(code)}* i4 i4 i8"
    return Kernel(make_masked_sums(code, masks), parameters, THREADS, 4)


def sums_of_channels(dy: Any, y: Any = None) -> tuple[Any, Any]:
    """Return contiguous dy where y > 0, if there is a y, and its sum over images and pixels."""
    images, channels, height, width = dy.shape
    parts = max(1, min(images, BLOCKS // channels))
    masked = dy if y is None else xp.empty_like(dy)
    sums = xp.empty((parts, channels), WIDE[code_of(dy)])
    masked_sums_kernel(code_of(dy), y is not None)(
        (channels, parts), stored(dy), given(y), stored(masked), sums,
        images, channels, height * width,
    )  # fmt: skip
    total = xp.empty(channels, dy.dtype)
    write_sum(sums, total)
    return masked, total


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [masked_sums_kernel(code, masks) for code in WIDE for masks in (True, False)]
