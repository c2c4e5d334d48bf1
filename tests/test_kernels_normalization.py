"""The CPU kernel of batch normalization against the portable definition in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

pytest.importorskip("numba")

SHAPES = [
    (2, 1, 1, 1), (3, 5, 1, 1), (1, 3, 2, 1), (4, 3, 7, 5), (2, 7, 16, 16), (17, 11, 13, 9),
    (1, 2, 33, 1025), (64, 16, 8, 8), (300, 80, 1, 1), (9, 700, 2, 1), (3, 5, 15, 17),
    (2, 3, 16, 33),
]  # fmt: skip


def arguments(shape, dtype="float32", offset=0.0):
    rng = np.random.default_rng(0)
    x = offset + 3 * rng.standard_normal(shape)
    weight, bias, mean = rng.standard_normal((3, shape[1]))
    return [a.astype(dtype) for a in (x, weight, bias, mean, rng.random(shape[1]) + 0.1)]


def wide(arrays):
    return [a.astype("float64") for a in arrays]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients(shape, train, activation, dtype):
    arrays = arguments(shape, dtype)
    options = {"train": train, "momentum": 0.3, "eps": 1e-3, "activation": activation}
    dy = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    with ax.kernels("portable"):
        expected, back = ax.batch_norm.vjp(*wide(arrays), **options)
        slopes = back(dy.astype("float64"))
    before = [a.copy() for a in arrays]
    with ax.kernels("require"):
        found, back = ax.batch_norm.vjp(*arrays, **options)
        alone = ax.batch_norm(*arrays, **options)
    gradients = back(dy)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    for f, g, e in zip(found, alone, expected, strict=True):
        assert f.dtype == dtype
        np.testing.assert_array_equal(f, g)
        assert_close(f, e, dtype, 16)
    for f, e in zip(gradients[:3], slopes[:3], strict=True):
        assert f.dtype == dtype
        assert_close(f, e, dtype, 64)
    assert gradients[3:] == (None, None)


@pytest.mark.parametrize("wrt", [(), (0,), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("train", [False, True])
def test_only_wanted_gradients(train, wrt):
    arrays = arguments((4, 3, 5, 6))
    dy = np.random.default_rng(1).standard_normal((4, 3, 5, 6)).astype("float32")
    everything = ax.batch_norm.vjp(*arrays, train=train)[1](dy)
    some = ax.batch_norm.vjp(*arrays, train=train, wrt=wrt)[1](dy)
    for i in range(3):
        if i in wrt:
            np.testing.assert_array_equal(some[i], everything[i])
        else:
            assert some[i] is None


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((64, 2, 20, 20), "float32"), ((3, 1, 300, 301), "float64")]
)
def test_statistics_are_as_accurate_as_the_portable_ones(shape, dtype, offset):
    x, *vectors = arguments(shape, dtype, offset)
    options = {"train": True, "momentum": 1.0}
    exact_mean, exact_var = zip(*(exact(x[:, c]) for c in range(shape[1])), strict=True)
    errors = []
    for mode in ("require", "portable"):
        with ax.kernels(mode):
            _, mean, var = ax.batch_norm(x, *vectors, **options)
        errors.append((np.abs(mean - exact_mean).max(), np.abs(var - exact_var).max()))
    spacing = np.finfo(dtype).eps * np.array([abs(exact_mean[0]) + 3, exact_var[0]])
    assert np.all(np.array(errors[0]) <= np.maximum(errors[1], spacing))


def exact(values):
    values = [float(v) for v in values.ravel()]
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)


def test_special_values_stay_in_their_channel():
    x, *vectors = arguments((4, 5, 6, 7))
    plain = ax.batch_norm(x, *vectors, train=True)
    x[1, 2, 3, 4], x[0, 4, 0, 0] = np.nan, np.inf
    found = ax.batch_norm(x, *vectors, train=True)
    for c in range(5):
        if c in (2, 4):
            assert np.isnan(found[0][:, c]).all()
        else:
            np.testing.assert_array_equal(found[0][:, c], plain[0][:, c])


def test_layouts_give_the_same_bits():
    arrays = arguments((5, 8, 30, 31))
    dy = np.random.default_rng(1).standard_normal(arrays[0].shape).astype("float32")
    value, back = ax.batch_norm.vjp(*arrays, train=True)
    gradients = back(dy)
    for layout in (np.asfortranarray, _readonly, _strided):
        with ax.kernels("require"):
            other, back = ax.batch_norm.vjp(*map(layout, arrays), train=True)
        for f, e in zip((*other, *back(layout(dy))[:3]), (*value, *gradients[:3]), strict=True):
            np.testing.assert_array_equal(f, e)


def _readonly(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _strided(x):
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def test_a_pullback_keeps_what_it_needs():
    arrays = arguments((8, 4, 9, 9))
    dy = np.random.default_rng(1).standard_normal(arrays[0].shape).astype("float32")
    _, back = ax.batch_norm.vjp(*arrays, train=True)
    first = [g.copy() for g in back(dy)[:3]]
    for f, g in zip(first, back(dy)[:3], strict=True):
        np.testing.assert_array_equal(f, g)
