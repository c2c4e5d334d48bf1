"""The CPU kernel of cross entropy over probabilities, against the portable one in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_close

pytest.importorskip("numba")

from test_kernels_softmax import agree, both, example, probabilities

import agnostic_xent as ax

SHAPES = [(1, 1), (1, 2), (7, 3), (33, 10), (5, 127), (2, 4097), (300, 200)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axis"), [(s, -1) for s in SHAPES] + [((2, 3, 5), 1), ((2, 19, 70), 1), ((11, 5), 0)]
)
def test_shapes(shape, axis, dtype):
    for reduction in ("mean", "sum", "none"):
        z, t = example(shape, axis, dtype)[0], probabilities(shape, axis, dtype)
        found, expected = both(z, t, axis=axis, reduction=reduction)
        agree(found, expected, 16 + (shape[0] if reduction != "none" else 0))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("shape", "axis"), [((9, 7), -1), ((6, 70), -1), ((4, 7, 3), 1)])
def test_options(shape, axis, reduction):
    z, t, rng = example(shape, axis)[0], probabilities(shape, axis), np.random.default_rng(1)
    weight = (rng.random(shape[axis]) + 0.1).astype("float32")
    weight[1] = 0
    a = rng.random(np.delete(shape, axis)).astype("float32")
    a.flat[0] = 0
    t = t * np.float32(0.5) if axis == 1 else t  # which need not add up to 1
    for w, samples, smoothing, temperature in itertools.product(
        (None, weight), (None, a), (0.0, 0.1, 1.0), (1.0, 2.5)
    ):
        for normalize in (None, "count", "weight", 7.5) if reduction == "mean" else (None,):
            options = {"axis": axis, "weight": w, "sample_weight": samples}
            options |= {"label_smoothing": smoothing, "temperature": temperature}
            options |= {"normalize": normalize, "reduction": reduction}
            agree(*both(z, t, **options), terms=64)


def test_the_gradient_of_the_target():
    z, t = example((5, 30))[0], probabilities((5, 30))
    with ax.kernels("portable"):
        expected = ax.cross_entropy.vjp(z, t)[1](np.float32(2))[1]
    with ax.kernels("require"):
        dz, dt = ax.cross_entropy.vjp(z, t, wrt=[1])[1](np.float32(2))
        overwritten = ax.cross_entropy.vjp(z, t, overwrite_logits=True)[1](np.float32(2))[1]
    assert dz is None
    np.testing.assert_array_equal(dt, expected)
    np.testing.assert_array_equal(overwritten, expected)


@pytest.mark.parametrize("shape", [(9, 6), (40, 60), (3, 5000)])
def test_one_hot_is_the_label(shape):
    z, y = example(shape)
    z[0] = -100
    z[0, y[0]] = 0  # a loss that only full relative accuracy keeps
    one_hot = np.zeros(shape, "float32")
    one_hot[np.arange(shape[0]), y] = 1
    weight = (np.random.default_rng(0).random(shape[1]) + 0.5).astype("float32")
    options = {"weight": weight, "reduction": "none"}
    found, back = ax.cross_entropy.vjp(z, one_hot, **options)
    expected, back_expected = ax.cross_entropy.vjp(z, y, **options)
    assert_close(found / expected, np.ones(len(y)), "float32", 8)
    dy = np.ones(len(y), "float32")
    dz, slope = back(dy)[0], back_expected(dy)[0]
    rows = np.arange(len(y))
    assert_close(dz[rows, y] / slope[rows, y], np.ones(len(y)), "float32", 8)
    assert_close(dz, slope, "float32", 8)


@pytest.mark.parametrize("classes", [6, 60, 4100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_special_values(classes, smoothing):
    """Each row of its own kind: only its own row is touched."""
    inf, nan = np.inf, np.nan
    z = np.random.default_rng(3).standard_normal((8, classes)).astype("float32")
    t = probabilities((8, classes), seed=6)
    z[1, 1], z[2, 2], z[3], z[4, 3], z[5, 4], z[6] = nan, inf, -inf, -inf, -inf, 1e8
    t[4, 3], t[5, 4] = 0, 0.5
    found, expected = both(z, t, np.ones(8), reduction="none", label_smoothing=smoothing)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(f), np.isnan(e))
        np.testing.assert_array_equal(np.isinf(f), np.isinf(e))
        finite = np.isfinite(e)
        assert_close(f[finite], e[finite], "float32", 64)


def test_a_weight_of_zero_takes_the_sample_out():
    z, t = np.full((2, 30), np.nan, "float32"), probabilities((2, 30))
    z[1] = 0
    a = np.array([0, 1], "float32")
    for dy in (1.0, np.nan):
        value, back = ax.cross_entropy.vjp(z, t, sample_weight=a)
        g = back(np.float32(dy))[0]
        assert np.isfinite(value)
        assert not g[0].any()
    options = {"sample_weight": 0 * a, "normalize": "weight"}
    assert np.isnan(ax.cross_entropy(z, t, **options))
    assert ax.cross_entropy(z, t, on_empty="zero", **options) == 0
