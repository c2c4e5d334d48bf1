"""The CUDA kernels of dense, as a captured step has them, against the definition in float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import agnostic_xent as ax
from agnostic_xent.kernels.cuda.conv import dense
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

SHAPES = {  # of x, and the units
    "one": ((1, 1), 1),
    "small": ((5, 3), 2),
    "sums in parts": ((3, 530), 2),
    "several tiles": ((17, 18), 20),
    "one row": ((1, 5), 9),
    "more axes": ((2, 3, 4), 5),
    "one sample": ((6,), 4),
}


@pytest.fixture(autouse=True)
def _captured(monkeypatch):
    """Let each step be one that is captured."""
    monkeypatch.setattr(dense, "CAPTURING", SimpleNamespace(now="a capture"))


def draw(shape, units, dtype="float32"):
    rng = np.random.default_rng(0)
    x, w, b, dy = (
        rng.standard_normal(s) for s in (shape, (units, shape[-1]), units, (*shape[:-1], units))
    )
    return [a.astype(dtype) for a in (x, w, b, dy)]


def check(shape, units, dtype="float32", place=lambda x: x, wrt=(0, 1, 2), mode="require"):
    x, w, b, dy = map(place, draw(shape, units, dtype))
    for bias in (b, None):
        wide = [None if a is None else a.astype(np.float64) for a in (x, w, bias, dy)]
        wanted = wrt if bias is not None else [i for i in wrt if i < 2]
        with ax.kernels(mode):
            y, pullback = ax.dense.vjp(x, w, bias, wrt=wanted)
            found = y, *pullback(dy)
            np.testing.assert_array_equal(ax.dense(x, w, bias), y)
        with ax.kernels("portable"):
            y, pullback = ax.dense.vjp(*wide[:3], wrt=wanted)
            expected = y, *pullback(wide[3])
        for f, e in zip(found, expected, strict=True):
            assert (f is None) == (e is None)
            if f is not None:
                assert f.dtype == dtype
                assert_close(f, e, dtype, terms=max(*shape, units))


@pytest.mark.parametrize("case", SHAPES)
def test_values_and_gradients(case):
    check(*SHAPES[case])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes(dtype):
    check((4, 6), 3, dtype)


@pytest.mark.parametrize("place", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]])
def test_arrays_lie_anywhere(place):
    check((4, 6), 3, place=place)


@pytest.mark.parametrize("wrt", [(), (0,), (1,), (2,)])
def test_gradients_that_are_asked_for(wrt):
    check((4, 6), 3, wrt=wrt)


def test_products_are_exact_in_every_mode():
    x, w, b, dy = draw((3, 40), 40)  # enough for the tensor cores
    found = []
    for mode in ("auto", "tf32"):
        with ax.kernels(mode):
            y, pullback = ax.dense.vjp(x, w, b)
            found.append((y, *pullback(dy)))
    for exact, other in zip(*found, strict=True):
        np.testing.assert_array_equal(other, exact)


def test_not_taken_by_kernels_outside_of_a_capture(monkeypatch):
    monkeypatch.setattr(dense, "CAPTURING", SimpleNamespace(now=None))
    monkeypatch.setattr(dense, "weight_gradient", None)
    check((4, 6), 3)
    assert "CuPy's matrix products" in ax.explain(ax.dense, *draw((4, 6), 3)[:2])


MISTAKES = {
    "rows for units": ("geometry(1, self.units, self.rows,", "geometry(1, self.rows, self.units,"),
    "rows and units turned": ("s.value, units, rows,", "s.value, rows, units,"),
    "images and channels": (
        "geometry(self.rows, self.features, self.units)",
        "geometry(self.features, self.rows, self.units)",
    ),
    "forward for backward": ("code_of(x), True)", "code_of(x), False)"),
    "no bias": ("y if b is None else y + b", "y"),
    "layout": ("contiguous(w)", "w"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new = MISTAKES[mistake]
    made = plant(monkeypatch, dense, old, new)
    monkeypatch.setattr(made["dense"], "CAPTURING", dense.CAPTURING)
    with pytest.raises((AssertionError, IndexError, ValueError, TypeError)):
        check((6, 5), 4, place=np.asfortranarray)
