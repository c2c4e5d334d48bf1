"""The CUDA kernels of the binary losses against the portable definitions in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from agnostic_xent import binary_cross_entropy, binary_cross_entropy_with_logits, explain, kernels
from agnostic_xent.kernels.cuda.loss import binary_cross_entropy as host
from agnostic_xent.kernels.cuda.loss import binary_kernels, gradients
from agnostic_xent.kernels.cuda.toolchain import elementary
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

LOSSES = binary_cross_entropy_with_logits, binary_cross_entropy
SHAPES = [(), (1,), (2, 3), (5, 1, 3), (1100,)]

each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def draw(loss, shape, dtype="float32"):
    """Return scores and targets."""
    rng = np.random.default_rng(0)
    x, t = np.asarray(rng.random(shape)), np.asarray(rng.random(shape))
    if loss is binary_cross_entropy_with_logits:
        x = np.asarray(5 * rng.standard_normal(shape))
    t.reshape(-1)[:2] = [0, 1][: t.size]
    return x.astype(dtype), t.astype(dtype)


def results(loss, x, t, wrt=None, **options):
    """Return value and gradients of the kernel, and of the definition in float64."""
    wide = {k: v.astype("f8") if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with kernels("portable"):
        expected, exact = loss.vjp(x.astype("f8"), t.astype("f8"), wrt=wrt, **wide)
    found, slopes = [], []
    with kernels("require"):
        assert "CUDA" in explain(loss, x, t, **options)
        value, pullback = loss.vjp(x, t, wrt=wrt, **options)
        np.testing.assert_array_equal(value, loss(x, t, **options))
        for dy in (np.ones(expected.shape), np.random.default_rng(2).random(expected.shape)):
            dy = np.asarray(dy).astype(x.dtype)
            found += pullback(dy)
            slopes += exact(dy.astype("f8"))
    assert [g is None for g in found] == [g is None for g in slopes]
    pairs = [(g, s) for g, s in zip(found, slopes, strict=True) if g is not None]
    pairs.insert(0, (value, expected))
    assert all(one.dtype == x.dtype for one, _ in pairs)
    return pairs


def check(loss, x, t, terms=16, **options):
    for found, expected in results(loss, x, t, **options):
        assert_close(found, expected, str(x.dtype), terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_loss
def test_values_and_gradients(loss, shape, reduction, dtype):
    check(loss, *draw(loss, shape, dtype), reduction=reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@each_loss
def test_options(loss, reduction):
    x, t = draw(loss, (6, 5))
    rng = np.random.default_rng(1)
    w, q, a = (rng.random(s).astype("f4") for s in [(6, 5), (5,), (6,)])
    w[0, 1], q[3], a[2] = 0, 0, 0
    x[2, 3] = np.nan
    positive = (None, q) if loss is binary_cross_entropy_with_logits else (None,)
    every = itertools.product((None, w, w[:1]), positive, (a, None), (0.0, 0.2))
    names = "weight", "pos_weight", "sample_weight", "label_smoothing"
    for number, values in enumerate(every):
        options = dict(zip(names, values, strict=True), reduction=reduction)
        if len(positive) == 1:
            del options["pos_weight"]
        if options["sample_weight"] is None:
            x[2, 3] = 0.5
        normalize = (None, "weight", "count", 7)[number % 4] if reduction == "mean" else None
        check(loss, x, t, normalize=normalize, **options)


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (3, 1, 5), (4, 1), (3, 4, 1), (1, 4, 1)])
def test_weights_that_broadcast(shape):
    loss = binary_cross_entropy_with_logits
    x, t = draw(loss, (3, 4, 5))
    if shape == (5, 1):
        x, t = draw(loss, (2, 3, 5, 1))
    w, q = np.random.default_rng(3).random((2, *shape)).astype("f4")
    check(loss, x, t, weight=np.asarray(w), pos_weight=np.asarray(q), normalize="weight")


@pytest.mark.parametrize("wrt", [(), (0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "none"])
@each_loss
def test_only_wanted_gradients(loss, reduction, wrt):
    x, t = draw(loss, (3, 4))
    check(loss, x, t, wrt=wrt, reduction=reduction, weight=np.arange(4, dtype="f4"))


@each_loss
def test_a_gradient_is_the_callers(loss):
    x, t = draw(loss, (3, 4))
    with kernels("require"):
        _, pullback = loss.vjp(x, t, wrt=(0,))
        first = pullback(np.ones((), "f4"))[0]
        kept = first.copy()
        first[...] = 7
        np.testing.assert_array_equal(pullback(np.ones((), "f4"))[0], kept)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_loss
def test_halves(loss, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    x, t = draw(loss, (7, 5), dtype)
    w = np.random.default_rng(1).random(5).astype(dtype)
    unit = 2.0**-10 if x.dtype.name == "float16" else 2.0**-7
    for reduction in ("mean", "none"):
        for found, expected in results(loss, x, t, weight=w, reduction=reduction):
            error = np.abs(np.asarray(found, "f8") - expected)
            assert np.all(error <= unit * np.abs(expected) + 2.0**-20)


def same(loss, x, t, **options):
    """Compare the kernel with the definition where results may be infinite or NaN."""
    for found, expected in results(loss, x, t, reduction="none", **options):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(found[infinite], expected[infinite])
        finite = np.isfinite(expected)
        assert_close(found[finite], expected[finite], str(x.dtype), 8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_loss
def test_special_values(loss, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([inf, -inf, nan, 0, 200, -200, inf, -inf, 1, nan, 1, 0, 0, 1, 1e-30], dtype)
    t = np.array([1, 0, 0, 0.5, 0, 1, 0, 1, nan, 1, 1, 0, 1, 0, 1], dtype)
    for w in (None, (np.arange(15) < 8).astype(dtype)):
        same(loss, x, t, weight=w)
        if loss is binary_cross_entropy_with_logits:
            same(loss, x, t, weight=w, pos_weight=np.zeros(15, dtype))


def test_a_mean_of_tiny_probabilities_does_not_overflow():
    p, t = np.full(4, 2.0**-128, "f4"), np.ones(4, "f4")
    with kernels("require"):
        pullback = binary_cross_entropy.vjp(p, t, wrt=(0,), normalize=16.0)[1]
        for dy in (1.0, 0.0):
            assert (pullback(np.asarray(dy, "f4"))[0] == -dy * 2.0**124).all()


def test_a_gradient_keeps_its_digits():
    z, t = np.array([40, -40, 20], "f4"), np.array([1, 0, 1], "f4")
    with kernels("require"):
        value, pullback = binary_cross_entropy_with_logits.vjp(z, t, reduction="none")
        slope = pullback(np.ones(3, "f4"))[0]
    rest = np.exp(-np.abs(z.astype("f8")))
    assert_close(value / np.log1p(rest), np.ones(3), "float32", terms=4)
    assert_close(slope / (rest / (1 + rest)), [-1, 1, -1], "float32", terms=4)


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
@each_loss
def test_no_weight_at_all(loss, on_empty):
    x, t = draw(loss, (3, 2))
    options = {"weight": np.zeros((3, 2), "f4"), "normalize": "weight", "on_empty": on_empty}
    with kernels("require"):
        value, pullback = loss.vjp(x, t, wrt=(0,), **options)
        np.testing.assert_array_equal(value, np.nan if on_empty == "nan" else 0)
        for dy in (1, np.nan):
            np.testing.assert_array_equal(pullback(np.float32(dy))[0], np.zeros((3, 2)))


def strided(x):
    wide = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    part[...] = x
    part.flags.writeable = False
    return part


@each_loss
def test_arrays_lie_anywhere(loss):
    x, t, w = map(strided, (*draw(loss, (3, 5)), np.arange(5, dtype="f4")))
    check(loss, x, t, weight=w, sample_weight=strided(np.arange(3, dtype="f4")))


# --- mistakes are caught --------------------------------------------------------------------------

KERNEL, HOST, GRADIENTS = binary_kernels, host, gradients
LOSS = binary_cross_entropy_with_logits


def with_options():
    test_options(LOSS, "mean")


def with_weights():
    for shape in ((4, 1), (3, 1, 5)):
        test_weights_that_broadcast(shape)


MISTAKES = {
    "an element too few": (
        KERNEL, "i < n:\n                w", "i < n - 1:\n                w", with_options,
    ),
    "a period": (KERNEL, "i // inner % period", "i // inner", with_options),
    "an inner": (KERNEL, "i // pos_inner % pos_period", "i % pos_period", with_weights),
    "a sample's weight": (KERNEL, "i // of_sample", "0", with_options),
    "0 * inf": (
        elementary, "if t == 0 and abs(x) == kind(math.inf)", "if False",
        lambda: test_special_values(LOSS, "float32"),
    ),
    "the other logarithm": (
        KERNEL, "product(one - t, log_q)", "product(one - t, log_p)", with_options,
    ),
    "weight of the positive": (
        KERNEL, "times(q, down)", "down", with_options,
    ),
    "the cotangent": (KERNEL, "b *= widen(get(dy, 0))", "pass", with_options),
    "each cotangent": (
        KERNEL, "widen(get(dy, i))", "widen(get(dy, 0))",
        lambda: test_only_wanted_gradients(LOSS, "none", (0, 1)),
    ),
    "half the smoothing": (HOST, "smoothing / 2, ", "smoothing, ", with_options),
    "the divisor": (HOST, "DIVIDED * (self.divisor is not None)", "0", with_options),
    "axes in between": (HOST, "own[-1] + 1", "own[0] + 1", with_weights),
    "a gradient goes out again": (
        GRADIENTS, "ahead.pop()", "ahead[0]", lambda: test_a_gradient_is_the_callers(LOSS)
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, case = MISTAKES[mistake]
    plant(monkeypatch, module, old, new, [elementary, KERNEL, GRADIENTS, HOST])
    with pytest.raises((AssertionError, IndexError, ValueError)):
        case()


def test_variants_are_all_kernels():
    check(LOSSES[0], *draw(LOSSES[0], (2, 3)))
    known = {(k.function.__qualname__, k.parameters) for k in binary_kernels.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == binary_kernels.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
