"""The kernel that moves pixels: rows of images are copied, forwards or backwards."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ....core.operation import ROUTINES, Implementation
from ..toolchain.arguments import why_not
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Array, Read2, Write2

Places = Annotated[Any, Array(np.dtype(np.int64), 2)]

FEW = 1 << 17
"""Pixels up to which they are moved in the thread of the caller."""


def moved(images: Any, ways: Any, *, size: Any) -> Any:
    """Return images made of the pixels of others."""
    (x,), ways = images, [np.ascontiguousarray(part) for part in ways]
    (n, c, h, w), (oh, ow) = x.shape, size
    y = np.empty((n, c, oh, ow), x.dtype)
    lines, made = np.ascontiguousarray(x).reshape(n * c * h, w), y.reshape(n * c * oh, ow)
    move_rows[x.dtype](lines, *ways, made, c, h, oh, alone=y.size <= FEW)
    return y


@compiled_in_parts(kind=FLOATS)
def move_rows(
    x: Read2, start: Places, step: Places, first: Places, stop: Places, y: Write2,
    channels: int, height: int, made: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Write a part of the rows of all images, of which so many are made of each."""
    count = y.shape[0]
    for k in range(count * part // parts, count * (part + 1) // parts):
        image, i = k // made, k % made
        s = image // channels
        if i < first[s, 0] or i >= stop[s, 0]:
            y[k, :] = 0
            continue
        line = np.uint64(image * height + start[s, 0] + step[s, 0] * i)
        begin, low, high = start[s, 1], first[s, 1], stop[s, 1]
        y[k, :low] = 0
        y[k, high:] = 0
        if step[s, 1] > 0:
            for j in range(low, high):
                y[k, np.uint64(j)] = x[line, np.uint64(begin + j)]
        else:
            for j in range(low, high):
                y[k, np.uint64(j)] = x[line, np.uint64(begin - j)]


def takes(x: Any, *ways: Any, size: Any) -> str | None:
    """Return why images are not taken, or None."""
    return why_not(x)


ROUTINES["moved_pixels"].add_kernel(
    "numpy", Implementation("Numba loop", moved, takes=takes, options=("size",))
)
