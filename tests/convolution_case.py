"""Convolutions to try kernels on: a plain reference in float64, and how far rounding may lead away.

An error is compared with the root of the sum of squares of all that is added up for a number, times
the roundings that follow each other. Where an algorithm goes through other numbers than the
products themselves, as Winograd's does, these are what is squared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from oracles import margins, pair

import agnostic_xent as ax
from agnostic_xent.kernels.cpu import convolution
from agnostic_xent.kernels.cpu.conv import direct_plans, winograd_plans
from agnostic_xent.kernels.cpu.conv.tiling import Stride1, Stride2, Stride2Gradient
from agnostic_xent.kernels.cpu.conv.winograd_transforms import SCHEMES

PLANS = {"direct": direct_plans, "winograd": winograd_plans}
RELU, POOL = {"activation": "relu"}, {"max_pool": 2}
BOTH = RELU | POOL

DEVIATIONS = 6
"""Standard deviations that rounding errors may add up to; they are as good as independent (Higham
and Mary, A new approach to probabilistic rounding error analysis, 2019)."""


def rounding(dtype: Any, terms: int) -> float:
    """Return what so many roundings in a chain may add up to, relative to what is summed."""
    return DEVIATIONS * float(np.finfo(dtype).eps) / 2 * float(np.sqrt(terms))


@dataclass(frozen=True)
class Case:
    """Shapes and options of a convolution."""

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    options: dict[str, Any] = field(default_factory=dict)
    bias: bool = True

    @property
    def id(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.x}*{self.w}{'+b' * self.bias},{options}".replace(" ", "")

    def arrays(self, dtype: Any = "float32", seed: int = 0) -> list[Any]:
        """Return x, w and b, which may be None."""
        rng = np.random.default_rng(seed)
        shapes = self.x, self.w, (self.w[0],)
        x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        return [x, w, b if self.bias else None]


def case(x: Any, w: Any, bias: bool = True, **options: Any) -> Case:
    return Case(x, w, options, bias)


def use(monkeypatch: Any, name: str) -> None:
    """Have one algorithm run whatever the rule says."""
    monkeypatch.setattr(convolution, "algorithm", lambda geometry, dtype: PLANS[name])


# --- the formula, a tap after another -------------------------------------------------------------


class Reference:
    """A convolution and its two adjoints in float64."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.groups = options.get("groups", 1)
        self.window, self.image = w.shape[2:], x.shape[2:]
        self.stride, self.dilation = (pair(options.get(k, 1)) for k in ("stride", "dilation"))
        self.margins = margins(
            options.get("padding", 0), self.window, self.stride, self.dilation, self.image
        )
        self.output = tuple(
            (n + sum(m) - d * (k - 1) - 1) // s + 1
            for n, m, d, k, s in zip(
                self.image, self.margins, self.dilation, self.window, self.stride, strict=True
            )
        )
        self.x_shape, self.w_shape = x.shape, w.shape
        self.x, self.w = self.split(x), self.split_filters(w)

    def split(self, x: Any) -> Any:
        x = np.asarray(x, "float64")
        return x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])

    def split_filters(self, w: Any) -> Any:
        return np.asarray(w, "float64").reshape(self.groups, -1, *w.shape[1:])

    def taps(self) -> Any:
        """Yield each tap, and the outputs and pixels that it joins."""
        for u in range(self.window[0]):
            for v in range(self.window[1]):
                i, rows = self.met(0, u)
                j, columns = self.met(1, v)
                yield u, v, (..., i[:, None], j), (..., rows[:, None], columns)

    def met(self, axis: int, tap: int) -> tuple[Any, Any]:
        outputs = np.arange(self.output[axis])
        pixels = outputs * self.stride[axis] + tap * self.dilation[axis] - self.margins[axis][0]
        inside = (pixels >= 0) & (pixels < self.image[axis])
        return outputs[inside], pixels[inside]

    def value(self, b: Any = None) -> Any:
        y = np.zeros((len(self.x), *self.w.shape[:2], *self.output))
        for u, v, outputs, pixels in self.taps():
            y[outputs] += np.einsum("gkc,ngcij->ngkij", self.w[..., u, v], self.x[pixels])
        y = y.reshape(len(self.x), -1, *self.output)
        return y if b is None else y + np.asarray(b, "float64")[:, None, None]

    def input_gradient(self, dy: Any) -> Any:
        dy, dx = self.split(dy), np.zeros(self.x.shape)
        for u, v, outputs, pixels in self.taps():
            dx[pixels] += np.einsum("gkc,ngkij->ngcij", self.w[..., u, v], dy[outputs])
        return dx.reshape(self.x_shape)

    def weight_gradient(self, dy: Any) -> Any:
        dy, dw = self.split(dy), np.zeros(self.w.shape)
        for u, v, outputs, pixels in self.taps():
            dw[..., u, v] = np.einsum("ngkij,ngcij->gkc", dy[outputs], self.x[pixels])
        return dw.reshape(self.w_shape)


# --- the spread of rounding errors ----------------------------------------------------------------


class DirectSpread:
    """Roots of sums of squares, and how many roundings follow each other."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.squares = Reference(np.square(x, dtype="f8"), np.square(w, dtype="f8"), options)

    def value(self, b: Any) -> tuple[Any, int]:
        squares = None if b is None else np.square(b, dtype="f8")
        return np.sqrt(self.squares.value(squares)), self.squares.w[0, 0].size + 1

    def input_gradient(self, dy: Any) -> tuple[Any, int]:
        spread = np.sqrt(self.squares.input_gradient(np.square(dy, dtype="f8")))
        return spread, self.squares.w[0, :, 0].size

    def weight_gradient(self, dy: Any) -> tuple[Any, int]:
        spread = np.sqrt(self.squares.weight_gradient(np.square(dy, dtype="f8")))
        return spread, dy[:, 0].size


# --- and for Winograd's algorithm -----------------------------------------------------------------


class Plain:
    """The arithmetic of the transforms, on numbers."""

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def subtract(self, x: Any, y: Any) -> Any:
        return x - y

    def plus(self, factor: float, x: Any, y: Any) -> Any:
        return factor * x + y

    def times(self, factor: float, x: Any) -> Any:
        return factor * x


def matrix(transform: Any, size: int) -> Any:
    """Return the matrix of a transform."""
    return np.array(transform(Plain(), list(np.eye(size))))


class Points:
    """The matrices of a class of tilings, and the roundings of its transforms."""

    def __init__(self, tiling: Any):
        self.scheme = SCHEMES[tiling]
        side, self.read, self.step, self.written = tiling.SIZES
        self.of_input = matrix(self.scheme.of_input, self.read)
        self.of_output = matrix(self.scheme.of_output, side)
        self.of_weights = matrix(self.scheme.of_weights, 3)
        # two directions, and the operations and inexact constants of each
        self.roundings = 2 * (2 + 4 + (3 if side == 6 else 4))
        self.roundings_back = 2 * (2 + 2 + 6)


POINTS = {tiling: Points(tiling) for tiling in SCHEMES}


def points_of(stride: Any) -> tuple[Points, Points]:
    """Return those of the value and weight gradient, and those of the input gradient."""
    classes = (Stride1, Stride1) if stride in (1, (1, 1)) else (Stride2, Stride2Gradient)
    return POINTS[classes[0]], POINTS[classes[1]]


class WinogradSpread:
    """The same where all is summed by way of the points of a tile."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.plain = Reference(x, w, options)
        self.x, self.w = self.plain.x**2, self.plain.w**2
        (self.top, _), (self.left, _) = self.plain.margins
        self.points, self.points_back = points_of(self.plain.stride)

    def value(self, b: Any) -> tuple[Any, int]:
        terms = self.w.shape[2] + self.points.roundings + 1
        squares = correlated(self.x, self.w, (self.top, self.left), self.plain.output, self.points)
        squares = squares.reshape(len(self.x), -1, *self.plain.output)
        bias = 0 if b is None else np.square(b, dtype="f8")[:, None, None]
        return np.sqrt(squares + bias), terms

    def input_gradient(self, dy: Any) -> tuple[Any, int]:
        turned = np.swapaxes(self.w, 1, 2)[..., ::-1, ::-1]
        corner = (0, 0) if self.points_back.written == 8 else (2 - self.top, 2 - self.left)
        dy = self.plain.split(dy) ** 2
        squares = correlated(dy, turned, corner, self.plain.image, self.points_back)
        terms = turned.shape[2] + self.points_back.roundings
        return np.sqrt(squares.reshape(self.plain.x_shape)), terms

    def weight_gradient(self, dy: Any) -> tuple[Any, int]:
        dy, p, size = self.plain.split(dy) ** 2, self.points, self.plain.output
        v = tiles(self.x, (self.top, self.left), size, (p.read, p.step, p.written))
        g = tiles(dy, (0, 0), size, (p.written, p.written, p.written))
        v, g = transformed(p.of_input, v), transformed(p.of_output.T, g)
        du = np.einsum("ngkabij,ngcabij->gkcij", g, v, optimize=True)
        squares = transformed(p.of_weights.T, du).reshape(self.plain.w_shape)
        return np.sqrt(squares), g[:, 0, 0, :, :, 0, 0].size + p.roundings_back


def correlated(x: Any, w: Any, corner: tuple[int, int], output: Any, p: Points) -> Any:
    """Return sums of squares of a Winograd convolution, from squares."""
    v = transformed(p.of_input, tiles(x, corner, output, (p.read, p.step, p.written)))
    m = np.einsum("gkcij,ngcabij->ngkabij", transformed(p.of_weights, w), v, optimize=True)
    y = np.swapaxes(transformed(p.of_output, m), -3, -2)  # (..., tile rows, 4, tile columns, 4)
    y = y.reshape(*y.shape[:3], p.written * y.shape[3], p.written * y.shape[5])
    return y[..., : output[0], : output[1]]


def transformed(matrix: Any, squares: Any) -> Any:
    return matrix**2 @ squares @ matrix.T**2


def tiles(x: Any, corner: tuple[int, int], output: Any, sizes: tuple[int, int, int]) -> Any:
    """Return all tiles of an image: (..., rows, columns, read, read); sizes as of a tiling."""
    read, step, written = sizes
    places = [
        np.arange(-(-n // written))[:, None] * step + np.arange(read) - first
        for n, first in zip(output, corner, strict=True)
    ]
    (rows, rows_in), (columns, columns_in) = (
        (np.clip(p, 0, n - 1), (p >= 0) & (p < n)) for p, n in zip(places, x.shape[3:], strict=True)
    )
    found = x[..., rows[:, None, :, None], columns[None, :, None, :]]
    return found * (rows_in[:, None, :, None] & columns_in[None, :, None, :])


SPREADS = {"direct": DirectSpread, "winograd": WinogradSpread}

# --- the check ------------------------------------------------------------------------------------


def assert_rounded(actual: Any, expected: Any, spread: Any, terms: int) -> None:
    """Check that all errors are what rounding explains."""
    assert actual.shape == expected.shape
    error = np.abs(actual.astype("float64") - expected)
    bound = rounding(actual.dtype, terms) * spread
    far = ~(error <= bound)
    if far.any():
        worst = np.nanmax(np.where(far, error / np.maximum(bound, 1e-300), 0))
        raise AssertionError(
            f"{far.sum()} of {far.size} are beyond the bound, by up to {worst:.3g} times; "
            f"first at {tuple(int(i) for i in np.argwhere(far)[0])}"
        )


def as_it_is(x: Any) -> Any:
    return x


def check(
    convolution: Case, spread: Any, dtype: Any = "float32", seed: int = 0, place: Any = as_it_is
) -> None:
    """Check value and pullback of the kernel that runs, without and with what follows it.

    ``place`` says where arrays lie. What follows is compared with the portable definition on the
    very numbers that the convolution gives by itself, so that ties and signs are the same.
    """
    x, w, b = (None if a is None else place(a) for a in convolution.arrays(dtype, seed))
    options = dict(convolution.options)
    activation, max_pool = options.pop("activation", None), options.pop("max_pool", None)
    exact, spread = Reference(x, w, options), spread(x, w, options)
    with ax.kernels("require"):
        y = ax.conv2d(x, w, b, **options, activation=activation)
        found, pullback = ax.conv2d.vjp(x, w, b, **convolution.options)
    expected = exact.value(b)
    assert_rounded(y, np.maximum(expected, 0) if activation else expected, *spread.value(b))
    with ax.kernels("portable"):
        pooled, unpool = ax.max_pool2d.vjp(y, max_pool) if max_pool else (y, lambda dy: (dy,))
    np.testing.assert_array_equal(found, pooled)
    dy = np.random.default_rng(seed + 1).standard_normal(found.shape).astype(dtype)
    dx, dw, db = pullback(place(dy))
    (dy,) = unpool(dy)
    if activation:
        dy = np.where(y <= 0, np.zeros((), dtype), dy)
    assert found.dtype == dx.dtype == dw.dtype == dtype
    assert_rounded(dx, exact.input_gradient(dy), *spread.input_gradient(dy))
    assert_rounded(dw, exact.weight_gradient(dy), *spread.weight_gradient(dy))
    if b is None:
        assert db is None
    else:
        assert db.dtype == dtype
        squares = np.sum(np.square(dy, dtype="f8"), axis=(0, 2, 3))
        total = np.sum(dy, axis=(0, 2, 3), dtype="f8")
        assert_rounded(db, total, np.sqrt(squares), dy[:, 0].size)
