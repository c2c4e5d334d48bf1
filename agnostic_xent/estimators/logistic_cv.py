"""Logistic regression whose penalty is chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import Tags

from ..core.checks import integer, number
from ..core.communication import Communicator
from ..core.sparse import CSR
from .logistic import LogisticRegression
from .rows import Rows
from .samples import as_indices, checked_groups, checked_labels, checked_weights, host

__all__ = ["LogisticRegressionCV"]


class LogisticRegressionCV(LogisticRegression):
    """`LogisticRegression` with the C and the l1_ratio that predict held-out samples best.

    For each part that is held out, and each ratio, the optima of all C are found one after the
    other, each from the last one. The model is then fitted to all samples with the best pair.

    Parameters
    ----------
    Cs : int or sequence of float
        The values of C, in the order of the path; or how many, from 1e-4 to 1e4.
    l1_ratios : sequence of float
        The shares of the l1 penalty.
    fit_intercept : bool
        Whether there is an intercept b.
    class_weight : dict, "balanced" or None
        Factor of the samples' weights by label; "balanced" gives all classes the same total.
    cv : int, splitter, iterable or None
        How samples are held out, as for ``sklearn.model_selection.cross_validate``; None stands for
        5 parts of the same shares of classes.
    scoring : str or callable
        What scores the predictions, of scikit-learn: a name, or ``scorer(estimator, X, y)``.
    max_iter : int, optional
        Iterations of a fit at most, 1000 by default.
    tol : float
        When a fit ends, as for `LogisticRegression`.
    communicator : Communicator, optional
        As for `LogisticRegression`.

    Attributes
    ----------
    C_, l1_ratio_ : float
        The best pair; of equal ones the first.
    Cs_, l1_ratios_ : array
        What was tried, of the library, device and floating dtype of X.
    scores_ : array, shape (parts, l1_ratios, Cs)
        The score on each part that was held out.
    coef_, intercept_, classes_, n_iter_, loss_curve_, n_features_in_, feature_names_in_
        Of the fit to all samples, as of `LogisticRegression`.

    Notes
    -----
    The names, and the shapes, are those of scikit-learn with ``use_legacy_attributes=False``.
    Samples in files and dask arrays are read into memory, less a part that is held out.

    References
    ----------
    J. Friedman, T. Hastie, R. Tibshirani. Regularization paths for generalized linear models via
    coordinate descent, Journal of Statistical Software 33, 2010.

    Examples
    --------
    >>> x, labels = xp.asarray([[0.0], [1.0], [2.0], [3.0]] * 5), ["ham", "ham", "spam", "spam"] * 5
    >>> model = LogisticRegressionCV(Cs=[0.01, 100.0], l1_ratios=[0.0, 1.0]).fit(x, labels)
    >>> model.scores_.shape
    (5, 2, 2)
    >>> model.C_
    100.0
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        *LogisticRegression._fitted,
        "Cs_",
        "l1_ratios_",
        "scores_",
    )
    solver, warm_start, batch_size, thresholds = "lbfgs", False, 1, 0.5  # no parameters here

    def __init__(
        self,
        *,
        Cs: int | Sequence[float] = 10,
        l1_ratios: Sequence[float] = (0.0,),
        fit_intercept: bool = True,
        class_weight: Any = None,
        cv: Any = None,
        scoring: Any = "neg_log_loss",
        max_iter: int | None = None,
        tol: float = 1e-8,
        communicator: Communicator | None = None,
    ):
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.cv = cv
        self.scoring = scoring
        self.max_iter = max_iter
        self.tol = tol
        self.communicator = communicator

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose the penalty, and fit the coefficients.

        Parameters
        ----------
        X : array, sparse matrix or array-like, shape (N, features)
            Finite numbers.
        y : array or array-like, shape (N,)
            Labels of any type.
        sample_weight : array or array-like, shape (N,), or float, optional
            Weight of each sample, >= 0; those of the held-out samples weigh their scores.
        groups : array-like, shape (N,), optional
            What each sample belongs to, such as a person, for a ``cv`` like ``GroupKFold(5)``.

        Returns
        -------
        LogisticRegressionCV
            Itself.
        """
        Cs, ratios = self._grid()
        samples = self._samples(X, reset=True)
        labels = checked_labels(self, y, samples)
        alike = np.zeros(len(labels), np.int64)
        weights = checked_weights(sample_weight, None, np.unique(labels), alike)
        groups = checked_groups(groups, len(labels))
        cv, rows = check_cv(self.cv, labels, classifier=True), np.zeros((len(labels), 1))
        scores = []
        for train, test in cv.split(rows, labels, groups):
            if len(missing := np.setdiff1d(labels, labels[train])):
                raise ValueError(
                    f"y has too few samples of {missing.tolist()}: what cv={self.cv!r} leaves to "
                    "train on has none"
                )
            one, other = (
                (
                    _matrix(samples.take(rows)),
                    labels[rows],
                    None if weights is None else weights[rows],
                )
                for rows in (train, test)
            )
            scores.append([[*self._path(one, other, Cs, ratio)] for ratio in ratios])
        mean = np.mean(scores, axis=0)
        best = np.unravel_index(np.argmax(mean), mean.shape)
        for name, values in (("Cs_", Cs), ("l1_ratios_", ratios), ("scores_", np.asarray(scores))):
            setattr(self, name, samples.numbers(values))
        self.l1_ratio_, self.C_ = float(ratios[best[0]]), float(Cs[best[1]])
        return super().fit(X, y, sample_weight)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return what ``scoring`` says of predictions.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``, in the same library and on the same device.
        y : array or array-like, shape (N,)
            The right labels.
        sample_weight : array or array-like, shape (N,), optional
            Weight of each sample.
        """
        return self._score(self, (X, host(y), host(sample_weight)))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = False
        return tags

    @property
    def C(self) -> float:  # type: ignore[override]
        """What was chosen; `LogisticRegression` fits with it."""
        return self.C_

    @property
    def l1_ratio(self) -> float:  # type: ignore[override]
        """Likewise."""
        return self.l1_ratio_

    # --- pieces ----------------------------------------------------------------------------------

    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values of C and l1_ratio to try."""
        if isinstance(self.Cs, Iterable):
            Cs = [number("Cs", C, "(0, inf]") for C in self.Cs]
        else:
            Cs = [*np.logspace(-4, 4, integer("Cs", self.Cs))]
        ratios = [number("l1_ratios", ratio, "[0, 1]") for ratio in self.l1_ratios]
        for name, values in (("Cs", Cs), ("l1_ratios", ratios)):
            if not values:
                raise ValueError(f"{name} must hold a number to try, got none")
        return np.asarray(Cs), np.asarray(ratios)

    def _path(
        self, train: Part, test: Part, Cs: NDArray[np.float64], ratio: float
    ) -> Iterator[float]:
        """Yield the score on a part that is held out for each C, each fit begun at the last one."""
        shared = ("fit_intercept", "class_weight", "max_iter", "tol", "communicator")
        options = {name: getattr(self, name) for name in shared}
        model = LogisticRegression(l1_ratio=float(ratio), warm_start=True, **options)
        for C in Cs:
            yield self._score(model.set_params(C=float(C)).fit(*train), test)

    def _score(self, model: LogisticRegression, test: Part) -> float:
        x, y, weights = test
        if self.scoring == "neg_log_loss":  # exact, also if the part lacks a class
            labels = as_indices(y, model.classes_)
            likelihoods = host(model.predict_log_proba(x))[np.arange(len(labels)), labels]
            return float(np.average(likelihoods, weights=weights))
        scorer, options = check_scoring(model, scoring=self.scoring), {}
        if weights is not None:
            options["sample_weight"] = weights
        return float(scorer(_OnHost(model), x, y, **options))


Part: TypeAlias = tuple[Any, Any, Any]
"""Samples, labels and weights, or None."""


class _OnHost(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose predictions are NumPy arrays, as scorers take them."""

    def __init__(self, model: LogisticRegression):
        self.model, self.classes_ = model, model.classes_

    def predict(self, X: Any) -> NDArray[Any]:
        """Return labels."""
        return np.asarray(host(self.model.predict(X)))

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return probabilities."""
        return np.asarray(host(self.model.predict_proba(X)))

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return scores."""
        return np.asarray(host(self.model.decision_function(X)))


def _matrix(rows: Rows) -> Any:
    """Return rows as an estimator takes them."""
    return rows.matrix if isinstance(rows, CSR) else rows
