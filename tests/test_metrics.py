"""Metrics and calibration against scikit-learn and plain loops, on every row of the matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

RNG = np.random.default_rng(20)
N, CLASSES = 60, 5
SCORES = RNG.standard_normal((N, CLASSES))
LABELS = RNG.integers(0, CLASSES, N)
LOGITS = 3 * SCORES + 2 * np.eye(CLASSES)[LABELS]
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
PREDICTED = SCORES.argmax(axis=1)
TIED = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])


def sklearn_metrics():
    return pytest.importorskip("sklearn.metrics")


def as_row(x, dtype):
    return x.astype(dtype).astype("float64")


def compare(row, f, scores, reference):
    """Compare a metric of scores and labels with a reference, in each dtype of a row."""
    for dtype in row.dtypes:
        found = row.call(f, row.array(scores, dtype), row.array(LABELS))
        row.check(found, dtype)
        assert_close(found, reference(as_row(scores, dtype)), dtype, N)


def test_accuracy(row):
    reference = sklearn_metrics().accuracy_score
    compare(row, ax.accuracy, SCORES, lambda s: reference(LABELS, s.argmax(axis=1)))


@pytest.mark.parametrize("k", range(1, CLASSES + 1))
def test_top_k_accuracy(row, k):
    def reference(s):
        if k == CLASSES:  # which scikit-learn warns about
            return 1.0
        return sklearn_metrics().top_k_accuracy_score(LABELS, s, k=k)

    compare(row, lambda s, y: ax.top_k_accuracy(s, y, k), SCORES, reference)


def test_the_first_of_tied_scores_counts(row):
    for label, counts in [(0, (2, 2, 3)), (1, (1, 3, 3)), (2, (0, 1, 3))]:
        scores, labels = row.array(TIED, "float32"), row.array(np.full(3, label))
        if label == 0:
            assert round(3 * float(ax.accuracy(scores, labels))) == counts[0]
        found = [ax.top_k_accuracy(scores, labels, k) for k in (1, 2, 3)]
        assert tuple(round(3 * float(f)) for f in found) == counts


def test_a_nan_score_is_never_right(row):
    scores = row.array([[0.0, math.nan, 1.0], [0.0, math.nan, 1.0]], "float32")
    labels = row.array(np.array([1, 2]))
    assert [float(ax.top_k_accuracy(scores, labels, k)) for k in (1, 2)] == [0.0, 0.5]


def test_confusion_matrix(row, monkeypatch):
    expected = sklearn_metrics().confusion_matrix(LABELS, PREDICTED, labels=range(CLASSES + 1))
    for numbers in (2**22, 7 * (CLASSES + 1)):  # the second one in blocks with a ragged last one
        monkeypatch.setattr("agnostic_xent.evaluation.metrics.ONE_HOT", numbers)
        for dtype in ("int64", "int32", "uint8"):
            labels, predicted = (row.array(a.astype(dtype)) for a in (LABELS, PREDICTED))
            m = row.call(lambda y, p: ax.confusion_matrix(y, p, CLASSES + 1), labels, predicted)
            row.check(m, "int64")
            np.testing.assert_array_equal(ax.to_numpy(m), expected)


def test_log_loss(row):
    reference = sklearn_metrics().log_loss
    compare(row, ax.log_loss, PROBS, lambda p: reference(LABELS, p / p.sum(axis=1, keepdims=True)))


def test_log_loss_of_a_zero(row):
    """0 log 0 = 0 beside the label, -log 0 = inf at the label."""
    probs = row.array([[1.0, 0.0], [0.5, 0.5]], "float32")
    assert float(ax.log_loss(probs, row.array(np.array([0, 1])))) == pytest.approx(math.log(2) / 2)
    assert float(ax.log_loss(probs, row.array(np.array([1, 1])))) == math.inf


def test_brier_score(row):
    def reference(p):
        return np.mean(((p - np.eye(CLASSES)[LABELS]) ** 2).sum(axis=1))

    compare(row, ax.brier_score, PROBS, reference)


def plain_bins(probs, labels, bins, dtype):
    """Return confidence, accuracy and count of each bin, sample by sample."""
    inside = [[] for _ in range(bins)]
    edges = np.arange(1, bins).astype(dtype) / np.asarray(bins, dtype)
    for p, y in zip(probs.astype(dtype), labels, strict=True):
        b = sum(p.max() > edge for edge in edges)
        inside[b].append((float(p.max()), float(p.argmax() == y)))
    means = [np.mean(found, axis=0) if found else np.full(2, np.nan) for found in inside]
    return *np.transpose(means), np.array([len(found) for found in inside])


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_bins(row, bins):
    for dtype in row.dtypes:
        arrays = row.array(PROBS, dtype), row.array(LABELS)
        found = row.call(lambda p, y: ax.calibration_bins(p, y, bins), *arrays)
        expected = plain_bins(PROBS, LABELS, bins, dtype)
        for f, e in zip(found, expected, strict=True):
            assert_close(f, e, dtype, N)
        row.check(found[0], dtype)
        error = row.call(lambda p, y: ax.expected_calibration_error(p, y, bins), *arrays)
        row.check(error, dtype)
        confidence, accuracy, count = expected
        assert_close(error, np.nansum(count * np.abs(accuracy - confidence)) / N, dtype, N)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin(row):
    probs = row.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0], [0.0, 0.0]], "float32")
    count = ax.calibration_bins(probs, row.array(np.zeros(4, "int64")), bins=4)[2]
    assert ax.to_numpy(count).tolist() == [1, 1, 1, 1]


def test_fit_temperature(row):
    from scipy.optimize import minimize_scalar

    def loss(log_t, logits):
        return float(ax.cross_entropy(logits, LABELS, temperature=math.exp(log_t)))

    for dtype in row.dtypes:
        for scale in (0.1, 1.0, 8.0):
            logits = (scale * LOGITS).astype(dtype)
            best = minimize_scalar(
                loss, args=(logits.astype(float),), bounds=(-4, 4), options={"xatol": 1e-9}
            )
            t = ax.fit_temperature(row.array(logits), row.array(LABELS))
            assert isinstance(t, float)
            assert t == pytest.approx(math.exp(best.x), rel=1e-4 if dtype == "float32" else 1e-6)
            assert t == ax.fit_temperature(row.array(logits), row.array(LABELS))


def test_fit_temperature_at_its_bounds(row):
    right = row.array(np.eye(CLASSES)[LABELS], "float32")
    labels = row.array(LABELS)
    assert ax.fit_temperature(right, labels) == 0.01
    assert ax.fit_temperature(right * 1e4, labels, bounds=(0.5, 2.0)) == 0.5
    assert ax.fit_temperature(-right, labels) == 100.0
    assert ax.fit_temperature(right * 0, labels, bounds=(0.5, 2.0)) == 0.5


def test_a_fitted_temperature_calibrates():
    """Labels drawn from softmax(z), logits handed over as 3 z: T is 3."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((20_000, 4))
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    assert ax.fit_temperature(3 * z, labels) == pytest.approx(3, rel=0.03)
    before, after = (
        float(ax.expected_calibration_error(ax.softmax(3 * z / t), labels)) for t in (1, 3)
    )
    assert after < 0.02 < before


def test_half_precision_is_counted_in_float32():
    probs, labels = np.full((5000, 2), [0.25, 0.75], "float16"), np.ones(5000, "uint8")
    labels[:3] = 0
    for f in (ax.accuracy, ax.log_loss, ax.brier_score, ax.expected_calibration_error):
        found = f(probs, labels)
        assert found.dtype == np.float32
        assert float(found) == pytest.approx(float(f(probs.astype(float), labels)), rel=1e-5)


def test_labels_narrower_than_the_classes(row):
    """uint8 labels of 300 classes: no class wraps around to a small one."""
    scores = np.zeros((3, 300))
    scores[[0, 1, 2], [299, 44, 7]] = 1.0  # 299 is 43 in 8 bits
    labels = row.array(np.array([43, 44, 8], dtype="uint8"))
    assert round(3 * float(ax.accuracy(row.array(scores, "float32"), labels))) == 1
    assert round(3 * float(ax.top_k_accuracy(row.array(scores, "float32"), labels, 1))) == 1


def test_labels_that_cannot_be_read():
    """Under a tracer a label out of range is wrong, or NaN: never a finite wrong number."""
    jax = pytest.importorskip("jax")
    probs, labels = jax.numpy.full((2, 2), 0.5), jax.numpy.asarray([0, 2])
    for f, expected in [
        (ax.accuracy, 0.5),
        (lambda s, y: ax.top_k_accuracy(s, y, 2), 0.5),
        (ax.log_loss, math.nan),
        (ax.brier_score, math.nan),
    ]:
        assert float(jax.jit(f)(probs, labels)) == pytest.approx(expected, nan_ok=True)


OF_SCORES = {
    "scores": ["accuracy", "top_k_accuracy"],
    "probs": ["log_loss", "brier_score", "calibration_bins", "expected_calibration_error"],
    "logits": ["fit_temperature"],
}
CASES = [
    (lambda s, y: (s[0], y), ValueError, r"{} must have 2 dimensions \(N, classes\)"),
    (lambda s, y: (s[:0], y[:0]), ValueError, r"{} must hold at least one sample"),
    (lambda s, y: (s[:, :0], y), ValueError, r"{} must hold at least one sample and one class"),
    (lambda s, y: (s.astype(int), y), TypeError, r"{} must have a real floating dtype"),
    (lambda s, y: (list(s), y), TypeError, r"{} must be an array"),
    (lambda s, y: (s, list(y)), TypeError, r"labels must be an array"),
    (lambda s, y: (s, y[:3]), ValueError, r"labels must have shape \(60,\)"),
    (lambda s, y: (s, y.astype(float)), TypeError, r"labels must have an integer dtype"),
    (lambda s, y: (s, y * 0 + 5), ValueError, r"labels\[0\] is 5, but labels must be in \[0, 5\)"),
    (lambda s, y: (s, y * 0 - 1), ValueError, r"labels\[0\] is -1"),
]


@pytest.mark.parametrize(("change", "error", "message"), CASES)
@pytest.mark.parametrize(("name", "function"), [(k, f) for k, fs in OF_SCORES.items() for f in fs])
def test_bad_scores_and_labels(name, function, change, error, message):
    extra = (1,) if function == "top_k_accuracy" else ()
    with pytest.raises(error, match=message.format(name)):
        getattr(ax, function)(*change(SCORES, LABELS), *extra)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ax.top_k_accuracy(SCORES, LABELS, 0), r"k must be .* <= 5, got 0"),
        (lambda: ax.top_k_accuracy(SCORES, LABELS, 6), r"k must be .* <= 5, got 6"),
        (lambda: ax.top_k_accuracy(SCORES, LABELS, 1.5), r"k must be an integer"),
        (lambda: ax.calibration_bins(PROBS, LABELS, 0), r"bins must be an integer >= 1"),
        (lambda: ax.expected_calibration_error(PROBS, LABELS, True), r"bins must be an integer"),
        (lambda: ax.confusion_matrix(LABELS, PREDICTED, 0), r"classes must be an integer >= 1"),
        (lambda: ax.confusion_matrix(LABELS[:0], PREDICTED[:0], 2), r"labels must hold at least"),
        (lambda: ax.confusion_matrix(LABELS, PREDICTED[:3], 5), r"predicted must have shape"),
        (lambda: ax.confusion_matrix(LABELS, PREDICTED + 5, 5), r"predicted\[0\] is \d+, but"),
        (lambda: ax.confusion_matrix(LABELS + 5, PREDICTED, 5), r"labels\[0\] is \d+, but"),
        (lambda: ax.confusion_matrix(SCORES, PREDICTED, 5), r"labels must have 1 dimensions"),
        (lambda: ax.fit_temperature(LOGITS, LABELS, bounds=(0, 1)), r"bounds must be"),
        (lambda: ax.fit_temperature(LOGITS / 0.0, LABELS), r"logits must be finite"),
    ],
)
def test_bad_options(call, message):
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        call()
