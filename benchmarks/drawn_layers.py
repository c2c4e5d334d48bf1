"""Convolution layers that nobody picked: drawn at random, in the proportions of real networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

Rng: TypeAlias = np.random.Generator

BATCHES = (1, 2, 8, 16, 32, 64, 100, 128)
SIZES = (4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 16, 20, 24, 27, 28, 32, 40, 48, 56, 64)
CHANNELS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 72, 96, 128, 160, 192, 256, 320, 512)
OPERATIONS, NUMBERS = (2e6, 2e9), 2**24
"""Of a layer, least and most; of the larger of its two images, at most."""

DEFAULTS = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


@dataclass(frozen=True)
class Layer:
    """A convolution: shapes, and options as pairs (rows, columns)."""

    kind: str
    images: int
    channels: int
    height: int
    width: int
    filters: int
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def stored(cls, fields: dict[str, Any]) -> Layer:
        """Return the layer whose fields were written as JSON, which has no tuples."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})

    @property
    def x(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return self.images, self.channels, self.height, self.width

    @property
    def w(self) -> tuple[int, ...]:
        """(K, C / groups, KH, KW)."""
        return self.filters, self.channels // self.groups, *self.window

    @property
    def y(self) -> tuple[int, ...]:
        """(N, K, OH, OW)."""
        axes = zip(self.x[2:], self.padding, self.dilation, self.window, self.stride, strict=True)
        pixels = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in axes)
        return self.images, self.filters, *pixels

    @property
    def options(self) -> dict[str, Any]:
        """Of conv2d, here and in torch."""
        return {name: getattr(self, name) for name in DEFAULTS}

    def __str__(self) -> str:
        options = [f"{k} {v}" for k, v in self.options.items() if v != DEFAULTS[k]]
        return ", ".join([f"{self.x} * {self.w}", *options])

    def fits(self) -> bool:
        """Return whether there is such a layer, neither too small nor too large to be measured."""
        if self.channels % self.groups or self.filters % self.groups or min(self.y) < 1:
            return False
        least, most = OPERATIONS
        operations = 2 * math.prod(self.y) * math.prod(self.w[1:])
        return least < operations < most and max(math.prod(self.x), math.prod(self.y)) < NUMBERS

    def arrays(self, rng: Rng) -> tuple[Any, ...]:
        """Return x, w and dy, such that outputs are of order 1."""
        x, w, dy = (rng.standard_normal(s, dtype=np.float32) for s in (self.x, self.w, self.y))
        return x, w / np.float32(math.sqrt(math.prod(self.w[1:]))), dy


def draw_layer(rng: Rng) -> Layer:
    """Return a layer of a random kind that fits."""
    kinds, shares = list(KINDS), [share for share, _ in KINDS.values()]
    while True:
        kind = str(rng.choice(kinds, p=np.divide(shares, sum(shares))))
        layer = KINDS[kind][1](draw_shapes(kind, rng), rng)
        if layer.fits():
            return layer


def draw_shapes(kind: str, rng: Rng) -> Layer:
    """Return what a kind of layer may change: as many filters as channels, square, or not."""
    size, channels = pick(rng, *SIZES), pick(rng, *CHANNELS)
    filters = channels if rng.random() < 0.4 else pick(rng, *CHANNELS)
    width = size if rng.random() < 0.85 else max(4, int(size * pick(rng, 0.5, 0.75, 1.5)))
    return Layer(kind, pick(rng, *BATCHES), channels, size, width, filters)


def pick(rng: Rng, *values: Any) -> Any:
    """Return one of the values; one that is given twice comes twice as often."""
    return values[rng.integers(len(values))]


# --- kinds ---------------------------------------------------------------------------------------


def square(layer: Layer, rng: Rng, size: int, stride: int = 1) -> Layer:
    """A window of an odd size that keeps the size of images, but for the stride."""
    return replace(
        layer, window=(size, size), stride=(stride, stride), padding=(size // 2, size // 2)
    )


def depthwise(layer: Layer, rng: Rng, stride: int = 1) -> Layer:
    """Each channel by itself."""
    layer = replace(layer, filters=layer.channels, groups=layer.channels)
    return square(layer, rng, pick(rng, 3, 3, 5, 7), stride)


def five(layer: Layer, rng: Rng) -> Layer:
    """Windows of 5x5, with and without zeros around."""
    return replace(square(layer, rng, 5), padding=pick(rng, (0, 0), (2, 2)))


def colors(layer: Layer, rng: Rng, size: int, filters: int) -> Layer:
    """Large images of three channels, not too many."""
    images = pick(rng, 1, 8, 16, 32)
    return replace(
        layer, images=images, channels=3, height=size, width=size, filters=filters
    )  # fmt: skip


def stem(layer: Layer, rng: Rng, window: int) -> Layer:
    """The first layer of a network for photographs."""
    size, filters = pick(rng, 64, 96, 112, 128, 160, 224), pick(rng, 16, 24, 32, 64)
    return square(colors(layer, rng, size, filters), rng, window, stride=2)


def patch(layer: Layer, rng: Rng) -> Layer:
    """The first layer of a vision transformer: windows side by side."""
    size = pick(rng, 4, 8, 16)
    layer = colors(layer, rng, pick(rng, 64, 128, 224), pick(rng, 48, 64, 96))
    return replace(layer, window=(size, size), stride=(size, size))


def dilated(layer: Layer, rng: Rng) -> Layer:
    """Windows with gaps."""
    d = pick(rng, 2, 3, 4)
    return replace(square(layer, rng, 3), padding=(d, d), dilation=(d, d))


def grouped(layer: Layer, rng: Rng) -> Layer:
    """Some groups of channels."""
    return replace(square(layer, rng, 3), groups=pick(rng, 2, 4, 8))


def signal(layer: Layer, rng: Rng) -> Layer:
    """A single row: sounds, series, text."""
    size, length = pick(rng, 3, 5, 7, 9, 15), pick(rng, 64, 100, 128, 250, 256, 500, 1000, 1024)
    return replace(
        layer, height=1, width=length, window=(1, size), padding=(0, size // 2),
        stride=(1, pick(rng, 1, 1, 2)),
    )  # fmt: skip


def strip(layer: Layer, rng: Rng) -> Layer:
    """A window along one axis."""
    rows, columns = pick(rng, (3, 1), (1, 3), (1, 7), (7, 1))
    return replace(layer, window=(rows, columns), padding=(rows // 2, columns // 2))


def first(layer: Layer, rng: Rng) -> Layer:
    """The first layer of a network for small pictures."""
    channels, filters = pick(rng, 1, 1, 3), pick(rng, 6, 8, 16, 32, 64)
    size = pick(rng, 28, 32, 48, 64)
    layer = replace(layer, channels=channels, height=size, width=size, filters=filters)
    return square(layer, rng, pick(rng, 3, 5))


KINDS: dict[str, tuple[int, Callable[[Layer, Rng], Layer]]] = {  # how many of 20 layers; which
    "3x3": (3, partial(square, size=3)),
    "3x3 stride 2": (1, partial(square, size=3, stride=2)),
    "1x1": (2, partial(square, size=1)),
    "1x1 stride 2": (1, partial(square, size=1, stride=2)),
    "depthwise": (2, depthwise),
    "depthwise stride 2": (1, partial(depthwise, stride=2)),
    "5x5": (1, five),
    "stem": (1, partial(stem, window=3)),
    "stem 7x7": (1, partial(stem, window=7)),
    "patch": (1, patch),
    "dilated": (1, dilated),
    "groups": (1, grouped),
    "signal": (2, signal),
    "strip": (1, strip),
    "first": (1, first),
}
