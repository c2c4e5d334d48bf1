"""The kernel of conv3d: that of conv2d, on images of the planes that a window meets.

An output plane is the convolution of an image whose channels are those of all planes under the taps
in depth, so that these are summed where channels are: in registers, or among Winograd's transforms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ....core.operation import OPERATIONS, Implementation, Pullback
from ...shapes import as_images, idle_axes, of_idle
from ..simd.elementary import borrowed
from ..simd.elements import SMALL
from ..toolchain.arguments import flat
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Read1, Write1
from ..toolchain.threads import PIECES
from . import convolution

OPTIONS = "stride", "padding", "dilation", "groups", "activation"


class Depth(NamedTuple):
    """Volumes (N, groups * channels, depth, plane), and what windows meet of their depth."""

    volumes: int
    groups: int
    channels: int
    """Of a group."""
    depth: int
    plane: int
    """Pixels."""
    outputs: int
    """Output planes of a volume."""
    taps: int
    step: int
    apart: int
    front: int
    """Planes of zeros in front of the first one."""


class Images:
    """The convolution of images that a convolution of volumes is."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        n, c, depth, height, width = x.shape
        stride, dilation, padding = (options[name] for name in ("stride", "dilation", "padding"))
        groups, taps = options["groups"], w.shape[2]
        outputs = (depth + sum(padding[0]) - dilation[0] * (taps - 1) - 1) // stride[0] + 1
        self.depth = Depth(
            n, groups, c // groups, depth, height * width, outputs, taps, stride[0], dilation[0],
            padding[0][0],
        )  # fmt: skip
        self.volumes, self.images = x.shape, (n * outputs, c * taps, height, width)
        per_axis = {"stride": stride[1:], "dilation": dilation[1:], "padding": padding[1:]}
        self.options = options | per_axis | {"max_pool": None}

    def gathered(self, x: Any) -> Any:
        """Return images (N*OD, groups*KD*C, H, W) of what each window in depth meets."""
        images = empty(self.images, x.dtype)
        gather[x.dtype](flat(x), images.reshape(-1), self.depth, alone=images.size < SMALL)
        return images

    def scattered(self, images: Any) -> Any:
        """Return volumes that images are summed to: the adjoint of `gathered`."""
        x = empty(self.volumes, images.dtype)
        scatter[x.dtype](flat(images), x.reshape(-1), self.depth, alone=images.size < SMALL)
        return x

    def outputs(self, y: Any) -> Any:
        """Return outputs (N, K, OD, OH, OW), given those of the images: (N*OD, K, OH, OW)."""
        return swapped(y.reshape(self.depth.volumes, self.depth.outputs, *y.shape[1:]))

    def cotangents(self, dy: Any) -> Any:
        """Return cotangents of the images' outputs, the adjoint of `outputs`."""
        return swapped(dy).reshape(-1, dy.shape[1], *dy.shape[3:])


def filters_of_images(w: Any) -> Any:
    """Return filters (K, C, KD, KH, KW) as those of the images: (K, KD*C, KH, KW)."""
    k, c, taps, *window = w.shape
    return np.ascontiguousarray(w.swapaxes(1, 2)).reshape(k, taps * c, *window)


def swapped(x: Any) -> Any:
    """Return images (A, B, C, height, width) as (A, C, B, height, width)."""
    a, b, c, *size = x.shape
    y = empty((a, c, b, *size), x.dtype)
    extent = Planes(a, b, c, size[0] * size[1])
    swap[x.dtype](flat(x), y.reshape(-1), extent, alone=x.size < SMALL)
    return y


# --- the kernel ----------------------------------------------------------------------------------


def value(x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Return the convolution."""
    axis = idle_axes(w.shape[2:], options)
    if axis is not None:
        idly, _ = of_idle(convolution.value, convolution.vjp, axis, max_pool=None)
        return idly(x, w, b, **options)
    way = Images(x, w, options)
    return way.outputs(convolution.value(way.gathered(x), filters_of_images(w), b, **way.options))


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the convolution and its pullback."""
    axis = idle_axes(w.shape[2:], options)
    if axis is not None:
        _, idly = of_idle(convolution.value, convolution.vjp, axis, max_pool=None)
        return idly(x, w, b, wrt=wrt, **options)
    way, (k, c, taps, *window) = Images(x, w, options), w.shape
    arrays = way.gathered(x), filters_of_images(w), b
    y, of_images = convolution.vjp(*arrays, wrt=wrt, **way.options)

    def pullback(dy: Any) -> tuple[Any, ...]:
        gradients: Any = of_images(way.cotangents(dy))
        dx, dw, db = gradients
        if dx is not None:
            dx = way.scattered(dx)
        if dw is not None:
            dw = np.ascontiguousarray(dw.reshape(k, taps, c, *window).swapaxes(1, 2))
        return dx, dw, db

    return way.outputs(y), pullback


def describe(x: Any, w: Any, b: Any, **options: Any) -> str:
    """Say which algorithm runs, and which ones backward where they are others."""
    axis = idle_axes(w.shape[2:], options)
    if axis is not None:
        arrays, settings = as_images(x, w, b, axis=axis, **options)
        return convolution.describe(*arrays, **settings, max_pool=None)
    way = Images(x, w, options)
    like = np.broadcast_to(np.zeros((), x.dtype), way.images)
    return convolution.describe(like, filters_of_images(w), b, **way.options) + " of planes"


# --- loops ---------------------------------------------------------------------------------------


class Planes(NamedTuple):
    """Planes of so many pixels: (outer, rows, columns) of them."""

    outer: int
    rows: int
    columns: int
    plane: int


@compiled_in_parts(PIECES, kind=FLOATS)
def gather(x: Read1, y: Write1, d: Depth, parts: int, part: int) -> None:
    """Copy the planes that each output plane depends on; zeros in front and behind."""
    x, y = borrowed(x), borrowed(y)
    size, images = d.plane, d.volumes * d.outputs
    for image in range(images * part // parts, images * (part + 1) // parts):
        volume, first = image // d.outputs, image % d.outputs * d.step - d.front
        target = image * d.groups * d.taps * d.channels * size
        for group in range(d.groups):
            for tap in range(d.taps):
                place = first + tap * d.apart
                source = ((volume * d.groups + group) * d.channels * d.depth + place) * size
                for _ in range(d.channels):
                    if 0 <= place < d.depth:
                        for i in range(size):
                            y[target + i] = x[source + i]
                    else:
                        for i in range(size):
                            y[target + i] = 0
                    target += size
                    source += d.depth * size


@compiled_in_parts(PIECES, kind=FLOATS)
def scatter(y: Read1, x: Write1, d: Depth, parts: int, part: int) -> None:
    """Add up the planes that `gather` copies each plane to."""
    x, y = borrowed(x), borrowed(y)
    size, planes = d.plane, d.volumes * d.groups * d.channels * d.depth
    for plane in range(planes * part // parts, planes * (part + 1) // parts):
        place, channel = plane % d.depth + d.front, plane // d.depth
        volume, channel = channel // (d.groups * d.channels), channel % (d.groups * d.channels)
        group, channel = channel // d.channels, channel % d.channels
        target = plane * size
        for i in range(size):
            x[target + i] = 0
        for tap in range(d.taps):
            output = place - tap * d.apart
            if output >= 0 and output % d.step == 0 and output // d.step < d.outputs:
                image = volume * d.outputs + output // d.step
                at = ((image * d.groups + group) * d.taps + tap) * d.channels + channel
                for i in range(size):
                    x[target + i] += y[at * size + i]


@compiled_in_parts(PIECES, kind=FLOATS)
def swap(x: Read1, y: Write1, p: Planes, parts: int, part: int) -> None:
    """Copy planes (outer, rows, columns) to (outer, columns, rows)."""
    x, y = borrowed(x), borrowed(y)
    planes = p.outer * p.columns * p.rows
    for plane in range(planes * part // parts, planes * (part + 1) // parts):
        outer, inner = plane // (p.columns * p.rows), plane % (p.columns * p.rows)
        column, row = inner // p.rows, inner % p.rows
        source = ((outer * p.rows + row) * p.columns + column) * p.plane
        for i in range(p.plane):
            y[plane * p.plane + i] = x[source + i]


OPERATIONS["conv3d"].add_kernel(
    "numpy",
    Implementation("Numba", value, vjp, convolution.takes, describe=describe, options=OPTIONS),
)
