"""The CPU kernels of conv2d, all algorithms, against a plain reference in float64."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import oracles
import pytest

import agnostic_xent as ax

numba = pytest.importorskip("numba")

from convolution_case import (  # noqa: E402
    BOTH,
    COLUMNS,
    DEPTHWISE,
    DIRECT,
    GENERAL,
    IMPLICIT,
    PLANS,
    POOL,
    RELU,
    WINOGRAD,
    Reference,
    case,
    check,
    use,
)
from convolution_spread import SPREADS  # noqa: E402

from agnostic_xent.kernels.cpu.conv import (  # noqa: E402
    convolution,
    cotangents,
    pointwise_plans,
)
from agnostic_xent.kernels.cpu.toolchain import memory  # noqa: E402


@pytest.fixture(params=["direct", "winograd", "columns"])
def algorithm(request, monkeypatch):
    """Have one algorithm run whatever the rule says."""
    use(monkeypatch, request.param)
    return request.param


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Have NaN stand in every work space and result that is not written to."""
    for module in (*PLANS.values(), pointwise_plans, cotangents, memory):
        monkeypatch.setattr(module, "empty", poisoned)


def poisoned(shape, dtype):
    x = np.empty(shape, dtype)
    x.view(np.uint8)[...] = 255
    return x


# --- values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("follows", [{}, RELU, POOL, BOTH], ids=str)
def test_weight_gradients_of_pieces_of_a_batch(monkeypatch, algorithm, follows):
    monkeypatch.setattr(convolution, "MOST_IMAGES", 2)
    check(case((5, 3, 9, 12), (6, 3, 3, 3), padding=1, **follows), SPREADS[algorithm])
    monkeypatch.setattr(convolution, "MOST_PIXELS", 1)
    check(case((3, 16, 8, 8), (8, 16, 3, 3), padding=1, **follows), SPREADS[algorithm])


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((2, 4, 5, 6), (6, 2, 3, 2), {"groups": 2, "stride": (2, 1), "padding": ((1, 3), (0, 2))}),
        ((1, 2, 7, 6), (3, 2, 2, 3), {"dilation": (3, 2), "padding": 2, "stride": 3}),
    ],
)
def test_the_reference_is_the_formula(x, w, options):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal(x), rng.standard_normal(w), rng.standard_normal(w[0])
    reference = Reference(x, w, options)
    y = reference.value(b)
    np.testing.assert_allclose(y, oracles.conv2d(x, w, b, **options), rtol=0, atol=y.size * 1e-16)
    dy = rng.standard_normal(y.shape)
    product = np.vdot(reference.value(), dy)  # which the adjoints keep
    for gradient, with_ in ((reference.input_gradient(dy), x), (reference.weight_gradient(dy), w)):
        assert np.vdot(gradient, with_) == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("shapes", DIRECT, ids=lambda c: c.id)
def test_all_geometries(monkeypatch, shapes, name, dtype):
    use(monkeypatch, name)
    check(shapes, SPREADS[name], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", IMPLICIT, ids=lambda c: c.id)
def test_implicit(monkeypatch, shapes, dtype):
    use(monkeypatch, "implicit")
    check(shapes, SPREADS["implicit"], dtype)


@pytest.mark.parametrize("shapes", WINOGRAD, ids=lambda c: c.id)
def test_winograd(monkeypatch, shapes):
    use(monkeypatch, "winograd")
    check(shapes, SPREADS["winograd"])


@pytest.mark.parametrize("shapes", COLUMNS, ids=lambda c: c.id)
def test_columns(monkeypatch, shapes):
    use(monkeypatch, "columns")
    check(shapes, SPREADS["columns"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", DEPTHWISE, ids=lambda c: c.id)
def test_depthwise(monkeypatch, shapes, dtype):
    use(monkeypatch, "depthwise")
    check(shapes, SPREADS["depthwise"], dtype)


@pytest.mark.parametrize("seed", range(60))
def test_random_depthwise_shapes(monkeypatch, seed):
    use(monkeypatch, "depthwise")
    rng = np.random.default_rng(seed)
    dtype = "float64" if seed % 3 == 0 else "float32"
    check(random_case(rng, "depthwise"), SPREADS["depthwise"], dtype, seed)


@pytest.mark.parametrize("shapes", WINOGRAD[::5], ids=lambda c: c.id)
def test_direct_where_winograd_might_run(monkeypatch, shapes):
    use(monkeypatch, "direct")
    check(shapes, SPREADS["direct"])


@pytest.mark.parametrize("seed", range(40))
def test_random_shapes(algorithm, seed):
    rng = np.random.default_rng([seed, len(algorithm)])
    dtype = "float64" if algorithm in GENERAL and seed % 3 == 0 else "float32"
    check(random_case(rng, algorithm), SPREADS[algorithm], dtype, seed)


def random_case(rng, algorithm):
    """Return a case that fits the algorithm."""

    def one(*values):
        return int(rng.choice(values))

    groups, n = one(1, 1, 1, 2, 3), one(1, 2, 3, 9)
    c, k = groups * one(1, 2, 3, 5, 16, 17, 40), groups * one(1, 2, 3, 6, 7, 8, 10, 17, 64)
    h, w, most, window = one(*range(1, 20)), one(*range(1, 37)), 2, (3, 3)
    options = {"groups": groups}
    if algorithm in GENERAL:
        most, window = 6, (one(1, 2, 3, 4, 5), one(1, 2, 3, 4, 5))
        options["stride"] = one(1, 1, 2, 3), one(1, 1, 2, 3)
        options["dilation"] = one(1, 1, 2, 3), one(1, 1, 2)
    elif algorithm == "columns":
        options["stride"] = one(1, 1, 2), one(1, 1, 2)
        rows = range(2 * options["stride"][0] + 1, 7 * options["stride"][0] + 1)
        most, window = 6, (one(*rows), one(1, 2, 3, 5))
    elif rng.random() < 0.4:
        options["stride"] = 2
    margin = range(most + 1)
    options["padding"] = (one(*margin), one(*margin)), (one(*margin), one(*margin))
    if algorithm == "winograd" and "stride" in options:
        options["padding"] = (1, one(0, 1)), (1, one(0, 1))
    if algorithm == "depthwise":
        most, window = 6, (one(1, 2, 3, 4, 5, 7), one(1, 2, 3, 4, 5, 7))
        k = c = groups = one(2, 3, 15, 16, 17, 33)
        options = {"groups": groups, "stride": (one(1, 2), one(1, 2))}
        options["dilation"] = one(1, 1, 2, 3, 4), one(1, 1, 2, 3)
        options["padding"] = tuple((one(*range(7)), one(*range(7))) for _ in range(2))
    options |= (RELU if rng.random() < 0.5 else {}) | (POOL if rng.random() < 0.5 else {})
    found = case((n, c, h, w), (k, c // groups, *window), bias=rng.random() < 0.7, **options)
    try:
        ax.conv2d(np.empty((0, *found.x[1:])), np.empty(found.w), **options)
    except ValueError:  # the window does not fit
        return random_case(rng, algorithm)
    return found


def test_no_images(algorithm):
    x, w, b = case((0, 16, 8, 8), (16, 16, 3, 3)).arrays()
    y, pullback = ax.conv2d.vjp(x, w, b, padding=1, **BOTH)
    assert y.shape == (0, 16, 4, 4)
    dx, dw, db = pullback(y)
    assert dx.shape == x.shape
    assert not dw.any()
    assert not db.any()
    assert dw.shape == w.shape


def test_no_filters():
    x, w, b = case((2, 3, 8, 8), (0, 3, 3, 3)).arrays()
    y, pullback = ax.conv2d.vjp(x, w, b)
    assert y.shape == (2, 0, 6, 6)
    assert not pullback(y)[0].any()


# --- layouts --------------------------------------------------------------------------------------


def readonly(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def strided(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1 % x.ndim, -1)), -1, 1 % x.ndim)


def backwards(x):
    return np.ascontiguousarray(x[::-1])[::-1]


LAYOUTS = [readonly, np.asfortranarray, strided, channels_last, backwards]
SOME = {
    "direct": case((3, 4, 10, 18), (6, 4, 3, 3), padding=1, stride=2, **BOTH),
    "implicit": case((3, 4, 10, 18), (6, 4, 3, 3), padding=1, stride=2, **BOTH),
    "winograd": case((3, 4, 10, 18), (6, 4, 3, 3), padding=1, **BOTH),
    "columns": case((3, 4, 10, 18), (6, 4, 5, 3), padding=2, **BOTH),
}


def bits(shapes, place=lambda x: x, wrt=None, dtype="float32"):
    """Return value and gradients of the kernel."""
    with ax.kernels("require"):
        y, pullback = ax.conv2d.vjp(*map(place, shapes.arrays(dtype)), wrt=wrt, **shapes.options)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    return y, *pullback(place(dy))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_bits(algorithm, layout):
    for shapes in (SOME[algorithm], case((2, 5, 8, 9), (7, 5, 3, 3), padding=1, **RELU)):
        for found, expected in zip(bits(shapes, layout), bits(shapes), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.flags.c_contiguous


def test_files_in_memory(algorithm, tmp_path):
    def on_disk(x):
        path = tmp_path / f"{x.size}"
        x.tofile(path)
        return np.memmap(path, x.dtype, "r", shape=x.shape)

    for found, expected in zip(bits(SOME[algorithm], on_disk), bits(SOME[algorithm]), strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)


def test_other_byte_orders_run_portably():
    x, w, b = (a.astype(">f4") for a in SOME["direct"].arrays())
    assert "portable" in ax.explain(ax.conv2d, x, w, b)


def test_arguments_stay_as_they_are(algorithm):
    arrays = SOME[algorithm].arrays()
    before = [a.copy() for a in arrays]
    y, pullback = ax.conv2d.vjp(*arrays, **SOME[algorithm].options)
    dy = np.ones_like(y)
    first = [g.copy() for g in pullback(dy)]
    for again, expected in zip(pullback(dy), first, strict=True):
        np.testing.assert_array_equal(again, expected)
    for array, expected in zip((*arrays, dy), (*before, np.ones_like(y)), strict=True):
        np.testing.assert_array_equal(array, expected)


# --- wanted gradients -----------------------------------------------------------------------------


SUBSETS = list(chain.from_iterable(combinations(range(3), n) for n in range(4)))


@pytest.mark.parametrize("follows", [{}, RELU, BOTH])
@pytest.mark.parametrize("wrt", SUBSETS)
def test_only_wanted_gradients(algorithm, wrt, follows, monkeypatch):
    shapes = case((2, 4, 7, 8), (5, 4, 3, 3), padding=1, **follows)
    expected = bits(shapes)
    for i, name in enumerate(("input_gradient", "weight_gradient")):
        if i not in wrt:
            monkeypatch.setattr(PLANS[algorithm], name, refused)
    found = bits(shapes, wrt=wrt)
    for i, (f, e) in enumerate(zip(found, expected, strict=True)):
        if i == 0 or i - 1 in wrt:
            np.testing.assert_array_equal(f, e)
        else:
            assert f is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shapes",
    [
        case((9, 1, 14, 15), (6, 1, 3, 3), padding=1, **RELU),
        case((8, 4, 7, 8), (6, 2, 3, 3), padding=1, groups=2, stride=2, **RELU),
        case((17, 3, 9, 9), (5, 3, 3, 2), dilation=2, **RELU),
    ],
    ids=str,
)
def test_relu_rides_where_no_input_gradient_is_wanted(shapes, dtype, monkeypatch):
    """Without a masked copy; the bits are those that follow from one."""
    with ax.kernels("direct"):
        expected = bits_with_nan(shapes, dtype, None)
        monkeypatch.setattr(convolution, "through_relu", refused)
        found = bits_with_nan(shapes, dtype, (1, 2))
    assert found[0] is None
    for f, e in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(f, e)


def bits_with_nan(shapes, dtype, wrt):
    """Return gradients where an output is NaN, through which ReLU lets its cotangent."""
    x, w, b = shapes.arrays(dtype)
    x[0, 0, 0, 0] = np.nan
    y, pullback = ax.conv2d.vjp(x, w, b, wrt=wrt, **shapes.options)
    assert np.isnan(y).any()
    return pullback(np.random.default_rng(1).standard_normal(y.shape).astype(dtype))


def refused(*args):
    raise AssertionError("what is not wanted is computed")


# --- special values -------------------------------------------------------------------------------


def whole_numbers(shapes):
    """Return small integers, of which no sum is rounded, with many ties.

    Filters have a tap each, a multiple of 24 * 24 and of 90, so that Winograd's transforms are
    exact too.
    """
    rng = np.random.default_rng(0)
    x, b = (rng.integers(-2, 3, s).astype("f4") for s in (shapes.x, shapes.w[0]))
    w = np.zeros((shapes.w[0] * shapes.w[1], 9), "f4")
    w[np.arange(len(w)), rng.integers(0, 9, len(w))] = 2880 * rng.integers(-2, 3, len(w))
    return x, w.reshape(shapes.w), 2880 * b


@pytest.mark.parametrize("follows", [{}, RELU, POOL, BOTH])
def test_whole_numbers_are_exact(algorithm, follows):
    shapes = case((3, 3, 11, 14), (5, 3, 3, 3), padding=1, **follows)
    arrays = whole_numbers(shapes)
    with ax.kernels("portable"):
        y, pullback = ax.conv2d.vjp(*arrays, **shapes.options)
        dy = np.random.default_rng(1).integers(-2, 3, y.shape).astype("f4")
        expected = y, *pullback(dy)
    with ax.kernels("require"):
        y, pullback = ax.conv2d.vjp(*arrays, **shapes.options)
    dx, dw, db = pullback(dy)
    if algorithm not in GENERAL:
        dw = np.rint(dw)  # is divided by 24 * 24 or 90
    for found, e in zip((y, dx, dw, db), expected, strict=True):
        np.testing.assert_array_equal(found, e)


@pytest.mark.parametrize("follows", [POOL, RELU, BOTH])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_follows_keeps_special_values(algorithm, special, follows):
    """Epilogue and mask are those of the portable definition, on the convolution's own numbers."""
    shapes = case((2, 3, 13, 22), (5, 3, 3, 3), padding=1)
    rng = np.random.default_rng(0)
    x, w, b = whole_numbers(shapes)
    x[rng.random(x.shape) < 0.02] = special
    with ax.kernels("require"):
        y, linear = ax.conv2d.vjp(x, w, b, padding=1)
        found, pullback = ax.conv2d.vjp(x, w, b, padding=1, **follows)
    assert np.isnan(y).any() or np.isinf(y).any()
    with ax.kernels("portable"):
        kept, mask = ax.relu.vjp(y) if "activation" in follows else (y, lambda dy: (dy,))
        expected, unpool = ax.max_pool2d.vjp(kept, 2) if "max_pool" in follows else (kept, tuple1)
        dy = rng.integers(-2, 3, expected.shape).astype("f4")
        slopes = linear(mask(unpool(dy)[0])[0])
    np.testing.assert_array_equal(found, expected)
    for f, e in zip(pullback(dy), slopes, strict=True):
        np.testing.assert_array_equal(f, e)


def tuple1(dy):
    return (dy,)


@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("algorithm", "groups", "shapes"),
    [
        ("direct", 1, case((2, 3, 12, 20), (4, 3, 3, 3))),
        ("implicit", 1, case((2, 3, 12, 20), (4, 3, 3, 3))),
        ("depthwise", 5, case((2, 5, 12, 20), (5, 1, 3, 3))),
        ("depthwise", 17, case((2, 17, 12, 9), (17, 1, 3, 3))),
    ],
)
def test_special_values_spread_no_farther(monkeypatch, algorithm, groups, shapes, special):
    use(monkeypatch, algorithm)
    x, w, b = whole_numbers(shapes)
    w[w == 0] = 2880  # infinity times 0 is NaN, whoever multiplies
    x[1, 2, 5, 7] = special
    for options in ({"padding": 1}, {"stride": 2, "padding": 2}, {"dilation": 3}):
        options |= {"groups": groups}
        with ax.kernels("portable"):
            y, pullback = ax.conv2d.vjp(x, w, b, **options)
        dy = np.ones_like(y)
        dy[0, 1, 2, 2] = special
        with ax.kernels("require"):
            found, of_kernel = ax.conv2d.vjp(x, w, b, **options)
        for f, e in zip((found, *of_kernel(dy)), (y, *pullback(dy)), strict=True):
            np.testing.assert_array_equal(f, e)


def test_columns_spread_special_values_over_tiles_only(monkeypatch):
    use(monkeypatch, "columns")
    x, w, b = case((2, 3, 16, 20), (4, 3, 5, 5)).arrays()
    clean = ax.conv2d(x, w, b, padding=2)
    x[1, 2, 5, 7] = np.nan  # of the tiles in rows 0 to 3 and 4 to 7
    y = ax.conv2d(x, w, b, padding=2)
    touched = np.zeros(y.shape, bool)
    touched[1, :, :8, 5:10] = True
    np.testing.assert_array_equal(y[~touched], clean[~touched])
    assert np.isnan(y[1, :, 3:8, 5:10]).all()  # the pixels whose windows hold it


def test_winograd_spreads_special_values_over_tiles_only(monkeypatch):
    use(monkeypatch, "winograd")
    x, w, b = case((2, 3, 16, 20), (4, 3, 3, 3)).arrays()
    clean = ax.conv2d(x, w, b, padding=1)
    x[1, 2, 5, 7] = np.nan  # of the tiles at (4, 4) and, as a margin, (4, 8)
    y = ax.conv2d(x, w, b, padding=1)
    touched = np.zeros(y.shape, bool)
    touched[1, :, 4:8, 4:12] = True
    np.testing.assert_array_equal(y[~touched], clean[~touched])
    assert np.isnan(y[1, :, 4:7, 6:9]).all()  # the pixels whose windows hold it
