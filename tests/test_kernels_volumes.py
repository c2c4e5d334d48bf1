"""The algorithms for volumes as they lie, against a plain reference in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import agnostic_xent as ax

pytest.importorskip("numba")

from convolution_case import RELU, Reference, assert_rounded
from convolution_spread import DirectSpread, WinogradSpread

from agnostic_xent.kernels.cpu.conv import (
    convolution,
    volume_direct_plans,
    volume_plans,
    volumes,
    winograd_plans,
)
from agnostic_xent.kernels.cpu.toolchain import memory

PLANS = {"winograd": volume_plans, "direct": volume_direct_plans}


class Volumes(NamedTuple):
    """Shapes and options of a convolution of volumes: padding and dilation of the depth apart."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    depth: tuple[int, int] = (1, 1)
    apart: int = 1
    stride: Any = 1
    padding: Any = ((1, 1), (1, 1))
    groups: int = 1
    relu: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of conv3d."""
        strides = self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)
        one = {"stride": (1, *strides), "padding": (self.depth, *self.padding)}
        one |= {"dilation": (self.apart, 1, 1), "groups": self.groups}
        return one | (RELU if self.relu else {})


CASES = [
    Volumes((1, 1, 1, 1, 1), (1, 1, 1, 3, 3), depth=(0, 0)),
    *(Volumes((2, 3, n, 7, 9), (4, 3, 3, 3, 3), relu=n % 2 == 0) for n in (1, 2, 3, 5, 17)),
    *(Volumes((1, 3, 6, 5, 6), (4, 3, kd, 3, 3), depth=(kd // 2, 1)) for kd in (1, 2, 4, 5, 7)),
    *(Volumes((2, 2, 4, 8, h), (3, 2, 3, 3, 3), padding=((2, 0), (0, 2))) for h in (3, 4, 5, 33)),
    *(Volumes((1, c, 3, 6, 10), (5, c, 2, 3, 3), depth=(1, 0)) for c in (15, 16, 17, 33)),
    *(Volumes((1, 5, 3, 6, 10), (k, 5, 3, 3, 3), relu=True) for k in (16, 17, 48, 64, 65)),
    Volumes((2, 3, 5, 6, 7), (4, 3, 2, 3, 3), depth=(4, 0)),  # outputs that meet no plane
    Volumes((2, 3, 9, 6, 7), (4, 3, 3, 3, 3), depth=(2, 3), apart=2),
    Volumes((2, 3, 4, 6, 7), (4, 3, 2, 3, 3), depth=(0, 9), apart=5),
    Volumes((3, 12, 4, 9, 10), (9, 4, 3, 3, 3), groups=3, relu=True),
    Volumes((1, 40, 10, 20, 40), (70, 40, 3, 3, 3)),  # planes have several blocks
    Volumes((1, 20, 1, 8, 8), (300, 20, 1, 3, 3), depth=(0, 0)),  # threads share out the filters
]
DIRECT = [
    Volumes((2, 3, 4, 6, 7), (4, 3, 2, 1, 1), depth=(0, 1), padding=((0, 0), (0, 0))),
    Volumes((2, 3, 4, 9, 20), (9, 3, 2, 4, 5), padding=((3, 0), (0, 4)), relu=True),
    Volumes((2, 3, 4, 11, 19), (6, 3, 3, 2, 3), stride=(2, 3), apart=2, depth=(2, 2)),
    Volumes((2, 5, 4, 9, 17), (17, 5, 3, 3, 3), stride=2, relu=True),
    Volumes((1, 9, 7, 40, 64), (5, 9, 3, 5, 5), padding=((2, 2), (2, 2))),  # more than a band
    Volumes((3, 6, 3, 5, 37), (6, 1, 2, 3, 3), groups=6, relu=True),
]


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Have NaN stand in every work space and result that is not written to."""

    def poisoned(shape, dtype):
        x = np.empty(shape, dtype)
        x.view(np.uint8)[...] = 255
        return x

    for module in (*PLANS.values(), winograd_plans, memory):
        monkeypatch.setattr(module, "empty", poisoned)


@pytest.fixture(params=PLANS)
def algorithm(request, monkeypatch):
    """Have one algorithm run whatever the rule says."""
    plans = PLANS[request.param]

    def chosen(geometry, depth, dtype, direct):
        assert plans.applies(geometry, depth, dtype)
        return volumes.Way(plans, geometry, depth)

    monkeypatch.setattr(volumes, "fastest_way", chosen)
    monkeypatch.setattr(volumes, "idle_axes", lambda window, options: None)
    return request.param


class Planes:
    """The convolution of the planes that windows meet, with the channels of all of them."""

    def __init__(self, case: Volumes, x: Any, w: Any, spread: Any):
        (n, c, size, *_), (k, _, self.taps, *window) = x.shape, w.shape
        self.case, self.x_shape, self.w_shape = case, x.shape, w.shape
        outputs = size + sum(case.depth) - (self.taps - 1) * case.apart
        met = np.arange(outputs)[:, None] + np.arange(self.taps) * case.apart - case.depth[0]
        self.met, self.inside = np.clip(met, 0, size - 1), (met >= 0) & (met < size)
        x = x[:, :, self.met] * self.inside[..., None, None]  # (N, C, OD, KD, H, W)
        images = np.swapaxes(x, 1, 2).reshape(n * outputs, c * self.taps, *x.shape[-2:])
        options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
        arrays = images, w.reshape(k, -1, *window), options
        self.exact, self.spread = Reference(*arrays), spread(*arrays)

    def volumes(self, y: Any) -> Any:
        """Return outputs of images as those of volumes."""
        return np.swapaxes(y.reshape(self.x_shape[0], -1, *y.shape[1:]), 1, 2)

    def images(self, dy: Any) -> Any:
        """Return cotangents of volumes as those of images."""
        return np.swapaxes(dy, 1, 2).reshape(-1, dy.shape[1], *dy.shape[3:])

    def scattered(self, images: Any) -> Any:
        """Return volumes that images are added up to."""
        n, c, *_ = self.x_shape
        images = images.reshape(n, -1, c, self.taps, *images.shape[-2:])
        x = np.zeros(self.x_shape)
        for output, tap in np.argwhere(self.inside):
            x[:, :, self.met[output, tap]] += images[:, output, :, tap]
        return x


SPREADS = {"winograd": WinogradSpread, "direct": DirectSpread}


def check(case: Volumes, algorithm: str, dtype: Any = "f4", seed: int = 0) -> None:
    """Check value and gradients of the kernel that runs."""
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (case.x, case.w, case.w[:1]))
    planes = Planes(case, x, w, SPREADS[algorithm])
    with ax.kernels("require"):
        y, pullback = ax.conv3d.vjp(x, w, b, **case.options)
    value, (spread, terms) = planes.volumes(planes.exact.value(b)), planes.spread.value(b)
    value = np.maximum(value, 0) if case.relu else value
    assert_rounded(y, value, planes.volumes(spread), terms)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx, dw, db = pullback(dy)
    dy = planes.images(np.where(y <= 0, np.zeros((), dtype), dy) if case.relu else dy)
    assert dx.dtype == dw.dtype == y.dtype == dtype
    spread, terms = planes.spread.input_gradient(dy)
    spread = np.sqrt(planes.scattered(spread**2))
    expected = planes.scattered(planes.exact.input_gradient(dy))
    assert_rounded(dx, expected, spread, terms * planes.taps)
    spread, terms = planes.spread.weight_gradient(dy)
    expected = planes.exact.weight_gradient(dy).reshape(case.w)
    assert_rounded(dw, expected, spread.reshape(case.w), terms)
    assert_rounded(db, dy.sum(axis=(0, 2, 3), dtype="f8"), abs(dy).sum(axis=(0, 2, 3)), 1)


def shapes(case: Volumes) -> str:
    return f"{case.x}*{case.w}".replace(" ", "")


@pytest.mark.parametrize("case", CASES, ids=shapes)
def test_values_and_gradients(algorithm, case):
    check(case, algorithm)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("case", DIRECT, ids=shapes)
@pytest.mark.parametrize("algorithm", ["direct"], indirect=True)
def test_all_windows(algorithm, case, dtype):
    check(case, algorithm, dtype)


@pytest.mark.parametrize("seed", range(20))
def test_random_volumes(algorithm, seed):
    rng = np.random.default_rng(seed)

    def one(*values):
        return int(rng.choice(values))

    groups, taps, apart = one(1, 1, 2), one(1, 2, 3, 4), one(1, 1, 2)
    stride = one(1, 2) if algorithm == "direct" else 1
    front = one(*range(4)), one(*range(4))
    size = max(one(*range(1, 12)), (taps - 1) * apart + 1 - sum(front))
    margins = tuple((one(1, 2), one(1, 2)) for _ in "hw")
    x = (one(1, 2, 5), groups * one(1, 2, 16, 17), size, one(*range(2, 14)), one(*range(2, 20)))
    w = (groups * one(1, 3, 16, 40), x[1] // groups, taps, 3, 3)
    case = Volumes(x, w, front, apart, stride, margins, groups, one(0, 1) == 1)
    check(case, algorithm, seed=seed)


def test_weight_gradients_of_pieces_of_a_batch(monkeypatch, algorithm):
    case = Volumes((5, 3, 4, 6, 7), (4, 3, 3, 3, 3))
    monkeypatch.setattr(convolution, "MOST_IMAGES", 2)
    check(case, algorithm)
    monkeypatch.setattr(convolution, "MOST_PIXELS", 1)
    check(case, algorithm)


def test_which_one_runs():
    x, w = np.ones((2, 32, 6, 16, 16), "f4"), np.ones((32, 32, 3, 3, 3), "f4")
    fast = "Winograd F(4x4, 3x3) of planes, summed in depth"
    direct, product = "direct, of the planes that a window meets", "implicit product of planes"
    assert fast in ax.explain(ax.conv3d, x, w, padding=1)
    assert product in ax.explain(ax.conv3d, x, w, padding=1, stride=2)
    assert direct in ax.explain(ax.conv3d, x[:, :3], w[:16, :3], padding=1)
    assert fast not in ax.explain(ax.conv3d, x.astype("f8"), w.astype("f8"), padding=1)
    with ax.kernels("direct"):
        assert direct in ax.explain(ax.conv3d, x, w, padding=1)
        assert "direct of planes" in ax.explain(ax.conv3d, x, w, stride=2)


@pytest.mark.parametrize("wrt", [(0,), (1,), (2,), (0, 1, 2)])
def test_only_what_is_asked_for(wrt):
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(s).astype("f4") for s in [(1, 32, 4, 16, 16), (32, 32, 3, 3, 3), (32,)]
    ]
    y, pullback = ax.conv3d.vjp(*arrays, wrt=wrt, padding=1, activation="relu")
    assert [i for i, gradient in enumerate(pullback(y)) if gradient is not None] == list(wrt)
