"""Every operation x every backend: value, gradient, library, dtype, device, purity, tracing."""

from __future__ import annotations

import importlib

import numpy as np
import oracles
import pytest
from conftest import Row, assert_close, each_row_and_mode
from samples import SAMPLES, Sample, normal

from agnostic_xent.core.conversion import to_numpy
from agnostic_xent.core.operation import OPERATIONS, kernels

each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)


def arguments(row: Row, sample: Sample, dtype: str) -> list:
    return [None if a is None else row.array(a, dtype) for a in sample.arrays]


def first(value):
    return value[0] if isinstance(value, tuple) else value


def reference(sample: Sample, dtype: str):
    """Return the oracle's value for the arguments as ``dtype`` rounds them."""
    exact = [
        a.astype(dtype).astype("float64") if a is not None and a.dtype.kind == "f" else a
        for a in sample.arrays
    ]
    return getattr(oracles, sample.operation)(*exact, *sample.extra, **sample.options)


def cotangent(sample: Sample, shape) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape)


def numpy_gradients(sample: Sample, dtype: str):
    """Return NumPy's float64 gradients for the arguments as ``dtype`` rounds them."""
    arrays = [
        a.astype(dtype).astype("float64") if a is not None and a.dtype.kind == "f" else a
        for a in sample.arrays
    ]
    with kernels("portable"):
        value, pullback = OPERATIONS[sample.operation].vjp(*arrays, *sample.extra, **sample.options)
        dy = cotangent(sample, first(value).shape).astype(dtype).astype("float64")
        return pullback(dy)


def test_every_operation_has_samples_and_an_oracle():
    assert {s.operation for s in SAMPLES} == set(OPERATIONS)


@each_row_and_mode("sample", SAMPLES)
def test_value(row, mode, sample):
    operation = OPERATIONS[sample.operation]
    for dtype in row.dtypes:
        arrays = arguments(row, sample, dtype)
        with kernels(mode):
            value = row.call(lambda *a: operation(*a, *sample.extra, **sample.options), *arrays)
        expected = reference(sample, dtype)
        values = value if isinstance(value, tuple) else (value,)
        expecteds = expected if isinstance(expected, tuple) else (expected,)
        for y, e in zip(values, expecteds, strict=True):
            row.check(y, dtype)
            assert_close(y, e, dtype, sample.terms)


@each_row_and_mode("sample", SAMPLES)
def test_pullback(row, mode, sample):
    operation = OPERATIONS[sample.operation]
    for dtype in row.dtypes:
        arrays = arguments(row, sample, dtype)
        expected = numpy_gradients(sample, dtype)
        shape = first(reference(sample, dtype)).shape
        dy = row.array(cotangent(sample, shape), dtype)

        def gradients(dy, *arrays):
            value, pullback = operation.vjp(*arrays, *sample.extra, **sample.options)
            return value, pullback(dy)

        with kernels(mode):
            value, found = row.call(gradients, dy, *arrays)
        assert_close(first(value), first(reference(sample, dtype)), dtype, sample.terms)
        assert len(found) == len(sample.arrays) == len(expected)
        for g, e in zip(found, expected, strict=True):
            assert (g is None) == (e is None)
            if g is not None:
                row.check(g, dtype)
                assert_close(g, e, dtype, 4 * sample.terms)


@each_sample
def test_gradient_by_central_differences(sample):
    """The pullback against the oracle's slope along a random direction, in float64."""
    rng = np.random.default_rng(5)
    expected = reference(sample, "float64")
    dy = cotangent(sample, first(expected).shape)
    for i, gradient in enumerate(numpy_gradients(sample, "float64")):
        if gradient is None or gradient.size == 0:
            continue
        direction = rng.standard_normal(sample.arrays[i].shape)
        slope = float(np.sum(dy * directional_slope(sample, i, direction)))
        scale = max(1.0, float(np.sum(np.abs(gradient * direction))))
        assert abs(slope - float(np.sum(gradient * direction))) <= 2e-8 * scale


def directional_slope(sample: Sample, position: int, direction: np.ndarray):
    """Return the derivative of the oracle's value: Richardson's extrapolation of differences."""

    def difference(h):
        values = []
        for sign in (1, -1):
            arrays = list(sample.arrays)
            arrays[position] = arrays[position] + sign * h * direction
            oracle = getattr(oracles, sample.operation)
            values.append(first(oracle(*arrays, *sample.extra, **sample.options)))
        return (values[0] - values[1]) / (2 * h)

    return (4 * difference(5e-5) - difference(1e-4)) / 3


def test_the_gradient_check_catches_a_small_error(monkeypatch):
    sample = next(s for s in SAMPLES if s.operation == "dense")
    test_gradient_by_central_differences(sample)
    right = numpy_gradients(sample, "float64")
    wrong = (right[0] * 1.0005, *right[1:])
    monkeypatch.setitem(globals(), "numpy_gradients", lambda *a: wrong)
    with pytest.raises(AssertionError):
        test_gradient_by_central_differences(sample)


@each_sample
def test_arguments_are_not_written_to(sample):
    arrays = [None if a is None else a.copy() for a in sample.arrays]
    value, pullback = OPERATIONS[sample.operation].vjp(*arrays, *sample.extra, **sample.options)
    before = first(value).copy()
    dy = cotangent(sample, first(value).shape)
    kept = dy.copy()
    pullback(dy)
    for a, original in zip([*arrays, dy], [*sample.arrays, kept], strict=True):
        np.testing.assert_array_equal(a, original)
    np.testing.assert_array_equal(first(value), before)


@each_sample
def test_wrt_leaves_out_gradients(sample):
    operation = OPERATIONS[sample.operation]
    value, pullback = operation.vjp(*sample.arrays, *sample.extra, **sample.options)
    full = pullback(cotangent(sample, first(value).shape))
    for i in range(len(sample.arrays)):
        value, pullback = operation.vjp(*sample.arrays, *sample.extra, wrt=[i], **sample.options)
        found = pullback(cotangent(sample, first(value).shape))
        for j, (f, g) in enumerate(zip(full, found, strict=True)):
            if j != i or f is None:
                assert g is None
            else:
                np.testing.assert_array_equal(f, g)


IGNORED = [  # labels that are no class
    Sample("cross_entropy", (normal(4, 3), labels), options={"ignore_index": -100} | smoothing)
    for labels in [np.array([0, -100, 2, -100])]
    for smoothing in ({}, {"label_smoothing": 0.1})
] + [
    Sample("nll_loss", (normal(3, 2), np.array([-1, 1, 0])), options={"ignore_index": -1}),
    Sample(
        "linear_cross_entropy",
        (normal(3, 4), normal(5, 4), np.array([7, 4, 0]), normal(5)),
        options={"ignore_index": 7},
    ),
]


@pytest.mark.parametrize("sample", [*SAMPLES, *IGNORED], ids=lambda s: s.id)
def test_automatic_differentiation_agrees(sample):
    """torch's autograd and jax.grad go through the portable definitions and find the pullback."""
    expected = numpy_gradients(sample, "float64")
    for library in ("torch", "jax"):
        pytest.importorskip(library)
        for e, g in zip(expected, AUTOMATIC[library](sample), strict=True):
            if e is not None:
                assert_close(g, e, "float64", 16 * sample.terms)


def torch_gradients(sample: Sample):
    torch = importlib.import_module("torch")
    arrays = [None if a is None else torch.asarray(a.copy()) for a in sample.arrays]
    leaves = [a for a in arrays if a is not None and a.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    value = first(OPERATIONS[sample.operation](*arrays, *sample.extra, **sample.options))
    dy = torch.asarray(cotangent(sample, tuple(value.shape)))
    grads = iter(torch.autograd.grad(value, leaves, dy, allow_unused=True))
    return [next(grads) if any(a is leaf for leaf in leaves) else None for a in arrays]


def jax_gradients(sample: Sample):
    jax = importlib.import_module("jax")
    arrays = [None if a is None else jax.numpy.asarray(a) for a in sample.arrays]
    floats = [i for i, a in enumerate(arrays) if a is not None and a.dtype.kind == "f"]

    def total(*leaves):
        full = list(arrays)
        for i, leaf in zip(floats, leaves, strict=True):
            full[i] = leaf
        value = first(OPERATIONS[sample.operation](*full, *sample.extra, **sample.options))
        return jax.numpy.sum(value * cotangent(sample, value.shape))

    grads = jax.jit(jax.grad(total, argnums=tuple(range(len(floats)))))(
        *(arrays[i] for i in floats)
    )
    return [grads[floats.index(i)] if i in floats else None for i in range(len(arrays))]


AUTOMATIC = {"torch": torch_gradients, "jax": jax_gradients}


def test_relu_at_its_kink(row):
    """The derivative at 0 is 0, on both zeros; NaN stays NaN and lets its cotangent through."""
    x = row.array([-0.0, 0.0, float("nan"), float("inf")], "float32")
    value, pullback = OPERATIONS["relu"].vjp(x)
    np.testing.assert_array_equal(to_numpy(value), [0.0, 0.0, np.nan, np.inf])
    (dx,) = pullback(row.array([1.0, 1.0, 1.0, 1.0], "float32"))
    np.testing.assert_array_equal(to_numpy(dx), [0.0, 0.0, 1.0, 1.0])
