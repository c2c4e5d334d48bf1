"""Convolutions to try kernels on, a plain reference in float64, and the check of one against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from oracles import margins, sizes

import agnostic_xent as ax
from agnostic_xent.kernels.cpu.conv import (
    column_plans,
    convolution,
    depthwise_plans,
    direct_plans,
    implicit_plans,
    row_plans,
    winograd_plans,
)

PLANS = {
    "direct": direct_plans,
    "implicit": implicit_plans,
    "winograd": winograd_plans,
    "columns": column_plans,
    "row": row_plans,
    "depthwise": depthwise_plans,
}
GENERAL = "direct", "implicit"
"""Algorithms for every geometry and dtype."""

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
    monkeypatch.setattr(convolution, "algorithm", lambda geometry, dtype, direction: PLANS[name])


DIRECT = [
    case((1, 1, 1, 1), (1, 1, 1, 1)),
    case((2, 3, 7, 5), (4, 3, 1, 1), bias=False, **RELU),
    case((1, 5, 40, 50), (7, 5, 1, 1), **BOTH),  # several rows are taken for one
    case((2, 9, 7, 7), (13, 9, 1, 1), **RELU),
    case((3, 40, 23, 27), (16, 20, 1, 1), groups=2, **POOL),  # more pixels than are summed at once
    case((9, 8, 8, 8), (64, 8, 1, 1), bias=False),
    case((2, 2, 41, 3), (3, 2, 1, 1), stride=2),
    case((2, 3, 8, 9), (5, 3, 1, 1), padding=2, stride=(1, 3)),
    *(case((2, 3, 6, 19), (k, 3, 3, 3), padding=1) for k in (2, 3, 6, 7, 9, 12, 13, 17)),
    *(case((1, 2, 4, w), (6, 2, 3, 3), padding="same", **BOTH) for w in (15, 16, 17, 31, 33, 65)),
    case((2, 3, 11, 13), (6, 3, 2, 2), stride=2),
    case((2, 3, 11, 12), (6, 3, 2, 4), padding="same", stride=(2, 3), **POOL),
    case((3, 2, 13, 37), (4, 2, 5, 3), stride=(3, 2), padding=((0, 3), (4, 1))),
    case((2, 2, 5, 4), (3, 2, 3, 3), padding=((7, 0), (0, 6))),  # outputs that meet no pixel
    case((1, 2, 6, 5), (3, 2, 2, 2), padding=5, stride=3),
    case((2, 3, 14, 15), (8, 3, 3, 3), dilation=(2, 3), padding=(2, 4), **RELU),
    case((2, 1, 9, 20), (2, 1, 3, 2), dilation=(3, 5), stride=2, padding=3),
    case((1, 3, 12, 12), (3, 3, 2, 3), dilation=4, stride=3, padding=2),  # pixels without a tap
    case((2, 6, 9, 11), (4, 3, 3, 3), groups=2, padding=1, **BOTH),
    case((2, 7, 9, 35), (7, 1, 3, 3), groups=7, padding=1, **RELU),
    case((3, 5, 10, 8), (10, 1, 5, 5), groups=5, padding=2, stride=2),
    case((1, 1, 1, 70), (3, 1, 1, 7), padding=(0, 3)),
    case((1, 1, 70, 1), (3, 1, 7, 1), padding=(3, 0)),
    case((19, 2, 3, 2), (1, 2, 3, 2)),
    case((1, 64, 20, 64), (8, 64, 3, 3), padding=1),  # more than a band
    case((2, 3, 23, 300), (9, 3, 7, 7), padding=3, stride=2, **BOTH),
]
IMPLICIT = [
    *(case((2, 7, 5, 6), (k, 7, 3, 3), padding=1, **RELU) for k in (16, 17, 33, 48, 64, 65, 80)),
    *(case((3, c, 6, 5), (4, c, 3, 3), padding=1) for c in (11, 32, 49, 66)),
    case((17, 5, 7, 7), (20, 5, 3, 3), padding=1, **BOTH),  # units of several images, and a rest
    case((65, 3, 4, 5), (3, 3, 2, 2), stride=2),
    case((1, 40, 5, 5), (520, 40, 1, 3), padding=1),  # the threads share out the filters
    case((1, 300, 3, 3), (70, 300, 3, 3), padding=1),
    case((1, 19, 3, 290), (65, 19, 1, 5), padding=(0, 2), **RELU),
    case((2, 5, 1, 500), (20, 5, 1, 4), stride=(1, 2), padding=(0, 1)),  # units of parts of a row
    case((1, 6, 5, 410), (9, 6, 3, 2), **RELU),
    case((2, 3, 17, 18), (5, 3, 2, 3), stride=(4, 5), padding=1),  # rows that no window meets
    case((2, 3, 17, 18), (20, 3, 1, 1), stride=3),
    case((3, 3, 16, 16), (48, 3, 4, 4), stride=4),
    case((3, 12, 9, 10), (51, 4, 3, 3), groups=3, stride=2, padding=1, **BOTH),
    # rows with taps of their own: some with none, some far apart
    case((31, 5, 4, 3), (18, 5, 3, 2), padding=1, **RELU),
    case((2, 6, 5, 5), (8, 3, 3, 3), groups=2, padding=2, dilation=2, **BOTH),
    case((3, 4, 5, 9), (5, 4, 2, 3), padding=(4, 0), dilation=(3, 1)),
    case((2, 70, 7, 8), (19, 70, 5, 5), **RELU),
    case((5, 3, 7, 6), (4, 3, 5, 3), padding=2, stride=(2, 1)),
    case((1, 32, 32, 32), (32, 32, 3, 3), padding=1, **RELU),  # planes that meet in one set
    case((2, 33, 12, 16), (40, 33, 1, 1), **RELU),  # as many rows as fill a unit are taken for one
]
DEPTHWISE = [
    *(
        case((2, 17, 6, w), (17, 1, 3, k), groups=17, padding=(1, k // 2), **RELU)
        for w, k in ((9, 5), (13, 7), (3, 3), (20, 5), (11, 4))
    ),
    case((1, 2, 1, 1), (2, 1, 1, 1), groups=2),
    case((2, 7, 9, 35), (7, 1, 3, 3), groups=7, padding=1, **RELU),
    case((2, 16, 33, 17), (16, 1, 3, 3), groups=16, padding=1, **BOTH),
    *(case((1, 3, 9, w), (3, 1, 3, 3), groups=3, padding=1) for w in (15, 16, 17, 31, 33, 65)),
    *(case((2, 19, h, 8), (19, 1, 3, 3), groups=19, padding=1, **RELU) for h in (1, 7, 8, 17, 35)),
    *(case((3, 21, n, n), (21, 1, 3, 3), groups=21, padding=1, stride=2) for n in (1, 2, 5, 8, 9)),
    case((1, 3, 1, 70), (3, 1, 1, 7), groups=3, padding=(0, 3)),
    case((1, 3, 70, 1), (3, 1, 7, 1), groups=3, padding=(3, 0)),
    case((2, 17, 1, 6), (17, 1, 1, 3), groups=17, padding=(0, 1), **RELU),
    case((3, 5, 10, 8), (5, 1, 5, 5), groups=5, padding=2, stride=2, **POOL),
    case((2, 33, 4, 3), (33, 1, 7, 7), groups=33, padding=((3, 4), (5, 2))),  # larger than images
    case((2, 3, 4, 37), (3, 1, 7, 7), groups=3, padding=((6, 1), (0, 5)), stride=(1, 2)),
    case((2, 4, 5, 4), (4, 1, 3, 3), groups=4, padding=((7, 0), (0, 6))),  # outputs without pixels
    case((2, 20, 5, 4), (20, 1, 3, 3), groups=20, padding=((7, 0), (0, 6)), **RELU),
    case((3, 2, 13, 37), (2, 1, 5, 3), groups=2, stride=(2, 1), padding=((0, 3), (4, 1))),
    case((2, 3, 23, 60), (3, 1, 3, 3), groups=3, dilation=(2, 3), padding=(2, 4), **RELU),
    case((2, 18, 13, 9), (18, 1, 3, 2), groups=18, dilation=(3, 2), stride=2, padding=3),
    case((1, 3, 40, 44), (3, 1, 3, 3), groups=3, dilation=4, stride=(2, 1), padding=1),
    case((1, 17, 12, 12), (17, 1, 2, 1), groups=17, stride=2),  # pixels without a tap
    case((1, 2, 50, 300), (2, 1, 7, 7), groups=2, padding=3, **BOTH),
]
WINOGRAD = [
    case((1, 32, 32, 32), (32, 32, 3, 3), padding=1, **RELU),  # planes that meet in one set
    case((1, 1, 1, 1), (1, 1, 3, 3), padding=1),
    case((1, 1, 3, 3), (1, 1, 3, 3)),
    *(case((2, 3, h, w), (4, 3, 3, 3), padding=1) for h, w in [(2, 3), (4, 4), (5, 7), (8, 6)]),
    *(case((1, 2, n, 9), (3, 2, 3, 3), padding=1, **BOTH) for n in (2, 3, 5, 6, 7)),
    *(case((1, 2, 9, n), (3, 2, 3, 3), padding=1, **POOL) for n in (2, 3, 5, 6, 7)),
    *(case((2, c, 6, 10), (5, c, 3, 3), padding=1, **RELU) for c in (15, 16, 17, 33)),
    *(case((2, 5, 6, 10), (k, 5, 3, 3), padding=1, **BOTH) for k in (16, 17, 32, 48, 64, 65, 96)),
    case((2, 16, 12, 12), (128, 16, 3, 3), padding=1, **RELU),
    *(
        case((2, 4, 11, 7), (6, 4, 3, 3), padding=((top, 2 - top), (left, 2)), **BOTH)
        for top in (0, 1, 2)
        for left in (0, 1, 2)
    ),
    case((2, 12, 9, 10), (9, 4, 3, 3), groups=3, padding=1, **BOTH),
    case((3, 4, 13, 5), (4, 1, 3, 3), groups=4, padding=1, bias=False),
    case((17, 3, 5, 3), (2, 3, 3, 3)),
    case((1, 96, 9, 13), (97, 96, 3, 3), padding=1, **BOTH),  # the threads share out the points
    case((3, 100, 34, 33), (100, 100, 3, 3), padding=1),
    case((1, 3, 5, 1030), (5, 3, 3, 3), padding=1, **BOTH),  # more tiles than DEPTH in a row
    case((3, 32, 30, 31), (64, 32, 3, 3), padding=1, **BOTH),
    # stride 2
    *(case((2, 3, n, n), (4, 3, 3, 3), padding=1, stride=2) for n in (1, 2, 3, 7, 8, 9, 15, 16)),
    *(case((2, 5, 9, n), (17, 5, 3, 3), padding=1, stride=2, **BOTH) for n in (17, 18, 19, 31)),
    case((2, 4, 11, 13), (6, 4, 3, 3), padding=((1, 0), (1, 0)), stride=2, **RELU),
    case((2, 4, 12, 14), (6, 4, 3, 3), padding=((1, 0), (1, 0)), stride=2, **POOL),
    case((3, 12, 18, 11), (9, 4, 3, 3), groups=3, padding=1, stride=2, **BOTH),
    case((3, 64, 17, 33), (100, 64, 3, 3), padding=1, stride=2),  # the threads share the points
]
COLUMNS = [
    case((1, 1, 1, 1), (1, 1, 3, 3), padding=1),
    *(case((2, 3, 13, 14), (5, 3, kh, 3), padding=1, **RELU) for kh in range(3, 8)),
    *(case((2, 3, 13, 14), (5, 3, kh, 3), padding=2, stride=2) for kh in (5, 6, 7, 8, 13)),
    *(case((2, 3, n, 9), (4, 3, 5, 5), padding=2, **BOTH) for n in (2, 3, 4, 5, 7, 8, 9)),
    *(case((2, 3, 9, n), (4, 3, 5, 4), padding=2, **POOL) for n in (15, 16, 17, 29, 30, 33)),
    *(case((2, 2, 6, 19), (k, 2, 4, 3), padding=1, **RELU) for k in (1, 2, 3, 6, 7, 9, 12, 17)),
    case((2, 3, 23, 300), (9, 3, 7, 7), padding=3, stride=2, **BOTH),
    case((3, 3, 20, 21), (4, 3, 5, 4), stride=(1, 2), padding=((2, 0), (0, 3)), bias=False),
    case((3, 3, 20, 21), (4, 3, 6, 5), stride=(2, 1), padding=((0, 3), (1, 0)), **RELU),
    case((2, 2, 5, 4), (3, 2, 3, 3), padding=((7, 0), (0, 6))),  # outputs that meet no pixel
    case((2, 12, 9, 10), (9, 4, 5, 5), groups=3, padding=2, **BOTH),
    case((3, 5, 10, 8), (10, 1, 5, 5), groups=5, padding=2, stride=2),
    case((1, 1, 70, 1), (3, 1, 7, 1), padding=(3, 0)),
    case((9, 33, 14, 15), (17, 33, 5, 5), padding=2),  # a block has rows of several images
]
ROW = [
    case((1, 1, 1, 1), (1, 1, 1, 3), padding=(0, 1)),
    *(case((3, 5, 1, 40), (7, 5, 1, k), padding=(0, 2), **RELU) for k in (*range(3, 14), 31)),
    *(case((2, 3, 1, n), (5, 3, 1, 5), padding=(0, 2)) for n in (1, 3, 4, 5, 8, 9)),
    *(case((2, 3, 1, 50), (k, 3, 1, 3), padding=(0, 1), **RELU) for k in (16, 17, 33, 64, 65)),
    *(case((2, c, 1, 30), (4, c, 1, 7), padding=(0, 3)) for c in (15, 16, 17, 33)),
    *(case((2, 3, 1, n), (5, 3, 1, 4), padding=((0, 0), (9, 0))) for n in (6, 40)),
    case((2, 3, 1, 6), (5, 3, 1, 4), padding=((0, 0), (0, 9)), bias=False),
    case((9, 17, 1, 13), (20, 17, 1, 9), padding=(0, 4), **RELU),  # a block has several signals
    case((1, 3, 1, 1000), (5, 3, 1, 3)),  # a signal has several blocks
    case((1, 20, 1, 900), (5, 20, 1, 40), padding=((0, 0), (7, 30))),
    case((1, 20, 1, 20), (300, 20, 1, 3)),  # the threads share out the filters
    case((2, 5, 1, 100), (6, 5, 1, 3), dilation=8, padding=(0, 8), **RELU),
    case((5, 5, 1, 90), (6, 5, 1, 9), dilation=4, padding=(0, 5)),
    case((2, 5, 1, 9), (6, 5, 1, 3), dilation=20, padding=(0, 30)),
    *(case((3, 5, 1, 41), (7, 5, 1, k), stride=(1, 2), padding=(0, 2)) for k in (5, 6, 8, 15, 25)),
    case((3, 6, 1, 70), (9, 2, 1, 5), groups=3, padding=(0, 1), **RELU),
]


# --- the formula, a tap after another -------------------------------------------------------------


class Reference:
    """A convolution and its two adjoints in float64."""

    def __init__(self, x: Any, w: Any, options: dict[str, Any]):
        self.groups = options.get("groups", 1)
        self.window, self.image = w.shape[2:], x.shape[2:]
        self.stride, self.dilation = (sizes(options.get(k, 1), 2) for k in ("stride", "dilation"))
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
