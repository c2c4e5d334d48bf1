"""What a convolution is to its kernels: shapes and options, by which plans are remembered."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SECTIONS = 8
"""Partial sums of a weight gradient; at least so many units of work where images are few."""

FEW_PRODUCTS = 1 << 22
"""About 20 microseconds' work."""


class Geometry(NamedTuple):
    """Shapes and normalised options of a convolution."""

    images: int
    channels: int
    """Channels of a group."""
    height: int
    width: int
    filters: int
    """Filters of a group."""
    groups: int
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]

    @property
    def output(self) -> tuple[int, int]:
        """(OH, OW)."""
        image = self.height, self.width
        axes = zip(image, self.padding, self.dilation, self.window, self.stride, strict=True)
        oh, ow = ((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in axes)
        return oh, ow

    @property
    def is_small(self) -> bool:
        """Whether one thread is done before another one would have begun."""
        taps = self.groups * self.channels * self.filters * math.prod(self.window)
        return self.images * math.prod(self.output) * taps < FEW_PRODUCTS


def cuts_of(blocks: int, tasks: int) -> int:
    """Return in how many pieces blocks of filters are shared out, given how many other tasks."""
    return max(1, min(blocks, SECTIONS // tasks))


def geometry_of(x: Any, w: Any, options: dict[str, Any]) -> Geometry:
    """Return the geometry of normalised arguments."""
    groups = options["groups"]
    height, width = x.shape[2:]
    return Geometry(
        images=x.shape[0],
        channels=w.shape[1],
        height=height,
        width=width,
        filters=w.shape[0] // groups,
        groups=groups,
        window=w.shape[2:],
        stride=options["stride"],
        padding=options["padding"],
        dilation=options["dilation"],
    )


LONG_ROW = 1024
"""Pixels."""


def with_long_rows(g: Geometry, pixels: int = LONG_ROW) -> Geometry:
    """Return the geometry of a 1 x 1 convolution with several rows of pixels taken for one."""
    if (g.window, g.stride, g.padding) != ((1, 1), (1, 1), ((0, 0), (0, 0))):
        return g
    most = max(1, pixels // g.width)
    rows = next(rows for rows in range(most, 0, -1) if g.height % rows == 0)
    return g._replace(height=g.height // rows, width=g.width * rows)
