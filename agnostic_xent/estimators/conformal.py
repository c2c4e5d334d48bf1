"""A classifier around another one that predicts sets of labels, with a promised coverage."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, get_tags, indexable
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..core.arrays import Array, array_namespace, device
from ..core.checks import number
from ..evaluation.conformal import ConformalSets, fit_conformal
from .samples import as_array, as_indices, host, taken

__all__ = ["ConformalClassifier"]


class ConformalClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier whose ``predict_sets`` holds the right label as often as is asked for.

    Split conformal prediction: a part of the samples is held out from the training of another
    classifier, and its probabilities there calibrate the sets: `fit_conformal`.

    Parameters
    ----------
    estimator : classifier
        With ``predict_proba``, such as `CNNClassifier` or a Pipeline. One that is fitted, in a
        ``sklearn.frozen.FrozenEstimator``, stays as it is: then all samples calibrate, and must be
        others than it was fitted on.
    coverage : float
        In (0, 1).
    method, penalty, unpenalized
        As for `ConformalSets`.
    calibration_fraction : float
        Size of the part that is held out, in (0, 1), with the same shares of the labels.
    random_state : int, RandomState or None
        Chooses that part.

    Attributes
    ----------
    estimator_ : classifier
        Fitted.
    sets_ : ConformalSets
        What makes sets of probabilities.
    classes_ : numpy.ndarray
        The labels in order.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(2000) % 2
    >>> x = rng.standard_normal((2000, 3)) + y[:, None]
    >>> classifier = ConformalClassifier(LogisticRegression(), random_state=0)
    >>> sets = classifier.fit(x[:1500], y[:1500]).predict_sets(x[1500:])
    >>> sets.shape, bool(sets[np.arange(500), y[1500:]].mean() > 0.88)
    ((500, 2), True)
    """

    estimator_: Any
    sets_: ConformalSets

    def __init__(
        self,
        estimator: Any,
        *,
        coverage: float = 0.9,
        method: str = "aps",
        penalty: float = 0.0,
        unpenalized: int = 1,
        calibration_fraction: float = 0.2,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.coverage = coverage
        self.method = method
        self.penalty = penalty
        self.unpenalized = unpenalized
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the classifier on a part of the samples, and calibrate on the others.

        Parameters
        ----------
        X, y
            As for the ``fit`` of the classifier.

        Returns
        -------
        ConformalClassifier
            Itself.
        """
        fraction = number("calibration_fraction", self.calibration_fraction, "(0, 1)")
        X, y = indexable(as_array(X), host(y))
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        estimator, held = clone(self.estimator), np.arange(len(labels))
        if not isinstance(estimator, FrozenEstimator):
            rows, held = train_test_split(
                held, test_size=fraction, stratify=labels, random_state=self.random_state
            )
            estimator = estimator.fit(taken(X, rows), labels[rows])
        probs = estimator.predict_proba(taken(X, held))
        own = as_indices(labels[held], np.asarray(estimator.classes_))
        self.sets_ = fit_conformal(
            probs,
            array_namespace(probs).asarray(own, device=device(probs)),
            coverage=self.coverage,
            method=self.method,
            penalty=self.penalty,
            unpenalized=self.unpenalized,
        )
        self.estimator_, self.classes_ = estimator, np.asarray(estimator.classes_)
        return self

    def predict_sets(self, X: Any) -> Array:
        """Return which labels are in the set of each sample.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``.

        Returns
        -------
        array, shape (N, classes)
            Booleans, of the library of the probabilities, in the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.sets_(self.predict_proba(X))

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of the classifier.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``.

        Returns
        -------
        array, shape (N, classes)
            In the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict(self, X: Any) -> Array:
        """Return the label that the classifier predicts.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``.

        Returns
        -------
        array, shape (N,)
            Labels.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of ``predict(X)``.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``.
        y : array or array-like, shape (N,)
            The right labels.
        sample_weight : array or array-like, shape (N,), optional
            Weight of each sample.
        """
        check_is_fitted(self)
        return float(self.estimator_.score(X, y, sample_weight))

    @property
    def n_features_in_(self) -> int:
        """The number of features that the classifier was fitted on."""
        check_is_fitted(self)
        return int(self.estimator_.n_features_in_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags, tags.array_api_support = inner.input_tags, inner.array_api_support
        return tags
