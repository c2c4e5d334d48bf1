"""Exponential and logarithm of the CPU kernels, against wider floats."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.loss import sweep as softmax_lanes  # noqa: E402
from agnostic_xent.kernels.cpu.simd import elementary as vector_math  # noqa: E402
from agnostic_xent.kernels.cpu.simd import rows  # noqa: E402


@numba.njit(error_model="numpy")
def exponentials(x, y):
    for i in range(x.size):
        y[i] = vector_math.exp_biased(x[i])


@numba.njit(error_model="numpy")
def logarithms(x, y):
    for i in range(x.size):
        y[i] = vector_math.log1p(x[i])


@numba.njit(error_model="numpy")
def sweep(x, e, ahead, top, factor):
    return softmax_lanes.sweep(x, x.size, e, ahead, ahead.size, top, factor)


@numba.njit
def rounded_once(x):
    return vector_math.fma(x, x, -(x * x))


FUSED = rounded_once(1 + 2.0**-40) != 0
"""Whether this processor multiplies and adds with one rounding."""


def ulp_error(found, exact):
    """Return the largest error in units of the last place of the exact value."""
    rounded = np.abs(exact.astype(found.dtype))
    return float(np.max(np.abs(found.astype(exact.dtype) - exact) / np.spacing(rounded)))


@pytest.mark.parametrize(("dtype", "wider", "lowest"), [
    ("float32", np.float64, -110), ("float64", np.longdouble, -760),
])  # fmt: skip
def test_exp(dtype, wider, lowest):
    if np.finfo(wider).nmant <= np.finfo(dtype).nmant + 8:
        pytest.skip("no wider floats here")
    tiny = np.geomspace(1e-30, 1, 10**5)
    x = np.concatenate([np.linspace(lowest, 0, 2 * 10**6), -tiny, [-np.inf, -0.0]]).astype(dtype)
    y = np.empty_like(x)
    exponentials(x, y)
    unbias = 1 / vector_math.BIAS[np.dtype(dtype)]
    exact = np.exp(x.astype(wider))
    normal = exact >= np.finfo(dtype).tiny
    bound = 1 if FUSED else 1.25
    assert ulp_error(y[normal] * y.dtype.type(unbias), exact[normal]) < bound
    assert ulp_error(y * y.dtype.type(unbias), exact) < bound + 0.01  # denormal: one rounding more
    assert y[-2] == 0
    exponentials(np.array([np.nan], dtype), y[:1])
    assert np.isnan(y[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("size", [1, 15, 64, 100, 500])
@pytest.mark.parametrize("more", [1, 16, 65, 300])
def test_a_sweep_does_as_the_functions_of_single_numbers(size, more, in_place, dtype):
    rng = np.random.default_rng(size + more)
    row = np.full(size + more + 100, np.nan, dtype)  # what lies behind the pieces is not theirs
    x, ahead = row[:size], row[size : size + more]
    x[:], ahead[:] = rng.normal(size=size) - 5, rng.normal(size=more) - 1e6
    top, factor = x.dtype.type(1), x.dtype.type(0.7)
    exact = np.empty_like(x)
    exponentials((x - top) * factor, exact)
    stored = row if in_place else np.full(size + 100, np.nan, dtype)
    total, best = sweep(x, stored[:size], ahead, top, factor)
    assert best == ahead.max()
    np.testing.assert_array_equal(stored[:size], exact)
    assert np.isnan(stored[-100:]).all()
    bound = size * np.finfo(dtype).eps * float(np.sum(exact, dtype=np.longdouble))
    assert abs(total - float(np.sum(exact, dtype=np.longdouble))) <= bound


@numba.njit(error_model="numpy")
def row_exponentials(x, e):
    return rows.exponentials(x, x[0], x[0] * 0 + 1, e)


@pytest.mark.parametrize("size", [10, 20, 40, 100])
def test_a_sum_does_not_depend_on_where_arrays_lie(size):
    rng, sums = np.random.default_rng(size), []
    logits = -np.sort(5 * rng.random((20, size)), axis=1).astype("float32")
    for distance in range(0, 200, 4):  # behind the logits, nearer than a round of a loop in lanes
        memory = np.empty(2 * size + distance, "float32")
        x, e = memory[:size], memory[size + distance :]
        for row in logits:
            x[:] = row
            sums.append(row_exponentials(x, e))
    assert len(set(sums)) == len(logits)


def test_log1p():
    if np.finfo(np.longdouble).nmant < 60:
        pytest.skip("no wider floats here")
    x = np.concatenate([np.geomspace(1e-300, 1e8, 10**6), np.linspace(0, 4, 10**6), [0.0]])
    y = np.empty_like(x)
    logarithms(x, y)
    assert ulp_error(y, np.log1p(x.astype(np.longdouble))) < 1
    logarithms(np.array([np.nan]), y[:1])
    assert np.isnan(y[0])
