"""The CUDA kernels of the pools against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import avg_pool2d, explain, global_avg_pool2d, kernels, max_pool2d
from agnostic_xent.kernels.cuda import pool
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

WINDOWS = [
    ((2, 3, 6, 8), {"window": 2}),
    ((1, 1, 1, 1), {"window": 1}),
    ((1, 2, 7, 5), {"window": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 1))}),
    ((2, 1, 9, 9), {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((1, 2, 8, 7), {"window": (2, 3), "stride": 1}),
    ((1, 1, 7, 11), {"window": 2, "stride": (3, 4), "ceil_mode": True}),
    ((1, 3, 5, 5), {"window": 5}),
    ((2, 2, 5, 4), {"window": 3, "padding": 2, "stride": 1}),
    ((3, 1, 2, 2), {"window": 4, "padding": 2, "stride": 3}),
]
DILATED = [
    ((1, 2, 9, 8), {"window": (2, 3), "dilation": (3, 2), "stride": 1}),
    ((1, 1, 3, 4), {"window": 2, "dilation": 4, "padding": 2, "stride": 1}),  # of no pixel
]


def draw(shape, dtype="float32"):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.round(x, 0 if x.size % 2 else 1)  # some maxima are equal


def vjps(operation, x, options, place=lambda x: x):
    """Return value and gradient of the kernels, and of the definition in float64."""
    with kernels("portable"):
        expected, exact = operation.vjp(x.astype("float64"), **options)
    dy = np.random.default_rng(1).standard_normal(expected.shape).astype(x.dtype)
    with kernels("require"):
        assert "CUDA" in explain(operation, place(x), **options)
        y, pullback = operation.vjp(place(x), **options)
        (dx,) = pullback(place(dy))
        np.testing.assert_array_equal(y, operation(place(x), **options))
    assert y.dtype == dx.dtype == x.dtype
    return (y, dx), (expected, exact(dy.astype("float64"))[0])


def check(operation, x, options, place=lambda x: x):
    dtype = str(x.dtype)
    for one, other in zip(*vjps(operation, x, options, place), strict=True):
        assert_close(one, other, dtype, terms=x.shape[2] * x.shape[3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "options"), [*WINDOWS, *DILATED], ids=str)
def test_maximum(shape, options, dtype):
    x = draw(shape, dtype)
    check(max_pool2d, x, options)
    (y, _), (expected, _) = vjps(max_pool2d, x, options)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("shape", "options"), WINDOWS, ids=str)
def test_mean(shape, options, count_include_pad, dtype):
    check(avg_pool2d, draw(shape, dtype), options | {"count_include_pad": count_include_pad})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 7), (1, 2, 25, 41)], ids=str)
def test_mean_of_planes(shape, dtype):
    check(global_avg_pool2d, draw(shape, dtype), {})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    unit = 2.0**-9 if dtype == "float16" else 2.0**-6  # a sum is rounded once, and a share
    x = draw((2, 3, 5, 6)).astype(dtype)
    for operation, options in (
        (max_pool2d, {"window": 3, "stride": 1}),
        (avg_pool2d, {"window": 3, "stride": 2, "padding": 1}),
        (global_avg_pool2d, {}),
    ):
        for one, other in zip(*vjps(operation, x, options), strict=True):
            error = np.abs(one.astype("float64") - other)
            assert np.all(error <= unit * (np.abs(other) + 2.0**-6))


@pytest.mark.parametrize("options", [{"window": 2}, {"window": 3, "stride": 1, "padding": 1}])
def test_nan_and_infinity(options):
    x = draw((1, 2, 6, 6))
    x[0, 0, 0, 0], x[0, 0, 1, 1], x[0, 0, 2, 2] = np.nan, np.nan, np.inf
    x[0, 1, :3, :3] = -np.inf
    for operation in (max_pool2d, avg_pool2d):
        found, expected = vjps(operation, x, options)
        np.testing.assert_allclose(found[0], expected[0], rtol=2.0**-20, atol=2.0**-20)
        assert_close(found[1], expected[1], "float32", terms=9)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "place", [read_only, np.asfortranarray, lambda x: np.repeat(x, 2, axis=-1)[..., ::2]]
)
def test_arrays_lie_anywhere(place):
    check(max_pool2d, *WINDOWS_ARRAY, place=place)
    check(avg_pool2d, *WINDOWS_ARRAY, place=place)
    check(global_avg_pool2d, WINDOWS_ARRAY[0], {}, place=place)


WINDOWS_ARRAY = draw(WINDOWS[2][0]), WINDOWS[2][1]


def test_what_is_left_to_the_portable_definition():
    with kernels("require"):
        y, pullback = max_pool2d.vjp(np.ones((1, 1, 16, 16), "f4"), 16)  # taps past a byte
        assert float(pullback(y)[0][0, 0, 0, 0]) == 1
    one, margins = (1, 1), ((0, 0), (0, 0))
    for shape in ((1, 1, 1 << 15, 1 << 15), (1 << 20, 1 << 15, 8, 8)):
        x = np.broadcast_to(np.float32(0), shape)
        assert not pool.fits(x, window=one, stride=one, padding=margins)


# --- mistakes are caught --------------------------------------------------------------------------

MISTAKES = {
    "the last maximum": ("wins = pixel > best", "wins = pixel >= best", max_pool2d, 0),
    "a row too few": ("if h >= 0 and h < height", "if h > 0 and h < height", max_pool2d, 2),
    "a column too many": ("w >= 0 and w < width", "w >= 0 and w <= width", avg_pool2d, 2),
    "a tap's number": ("== u * across + v", "== u + v", max_pool2d, 2),
    "a window too many": ("p // stride < windows", "p // stride <= windows", avg_pool2d, 4),
    "taps between windows": ("p % stride == 0", "True", max_pool2d, 5),
    "padding back": ("h + top - u", "h - u", avg_pool2d, 2),
    "columns in place of rows": ("row * columns + column", "row * rows + column", avg_pool2d, 2),
    "what padding counts": ("- max(start, first)", "- start", avg_pool2d, 2),
    "the far side": ("min(start + taps, end)", "start + taps", avg_pool2d, 3),
    "a plane too many": ("min(plane, planes - 1)", "plane", global_avg_pool2d, 2),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new, operation, number = MISTAKES[mistake]
    plant(monkeypatch, pool, old, new)
    shape, options = WINDOWS[number]
    options = {} if operation is global_avg_pool2d else dict(options)
    if operation is avg_pool2d:
        options["count_include_pad"] = False
    with pytest.raises((AssertionError, IndexError)):
        check(operation, draw(shape), options)


def test_variants_are_all_kernels():
    check(max_pool2d, *WINDOWS_ARRAY)
    known = {(k.function.__qualname__, k.parameters) for k in pool.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == pool.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
