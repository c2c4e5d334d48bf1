"""Geometry of sliding windows over any number of axes: sizes, margins, output sizes and counts."""

from __future__ import annotations

import contextlib
import math
from typing import Any, TypeAlias

from .checks import integer

Sizes: TypeAlias = tuple[int, ...]
"""A number for each axis that windows slide along."""
SizesLike: TypeAlias = int | tuple[int, ...]
Pair: TypeAlias = tuple[int, int]
PairLike: TypeAlias = int | tuple[int, int]
Margins: TypeAlias = tuple[Pair, ...]
"""(before, after) for each axis, in pixels; of images ((top, bottom), (left, right))."""
Padding: TypeAlias = str | int | tuple[int, ...] | Margins

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""The axes that windows slide along, by their number."""
LAYOUTS = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
"""Of signals, images and volumes."""
SEVERAL = {
    1: "a tuple (length,)",
    2: "a pair (height, width)",
    3: "a triple (depth, height, width)",
}
MARGINS = {
    1: "(each side,), ((before, after),)",
    2: "a pair, ((top, bottom), (left, right))",
    3: "a triple, ((front, back), (top, bottom), (left, right))",
}


def as_sizes(name: str, value: Any, rank: int, minimum: int = 1) -> Sizes:
    """Return an integer, or one for each axis, as ``rank`` integers >= ``minimum``."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    try:
        found = tuple([integer(name, size, minimum) for size in sizes])
    except ValueError:
        found = ()
    if len(found) != rank:
        raise ValueError(
            f"{name} must be an integer >= {minimum} or {SEVERAL[rank]} of them, got {value!r}"
        )
    return found


def as_margins(
    padding: Padding, window: Sizes, dilation: Sizes, stride: Sizes, image: Sizes
) -> Margins:
    """Return every spelling of ``padding`` as (before, after) for each axis."""
    rank = len(window)
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "same":
        axes = zip(window, dilation, stride, image, strict=True)
        return tuple([_same_margin(*axis) for axis in axes])
    if not isinstance(padding, str):
        sides = padding if isinstance(padding, (tuple, list)) else (padding,) * rank
        with contextlib.suppress(ValueError):
            return tuple([_margin(side) for _, side in zip(AXES[rank], sides, strict=True)])
    raise ValueError(
        f'padding must be an integer >= 0, {MARGINS[rank]}, "same" or "valid"; got {padding!r}'
    )


def _margin(side: Any) -> Pair:
    before, after = as_sizes("padding", side, 2, minimum=0)
    return before, after


def _same_margin(k: int, d: int, s: int, n: int) -> Pair:
    total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
    return total // 2, total - total // 2


def ceil_margins(
    padding: Margins, window: Sizes, dilation: Sizes, stride: Sizes, image: Sizes
) -> Margins:
    """Return margins with which a last, partial window fits that starts inside the image."""
    axes = zip(image, window, stride, padding, dilation, strict=True)
    return tuple([_ceil_margin(*axis) for axis in axes])


def _ceil_margin(n: int, k: int, s: int, margin: Pair, d: int) -> Pair:
    before, after = margin
    over = n + before + after - d * (k - 1) - 1
    windows = -(-over // s) + 1
    if (windows - 1) * s >= n + before:
        windows -= 1
    return before, max(after, (windows - 1) * s + d * (k - 1) + 1 - n - before)


def output_size(
    image: Sizes, window: Sizes, *, stride: Sizes, padding: Margins, dilation: Sizes
) -> Sizes:
    """Return how many windows fit in the padded image along each axis, such as (OH, OW)."""
    axes = zip(image, window, stride, padding, dilation, strict=True)
    return tuple([(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes])


def check_fits(image: Sizes, window: Sizes, padding: Margins, dilation: Sizes) -> None:
    """Raise ValueError when the image is empty or the window is larger than the padded image."""
    names = AXES[len(window)]
    for axis, n, k, p, d in zip(names, image, window, padding, dilation, strict=True):
        if n == 0 or d * (k - 1) + 1 > n + sum(p):
            raise ValueError(
                f"the window's {axis} of {k} (dilation {d}) is larger than the padded image's "
                f"{n} + {p[0]} + {p[1]}"
            )
