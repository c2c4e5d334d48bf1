"""The kernels of conv1d and conv3d: those of conv2d, where a reshape makes images of the arrays."""

from __future__ import annotations

from typing import Any

from ....core.operation import Pullback
from ...shapes import Value, Vjp, as_images, idle_axes, of_idle, of_signals, with_axis
from ..toolchain.device import register
from ..toolchain.dtypes import takes
from . import convolution

OPTIONS = "stride", "padding", "dilation", "groups", "activation"
ROW = 2
"""The axis of a signal's only row."""


def signals_fit(x: Any, w: Any, b: Any, **options: Any) -> bool:
    """Return whether the numbers of these shapes are in the kernels' range."""
    return convolution.fits(x[:, :, None], w[:, :, None], b, **with_axis(options))


# --- volumes -------------------------------------------------------------------------------------


def volumes_fit(x: Any, w: Any, b: Any, **options: Any) -> bool:
    """Return whether volumes are images of rows, whose numbers are in the kernels' range."""
    axis = idle_axes(w.shape[2:], options)
    if axis is None:
        return False
    arrays, settings = as_images(x, w, b, axis=axis, **options)
    return convolution.fits(*arrays, **settings)


def value(x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Return the convolution of volumes."""
    return _of_images(w, options)[0](x, w, b, **options)


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the convolution of volumes and its pullback."""
    return _of_images(w, options)[1](x, w, b, wrt=wrt, **options)


def _of_images(w: Any, options: dict[str, Any]) -> tuple[Value, Vjp]:
    axis = idle_axes(w.shape[2:], options)
    return of_idle(convolution.value, convolution.vjp, axis or 0, max_pool=None)


signals = of_signals(convolution.value, convolution.vjp, ROW, max_pool=None)
register("conv1d", *signals, takes, *OPTIONS, fits=signals_fit)
register("conv3d", value, vjp, takes, *OPTIONS, fits=volumes_fit)
