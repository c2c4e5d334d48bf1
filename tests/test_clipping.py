"""Gradients that are clipped to a norm before the optimizer's step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_close

from agnostic_xent import SGD, AdamW, ClipByNorm, to_numpy

RNG = np.random.default_rng(4)
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (), "none": (0, 3)}
PARAMS, GRADS = ({k: RNG.standard_normal(s) for k, s in SHAPES.items()} for _ in range(2))
NORM = math.sqrt(sum(float(np.sum(g**2)) for g in GRADS.values()))


@pytest.mark.parametrize("share", [0.25, 0.999, 1.001, 10.0])
@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), AdamW(0.01)], ids=["sgd", "adamw"])
def test_the_formula(row, optimizer, share):
    for dtype in row.dtypes:
        params, grads = ({k: row.array(x, dtype) for k, x in t.items()} for t in (PARAMS, GRADS))
        clipped = ClipByNorm(optimizer, norm=share * NORM)
        state = clipped.init(params)
        for _ in range(2):
            found, state = clipped.update(params, grads, state)
        scaled = {k: min(1.0, share) * g.astype(dtype) for k, g in GRADS.items()}
        start = {k: x.astype(dtype) for k, x in PARAMS.items()}
        plain = optimizer.init(start)
        for _ in range(2):
            expected, plain = optimizer.update(start, scaled, plain)
        assert state["step"] == 2
        for name, w in expected.items():
            row.check(found[name], dtype)
            assert_close(found[name], w, dtype, 8)
            assert_close(grads[name], GRADS[name].astype(dtype), dtype)  # not written to


def test_what_is_small_enough_keeps_its_bits():
    for scale in (1.0, 0.0):
        grads = {k: scale * g for k, g in GRADS.items()}
        found, _ = ClipByNorm(SGD(0.1), norm=2 * NORM).update(PARAMS, grads, SGD(0.1).init(PARAMS))
        expected, _ = SGD(0.1).update(PARAMS, grads, SGD(0.1).init(PARAMS))
        for name, w in expected.items():
            np.testing.assert_array_equal(found[name], w)


def test_squares_do_not_overflow():
    grads = {"w": np.asarray([3e30, 4e30], "f4")}
    params = {"w": np.zeros(2, "f4")}
    found, _ = ClipByNorm(SGD(1.0), norm=5.0).update(params, grads, SGD(1.0).init(params))
    np.testing.assert_allclose(to_numpy(found["w"]), [-3, -4], rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows(bad):
    params, grads = {"w": np.zeros(2)}, {"w": np.asarray([1.0, bad])}
    with np.errstate(all="ignore"):
        found, _ = ClipByNorm(SGD(1.0), norm=1.0).update(params, grads, SGD(1.0).init(params))
    assert not np.isfinite(found["w"]).all()


def test_half_precision():
    params, grads = {"w": np.zeros(3, "f2")}, {"w": np.asarray([6e4] * 3, "f2")}
    found, _ = ClipByNorm(SGD(1.0), norm=3.0).update(params, grads, SGD(1.0).init(params))
    assert found["w"].dtype == "float16"
    np.testing.assert_allclose(found["w"], -math.sqrt(3), rtol=1e-3)


def test_arguments():
    for norm in (0, -1.0, math.inf, "1"):
        with pytest.raises(ValueError, match="norm must be a finite number > 0"):
            ClipByNorm(SGD(0.1), norm=norm)
    with pytest.raises(TypeError, match=r"optimizer must be one such as SGD\(0.1\)"):
        ClipByNorm(SGD, norm=1.0)
