"""Logistic regression with scikit-learn's conventions, on the arrays of any library."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from ..core.arrays import Array, array_namespace
from ..core.checks import check_choice, integer, number
from ..core.communication import Communicator
from ..core.conversion import to_numpy
from ..core.sparse import CSR
from ..network.containers import Sequential
from ..network.exchange import Exported
from ..network.layers import Dense, Params
from ..training.averages import Averaged, state_after
from ..training.batches import is_stored
from ..training.history import History
from ..training.optimizers import SGD, State
from ..training.proximal import Proximal
from ..training.schedules import Later, Scaled, Schedule
from ..training.sparse_epochs import _SparseDense
from .classifier import Classifier
from .fitting import problem, train
from .inference import standard_errors, table
from .lbfgs import MOST_COLUMNS, minimize
from .logistic_objective import LogisticObjective
from .orthants import minimize_l1
from .rows import affine
from .sample_space import SampleSpace, sample_space
from .samples import Labelled, Samples, check_home, checked_samples, checked_weights, dtype_name
from .used_columns import UsedColumns, used_columns

__all__ = ["LogisticRegression"]


def _trains_by_steps(estimator: LogisticRegression) -> bool:
    if estimator.solver != "sgd":
        raise AttributeError(f'partial_fit needs solver="sgd", got {estimator.solver!r}')
    return True


class LogisticRegression(Classifier):
    """Logistic regression: of two classes by one logit, of more by softmax.

    Minimises ``C sum_i a_i l(y_i, x_i w^T + b) + (1 - l1_ratio) |w|^2 / 2 + l1_ratio sum |w|``, a
    the weight of a sample and l its cross entropy. The optimum is found on features as they come:
    their offsets and scales cost no iterations.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, > 0; infinity for none. Intercepts are not penalised.
    l1_ratio : float
        Share of the l1 penalty, in [0, 1]: 0 is ridge, 1 the lasso, between them the elastic net.
        An l1 penalty sets the coefficients of features that tell little to 0.
    fit_intercept : bool
        Whether there is an intercept b.
    class_weight : dict, "balanced" or None
        Factor of the samples' weights by label; "balanced" gives all classes the same total.
    solver : {"lbfgs", "sgd"}
        "lbfgs": all samples at once, to the optimum. "sgd": step by step, near to the optimum; with
        ``batch_size=1`` and ``C=inf`` the textbook's ``w <- w - learning_rate (p - y) x``.
    max_iter : int, optional
        Iterations at most ("lbfgs", 1000 by default) or passes through the samples ("sgd", 20).
    tol : float
        "lbfgs" ends when an estimate of its distance from the minimum, relative to it, is that
        small.
    warm_start : bool
        Whether ``fit`` starts from the coefficients of the last fit.
    random_state : int, RandomState or None
        Shuffles the samples, and chooses the validation part ("sgd").
    learning_rate : float or callable, optional
        A number or a schedule: step (from 0) -> number, such as `cosine` ("sgd"). By default
        ``4 / (1 + mean of |x|^2)``, the inverse of the curvature at most; scale the features.
    batch_size : int
        Samples a step ("sgd").
    average : bool
        Whether the coefficients are Polyak's average over the steps ("sgd").
    early_stopping : bool
        Whether to hold out a part, and to keep the coefficients of the pass after which its loss
        was least ("sgd").
    validation_fraction : float
        Size of that part, in (0, 1).
    n_iter_no_change : int
        Passes without improvement after which to stop.
    communicator : Communicator, optional
        Such as `MPICommunicator`: the ranks that train together, each with a share of the samples.
        All call ``fit`` with the same arguments and get the same result. A pickled classifier has
        none.
    thresholds : float or array-like, shape (classes,)
        Where samples have several labels: the probability above which ``predict`` gives a label.

    Attributes
    ----------
    coef_ : array, shape (1, features) for two classes, else (classes, features)
        w, of the library, device and floating dtype of X.
    intercept_ : array, shape (1,) or (classes,)
        b.
    classes_ : numpy.ndarray
        The labels in order.
    n_iter_ : int
        Iterations or passes done.
    loss_curve_ : list of float
        The objective, divided by ``C sum_i a_i``, after each iteration; or the mean loss of each
        pass.
    validation_loss_curve_ : list of float
        Of the held-out part after each pass, if there is one.
    history_ : History
        What each pass did ("sgd"); else empty.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Notes
    -----
    X may be an array of NumPy, CuPy, torch, JAX or another library that follows the Array API
    standard, and the coefficients and predictions are of the same. Memory-mapped and dask arrays
    are read block by block and never whole. Predictions of the former are NumPy arrays, of the
    latter dask arrays: block by block, when they are asked for, wherever dask computes.

    Sparse matrices and arrays of SciPy, and CSR matrices of CuPy, are never made dense. The result
    is that of the dense array of the same rows, to rounding.

    Examples
    --------
    >>> x = xp.asarray([[0.0], [1.0], [2.0], [3.0]])
    >>> classifier = LogisticRegression().fit(x, ["ham", "ham", "spam", "spam"])
    >>> classifier.predict(x).tolist()
    ['ham', 'ham', 'spam', 'spam']

    Whether a feature matters at all, of noisier labels:

    >>> found = LogisticRegression().fit(x, ["ham", "spam", "ham", "spam"]).summary(x)
    >>> found["name"].tolist()
    ['x0', 'intercept']
    >>> round(float(found["p"][0]), 2)
    0.51
    """

    _fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_", "_state")

    def __init__(
        self,
        *,
        C: float = 1.0,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        class_weight: Any = None,
        solver: str = "lbfgs",
        max_iter: int | None = None,
        tol: float = 1e-8,
        warm_start: bool = False,
        random_state: Any = None,
        learning_rate: float | Schedule | None = None,
        batch_size: int = 32,
        average: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        communicator: Communicator | None = None,
        thresholds: Any = 0.5,
    ):
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.average = average
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.communicator = communicator
        self.thresholds = thresholds

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array, sparse matrix or array-like, shape (N, features)
            Finite numbers.
        y : array or array-like, shape (N,)
            Labels of any type. Or a table (N, classes): of floats, the probabilities of the classes
            (soft labels); of integers 0 and 1, or booleans, whether a sample has each of several
            labels. Then classes are numbered.
        sample_weight : array or array-like, shape (N,), or float, optional
            Weight of each sample, >= 0.
        groups : array-like, shape (N,), optional
            What belongs together, such as the person of each sample. With ``early_stopping`` whole
            groups are held out, and ``validation_fraction`` is a part of them.

        Returns
        -------
        LogisticRegression
            Itself.
        """
        self._check_options()
        data = self._labelled(X, y, sample_weight, groups=groups)
        params = self._zeros(data)
        if self.warm_start and hasattr(self, "coef_"):
            params = self._continued({"0.weight": self.coef_, "0.bias": self.intercept_}, data)
        if self.solver == "lbfgs":
            self._minimize(params, data)
        else:
            self._descend(params, data)
        self.classes_, self._several = data.classes, data.several
        return self

    @available_if(_trains_by_steps)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Pass once through more samples ("sgd"); the penalty's strength is that for all so far.

        Parameters
        ----------
        X, y, sample_weight
            As for ``fit``.
        classes : array-like, optional
            All labels that will come; needed at the first call, unless y is a table.

        Returns
        -------
        LogisticRegression
            Itself.
        """
        self._check_options()
        data = self._labelled(X, y, sample_weight, self._partial_classes(classes, y))
        params, state = self._zeros(data), getattr(self, "_state", None)
        if hasattr(self, "coef_"):
            last = {"0.weight": self.coef_, "0.bias": self.intercept_}
            params = self._continued(last if state is None else state["last"], data)
        self._descend(params, data, partial=True, state=state)
        self.classes_, self._several = data.classes, data.several
        return self

    def summary(self, X: Any, sample_weight: Any = None) -> dict[str, NDArray[Any]]:
        """Return how sure the coefficients of two classes are, given what they were fitted to.

        The standard errors are those of the maximum likelihood; with a finite C, of the maximum a
        posteriori where coefficients have a normal prior of variance C.

        Parameters
        ----------
        X : array, sparse matrix or array-like, shape (N, features)
            The samples of the fit.
        sample_weight : array or array-like, shape (N,), or float, optional
            Their weights.

        Returns
        -------
        dict of str to numpy.ndarray
            Columns of a table, such as for ``pandas.DataFrame``: ``name`` (of each feature, and
            "intercept" at last), ``coefficient``, ``standard_error``, ``z`` (their ratio), ``p``
            (that of a normal distribution for a z as far from 0) and ``odds_ratio``.

        Raises
        ------
        ValueError
            If there are more than two classes, a class_weight or an l1 penalty, features are more
            than 1024, or some of them are sums of others.

        References
        ----------
        D. W. Hosmer, S. Lemeshow, R. X. Sturdivant. Applied Logistic Regression, chapter 2. 2013.
        """
        check_is_fitted(self)
        if len(self.classes_) != 2 or self._several or self.class_weight is not None:
            raise ValueError(
                f"summary is for two classes and class_weight=None, got {len(self.classes_)} "
                f"classes and class_weight={self.class_weight!r}"
            )
        if self.l1_ratio:
            raise ValueError(
                f"summary is for l1_ratio=0, got {self.l1_ratio}: coefficients that an l1 penalty "
                "has chosen have no standard errors"
            )
        samples = self._samples(X, reset=False)
        check_home(self, samples.like, self.coef_, "summary")
        if samples.features > MOST_COLUMNS:
            raise ValueError(
                f"summary is for at most {MOST_COLUMNS} features, got {samples.features}"
            )
        alike = np.zeros(len(samples), np.int64)
        weights = checked_weights(sample_weight, None, self.classes_, alike)
        weights = np.ones(len(samples)) if weights is None else weights
        penalty = 1 / float(self.C)
        errors = standard_errors(
            samples, weights, self.coef_, self.intercept_, penalty, self.fit_intercept
        )
        values = [to_numpy(w).ravel() for w in (self.coef_, self.intercept_)]
        names = [*_check_feature_names_in(self), "intercept"]
        count = samples.features + self.fit_intercept
        return table(names[:count], np.concatenate(values)[:count].astype(np.float64), errors)

    # --- the two solvers -------------------------------------------------------------------------

    def _minimize(self, params: Params, data: Labelled) -> None:
        samples, total, w = data.samples, data.total, params["0.weight"]
        weights = samples.numbers(np.ones(len(samples)) if data.weights is None else data.weights)
        penalty, l1 = self._penalties(total)
        space: SampleSpace | UsedColumns | None = used_columns(samples)
        if self._ranks.size == 1 and not l1:
            space = sample_space(samples, weights) or space
        if space is not None:
            samples, w = space.samples, space.coordinates(w)
        objective = LogisticObjective(
            samples,
            samples.indices(data.labels) if data.table is None else samples.numbers(data.table),
            weights,
            total,
            penalty,
            self.fit_intercept,
            self._ranks,
            data.several,
        )
        start = array_namespace(w).concat([w, params["0.bias"][:, None]], axis=1)
        max_iter = int(self.max_iter or 1000)
        tol = float(self.tol)
        w, values, converged = (
            minimize_l1(objective, start, l1=l1, tol=tol, max_iter=max_iter)
            if l1
            else minimize(objective, start, tol=tol, max_iter=max_iter)
        )
        if not converged:
            warnings.warn(
                f"lbfgs ended after max_iter={max_iter} iterations, before tol={self.tol} was "
                "reached; raise max_iter, or lower C",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.coef_, self.intercept_ = w[:, :-1], w[:, -1]
        if space is not None:
            self.coef_ = space.coefficients(self.coef_)
        self.loss_curve_, self.n_iter_ = values[1:], max(1, len(values) - 1)
        self.history_ = History()
        self._state = None

    def _descend(
        self, params: Params, data: Labelled, *, partial: bool = False, state: State | None = None
    ) -> None:
        units, features = params["0.weight"].shape
        seen, begun = (state["seen"], state["step"]) if state else (0.0, 0)
        seen += data.total
        rate = self.learning_rate
        rate = 4 / (1 + data.mean_square()) if rate is None else rate
        by_itself = not self.average and not is_stored(data.samples.x)  # then kernels take SGD
        if by_itself and callable(rate):
            rate = Later(rate, begun)
        penalty, l1 = self._penalties(seen)
        if data.several:  # the loss is the mean over the labels, too
            rate = Scaled(rate, units) if callable(rate) else units * rate
            penalty, l1 = penalty / units, l1 / units
        sgd: Any = SGD(rate, weight_decay=penalty, decay_bias=False)
        sgd = Proximal(sgd, l1) if l1 else sgd
        optimizer = sgd if by_itself else Averaged(sgd, average=self.average, state=state)
        layer = _SparseDense if isinstance(data.samples.x, CSR) else Dense
        if not self.fit_intercept:
            params = {"0.weight": params["0.weight"]}
        trained = train(
            problem(Sequential(layer(units, self.fit_intercept)), units, data, (features,)),
            params,
            optimizer,
            epochs=1 if partial else int(self.max_iter or 20),
            batch_size=int(self.batch_size),
            rng=self._rng(),
            communicator=self._ranks,
            held_out=None if partial else self._held_out(data),
        )
        self.coef_ = trained.params["0.weight"]
        self.intercept_ = trained.params.get("0.bias", data.samples.zeros(units))
        steps = begun + trained.steps
        plain = state_after(steps, {"step": steps, "velocity": {}}, trained.params)
        last = trained.state or plain
        self._remember(trained, last | {"seen": seen}, partial)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # --- pieces ----------------------------------------------------------------------------------

    def _zeros(self, data: Labelled) -> Params:
        units = 1 if len(data.classes) == 2 and not data.several else len(data.classes)
        zeros = data.samples.zeros
        return {"0.weight": zeros(units, data.samples.features), "0.bias": zeros(units)}

    def _samples(self, X: Any, *, reset: bool) -> Samples:
        dtypes = ("float64", "float32") if reset else (dtype_name(self.coef_),)
        return checked_samples(self, X, reset=reset, dtypes=dtypes, sparse=True)

    def _logits(self, samples: Samples) -> Array:
        logits = [
            affine(samples.take(span), self.coef_, self.intercept_) for span in samples.spans()
        ]
        scores = array_namespace(logits[0]).concat(logits, axis=0)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def _penalties(self, total: float) -> tuple[float, float]:
        """Return the factors of |w|^2 / 2 and of sum |w| beside a mean loss of a total weight."""
        penalty, share = 1 / (float(self.C) * total), float(self.l1_ratio)
        return (1 - share) * penalty, share * penalty

    def _exported(self) -> Exported:
        params = {"0.weight": self.coef_, "0.bias": self.intercept_}
        units, features = self.coef_.shape
        return Exported(Sequential(Dense(units)), params, (features,), self.classes_.tolist())

    def _check_options(self) -> None:
        check_choice("solver", self.solver, ("lbfgs", "sgd"))
        number("C", self.C, "(0, inf]")
        number("l1_ratio", self.l1_ratio, "[0, 1]")
        number("tol", self.tol, "(0, inf]")
        integer("batch_size", self.batch_size)
        if self.max_iter is not None:
            integer("max_iter", self.max_iter)
