"""What the backward pass starts with, in one pass: ReLU's mask and the bias gradient."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import prange

from ..compiling import array_in, array_out, compiled, types
from ..memory import empty
from ..vector_math import STRICT, SUM, njit


@njit(**SUM)
def total(dy: Any) -> Any:
    """Return the sum of a plane."""
    s = dy.dtype.type(0)
    for p in range(dy.size):
        s += dy[p]
    return s


@njit(**STRICT)
def mask(dy: Any, y: Any, masked: Any) -> None:
    """Set masked = dy where ReLU let something through, else 0."""
    for p in range(dy.size):
        masked[p] = dy.dtype.type(0) if y[p] <= 0 else dy[p]


def mask_planes(dy: Any, y: Any, masked: Any, sums: Any) -> None:
    """Mask planes of dy (planes, pixels), and sum each."""
    for plane in prange(dy.shape[0]):
        mask(dy[plane], y[plane], masked[plane])
        sums[plane] = total(masked[plane])


def sum_planes(dy: Any, sums: Any) -> None:
    """Sum planes of dy (planes, pixels)."""
    for plane in prange(dy.shape[0]):
        sums[plane] = total(dy[plane])


def through_relu(dy: Any, y: Any) -> tuple[Any, Any]:
    """Return dy where y > 0, and its sum over images and pixels: the bias gradient."""
    planes, masked = dy.shape[0] * dy.shape[1], empty(dy.shape, dy.dtype)
    sums = np.empty(planes, dy.dtype)
    dy, y = (np.ascontiguousarray(a).reshape(planes, -1) for a in (dy, y))
    loops(dy.dtype)["mask_planes"](dy, y, masked.reshape(planes, -1), sums)
    return masked, _over_images(sums, masked.shape)


def bias_gradient(dy: Any) -> Any:
    """Return the sum of dy over images and pixels."""
    planes = dy.shape[0] * dy.shape[1]
    sums = np.empty(planes, dy.dtype)
    loops(dy.dtype)["sum_planes"](np.ascontiguousarray(dy).reshape(planes, -1), sums)
    return _over_images(sums, dy.shape)


def _over_images(sums: Any, shape: tuple[int, ...]) -> Any:
    return sums.reshape(shape[:2]).sum(axis=0, dtype=np.float64).astype(sums.dtype)


@functools.cache
def loops(dtype: Any) -> dict[str, Any]:
    """Return the compiled loops for a dtype."""
    kind = types.float32 if dtype == np.float32 else types.float64
    read, write, sums = array_in(kind, 2), array_out(kind, 2), array_out(kind, 1)
    return {
        "mask_planes": compiled(mask_planes, types.void(read, read, write, sums), parallel=True),
        "sum_planes": compiled(sum_planes, types.void(read, sums), parallel=True),
    }
