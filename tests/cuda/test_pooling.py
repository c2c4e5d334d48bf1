"""The CUDA kernels of the pools against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import avg_pool2d, explain, global_avg_pool2d, kernels, max_pool2d
from agnostic_xent.kernels.cuda.pool import planes, pooling, tiles, windows
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
KNOWN = [
    ((3, 1, 5, 3), {"window": 2}),  # planes of an odd size, a pixel of no window
    ((1, 2, 9, 7), {"window": 2, "ceil_mode": True}),
    ((2, 1, 17, 2), {"window": 2, "padding": 1}),
    ((1, 2, 3, 6), {"window": 2, "padding": ((0, 1), (1, 0))}),
    ((1, 1, 19, 4), {"window": 3, "stride": 1}),
    ((2, 1, 8, 5), {"window": 3, "stride": 1, "padding": 1}),
    ((1, 1, 1, 1), {"window": 3, "stride": 1, "padding": 1}),
    ((1, 2, 9, 6), {"window": 3, "stride": 1, "padding": ((1, 0), (0, 1))}),
    ((3, 1, 3, 3), {"window": 3, "stride": 2}),
    ((1, 3, 10, 9), {"window": 3, "stride": 2, "padding": 1}),
    ((2, 2, 7, 6), {"window": 3, "stride": 2, "padding": ((1, 0), (0, 1)), "ceil_mode": True}),
]
"""Windows that kernels are compiled for, at the borders of strips and tiles."""

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
@pytest.mark.parametrize(("shape", "options"), [*WINDOWS, *KNOWN, *DILATED], ids=str)
def test_maximum(shape, options, dtype):
    x = draw(shape, dtype)
    check(max_pool2d, x, options)
    (y, _), (expected, _) = vjps(max_pool2d, x, options)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("shape", "options"), [*WINDOWS, *KNOWN], ids=str)
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
    x = np.broadcast_to(np.float32(0), (1, 1, 1 << 15, 1 << 15))
    assert not pooling.fits(x, window=one, stride=one, padding=margins)


@pytest.mark.parametrize("options", [{"window": 2}, {"window": (3, 2)}], ids=str)
def test_planes_of_several_launches(monkeypatch, options):
    x = draw((3, 3, 6, 7))
    once = [vjps(operation, x, options)[0] for operation in (max_pool2d, avg_pool2d)]
    monkeypatch.setattr(pooling, "AT_ONCE", 4 * 6 * 7)
    again = [vjps(operation, x, options)[0] for operation in (max_pool2d, avg_pool2d)]
    np.testing.assert_equal(once, again)


@pytest.mark.parametrize("seed", range(20))
def test_known_windows_are_those_of_any_bit_for_bit(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    size, stride = list(tiles.STRIPS)[seed % len(tiles.STRIPS)]
    margins = tuple(tuple(rng.integers(0, size // 2 + 1, 2).tolist()) for _ in "hw")
    options = {"window": size, "stride": stride, "padding": margins, "ceil_mode": seed % 2 == 0}
    x = draw((1, 2, *rng.integers(size, 20, 2)), ("float32", "float64")[seed % 4 // 2])
    x[rng.random(x.shape) < 0.1] = rng.choice([np.nan, -np.inf, np.inf])
    found = [vjps(operation, x, options)[0] for operation in (max_pool2d, avg_pool2d)]
    monkeypatch.setattr(tiles, "STRIPS", {})
    others = [vjps(operation, x, options)[0] for operation in (max_pool2d, avg_pool2d)]
    np.testing.assert_equal(found, others)


# --- mistakes are caught --------------------------------------------------------------------------

MAX, MEAN, GLOBAL = max_pool2d, avg_pool2d, global_avg_pool2d
NANS, LOWEST = (WINDOWS[3], np.nan), (WINDOWS[3], -np.inf)
"""Cases whose first pixels are of a value."""

MISTAKES = {
    "the last maximum": (windows, "wins = pixel > best", "wins = pixel >= best", MAX, WINDOWS[2]),
    "a row too few": (windows, "h >= 0 and h <", "h > 0 and h <", MAX, WINDOWS[2]),
    "a column too many": (windows, "and w < width", "and w <= width", MEAN, WINDOWS[2]),
    "a tap's number": (windows, "== u * across + v", "== u + v", MAX, WINDOWS[2]),
    "a window too many": (windows, "k < windows", "k <= windows", MEAN, WINDOWS[4]),
    "taps between windows": (windows, "k * stride == p", "True", MAX, WINDOWS[5]),
    "padding back": (windows, "h + top - u", "h - u", MEAN, WINDOWS[2]),
    "columns in place of rows": (
        windows, "row * columns + column", "row * rows + column", MEAN, WINDOWS[2],
    ),
    "what padding counts": (windows, "- max(start, first)", "- start", MEAN, WINDOWS[2]),
    "the far side": (windows, "min(start + taps, end)", "start + taps", MEAN, WINDOWS[3]),
    "a plane too many": (planes, "min(plane, planes - 1)", "plane", GLOBAL, WINDOWS[2]),
    "the last of a strip": (tiles, "not pixel <= best", "not pixel < best", MAX, WINDOWS[0]),
    "NaN is as others": (tiles, " & (best == best)", "", MAX, NANS),
    "padding of a strip": (tiles, "below(w + v, width)", "w + v < width", MAX, WINDOWS[3]),
    "a tap of padding": (tiles, "max(np.int32(-w), np.int32(0))", "0", MAX, LOWEST),
    "a row of padding": (tiles, "np.int32(-(h + k * stride))", "np.int32(0)", MAX, LOWEST),
    "a window below the last": (tiles, "if below(row + k, rows)", "if True", MAX, WINDOWS[0]),
    "a window that is not there": (
        tiles, "below(column - back + b, columns)", "True", MAX, WINDOWS[3],
    ),
    "a tap of a tile": (tiles, "number[i] == tap", "number[i] >= tap", MAX, WINDOWS[0]),
    "a tile's row": (tiles, "if below(h + p, height)", "if h + p < height", MAX, WINDOWS[3]),
    "a pair at an odd place": (tiles, "and line & 1 == 0 ", "", MAX, KNOWN[0]),
    "a pair over the edge": (tiles, "w + 1 < width", "w < width", MAX, KNOWN[0]),
    "shares of a tile": (tiles, "/ kind(count)", "/ kind(size)", MEAN, WINDOWS[3]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, operation, case = MISTAKES[mistake]
    plant(monkeypatch, module, old, new, [windows, planes, tiles, pooling])
    (shape, options), *values = case if case in (NANS, LOWEST) else (case,)
    x = draw(shape)
    for value in values:
        x[..., :3, :3] = value
    options = {} if operation is global_avg_pool2d else dict(options)
    if operation is avg_pool2d:
        options["count_include_pad"] = False
    with pytest.raises((AssertionError, IndexError)):
        check(operation, x, options)


def test_variants_are_all_kernels():
    check(max_pool2d, *WINDOWS_ARRAY)
    check(max_pool2d, draw(KNOWN[0][0]), KNOWN[0][1])
    made = windows.variants() + tiles.variants() + planes.variants()
    known = {(k.function.__qualname__, k.parameters) for k in made}
    package = pooling.__name__.rpartition(".")[0]
    ran = [k for k in KERNELS if k.function.__module__.startswith(f"{package}.")]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
