"""The kernel of conv3d: of volumes as they lie, by algorithms of their own, or by conv2d.

There, an output plane is the convolution of an image whose channels are those of all planes under
the taps in depth, so that these are summed where channels are.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ....core.arrays import quiet
from ....core.operation import OPERATIONS, Implementation, Pullback, current_mode
from ...shapes import as_images, idle_axes, of_idle
from ..simd.elementary import borrowed
from ..simd.elements import SMALL
from ..toolchain.arguments import flat
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Read1, Write1
from ..toolchain.threads import PIECES
from . import convolution, volume_direct_plans
from .costs import DIRECTIONS, VOLUMES, cycles, fastest
from .cotangents import bias_gradient, through_relu
from .geometry import Geometry, geometry_of
from .volume_winograd import Depth
from .winograd_plans import NOT_POOLED

OPTIONS = "stride", "padding", "dilation", "groups", "activation"


class Gathered(NamedTuple):
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
        self.depth = Gathered(
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


class Way(NamedTuple):
    """A convolution of volumes as they lie: its plans, and what of them."""

    plans: ModuleType
    geometry: Geometry
    """Of the planes; its images are volumes."""
    depth: Depth

    def weight_gradient(self, geometry: Geometry, x: Any, dy: Any, winners: Any) -> Any:
        """Return dw of some of the volumes."""
        return self.plans.weight_gradient(geometry, self.depth, x, dy)


# --- the kernel ----------------------------------------------------------------------------------


def value(x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Return the convolution."""
    axis, way = idle_axes(w.shape[2:], options), way_of(x, w, options)
    if axis is not None:
        idly, _ = of_idle(convolution.value, convolution.vjp, axis, max_pool=None)
        return idly(x, w, b, **options)
    if way is not None:
        return way.plans.forward(*way[1:], x, w, b, options["activation"] == "relu")
    images = Images(x, w, options)
    filters = filters_of_images(w)
    return images.outputs(convolution.value(images.gathered(x), filters, b, **images.options))


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the convolution and its pullback."""
    axis, way = idle_axes(w.shape[2:], options), way_of(x, w, options)
    if axis is not None:
        _, idly = of_idle(convolution.value, convolution.vjp, axis, max_pool=None)
        return idly(x, w, b, wrt=wrt, **options)
    if way is not None:
        return vjp_as_it_lies(way, x, w, b, wrt, options["activation"] == "relu")
    return vjp_of_images(x, w, b, wrt, options)


def vjp_as_it_lies(
    way: Way, x: Any, w: Any, b: Any, wrt: frozenset[int], relu: bool
) -> tuple[Any, Pullback]:
    """Return the convolution and its pullback, by plans for volumes."""
    plans, geometry, depth = way
    y = plans.forward(geometry, depth, x, w, b, relu)

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        with quiet():  # NumPy adds up what the loops leave, infinities too
            if relu:
                dy, db = through_relu(dy, y)
            elif 2 in wrt and b is not None:
                db = bias_gradient(dy, NOT_POOLED)
            if 0 in wrt:
                dx = plans.input_gradient(geometry, depth, dy, w)
            if 1 in wrt:
                dw = convolution.weight_gradient(way, geometry, x, dy, NOT_POOLED, depth.outputs)
        return dx, dw, db if b is not None else None

    return y, pullback


def vjp_of_images(
    x: Any, w: Any, b: Any, wrt: frozenset[int], options: dict[str, Any]
) -> tuple[Any, Pullback]:
    """Return the convolution and its pullback, by images of the planes that a window meets."""
    images, (k, c, taps, *window) = Images(x, w, options), w.shape
    arrays = images.gathered(x), filters_of_images(w), b
    y, of_images = convolution.vjp(*arrays, wrt=wrt, **images.options)

    def pullback(dy: Any) -> tuple[Any, ...]:
        gradients: Any = of_images(images.cotangents(dy))
        dx, dw, db = gradients
        if dx is not None:
            dx = images.scattered(dx)
        if dw is not None:
            dw = np.ascontiguousarray(dw.reshape(k, taps, c, *window).swapaxes(1, 2))
        return dx, dw, db

    return images.outputs(y), pullback


def describe(x: Any, w: Any, b: Any, **options: Any) -> str:
    """Say which algorithm runs, and which ones backward where they are others."""
    axis, way = idle_axes(w.shape[2:], options), way_of(x, w, options)
    if axis is not None:
        arrays, settings = as_images(x, w, b, axis=axis, **options)
        return convolution.describe(*arrays, **settings, max_pool=None)
    if way is not None:
        return f"Numba, {way.plans.name_of(way.geometry)}"
    images = Images(x, w, options)
    like = np.broadcast_to(np.zeros((), x.dtype), images.images)
    return convolution.describe(like, filters_of_images(w), b, **images.options) + " of planes"


# --- which way -----------------------------------------------------------------------------------

MOVED = 4
"""Cycles for a pixel that is gathered, or swapped."""


def way_of(x: Any, w: Any, options: dict[str, Any]) -> Way | None:
    """Return how the volumes are convolved as they lie, or None where images are faster."""
    per_axis = ("stride", "padding", "dilation")
    (step, front, apart), planes = (
        [options[name][0] for name in per_axis],
        {name: options[name][1:] for name in per_axis},
    )
    geometry = geometry_of(x[:, :, 0], w[:, :, 0], options | planes)
    size, taps = x.shape[2], w.shape[2]
    outputs = (size + sum(front) - apart * (taps - 1) - 1) // step + 1
    depth = Depth(size, outputs, taps, step, apart, front[0], 0, 0)
    return fastest_way(geometry, depth, x.dtype, current_mode() == "direct")


@functools.lru_cache(512)
def fastest_way(geometry: Geometry, depth: Depth, dtype: Any, direct: bool) -> Way | None:
    """Return the way of all three directions that should be the fastest; None: by images.

    ``direct``: direct convolution, where it can be used.
    """
    if direct:
        plans = volume_direct_plans
        return Way(plans, geometry, depth) if plans.applies(geometry, depth, dtype) else None
    images = volume_direct_plans.images(geometry, depth)
    read, written = images.channels * images.height * images.width, math.prod(images.output)
    moved = images.images * images.groups * (read + images.filters * written)
    best, least = (
        None,
        2 * MOVED * moved
        + sum(
            cycles(fastest(images, dtype, direction), images, direction) for direction in DIRECTIONS
        ),
    )
    for plans, count in VOLUMES.items():
        if plans.applies(geometry, depth, dtype):
            found = sum(count(geometry, depth, direction) for direction in DIRECTIONS)
            best, least = (plans, found) if found < least else (best, least)
    return Way(best, geometry, depth) if best else None


# --- loops ---------------------------------------------------------------------------------------


class Planes(NamedTuple):
    """Planes of so many pixels: (outer, rows, columns) of them."""

    outer: int
    rows: int
    columns: int
    plane: int


@compiled_in_parts(PIECES, kind=FLOATS)
def gather(x: Read1, y: Write1, d: Gathered, parts: int, part: int) -> None:
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
def scatter(y: Read1, x: Write1, d: Gathered, parts: int, part: int) -> None:
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
