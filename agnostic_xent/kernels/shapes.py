"""Kernels of signals and volumes by those of images: what a reshape makes of one the other.

A signal is an image of one row. A window over a volume is one over its planes and then one over
their places, of planes as rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..core.operation import Pullback

Value = Callable[..., Any]
Vjp = Callable[..., tuple[Any, Pullback]]

ONE: dict[str, Any] = {
    "window": 1, "stride": 1, "dilation": 1, "padding": (0, 0), "counted": (0, 0),
}  # fmt: skip
"""The options that have an entry for each axis, and that of an axis where nothing slides."""


def with_axis(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of windows over one more axis in front, where nothing slides."""
    return {name: (ONE[name], *x) if name in ONE else x for name, x in options.items()}


def of_signals(value: Value, vjp: Vjp, axis: int, **fixed: Any) -> tuple[Value, Vjp]:
    """Return the value and vjp for signals by those for images.

    Parameters
    ----------
    value, vjp : callable
        The kernel for images.
    axis : int
        Where arrays of three dimensions get an axis of length 1.
    **fixed
        Options that the operation on signals has not.
    """
    lifted = (slice(None),) * axis + (None,)
    lowered = (slice(None),) * axis + (0,)

    def up(x: Any) -> Any:
        return x[lifted] if x is not None and x.ndim == 3 else x

    def down(x: Any) -> Any:
        return x[lowered] if x is not None and x.ndim == 4 else x

    @functools.wraps(value)
    def value_of_signals(*arrays: Any, **options: Any) -> Any:
        return down(value(*map(up, arrays), **with_axis(options), **fixed))

    @functools.wraps(vjp)
    def vjp_of_signals(*arrays: Any, **options: Any) -> tuple[Any, Pullback]:
        y, pullback = vjp(*map(up, arrays), **with_axis(options), **fixed)
        return down(y), lambda dy: tuple(map(down, pullback(up(dy))))

    return value_of_signals, vjp_of_signals


# --- pools of volumes ----------------------------------------------------------------------------


def of_volumes(value: Value, vjp: Vjp) -> tuple[Value, Vjp]:
    """Return the value and vjp of a pool over volumes: over their planes, then over the depth."""

    @functools.wraps(value)
    def value_of_volumes(x: Any, **options: Any) -> Any:
        planes, depth = apart(options)
        y = value(as_planes(x), **planes)
        return as_volumes(value(as_rows(y, x), **depth), x, y)

    @functools.wraps(vjp)
    def vjp_of_volumes(x: Any, **options: Any) -> tuple[Any, Pullback]:
        planes, depth = apart(options)
        y, of_planes = vjp(as_planes(x), **planes)
        z, of_depth = vjp(as_rows(y, x), **depth)
        shape, inner, rows = x.shape, y.shape, z.shape

        def pullback(dz: Any) -> tuple[Any]:
            (dy,) = of_depth(dz.reshape(rows))
            (dx,) = of_planes(dy.reshape(inner))
            return (dx.reshape(shape),)

        return as_volumes(z, x, y), pullback

    return value_of_volumes, vjp_of_volumes


def apart(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of windows over planes, and those of windows over planes as rows."""
    planes = {name: x[1:] for name, x in options.items()}
    return planes, {name: (x[0], ONE[name]) for name, x in options.items()}


def as_planes(x: Any) -> Any:
    """Return volumes (N, C, D, H, W) as images (N, C*D, H, W)."""
    n, c, d, h, w = x.shape
    return x.reshape(n, c * d, h, w)


def as_rows(y: Any, x: Any) -> Any:
    """Return planes of volumes x as images, each of them a row: (N, C, D, OH*OW)."""
    return y.reshape(*x.shape[:3], math.prod(y.shape[2:]))


def as_volumes(z: Any, x: Any, y: Any) -> Any:
    """Return rows (N, C, OD, OH*OW) as volumes, whose planes have the size of those in y."""
    return z.reshape(*x.shape[:2], z.shape[2], *y.shape[2:])
