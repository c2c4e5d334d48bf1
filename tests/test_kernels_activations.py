"""The CPU kernels of the activations, against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

numba = pytest.importorskip("numba")

ELEMENTS, ROWS = ("relu", "sigmoid", "log_sigmoid"), ("softmax", "log_softmax", "logsumexp")
SHAPES = [
    ((7,), 0), ((40, 3), 1), ((3, 1), 1), ((5, 4100), 1), ((300, 200), 1), ((3, 5, 7), 1),
    ((20000,), 0), ((11, 5), 0), ((2, 0), 0), ((0, 3), 1), ((33, 2), 1), ((17, 4), 1), ((16, 8), 1),
    ((50, 9), 1), ((2001, 16), 1), ((21, 17), 1), ((40, 64), 1), ((9, 65), 1),
]  # fmt: skip


def value_shape(name, shape, axis):
    """Return the shape of an activation's value."""
    return tuple(np.delete(shape, axis)) if name == "logsumexp" else shape


def run(name, x, dy, axis):
    options = {"axis": axis} if name in ROWS else {}
    value, back = getattr(ax, name).vjp(x, **options)
    np.testing.assert_array_equal(value, getattr(ax, name)(x, **options))
    return value, back(dy)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ELEMENTS + ROWS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_values_and_pullbacks(name, shape, axis, dtype):
    rng = np.random.default_rng(0)
    x = (5 * rng.standard_normal(shape)).astype(dtype)
    dy = np.asarray(rng.standard_normal(value_shape(name, shape, axis)), dtype)
    with ax.kernels("portable"):
        expected = run(name, x.astype(float), dy.astype(float), axis)
    before = x.copy(), dy.copy()
    for layout in (np.copy, in_columns, frozen):
        with ax.kernels("require"):
            found = run(name, layout(x), layout(dy), axis)
        for f, e, like in zip(found, expected, (dy, x), strict=True):
            assert f.dtype == dtype
            assert f.shape == like.shape
            assert_close(f, e, dtype, 32 + (x.shape[axis] if name in ROWS else 0))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(dy, before[1])


def in_columns(x):
    return x.copy(order="F")


def frozen(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "classes"), [*((e, 1) for e in ELEMENTS), *((r, n) for r in ROWS for n in (3, 12, 80))]
)
def test_special_values(name, classes, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([0, -0.0, inf, -inf, nan, -nan, 1e-40, 800, -800, -100], dtype)
    if name in ROWS:
        rows = [
            [0, 0, 0],
            [inf, 1, 2],
            [inf, 1e5, -inf],
            [-inf] * 3,
            [-inf, 0, 1],
            [nan, 0, 1],
            [1e8] * 3,
        ]
        x = np.array([*rows, [-1000, 0, -1000], [-nan, -inf, -inf]], dtype)
        x = np.pad(x, ((0, 0), (0, classes - 3)), mode="edge")
    found = []
    for mode in ("portable", "require"):
        with ax.kernels(mode):
            found.append(run(name, x, np.ones(value_shape(name, x.shape, -1), dtype), -1))
    for e, f in zip(*found, strict=True):
        np.testing.assert_array_equal(np.isnan(f), np.isnan(e))
        np.testing.assert_array_equal(np.isinf(f), np.isinf(e))
        finite = np.isfinite(e)
        assert_close(f[finite], e[finite], dtype, 8)


@pytest.mark.parametrize("name", ELEMENTS + ROWS)
@pytest.mark.parametrize("shape", [(40000,), (3000, 11), (7, 9001)])
def test_the_same_bits_for_any_number_of_threads(name, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, "float32")
    dy = np.asarray(rng.standard_normal(value_shape(name, shape, -1)), "float32")
    found, threads = set(), numba.get_num_threads()
    try:
        for n in {1, min(2, threads), threads}:
            numba.set_num_threads(n)
            found.add(tuple(a.tobytes() for a in run(name, x, dy, -1)))
    finally:
        numba.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.ones(3, "float16"), "not <f2"),
        (np.ones(3, ">f4"), "native byte order"),
        (np.ones(()), "at least one dimension"),
        (np.ones(3).view(np.recarray), "not recarray"),
    ],
)
def test_what_is_declined(x, reason):
    assert reason in ax.explain(ax.relu, x)
