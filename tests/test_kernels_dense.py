"""The CPU kernel of dense, and the products of matrices under it, against float64."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax

pytest.importorskip("numba")

from convolution_case import assert_rounded

from agnostic_xent.kernels.cpu.simd import products as matrices
from agnostic_xent.kernels.cpu.toolchain import memory

SIZES = [  # rows, columns, depth: 1, primes, remainders of the 6 x 64 and 12 x 16 tiles, of 256
    (1, 1, 1), (1, 7, 3), (5, 1, 2), (6, 16, 8), (7, 17, 255), (12, 10, 256), (13, 16, 257),
    (11, 15, 513), (25, 63, 31), (23, 65, 64), (192, 64, 5), (193, 129, 7), (37, 128, 300),
    (401, 3, 2), (2, 1009, 11), (1, 16, 128), (3, 17, 4100), (4, 33, 2049), (2, 5, 2048),
    (4, 8, 16),
]  # fmt: skip
TURNED = [(False, False), (False, True), (True, False), (True, True)]
DTYPES = ["float32", "float64"]


def normal(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def assert_product(found, a, b, bias=None):
    """Compare with the product in float64, rounded a term after another."""
    a, b = a.astype("f8"), b.astype("f8")
    expected, squares = a @ b, a**2 @ b**2
    if bias is not None:
        expected, squares = expected + bias.astype("f8"), squares + bias.astype("f8") ** 2
    assert_rounded(found, expected, np.sqrt(squares), a.shape[-1] + 1)


# --- products -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize(("rows", "columns", "depth"), SIZES)
def test_products(rows, columns, depth, turned, dtype):
    a, b = normal(rows, depth, dtype=dtype), normal(depth, columns, dtype=dtype, seed=1)
    bias = normal(columns, dtype=dtype, seed=2)
    given = [np.ascontiguousarray(m.T) if t else m for m, t in zip((a, b), turned, strict=True)]
    found = matrices.product(*given, turned=turned, bias=bias)
    assert found.dtype == dtype
    assert_product(found, a, b, bias)
    assert_product(matrices.product(*given, turned=turned), a, b)


def test_work_space_may_hold_anything(monkeypatch):
    def poisoned(shape, dtype):
        return np.full(shape, np.nan, dtype)

    for module in (matrices, memory):
        monkeypatch.setattr(module, "empty", poisoned)
    for rows, columns, depth in SIZES:
        for turned in TURNED:
            a, b = normal(rows, depth), normal(depth, columns)
            given = a.T if turned[0] else a, b.T if turned[1] else b
            assert_product(matrices.product(*given, turned=turned), a, b)


@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize("turned", [(False, False), (False, True)])
def test_special_values_stay_in_their_row_and_column(rows, turned):
    def product():
        return matrices.product(a, np.ascontiguousarray(b.T) if turned[1] else b, turned=turned)

    a, b = normal(rows, 30), normal(30, 41)
    clean = product()
    a[2, 3], b[5, 40] = np.nan, np.inf
    found = product()
    kept = np.ones(found.shape, bool)
    kept[2], kept[:, 40] = False, False
    np.testing.assert_array_equal(found[kept], clean[kept])
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(
        np.delete(found[:, 40], 2), np.sign(np.delete(a[:, 5], 2)) * np.inf
    )


def test_a_lost_term_is_caught():
    a, b = normal(37, 300), normal(300, 128)
    found = matrices.product(a, b)
    assert_product(found, a, b)
    b[299, 5] = 0
    with pytest.raises(AssertionError, match="beyond the bound"):
        assert_product(found, a, b)


# --- the operation --------------------------------------------------------------------------------


def check(x, w, b, place=np.ascontiguousarray):
    """Check value and gradients; ``place`` says where the cotangent lies."""
    before = [a.copy() for a in (x, w)]
    with ax.kernels("require"):
        y, pullback = ax.dense.vjp(x, w, b)
        np.testing.assert_array_equal(ax.dense(x, w, b), y)
    dy = normal(*y.shape, dtype=x.dtype, seed=3)
    dx, dw, db = pullback(place(dy))
    rows, slopes = x.reshape(-1, x.shape[-1]), dy.reshape(-1, w.shape[0])
    assert y.shape == (*x.shape[:-1], w.shape[0])
    assert dx.shape == x.shape
    assert_product(y.reshape(slopes.shape), rows, w.T, b)
    assert_product(dx.reshape(rows.shape), slopes, w)
    assert_product(dw, slopes.T, rows)
    if b is None:
        assert db is None
    else:
        assert_product(db[None], np.ones((1, len(slopes)), x.dtype), slopes)
    for array, expected in zip((x, w), before, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 300), (3, 5, 17), (2, 1, 3, 31)])
@pytest.mark.parametrize("units", [1, 10, 16, 67])
def test_value_and_gradients(shape, units, dtype):
    x, w = normal(*shape, dtype=dtype), normal(units, shape[-1], dtype=dtype, seed=1)
    check(x, w, normal(units, dtype=dtype, seed=2))
    check(x, w, None)


def test_whole_numbers_are_those_of_the_portable_definition():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 10, s).astype("f4") for s in [(5, 23, 31), (67, 31), 67]]
    dy = rng.integers(-9, 10, (5, 23, 67)).astype("f4")
    found = []
    for mode in ("require", "portable"):
        with ax.kernels(mode):
            y, pullback = ax.dense.vjp(*arrays)
            found.append((y, *pullback(dy)))
    for f, e in zip(*found, strict=True):
        np.testing.assert_array_equal(f, e)


def readonly(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def strided(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def backwards(x):
    return np.ascontiguousarray(x[::-1])[::-1]


@pytest.mark.parametrize("layout", [readonly, np.asfortranarray, strided, backwards])
def test_layouts_give_the_same_bits(layout):
    arrays, dy = (normal(4, 9, 31), normal(67, 31), normal(67)), normal(4, 9, 67, seed=3)
    y, pullback = ax.dense.vjp(*arrays)
    with ax.kernels("require"):
        other, of_other = ax.dense.vjp(*map(layout, arrays))
    for f, e in zip((other, *of_other(layout(dy))), (y, *pullback(dy)), strict=True):
        np.testing.assert_array_equal(f, e)


@pytest.mark.parametrize("shapes", [((0, 5), (3, 5)), ((4, 0), (3, 0)), ((4, 5), (0, 5))])
def test_nothing(shapes):
    x, w = (np.ones(s, "f4") for s in shapes)
    y, pullback = ax.dense.vjp(x, w, np.ones(len(w), "f4"))
    assert y.shape == (len(x), len(w))
    assert (y == 1).all()
    dx, dw, db = pullback(np.ones_like(y))
    assert (dx.shape, dw.shape) == shapes
    assert (db == len(x)).all()


@pytest.mark.parametrize("wrt", [(), (0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_wanted_gradients(wrt):
    arrays, dy = (normal(9, 31), normal(67, 31), normal(67)), normal(9, 67, seed=3)
    everything = ax.dense.vjp(*arrays)[1](dy)
    for i, found in enumerate(ax.dense.vjp(*arrays, wrt=wrt)[1](dy)):
        if i in wrt:
            np.testing.assert_array_equal(found, everything[i])
        else:
            assert found is None


def test_other_byte_orders_run_portably():
    x, w = (normal(*s).astype(">f4") for s in [(3, 5), (2, 5)])
    assert "portable" in ax.explain(ax.dense, x, w)


def test_infinite_cotangents_do_not_warn():
    _, pullback = ax.dense.vjp(normal(4, 5), normal(3, 5), normal(3))
    dy = np.zeros((4, 3), "f4")
    dy[:2, 0] = np.inf, -np.inf
    assert np.isnan(pullback(dy)[2][0])
