"""What the tests of the CUDA kernels of cross entropy share: arguments, and the comparison."""

from __future__ import annotations

import numpy as np

from agnostic_xent import cross_entropy, explain, kernels
from tests.conftest import assert_close

SEED = 3
OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothed": {"label_smoothing": 0.25},
    "weight": {"weight": True},
    "weight and smoothed": {"weight": True, "label_smoothing": 0.1, "temperature": 0.5},
    "all": {
        "weight": True, "sample_weight": True, "ignore_index": 1, "label_smoothing": 0.1,
        "temperature": 2.0,
    },
    "ignored": {"ignore_index": 0},
    "ignored by no label": {"ignore_index": -100, "reduction": "sum"},
    "sample weight": {"sample_weight": True},
    "count": {"weight": True, "sample_weight": True, "ignore_index": 1, "normalize": "count"},
    "number": {"sample_weight": True, "normalize": 7.0},
    "none of all": {
        "weight": True, "sample_weight": True, "ignore_index": 1, "reduction": "none",
        "label_smoothing": 0.1,
    },
    "only smoothing": {"label_smoothing": 1.0},
}  # fmt: skip


def draw(shape, axis=-1, dtype="float32", label_dtype="int64", **options):
    """Return logits, labels and options with arrays in place of True."""
    rng = np.random.default_rng(SEED)
    axis %= len(shape)
    samples = shape[:axis] + shape[axis + 1 :]
    logits = (3 * rng.standard_normal(shape)).astype(dtype)
    labels = np.asarray(rng.integers(0, shape[axis], samples, dtype=label_dtype))
    labels.reshape(-1)[2::5], labels.reshape(-1)[3::5] = 0, 1 % shape[axis]
    if "weight" in options:
        options["weight"] = rng.random(shape[axis]).astype(dtype)
        options["weight"][-1] = shape[axis] == 1
    if "sample_weight" in options:
        options["sample_weight"] = np.asarray(rng.random(samples)).astype(dtype)
        options["sample_weight"].reshape(-1)[::4] = 0  # these samples' logits count for nothing
        np.moveaxis(logits, axis, -1)[options["sample_weight"] == 0] = np.nan
    return logits, labels, options | {"axis": axis}


def widened(options):
    return {
        name: x.astype("float64") if isinstance(x, np.ndarray) else x for name, x in options.items()
    }


def check(logits, labels, options, place=lambda x: x, finite=True):
    """Compare value and gradient with the definition, for cotangents of 1 and others."""
    dtype = str(logits.dtype)
    terms = 8 + logits.shape[options["axis"]] ** 0.5
    with kernels("portable"):
        expected, exact = cross_entropy.vjp(logits.astype("float64"), labels, **widened(options))
    assert np.all(np.isfinite(expected)) or not finite
    ones = np.ones(expected.shape, logits.dtype)
    other = np.random.default_rng(1).standard_normal(expected.shape).astype(logits.dtype)
    placed = {name: place(x) if hasattr(x, "dtype") else x for name, x in options.items()}
    with kernels("require"):
        assert "CUDA" in explain(cross_entropy, place(logits), place(labels), **placed)
        value = cross_entropy(place(logits), place(labels), **placed)
        found, pullback = cross_entropy.vjp(place(logits), place(labels), **placed)
        for dy in (ones, other):
            dx, nothing = pullback(dy)
            assert nothing is None
            assert dx.dtype == logits.dtype
            assert_close(dx, exact(dy.astype("float64"))[0], dtype, terms)
    assert found.dtype == logits.dtype
    np.testing.assert_array_equal(found, value)
    assert_close(found, expected, dtype, terms)
