"""The CUDA kernel of dropout against the portable definition."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import dropout, explain, kernels
from agnostic_xent.kernels.cuda import dropout as host
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant


def check(x, dy, rate=0.3):
    with kernels("portable"):
        expected, exact = dropout.vjp(x.astype("f8"), rate=rate, rng=1)
    with kernels("require"):
        assert "CUDA" in explain(dropout, x, rate=rate, rng=1)
        found, pullback = dropout.vjp(x, rate=rate, rng=1)
        np.testing.assert_array_equal(found, dropout(x, rate=rate, rng=1))
        (dx,) = pullback(dy)
    for one, other in ((found, expected), (dx, exact(dy.astype("f8"))[0])):
        assert one.dtype == x.dtype
        np.testing.assert_array_equal(one == 0, other == 0)
        assert_close(one, other, str(x.dtype))


def draw(shape, dtype="float32"):
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (7,), (3, 1, 5), (2500,)], ids=str)
def test_values_and_gradients(shape, dtype):
    check(*draw(shape, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounded_once(dtype):
    x, _ = draw((40,), dtype)
    with kernels("require"):
        y = dropout(x, rate=0.3, rng=1)
    keep = y != 0
    assert_close(y[keep] / (x[keep].astype("f8") / 0.7), np.ones(keep.sum()), dtype)


def test_what_is_dropped_is_zero_whatever_it_was():
    x = np.full(200, np.nan, "f4")
    x[::2] = np.inf
    with kernels("require"):
        y = dropout(x, rate=0.5, rng=1)
    assert 50 < np.sum(y == 0) < 150
    assert np.array_equal(np.isinf(y), np.isinf(x) & (y != 0))


def test_bfloat16():
    dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    x = np.random.default_rng(0).standard_normal(50).astype(dtype)
    with kernels("require"):
        y = dropout(x, rate=0.5, rng=1)
    np.testing.assert_array_equal(np.asarray(y, "f4")[y != 0], 2 * np.asarray(x, "f4")[y != 0])


def test_arrays_lie_anywhere():
    x, dy = draw((6, 10))
    check(np.asfortranarray(x), dy[::-1])
    check(x[::2, 1::3], dy[::2, 1::3])


MISTAKES = {
    "an element too few": ("if i < n:\n                put", "if i < n - 1:\n                put"),
    "the scale": (" / kind(kept)", ""),
    "the mask": ("if mask[u]", "if not mask[u]"),
    "a step": ("i = first + u * THREADS\n            if i < n:\n                v", "i = first"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new = MISTAKES[mistake]
    if mistake == "a step":
        new = old.replace("u * THREADS", "0")
    plant(monkeypatch, host, old, new)
    with pytest.raises(AssertionError):
        check(*draw((2500,)))


def test_variants_are_all_kernels():
    check(*draw((3,)))
    known = {k.parameters for k in host.variants()}
    assert {k.parameters for k in KERNELS if k.function.__module__ == host.__name__} <= known
