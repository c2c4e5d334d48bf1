"""How right the losses are: error in ulp of the exact value, which mpmath computes.

The bounds are those that the documentation of `cross_entropy` and the README state.
"""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax

mpmath = pytest.importorskip("mpmath")
ml_dtypes = pytest.importorskip("ml_dtypes")

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def exact(z, label, temperature=1):
    """Return loss and gradient of one row in 60 digits, as NumPy longdoubles."""
    with mpmath.workdps(60):
        values = [mpmath.mpf(float(v)) for v in z]
        top = max(values)
        e = [mpmath.exp(v - top) for v in values]
        others = mpmath.fsum(e[:label] + e[label + 1 :])
        total = others + e[label]
        loss = mpmath.log(total) - (values[label] - top)
        if others < total / 2:
            loss = mpmath.log1p(others / e[label])
        gradient = [v / total for v in e]
        gradient[label] = -others / total
        return float(loss), np.array([float(g) for g in gradient])


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        *((dtype, "portable") for dtype in EPS),
        *((dtype, "auto") for dtype in ("float32", "float64")),  # the kernel takes no others
    ],
)
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
def test_cross_entropy(dtype, classes, spread, offset, mode):
    if dtype == "float16" and (offset > 1e4 or spread > 1e3):
        offset, spread = min(offset, 1e4), min(spread, 1e3)  # its largest number is 65504
    rng = np.random.default_rng(classes)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    z = (offset + spread * rng.standard_normal((4, classes))).astype(kind)
    labels = np.array([0, classes - 1, *np.argmax(z[2:], axis=1)])
    with ax.kernels(mode):
        loss, pullback = ax.cross_entropy.vjp(z, labels, reduction="none")
        (gradient, _) = pullback(np.ones(4, dtype=kind))
    smallest = float(ml_dtypes.finfo(kind).smallest_normal)
    for n in range(4):
        expected, slope = exact(z[n], labels[n])
        for found, right in ((loss[n], expected), (gradient[n], slope)):
            check(found, right, dtype, smallest)


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("options", ["class_prior", "z_loss", "softcap", "all"])
def test_scores(options, dtype, mode):
    """The prior of a class is rounded, as its logit is: the error of its logarithm comes on top."""
    rng = np.random.default_rng(5)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    z = (3 * rng.standard_normal((6, 10))).astype(kind)
    prior = (10.0 ** rng.uniform(-3, 0, 10)).astype(kind)
    labels = np.array([0, 9, *np.argmax(z[2:], axis=1)])
    named = {"class_prior": prior, "z_loss": 0.125, "softcap": 4.0}
    named = {k: v for k, v in named.items() if options in (k, "all")}
    with ax.kernels(mode):
        (loss, sums), pullback = ax.cross_entropy.vjp(
            z, labels, reduction="none", return_logsumexp=True, **named
        )
        (gradient, _) = pullback(np.ones(6, dtype=kind))
    for n in range(6):
        for found, right in zip(
            (loss[n], sums[n], gradient[n]), exact_scores(z[n], labels[n], **named), strict=True
        ):
            check(found, right, dtype, 1e-3, extra=16)


def exact_scores(z, label, class_prior=None, z_loss=0.0, softcap=None):
    """Return loss, log-sum-exp and gradient of one row in 60 digits, as floats."""
    with mpmath.workdps(60):
        z = [mpmath.mpf(float(v)) for v in z]
        t = [mpmath.tanh(v / softcap) if softcap else 0 for v in z]
        u = [softcap * s for s in t] if softcap else z
        if class_prior is not None:
            u = [v + mpmath.log(float(p)) for v, p in zip(u, class_prior, strict=True)]
        sums = mpmath.log(mpmath.fsum(map(mpmath.exp, u)))
        p = [mpmath.exp(v - sums) for v in u]
        gradient = [
            (p[c] * (1 + 2 * z_loss * sums) - (c == label)) * (1 - t[c] ** 2) for c in range(len(z))
        ]
        loss = sums - u[label] + z_loss * sums**2
        return float(loss), float(sums), np.array([float(g) for g in gradient])


def check(found, expected, dtype, smallest, extra=0):
    """Compare with the exact values: what is computed in float32 is rounded once, to half an ulp.

    A value v that is an exponential carries abs(log v) times the rounding error of its argument.
    """
    found, expected = np.asarray(found, dtype="float64"), np.asarray(expected)
    size = np.maximum(np.abs(expected), smallest)
    if dtype in ("float16", "bfloat16"):
        allowed = 0.6 * np.ones_like(size)
    else:
        allowed = 6 + extra + np.maximum(-np.log(size), 0)
    errors = np.abs(found - expected) / (EPS[dtype] * size)
    assert np.all(errors <= allowed), (errors / allowed).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_classes(dtype):
    """300,000 classes: the sum is NumPy's pairwise one, its error grows with log2(classes)."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 300_000)).astype(dtype)
    expected = np.log(np.sum(np.exp(z.astype("longdouble")))) - z[0, 7].astype("longdouble")
    loss = ax.cross_entropy(z, np.array([7]))
    check(loss, float(expected), dtype, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_with_logits(dtype):
    z = np.concatenate([np.linspace(-80, 80, 321), [1e-6, -1e-6, 87.0, -87.0]]).astype(dtype)
    for t in (0.0, 1.0):
        target = np.full(z.shape, t, dtype=dtype)
        loss, pullback = ax.binary_cross_entropy_with_logits.vjp(z, target, reduction="none")
        (gradient, _) = pullback(np.ones_like(z))
        sign = -1 if t else 1
        with mpmath.workdps(60):
            wide = [mpmath.mpf(float(v)) * sign for v in z]
            values = np.array([float(mpmath.log1p(mpmath.exp(v))) for v in wide])
            slopes = np.array([float(sign / (1 + mpmath.exp(-v))) for v in wide])
        check(loss, values, dtype, 0.0)
        check(gradient, slopes, dtype, 0.0)


EXACT = {
    "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
    "log_sigmoid": lambda v: -mpmath.log1p(mpmath.exp(-v)),
}


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXACT)
def test_activations_of_elements(name, dtype, mode):
    x = np.concatenate([np.linspace(-80, 80, 321), [1e-6, -1e-6, -20.5, 17.25]]).astype(dtype)
    with mpmath.workdps(60):
        expected = [float(EXACT[name](mpmath.mpf(float(v)))) for v in x]
    with ax.kernels(mode):
        check(getattr(ax, name)(x), expected, dtype, 0.0)


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 30.0])
def test_softmax(dtype, classes, spread, mode):
    rng = np.random.default_rng(classes)
    x = (spread * rng.standard_normal(classes)).astype(dtype)
    with ax.kernels(mode):
        p, log_p = ax.softmax(x), ax.log_softmax(x)
    with mpmath.workdps(60):
        e = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
        total = mpmath.fsum(e)
        top = int(np.argmax(x))
        others = mpmath.fsum(e[:top] + e[top + 1 :])
        logs = [float(mpmath.log(v / total)) for v in e]
        logs[top] = float(-mpmath.log1p(others / e[top]))
        check(p, [float(v / total) for v in e], dtype, float(np.finfo(dtype).tiny))
    check(log_p, logs, dtype, 0.0)
