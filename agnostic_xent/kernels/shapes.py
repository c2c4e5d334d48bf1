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
            dy: Any = of_depth(dz.reshape(rows))[0]
            dx: Any = of_planes(dy.reshape(inner))[0]
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


# --- volumes of which two axes are one -----------------------------------------------------------


def idle_axes(window: Any, options: dict[str, Any]) -> int | None:
    """Return the first of two axes side by side along which windows over volumes do nothing."""
    axes = zip(window, options["stride"], options["padding"], strict=True)
    idle = [(k, s, p) == (1, 1, (0, 0)) for k, s, p in axes]
    return next((axis for axis in (0, 1) if idle[axis] and idle[axis + 1]), None)


def of_idle(value: Value, vjp: Vjp, axis: int, **fixed: Any) -> tuple[Value, Vjp]:
    """Return the value and vjp of a convolution of volumes with two idle axes, by that of images.

    Parameters
    ----------
    value, vjp : callable
        The kernel for images.
    axis : int
        The first of the two, which become one: 0 or 1.
    **fixed
        Options that the operation on volumes has not.
    """

    def split(y: Any, like: Any) -> Any:
        if y is None or y.ndim != 4:
            return y
        return y.reshape(*y.shape[: 2 + axis], *like[2 + axis : 4 + axis], *y.shape[3 + axis :])

    def value_of_idle(*arrays: Any, **options: Any) -> Any:
        images, settings = as_images(*arrays, axis=axis, **options)
        return split(value(*images, **settings, **fixed), arrays[0].shape)

    def vjp_of_idle(*arrays: Any, **options: Any) -> tuple[Any, Pullback]:
        images, settings = as_images(*arrays, axis=axis, **options)
        y, pullback = vjp(*images, **settings, **fixed)
        shapes = [() if x is None else x.shape for x in arrays]

        def of_volumes(dy: Any) -> tuple[Any, ...]:
            return tuple(map(split, pullback(_joined(dy, axis)), shapes))

        return split(y, shapes[0]), of_volumes

    return value_of_idle, vjp_of_idle


def as_images(*arrays: Any, axis: int, **options: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return volumes and filters as images, ``axis`` and the next one as one, and options."""
    settings = {
        name: (*x[:axis], *x[axis + 1 :]) if name in ONE else x for name, x in options.items()
    }
    return [_joined(x, axis) for x in arrays], settings


def _joined(x: Any, axis: int) -> Any:
    if x is None or x.ndim != 5:
        return x
    return x.reshape(*x.shape[: 2 + axis], -1, *x.shape[4 + axis :])
