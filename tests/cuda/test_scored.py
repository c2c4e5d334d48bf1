"""The CUDA kernels of cross entropy over labels with a cap, a prior, a z-loss; the log-sum-exp."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import cross_entropy, explain, kernels
from agnostic_xent.kernels.cuda.loss import cross_entropy as labels
from agnostic_xent.kernels.cuda.loss import scored as host
from agnostic_xent.kernels.cuda.toolchain import elementary
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.cross_entropy_case import check, draw, widened
from tests.cuda.mistaken import plant

SHAPES = [((6,), -1), ((3, 1), 1), ((5, 8), 1), ((3, 9), 1), ((2, 1100), 1)]
PLANES = [((2, 7, 3), 1), ((5, 2, 33), 1), ((4, 40), 0)]
OPTIONS = {
    "cap": {"softcap": 4.0},
    "prior": {"class_prior": True},
    "z-loss": {"z_loss": 0.25},
    "scores": {"softcap": 3.0, "class_prior": True, "z_loss": 0.25, "temperature": 0.5},
    "none": {"softcap": 3.0, "z_loss": 0.25, "reduction": "none"},
    "smoothed": {"class_prior": True, "label_smoothing": 0.25, "temperature": 2.0},
    "weight": {"weight": True, "softcap": 4.0, "label_smoothing": 0.1, "z_loss": 0.125},
    "all": {
        "weight": True, "sample_weight": True, "ignore_index": 1, "label_smoothing": 0.1,
        "temperature": 2.0, "softcap": 3.0, "class_prior": True, "z_loss": 0.25,
    },
    "none of all": {
        "weight": True, "sample_weight": True, "ignore_index": 1, "reduction": "none",
        "class_prior": True, "z_loss": 0.25,
    },
}  # fmt: skip


def drawn(shape, axis=-1, dtype="float32", **options):
    """Return logits, labels and options with arrays in place of True."""
    logits, target, options = draw(shape, axis, dtype, **options)
    if "class_prior" in options:
        prior = np.random.default_rng(5).random(shape[axis]) + 0.1
        options["class_prior"] = prior.astype(dtype)
    return logits, target, options


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_shapes(shape, axis, dtype):
    check(*drawn(shape, axis, dtype, **OPTIONS["scores"]))


@pytest.mark.parametrize("name", ["scores", "all", "none of all"])
@pytest.mark.parametrize(("shape", "axis"), PLANES, ids=str)
def test_planes(monkeypatch, shape, axis, name):
    check(*drawn(shape, axis, **OPTIONS[name]))
    monkeypatch.setattr(labels, "FEW_PIXELS", 0)
    check(*drawn(shape, axis, **OPTIONS[name]))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [(7, 6), (5, 20)], ids=str)
def test_options(shape, name):
    check(*drawn(shape, **OPTIONS[name]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", [None, "scores", "all"])
def test_log_sum_exp(name, reduction):
    x, target, options = drawn((5, 12), **OPTIONS.get(name, {}) | {"reduction": reduction})
    options |= {"return_logsumexp": True}
    with kernels("portable"):
        (_, expected), exact = cross_entropy.vjp(x.astype("f8"), target, **widened(options))
    with kernels("require"):
        (loss, found), pullback = cross_entropy.vjp(x, target, **options)
        again, sums = cross_entropy(x, target, **options)
    assert found.dtype == x.dtype
    assert_close(found, expected, "float32", 12)
    np.testing.assert_array_equal(found, sums)
    np.testing.assert_array_equal(loss, again)
    dy = np.ones(loss.shape, "f4")
    assert_close(pullback(dy)[0], exact(dy.astype("f8"))[0], "float32", 12)


@pytest.mark.parametrize("name", ["scores", "none of all"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype, name):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    x, target, options = drawn((5, 20), dtype=dtype, **OPTIONS[name])
    with kernels("portable"):
        expected, exact = cross_entropy.vjp(x.astype("f8"), target, **{
            k: v.astype("f8") if hasattr(v, "dtype") else v for k, v in options.items()
        })  # fmt: skip
        dx = exact(np.ones(expected.shape))[0]
    with kernels("require"):
        found, pullback = cross_entropy.vjp(x, target, **options)
        gradient = pullback(np.ones(found.shape, dtype))[0]
    unit = 2.0**-10 if x.dtype.name == "float16" else 2.0**-7
    for one, other in ((found, expected), (gradient, dx)):
        assert one.dtype == x.dtype
        error = np.abs(np.asarray(one, "f8") - other)
        assert np.all(error <= unit * np.abs(other) + 2.0**-20)


@pytest.mark.parametrize("name", ["prior", "z-loss", "none of all"])
@pytest.mark.parametrize("width", [5, 40])
def test_special_values(width, name):
    x = np.random.default_rng(0).standard_normal((9, width)).astype("f4")
    x[1] += 1e30 if name == "prior" else 100
    x[2, 1], x[3, 1], x[4, :], x[5, 0], x[6, 1] = np.nan, np.inf, -np.inf, -np.inf, -np.inf
    x[7, 0], x[7, 1:], x[8, 1:] = 40, -40, -np.inf
    _, _, options = drawn(x.shape, **OPTIONS[name] | {"reduction": "none"})
    options.pop("sample_weight", None)
    check(x, np.zeros(len(x), "i8"), options, finite=False)


def test_a_prior_keeps_its_digits_beside_a_common_offset():
    x, target, options = drawn((6, 7), **OPTIONS["prior"])
    x = np.round(x, 1) * 8  # exact beside the offset
    x = np.round(x)
    with kernels("require"):
        near, far = (cross_entropy(z, target, **options) for z in (x, x + np.float32(2**20)))
    assert near == far


def test_hyperbolic_tangents():
    """Within 4 units in the last place, also of small numbers."""
    v = np.concatenate([np.linspace(-9, 9, 400), np.geomspace(1e-12, 1, 200), [0, np.inf, -np.inf]])
    for kind, tanh in elementary.HYPERBOLIC_TANGENTS.items():
        x = v.astype(kind)
        found = np.array([tanh(number) for number in x])
        exact = np.tanh(x.astype(np.longdouble))
        assert found.dtype == kind
        unit = np.spacing(np.abs(exact).astype(kind))
        assert np.max(np.abs(found - exact) / unit) < 4
        assert np.isnan(tanh(kind(np.nan)))


def test_a_class_that_does_not_occur():
    x, target, options = drawn((6, 7), **OPTIONS["prior"])
    options["class_prior"][3] = 0
    check(x, np.where(target == 3, 2, target), options)


def test_bad_labels_and_what_is_ignored():
    x, _, options = drawn((5, 4), **OPTIONS["scores"] | {"reduction": "none"})
    target = np.array([0, -1, 4, 2**40, 3])
    for extra in ({}, {"ignore_index": -1}, {"weight": np.ones(4, "f4")}):
        check(x, target, options | extra | {"check_labels": False}, finite=False)


def test_the_gradient_may_go_over_the_logits():
    x, target, options = drawn((5, 40), **OPTIONS["all"])
    with kernels("require"):
        expected = cross_entropy.vjp(x, target, **options)[1](np.ones((), "f4"))[0]
        _, pullback = cross_entropy.vjp(x.copy(), target, overwrite_logits=True, **options)
        np.testing.assert_array_equal(pullback(np.ones((), "f4"))[0], expected)


def test_what_has_no_kernel_runs_portably():
    x, target, options = drawn((5, 4), **OPTIONS["prior"])
    taken = "it takes a finite temperature beside class_prior"
    assert taken in explain(cross_entropy, x, target, **options | {"temperature": np.inf})
    t = np.full_like(x, 0.25)
    assert "z_loss" in explain(cross_entropy, x, t, z_loss=0.5)


# --- mistakes are caught --------------------------------------------------------------------------

MISTAKES = {
    "no sum": ("top, rest = absorb(", "top, _ = absorb(", "cap"),
    "a row too many": ("if n >= rows:  #", "if n > rows:  #", "cap"),
    "no offset": ("v += get(offset, c)", "v += type(v)(0)", "prior"),
    "tempered offsets": ("log_prior * self.options.temperature", "log_prior", "scores"),
    "the base": ("(base + top) * sharpness", "top * sharpness", "scores"),
    "no cap": ("tanh(v / softcap)\n        v -=", "(v / softcap)\n        v -=", "cap"),
    "the slope of the cap": ("(kind(1) - t) * (kind(1) + t)", "kind(1) - t", "cap"),
    "the z-loss": ("z_loss * of_scores * of_scores", "z_loss * of_scores", "z-loss"),
    "its slope": ("kind(2) * z_loss", "z_loss", "z-loss"),
    "smoothing": ("q += kept * w", "q = kept * w", "smoothed"),
    "what does not count": ("b * slope if counts else zero", "b * slope", "none of all"),
    "its term": ("a * term if counts else zero", "a * term", "none of all"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new, name = MISTAKES[mistake]
    plant(monkeypatch, host, old, new)
    with pytest.raises((AssertionError, IndexError)):
        check(*drawn((7, 6), **OPTIONS[name]))


def test_variants_are_all_kernels():
    check(*drawn((3, 9), **OPTIONS["all"]))
    known = {(k.function.__qualname__, k.parameters) for k in host.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == host.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
