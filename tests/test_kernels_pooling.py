"""The CPU kernels of the pools against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.pool import pooling
from agnostic_xent.kernels.cpu.pool import windows as pool_windows
from agnostic_xent.kernels.cpu.simd.vectors import lanes_of

CASES = [  # shape, window, options
    ((1, 1, 1, 1), 1, {}),
    ((2, 3, 28, 28), 2, {}),
    ((2, 3, 29, 31), 2, {}),
    ((3, 2, 7, 5), 2, {"padding": 1}),
    ((1, 2, 2, 70), 2, {"ceil_mode": True}),
    ((2, 2, 13, 17), 2, {"ceil_mode": True, "padding": ((0, 1), (1, 0))}),
    ((2, 3, 15, 37), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 9, 33), 3, {"stride": 1, "padding": 1}),
    ((2, 1, 6, 33), 3, {"stride": 1, "padding": 2}),
    ((1, 2, 6, 40), (4, 3), {"stride": 2, "padding": ((3, 3), (2, 0))}),
    ((2, 1, 11, 50), 3, {}),
    ((1, 2, 12, 19), (5, 2), {"stride": (1, 4), "padding": (2, 1)}),
    ((1, 1, 6, 97), (1, 7), {"stride": (2, 5), "padding": (0, 3), "ceil_mode": True}),
    ((2, 2, 19, 19), 17, {"stride": 1}),
    ((1, 1, 257, 1), (257, 1), {"padding": (128, 0)}),
    ((64, 5, 14, 14), 2, {}),
    ((40, 7, 13, 12), 3, {"stride": 2, "padding": 1}),
    ((3, 1, 150, 151), 4, {"stride": 3}),
    ((2, 3, 28, 28), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 6, 70), 3, {"stride": 2, "padding": 1}),
    ((41, 3, 8, 8), 3, {"stride": 2, "padding": 1}),
    ((41, 3, 8, 8), 2, {}),
    ((5, 7, 6, 4), 2, {}),
    ((3, 1, 10, 16), 2, {}),
    ((64, 5, 8, 8), 2, {"ceil_mode": True}),
]
DILATED = [
    ((2, 2, 12, 40), 3, {"stride": 1, "dilation": 2, "padding": 2}),
    ((1, 3, 21, 20), (2, 3), {"stride": 2, "dilation": (5, 3), "padding": (1, 2)}),
    ((1, 1, 1, 3), 2, {"stride": 1, "dilation": 3, "padding": 2}),  # windows without a pixel
]


def images(shape, dtype="float32", seed=0, values=None):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) if values is None else rng.choice(values, shape)
    return x.astype(dtype)


def check(operation, x, *args, terms=32, **options):
    """Compare value and gradient with the portable definition in float64."""
    with ax.kernels("portable"):
        expected, back = operation.vjp(x.astype("float64"), *args, **options)
    dy = images(expected.shape, x.dtype, seed=1)
    slope = back(dy.astype("float64"))[0]
    before = x.copy()
    with ax.kernels("require"):
        y, back = operation.vjp(x, *args, **options)
        np.testing.assert_array_equal(operation(x, *args, **options), y)
    dx = back(dy)[0]
    assert y.dtype == dx.dtype == x.dtype
    np.testing.assert_array_equal(before, x)
    assert_close(y, expected, str(x.dtype), terms)
    assert_close(dx, slope, str(x.dtype), terms)
    return y, dx


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "window", "options"), CASES + DILATED)
def test_max(shape, window, options, dtype):
    for values in (None, [0.0, 1.0, -1.0], [-np.inf, 1.0], [np.nan, -np.inf, np.inf, 2.0]):
        check(ax.max_pool2d, images(shape, dtype, values=values), window, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize(("shape", "window", "options"), CASES)
def test_mean(shape, window, options, count_include_pad, dtype):
    options = options | {"count_include_pad": count_include_pad}
    check(ax.avg_pool2d, images(shape, dtype), window, **options, terms=300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 7), (128, 5, 6, 9), (1, 2, 130, 129)])
def test_mean_of_all_pixels(shape, dtype):
    check(ax.global_avg_pool2d, images(shape, dtype), terms=128)


def test_all_classes_of_windows_are_met(monkeypatch):
    met, right = set(), pooling.windows

    def noted(*args, **options):
        w, outputs = right(*args, **options)
        met.add(type(w))
        return w, outputs

    monkeypatch.setattr(pooling, "windows", noted)
    for shape, window, options in CASES:
        ax.max_pool2d(images(shape), window, **options)
    wide = {pool_windows.ShortPairs8, pool_windows.ShortTriples}  # need vectors of 16
    assert met | wide == {pool_windows.Windows, *pool_windows.BY_ROWS}
    assert met >= wide or lanes_of(np.dtype("float32")) < 16


def test_special_values_stay_in_their_window():
    x = images((2, 8, 30, 34))
    x[0, 0, 3, 4], x[1, 7, 29, 33], x[1, 2, 0, 0] = np.nan, np.inf, -np.inf
    check(ax.global_avg_pool2d, x)
    for some in (x, np.ascontiguousarray(x[..., :8, :8])):
        check(ax.max_pool2d, some, 3, stride=2, padding=1)
        check(ax.avg_pool2d, some, 3, stride=2, padding=1)
        check(ax.avg_pool2d, some, 2)


def layouts(x):
    readonly = x.copy()
    readonly.flags.writeable = False
    wide = np.zeros((*x.shape[:3], 2 * x.shape[3]), x.dtype)
    wide[..., ::2] = x
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return readonly, np.asfortranarray(x), wide[..., ::2], np.moveaxis(last, -1, 1), x[::-1][::-1]


@pytest.mark.parametrize("operation", [ax.max_pool2d, ax.avg_pool2d])
def test_layouts_give_the_same_bits(operation):
    x = images((3, 4, 30, 62))
    y, back = operation.vjp(x, 2)
    dy = images(y.shape, seed=1)
    dx = back(dy)[0]
    for other, slope in zip(layouts(x), layouts(dy), strict=True):
        with ax.kernels("require"):
            found, back = operation.vjp(other, 2)
        np.testing.assert_array_equal(found, y)
        np.testing.assert_array_equal(back(slope)[0], dx)


def test_other_byte_orders_run_portably():
    x = images((1, 1, 4, 4)).astype(">f4")
    assert "portable" in ax.explain(ax.max_pool2d, x, 2)
    assert float(ax.max_pool2d(x, 4)[0, 0, 0, 0]) == float(x.max())


def test_a_pullback_can_be_called_again():
    y, back = ax.max_pool2d.vjp(images((2, 8, 32, 32)), 2)
    dy = images(y.shape, seed=1)
    first = back(dy)[0].copy()
    np.testing.assert_array_equal(back(2 * dy)[0], 2 * first)


@pytest.mark.parametrize("field", ["left", "top", "across", "height"])
def test_a_wrong_geometry_is_caught(monkeypatch, field):
    right = pooling.windows

    def wrong(*args, **options):
        w, outputs = right(*args, **options)
        return w._replace(**{field: getattr(w, field) - 1}), outputs

    monkeypatch.setattr(pooling, "windows", wrong)
    with pytest.raises(AssertionError):
        check(ax.max_pool2d, images((2, 3, 15, 15)), 3, stride=2, padding=1)
