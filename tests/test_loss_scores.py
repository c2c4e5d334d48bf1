"""What cross entropy makes of logits before the softmax, and what their log-sum-exp costs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from conftest import assert_close, each_row_and_mode, tolerance
from test_losses import check_slope

import agnostic_xent as ax

RNG = np.random.default_rng(21)
N, CLASSES = 5, 4
LOGITS = 2 * RNG.standard_normal((N, CLASSES))
LABELS = np.array([0, 3, 1, 3, 2])
SOFT = RNG.dirichlet(np.ones(CLASSES), N)
PRIOR, WEIGHT, SAMPLE_WEIGHT = (RNG.random(n) + 0.1 for n in (CLASSES, CLASSES, N))
SCORES = [
    dict(zip(("softcap", "temperature", "class_prior", "z_loss"), values, strict=True))
    for values in itertools.product((None, 1.5), (1.0, 0.7), (None, PRIOR), (0.0, 0.3))
]
OTHERS = [
    {"weight": WEIGHT, "sample_weight": SAMPLE_WEIGHT, "normalize": "weight"},
    {"label_smoothing": 0.2, "weight": WEIGHT, "reduction": "none"},
]
ARRAYS = ("weight", "sample_weight", "class_prior")


def short(options):
    return "-".join(
        f"{k}" if isinstance(v, np.ndarray) else f"{k}={v}"
        for k, v in options.items()
        if v is not None
    )


def plain(
    z, target, *, softcap=None, temperature=1.0, class_prior=None, z_loss=0.0, weight=None,
    sample_weight=None, label_smoothing=0.0, reduction="mean", normalize=None,
):  # fmt: skip
    """The definition, with loops over samples and classes; and the log-sum-exps."""
    terms, sums, masses = [], [], []
    for n, row in enumerate(z):
        u = [v if softcap is None else softcap * math.tanh(v / softcap) for v in row]
        u = [v / temperature for v in u]
        if class_prior is not None:
            u = [v + math.log(p) for v, p in zip(u, class_prior, strict=True)]
        log_sum = max(u) + math.log(math.fsum(math.exp(v - max(u)) for v in u))
        term = z_loss * log_sum**2
        a = 1.0 if sample_weight is None else sample_weight[n]
        for c, score in enumerate(u):
            w = 1.0 if weight is None else weight[c]
            t = target[n][c] if np.ndim(target) == 2 else float(target[n] == c)
            masses.append(a * w * t)
            t = (1 - label_smoothing) * t + label_smoothing / len(u)
            term += w * t * (log_sum - score)
        terms.append(a * term)
        sums.append(log_sum)
    if reduction == "none":
        return np.array(terms), np.array(sums)
    divisor = 1.0 if reduction == "sum" else math.fsum(masses) if normalize == "weight" else len(z)
    return np.array(math.fsum(terms) / divisor), np.array(sums)


class Case:
    """A combination of options, on all rows of the matrix."""

    operation, empty = "cross_entropy", False

    def __init__(self, options):
        self.options, self.id = options, short(options) or "none"


CASES = [Case(scores | others) for scores in SCORES for others in OTHERS]


@each_row_and_mode("case", CASES)
def test_value_and_gradients(row, mode, case):
    names = [name for name in ARRAYS if case.options.get(name) is not None]
    for dtype, target in itertools.product(row.dtypes, (LABELS, SOFT)):
        exact = [
            np.asarray(a, dtype).astype(float) if a.dtype.kind == "f" else a
            for a in (LOGITS, target, *(case.options[name] for name in names))
        ]
        z, t, *given = exact
        options = case.options | dict(zip(names, given, strict=True))
        expected, sums = plain(z, t, **options)
        dy = np.asarray(RNG.standard_normal(expected.shape)).astype(dtype).astype(float)

        def found(dy, z, t, *arrays, options=options):
            named = options | dict(zip(names, arrays, strict=True))
            value, pullback = ax.cross_entropy.vjp(z, t, return_logsumexp=True, **named)
            return value, pullback(dy), ax.cross_entropy(z, t, **named)

        with ax.kernels(mode):
            (value, log_sums), (dz, dt), alone = row.call(
                found, *(row.array(a, dtype) for a in (dy, *exact))
            )
        for y, right in ((value, expected), (log_sums, sums), (alone, expected)):
            row.check(y, dtype)
            assert_close(y, right, dtype, 32)
        with ax.kernels("portable"):
            slopes = ax.cross_entropy.vjp(z, t, **options)[1](np.asarray(dy))
        for gradient, slope in zip((dz, dt), slopes, strict=True):
            assert (gradient is None) == (slope is None)
            if slope is not None:
                row.check(gradient, dtype)
                assert_close(gradient, slope, dtype, 64)


@pytest.mark.parametrize("options", [case.options for case in CASES], ids=short)
def test_slopes(options):
    """The portable gradients in float64, which the others are compared with."""
    for target in (LABELS, SOFT):
        with ax.kernels("portable"):
            value, pullback = ax.cross_entropy.vjp(LOGITS, target, **options)
        dy = RNG.standard_normal(value.shape)
        dz, dt = pullback(np.asarray(dy))
        check_slope(lambda z, t=target: plain(z, t, **options)[0], LOGITS, dy, dz)
        if dt is not None:
            check_slope(lambda t: plain(LOGITS, t, **options)[0], target, dy, dt)


@pytest.mark.parametrize("options", SCORES, ids=short)
def test_one_hot_and_labels_agree(options):
    one_hot = np.eye(CLASSES)[LABELS]
    options = options | {"normalize": "weight", "weight": WEIGHT, "sample_weight": SAMPLE_WEIGHT}
    of_labels, of_rows = (ax.cross_entropy.vjp(LOGITS, t, **options) for t in (LABELS, one_hot))
    assert_close(of_labels[0], of_rows[0], "float64", 8)
    assert_close(of_labels[1](np.ones(()))[0], of_rows[1](np.ones(()))[0], "float64", 8)


INF = math.inf
LOG2, LOG3 = math.log(2), math.log(3)


def test_long_rows_of_the_kernel():
    """More classes than a piece of a row has, the likeliest of which have no prior."""
    z = 3 * RNG.standard_normal((7, 2500))
    z[0], z[1, :1200], z[2, 2400], z[3] = -INF, 1e4, INF, z[3] + 1e6
    labels, prior = RNG.integers(0, 2500, 7), RNG.random(2500) + 1e-3
    prior[:1200] = 0
    labels[1:4] = 2000, 2000, 1300
    options = {"class_prior": prior, "z_loss": 0.1, "label_smoothing": 0.0, "reduction": "none"}
    found = []
    for mode in ("portable", "require"):
        with ax.kernels(mode):
            value, pullback = ax.cross_entropy.vjp(z, labels, return_logsumexp=True, **options)
            found.append((*value, pullback(np.ones(7))[0]))
    assert np.isnan(found[0][0]).tolist() == [i in (0, 2) for i in range(7)]
    for portable, kernel in zip(*found, strict=True):
        bound = tolerance("float64", 64)
        np.testing.assert_allclose(kernel, portable, rtol=bound, atol=1e-300)


class EdgeCase:
    """Rows of logits, their labels and what comes out of them, a term and a log-sum-exp each."""

    operation, empty = "cross_entropy", False

    def __init__(self, about, z, labels, terms, sums, **options):
        self.id, self.options = about.replace(" ", "_"), options
        self.z, self.labels = np.array(z, float), np.array(labels)
        self.terms, self.sums = terms, sums


EDGE_CASES = [
    EdgeCase("a prior of 0 takes a class out", [[0.0, 0.0, 0.0], [0.0, 0.0, 500.0]], [0, 0],
             [LOG2, LOG2], [LOG2, LOG2], class_prior=[1.0, 1.0, 0.0]),
    EdgeCase("a label of prior 0", [[0.0, 0.0]], [1], [INF], [0.0], class_prior=[1.0, 0.0]),
    EdgeCase("counts are as good as shares", [[0.0, 0.0]], [1], [LOG2], [math.log(2e6)],
             class_prior=[1e6, 1e6]),
    EdgeCase("a prior beside a large offset", [[1e8, 1e8], [-1e8, -1e8]], [0, 1],
             [math.log(4 / 3), math.log(4)], [1e8, -1e8], class_prior=[0.75, 0.25]),
    EdgeCase("a prior of nothing is NaN", [[0.0, 0.0]], [0], [math.nan], [math.nan],
             class_prior=[0.0, 0.0]),
    EdgeCase("a sure answer against the prior keeps its digits", [[0.0, 40.0]], [1],
             [math.log1p(3 * math.exp(-40.0))], [40.0 + math.log(0.25)],
             class_prior=[0.75, 0.25]),
    EdgeCase("z-loss of -inf at the label", [[0.0, -INF]], [1], [INF], [0.0], z_loss=0.5),
    EdgeCase("z-loss and rows of -inf, +inf and NaN", [[-INF, -INF], [INF, 0.0], [0.0, math.nan],
             [0.0, 0.0]], [0, 0, 0, 0], [math.nan] * 3 + [LOG2 + 0.5 * LOG2**2],
             [math.nan] * 3 + [LOG2], z_loss=0.5),
    EdgeCase("z-loss of an ignored row and of a bad one", [[math.nan, 0.0], [0.0, 0.0]], [7, 0],
             [0.0, LOG2 + 0.5 * LOG2**2], [math.nan, LOG2], z_loss=0.5, ignore_index=7),
    EdgeCase("z-loss of a row of weight 0", [[0.0, 0.0], [0.0, 0.0]], [0, 0],
             [0.0, 2 * (LOG2 + 0.5 * LOG2**2)], [LOG2, LOG2], z_loss=0.5,
             sample_weight=[0.0, 2.0]),
    EdgeCase("log-sum-exp of ignored rows", [[0.0, 0.0, 0.0], [1e8, -1e8, 0.0]], [7, 7],
             [0.0, 0.0], [LOG3, 1e8], ignore_index=7),
    EdgeCase("a cap makes infinite logits finite", [[INF, -INF], [-INF, -INF]], [1, 0],
             [2 * 3.0 + math.log1p(math.exp(-6.0)), LOG2],
             [3.0 + math.log1p(math.exp(-6.0)), LOG2 - 3.0], softcap=3.0),
    EdgeCase("a cap that is far away", [[1e-3, -1e-3]], [0], [math.log1p(math.exp(-2e-3))],
             [-1e-3 + math.log1p(math.exp(2e-3))], softcap=1e6),
]  # fmt: skip


@each_row_and_mode("case", EDGE_CASES)
def test_edge_case(row, mode, case):
    dtype, ones = row.dtypes[-1], np.ones(len(case.z))
    names = [name for name, value in case.options.items() if isinstance(value, list)]
    arrays = [np.array(case.options[name]) for name in names]

    def both(dy, z, labels, *arrays):
        named = case.options | dict(zip(names, arrays, strict=True))
        found, pullback = ax.cross_entropy.vjp(
            z, labels, return_logsumexp=True, reduction="none", **named
        )
        return found, pullback(dy)[0]

    with ax.kernels(mode):
        (terms, sums), gradient = row.call(
            both, *(row.array(a, dtype) for a in (ones, case.z, case.labels, *arrays))
        )
    bounds = {"rtol": tolerance(dtype, 4), "atol": 0.0}
    np.testing.assert_allclose(ax.to_numpy(terms), case.terms, **bounds)
    np.testing.assert_allclose(ax.to_numpy(sums), case.sums, **bounds)
    dead = np.array(case.options.get("sample_weight", ones)) == 0
    dead |= case.labels == case.options.get("ignore_index")
    assert np.all(ax.to_numpy(gradient)[dead] == 0)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"class_prior": np.ones(2)}, ValueError, r"class_prior must have shape \(4,\)"),
        ({"class_prior": np.ones(4, "f4")}, TypeError, "class_prior has dtype float32"),
        ({"class_prior": [1.0] * 4}, TypeError, "class_prior must be an array"),
        ({"z_loss": -0.1}, ValueError, "z_loss must be a finite number >= 0"),
        ({"softcap": 0.0}, ValueError, "softcap must be a finite number > 0"),
        ({"softcap": "30"}, ValueError, "softcap must be a finite number > 0"),
    ],
)
def test_options_out_of_range(named, error, message):
    with pytest.raises(error, match=message):
        ax.cross_entropy(LOGITS, LABELS, **named)
    x, w = np.ones((N, 3)), np.ones((CLASSES, 3))
    with pytest.raises(error, match=message):
        ax.linear_cross_entropy(x, w, LABELS, **named)
