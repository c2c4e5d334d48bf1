"""The kernel of conv2d: which algorithm runs, forward and backward."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ...operation import OPERATIONS, Implementation, Pullback
from .conv import direct_plans, winograd_plans
from .conv.cotangents import bias_gradient, through_relu
from .conv.geometry import Geometry, geometry_of

operation = OPERATIONS["conv2d"]


def takes(x: Any, w: Any, b: Any, **options: Any) -> str | None:
    """Say why these arguments are not taken, if they are not."""
    for array in (x, w, b):
        if array is not None and type(array) not in (np.ndarray, np.memmap):
            return f"it takes numpy.ndarray, not {type(array).__name__}"
    if x.dtype not in (np.float32, np.float64) or not x.dtype.isnative:
        return f"it takes float32 and float64 in native byte order, not {x.dtype.str}"
    return None


def value(x: Any, w: Any, b: Any, *, activation: str | None, **options: Any) -> Any:
    """Return the convolution."""
    if not x.size or not w.size:
        return operation._portable.value(x, w, b, activation=activation, **options)
    geometry = geometry_of(x, w, options)
    return algorithm(geometry, x.dtype).forward(geometry, x, w, b, activation == "relu")


def vjp(
    x: Any, w: Any, b: Any, *, activation: str | None, wrt: frozenset[int], **options: Any
) -> tuple[Any, Pullback]:
    """Return the convolution and its pullback."""
    if not x.size or not w.size:
        return operation._portable.vjp(x, w, b, activation=activation, wrt=wrt, **options)
    geometry = geometry_of(x, w, options)
    chosen = algorithm(geometry, x.dtype)
    y = chosen.forward(geometry, x, w, b, activation == "relu")

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        if activation == "relu":
            dy, db = through_relu(dy, y)
        elif 2 in wrt and b is not None:
            db = bias_gradient(dy)
        if 0 in wrt:
            dx = chosen.input_gradient(geometry, dy, w)
        if 1 in wrt:
            dw = chosen.weight_gradient(geometry, x, dy)
        return dx, dw, db if b is not None else None

    return y, pullback


def algorithm(geometry: Geometry, dtype: Any) -> ModuleType:
    """Return the faster of direct and Winograd convolution."""
    return winograd_plans if winograd_plans.pays(geometry, dtype) else direct_plans


operation.add_kernel("numpy", Implementation("Numba", value, vjp, takes))
