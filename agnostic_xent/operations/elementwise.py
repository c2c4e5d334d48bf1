"""Smooth and leaky activations of single numbers: tanh, silu, gelu, leaky_relu."""

from __future__ import annotations

import math

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import check_choice, float_namespace, number
from ..core.operation import Pullback, operation, repeatable
from .activations import exp_minus_abs

__all__ = ["gelu", "leaky_relu", "silu", "tanh"]


@operation
def tanh(x: Array) -> Array:
    """Hyperbolic tangent, elementwise: ``y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))``.

    The gradient has full relative accuracy also where y is almost 1.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.

    Returns
    -------
    array
        Shape and dtype of ``x``, values in [-1, 1].

    Examples
    --------
    >>> float(tanh(xp.asarray(0.0)))
    0.0
    """
    float_namespace(x=x)
    return repeatable(x)


@tanh.definition
def _tanh(x: Array) -> Array:
    return array_namespace(x).tanh(x)


@tanh.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    xp, z = array_namespace(x), widen(x)
    e = exp_minus_abs(z + z)
    slope = 4 * e / xp.square(1 + e)
    return xp.tanh(x), lambda dy: (narrow(widen(dy) * slope, x),)


@operation
def leaky_relu(x: Array, *, negative_slope: float = 0.01) -> Array:
    """Leaky rectified linear unit, elementwise: ``y = x`` where x > 0, else ``slope * x``.

    The derivative at 0 is the slope, and NaN stays NaN.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.
    negative_slope : float
        The slope where x is negative, at least 0.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Raises
    ------
    ValueError
        If ``negative_slope`` is negative or not finite.

    Examples
    --------
    >>> float(leaky_relu(xp.asarray(-2.0), negative_slope=0.25)), float(leaky_relu(xp.asarray(3.0)))
    (-0.5, 3.0)

    References
    ----------
    Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, ICML 2013.
    """
    float_namespace(x=x)
    return repeatable(x, negative_slope=number("negative_slope", negative_slope, "[0, inf)"))


@leaky_relu.definition
def _leaky_relu(x: Array, *, negative_slope: float) -> Array:
    return array_namespace(x).where(x <= 0, constant(negative_slope, x) * x, x)


@leaky_relu.pullback
def _(x: Array, *, negative_slope: float) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    y = _leaky_relu(x, negative_slope=negative_slope)
    slope = constant(negative_slope, x)
    return y, lambda dy: (xp.where(x <= 0, slope * dy, dy),)


@operation
def silu(x: Array) -> Array:
    """Sigmoid linear unit, elementwise: ``y = x / (1 + exp(-x))``. Also "swish".

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Examples
    --------
    >>> round(float(silu(xp.asarray(1.0))), 4)
    0.7311

    References
    ----------
    Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, arXiv:1702.03118.
    """
    float_namespace(x=x)
    return repeatable(x)


@silu.definition
def _silu(x: Array) -> Array:
    z = widen(x)
    return narrow(_times(z, _logistic(z)), x)


@silu.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    z = widen(x)
    e = exp_minus_abs(z)
    slope = _logistic(z) + _times(z, e / array_namespace(x).square(constant(1, z) + e))
    return _silu(x), lambda dy: (narrow(widen(dy) * slope, x),)


def _logistic(z: Array) -> Array:
    e, one = exp_minus_abs(z), constant(1, z)
    return array_namespace(z).where(z >= 0, one, e) / (one + e)


def _times(z: Array, factor: Array) -> Array:
    """Return ``z * factor``, and 0 where the factor is: also at an infinity."""
    return array_namespace(z).where(factor == 0, constant(0, z), z * factor)


# --- gelu ----------------------------------------------------------------------------------------


@operation
def gelu(x: Array, *, approximate: str = "none") -> Array:
    """Gaussian error linear unit, elementwise: ``y = x P(X <= x)`` with X standard normal.

    With ``approximate="tanh"`` it is ``x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.
    approximate : {"none", "tanh"}
        Which of the two.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Raises
    ------
    ValueError
        If ``approximate`` is something else.

    Examples
    --------
    >>> round(float(gelu(xp.asarray(1.0))), 4)
    0.8413

    References
    ----------
    Hendrycks and Gimpel, Gaussian error linear units, arXiv:1606.08415.
    """
    float_namespace(x=x)
    check_choice("approximate", approximate, ("none", "tanh"))
    return repeatable(x, approximate=approximate)


@gelu.definition
def _gelu(x: Array, *, approximate: str) -> Array:
    z = widen(x)
    share = _normal_share(z) if approximate == "none" else _logistic(2 * _argument(z))
    return narrow(_times(z, share), x)


@gelu.pullback
def _(x: Array, *, approximate: str) -> tuple[Array, Pullback]:
    xp, z = array_namespace(x), widen(x)
    if approximate == "none":
        density = xp.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))
        slope = _normal_share(z) + _times(z, density)
    else:
        double = 2 * _argument(z)
        e, one = exp_minus_abs(double), constant(1, z)
        rise = e / xp.square(one + e)
        slope = _logistic(double) + _times(z + 3 * CUBE * z * z * z, 2 * SCALE * rise)
    return _gelu(x, approximate=approximate), lambda dy: (narrow(widen(dy) * slope, x),)


SCALE, CUBE = math.sqrt(2 / math.pi), 0.044715


def _argument(z: Array) -> Array:
    return SCALE * (z + CUBE * z * z * z)


def _normal_share(z: Array) -> Array:
    """Return P(X <= z), with full relative accuracy where it is small but for exp's."""
    xp, half = array_namespace(z), math.sqrt(0.5)
    below = 0.5 * _erfc(xp.where(z >= 0, z, -z) * half)
    return xp.where(z >= 0, 1 - below, below)


SERIES = (
    -0.651326859890854717, 0.64196979235649026, 0.0194764732041858363, -0.00956151478680863164,
    -0.000946595344482036866, 0.000366839497852761452, 4.25233248069077716e-05,
    -2.02785781125342432e-05, -1.62429000464702551e-06, 1.3036558355805232e-06,
    1.56264417220661432e-08, -8.52380959149265425e-08, 6.5290544390988515e-09,
    5.05934349555146894e-09, -9.91364156493033087e-10, -2.27365122293183586e-10,
    9.6467911020155268e-11, 2.39403808303911474e-12, -6.8860275264975534e-12,
    8.94487927309072572e-13, 3.13092139934295808e-13, -1.12708223613672524e-13,
    3.8109052551892307e-16, 7.10609761360923712e-15, -1.52302820145710443e-15,
    -9.45749457129122239e-17, 1.2102371892242779e-16, -2.81666308774716676e-17,
)  # fmt: skip
"""Chebyshev coefficients of ``log(erfc(z) exp(z^2) / t)`` with t = 2 / (2 + z), in 2 t - 1.

The standard of arrays has no error function. They are sums over 120 nodes, of 60 digits each.
"""


def _erfc(z: Array) -> Array:
    """Return the complementary error function of z >= 0, to a few roundings of ``z^2``."""
    t = 2 / (2 + z)
    u = 2 * (2 * t - 1)
    last = before = constant(0, z)
    for coefficient in SERIES[:0:-1]:  # Clenshaw
        last, before = u * last - before + coefficient, last
    return t * array_namespace(z).exp(0.5 * u * last - before + SERIES[0] - z * z)
