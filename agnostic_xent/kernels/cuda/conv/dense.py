"""The kernels of dense in a step that is captured, where CuPy refuses cuBLAS; else that is faster.

A dense layer is a convolution of images of one pixel, so the kernels are the convolution's. Its
value has few numbers, and long sums: it runs as a weight gradient, which shares sums out, of two
images whose pixels are the features.
"""

from __future__ import annotations

from typing import Any

from ....core.operation import Pullback, kernels
from ..toolchain.capturing import CAPTURING
from ..toolchain.device import contiguous, register
from ..toolchain.dtypes import code_of, takes
from .convolution import product_of, ready
from .cotangents import sums_of_channels
from .gather import Geometry, in_range
from .pixels import matrices_of
from .weight import weight_gradient


def geometry(images: int, channels: int, filters: int, pixels: int = 1) -> Geometry:
    """Return the geometry of a convolution by a window of one pixel."""
    one, image = (1, 1), (1, pixels)
    return Geometry(images, channels, image, filters, 1, one, one, (0, 0), one, image)


class Shapes:
    """The shapes of a call, and the convolutions that stand for it."""

    def __init__(self, x: Any, w: Any):
        self.units, self.features = w.shape
        self.rows = x.size // self.features
        self.value = geometry(1, self.units, self.rows, self.features)
        self.gradients = geometry(self.rows, self.features, self.units)


def fits(x: Any, w: Any, b: Any, **options: Any) -> bool:
    """Return whether a step is captured, and all numbers of it are in the kernels' range."""
    if CAPTURING.now is None:
        return False
    s = Shapes(x, w)
    return in_range(s.value) and in_range(s.gradients)


def value(x: Any, w: Any, b: Any) -> Any:
    """Return the output of a dense layer."""
    s = Shapes(x, w)
    rows = contiguous(x).reshape(1, s.rows, 1, s.features)
    units = contiguous(w).reshape(1, s.units, 1, s.features)
    y = weight_gradient(s.value, units, rows, "simt").reshape(*x.shape[:-1], s.units)
    return y if b is None else y + b


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int]) -> tuple[Any, Pullback]:
    """Return the output of a dense layer and its pullback."""
    s = Shapes(x, w)

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        dy = contiguous(dy).reshape(s.rows, s.units, 1, 1)
        if 0 in wrt:
            with kernels("auto"):  # exact, as matrix products are in every mode
                back = ready(s.gradients, code_of(x), True)
                matrix, _ = matrices_of(contiguous(w), back)
                dx = product_of(back, dy, matrix).reshape(x.shape)
        if 1 in wrt:
            images = contiguous(x).reshape(s.rows, s.features, 1, 1)
            dw = weight_gradient(s.gradients, images, dy, "simt").reshape(w.shape)
        if 2 in wrt and b is not None:
            db = sums_of_channels(dy)[1]
        return dx, dw, db

    return value(x, w, b), pullback


def describe(*arrays: Any) -> str:
    """Return what runs outside of a capture, for `explain`."""
    return "CuPy's matrix products; CUDA kernels while a step is captured"


register("dense", value, vjp, takes, fits=fits, describe=describe)
