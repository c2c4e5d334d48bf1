"""The kernel that moves pixels: rows of images, copied by places of their columns."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ...core.operation import ROUTINES, Implementation
from .toolchain.arguments import why_not
from .toolchain.compiling import compiled_in_parts
from .toolchain.signatures import FLOATS, Array, Read2, Write2

Places = Annotated[Any, Array(np.dtype(np.int64), 2)]

FEW = 1 << 16
"""Pixels up to which they are moved in the thread of the caller."""


def moved(images: Any, places: Any) -> Any:
    """Return images made of the pixels of others."""
    (x,), (rows, columns) = images, (np.ascontiguousarray(p) for p in places)
    (n, c, h, w), oh, ow = x.shape, rows.shape[1], columns.shape[1]
    y = np.empty((n, c, oh, ow), x.dtype)
    lines, made = np.ascontiguousarray(x).reshape(n * c * h, w), y.reshape(n * c * oh, ow)
    move_rows[x.dtype](lines, rows, columns, made, c, h, alone=y.size <= FEW)
    return y


@compiled_in_parts(kind=FLOATS)
def move_rows(
    x: Read2, rows: Places, columns: Places, y: Write2, channels: int, height: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write a part of the rows of all images."""
    count, out, width = y.shape[0], rows.shape[1], x.shape[1]
    for k in range(count * part // parts, count * (part + 1) // parts):
        image, i = k // out, k % out
        sample = image // channels
        row = rows[sample, i]
        if row == height:
            y[k, :] = 0
            continue
        line = image * height + row
        for j in range(columns.shape[1]):
            column = columns[sample, j]
            y[k, j] = x[line, column] if column < width else 0


def takes(x: Any, rows: Any, columns: Any) -> str | None:
    """Return why images are not taken, or None."""
    return why_not(x)


ROUTINES["moved_pixels"].add_kernel("numpy", Implementation("Numba loop", moved, takes=takes))
