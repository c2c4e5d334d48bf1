"""Metrics of classifiers: accuracy, confusion, scores of probabilities.

Each is computed where the arrays are, and is a scalar array or a small one there; half precision
is counted and summed in float32. A label out of range is an error; where values cannot be read
(``jax.jit``, dask) such a sample counts as wrong, and makes `log_loss` and `brier_score` NaN.
"""

from __future__ import annotations

import math
from types import ModuleType

from ..core.arrays import Array, array_namespace, constant, device, widen
from ..core.checks import check_ndim, check_shape, float_namespace, integer, namespace
from ..operations.labels import as_indices, check_label_range, is_labels
from ..operations.losses import categorical_cross_entropy

__all__ = [
    "accuracy",
    "brier_score",
    "confusion_matrix",
    "log_loss",
    "top_k_accuracy",
]

ONE_HOT = 2**22
"""Numbers in a one-hot array of `confusion_matrix`; below 2^24, so that float32 counts exactly."""


def accuracy(scores: Array, labels: Array) -> Array:
    """Share of samples whose largest score is at their label: ``mean(argmax_c s_c == y)``.

    Parameters
    ----------
    scores : array, shape (N, classes)
        Logits or probabilities, real floating dtype. Of equal scores the first one counts.
    labels : array, shape (N,)
        Integers in [0, classes).

    Returns
    -------
    array
        A scalar in [0, 1], of the dtype of ``scores`` (float32 for half precision).

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label is out of range.

    Examples
    --------
    >>> float(accuracy(xp.asarray([[0.2, 0.8], [0.6, 0.4]]), xp.asarray([1, 1])))
    0.5
    """
    check_scores("scores", scores, labels)
    return _mean(right(scores, labels), widen(scores))


def top_k_accuracy(scores: Array, labels: Array, k: int) -> Array:
    """Share of samples whose label is among the k largest scores.

    A label's rank is the number of classes with a larger score, and of those with an equal one
    that come before it; with k = 1 this is `accuracy`. NaN at the label is not among the largest,
    NaN at another class is.

    Parameters
    ----------
    scores : array, shape (N, classes)
        Logits or probabilities, real floating dtype.
    labels : array, shape (N,)
        Integers in [0, classes).
    k : int
        1 to classes.

    Returns
    -------
    array
        A scalar in [0, 1], of the dtype of ``scores`` (float32 for half precision).

    Raises
    ------
    ValueError
        If k is out of range; and as for `accuracy`.

    Examples
    --------
    >>> scores = xp.asarray([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    >>> float(top_k_accuracy(scores, xp.asarray([1, 2]), 2))
    0.5
    """
    xp = check_scores("scores", scores, labels)
    classes = scores.shape[1]
    k = integer("k", k, most=classes)
    labels = as_indices(labels)
    own = one_hot(labels, classes)
    score = xp.sum(xp.where(own, scores, constant(0, scores)), axis=1, keepdims=True)
    before = _names(labels, classes) < xp.expand_dims(labels, axis=1)
    # not "<=", rather than ">": a NaN is above every score, and every score above a NaN
    above = ~own & (~(scores <= score) | ((scores == score) & before))
    known = xp.any(own, axis=1)
    return _mean(known & (xp.count_nonzero(above, axis=1) < k), widen(scores))


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """Count the samples of each class by the class that was predicted for them.

    ``m[i, j]`` is the number of samples with ``labels == i`` and ``predicted == j``.

    Parameters
    ----------
    labels, predicted : array, shape (N,)
        Integers in [0, classes); such as ``xp.argmax(logits, axis=1)`` for ``predicted``.
    classes : int
        Number of classes, >= 1.

    Returns
    -------
    array, shape (classes, classes)
        Integers of the library's default dtype.

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label is out of range.

    Examples
    --------
    >>> m = confusion_matrix(xp.asarray([0, 1, 1]), xp.asarray([0, 1, 0]), 2)
    >>> [[int(m[i, j]) for j in range(2)] for i in range(2)]
    [[1, 0], [1, 1]]
    """
    classes = integer("classes", classes)
    xp = namespace(labels=labels, predicted=predicted)
    check_ndim("labels", labels, 1, "(N,)")
    n = labels.shape[0]
    if n == 0:
        raise ValueError("labels must hold at least one sample, got shape (0,)")
    check_shape("predicted", predicted, (n,), "that of labels")
    for name, x in (("labels", labels), ("predicted", predicted)):
        _check_labels(name, x, classes)
    dtype = xp.__array_namespace_info__().default_dtypes(device=device(labels))["integral"]
    total = xp.zeros((classes, classes), dtype=dtype, device=device(labels))
    rows = max(1, ONE_HOT // classes)
    for start in range(0, n, rows):
        block = slice(start, min(start + rows, n))
        true, guess = (
            xp.astype(one_hot(x[block], classes), xp.float32) for x in (labels, predicted)
        )
        total = total + xp.astype(xp.matrix_transpose(true) @ guess, dtype)
    return total


def log_loss(probs: Array, labels: Array) -> Array:
    """Mean negative log-likelihood of probabilities: ``mean(-log p_y)``.

    Not clipped: inf where the label's probability is 0. The value of `categorical_cross_entropy`;
    `cross_entropy` of logits is more exact.

    Parameters
    ----------
    probs : array, shape (N, classes)
        Probabilities, real floating dtype.
    labels : array, shape (N,)
        Integers in [0, classes).

    Returns
    -------
    array
        A scalar >= 0, of the dtype of ``probs`` (float32 for half precision).

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label is out of range.

    Examples
    --------
    >>> loss = log_loss(xp.asarray([[0.25, 0.75], [1.0, 0.0]]), xp.asarray([1, 0]))
    >>> round(float(loss), 6)
    0.143841
    """
    check_scores("probs", probs, labels)
    return categorical_cross_entropy(widen(probs), labels, check_labels=False)


def brier_score(probs: Array, labels: Array) -> Array:
    """Mean squared distance of probabilities from the truth: ``mean(sum_c (p_c - [c == y])^2)``.

    From 0 to 2; over two classes twice the score of the positive class alone.

    Parameters
    ----------
    probs : array, shape (N, classes)
        Probabilities, real floating dtype.
    labels : array, shape (N,)
        Integers in [0, classes).

    Returns
    -------
    array
        A scalar in [0, 2], of the dtype of ``probs`` (float32 for half precision).

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label is out of range.

    References
    ----------
    G. W. Brier. Verification of forecasts expressed in terms of probability. Monthly Weather
    Review 78, 1950.

    Examples
    --------
    >>> float(brier_score(xp.asarray([[0.5, 0.5], [1.0, 0.0]]), xp.asarray([1, 0])))
    0.25
    """
    xp = check_scores("probs", probs, labels)
    p = widen(probs)
    own = one_hot(labels, p.shape[1])
    known = xp.any(own, axis=1, keepdims=True)
    error = p - xp.where(known, xp.astype(own, p.dtype), math.nan)
    return xp.mean(xp.sum(error * error, axis=1))


# --- what they share -----------------------------------------------------------------------------


def _mean(hits: Array, like: Array) -> Array:
    """Return the share of what is true, counted in integers: float32 loses count at 2^24."""
    xp = array_namespace(hits)
    return xp.astype(xp.count_nonzero(hits), like.dtype) / hits.shape[0]


def right(scores: Array, labels: Array) -> Array:
    """Return which rows of scores are largest at their label."""
    return array_namespace(scores).argmax(scores, axis=1) == as_indices(labels)


def one_hot(labels: Array, classes: int) -> Array:
    """Return where each label is, a boolean array of shape (N, classes)."""
    labels = as_indices(labels)
    return array_namespace(labels).expand_dims(labels, axis=1) == _names(labels, classes)


def _names(labels: Array, classes: int) -> Array:
    xp = array_namespace(labels)
    return xp.arange(classes, dtype=labels.dtype, device=device(labels))[None, :]


def check_scores(name: str, scores: Array, labels: Array) -> ModuleType:
    """Check scores (N, classes) and labels (N,); return their namespace."""
    xp = float_namespace(**{name: scores})
    namespace(**{name: scores, "labels": labels})
    check_ndim(name, scores, 2, "(N, classes)")
    n, classes = scores.shape
    if n == 0 or classes == 0:
        raise ValueError(
            f"{name} must hold at least one sample and one class, got shape {tuple(scores.shape)}"
        )
    check_shape("labels", labels, (n,), f"one label a row of {name}")
    _check_labels("labels", labels, classes)
    return xp


def _check_labels(name: str, labels: Array, classes: int) -> None:
    if not is_labels(labels):
        raise TypeError(f"{name} must have an integer dtype, got {labels.dtype}")
    check_label_range(name, labels, classes)
