"""Geometry of sliding windows: pairs, margins, output sizes and counts."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from .checks import integer

Pair: TypeAlias = tuple[int, int]
PairLike: TypeAlias = int | tuple[int, int]
Margins: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right)), in pixels."""
Padding: TypeAlias = str | int | tuple[int, int] | Margins


def as_pair(name: str, value: Any, minimum: int = 1) -> Pair:
    """Return an integer, or a pair (height, width), as a pair of integers >= ``minimum``."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        height, width = (integer(name, size, minimum) for size in pair)
    except ValueError:
        raise ValueError(
            f"{name} must be an integer >= {minimum} or a pair (height, width) of them, "
            f"got {value!r}"
        ) from None
    return height, width


def as_margins(
    padding: Padding, window: Pair, dilation: Pair, stride: Pair, image: Pair
) -> Margins:
    """Return every spelling of ``padding`` as ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        return _same_margins(window, dilation, stride, image)
    if not isinstance(padding, str):
        sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        if len(sides) == 2:
            vertical, horizontal = (as_pair("padding", side, minimum=0) for side in sides)
            return vertical, horizontal
    raise ValueError(
        'padding must be an integer >= 0, a pair, ((top, bottom), (left, right)), "same" or '
        f'"valid"; got {padding!r}'
    )


def _same_margins(window: Pair, dilation: Pair, stride: Pair, image: Pair) -> Margins:
    margins = []
    for k, d, s, n in zip(window, dilation, stride, image, strict=True):
        total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        margins.append((total // 2, total - total // 2))
    return margins[0], margins[1]


def ceil_margins(
    padding: Margins, window: Pair, dilation: Pair, stride: Pair, image: Pair
) -> Margins:
    """Return margins with which a last, partial window fits that starts inside the image."""
    axes = zip(image, window, stride, padding, dilation, strict=True)
    vertical, horizontal = (_ceil_margin(*axis) for axis in axes)
    return vertical, horizontal


def _ceil_margin(n: int, k: int, s: int, margin: Pair, d: int) -> Pair:
    before, after = margin
    over = n + before + after - d * (k - 1) - 1
    windows = -(-over // s) + 1
    if (windows - 1) * s >= n + before:
        windows -= 1
    return before, max(after, (windows - 1) * s + d * (k - 1) + 1 - n - before)


def output_size(
    image: Pair, window: Pair, *, stride: Pair, padding: Margins, dilation: Pair
) -> Pair:
    """Return (OH, OW): how many windows fit in the padded image."""
    axes = zip(image, window, stride, padding, dilation, strict=True)
    oh, ow = ((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    return oh, ow


def check_fits(image: Pair, window: Pair, padding: Margins, dilation: Pair) -> None:
    """Raise ValueError when the image is empty or the window is larger than the padded image."""
    for axis, n, k, p, d in zip(("height", "width"), image, window, padding, dilation, strict=True):
        if n == 0 or d * (k - 1) + 1 > n + sum(p):
            raise ValueError(
                f"the window's {axis} of {k} (dilation {d}) is larger than the padded image's "
                f"{n} + {p[0]} + {p[1]}"
            )
