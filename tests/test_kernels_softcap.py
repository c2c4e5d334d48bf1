"""The CPU kernel of cross entropy with a cap of logits, beside the portable definition."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from agnostic_xent import cross_entropy, explain, kernels

pytest.importorskip("agnostic_xent.kernels.cpu")

SHAPES = [((7, 5), 1), ((40, 300), 1), ((3, 4, 6), 1), ((2, 70, 50), 1), ((6, 9), 0), ((1, 1), 1)]


def drawn(seed, dtype):
    """Return logits, a target and options, drawn at random."""
    rng = np.random.default_rng(seed)
    shape, axis = SHAPES[rng.integers(len(SHAPES))]
    z = rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3)
    samples, classes = (*shape[:axis], *shape[axis + 1 :]), shape[axis]
    options = {"axis": axis, "softcap": float(rng.choice([0.5, 3.0, 30.0]))}
    options["reduction"] = str(rng.choice(["mean", "sum", "none"]))
    target = rng.integers(0, classes, samples)
    if rng.random() < 0.4:
        target = np.moveaxis(rng.dirichlet(np.ones(classes), samples), -1, axis).astype(dtype)
    elif rng.random() < 0.5:
        options |= {"ignore_index": 0, "on_empty": "zero"}
    if rng.random() < 0.4:
        options["temperature"] = 0.5
    if rng.random() < 0.4:
        options["class_prior"] = (rng.random(classes) + 0.1).astype(dtype)
    if rng.random() < 0.4:
        options |= {"z_loss": 0.125, "label_smoothing": 0.25}
    if rng.random() < 0.4:
        options |= {"sample_weight": rng.random(samples).astype(dtype), "normalize": "count"}
    order = "F" if rng.random() < 0.3 else "C"
    dy = rng.standard_normal(samples if options["reduction"] == "none" else ())
    return np.asarray(z.astype(dtype), order=order), target, options, dy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(15))
def test_the_kernel_is_the_portable_definition(seed, dtype):
    z, target, options, dy = drawn(seed, dtype)
    before = z.copy()
    with kernels("require"):
        value, pullback = cross_entropy.vjp(z, target, **options)
        dz, dt = pullback(dy.astype(dtype))
        again, _ = pullback(dy.astype(dtype))
    wide = {k: x.astype("float64") if hasattr(x, "dtype") else x for k, x in options.items()}
    t = target.astype("float64") if target.dtype.kind == "f" else target
    with kernels("portable"):
        expected, of_expected = cross_entropy.vjp(z.astype("float64"), t, **wide)
        slope, slope_t = of_expected(dy.astype(dtype).astype("float64"))
    assert_close(value, expected, dtype, 64)
    assert_close(dz, slope, dtype, 64)
    np.testing.assert_array_equal(dz, again)
    np.testing.assert_array_equal(z, before)
    assert (dt is None) == (slope_t is None)
    if dt is not None:
        assert_close(dt, slope_t, dtype, 64)


def test_infinities_are_capped():
    z = np.asarray([[np.inf, -np.inf, 0.0], [np.nan, 1.0, 2.0]], "float32")
    with kernels("require"), np.errstate(all="ignore"):
        value, pullback = cross_entropy.vjp(z, np.asarray([1, 1]), softcap=2.0, reduction="none")
    with kernels("portable"), np.errstate(all="ignore"):
        expected = cross_entropy(z, np.asarray([1, 1]), softcap=2.0, reduction="none")
    assert_close(value, expected, "float32", 8)
    dz, _ = pullback(np.ones(2, "float32"))
    assert (dz[0, :2] == 0).all()
    assert np.isnan(value[1])


def test_what_does_not_count_has_no_gradient():
    """Whatever its logits are."""
    z = np.asarray([[np.nan, np.inf, 0.0], [0.5, 1.0, 2.0]], "float32")
    for target in (np.asarray([7, 1]), np.eye(3, dtype="float32")[:2]):
        counts = {"sample_weight": np.asarray([0, 1], "float32")}
        options = {"ignore_index": 7} if target.ndim == 1 else counts
        with kernels("require"), np.errstate(all="ignore"):
            dz, _ = cross_entropy.vjp(z, target, softcap=2.0, **options)[1](np.ones((), "float32"))
        assert (dz[0] == 0).all()
        assert np.isfinite(dz[1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digits_of_the_cap(dtype):
    """Beyond 1 as well as up to it; in exact arithmetic the gradient of two logits is known."""
    x = np.concatenate([np.linspace(-4, 4, 4001), np.geomspace(1e-30, 1, 1000)]).astype(dtype)
    z = np.stack([x, np.zeros_like(x)], axis=1)
    with kernels("require"):
        labels, options = np.zeros(len(x), int), {"softcap": 1.0, "reduction": "none"}
        found, pullback = cross_entropy.vjp(z, labels, **options)
        dz, _ = pullback(np.ones_like(x))
    wide = x.astype(np.longdouble)
    t = np.tanh(wide)
    assert_close(found, np.log1p(np.exp(-t)), dtype, 1)
    assert_close(dz[:, 0], -(1 - t) * (1 + t) / (1 + np.exp(t)), dtype, 1)


@pytest.mark.parametrize("classes", [7, 65, 200, 3000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_prior_of_any_size(dtype, classes):
    """From tiny to huge shares; a class that does not occur has none. Small calls and large."""
    rng = np.random.default_rng(classes)
    prior = np.exp(20 * rng.standard_normal(classes)).astype(dtype)
    prior[:2] = 1, 0
    for samples in (1, 5, 300):
        z = rng.standard_normal((samples, classes)).astype(dtype)
        labels = rng.integers(2, classes, samples)
        with kernels("require"):
            found = cross_entropy(z, labels, class_prior=prior, reduction="none")
        with np.errstate(divide="ignore"):
            u = z.astype(np.longdouble) + np.log(prior.astype(np.longdouble))
        top = u.max(axis=1)
        log_sum = top + np.log(np.exp(u - top[:, None]).sum(axis=1))
        assert_close(found, log_sum - u[np.arange(samples), labels], dtype, 4)


def test_logits_that_may_be_overwritten():
    z, labels = np.random.default_rng(0).standard_normal((6, 8)), np.arange(6)
    expected = cross_entropy.vjp(z, labels, softcap=3.0)[1](np.ones(()))[0]
    found = cross_entropy.vjp(z, labels, softcap=3.0, overwrite_logits=True)[1](np.ones(()))[0]
    np.testing.assert_array_equal(found, expected)


def test_which_implementation_runs():
    z, labels = np.zeros((6, 8), "float32"), np.arange(6)
    assert "Numba loops" in explain(cross_entropy, z, labels, softcap=3.0)
