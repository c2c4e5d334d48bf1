"""Convolutions that are done as others, of rearranged images."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.conv import arrangements
from agnostic_xent.kernels.cpu.conv.arrangements import AsItIs, InPhases, arrangement
from agnostic_xent.kernels.cpu.conv.geometry import Geometry

FLOAT = np.dtype("float32")


def drawn(rng):
    """Return shapes of images and weights, and options: dilated, or 1 x 1 with a stride."""
    image = [int(n) for n in rng.integers(7, 40, 2)]
    groups = int(rng.choice([1, 1, 2]))
    channels, filters = groups * int(rng.integers(1, 19)), groups * int(rng.integers(1, 40))
    options = {"groups": groups, "activation": rng.choice([None, "relu"])}
    if rng.random() < 0.3:
        window = [1, 1]
        options["stride"] = tuple(int(n) for n in rng.integers(1, 5, 2))
    else:
        window = [int(n) for n in rng.integers(1, 4, 2)]
        options["dilation"] = tuple(int(n) for n in rng.integers(1, 4, 2))
        options["padding"] = tuple(tuple(int(n) for n in rng.integers(0, 4, 2)) for _ in range(2))
    x = (int(rng.integers(1, 6)), channels, *image)
    return x, (filters, channels // groups, *window), options


@pytest.fixture
def always(monkeypatch):
    """Have dilated convolutions always interleaved."""
    monkeypatch.setattr(arrangements, "_cycles", lambda g, dtype: 1e18 * max(g.dilation))
    arrangement.cache_clear()
    ax.conv2d._seen.clear()
    yield
    arrangement.cache_clear()
    ax.conv2d._seen.clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(20))
def test_values_and_gradients(always, seed, dtype):
    rng = np.random.default_rng(seed)
    x_shape, w_shape, options = drawn(rng)
    arrays = [rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1])]
    with ax.kernels("portable"):
        expected, exact = ax.conv2d.vjp(*(a.astype("float64") for a in arrays), **options)
    dy = rng.standard_normal(expected.shape).astype(dtype)
    with ax.kernels("require"):
        found, pullback = ax.conv2d.vjp(*map(np.asfortranarray, arrays), **options)
        np.testing.assert_array_equal(ax.conv2d(*arrays, **options), found)
    every = zip((found, *pullback(dy)), (expected, *exact(dy.astype("float64"))), strict=True)
    for one, other in every:
        assert one.dtype == dtype
        assert_close(one, other, dtype, 2048)


def way(g, pooled=False):
    return type(arrangement(g, FLOAT, pooled))


def test_which_are_rearranged():
    dilated = Geometry(16, 128, 28, 28, 128, 1, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2))
    assert way(dilated) is InPhases
    assert way(dilated, pooled=True) is AsItIs
    assert way(dilated._replace(channels=4, filters=4)) is AsItIs  # moving pixels takes longer
    assert way(dilated._replace(stride=(2, 2))) is AsItIs
    assert way(dilated._replace(dilation=(1, 1))) is AsItIs
    point = Geometry(16, 32, 28, 28, 64, 1, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1))
    assert way(point) is InPhases
    assert way(point, pooled=True) is InPhases
    assert way(point._replace(padding=((1, 0), (0, 0)))) is AsItIs
    assert way(point._replace(stride=(1, 1))) is AsItIs


@pytest.mark.parametrize("size", [1, 3, 4, 9, 35])
def test_a_part_writes_to_its_own_planes_alone(size):
    """Whole vectors are written, which may be longer than several planes."""
    planes, small = 9, -(-size // 2)
    x = np.random.default_rng(0).standard_normal((planes, size, size)).astype("float32")
    phases = arrangements.Phases(planes, size, size, 2, 2, 1, 1, small, small, 0, 0)
    expected = np.full((planes + 4, small, small), 7, "float32")
    for part in range(3):
        y = np.full_like(expected, 7)
        own = slice(3 * part, 3 * part + 3)
        arrangements.apart[x.dtype].part(x.reshape(-1), y.reshape(-1), phases, 3, part)
        expected[:] = 7
        expected[own] = x[own, ::2, ::2]
        np.testing.assert_array_equal(y, expected)
