"""What the classifiers share: predictions from scores, in the library of the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..core.arrays import Array, array_namespace, device, dtype_kind, is_array, is_dask
from ..core.checks import integer, number
from ..core.communication import Alone, Communicator
from ..network.layers import Layer, Params
from ..operations.activations import log_sigmoid, log_softmax, sigmoid, softmax
from ..training.history import History
from ..training.optimizers import State
from .blocks import by_block
from .fitting import HeldOut, Trained
from .samples import (
    Labelled,
    Samples,
    as_indices,
    check_home,
    checked_groups,
    checked_labels,
    checked_weights,
    classes_like,
    host,
)
from .targets import as_table, tabled


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of scores: one a sample for two classes, else one for each class."""

    _fitted: ClassVar[tuple[str, ...]]
    """The attributes that are arrays, or dicts of them, where the samples were."""
    _instead_of_none: ClassVar[dict[str, Any]] = {}
    """What parameters stand for that are None."""
    _several = False
    """Whether samples have several labels."""
    _state: State | None
    """Of the optimizer, to continue from."""
    _range: tuple[float, float, bool] | None = None
    """The least and the greatest number of the first training, and whether all are integers."""

    def decision_function(self, X: Any) -> Array:
        """Return the scores: logits of the classes, or of the second one of two.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``, in the same library and on the same device.

        Returns
        -------
        array, shape (N,) for two classes, else (N, classes), as for several labels
            Of the library of X.
        """
        if is_dask(X):
            return by_block(self, X, "decision_function")
        return self._scores(X, "decision_function")

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each sample, or each of several labels.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``, in the same library and on the same device.

        Returns
        -------
        array, shape (N,)
            Numbers in the library of X; labels of another type, or that it cannot hold exactly, in
            a NumPy array. Where samples have several labels, (N, classes) of 0 and 1.
        """
        if is_dask(X):
            return by_block(self, X, "predict")
        if self._several:
            p = self.predict_proba(X)
            xp, limits = array_namespace(p), self._limits()
            return xp.astype(p > xp.asarray(limits, dtype=p.dtype, device=device(p)), xp.int64)
        scores = self._scores(X, "predict")
        xp = array_namespace(scores)
        best = xp.argmax(scores, axis=1) if scores.ndim > 1 else xp.astype(scores > 0, xp.int32)
        names = classes_like(self.classes_, scores)
        return self.classes_[host(best)] if names is None else xp.take(names, best, axis=0)

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, or of each of several labels.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``, in the same library and on the same device.

        Returns
        -------
        array, shape (N, classes)
            Of the library of X, in the order of ``classes_``.
        """
        if is_dask(X):
            return by_block(self, X, "predict_proba")
        scores = self._scores(X, "predict_proba")
        if self._several:
            return sigmoid(scores)
        return softmax(scores) if scores.ndim > 1 else _of_both(sigmoid, scores)

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of each class's probability, finite where that rounds to 0.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``, in the same library and on the same device.

        Returns
        -------
        array, shape (N, classes)
            Of the library of X, in the order of ``classes_``.
        """
        if is_dask(X):
            return by_block(self, X, "predict_log_proba")
        scores = self._scores(X, "predict_log_proba")
        if self._several:
            return log_sigmoid(scores)
        return log_softmax(scores) if scores.ndim > 1 else _of_both(log_sigmoid, scores)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of ``predict(X)``; of several labels a sample all have to be right.

        Parameters
        ----------
        X : array or array-like
            As for ``fit``, in the same library and on the same device.
        y : array or array-like, shape (N,)
            The right labels; or, as for ``fit``, a table. Of soft labels the largest counts.
        sample_weight : array or array-like, shape (N,), optional
            Weight of each sample.
        """
        predicted = host(self.predict(X))
        if (table := None if self._several else as_table(y)) is not None:
            y = self.classes_[np.argmax(table, axis=1)]
        return float(accuracy_score(host(y), predicted, sample_weight=host(sample_weight)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; with ``deep`` also those within an optimizer or schedule.

        Parameters
        ----------
        deep : bool
            Whether to return names such as ``optimizer__learning_rate``, too.
        """
        params: dict[str, Any] = super().get_params(deep)
        if deep:
            for name in self.get_params(deep=False):
                params |= _fields_within(name, params[name])
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, such as ``epochs`` or ``optimizer__learning_rate``.

        An optimizer or a schedule is replaced by one that differs in what is given.

        Parameters
        ----------
        **params
            Names as in ``get_params``.

        Returns
        -------
        Classifier
            Itself.
        """
        known, changed = self.get_params(deep=False), dict(params)
        for name in params:
            owner, _, inner = name.partition("__")
            value = changed.get(owner, known.get(owner))
            value = self._instead_of_none.get(owner) if value is None else value
            if inner and _has_fields(value):
                changed[owner] = _with_field(name, value, inner, changed.pop(name))
        super().set_params(**changed)
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.classifier_tags.multi_label = True
        return tags

    def __sklearn_array_api_convert__(self, convert: Callable[[Array], Array]) -> Self:
        """Return a copy whose arrays went through ``convert``; what ``to_backend`` calls."""
        copy: Self = clone(self)
        for name, value in vars(self).items():
            fitted = name in self._fitted
            setattr(copy, name, _converted(value, convert) if fitted else value)
        return copy

    # --- what a classifier defines ---------------------------------------------------------------

    def _logits(self, samples: Samples) -> Array:
        """Return the scores of checked samples."""
        raise NotImplementedError

    def _samples(self, X: Any, *, reset: bool) -> Samples:
        """Check samples."""
        raise NotImplementedError

    # --- what they share -------------------------------------------------------------------------

    def _scores(self, X: Any, method: str) -> Array:
        check_is_fitted(self)
        samples = self._samples(X, reset=False)
        check_home(self, samples.like, first(getattr(self, self._fitted[0])), method)
        return self._logits(samples)

    def _limits(self) -> NDArray[np.float64]:
        """Return the probability above which a sample has a label, one for all or for each."""
        limits: NDArray[np.float64] = np.asarray(host(self.thresholds), np.float64)
        inside = bool(((limits >= 0) & (limits <= 1)).all())
        if limits.shape not in ((), (1,), self.classes_.shape) or not inside:
            raise ValueError(
                f"thresholds must be a number in [0, 1], or {len(self.classes_)} of them, one for "
                f"each label; got {self.thresholds!r}"
            )
        return limits

    def _labelled(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        classes: NDArray[Any] | None = None,
        groups: Any = None,
    ) -> Labelled:
        """Check what is to be trained on; ``classes`` are those of a training in parts."""
        begins = classes is None or not hasattr(self, "classes_")
        samples = self._samples(X, reset=begins)
        if begins:
            self._range = (*samples.bounds(), _of_integers(X))
        table = as_table(y)
        if table is None:
            y = checked_labels(self, y, samples)
            known = np.unique(y) if classes is None else classes
            labels = as_indices(y, known)
            weights = checked_weights(sample_weight, self.class_weight, known, labels)
            data = Labelled(samples, known, labels, weights)
        else:
            data = tabled(samples, table, classes, sample_weight, self.class_weight)
        present = data.classes[data.mass > 0]
        if classes is None and not data.several and len(present) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but y has one class "
                f"alone (of weight > 0): {present[0]!r}"
            )
        return replace(data, groups=checked_groups(groups, len(samples)))

    def _partial_classes(self, classes: Any, y: Any) -> NDArray[Any]:
        """Return the classes of a training in parts: given at its first call, or columns of y."""
        given = None if classes is None else np.unique(column_or_1d(host(classes)))
        if not hasattr(self, "classes_"):
            table = as_table(y) if given is None else None
            if table is not None:
                return np.arange(table.shape[1])
            if given is None or len(given) < 2:
                raise ValueError("classes must be given at the first partial_fit: all labels")
            return given
        if given is not None and not np.array_equal(given, self.classes_):
            raise ValueError(
                f"classes must be those of the first fit, {self.classes_.tolist()}, "
                f"got {given.tolist()}"
            )
        known: NDArray[Any] = self.classes_
        return known

    def _continued(self, params: Params, data: Labelled) -> Params:
        """Return parameters to continue from, in the dtype of the samples."""
        if not np.array_equal(data.classes, self.classes_):
            raise ValueError(
                f"y must have the classes of the last fit, {self.classes_.tolist()}, to start "
                f"from it (warm_start=True); got {data.classes.tolist()}"
            )
        if data.several != self._several:
            kinds = ("one label", "several labels")
            raise ValueError(
                f"y must have {kinds[self._several]} a sample, as in the last fit, to start from "
                f"it; got {kinds[data.several]}"
            )
        like = data.samples.like
        check_home(self, like, first(params), "fit")
        xp = array_namespace(like)
        return {name: xp.astype(w, like.dtype) for name, w in params.items()}

    def _held_out(self, data: Labelled) -> HeldOut | None:
        if not self.early_stopping:
            return None
        return HeldOut(
            number("validation_fraction", self.validation_fraction, "(0, 1)"),
            integer("n_iter_no_change", self.n_iter_no_change),
            data.groups,
        )

    def _remember(self, trained: Trained, state: State | None, partial: bool) -> None:
        """Set the attributes that tell how the training went."""
        before = getattr(self, "history_", []) if partial else []
        later = [replace(e, epoch=len(before) + e.epoch) for e in trained.history]
        self.history_ = History([*before, *later])
        self.loss_curve_ = self.history_.column("loss")
        self.n_iter_ = len(self.history_)
        if trained.validation_losses:
            self.validation_loss_curve_ = trained.validation_losses
        self._state = state

    def _rng(self) -> np.random.Generator:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return np.random.default_rng(self._ranks.broadcast(seed))

    @property
    def _ranks(self) -> Communicator:
        ranks: Communicator = Alone() if self.communicator is None else self.communicator
        return ranks

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"communicator": None}  # that is of a job of processes


# --- parameters of optimizers and schedules, which are frozen ------------------------------------


def _has_fields(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, (type, Layer))


def _fields_within(name: str, value: Any) -> dict[str, Any]:
    """Return what is within a value, and within that, by the names that scikit-learn gives it."""
    found: dict[str, Any] = {}
    if _has_fields(value):
        for field in fields(value):
            inner = getattr(value, field.name)
            found |= {f"{name}__{field.name}": inner}
            found |= _fields_within(f"{name}__{field.name}", inner)
    return found


def _with_field(name: str, owner: Any, path: str, value: Any) -> Any:
    """Return ``owner`` with the field at the end of ``path`` replaced; errors say ``name``."""
    first_name, _, inner = path.partition("__")
    names = [field.name for field in fields(owner)]
    if first_name not in names:
        raise ValueError(f"{name} is no parameter: {type(owner).__name__} has {', '.join(names)}")
    if inner:
        within = getattr(owner, first_name)
        if not _has_fields(within):
            raise ValueError(f"{name} is no parameter: {within!r} has none")
        value = _with_field(name, within, inner, value)
    return replace(owner, **{first_name: value})


def _of_integers(X: Any) -> bool:
    return is_array(X) and dtype_kind(array_namespace(X), X.dtype) in ("integral", "bool")


def _of_both(function: Callable[[Array], Array], scores: Array) -> Array:
    return array_namespace(scores).stack([function(-scores), function(scores)], axis=1)


def first(arrays: Any) -> Array:
    """Return the first of some arrays, or the array."""
    return next(iter(arrays.values())) if isinstance(arrays, Mapping) else arrays


def _converted(value: Any, convert: Callable[[Array], Array]) -> Any:
    if isinstance(value, Mapping):
        return {name: _converted(inner, convert) for name, inner in value.items()}
    return convert(value) if hasattr(value, "shape") else value
