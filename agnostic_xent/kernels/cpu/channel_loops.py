"""Loops of batch normalization over planes, the pixels of a channel of an image.

``moments``, ``transform``, ``products`` and ``gradient`` are compiled on their own. Sums are taken
in float64, a plane by itself; who calls adds those of a channel, in the order of the images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .vector_math import STRICT, SUM, borrowed, njit

plain = njit(**STRICT)

BLOCK = 16384  # pixels of a unit of work; for fewer in all one thread is faster than waking others
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


@plain
def some_moments(x: Any, means: Any, spreads: Any, first: Any, last: Any) -> None:
    """Do planes first to last."""
    x = borrowed(x)
    for p in range(first, last):
        plane, mean, spread = x[p], 0.0, 0.0
        for start in range(0, plane.size, PIECE):
            mean += total(plane[start : start + PIECE])
        mean /= plane.size
        for start in range(0, plane.size, PIECE):  # from the cache
            spread += squares(plane[start : start + PIECE], mean)
        means[p], spreads[p] = mean, spread


def moments(x: Any, means: Any, spreads: Any) -> None:
    """Write each plane's mean and sum of squared differences from it."""
    planes, step = x.shape[0], max(1, BLOCK // x.shape[1])
    if x.size < BLOCK:
        some_moments(x, means, spreads, 0, planes)
    else:
        for k in prange((planes + step - 1) // step):
            some_moments(x, means, spreads, k * step, min(k * step + step, planes))


# --- value ---------------------------------------------------------------------------------------


@plain
def line(x: Any, mean: Any, scale: Any, shift: Any, y: Any) -> None:
    """Write (x - mean) scale + shift."""
    for j in range(x.size):
        y[j] = (x[j] - mean) * scale + shift


@plain
def some_transform(
    x: Any, mean: Any, scale: Any, shift: Any, y: Any, first: Any, last: Any
) -> None:
    """Do planes first to last."""
    x, y, c = borrowed(x), borrowed(y), first % mean.size
    for p in range(first, last):
        line(x[p], mean[c], scale[c], shift[c], y[p])
        c = c + 1 if c + 1 < mean.size else 0


def transform(x: Any, mean: Any, scale: Any, shift: Any, y: Any) -> None:
    """Write (x - mean) scale + shift with the numbers of each plane's channel."""
    planes, step = x.shape[0], max(1, BLOCK // x.shape[1])
    if x.size < BLOCK:
        some_transform(x, mean, scale, shift, y, 0, planes)
    else:
        for k in prange((planes + step - 1) // step):
            some_transform(x, mean, scale, shift, y, k * step, min(k * step + step, planes))


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


@plain
def some_products(
    dy: Any, x: Any, mean: Any, sums: Any, products: Any, first: Any, last: Any
) -> None:
    """Do planes first to last."""
    dy, x, c = borrowed(dy), borrowed(x), first % mean.size
    for p in range(first, last):
        slope, plane, s, t = dy[p], x[p], 0.0, 0.0
        for start in range(0, plane.size, PIECE):
            stop = start + PIECE
            a, b = sums_with(slope[start:stop], plane[start:stop], mean[c])
            s, t = s + a, t + b
        sums[p], products[p] = s, t
        c = c + 1 if c + 1 < mean.size else 0


def products(dy: Any, x: Any, mean: Any, sums: Any, products: Any) -> None:
    """Write each plane's sum of dy, and that of dy (x - mean)."""
    planes, step = x.shape[0], max(1, BLOCK // x.shape[1])
    if x.size < BLOCK:
        some_products(dy, x, mean, sums, products, 0, planes)
    else:
        for k in prange((planes + step - 1) // step):
            some_products(dy, x, mean, sums, products, k * step, min(k * step + step, planes))


@plain
def gradient_line(dy: Any, x: Any, mean: Any, scale: Any, slope: Any, shift: Any, dx: Any) -> None:
    """Write scale (dy - shift - (x - mean) slope)."""
    for j in range(x.size):
        dx[j] = (dy[j] - shift - (x[j] - mean) * slope) * scale


@plain
def some_gradient(
    dy: Any, x: Any, mean: Any, scale: Any, slope: Any, shift: Any, dx: Any, first: Any, last: Any
) -> None:
    """Do planes first to last."""
    dy, x, dx, c = borrowed(dy), borrowed(x), borrowed(dx), first % mean.size
    for p in range(first, last):
        gradient_line(dy[p], x[p], mean[c], scale[c], slope[c], shift[c], dx[p])
        c = c + 1 if c + 1 < mean.size else 0


def gradient(dy: Any, x: Any, mean: Any, scale: Any, slope: Any, shift: Any, dx: Any) -> None:
    """Write scale (dy - shift - (x - mean) slope) with the numbers of each plane's channel."""
    planes, step = x.shape[0], max(1, BLOCK // x.shape[1])
    if x.size < BLOCK:
        some_gradient(dy, x, mean, scale, slope, shift, dx, 0, planes)
    else:
        for k in prange((planes + step - 1) // step):
            first, last = k * step, min(k * step + step, planes)
            some_gradient(dy, x, mean, scale, slope, shift, dx, first, last)
