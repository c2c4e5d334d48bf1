"""The report of a classifier on test samples, for scikit-learn's estimators."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from ..core.arrays import array_namespace, library
from ..core.conversion import to_numpy
from ..evaluation.explanations import SHOWN_STEPS
from ..evaluation.layer_times import LayerTime, how_measured, layer_times
from ..evaluation.page import machine, save_page
from ..evaluation.pictures import Curves, curves_of
from ..evaluation.strongest import strongest
from ..operations.losses import cross_entropy
from .classifier import Classifier
from .cnn import CNNClassifier
from .conformal import ConformalClassifier
from .logistic import LogisticRegression
from .samples import (
    Samples,
    as_array,
    as_indices,
    checked_groups,
    checked_labels,
    host,
    taken,
)
from .targets import as_table, tabled

__all__ = ["save_report"]


def save_report(
    path: str | os.PathLike[str],
    classifier: Any,
    X: Any,
    y: Any,
    *,
    title: str | None = None,
    groups: Any = None,
) -> None:
    """Write what a fitted classifier does on test samples as one HTML page.

    Curves of the training, confusion matrix, reliability diagram, scores of each class, samples
    whose label is probably wrong, sizes and coverage of prediction sets; of two classes ROC and
    precision-recall curves, and the thresholds for some precisions; of a `LogisticRegression`
    whose features have names the strongest ones of each class; of images, signals and volumes also
    the most confident mistakes, each with an explanation, the first filters, and which
    implementation runs in each layer and for how long. The page opens without network, on a phone
    and on paper. Needs matplotlib and jinja2.

    Parameters
    ----------
    path : path
        The file, such as report.html; an older one is replaced only when the new one is complete.
    classifier : CNNClassifier, LogisticRegression or another classifier of scikit-learn
        Fitted, with ``predict_proba``; also the last step of a Pipeline, the best one of a search
        such as GridSearchCV, or the one in a `ConformalClassifier`. The curves and
        the layers are those of the first two alone.
    X, y : array or array-like
        Test samples and their labels, as for ``classifier.score``.
    title : str, optional
        By default the name of the class.
    groups : array-like, shape (N,), optional
        What each sample belongs to, such as a person: a table has the accuracy of each.

    Raises
    ------
    ImportError
        If matplotlib or jinja2 is not installed.
    ValueError
        If X is not as it was fitted, y has labels that were not there, or there are not as many
        groups as samples.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> x, labels = [[0.0], [1.0], [2.0], [3.0]], ["ham", "ham", "spam", "spam"]
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> save_report(path, LogisticRegression().fit(x, labels), x, labels)
    >>> path.read_text().startswith("<!DOCTYPE html>")
    True
    """
    check_is_fitted(classifier)
    classifier, X, names = _last_step(classifier, X)
    name, where, size = type(classifier).__name__, "numpy", 0
    images, explained, filters, layers = None, None, None, []
    if not isinstance(classifier, Classifier):
        check_consistent_length(X, y)
        labels = as_indices(column_or_1d(y, warn=True), np.asarray(classifier.classes_))
        p = np.asarray(classifier.predict_proba(X), np.float64)
        log_probabilities = np.log(np.maximum(p, np.finfo(np.float64).eps))
    else:
        samples = classifier._samples(X, reset=False)
        labels = _labels(classifier, y, samples)
        log_probabilities = np.asarray(host(classifier.predict_log_proba(X)), dtype=np.float64)
        where, size = library(samples.like), min(int(classifier.batch_size), len(samples))
        if isinstance(classifier, CNNClassifier):
            images, filters = _images(classifier, X), _filters(classifier)
            explained = functools.partial(_explained, classifier, as_array(X))
            layers = _layers(classifier, samples, labels, size)
    unit = "epoch" if getattr(classifier, "history_", None) else "iteration"
    save_page(
        path,
        title=title or name,
        loss=-float(log_probabilities[np.arange(len(labels)), labels].mean()),
        numbers=_numbers(classifier, unit),
        curves=_curves(classifier),
        unit=unit,
        labels=labels,
        probabilities=np.exp(log_probabilities),
        images=images,
        explained=explained,
        classes=[str(label) for label in classifier.classes_],
        filters=filters,
        layers=layers,
        layers_note=how_measured(size, where),
        settings={"estimator": name, **_settings(classifier)},
        versions=machine(where),
        groups=checked_groups(groups, len(labels)),
        strongest=_strongest(classifier, names),
    )


def _labels(classifier: Classifier, y: Any, samples: Samples) -> NDArray[np.int64]:
    """Return the positions of the labels; of soft ones the largest counts."""
    if classifier._several:
        raise ValueError("classifier has several labels a sample; a report is for one")
    table = as_table(y)
    if table is None:
        return as_indices(checked_labels(classifier, y, samples), classifier.classes_)
    return tabled(samples, table, classifier.classes_, None, None).labels


def _last_step(estimator: Any, X: Any) -> tuple[Any, Any, Any]:
    """Return the classifier within another one or a pipeline, samples as that takes them, names.

    Those of the features, as the steps before name them; None where they do not.
    """
    names = None
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, ConformalClassifier):
            estimator = estimator.estimator_
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            if len(estimator) > 1:
                X, names = estimator[:-1].transform(X), _names_out(estimator[:-1])
            estimator = estimator[-1]
        else:
            break
    if not hasattr(estimator, "predict_proba") or not hasattr(estimator, "classes_"):
        raise TypeError(
            "classifier must be a fitted classifier with predict_proba, or a Pipeline or a search "
            f"of one, got {type(estimator).__name__}"
        )
    return estimator, X, names


def _names_out(steps: Pipeline) -> Any:
    try:
        return steps.get_feature_names_out()
    except (AttributeError, ValueError):  # such as of a HashingVectorizer, or a function
        return None


def _strongest(classifier: Any, names: Any) -> dict[str, list[str]]:
    """Return the features that speak most for each class, of a linear classifier and with names."""
    names = getattr(classifier, "feature_names_in_", names)
    if names is None or not isinstance(classifier, LogisticRegression):
        return {}
    return strongest(to_numpy(classifier.coef_), names, [*map(str, classifier.classes_)])


def _numbers(classifier: Any, unit: str) -> dict[str, str]:
    if not isinstance(classifier, Classifier):
        return {}
    if isinstance(classifier, CNNClassifier):
        arrays = [*classifier.params_.values()]
    else:
        arrays = [classifier.coef_, classifier.intercept_]
    count = sum(math.prod(w.shape) for w in arrays)
    numbers = {"parameters": f"{count:,}", f"{unit}s": f"{classifier.n_iter_}"}
    if classifier.history_:
        numbers["training"] = f"{sum(classifier.history_.column('seconds')):.3g} s"
    return numbers


def _curves(classifier: Any) -> Curves:
    if not isinstance(classifier, Classifier):
        return {}
    if classifier.history_:
        return curves_of(classifier.history_)
    losses = classifier.loss_curve_
    return {"objective": {"training": losses}} if losses else {}


def _settings(classifier: Any) -> dict[str, Any]:
    params: dict[str, Any] = classifier.get_params(deep=False)
    return {k: v for k, v in params.items() if k not in ("callbacks", "communicator")}


def _images(classifier: CNNClassifier, X: Any) -> NDArray[Any] | None:
    """Return images, signals or volumes, or None where rows of numbers were fitted."""
    if len(classifier.image_shape_) == 3 and min(classifier.image_shape_[1:]) == 1:
        return None
    images: NDArray[Any] = np.asarray(host(X)).reshape(-1, *classifier.image_shape_)
    return images


def _explained(classifier: CNNClassifier, X: Any, rows: NDArray[np.integer]) -> NDArray[Any]:
    """Return what spoke for the predicted labels of some samples, (M, C, H, W)."""
    found: NDArray[Any] = host(classifier.attributions(taken(X, rows), steps=SHOWN_STEPS))
    return found


def _filters(classifier: CNNClassifier) -> NDArray[Any] | None:
    weights = (w for name, w in classifier.params_.items() if name.endswith("weight"))
    first = next((w for w in weights if w.ndim > 2), None)
    return None if first is None else to_numpy(first)


def _layers(
    classifier: CNNClassifier, samples: Samples, labels: NDArray[np.int64], size: int
) -> list[LayerTime]:
    x = samples.take(slice(0, size))
    images = array_namespace(x).reshape(x, (-1, *classifier.image_shape_))
    y = samples.indices(labels[:size])
    return layer_times(classifier.model_, classifier.params_, images, y, cross_entropy)
