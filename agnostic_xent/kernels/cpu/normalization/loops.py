"""Loops of batch normalization over planes, the pixels of a channel of an image.

Sums are taken in float64, a plane by itself; the caller adds those of a channel, in the order of
the images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import SUM, borrowed, njit, plain
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Doubles, Read1, Read2, Write2, WrittenDoubles
from ..toolchain.threads import PIECES

PIECE = 1024  # pixels that are summed in lanes; pieces follow each other

# --- statistics ----------------------------------------------------------------------------------


@njit(**SUM)
def total(x: Any) -> Any:
    """Return the sum of x."""
    s = 0.0
    for j in range(x.size):
        s += np.float64(x[j])
    return s


@njit(**SUM)
def squares(x: Any, mean: Any) -> Any:
    """Return the sum of squared differences of x from the mean."""
    s = 0.0
    for j in range(x.size):
        d = np.float64(x[j]) - mean
        s += d * d
    return s


@compiled_in_parts(PIECES, kind=FLOATS)
def moments(
    x: Read2, means: WrittenDoubles, spreads: WrittenDoubles, parts: int, part: int
) -> None:
    """Write the mean of each plane of x, and the sum of squared differences from it."""
    x, planes = borrowed(x), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        plane, mean, spread = x[p], 0.0, 0.0
        for start in range(0, plane.size, PIECE):
            mean += total(plane[start : start + PIECE])
        mean /= plane.size
        for start in range(0, plane.size, PIECE):  # from the cache
            spread += squares(plane[start : start + PIECE], mean)
        means[p], spreads[p] = mean, spread


# --- value ---------------------------------------------------------------------------------------


@plain
def line(x: Any, mean: Any, scale: Any, shift: Any, y: Any) -> None:
    """Write ``(x - mean) * scale + shift`` to y."""
    for j in range(x.size):
        y[j] = (x[j] - mean) * scale + shift


@compiled_in_parts(PIECES, kind=FLOATS)
def transform(
    x: Read2, mean: Read1, scale: Read1, shift: Read1, y: Write2, parts: int, part: int
) -> None:
    """Write ``(x - mean) * scale + shift`` to y, with the numbers of each plane's channel."""
    x, y, planes = borrowed(x), borrowed(y), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        c = p % mean.size
        line(x[p], mean[c], scale[c], shift[c], y[p])


# --- gradient ------------------------------------------------------------------------------------


@njit(**SUM)
def sums_with(dy: Any, x: Any, mean: Any) -> Any:
    """Return the sums of dy and of ``dy * (x - mean)``."""
    s = t = 0.0
    for j in range(x.size):
        d = np.float64(dy[j])
        s += d
        t += d * (np.float64(x[j]) - mean)
    return s, t


@compiled_in_parts(PIECES, kind=FLOATS)
def products(
    dy: Read2, x: Read2, mean: Doubles, sums: WrittenDoubles, products: WrittenDoubles,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write the sum of each plane of dy to sums, and that of ``dy * (x - mean)`` to products."""
    dy, x, planes = borrowed(dy), borrowed(x), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        slope, plane, m, s, t = dy[p], x[p], mean[p % mean.size], 0.0, 0.0
        for start in range(0, plane.size, PIECE):
            stop = start + PIECE
            a, b = sums_with(slope[start:stop], plane[start:stop], m)
            s, t = s + a, t + b
        sums[p], products[p] = s, t


@plain
def gradient_line(dy: Any, x: Any, mean: Any, scale: Any, slope: Any, shift: Any, dx: Any) -> None:
    """Write ``scale * (dy - shift - (x - mean) * slope)`` to dx."""
    for j in range(x.size):
        dx[j] = (dy[j] - shift - (x[j] - mean) * slope) * scale


@compiled_in_parts(PIECES, kind=FLOATS)
def gradient(
    dy: Read2, x: Read2, mean: Read1, scale: Read1, slope: Read1, shift: Read1, dx: Write2,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write ``scale * (dy - shift - (x - mean) * slope)`` to dx, for each plane's channel."""
    dy, x, dx, planes = borrowed(dy), borrowed(x), borrowed(dx), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        c = p % mean.size
        gradient_line(dy[p], x[p], mean[c], scale[c], slope[c], shift[c], dx[p])
