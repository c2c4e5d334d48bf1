"""The kernels of the activations against the portable definitions."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import kernels, relu

SHAPES = [(1,), (7,), (3, 5, 11), (1025,), (0, 4)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_relu(shape, dtype):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    x.ravel()[::4] = np.resize([np.nan, 0.0, -0.0, np.inf, -np.inf], x.ravel()[::4].shape)
    with kernels("require"):
        y, pullback = relu.vjp(x)
        (dx,) = pullback(dy)
    with kernels("portable"):
        expected, portable = relu.vjp(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, portable(dy)[0])
