"""Confident learning: which labels of a data set are probably wrong.

From probabilities that a model gives to samples that it was not trained on, such as those of
cross-validation. As in ``metrics.py``, everything stays where the arrays are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.arrays import Array, array_namespace, constant, device, quiet, widen
from .metrics import check_scores, confusion_matrix, one_hot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["confident_joint", "label_issues"]

SLACK = 1e-6
"""How far below its threshold a probability may be: a mean of equal numbers is rounded."""


def confident_joint(probs: Array, labels: Array) -> Array:
    """Count the samples of each label by the class that the model is confident of.

    It is confident of class j if ``p_j >= t_j``, the mean of p_j over the samples labelled j; of
    several such classes the most probable one counts, of none no one. What is not on the diagonal
    estimates how many samples labelled i are of class j.

    Parameters
    ----------
    probs : array, shape (N, classes)
        Probabilities of samples that the model was not trained on, real floating dtype.
    labels : array, shape (N,)
        Given labels, integers in [0, classes).

    Returns
    -------
    array, shape (classes, classes)
        Integers of the library's default dtype: [i, j] is of label i and class j.

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label is out of range.

    References
    ----------
    C. G. Northcutt, L. Jiang, I. L. Chuang. Confident learning: estimating uncertainty in dataset
    labels. JAIR 70, 2021, arXiv:1911.00068.

    Examples
    --------
    >>> probs = xp.asarray([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.9, 0.1], [0.0, 1.0]])
    >>> joint = confident_joint(probs, xp.asarray([0, 0, 1, 1, 1]))
    >>> [[int(joint[i, j]) for j in range(2)] for i in range(2)]
    [[1, 0], [1, 2]]
    """
    xp = check_scores("probs", probs, labels)
    p, classes = widen(probs), probs.shape[1]
    own = one_hot(labels, classes)
    with quiet():  # 0 / 0: of a label that no sample has, no one is confident
        total = xp.sum(xp.where(own, p, constant(0, p)), axis=0)
        mean = total / xp.astype(xp.count_nonzero(own, axis=0), p.dtype)
    confident = p >= mean[None, :] - SLACK
    best = xp.argmax(xp.where(confident, p, constant(-1, p)), axis=1)
    guess = xp.where(xp.any(confident, axis=1), best, xp.full_like(best, classes))
    return confusion_matrix(labels, guess, classes + 1)[:classes, :classes]


def label_issues(probs: Array, labels: Array) -> Array:
    """Return which labels are probably wrong.

    Of each label as large a share as is not on the diagonal of its row of `confident_joint`: the
    samples that the label has the least probability for. In the order of that probability the
    worst come first.

    Parameters
    ----------
    probs : array, shape (N, classes)
        Probabilities of samples that the model was not trained on, real floating dtype.
    labels : array, shape (N,)
        Given labels, integers in [0, classes). One out of range is an issue where it cannot be
        read.

    Returns
    -------
    array, shape (N,)
        Booleans.

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, or a label is out of range.

    References
    ----------
    C. G. Northcutt, L. Jiang, I. L. Chuang. Confident learning: estimating uncertainty in dataset
    labels. JAIR 70, 2021, arXiv:1911.00068: "prune by class".

    Examples
    --------
    >>> probs = xp.asarray([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.9, 0.1], [0.0, 1.0]])
    >>> issues = label_issues(probs, xp.asarray([0, 0, 1, 1, 1]))
    >>> [bool(issues[i]) for i in range(5)]
    [False, False, False, True, False]
    """
    joint = confident_joint(probs, labels)
    xp, p, classes = array_namespace(probs), widen(probs), probs.shape[1]
    own = one_hot(labels, classes)
    right = xp.sum(xp.where(xp.eye(classes, dtype=xp.bool, device=device(p)), joint, 0), axis=1)
    confident, count = xp.sum(joint, axis=1), xp.count_nonzero(own, axis=0)
    wrong, total, count = (xp.astype(n, p.dtype) for n in (confident - right, confident, count))
    order = xp.argsort(xp.sum(xp.where(own, p, constant(0, p)), axis=1))
    limit = xp.astype(xp.round(wrong * count / xp.clip(total, 1)), order.dtype)

    own = xp.take(own, order, axis=0)  # now the least probable label first
    rank = xp.cumulative_sum(xp.astype(own, order.dtype), axis=0)
    issue = ~xp.any(own & (rank > limit[None, :]), axis=1)
    return xp.take(issue, xp.argsort(order), axis=0)


def ranked_issues(probs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the samples whose label is probably wrong, the least probable label first."""
    import numpy as np

    rows = np.flatnonzero(label_issues(probs, labels))
    return rows[np.argsort(probs[rows, labels[rows]], kind="stable")]
