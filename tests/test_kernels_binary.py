"""The CPU kernel of binary cross entropy of logits, against the portable one in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

numba = pytest.importorskip("numba")

loss = ax.binary_cross_entropy_with_logits


def example(shape, dtype):
    rng = np.random.default_rng(0)
    z, t = (5 * rng.standard_normal(shape)).astype(dtype), rng.random(shape)
    t.flat[:2] = 0, 1
    return z, t.astype(dtype)


def both(z, t, **options):
    """Return value and gradients, of the kernel and of the portable definition in float64."""
    wide = {k: v.astype(float) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with ax.kernels("portable"):
        expected, back = loss.vjp(z.astype(float), t.astype(float), **wide)
    dy = np.asarray(np.random.default_rng(2).standard_normal(expected.shape), dtype=z.dtype)
    slopes = back(dy.astype(float))
    with ax.kernels("require"):
        value, back = loss.vjp(z, t, **options)
        np.testing.assert_array_equal(value, loss(z, t, **options))
    found = back(dy)
    for g in found:
        assert g.dtype == z.dtype
    kept = found[0].copy()
    found[0][...] = 7  # it is the caller's
    np.testing.assert_array_equal(back(dy)[0], kept)
    return (value, kept, found[1]), (expected, *slopes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (2, 3), (5, 4, 3), (16384,), (300, 101), (0, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_shapes(shape, reduction, dtype):
    z, t = (np.ones(shape, dtype),) * 2 if 0 in shape else example(shape, dtype)
    for f, e in zip(*both(z, t, reduction=reduction), strict=True):
        assert_close(f, e, dtype, 32 + z.size)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_options(reduction):
    z, t = example((6, 5), "float32")
    rng = np.random.default_rng(1)
    w, q, a = (rng.random(s).astype("float32") for s in [(6, 5), (5,), (6,)])
    w[0, 1], a[2] = 0, 0
    for weight, pos_weight, sample_weight, smoothing in itertools.product(
        (None, w, w[:1]), (None, q), (None, a), (0.0, 0.2)
    ):
        for normalize in (None, "weight", 7) if reduction == "mean" else (None,):
            options = {"weight": weight, "pos_weight": pos_weight, "sample_weight": sample_weight}
            options |= {"label_smoothing": smoothing, "normalize": normalize}
            for f, e in zip(*both(z, t, reduction=reduction, **options), strict=True):
                assert_close(f, e, "float32", 64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype):
    inf, nan = np.inf, np.nan
    z = np.array([inf, -inf, nan, 0, 200, -200, inf, -inf, 1, nan], dtype)
    t = np.array([1, 0, 0, 0.5, 0, 1, 0, 1, nan, 1], dtype)
    for w in (None, (np.arange(10) < 8).astype(dtype)):
        for q in (None, np.zeros(10, dtype)):
            (f, df, _), (e, de, _) = both(z, t, weight=w, pos_weight=q, reduction="none")
            for found, expected in ((f, e), (df, de)):
                np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
                np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
                finite = np.isfinite(expected)
                assert_close(found[finite], expected[finite], dtype, 8)


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_no_weight_at_all(on_empty):
    z, t = example((3, 2), "float32")
    options = {"weight": np.zeros((3, 2), "float32"), "normalize": "weight", "on_empty": on_empty}
    value = loss(z, t, **options)
    np.testing.assert_array_equal(value, np.nan if on_empty == "nan" else 0)
    for mode in ("portable", "require"):
        with ax.kernels(mode):
            for dy in (1, np.nan):
                g = loss.vjp(z, t, **options)[1](np.float32(dy))[0]
                np.testing.assert_array_equal(g, np.zeros((3, 2)))


def test_the_same_bits_for_any_number_of_threads():
    z, t = example((400, 101), "float32")
    found, threads = set(), numba.get_num_threads()
    try:
        for n in {1, min(2, threads), threads}:
            numba.set_num_threads(n)
            value, back = loss.vjp(z, t, wrt=[0])
            found.add((value.tobytes(), back(np.float32(1))[0].tobytes()))
    finally:
        numba.set_num_threads(threads)
    assert len(found) == 1


def test_without_a_gradient():
    z, t = example((4, 3), "float32")
    assert loss.vjp(z, t, wrt=[])[1](np.float32(1)) == (None, None)


def test_what_is_declined():
    z, t = example((4, 3), "float16")
    assert "native byte order, not <f2" in ax.explain(loss, z, t)
