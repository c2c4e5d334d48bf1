"""The kernel of conv2d: which algorithm runs, forward and backward."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import OPERATIONS, Implementation, Pullback, current_mode
from ..toolchain.arguments import why_not
from ..toolchain.threads import is_recorded
from . import direct_plans, winograd_plans
from .arrangements import AsItIs, arrangement
from .costs import DIRECTIONS, FORWARD, INPUT, WEIGHT, fastest
from .cotangents import bias_gradient, through_relu
from .geometry import Geometry, geometry_of
from .winograd_plans import NOT_POOLED

operation = OPERATIONS["conv2d"]
OPTIONS = "stride", "padding", "dilation", "groups", "activation", "max_pool"
max_pool2d = OPERATIONS["max_pool2d"]

MOST_IMAGES, MOST_PIXELS = 1024, 2**20
"""Of a piece of a batch, whose weight gradient is summed in the type of the numbers. The algorithms
add up blocks of pixels, so that its error does not depend on how many there are."""


def takes(x: Any, w: Any, b: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(x, w, b)


def arranged(x: Any, w: Any, options: dict[str, Any]) -> AsItIs:
    """Return the convolution that is done, and of which images."""
    geometry = geometry_of(x, w, options)
    if current_mode() == "direct":
        return AsItIs(geometry, geometry)
    return arrangement(geometry, x.dtype, bool(options["max_pool"]))


def value(x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Return the convolution."""
    way = arranged(x, w, options)
    return way.outputs(forward(way.inner, way.images(x), w, b, options)[0])


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the convolution and its pullback."""
    way = arranged(x, w, options)
    geometry, x = way.inner, way.images(x)
    y, winners, of_pool = forward(geometry, x, w, b, options)
    y = way.outputs(y)
    to_x, to_w = (_back(geometry, x.dtype, winners, direction) for direction in (INPUT, WEIGHT))

    relu = options["activation"] == "relu" and not winners.size
    rides = relu and not options["max_pool"] and wrt & {0, 1} == {1}
    rides = rides and to_w is direct_plans and direct_plans.masks(geometry, x.dtype)
    rides = rides and geometry.images <= piece_of(geometry) and way.outer.output == geometry.output

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        if rides:
            dw, db = direct_plans.weights_through_relu(geometry, x, dy, y)
            return None, dw, db if b is not None else None
        if relu:
            dy, db = through_relu(dy, y)
        elif 2 in wrt and b is not None:
            db = bias_gradient(dy, winners)
        dy = way.cotangents(of_pool(dy)[0])
        if 0 in wrt:
            dx = way.gradient(to_x.input_gradient(geometry, dy, w, winners))
        if 1 in wrt:
            dw = weight_gradient(to_w, geometry, x, dy, winners)
        return dx, dw, db if b is not None else None

    def quietly(dy: Any) -> tuple[Any, ...]:
        with quiet():  # NumPy adds up what the loops leave, infinities too
            return pullback(dy)

    return y, quietly


def piece_of(geometry: Geometry, planes: int = 1) -> int:
    """Return how many images the weight gradient sums up at once, or volumes of so many planes."""
    return max(1, min(MOST_IMAGES, MOST_PIXELS // (planes * math.prod(geometry.output))))


def weight_gradient(
    chosen: Any, geometry: Geometry, x: Any, dy: Any, winners: Any, planes: int = 1
) -> Any:
    """Return dw, a sum over all images and pixels: in float64 over pieces of a batch."""
    images, piece = geometry.images, piece_of(geometry, planes)
    if images <= piece:
        return chosen.weight_gradient(geometry, x, dy, winners)
    total: Any = 0.0
    for first in range(0, images, piece):
        last = min(first + piece, images)
        part = geometry._replace(images=last - first)
        mine = x[first:last], dy[first:last], winners[first * dy[0].size :]
        total = total + chosen.weight_gradient(part, *mine).astype(np.float64)
    return total.astype(x.dtype)


def forward(
    geometry: Geometry, x: Any, w: Any, b: Any, options: dict[str, Any]
) -> tuple[Any, Any, Pullback]:
    """Return the value, which pixels won a pool within, and the pullback of a pool behind."""
    relu, chosen = options["activation"] == "relu", algorithm(geometry, x.dtype, FORWARD)
    if options["max_pool"] and chosen is winograd_plans:
        return *winograd_plans.pooled(geometry, x, w, b, relu), _same
    y = chosen.forward(geometry, x, w, b, relu)
    if not options["max_pool"]:
        return y, NOT_POOLED, _same
    pooled, of_pool = max_pool2d.vjp(y, 2)
    return pooled, NOT_POOLED, of_pool


def _same(dy: Any) -> tuple[Any]:
    return (dy,)


def algorithm(geometry: Geometry, dtype: Any, direction: str) -> ModuleType:
    """Return the plans of the fastest algorithm, or of direct convolution if that is asked for."""
    if current_mode() == "direct":
        return direct_plans
    return fastest(geometry, dtype, direction, is_recorded())


def _back(geometry: Geometry, dtype: Any, winners: Any, direction: str) -> ModuleType:
    """Return the plans of a way back; Winograd's alone know the winners of a pool."""
    return winograd_plans if winners.size else algorithm(geometry, dtype, direction)


def describe(x: Any, w: Any, b: Any, **options: Any) -> str:
    """Say which algorithm runs, and which ones backward where they are others."""
    way = arranged(x, w, options)
    geometry = way.inner
    forward, *back = (algorithm(geometry, x.dtype, way).name_of(geometry) for way in DIRECTIONS)
    interleaved = " of interleaved images" if geometry.images > way.outer.images else ""
    if back == [forward, forward]:
        return f"Numba, {forward}{interleaved}"
    return f"Numba, {forward}{interleaved}; input gradient {back[0]}, weight gradient {back[1]}"


operation.add_kernel(
    "numpy", Implementation("Numba", value, vjp, takes, describe=describe, options=OPTIONS)
)
