"""The CUDA kernels of batch normalization against the portable definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import batch_norm, explain, kernels
from agnostic_xent.kernels.cuda.normalization import batch_norm as host
from agnostic_xent.kernels.cuda.normalization import channels
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

SHAPES = [(2, 1, 1, 1), (3, 5, 1, 1), (1, 3, 2, 1), (4, 3, 7, 5), (5, 2, 9, 31)]
LONG = [(3, 2, 1, 1100), (2, 1, 3, 800)]
"""Planes of several pieces."""

OPTIONS = {"momentum": 0.3, "eps": 1e-3}

each_mode = pytest.mark.parametrize("train", [False, True])


def draw(shape, dtype="float32", offset=0.0):
    """Return the five arrays of batch_norm and a cotangent."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, *shape))
    weight, bias, mean = rng.standard_normal((3, shape[1]))
    arrays = offset + 3 * x, weight, bias, mean, rng.random(shape[1]) + 0.1, dy
    return [a.astype(dtype) for a in arrays]


def check(*arrays, terms=32, dtype=None, **options):
    """Compare values and gradients with the definition; return what the kernels found."""
    *arrays, dy = arrays
    options = OPTIONS | options
    with kernels("portable"):
        expected, exact = batch_norm.vjp(*(a.astype("float64") for a in arrays), **options)
        slopes = exact(dy.astype("float64"))
    with kernels("require"):
        assert "CUDA" in explain(batch_norm, *arrays, **options)
        found, pullback = batch_norm.vjp(*arrays, **options)
        for one, other in zip(found, batch_norm(*arrays, **options), strict=True):
            np.testing.assert_array_equal(one, other)
        gradients = pullback(dy)
    assert gradients[3:] == (None, None)
    for one, other in zip((*found, *gradients[:3]), (*expected, *slopes[:3]), strict=True):
        assert one.dtype == arrays[0].dtype
        assert_close(one, other, dtype or str(one.dtype), terms)
    return found, gradients


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu"])
@each_mode
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape, train, activation, dtype):
    check(*draw(shape, dtype), train=train, activation=activation)


@each_mode
@pytest.mark.parametrize("shape", LONG, ids=str)
def test_planes_of_several_pieces(shape, train):
    check(*draw(shape), train=train)


@each_mode
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype, train):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    *arrays, dy = draw((3, 2, 5, 7), dtype)
    unit = 2.0**-10 if arrays[0].dtype.name == "float16" else 2.0**-7
    with kernels("portable"):
        expected, exact = batch_norm.vjp(*(a.astype("f8") for a in arrays), train=train)
        slopes = exact(dy.astype("f8"))
    with kernels("require"):
        found, pullback = batch_norm.vjp(*arrays, train=train)
        gradients = pullback(dy)
    for one, other in zip((*found, *gradients[:3]), (*expected, *slopes[:3]), strict=True):
        assert one.dtype == arrays[0].dtype
        error = np.abs(one.astype("f8") - other)
        assert np.all(error <= unit * (np.abs(other) + 2.0**-10 * np.max(np.abs(other))))


def test_several_parts_and_blocks(monkeypatch):
    images = draw((2, 2, 45, 55))
    assert 2 * channels.PIECE < 45 * 55  # in 3 pieces
    found = check(*images, train=True)
    again = check(*images, train=True)
    for one, other in zip(found[0] + found[1][:3], again[0] + again[1][:3], strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(host, "BLOCKS", 3)  # a part, whose warps take turns
    check(*images, train=True)


def test_a_large_offset_costs_no_digits_of_the_variance():
    x, *vectors, _ = draw((4, 2, 9, 9), offset=1e4)
    with kernels("require"):
        _, mean, var = batch_norm(x, *vectors, train=True, momentum=1.0)
    wide = np.moveaxis(x.astype("f8"), 1, 0).reshape(2, -1)
    assert_close(mean / np.mean(wide, axis=1), np.ones(2), "float32", terms=1)
    assert_close(var / np.var(wide, axis=1, ddof=1), np.ones(2), "float32", terms=4)


@pytest.mark.parametrize("wrt", [(), (0,), (1,), (0, 2), (0, 1, 2)], ids=str)
@each_mode
def test_only_wanted_gradients(train, wrt):
    *arrays, dy = draw((2, 3, 5, 6))
    with kernels("require"):
        everything = batch_norm.vjp(*arrays, train=train)[1](dy)
        some = batch_norm.vjp(*arrays, train=train, wrt=wrt)[1](dy)
    for i in range(3):
        if i in wrt:
            np.testing.assert_array_equal(some[i], everything[i])
        else:
            assert some[i] is None


@pytest.mark.parametrize("activation", [None, "relu"])
@each_mode
def test_special_values(train, activation):
    x, weight, bias, mean, var, dy = draw((2, 7, 3, 3))
    x[0, 1, 0, 0], x[0, 2, 0, 0], x[1, 2, 0, 0] = np.nan, np.inf, np.inf
    x[:, 3], weight[4] = 2, 0
    x[0, 5, 1, 1], x[1, 5, 1, 1] = np.inf, -np.inf
    var[3], mean[6], weight[1] = 0, np.nan, np.inf
    check(x, weight, bias, mean, var, dy, train=train, activation=activation)
    x[0, 1, 0, 0] = 0
    dy[0, 2, 1, 1], dy[1, 3, 1, 1] = np.nan, np.inf
    check(x, weight, bias, mean, var, dy, train=train, activation=activation)
    x[0, 1:3, 0, 0] = x[1, 2, 0, 0] = x[:, 5, 1, 1] = 0  # finite but for what has no spread
    check(x, weight, bias, mean, var - 1, dy, train=train, activation=activation, eps=0.0)


def strided(x):
    wide = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    part[...] = x
    part.flags.writeable = False
    return part


@each_mode
def test_arrays_lie_anywhere(train):
    check(*map(strided, draw((2, 3, 5, 7))), train=train)


# --- mistakes are caught --------------------------------------------------------------------------

MISTAKES = {
    "the pieces of a plane": ("start + piece * PIECE, start", "start, start"),
    "pixels behind a plane": ("min(piece * PIECE + PIECE, plane)", "plane + PIECE"),
    "the next image": ("(image * planes + first_plane)", "(image + first_plane)"),
    "between the means": ("other_spread + delta * delta * (count * (more / both))", "other_spread"),
    "pixels that are not there": (
        "end:\n                        d = ",
        "end + 99:\n                        d = ",
    ),
    "warps of a block": ("step < team // LANES", "step < 1"),
    "between the parts": ("+ get(sums, i) * apart * apart", ""),
    "the unbiased variance": ("spread / (count - 1)", "spread / count"),
    "parts": ("range(t % LANES, parts, LANES)", "range(t % LANES, parts - 1, LANES)"),
    "a channel's scale": ("divided(divided(k, pieces)[0], channels)", "divided(k, channels)"),
    "the mean of the cotangents": ("d = d - even", "d = d"),
    "the slope of the variance": ("* kind(inverse) * slope", "* slope"),
    "products of parts": ("(parts + part) * channels + channel, product", "channel, product"),
    "statistics of another channel": ("writes = k == channel * pieces", "writes = k == channel"),
    "cotangents of what is 0, summed": (
        "<= 0:\n                        dv[u] = kind(0)",
        "<= 0:\n                        pass",
    ),
    "cotangents of what is 0": (
        "<= 0:\n                        d = kind(0)",
        "<= 0:\n                        pass",
    ),
    "what is below 0": ("z = kind(0)", "pass"),
    "dbias for dweight": ("narrow(dbias, kind(total))", "narrow(dbias, kind(product))"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new = MISTAKES[mistake]
    for module in plant(monkeypatch, channels, old, new, [channels, host]).values():
        monkeypatch.setattr(module, "PIECE", 16)
    with pytest.raises((AssertionError, IndexError)):
        check(*draw((3, 2, 5, 17)), train=True, activation="relu")


def test_variants_are_all_kernels():
    check(*draw((2, 3, 2, 2)), train=True)
    known = {(k.function.__qualname__, k.parameters) for k in channels.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == channels.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
