"""The kernels of the pools: from normalised arguments to compiled loops and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import from_dtype as _from_dtype

from ...operation import OPERATIONS, Implementation, Pullback
from ...pooling import window_counts
from ...windows import Margins, Pair, output_size
from . import pool_loops as loops
from .activations import takes
from .compiling import array_in, array_out, compiled, types
from .conv.vectors import lanes_of
from .memory import empty

from_dtype: Any = _from_dtype  # Numba is typed in part only

WINDOWS = types.NamedUniTuple(types.int64, len(loops.Windows._fields), loops.Windows)
max_pool2d, avg_pool2d = OPERATIONS["max_pool2d"], OPERATIONS["avg_pool2d"]
global_avg_pool2d = OPERATIONS["global_avg_pool2d"]


@functools.lru_cache
def windows(
    image: Pair, window: Pair, stride: Pair, padding: Margins, dilation: Pair
) -> loops.Windows:
    """Return the geometry as the loops take it."""
    outputs = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
    return loops.Windows(
        *image, *outputs, *window, *stride, *dilation, -padding[0][0], -padding[1][0]
    )


def flat(x: Any) -> Any:
    """Return an array's elements as the loops read them."""
    return np.ascontiguousarray(x).reshape(-1)


# --- max -----------------------------------------------------------------------------------------


def maxima(x: Any, w: loops.Windows) -> tuple[Any, Any]:
    """Return the maxima, and the numbers of their taps in rows with room for whole vectors."""
    room = -(-w.columns // lanes_of(x.dtype)) * lanes_of(x.dtype)
    y = empty((*x.shape[:2], w.rows, w.columns), x.dtype)
    numbers = empty((*y.shape[:3], room), np.min_scalar_type(w.down * w.across))
    compiled_maxima(x.dtype, numbers.dtype)(flat(x), w, y.reshape(-1), numbers.reshape(-1))
    return y, numbers


def max_value(x: Any, **geometry: Any) -> Any:
    """Return the maxima."""
    if x.size == 0:
        return max_pool2d._portable.value(x, **geometry)
    return maxima(x, windows(x.shape[2:], **geometry))[0]


def max_vjp(x: Any, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the maxima and the pullback, which keeps the numbers of their taps."""
    if x.size == 0:
        return max_pool2d._portable.vjp(x, **geometry)
    w = windows(x.shape[2:], **geometry)
    y, numbers = maxima(x, w)

    def pullback(dy: Any) -> tuple[Any]:
        dx = empty(x.shape, x.dtype)
        down, across = np.arange(w.down)[:, None], np.arange(w.across)
        offsets = down * (w.apart_down * w.width) + across * w.apart_across
        loop = compiled_maxima_gradient(x.dtype, numbers.dtype)
        loop(flat(dy), numbers.reshape(-1), offsets.reshape(-1), w, dx.reshape(-1))
        return (dx,)

    return y, pullback


@functools.cache
def compiled_maxima(dtype: Any, numbers: Any) -> Callable[..., None]:
    """Return the compiled loop for dtypes of the pixels and of the taps' numbers."""
    pixels = from_dtype(dtype)
    signature = types.void(
        array_in(pixels, 1), WINDOWS, array_out(pixels, 1), array_out(from_dtype(numbers), 1)
    )
    made: Callable[..., None] = compiled(loops.maxima, signature, parallel=True)
    return made


@functools.cache
def compiled_maxima_gradient(dtype: Any, numbers: Any) -> Callable[..., None]:
    """Return the compiled loop of the pullback."""
    pixels = from_dtype(dtype)
    signature = types.void(
        array_in(pixels, 1), array_in(from_dtype(numbers), 1), array_in(types.int64, 1), WINDOWS,
        array_out(pixels, 1),
    )  # fmt: skip
    made: Callable[..., None] = compiled(loops.maxima_gradient, signature, parallel=True)
    return made


# --- mean ----------------------------------------------------------------------------------------


def avg_value(x: Any, *, window: Pair, stride: Pair, padding: Margins, counted: Margins) -> Any:
    """Return the means."""
    options: dict[str, Any] = {"window": window, "stride": stride, "padding": padding}
    if x.size == 0:
        return avg_pool2d._portable.value(x, **options, counted=counted)
    w = windows(x.shape[2:], **options, dilation=(1, 1))
    y = empty((*x.shape[:2], w.rows, w.columns), x.dtype)
    counts = window_counts(x, **options, counted=counted)
    compiled_means(x.dtype, False)(flat(x), counts.reshape(-1), w, y.reshape(-1))
    return y


def avg_vjp(
    x: Any, *, window: Pair, stride: Pair, padding: Margins, counted: Margins
) -> tuple[Any, Pullback]:
    """Return the means and the pullback."""
    options: dict[str, Any] = {"window": window, "stride": stride, "padding": padding}
    if x.size == 0:
        return avg_pool2d._portable.vjp(x, **options, counted=counted)

    def pullback(dy: Any) -> tuple[Any]:
        w = windows(x.shape[2:], **options, dilation=(1, 1))
        dx = empty(x.shape, x.dtype)
        counts = window_counts(x, **options, counted=counted)
        compiled_means(x.dtype, True)(flat(dy), counts.reshape(-1), w, dx.reshape(-1))
        return (dx,)

    return avg_value(x, **options, counted=counted), pullback


@functools.cache
def compiled_means(dtype: Any, gradient: bool) -> Callable[..., None]:
    """Return the compiled loop of the means, or of their pullback."""
    read, write = array_in(from_dtype(dtype), 1), array_out(from_dtype(dtype), 1)
    loop = loops.means_gradient if gradient else loops.means
    made: Callable[..., None] = compiled(loop, types.void(read, read, WINDOWS, write), True)
    return made


# --- mean of all pixels --------------------------------------------------------------------------


def global_value(x: Any) -> Any:
    """Return the mean of each plane."""
    if x.size == 0:
        return global_avg_pool2d._portable.value(x)
    y = np.empty(x.shape[:2], x.dtype)
    compiled_plane_means(x.dtype)(flat(x), y.reshape(-1))
    return y


def global_vjp(x: Any) -> tuple[Any, Pullback]:
    """Return the mean of each plane and the pullback, which is cheap."""
    shape = x.shape

    def pullback(dy: Any) -> tuple[Any]:
        share = dy / math.prod(shape[2:])
        return (np.broadcast_to(share[:, :, None, None], shape),)

    return global_value(x), pullback


@functools.cache
def compiled_plane_means(dtype: Any) -> Callable[..., None]:
    """Return the compiled loop."""
    signature = types.void(array_in(from_dtype(dtype), 1), array_out(from_dtype(dtype), 1))
    made: Callable[..., None] = compiled(loops.plane_means, signature, parallel=True)
    return made


max_pool2d.add_kernel("numpy", Implementation("Numba loops", max_value, max_vjp, takes))
avg_pool2d.add_kernel("numpy", Implementation("Numba loops", avg_value, avg_vjp, takes))
global_avg_pool2d.add_kernel(
    "numpy", Implementation("Numba loops", global_value, global_vjp, takes)
)
