"""The CUDA kernels of the activations against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import add, explain, kernels, log_sigmoid, relu, sigmoid
from agnostic_xent.kernels.cuda import activations
from agnostic_xent.kernels.cuda.toolchain import elementary
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import tolerance
from tests.cuda.mistaken import plant

ACTIVATIONS = [relu, sigmoid, log_sigmoid]
SHAPES = [(), (1,), (7,), (3, 5, 11), (1025,)]
SPECIAL = [np.nan, 0.0, -0.0, np.inf, -np.inf, 90.0, -90.0, 30.0, -30.0, 1e-6, -1e-6, 3e38, -3e38]

each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)


def draw(shape, dtype="float32"):
    x, dy = 3 * np.random.default_rng(0).standard_normal((2, *shape))
    return np.asarray(x).astype(dtype), np.asarray(dy).astype(dtype)


def check(activation, x, dy, unit=None):
    """Compare each element with the definition, relative to itself."""
    with kernels("require"):
        assert "CUDA" in explain(activation, x)
        y, pullback = activation.vjp(x)
        (dx,) = pullback(dy)
        np.testing.assert_array_equal(y, activation(x))
    with kernels("portable"):
        expected, portable = activation.vjp(x.astype("float64"))
        exact = portable(dy.astype("float64"))[0]
    for found, wanted in ((y, expected), (dx, exact)):
        assert found.dtype == x.dtype
        unit = unit or tolerance(str(x.dtype))
        tiny = 2.0**-24 if x.dtype.itemsize == 2 else 2.0**-126
        np.testing.assert_allclose(found.astype("float64"), wanted, rtol=unit, atol=tiny)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_activation
def test_values(activation, shape, dtype):
    check(activation, *draw(shape, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_activation
def test_special_values(activation, dtype):
    x = np.array(SPECIAL, dtype)
    check(activation, x, np.ones_like(x))
    check(activation, np.ones_like(x), x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_activation
def test_halves(activation, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    check(activation, *draw((5, 7), dtype), unit=2.0**-10 if dtype == "float16" else 2.0**-7)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums(shape, activation, dtype):
    x1, x2 = draw(shape, dtype)
    with kernels("require"):
        y, pullback = add.vjp(x1, x2, activation=activation)
        gradients = pullback(x1)
        np.testing.assert_array_equal(y, add(x1, x2, activation=activation))
    with kernels("portable"):
        expected, portable = add.vjp(x1, x2, activation=activation)
    for found, wanted in zip((y, *gradients), (expected, *portable(x1)), strict=True):
        assert found.dtype == x1.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("place", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
@each_activation
def test_arrays_lie_anywhere(activation, place):
    check(activation, *map(place, draw((3, 4))))


MISTAKES = {
    "an element too many": (activations, "* THREADS < n:", "* THREADS <= n:", sigmoid),
    "elements left out": (activations, "THREADS * AT_ONCE + cuda", "THREADS + cuda", relu),
    "overflow": (elementary, "math.exp(-abs(v))", "math.exp(-v)", sigmoid),
    "a slope of squares": (activations, "(one + e) * (one + e)", "one + e", sigmoid),
    "the other side": (activations, "sigmoid_of(-v)", "sigmoid_of(v)", log_sigmoid),
    "lost digits": (
        activations, "math.log1p(exp_minus_abs(v))", "math.log(1 + exp_minus_abs(v))", log_sigmoid,
    ),
    "ReLU of NaN": (activations, "type(v)(0) if v <= 0 else v", "v if v > 0 else type(v)(0)", relu),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, activation = MISTAKES[mistake]
    plant(monkeypatch, module, old, new, [elementary, activations])
    x = np.resize(np.array(SPECIAL, "float32"), 2500)
    with pytest.raises((AssertionError, IndexError, OverflowError)):
        check(activation, x, np.ones_like(x))


def test_variants_are_all_kernels():
    check(relu, *draw((5,)))
    known = {(k.function.__qualname__, k.parameters) for k in activations.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == activations.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
