"""A search for labels that are probably wrong, by cross-validation of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils import indexable
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..evaluation.label_issues import ranked_issues
from .samples import as_array, as_indices, host, taken

__all__ = ["find_label_issues"]


def find_label_issues(estimator: Any, X: Any, y: Any, *, cv: Any = 5) -> dict[str, NDArray[Any]]:
    """Return the samples whose label is probably wrong, the worst first.

    Confident learning: each sample's probabilities come from a classifier that was fitted without
    it; `label_issues` says what they mean.

    Parameters
    ----------
    estimator : classifier
        With ``predict_proba``; copies of it are fitted.
    X : array or array-like
        Samples, as for the ``fit`` of the classifier.
    y : array or array-like, shape (N,)
        Labels of any type.
    cv : int or splitter
        Number of folds, or what cuts samples into folds, as for
        ``sklearn.model_selection.cross_val_predict``.

    Returns
    -------
    dict of str to numpy.ndarray
        Columns of a table: ``index`` of the sample, its ``label``, the ``suggested`` one, which is
        the most probable, and the probability of both, ``probability`` and
        ``suggested_probability``. The least probable labels come first.

    Raises
    ------
    ValueError
        If X and y do not fit, or a sample is in no fold or in several.

    References
    ----------
    C. G. Northcutt, L. Jiang, I. L. Chuang. Confident learning: estimating uncertainty in dataset
    labels. JAIR 70, 2021, arXiv:1911.00068.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.arange(100) % 2
    >>> x = np.random.default_rng(0).standard_normal((100, 2)) + 5 * y[:, None]
    >>> y[7] = 0
    >>> issues = find_label_issues(LogisticRegression(), x, y)
    >>> issues["index"].tolist(), issues["label"].tolist(), issues["suggested"].tolist()
    ([7], [0], [1])
    """
    X, y = indexable(as_array(X), host(y))
    given = column_or_1d(y, warn=True)
    check_classification_targets(given)
    classes = np.unique(given)
    probs, times = np.zeros((len(given), len(classes))), np.zeros(len(given), int)
    for train, test in check_cv(cv, given, classifier=True).split(np.zeros(len(given)), given):
        fitted = clone(estimator).fit(taken(X, train), given[train])
        found = host(fitted.predict_proba(taken(X, test)))
        known = as_indices(np.asarray(fitted.classes_), classes)
        probs[np.ix_(test, known)] = found
        times[test] += 1
    if not np.all(times == 1):
        raise ValueError(f"cv must put each sample into one fold, got {cv!r}")
    labels = as_indices(given, classes)
    rows, best = ranked_issues(probs, labels), probs.argmax(axis=1)
    return {
        "index": rows,
        "label": given[rows],
        "suggested": classes[best[rows]],
        "probability": probs[rows, labels[rows]],
        "suggested_probability": probs[rows, best[rows]],
    }
