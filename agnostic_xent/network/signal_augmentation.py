"""Layers that change signals at random in training alone: rotations of sensors, scale, jitter.

Numbers are drawn on the host, so that one seed gives the same signals on every library; what they
do is computed where the signals are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.arrays import Array, array_namespace, device
from ..core.checks import float_namespace, generator, set_numbers
from .layers import Layer, Pass, WithPullback
from .onnx_graph import OnnxGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Jitter", "RandomRotation3d", "RandomScale"]

AXES = 3
Changed = tuple[Array, Callable[[Array], Array]]
"""Changed signals, and the way back for their gradient."""


class _Changing(Layer):
    """A layer that changes signals in training alone: it has to define `change`."""

    def change(self, x: Array, rng: np.random.Generator) -> Changed:
        """Return x changed at random, and the way back."""
        raise NotImplementedError(f"{type(self).__name__} has to define change")

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        float_namespace(x=x)
        if not how.train:
            return x, lambda dy: (dy if how.input_grad else None, {})
        y, back = self.change(x, generator(how.rng))
        return y, lambda dy: (back(dy) if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return x


def _like(values: NDArray[Any], x: Array) -> Array:
    """Return numbers of the host as an array of the library, device and dtype of x."""
    xp = array_namespace(x)
    host = values.astype("float64" if x.dtype == xp.float64 else "float32")
    return xp.astype(xp.asarray(host, device=device(x)), x.dtype)


@dataclass(frozen=True)
class RandomRotation3d(_Changing):
    """Rotate three-axis sensors in space, in training alone.

    For sensors that are worn a little differently each time. Channels 0 to 2 are the axes of one
    sensor, 3 to 5 those of the next one, and so on; all sensors of a sample are turned alike.

    Parameters
    ----------
    degrees : float
        The largest angle, in (0, 180]. Angles are drawn from ``-degrees`` to ``degrees``, all of
        them as likely, and axes from all directions.

    Examples
    --------
    >>> x = xp.ones((1, 3, 2))
    >>> y, _ = RandomRotation3d(25).vjp({}, x, rng=0)
    >>> [round(float(xp.sum(y[0, :, t] ** 2)), 4) for t in range(2)]
    [3.0, 3.0]

    References
    ----------
    Um et al., Data augmentation of wearable sensor data for Parkinson's disease monitoring using
    convolutional neural networks, arXiv:1706.00527.
    """

    degrees: float

    def __post_init__(self) -> None:
        set_numbers(self, degrees="(0, 180]")

    def change(self, x: Array, rng: np.random.Generator) -> Changed:
        """Return x with each sample turned, and the way back."""
        if x.ndim < 3 or x.shape[1] % AXES:
            raise ValueError(
                "x must have shape (N, C, ...) with three channels a sensor, so a C divisible by "
                f"3; got {tuple(x.shape)}"
            )
        turns = _rotations(rng.random((x.shape[0], 3)), math.radians(self.degrees))
        return _turned(x, turns), lambda dy: _turned(dy, turns.transpose(0, 2, 1))


def _rotations(draws: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Return rotation matrices (N, 3, 3) by angles up to ``most``, from numbers in [0, 1), (N, 3).

    By the formula of Rodrigues, ``I + sin(a) K + (1 - cos(a)) K^2``, K of a random unit vector.
    """
    import numpy as np

    z, around, angle = 2 * draws[:, 0] - 1, 2 * np.pi * draws[:, 1], (2 * draws[:, 2] - 1) * most
    across = np.sqrt(1 - z * z)
    axis = np.stack([across * np.cos(around), across * np.sin(around), z], axis=1)
    cross = np.cross(axis[:, None, :], np.eye(AXES))  # (N, 3, 3), rows axis x e_i
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    found: NDArray[np.float64] = np.eye(AXES) - sine * cross + (1 - cosine) * cross @ cross
    return found


def _turned(x: Array, turns: NDArray[np.float64]) -> Array:
    """Return the sensors of x, each multiplied by its sample's matrix; sums are of one order."""
    xp = array_namespace(x)
    sensors = xp.reshape(x, (x.shape[0], x.shape[1] // AXES, AXES, math.prod(x.shape[2:])))
    r = _like(turns[:, None], x)  # (N, 1, 3, 3)
    a, b, c = (r[..., :, i : i + 1] * sensors[:, :, i : i + 1, :] for i in range(AXES))
    return xp.reshape(a + b + c, tuple(x.shape))


@dataclass(frozen=True)
class RandomScale(_Changing):
    """Multiply each sample by a random number near 1, in training alone.

    Parameters
    ----------
    by : float
        Numbers are drawn from ``1 - by`` to ``1 + by``, all of them as likely; in (0, 1).

    Examples
    --------
    >>> y, _ = RandomScale(0.5).vjp({}, xp.ones((100, 3, 8)), rng=0)
    >>> bool(xp.min(y) < 0.6), bool(xp.max(y) > 1.4), bool(xp.all(y[:, :1, :1] == y))
    (True, True, True)
    """

    by: float

    def __post_init__(self) -> None:
        set_numbers(self, by="(0, 1)")

    def change(self, x: Array, rng: np.random.Generator) -> Changed:
        """Return x with each sample scaled, and the way back."""
        draws = rng.random((x.shape[0], *(1,) * (x.ndim - 1)))
        factor = _like(1 + self.by * (2 * draws - 1), x)
        return factor * x, lambda dy: factor * dy


@dataclass(frozen=True)
class Jitter(_Changing):
    """Add noise from a normal distribution to each number, in training alone.

    Parameters
    ----------
    std : float
        Its standard deviation, > 0, in the unit of x; behind `Standardize`, in standard deviations
        of the channels.

    Examples
    --------
    >>> y, _ = Jitter(0.5).vjp({}, xp.zeros((100, 3, 8)), rng=0)
    >>> round(float(xp.std(y)), 1)
    0.5
    """

    std: float

    def __post_init__(self) -> None:
        set_numbers(self, std="(0, inf)")

    def change(self, x: Array, rng: np.random.Generator) -> Changed:
        """Return x with noise, and the way back, on which nothing changes."""
        noise = self.std * rng.standard_normal(tuple(x.shape))
        return x + _like(noise, x), lambda dy: dy
