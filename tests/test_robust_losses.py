"""Focal losses, generalized cross entropy and divergences: options, edges, digits."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
from conftest import assert_close, tolerance
from test_accuracy import EPS, check
from test_losses import check_slope

import agnostic_xent as ax

mpmath = pytest.importorskip("mpmath")
ml_dtypes = pytest.importorskip("ml_dtypes")

RNG = np.random.default_rng(31)
N, CLASSES, INF = 6, 4, math.inf
LOGITS, LABELS = 2 * RNG.standard_normal((N, CLASSES)), np.array([0, 3, 1, 3, 2, 0])
ONE_HOT, SOFT = np.eye(CLASSES)[LABELS], RNG.dirichlet(np.ones(CLASSES), N)
WEIGHT, SAMPLE_WEIGHT = RNG.random(CLASSES) + 0.1, np.array([1.0, 0.0, 2.0, 0.5, 1.0, 0.25])
SHAPED = {"focal_loss": ("gamma", (0.0, 0.5, 2.0)), "generalized_cross_entropy": ("q", (0.3, 1.0))}
OPTIONS = [
    {"reduction": "sum", "weight": WEIGHT, "sample_weight": SAMPLE_WEIGHT},
    {"normalize": "weight", "weight": WEIGHT, "sample_weight": SAMPLE_WEIGHT},
    {"reduction": "none", "label_smoothing": 0.2, "weight": WEIGHT},
]
NAMES = [(name, {key: v}) for name, (key, values) in SHAPED.items() for v in values]
CASES = [(name, own | options) for name, own in NAMES for options in OPTIONS]
CASES += [
    ("jensen_shannon_divergence", {"mixing": b, "normalize": "weight", **weights})
    for b, weights in ((0.1, {}), (0.5, {"sample_weight": SAMPLE_WEIGHT}))
]


def plain(name, z, t, options):
    """A sum of the oracle's terms of each sample and class, times what the options say."""
    options = dict(options)
    weight, samples = (options.pop(k, None) for k in ("weight", "sample_weight"))
    smoothing, reduction = options.pop("label_smoothing", 0.0), options.pop("reduction", "mean")
    by_weight = options.pop("normalize", None) == "weight"
    oracle = getattr(oracles, name)
    w = np.ones(CLASSES) if weight is None else weight
    a = np.ones(N) if samples is None else samples
    if name in SHAPED:  # linear in the target
        smooth = (1 - smoothing) * t + smoothing / CLASSES
        each = [
            oracle(z, np.full(N, c), reduction="none", **options) for c in range(CLASSES)
        ]  # fmt: skip
        terms = a * np.sum(w * smooth * np.stack(each, axis=1), axis=1)
    else:
        terms = a * oracle(z, t, reduction="none", **options)
    if reduction == "none":
        return terms
    mass = np.sum(a * np.sum(w * t, axis=1)) if by_weight else N
    return np.asarray(np.sum(terms) / (1.0 if reduction == "sum" else mass))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_options(name, options):
    operation = getattr(ax, name)
    value, pullback = operation.vjp(LOGITS, SOFT, **options)
    assert_close(value, plain(name, LOGITS, SOFT, options), "float64", 32)
    dy = RNG.standard_normal(value.shape)
    dz, dt = pullback(np.asarray(dy))
    check_slope(lambda z: plain(name, z, SOFT, options), LOGITS, dy, dz)
    check_slope(lambda t: plain(name, LOGITS, t, options), SOFT, dy, dt)
    of_rows, of_labels = (operation.vjp(LOGITS, t, **options) for t in (ONE_HOT, LABELS))
    if options.get("reduction") or options.get("normalize"):
        assert_close(of_labels[0], of_rows[0], "float64", 8)
        assert_close(of_labels[1](np.asarray(dy))[0], of_rows[1](np.asarray(dy))[0], "float64", 8)


def test_the_plain_cases_are_cross_entropy():
    target = RNG.random(LOGITS.shape)
    for found, expected in (
        (ax.focal_loss.vjp(LOGITS, LABELS, gamma=0), ax.cross_entropy.vjp(LOGITS, LABELS)),
        (
            ax.binary_focal_loss.vjp(LOGITS, target, gamma=0, pos_weight=WEIGHT),
            ax.binary_cross_entropy_with_logits.vjp(LOGITS, target, pos_weight=WEIGHT),
        ),
    ):
        assert_close(found[0], expected[0], "float64", 8)
        assert_close(found[1](np.ones(()))[0], expected[1](np.ones(()))[0], "float64", 8)


@pytest.mark.parametrize("options", [
    {"weight": WEIGHT, "pos_weight": 3 * WEIGHT, "sample_weight": SAMPLE_WEIGHT},
    {"label_smoothing": 0.2, "reduction": "none", "gamma": 0.5},
])  # fmt: skip
def test_binary_options(options):
    def expected(z, t):
        named = dict(options)
        w, q, a = (named.pop(k, None) for k in ("weight", "pos_weight", "sample_weight"))
        e, reduction = named.pop("label_smoothing", 0.0), named.pop("reduction", "mean")
        t = (1 - e) * t + e / 2
        ones, zeros = np.ones_like(z), np.zeros_like(z)
        of_one, of_zero = (
            oracles.binary_focal_loss(z, x, reduction="none", **named) for x in (ones, zeros)
        )
        terms = (1 if q is None else q) * t * of_one + (1 - t) * of_zero
        terms = terms * (1 if w is None else w) * (1 if a is None else a[:, None])
        return terms if reduction == "none" else np.asarray(terms.mean())

    value, pullback = ax.binary_focal_loss.vjp(LOGITS, SOFT, **options)
    assert_close(value, expected(LOGITS, SOFT), "float64", 32)
    dy = RNG.standard_normal(value.shape)
    dz, dt = pullback(np.asarray(dy))
    check_slope(lambda z: expected(z, SOFT), LOGITS, dy, dz)
    check_slope(lambda t: expected(LOGITS, t), SOFT, dy, dt)


REST = math.exp(-25.0)
SURE, LOSS = REST / (1 + REST), math.log1p(REST)  # 1 - p and -log p
SLOPE = SURE * (SURE**2 + 2 * SURE * LOSS / (1 + REST))
NAN_ROWS = [[-INF, -INF], [INF, 0.0], [math.nan, 0.0]]
EDGES = [  # name, options, logits, labels, terms, gradient (None: not looked at)
    ("focal_loss", {}, [[0.0, -INF], [0.0, -INF]], [0, 1], [0.0, INF], [[0.0, 0.0], [1.0, -1.0]]),
    ("focal_loss", {"gamma": 0.5}, [[0.0, -INF]], [0], [0.0], [[0.0, 0.0]]),
    ("focal_loss", {}, [[0.0, 25.0]], [1], [SURE**2 * LOSS], [[SLOPE, -SLOPE]]),
    ("generalized_cross_entropy", {"q": 0.5}, [[0.0, -INF], [0.0, -INF]], [0, 1], [0.0, 2.0],
     [[0.0, 0.0]] * 2),
    ("generalized_cross_entropy", {"q": 1.0}, [[0.0, 25.0]], [1], [SURE],
     [[SURE / (1 + REST), -SURE / (1 + REST)]]),
    ("jensen_shannon_divergence", {}, [[0.0, -INF], [0.0, -INF]], [0, 1], [0.0, math.log(2)], None),
    *((name, {}, NAN_ROWS, [0, 0, 0], [math.nan] * 3, [[math.nan] * 2] * 3)
      for name in ("focal_loss", "generalized_cross_entropy", "jensen_shannon_divergence")),
    *((name, {"ignore_index": 9}, [[math.nan, 0.0], [1e8, 1e8]], [9, 1], None, None)
      for name in ("focal_loss", "generalized_cross_entropy", "jensen_shannon_divergence")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "z", "labels", "terms", "gradient"), EDGES)
def test_edges(row, name, options, z, labels, terms, gradient):
    dtype, operation = row.dtypes[-1], getattr(ax, name)

    def both(dy, z, labels):
        value, pullback = operation.vjp(z, labels, reduction="none", **options)
        return value, pullback(dy)[0]

    arrays = (np.ones(len(z)), np.array(z, float), np.array(labels))
    value, dz = (ax.to_numpy(x) for x in row.call(both, *(row.array(x, dtype) for x in arrays)))
    if terms is None:  # an ignored row, and a large offset
        assert value[0] == 0
        assert np.all(dz[0] == 0)
        assert 0 < value[1] < 1
        return
    bounds = {"rtol": tolerance(dtype, 64), "atol": 0.0}
    np.testing.assert_allclose(value, terms, **bounds)
    if gradient is not None:
        np.testing.assert_allclose(dz, gradient, **bounds)


def test_a_label_out_of_range():
    for name in (*SHAPED, "jensen_shannon_divergence"):
        with pytest.raises(ValueError, match=r"target\[1\] is 4, but labels must be in \[0, 4\)"):
            getattr(ax, name)(LOGITS[:2], np.array([0, 4]))
        unchecked = getattr(ax, name)(
            LOGITS[:2], np.array([0, 4]), check_labels=False, reduction="none"
        )
        assert np.isnan(unchecked).tolist() == [False, True]


def test_kl_divergence_edges():
    same = ax.kl_divergence(LOGITS, LOGITS + 5.0, temperature=3.0, reduction="none")
    assert_close(same, np.zeros(N), "float64", 8)
    z, r = (
        np.array([[0.0, 0.0], [0.0, -INF], [0.0, -INF]]),
        np.array([[0.0, -INF]] * 2 + [[0.0, 0.0]]),
    )
    value, pullback = ax.kl_divergence.vjp(z, r, reduction="none")
    np.testing.assert_allclose(value, [math.log(2), 0.0, INF], rtol=1e-15)
    np.testing.assert_allclose(pullback(np.ones(3))[0][:2], [[-0.5, 0.5], [0.0, 0.0]], atol=1e-15)


@pytest.mark.parametrize(
    ("name", "named", "message"),
    [
        ("focal_loss", {"gamma": -1}, "gamma must be a finite number >= 0"),
        ("binary_focal_loss", {"gamma": math.nan}, "gamma must be a finite number >= 0"),
        ("generalized_cross_entropy", {"q": 0}, r"q must be in \(0, 1\]"),
        ("jensen_shannon_divergence", {"mixing": 1.0}, r"mixing must be in \(0, 1\)"),
        ("kl_divergence", {"temperature": 0.0}, "temperature must be a finite number > 0"),
    ],
)
def test_options_out_of_range(name, named, message):
    with pytest.raises(ValueError, match=message):
        getattr(ax, name)(LOGITS, SOFT, **named)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ["focal_loss", "generalized_cross_entropy", "kl_divergence"])
def test_errors_in_units_of_the_last_place(name, dtype):
    """Spread 3, the likeliest class and others: terms and gradients against 60 digits."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    z, r = ((3 * RNG.standard_normal((6, 10))).astype(kind) for _ in range(2))
    labels = np.array([0, 9, *np.argmax(z[2:], axis=1)])
    target = r if name == "kl_divergence" else labels
    value, pullback = getattr(ax, name).vjp(z, target, reduction="none")
    dz = pullback(np.ones(6, dtype=kind))[0]
    for n in range(6):
        with mpmath.workdps(60):
            p, s = ([mpmath.exp(float(v)) for v in x[n]] for x in (z, r))
            p, s = ([v / mpmath.fsum(x) for v in x] for x in (p, s))
            own, e = p[labels[n]], [float(c == labels[n]) for c in range(10)]
            if name == "focal_loss":
                term = -((1 - own) ** 2) * mpmath.log(own)
                slope = 2 * (1 - own) * own * mpmath.log(own) - (1 - own) ** 2
                gradient = [slope * (e[c] - p[c]) for c in range(10)]
            elif name == "generalized_cross_entropy":
                q = mpmath.mpf(0.7)
                term = (1 - own**q) / q
                gradient = [-(own**q) * (e[c] - p[c]) for c in range(10)]
            else:
                term = mpmath.fsum(b * mpmath.log(b / a) for a, b in zip(p, s, strict=True))
                gradient = [a - b for a, b in zip(p, s, strict=True)]
            check(value[n], float(term), dtype, 0.1, extra=32)
            check(dz[n], np.array([float(g) for g in gradient]), dtype, 0.1, extra=32)
