"""The CUDA kernels of images on signals and volumes, against the definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax
from agnostic_xent import explain, kernels
from tests.conftest import assert_close

CASES = [
    ("conv1d", [(2, 4, 11), (6, 2, 3), (6,)], {"groups": 2, "stride": 2, "activation": "relu"}),
    ("conv1d", [(1, 3, 9), (2, 3, 4)], {"dilation": 2, "padding": "same"}),
    ("conv3d", [(1, 3, 3, 2, 5), (4, 3, 1, 1, 3), (4,)], {"padding": (0, 0, 1)}),
    ("conv3d", [(2, 2, 4, 2, 3), (3, 2, 3, 1, 1)], {"stride": (2, 1, 1), "padding": (1, 0, 0)}),
    ("max_pool1d", [(2, 3, 9)], {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg_pool1d", [(2, 3, 9)], {"window": 2, "padding": 1}),
    ("max_pool3d", [(2, 2, 4, 5, 4)], {"window": (2, 3, 2), "stride": 1, "padding": (1, 1, 0)}),
    ("avg_pool3d", [(1, 3, 4, 3, 5)], {"window": 2, "ceil_mode": True, "padding": (1, 0, 1)}),
    ("global_avg_pool", [(2, 3, 7)], {}),
    ("batch_norm", [(4, 3), *[(3,)] * 4], {"train": True}),
    ("batch_norm", [(2, 3, 2, 1, 3), *[(3,)] * 4], {"train": True, "activation": "relu"}),
]  # fmt: skip


def first(value):
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "shapes", "options"), CASES)
def test_signals_and_volumes(name, shapes, options):
    rng, operation = np.random.default_rng(2), getattr(ax, name)
    arrays = [rng.standard_normal(shape).astype("f4") for shape in shapes]
    arrays = [np.abs(a) if a.ndim == 1 else a for a in arrays]
    with kernels("portable"):
        expected, exact = operation.vjp(*(a.astype("f8") for a in arrays), **options)
    dy = rng.standard_normal(first(expected).shape).astype("f4")
    dy = np.where(np.abs(first(expected)) < 1e-4, np.float32(0), dy)
    with kernels("require"):
        assert "CUDA" in explain(operation, *arrays, **options)
        y, pullback = operation.vjp(*arrays, **options)
        gradients = pullback(dy)
        np.testing.assert_array_equal(first(operation(*arrays, **options)), first(y))
    assert_close(first(y), first(expected), "float32", 64)
    for g, e in zip(gradients, exact(dy.astype("f8")), strict=True):
        assert (g is None) == (e is None)
        if g is not None:
            assert_close(g, e, "float32", 400)


def test_volumes_that_no_reshape_makes_images_of_are_left_to_the_definition():
    x, w = np.ones((1, 2, 3, 3, 3), "f4"), np.ones((2, 2, 2, 2, 2), "f4")
    y = ax.conv3d(x, w)
    assert_close(y, np.full((1, 2, 2, 2, 2), 16.0), "float32")
