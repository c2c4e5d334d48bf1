"""Calibration of classifiers: how far confidence is from accuracy, and a temperature that mends it.

As in ``metrics.py``, everything but `fit_temperature` stays where the arrays are, and a label that
cannot be read counts as wrong where it is out of range.
"""

from __future__ import annotations

import math

from ..core.arrays import Array, array_namespace, constant, device, quiet, widen
from ..core.checks import integer
from ..operations.activations import softmax
from .metrics import check_scores, one_hot, right

__all__ = ["calibration_bins", "expected_calibration_error", "fit_temperature"]

STEPS = 100
"""Of `fit_temperature` at most: far more than halving an interval down to one float64 takes."""


def calibration_bins(probs: Array, labels: Array, bins: int = 15) -> tuple[Array, Array, Array]:
    """Compare confidence with accuracy, in bins of equal width: what a reliability diagram draws.

    A sample's confidence is its largest probability; bin b of B has those in (b / B, (b + 1) / B]
    (the first one also 0).

    Parameters
    ----------
    probs : array, shape (N, classes)
        Probabilities, real floating dtype.
    labels : array, shape (N,)
        Integers in [0, classes).
    bins : int
        B >= 1.

    Returns
    -------
    confidence, accuracy : array, shape (bins,)
        Means of the samples of each bin, NaN where it has none; the dtype of ``probs`` (float32
        for half precision).
    count : array, shape (bins,)
        Number of samples in each bin.

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label or ``bins`` is out of range.

    Examples
    --------
    >>> probs = xp.asarray([[0.125, 0.875], [0.625, 0.375]])
    >>> confidence, accuracy, count = calibration_bins(probs, xp.asarray([1, 1]), bins=4)
    >>> float(confidence[3]), float(accuracy[3]), int(count[3])
    (0.875, 1.0, 1)
    """
    xp = check_scores("probs", probs, labels)
    confidence, hits, count = _bins(probs, labels, bins)
    n = xp.astype(count, confidence.dtype)
    with quiet():  # 0 / 0 where a bin has no sample
        return confidence / n, hits / n, count


def expected_calibration_error(probs: Array, labels: Array, bins: int = 15) -> Array:
    """Mean distance of accuracy from confidence: ``sum_b n_b / N abs(accuracy_b - confidence_b)``.

    Parameters
    ----------
    probs, labels, bins
        As for `calibration_bins`.

    Returns
    -------
    array
        A scalar in [0, 1], of the dtype of ``probs`` (float32 for half precision).

    Raises
    ------
    ValueError
        As for `calibration_bins`.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On calibration of modern neural networks. ICML
    2017, arXiv:1706.04599.

    Examples
    --------
    >>> probs = xp.asarray([[0.25, 0.75], [0.25, 0.75]])
    >>> float(expected_calibration_error(probs, xp.asarray([1, 0])))
    0.25
    """
    xp = check_scores("probs", probs, labels)
    confidence, hits, _ = _bins(probs, labels, bins)
    return xp.sum(xp.abs(hits - confidence)) / probs.shape[0]


def fit_temperature(
    logits: Array, labels: Array, *, bounds: tuple[float, float] = (0.01, 100.0)
) -> float:
    """Return the temperature T that makes ``cross_entropy(logits / T, labels)`` smallest.

    Temperature scaling: fitted on held-out logits, ``softmax(logits / T)`` is calibrated better
    and predicts the same classes. The loss is convex in 1 / T; its slope's zero is found by
    Newton's steps, with bisection where one leaves the interval that holds it. Reads from the
    device in each step.

    Parameters
    ----------
    logits : array, shape (N, classes)
        Finite, real floating dtype.
    labels : array, shape (N,)
        Integers in [0, classes).
    bounds : tuple of float
        Least and largest T. The least one is returned where every logit is largest at its label,
        the largest one where the logits are worse than none.

    Returns
    -------
    float
        T, within ``bounds``.

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, a label is out of range, a logit is not
        finite, or the bounds are not 0 < least < largest.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On calibration of modern neural networks. ICML
    2017, arXiv:1706.04599.

    Examples
    --------
    >>> logits = xp.asarray([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> round(fit_temperature(logits, xp.asarray([0, 0, 0, 1])), 4)  # 2 / log 3
    1.8205
    """
    xp = check_scores("logits", logits, labels)
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must be (least, largest) with 0 < least < largest, got {bounds}")
    if not bool(xp.all(xp.isfinite(logits))):
        raise ValueError("logits must be finite, got some that are not")
    z = widen(logits)
    own = one_hot(labels, z.shape[1])
    z = z - xp.sum(xp.where(own, z, constant(0, z)), axis=1, keepdims=True)  # 0 at the label
    low, high = 1 / bounds[1], 1 / bounds[0]  # of b = 1 / T
    if _slope(z, high)[0] <= 0:  # asked first: where the loss is 0 already, so is every slope
        return float(bounds[0])
    if _slope(z, low)[0] >= 0:
        return float(bounds[1])
    b = min(max(1.0, low), high)
    close = 8 * float(xp.finfo(z.dtype).eps)
    for _ in range(STEPS):
        slope, curvature = _slope(z, b)
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else low
        step = step if low < step < high else math.sqrt(low * high)
        if abs(step - b) <= close * b:
            break
        b = step
    return 1 / step


def _slope(z: Array, b: float) -> tuple[float, float]:
    """Return the first two derivatives of the mean of ``logsumexp(b z)`` with respect to b."""
    xp = array_namespace(z)
    p = softmax(z * b, axis=1)
    mean = xp.sum(p * z, axis=1, keepdims=True)
    spread = xp.sum(p * (z - mean) ** 2, axis=1)
    return float(xp.mean(mean)), float(xp.mean(spread))


def _bins(probs: Array, labels: Array, bins: int) -> tuple[Array, Array, Array]:
    """Return each bin's sum of confidences, sum of hits, and number of samples."""
    bins = integer("bins", bins)
    xp, p = array_namespace(probs), widen(probs)
    confidence = xp.max(p, axis=1, keepdims=True)  # (N, 1)
    hit = xp.expand_dims(right(p, labels), axis=1)  # (N, 1)
    edges = xp.arange(bins, dtype=p.dtype, device=device(p)) / bins
    passed = xp.count_nonzero(confidence > edges[None, :], axis=1)
    inside = one_hot(passed - xp.astype(passed > 0, passed.dtype), bins)  # (N, bins)
    sums = xp.sum(xp.where(inside, confidence, constant(0, p)), axis=0)
    hits = xp.count_nonzero(inside & hit, axis=0)
    return sums, xp.astype(hits, p.dtype), xp.count_nonzero(inside, axis=0)
