"""Pools: from normalised options to launches and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ....core import arrays
from ....core.geometry import Margins, Pair, output_size
from ....core.operation import Pullback
from ...shapes import apart, of_signals, of_volumes, with_axis
from ..toolchain.device import GRID, register, xp
from ..toolchain.dtypes import code_of, given, stored, takes
from . import planes, tiles
from .windows import NOBODY, THREADS, Counted, Windows
from .windows import kernel as any_kernel

AT_ONCE = 1 << 30
"""Pixels of a launch: kernels number them, or twice as many places, in 31 bits."""


def run(
    name: str, arrays: tuple[Any, ...], made: Any, windows: Windows, *counted: int
) -> None:  # fmt: skip
    """Start the kernel ``name`` on arrays, of which it writes ``made`` and perhaps others.

    It is that of these windows if there is one, else that of any.
    """
    code, count = code_of(made), math.prod(made.shape[:2])
    of, numbers = tiles.known(code, windows), tuple(windows)
    if of is None:
        kernel, each = any_kernel(name, code), math.prod(made.shape[2:])
    else:
        places = tiles.places(name, windows, of)
        kernel, each = tiles.kernel(name, code, of), places.down * places.across
        numbers = *places, *tiles.image(windows)
    step = AT_ONCE // largest(windows)
    for first in range(0, count, step):
        n = min(step, count - first) * each
        some = map(given, arrays if count <= step else (of_planes(x, first, step) for x in arrays))
        kernel(-(-n // THREADS), *some, n, *numbers, *counted)


def of_planes(x: Any, first: int, count: int) -> Any:
    """Return ``count`` planes of an array of images, from the ``first`` one on."""
    return x.reshape(-1, *x.shape[2:])[first : first + count]


def largest(windows: Windows) -> int:
    """Return the pixels of a plane of the image or of the output, whichever has more."""
    return max(windows.height * windows.width, windows.rows * windows.columns)


@functools.lru_cache(maxsize=256)
def windows_of(
    image: Pair, window: Pair, stride: Pair, padding: Margins, dilation: Pair = (1, 1)
) -> Windows:
    """Return where the windows of normalised options lie in an image."""
    oh, ow = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
    (top, _), (left, _) = padding
    return Windows(*image, oh, ow, *window, *stride, *dilation, top, left)


def fits(x: Any, *, counted: Any = None, **geometry: Any) -> bool:
    """Return whether the pixels of a plane are few enough to be numbered."""
    return largest(windows_of(x.shape[2:], **geometry)) < 1 << 30


def max_fits(x: Any, *, window: Pair, **geometry: Any) -> bool:
    """Return whether the number of a tap is a byte, and the pixels are few enough."""
    return math.prod(window) <= NOBODY and fits(x, window=window, **geometry)


def max_value(x: Any, **geometry: Any) -> Any:
    """Return the maxima of the windows."""
    return max_vjp(x, **geometry)[0]


def max_vjp(x: Any, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the maxima and the pullback, which keeps the numbers of their taps, in bytes."""
    windows = windows_of(x.shape[2:], **geometry)
    y = xp.empty((*x.shape[:2], windows.rows, windows.columns), x.dtype)
    winners = xp.empty(y.shape, np.uint8)
    run("maxima", (x, y, winners), y, windows)

    def pullback(dy: Any) -> tuple[Any]:
        dx = xp.empty(x.shape, x.dtype)
        run("maxima_gradient", (dy, winners, dx), dx, windows)
        return (dx,)

    return y, pullback


def avg_value(x: Any, **geometry: Any) -> Any:
    """Return the means of the windows."""
    return avg_vjp(x, **geometry)[0]


def avg_vjp(x: Any, *, counted: Margins, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the means and the pullback; ``counted`` are the margins whose pixels are counted."""
    windows = windows_of(x.shape[2:], **geometry)
    (top, bottom), (left, right) = counted
    pixels = Counted(-top, windows.height + bottom, -left, windows.width + right)
    y = xp.empty((*x.shape[:2], windows.rows, windows.columns), x.dtype)
    run("means", (x, y), y, windows, *pixels)

    def pullback(dy: Any) -> tuple[Any]:
        dx = xp.empty(x.shape, x.dtype)
        run("means_gradient", (dy, dx), dx, windows, *pixels)
        return (dx,)

    return y, pullback


def global_fits(x: Any) -> bool:
    """Return whether a grid has a block for each plane."""
    return bool(math.prod(x.shape[:2]) < GRID)


def global_value(x: Any) -> Any:
    """Return the mean of each plane: by a warp, or by a block where planes are large."""
    pixels = math.prod(x.shape[2:])
    y, team = xp.empty(x.shape[:2], x.dtype), planes.team_of(pixels)
    blocks = -(-y.size // (planes.THREADS // team))
    planes.kernel(code_of(x), team)(blocks, given(x), stored(y), y.size, pixels)
    return y


def global_vjp(x: Any) -> tuple[Any, Pullback]:
    """Return the mean of each plane and the pullback, whose result is a broadcast array."""
    shape = x.shape

    def pullback(dy: Any) -> tuple[Any]:
        share = arrays.narrow(arrays.widen(dy) / math.prod(shape[2:]), dy)
        return (xp.broadcast_to(share.reshape(*shape[:2], *(1 for _ in shape[2:])), shape),)

    return global_value(x), pullback


# --- signals and volumes -------------------------------------------------------------------------

CHANNELS_AS_ROWS = 1


def signals_fit(fits: Callable[..., bool]) -> Callable[..., bool]:
    """Return the ``fits`` of a pool of signals, by that of images."""
    return lambda x, **options: fits(x[:, None], **with_axis(options))


def volumes_fit(fits: Callable[..., bool]) -> Callable[..., bool]:
    """Return the ``fits`` of a pool of volumes, by that of images: of planes, and of their rows."""

    def both_fit(x: Any, **options: Any) -> bool:
        planes, depth = apart(options)
        n, c, d, h, w = x.shape
        images = SimpleNamespace(shape=(n, c * d, h, w))
        rows = SimpleNamespace(shape=(n, c, d, h * w))  # longer than those that are left of planes
        return fits(images, **planes) and fits(rows, **depth)

    return both_fit


GEOMETRY = "window", "stride", "padding"
for name, value, vjp, option, fit in (
    ("max_pool", max_value, max_vjp, "dilation", max_fits),
    ("avg_pool", avg_value, avg_vjp, "counted", fits),
):
    options = *GEOMETRY, option
    rows, volumes = of_signals(value, vjp, CHANNELS_AS_ROWS), of_volumes(value, vjp)
    register(f"{name}1d", rows[0], rows[1], takes, *options, fits=signals_fit(fit))
    register(f"{name}2d", value, vjp, takes, *options, fits=fit)
    register(f"{name}3d", volumes[0], volumes[1], takes, *options, fits=volumes_fit(fit))
for name in ("global_avg_pool", "global_avg_pool2d"):
    register(name, global_value, global_vjp, takes, fits=global_fits)
