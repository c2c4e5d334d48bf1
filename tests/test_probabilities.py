"""Binary cross entropy of probabilities keeps its digits, and no gradient in [0, 1] is NaN."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

TINY = {"float32": 1e-45, "float64": 5e-324}


def probabilities(dtype: str) -> np.ndarray:
    """Return probabilities all over [0, 1], down to the least number and up to 1."""
    near_0 = np.geomspace(float(np.finfo(dtype).tiny), 0.5, 40)
    subnormal = [TINY[dtype], 3 * TINY[dtype], float(np.finfo(dtype).tiny) / 8]
    return np.asarray([0.0, *subnormal, *near_0, *(1 - near_0), 1.0]).astype(dtype)


@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_small_losses_keep_their_digits(row, target):
    for dtype in row.dtypes:
        p = probabilities(dtype)
        if row.library == "jax":  # which takes subnormal numbers for 0
            p = p[(p == 0) | (p >= np.finfo(dtype).tiny)]
        t = np.full_like(p, target)
        exact = p.astype(np.longdouble)
        with np.errstate(divide="ignore"):
            logs = np.maximum(np.log(exact), -100), np.maximum(np.log1p(-exact), -100)
        expected = -(target * logs[0] + (1 - target) * logs[1])
        loss = row.call(
            lambda p, t: ax.binary_cross_entropy(p, t, reduction="none"), row.array(p), row.array(t)
        )
        found = np.asarray(ax.to_numpy(loss), np.longdouble)
        np.testing.assert_allclose(found, expected, rtol=8 * np.finfo(dtype).eps, atol=1e-30)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_no_gradient_is_nan(row, target, smoothing):
    for dtype in row.dtypes:
        p = probabilities(dtype)

        def gradients(p, t):
            loss, pullback = ax.binary_cross_entropy.vjp(
                p, t, reduction="sum", label_smoothing=smoothing
            )
            return pullback(row.xp.ones_like(loss))

        found = row.call(gradients, row.array(p), row.array(np.full_like(p, target)))
        for g in found:
            assert not np.isnan(ax.to_numpy(g)).any()
        if smoothing == 0 and target == 0:
            inside = p < 1
            assert_close(ax.to_numpy(found[0])[inside], 1 / (1 - p[inside].astype(float)), dtype, 8)


def test_a_sigmoid_that_underflows_has_the_gradient_of_the_other_term():
    p = ax.sigmoid(np.asarray([-90.0, -103.0], np.float32))
    loss, pullback = ax.binary_cross_entropy.vjp(p, np.zeros_like(p))
    assert np.isfinite(loss)
    np.testing.assert_allclose(pullback(np.ones_like(loss))[0], [0.5, 0.5])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_probabilities_and_a_logit_of_minus_infinity(dtype, smoothing, weighted):
    """A class without probability makes the term inf if it has a say; the kernel agrees."""
    z = np.asarray([[0, -np.inf, 1], [0, 2, 1]], dtype)
    options = {"label_smoothing": smoothing, "reduction": "none"}
    if weighted:
        options["weight"] = np.asarray([1, 0, 2], dtype)
    for t in ([[1 / 3] * 3, [0, 1, 0]], [[0.5, 0, 0.5], [1, 0, 0]]):
        t = np.asarray(t, dtype)
        found = ax.cross_entropy(z, t, **options)
        with ax.kernels("portable"):
            expected = ax.cross_entropy(z, t, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_mean_of_tiny_probabilities_does_not_overflow(row, weighted):
    """1 / p may be too large for float32 where the mean's part of it is not; and 0 * inf is 0."""
    tiny = 2.0**-127  # its inverse, 2^127, is finite; that times 4 is not
    p = np.asarray([[tiny, 0.5], [0.25, 1.0], [0.0, tiny], [0.5, 0.5]])
    if row.library == "jax":  # which takes subnormal numbers for 0
        p[p == tiny] = 2.0**-126
    weight = np.asarray([4.0, 0.0]) if weighted else None
    for loss in (ax.binary_cross_entropy, ax.categorical_cross_entropy):

        def gradient(p, dy, loss=loss):
            w = None if weight is None else row.array(weight, "float32")
            options = {"weight": w, "normalize": 16.0}
            return loss.vjp(p, row.xp.ones_like(p), wrt=(0,), **options)[1](dy)[0]

        exact = loss.vjp(p, np.ones_like(p), wrt=(0,), weight=weight, normalize=16.0)
        for dy in (1.0, 0.0):
            arrays = row.array(p, "float32"), row.array(np.asarray(dy), "float32")
            found = ax.to_numpy(row.call(gradient, *arrays))
            with np.errstate(invalid="ignore"):
                expected = exact[1](np.asarray(dy))[0]
            finite = np.isfinite(expected)
            np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-6)


def test_a_weight_counts_before_a_tiny_probability_divides():
    p = np.asarray([2.0**-130, 1 - 2.0**-24], np.float32)  # 1 / p is no number of float32
    weight, t = np.asarray([2.0**-4, 2.0**-4], np.float32), np.asarray([1.0, 0.0], np.float32)
    for mode in ("portable", "auto"):
        with ax.kernels(mode):
            _, pullback = ax.binary_cross_entropy.vjp(p, t, weight=weight, reduction="sum")
            assert pullback(np.float32(1))[0].tolist() == [-(2.0**126), 2.0**20]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_class_has_no_loss(row, smoothing):
    if not row.empty:
        return
    z = row.array(np.zeros((2, 0)), "float32")
    loss, pullback = ax.cross_entropy.vjp(z, z, label_smoothing=smoothing, reduction="none")
    assert ax.to_numpy(loss).tolist() == [0, 0]
    assert tuple(pullback(loss)[0].shape) == (2, 0)
