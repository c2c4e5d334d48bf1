"""The transforms of Winograd convolution in one dimension; in two, they are done both ways.

``y = A^T [(G w G^T) * (B^T x B)] A`` computes a tile of outputs by interpolation. The gradients use
the transposes of the same matrices.

F(4x4, 3x3), at 0, 1, -1, 2, -2 and infinity: 4 outputs from 6 pixels by 6 multiplications, not 12.

With stride 2, an output meets two even pixels and an odd one. The former are a convolution with two
taps, F(4, 2) at 0, 1, -1, 2 and infinity; the latter are multiplied as they are. 4 outputs from 9
pixels by 9 multiplications, not 12. The input gradient of 8 pixels meets 5 cotangents.

References
----------
Lavin and Gray, Fast algorithms for convolutional neural networks, arXiv:1509.09308.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..simd.vectors import Vectors
from .tiling import Stride1, Stride2, Stride2Gradient

Transform = Callable[["Arithmetic", list[Any]], list[Any]]


class Arithmetic:
    """What the transforms are made of."""

    def __init__(self, v: Vectors):
        self.v, self.add, self.subtract = v, v.builder.fadd, v.builder.fsub

    def plus(self, factor: float, x: Any, y: Any) -> Any:
        """Return factor * x + y."""
        return self.v.fma(self.v.constant(factor), x, y)

    def times(self, factor: float, x: Any) -> Any:
        """Return factor * x."""
        return self.v.builder.fmul(self.v.constant(factor), x)


def of_input(o: Arithmetic, d: list[Any]) -> list[Any]:
    """Return B^T d: 6 pixels to 6 points."""
    even, odd = o.plus(-4, d[2], d[4]), o.plus(-4, d[1], d[3])
    even2, odd2 = o.subtract(d[4], d[2]), o.subtract(d[3], d[1])
    return [
        o.plus(4, d[0], o.plus(-5, d[2], d[4])),
        o.add(even, odd),
        o.subtract(even, odd),
        o.plus(2, odd2, even2),
        o.plus(-2, odd2, even2),
        o.plus(4, d[1], o.plus(-5, d[3], d[5])),
    ]


def of_output(o: Arithmetic, m: list[Any]) -> list[Any]:
    """Return A^T m: 6 points to 4 outputs."""
    s1, d1 = o.add(m[1], m[2]), o.subtract(m[1], m[2])
    s2, d2 = o.add(m[3], m[4]), o.subtract(m[3], m[4])
    return [
        o.add(o.add(m[0], s1), s2),
        o.plus(2, d2, d1),
        o.plus(4, s2, s1),
        o.add(o.plus(8, d2, d1), m[5]),
    ]


def of_output_gradient(o: Arithmetic, y: list[Any]) -> list[Any]:
    """Return A y: 4 cotangents to 6 points."""
    even, odd = o.add(y[0], y[2]), o.add(y[1], y[3])
    even2, odd2 = o.plus(4, y[2], y[0]), o.plus(4, y[3], y[1])
    return [
        y[0],
        o.add(even, odd),
        o.subtract(even, odd),
        o.plus(2, odd2, even2),
        o.plus(-2, odd2, even2),
        y[3],
    ]


def of_weights(o: Arithmetic, g: list[Any]) -> list[Any]:
    """Return G g: 3 weights to 6 points."""
    even, odd = o.times(-1 / 6, o.add(g[0], g[2])), o.times(-1 / 6, g[1])
    even2 = o.plus(1 / 24, g[0], o.times(1 / 6, g[2]))
    return [
        o.times(1 / 4, g[0]),
        o.add(even, odd),
        o.subtract(even, odd),
        o.plus(1 / 12, g[1], even2),
        o.plus(-1 / 12, g[1], even2),
        g[2],
    ]


def of_weight_gradient(o: Arithmetic, u: list[Any]) -> list[Any]:
    """Return G^T u: 6 points to 3 gradients of weights."""
    s1, d1 = o.add(u[1], u[2]), o.subtract(u[1], u[2])
    s2, d2 = o.add(u[3], u[4]), o.subtract(u[3], u[4])
    return [
        o.plus(1 / 4, u[0], o.plus(-1 / 6, s1, o.times(1 / 24, s2))),
        o.plus(-1 / 6, d1, o.times(1 / 12, d2)),
        o.plus(-1 / 6, s1, o.plus(1 / 6, s2, u[5])),
    ]


# --- stride 2 -------------------------------------------------------------------------------------


def of_five(o: Arithmetic, d: list[Any]) -> list[Any]:
    """Return B^T d of F(4, 2): 5 pixels to 5 points."""
    return [
        o.plus(2, o.subtract(d[0], d[2]), o.subtract(d[3], d[1])),
        o.plus(-2, d[1], o.subtract(d[3], d[2])),
        o.plus(2, d[1], o.plus(-3, d[2], d[3])),
        o.subtract(d[3], d[1]),
        o.plus(2, o.subtract(d[1], d[3]), o.subtract(d[4], d[2])),
    ]


def to_four(o: Arithmetic, m: list[Any]) -> list[Any]:
    """Return A^T m of F(4, 2): 5 points to 4 outputs."""
    even, odd = o.add(m[1], m[2]), o.subtract(m[1], m[2])
    return [
        o.add(o.add(m[0], even), m[3]),
        o.plus(2, m[3], odd),
        o.plus(4, m[3], even),
        o.add(o.plus(8, m[3], odd), m[4]),
    ]


def of_input2(o: Arithmetic, d: list[Any]) -> list[Any]:
    """Return 9 points of 9 pixels."""
    return of_five(o, d[0::2]) + d[1::2]


def of_output2(o: Arithmetic, m: list[Any]) -> list[Any]:
    """Return 4 outputs of 9 points."""
    return [o.add(x, y) for x, y in zip(to_four(o, m[:5]), m[5:], strict=True)]


def of_weights2(o: Arithmetic, g: list[Any]) -> list[Any]:
    """Return 9 points of 3 weights."""
    third, sixth = o.times(1 / 3, g[2]), o.times(1 / 6, g[0])
    outer = [
        o.times(1 / 2, g[0]),
        o.times(-1 / 2, o.add(g[0], g[2])),
        o.times(1 / 6, o.subtract(g[2], g[0])),
        o.add(sixth, third),
        g[2],
    ]
    return outer + [g[1]] * 4


def of_output_gradient2(o: Arithmetic, y: list[Any]) -> list[Any]:
    """Return 9 points of 4 cotangents."""
    even, odd = o.add(y[0], y[2]), o.add(y[1], y[3])
    two = o.plus(2, o.plus(4, y[3], y[1]), o.plus(4, y[2], y[0]))
    return [y[0], o.add(even, odd), o.subtract(even, odd), two, y[3], *y]


def of_weight_gradient2(o: Arithmetic, u: list[Any]) -> list[Any]:
    """Return the gradients of 3 weights from 9 points."""
    first = o.plus(1 / 2, o.subtract(u[0], u[1]), o.times(1 / 6, o.subtract(u[3], u[2])))
    last = o.plus(1 / 6, u[2], o.plus(-1 / 2, u[1], o.plus(1 / 3, u[3], u[4])))
    return [first, o.add(o.add(u[5], u[6]), o.add(u[7], u[8])), last]


def of_cotangents2(o: Arithmetic, d: list[Any]) -> list[Any]:
    """Return 9 points of 5 cotangents, for the input gradient."""
    return of_five(o, d) + d[:4]


def to_pixels2(o: Arithmetic, m: list[Any]) -> list[Any]:
    """Return the gradients of 8 pixels, of which the first meets one cotangent, of 9 points."""
    return [pixel for pair in zip(m[5:], to_four(o, m[:5]), strict=True) for pixel in pair]


# --- which belong together ------------------------------------------------------------------------


class Scheme(NamedTuple):
    """The transforms of a class of tilings."""

    of_input: Transform
    of_output: Transform
    of_weights: Transform
    of_output_gradient: Transform | None = None
    of_weight_gradient: Transform | None = None


SCHEMES: dict[Any, Scheme] = {
    Stride1: Scheme(of_input, of_output, of_weights, of_output_gradient, of_weight_gradient),
    Stride2: Scheme(of_input2, of_output2, of_weights2, of_output_gradient2, of_weight_gradient2),
    Stride2Gradient: Scheme(of_cotangents2, to_pixels2, of_weights2),
}
