"""What a tensor core computes: products of TF32, whose sums it cuts off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

EXTRA = 2
"""Bits that a tensor core keeps of a term below the last one of the greatest."""


@njit
def multiply(warp: Any) -> None:
    """Set the words of the lanes of a warp to c + a @ b, 16 x 8 x 8, of the fragments in them."""
    a, b = np.empty((16, 8), np.uint32), np.empty((8, 8), np.uint32)
    c = np.empty((16, 8), np.uint32)
    for lane in range(32):
        row, k, words = lane // 4, lane % 4, warp[lane].words
        for n in range(4):
            a[row + n % 2 * 8, k + n // 2 * 4] = words[n] & np.uint32(0xFFFFE000)
            c[row + n // 2 * 8, 2 * k + n % 2] = words[6 + n]
        for n in range(2):
            b[k + n * 4, row] = words[4 + n] & np.uint32(0xFFFFE000)
    d = product(a.view(np.float32), b.view(np.float32), c.view(np.float32)).view(np.uint32)
    for lane in range(32):
        row, k, words = lane // 4, lane % 4, warp[lane].words
        for n in range(4):
            words[n] = d[row + n // 2 * 8, 2 * k + n % 2]


@njit
def product(a: Any, b: Any, c: Any) -> Any:
    """Return c + a @ b as a tensor core adds.

    It shifts the terms of a sum to the exponent of the greatest one, cuts each off a few bits below
    the last one of float32, and cuts off their sum (Fasi et al., Numerical behavior of NVIDIA
    tensor cores, 2021).
    """
    d = np.empty_like(c)
    terms = np.empty(a.shape[1] + 1)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            terms[-1] = c[i, j]
            for k in range(a.shape[1]):
                terms[k] = np.float64(a[i, k]) * np.float64(b[k, j])
            greatest = np.max(np.abs(terms))
            if math.isfinite(greatest) and greatest > 0:
                total = truncated_sum(terms, 24 + EXTRA, greatest)
                d[i, j] = truncated(total, 24)
            else:
                d[i, j] = np.sum(terms)
    return d


@njit
def truncated_sum(terms: Any, bits: Any, greatest: Any) -> Any:
    """Return the sum of terms, each cut off so many bits below the first one of the greatest."""
    unit = math.ldexp(1.0, math.frexp(greatest)[1] - bits)
    total = 0.0
    for x in terms:
        total += math.trunc(x / unit)
    return total * unit


@njit
def truncated(x: Any, bits: Any) -> Any:
    """Return x with its first bits alone."""
    unit = math.ldexp(1.0, math.frexp(x)[1] - bits)
    return math.trunc(x / unit) * unit
