"""Loops of batch normalization over planes, the pixels of a channel of an image.

``moments``, ``transform``, ``products`` and ``gradient`` are compiled on their own; they do a part
of the planes. Sums are taken in float64, a plane by itself; who calls adds those of a channel, in
the order of the images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import STRICT, SUM, borrowed, njit

plain = njit(**STRICT)

SMALL = 16384  # pixels below which one thread is faster than waking the others
PIECE = 1024  # pixels that are summed in lanes; pieces follow each other

# --- statistics ----------------------------------------------------------------------------------


@njit(**SUM)
def total(x: Any) -> Any:
    """Return the sum."""
    s = 0.0
    for j in range(x.size):
        s += np.float64(x[j])
    return s


@njit(**SUM)
def squares(x: Any, mean: Any) -> Any:
    """Return the sum of squared differences from the mean."""
    s = 0.0
    for j in range(x.size):
        d = np.float64(x[j]) - mean
        s += d * d
    return s


def moments(x: Any, means: Any, spreads: Any, parts: Any, part: Any) -> None:
    """Write each plane's mean and sum of squared differences from it."""
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
    """Write (x - mean) scale + shift."""
    for j in range(x.size):
        y[j] = (x[j] - mean) * scale + shift


def transform(
    x: Any, mean: Any, scale: Any, shift: Any, y: Any, parts: Any, part: Any
) -> None:  # fmt: skip
    """Write (x - mean) scale + shift with the numbers of each plane's channel."""
    x, y, planes = borrowed(x), borrowed(y), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        c = p % mean.size
        line(x[p], mean[c], scale[c], shift[c], y[p])


# --- gradient ------------------------------------------------------------------------------------


@njit(**SUM)
def sums_with(dy: Any, x: Any, mean: Any) -> Any:
    """Return the sums of dy and of dy (x - mean)."""
    s = t = 0.0
    for j in range(x.size):
        d = np.float64(dy[j])
        s += d
        t += d * (np.float64(x[j]) - mean)
    return s, t


def products(
    dy: Any, x: Any, mean: Any, sums: Any, products: Any, parts: Any, part: Any
) -> None:  # fmt: skip
    """Write each plane's sum of dy, and that of dy (x - mean)."""
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
    """Write scale (dy - shift - (x - mean) slope)."""
    for j in range(x.size):
        dx[j] = (dy[j] - shift - (x[j] - mean) * slope) * scale


def gradient(
    dy: Any, x: Any, mean: Any, scale: Any, slope: Any, shift: Any, dx: Any, parts: Any, part: Any
) -> None:
    """Write scale (dy - shift - (x - mean) slope) with the numbers of each plane's channel."""
    dy, x, dx, planes = borrowed(dy), borrowed(x), borrowed(dx), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        c = p % mean.size
        gradient_line(dy[p], x[p], mean[c], scale[c], slope[c], shift[c], dx[p])
