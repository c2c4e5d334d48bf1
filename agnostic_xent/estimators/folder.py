"""Classifiers in folders: those that the command line writes and reads."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from ..core.arrays import library
from ..core.conversion import BACKENDS
from ..datasets.scale import Scale
from ..evaluation.folder import CHANGED, RANKS, Settings, now, read, write
from ..network.description import described
from ..network.models import default_cnn
from ..operations.losses import cross_entropy
from ..training.history import History
from ..training.objective import operation_of, options_of
from .chosen_loss import loss_named
from .classifier import Classifier, first
from .cnn import CNNClassifier
from .levels import WHITE, Levels
from .logistic import LogisticRegression

__all__ = ["load_classifier", "save_classifier"]

LABELS = "biufU"
"""The kinds of dtypes whose labels are kept as they are."""
NOT_KEPT = ("callbacks", "checkpoint", "communicator", "loss", "model", "optimizer")
KEPT = (bool, int, float, str, type(None))
"""The types of parameters that are kept."""


def save_classifier(folder: str | os.PathLike[str], classifier: Classifier) -> None:
    """Write a fitted classifier to a folder that the command line reads.

    ``agnostic-xent predict``, ``evaluate`` and ``export`` take it, and `load_classifier`. Three
    files are written there: its parameters (safetensors), the history of its training, and what has
    to be known to use them (JSON). Nothing in them is run when they are read.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    classifier : CNNClassifier or LogisticRegression
        Fitted. Its optimizer, mix, callbacks and communicator are not kept.

    Raises
    ------
    TypeError
        If it is another estimator, its model has layers of another package, or its labels are
        neither numbers nor texts.

    Examples
    --------
    >>> import tempfile
    >>> x, labels = [[0.0], [1.0], [2.0], [3.0]], ["ham", "ham", "spam", "spam"]
    >>> folder = tempfile.mkdtemp()
    >>> save_classifier(folder, LogisticRegression().fit(x, labels))
    >>> load_classifier(folder).predict(x).tolist()
    ['ham', 'ham', 'spam', 'spam']
    """
    if not isinstance(classifier, (CNNClassifier, LogisticRegression)):
        raise TypeError(
            "classifier must be a CNNClassifier or a LogisticRegression, of a Pipeline or a search "
            f"that in it; got {type(classifier).__name__}"
        )
    check_is_fitted(classifier)
    if classifier._several:
        raise TypeError("a classifier of several labels a sample is not kept in a folder")
    images = isinstance(classifier, CNNClassifier)
    params = classifier.params_ if images else _linear(classifier)
    where, rates = library(first(params)), classifier.history_.column("learning_rate")
    shape = classifier.image_shape_ if images else (classifier.n_features_in_,)
    path = Path(folder)
    settings = Settings(
        model=next(name for name, ranks in RANKS.items() if len(shape) in ranks),
        data="",
        backend=where if where in BACKENDS else "numpy",
        epochs=classifier.n_iter_,
        batch_size=int(classifier.batch_size),
        learning_rate=max(rates) if rates else None,
        seed=_seed(classifier.random_state),
        classes=tuple(map(str, classifier.classes_.tolist())),
        input_shape=shape,
        scale=_scale(classifier),
        augment=bool(images and classifier.augment),
        **_minimised(classifier),
        date=now(),
        network_layers=_other_network(classifier) if images else None,
        estimator=_own(classifier),
    )
    path.mkdir(parents=True, exist_ok=True)
    write(path, settings, params, classifier.history_)


def load_classifier(folder: str | os.PathLike[str]) -> Any:
    """Read a classifier that `save_classifier`, or ``train --out``, has written.

    Parameters
    ----------
    folder : path
        The folder.

    Returns
    -------
    CNNClassifier, LogisticRegression or Pipeline
        Fitted, on NumPy arrays; `to_backend` moves it. What was trained on a table is a Pipeline
        that begins with its columns and takes such tables.

    Raises
    ------
    ValueError
        If the folder lacks a file, or one is damaged; or no classifier takes such numbers.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> save_classifier(folder, LogisticRegression(C=2.0).fit([[0.0], [1.0]], [3, 5]))
    >>> load_classifier(folder)
    LogisticRegression(C=2.0)
    """
    settings, params, history = read(Path(folder))
    try:
        return _made(settings, params, history)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no classifier: {error}") from error


# --- what is written -----------------------------------------------------------------------------


def _linear(classifier: LogisticRegression) -> dict[str, Any]:
    return {"0.weight": classifier.coef_, "0.bias": classifier.intercept_}


def _minimised(classifier: Classifier) -> dict[str, Any]:
    """Return what settings say of the loss; that of logistic regression goes by its name."""
    if not isinstance(classifier, CNNClassifier):
        return {}
    loss = cross_entropy if classifier.loss is None else classifier.loss
    return {
        "loss": operation_of(loss).name,
        "label_smoothing": options_of(loss).get("label_smoothing", 0.0),
        "class_prior": classifier.class_prior is not None,
    }


def _loss_options(classifier: Classifier) -> dict[str, float]:
    """Return the options of the loss of a network."""
    if not isinstance(classifier, CNNClassifier) or classifier.loss is None:
        return {}
    return {name: float(value) for name, value in options_of(classifier.loss).items()}


def _seed(random_state: Any) -> int | None:
    return int(random_state) if isinstance(random_state, (int, np.integer)) else None


def _scale(classifier: Classifier) -> Scale | None:
    """Return the scale of the numbers of the training."""
    if classifier._range is None:
        return None
    least, greatest, whole = classifier._range
    divided = isinstance(classifier, CNNClassifier) and Levels(*classifier._levels).divided
    return Scale(WHITE if divided else 1, least, greatest, whole)


def _other_network(classifier: CNNClassifier) -> dict[str, Any] | None:
    usual = default_cnn(len(classifier.classes_), classifier.image_shape_)
    return None if classifier.model_ == usual else described(classifier.model_)


def _own(classifier: Classifier) -> dict[str, Any]:
    """Return what a classifier keeps beside the settings of a training."""
    labels = classifier.classes_
    texts = labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels)
    if labels.dtype.kind not in LABELS and not texts:
        raise TypeError(f"labels must be numbers or texts, got dtype {labels.dtype}")
    names = getattr(classifier, "feature_names_in_", None)
    given = classifier.get_params(deep=False)
    return {
        "labels": labels.tolist(),
        "dtype": str(labels.dtype),
        "feature_names": None if names is None else names.tolist(),
        "losses": classifier.loss_curve_,
        "loss_options": _loss_options(classifier),
        "params": {name: value for name, value in given.items() if _is_kept(name, value)},
    }


def _is_kept(name: str, value: Any) -> bool:
    if name in NOT_KEPT:
        return False
    return all(type(x) in KEPT for x in (value if isinstance(value, tuple) else [value]))


# --- what is read --------------------------------------------------------------------------------


def _made(settings: Settings, params: dict[str, Any], history: History) -> Any:
    """Return the classifier that has these settings and parameters."""
    own = settings.estimator or {}
    kind: type[Any] = LogisticRegression if settings.model == "logistic" else CNNClassifier
    known = kind().get_params(deep=False)
    given = own.get("params", _trained_by(settings))
    classifier = kind(**{name: _kept(x) for name, x in given.items() if name in known})
    classifier.classes_, order = _classes(settings)
    params = _in_order(params, order)
    divisor = 1 if settings.scale is None else settings.scale.divisor
    if kind is CNNClassifier:
        if divisor not in (1, WHITE):
            raise ValueError(f"it was trained on levels up to {divisor}, not {WHITE}")
        _set_images(classifier, settings, params)
        smoothing = {"label_smoothing": settings.label_smoothing}
        of_run = smoothing if settings.label_smoothing else {}
        classifier.loss = loss_named(settings.loss, own.get("loss_options", of_run))
    else:
        classifier.coef_, classifier.intercept_ = params["0.weight"] / divisor, params["0.bias"]
    classifier.n_features_in_ = math.prod(settings.input_shape)
    if own.get("feature_names"):
        classifier.feature_names_in_ = np.asarray(own["feature_names"], object)
    classifier.history_, classifier.n_iter_ = history, settings.epochs
    classifier.loss_curve_ = own.get("losses", history.column("loss"))
    classifier._state, classifier._range = None, _range(settings.scale)
    if settings.columns is None:
        return classifier
    columns = FunctionTransformer(settings.columns.rows)
    return Pipeline([("columns", columns), ("classifier", classifier)])


def _kept(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _trained_by(settings: Settings) -> dict[str, Any]:
    """Return the parameters of a classifier that the command line has trained."""
    shared = {
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "random_state": settings.seed,
    }
    if settings.model == "logistic":
        return shared | {"max_iter": settings.epochs, "solver": "sgd"}
    return shared | {
        "epochs": settings.epochs,
        "augment": CHANGED[settings.model] if settings.augment else None,
        "class_prior": "empirical" if settings.class_prior else None,
        "signals": settings.model == "signals",
    }


def _set_images(classifier: CNNClassifier, settings: Settings, params: Any) -> None:
    classifier.model_, classifier.params_ = settings.network(), params
    classifier.image_shape_ = settings.input_shape
    if settings.network_layers is not None:
        classifier.model = classifier.model_
    scale = settings.scale
    if scale is not None:
        of_shares = scale.least >= 0 and scale.greatest <= 1 and not scale.whole
        classifier._levels = scale.divisor == WHITE, of_shares


def _classes(settings: Settings) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the labels in order, as scikit-learn has them, and where they were."""
    own = settings.estimator or {"labels": settings.classes, "dtype": "U"}
    kind = np.dtype(own["dtype"]).kind  # a text may be longer in the file than here
    classes: NDArray[Any] = np.asarray(own["labels"], "U" if kind == "U" else own["dtype"])
    found, order = np.unique(classes, return_index=True)
    other = settings.estimator is not None and not np.array_equal(found, classes)
    if other or not len(classes) == len(settings.classes) == len(found):
        raise ValueError(f"its labels cannot be {own['labels']!r}")
    return found, order


def _in_order(params: dict[str, Any], order: NDArray[np.int64]) -> dict[str, Any]:
    """Return parameters whose last layer makes logits of the classes in another order."""
    if np.array_equal(order, np.arange(len(order))):
        return params
    last = list(params)[-2:]  # the weight and the bias of a dense layer
    one = len(params[last[0]]) == 1  # that of the second of two classes
    return params | {name: -params[name] if one else params[name][order] for name in last}


def _range(scale: Scale | None) -> tuple[float, float, bool] | None:
    return None if scale is None else (scale.least, scale.greatest, scale.whole)
