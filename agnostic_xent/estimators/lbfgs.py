"""The optimum of penalised logistic regression, by L-BFGS on standardised features.

The samples are only read, block by block and where they are; the features are standardised by the
preconditioner, not in a copy, so that their offsets and scales cost no iterations.

Coefficients are one array w of shape (K, features + 1), the intercepts last; K is the number of
classes, and 1 for two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..core.arrays import Array, array_namespace, constant
from ..core.communication import Alone, Communicator, check_alike
from ..operations.binary_losses import binary_cross_entropy_with_logits
from ..operations.dense import dense
from ..operations.losses import cross_entropy
from ..training.ranks.shares import share
from .samples import Samples, check_squares

MEMORY = 20
"""How many changes of w and of the gradient the estimate of the Hessian remembers."""

SMALL_LOSS = 1e-4
"""Below it the tolerance is no longer relative: the loss of separable classes goes to 0."""


@dataclass(frozen=True)
class LogisticObjective:
    """Weighted mean loss of a linear classifier, and its L2 penalty.

    ``f(w) = sum_i a_i l(w; x_i, y_i) / sum_i a_i + penalty / 2 sum w^2``, the intercepts left out
    of the penalty; l is the softmax cross entropy, of two classes the binary one.
    """

    samples: Samples
    labels: Array
    """Integers, shape (N,)."""
    weights: Array
    """a, shape (N,)."""
    total: float
    """The sum of a."""
    penalty: float
    fit_intercept: bool
    communicator: Communicator = field(default=Alone())
    """The ranks that have a share of the samples each."""

    def __call__(self, w: Array) -> tuple[float, Array]:
        """Return value and gradient at w."""
        xp = array_namespace(w)
        penalty = self.penalty if self.communicator.rank == 0 else 0.0  # it counts once
        gradient = penalty * xp.concat([w[:, :-1], xp.zeros_like(w[:, -1:])], axis=1)
        value = _dot(gradient, w) / 2
        for x, labels, a in self._blocks():
            logits, of_dense = dense.vjp(x, w[:, :-1], w[:, -1], wrt=(1, 2))
            loss, of_loss = self._loss_vjp(logits, labels, a)
            value = value + loss
            slopes: Any = of_dense(of_loss(constant(1, loss))[0])
            gradient = gradient + xp.concat([slopes[1], self._kept(slopes[2][:, None])], axis=1)
        return float(self.communicator.sum(value)), self.communicator.sum(gradient)

    def preconditioner(self, units: int) -> Callable[[Array], Array]:
        """Return r -> T T^T r, T being the change from coefficients of standardised features.

        In those the Hessian is nearly the identity where features are nearly uncorrelated.
        """
        curvature = 1 / 4 if units == 1 else (units - 1) / units**2  # where all p are equal
        mean, variance = self._moments()
        xp = array_namespace(variance)
        square = curvature * variance + self.penalty
        square = xp.where(square > 0, square, constant(1, square))

        def precondition(r: Array) -> Array:
            w = (r[:, :-1] - r[:, -1:] * mean) / square
            b = r[:, -1:] / curvature - xp.sum(w * mean, axis=1, keepdims=True)
            return xp.concat([w, self._kept(b)], axis=1)

        return precondition

    def _blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        own = share(len(self.samples), self.communicator)
        for span in self.samples.spans():
            part = slice(max(span.start, own.start), min(span.stop, own.stop))
            if part.start < part.stop:
                yield self.samples.take(part), self.labels[part], self.weights[part]

    def _loss_vjp(self, logits: Array, labels: Array, a: Array) -> tuple[Array, Any]:
        options = {"sample_weight": a, "normalize": self.total, "wrt": (0,)}
        if logits.shape[1] > 1:
            return cross_entropy.vjp(logits, labels, check_labels=False, **options)
        target = array_namespace(logits).astype(labels, logits.dtype)[:, None]
        return binary_cross_entropy_with_logits.vjp(logits, target, **options)

    def _kept(self, intercept: Array) -> Array:
        return intercept if self.fit_intercept else array_namespace(intercept).zeros_like(intercept)

    def _moments(self) -> tuple[Array, Array]:
        """Return each feature's weighted mean (0 without intercepts), and variance about it.

        Both have one row.
        """
        mean = variance = self.samples.zeros(1, self.samples.features)
        if self.fit_intercept:
            for x, _, a in self._blocks():
                mean = mean + (a / self.total)[None, :] @ x
            mean = self.communicator.sum(mean)
        for x, _, a in self._blocks():
            variance = variance + (a / self.total)[None, :] @ (x - mean) ** 2
        variance = self.communicator.sum(variance)
        check_squares(float(array_namespace(variance).sum(variance)))
        return mean, variance

    def facts(self) -> dict[str, Any]:
        """Return, by name, what has to be the same on all ranks."""
        return {
            "X": f"{tuple(self.samples.x.shape)} {self.samples.like.dtype}",
            "sum of weights": self.total,
            "penalty": self.penalty,
            "fit_intercept": self.fit_intercept,
        }


def minimize(
    objective: LogisticObjective, w: Array, *, tol: float, max_iter: int
) -> tuple[Array, list[float], bool]:
    """Minimise a logistic objective.

    Parameters
    ----------
    objective : LogisticObjective
        What to minimise.
    w : array, shape (K, features + 1)
        Where to start.
    tol : float
        Ends when the estimate of ``f(w) - min f`` is at most tol times f.
    max_iter : int
        Number of iterations at most.

    Returns
    -------
    w : array
        The minimiser.
    values : list of float
        f at the start and after each iteration.
    converged : bool
        Whether ``tol`` was reached, or the precision of the dtype.

    References
    ----------
    Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Mathematical
    Programming 45 (1989).
    """
    start = {"start": (tuple(w.shape), float(_dot(w, w))), "tol": tol, "max_iter": max_iter}
    check_alike(objective.communicator, lambda: objective.facts() | start)
    estimate = _InverseHessian(objective.preconditioner(w.shape[0]))
    value, gradient = objective(w)
    values = [value]
    for _ in range(max_iter):
        step = -estimate(gradient)
        slope = float(_dot(gradient, step))
        if -slope / 2 <= tol * max(value, SMALL_LOSS):
            return w, values, True
        found = _line_search(objective, w, step, value, slope)
        if found is None:
            return w, values, True
        after, value, new_gradient = found
        estimate.update(after - w, new_gradient - gradient)
        w, gradient = after, new_gradient
        values.append(value)
    return w, values, False


class _InverseHessian:
    """The L-BFGS estimate: a preconditioner, corrected by what the last steps have shown."""

    def __init__(self, precondition: Callable[[Array], Array]):
        self.precondition = precondition
        self.scale: Any = 1.0
        self.seen: list[tuple[Array, Array, Array]] = []

    def __call__(self, gradient: Array) -> Array:
        """Return the product with a gradient (the two-loop recursion)."""
        r, alphas = gradient, []
        for s, y, curvature in reversed(self.seen):
            alphas.append(_dot(s, r) / curvature)
            r = r - alphas[-1] * y
        r = self.scale * self.precondition(r)
        for (s, y, curvature), alpha in zip(self.seen, reversed(alphas), strict=True):
            r = r + (alpha - _dot(y, r) / curvature) * s
        return r

    def update(self, s: Array, y: Array) -> None:
        """Take in that the gradient changed by y over a step s."""
        curvature = _dot(s, y)
        if float(curvature) > 0:  # as f is convex; not always after rounding
            self.seen = [*self.seen, (s, y, curvature)][-MEMORY:]
            self.scale = curvature / _dot(y, self.precondition(y))


def _line_search(
    objective: LogisticObjective, w: Array, step: Array, value: float, slope: float
) -> tuple[Array, float, Array] | None:
    """Halve the step until f decreases enough; None where rounding leaves no decrease to see."""
    rounding = 4 * float(array_namespace(w).finfo(w.dtype).eps) * value
    length = 1.0
    while length * -slope > rounding:
        after = w + length * step
        found, gradient = objective(after)
        if found <= value + 1e-4 * length * slope:
            return after, found, gradient
        length /= 2
    return None


def _dot(a: Array, b: Array) -> Array:
    return array_namespace(a).sum(a * b)
