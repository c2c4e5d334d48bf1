"""Penalised logistic regression: the objective, its gradient, and estimates of its Hessian.

The samples are only read, block by block and where they are; the features are standardised by the
preconditioners, not in a copy, so that their offsets and scales cost no iterations.

Coefficients are one array w of shape (K, features + 1), the intercepts last; K is the number of
classes, and 1 for two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..core.arrays import Array, array_namespace, constant, device
from ..core.communication import Alone, Communicator
from ..operations.activations import sigmoid, softmax
from ..operations.binary_losses import binary_cross_entropy_with_logits
from ..operations.losses import cross_entropy
from ..training.ranks.shares import share
from .rows import Rows, affine, affine_vjp, products_about, squares_about, sums
from .samples import Samples, check_squares

Preconditioner = Callable[[Array], Array]
"""From a gradient to the step that an estimate of the Hessian makes of it."""


@dataclass(frozen=True)
class Standard:
    """Coordinates v of coefficients: those of features without their means, in units of scales."""

    mean: Array
    """Shape (1, features)."""
    scale: Array
    """Likewise."""
    scale_of_intercept: float

    def coefficients(self, v: Array) -> Array:
        """Return the coefficients that have these coordinates."""
        xp, w = array_namespace(v), v[:, :-1] * self.scale
        b = self.scale_of_intercept * v[:, -1:] - w @ xp.matrix_transpose(self.mean)
        return xp.concat([w, b if self.scale_of_intercept else xp.zeros_like(b)], axis=1)

    def of(self, w: Array) -> Array:
        """Return the coordinates of coefficients."""
        xp, factor = array_namespace(w), self.scale_of_intercept
        b = w[:, -1:] + xp.sum(w[:, :-1] * self.mean, axis=1, keepdims=True)
        return xp.concat([w[:, :-1] / self.scale, b / factor if factor else 0 * b], axis=1)

    def gradient(self, g: Array) -> Array:
        """Return the gradient with respect to v, of that with respect to coefficients."""
        w = g[:, :-1] - g[:, -1:] * self.mean
        w *= self.scale
        return array_namespace(g).concat([w, self.scale_of_intercept * g[:, -1:]], axis=1)


@dataclass(frozen=True)
class LogisticObjective:
    """Weighted mean loss of a linear classifier, and its L2 penalty.

    ``f(w) = sum_i a_i l(w; x_i, y_i) / sum_i a_i + penalty / 2 sum w^2``, the intercepts left out
    of the penalty; l is the softmax cross entropy, of two classes the binary one.
    """

    samples: Samples
    labels: Array
    """Integers, shape (N,); or a table (N, classes) of probabilities, or of several labels."""
    weights: Array
    """a, shape (N,)."""
    total: float
    """The sum of a."""
    penalty: float
    fit_intercept: bool
    communicator: Communicator = field(default=Alone())
    """The ranks that have a share of the samples each."""
    several: bool = False
    """Whether samples have several labels, each with a binary cross entropy."""

    def __call__(self, w: Array) -> tuple[float, Array]:
        """Return value and gradient at w."""
        xp = array_namespace(w)
        penalty = self.penalty if self.communicator.rank == 0 else 0.0  # it counts once
        gradient = penalty * xp.concat([w[:, :-1], xp.zeros_like(w[:, -1:])], axis=1)
        value = dot(gradient, w) / 2
        for x, labels, a in self._blocks():
            logits, of_affine = affine_vjp(x, w[:, :-1], w[:, -1])
            loss, of_loss = self._loss_vjp(logits, labels, a)
            value = value + loss
            dw, db = of_affine(of_loss(constant(1, loss))[0])
            gradient += xp.concat([dw, self._kept(db[:, None])], axis=1)
        return float(self.communicator.sum(value)), self.communicator.sum(gradient)

    def standardized(self, units: int) -> Standard:
        """Return coordinates in which the Hessian at 0 is about the identity.

        It would be, if no two features were correlated.
        """
        binary = units == 1 or self.several
        curvature = 1 / 4 if binary else (units - 1) / units**2  # where all p are equal
        mean, variance = self._moments
        xp = array_namespace(variance)
        square = curvature * variance + self.penalty
        scale = xp.where(square > 0, square, constant(1, square)) ** -0.5
        return Standard(mean, scale, curvature**-0.5 if self.fit_intercept else 0.0)

    def by_variances(self, units: int) -> Preconditioner:
        """Return the inverse of the Hessian at 0, as it were if no two features were correlated."""
        standard = self.standardized(units)
        return lambda r: standard.coefficients(standard.gradient(r))

    def by_hessian(self, w: Array) -> Preconditioner:
        """Return the inverse of the Hessian at w, averaged over the classes.

        Of features whose means are taken off, scaled to a diagonal of ones, and with a little
        added to it, so that it has an inverse.
        """
        mean, _ = self._moments
        xp, size = array_namespace(w), w.shape[1]
        products, row, total = self.samples.zeros(size - 1, size - 1), 0.0 * mean, 0.0 * w[:1, :1]
        for x, _, a in self._blocks():
            slope = self._slopes(affine(x, w[:, :-1], w[:, -1])) * (a / self.total)
            of_block = products_about(mean, slope, x)
            products, row = products + of_block[0], row + of_block[1]
            total = total + xp.sum(slope)
        last = self._kept(xp.concat([row, total], axis=1))
        upper = xp.concat([products, xp.matrix_transpose(last[:, :-1])], axis=1)
        hessian = self.communicator.sum(xp.concat([upper, last], axis=0))
        eye = xp.eye(size, dtype=w.dtype, device=device(w))
        penalised = xp.astype(xp.arange(size, device=device(w)) < size - 1, w.dtype)
        hessian = hessian + self.penalty * penalised * eye
        diagonal = xp.sum(hessian * eye, axis=0)
        scale = xp.where(diagonal > 0, diagonal, constant(1, w)) ** -0.5
        ridge = float(xp.finfo(w.dtype).eps) ** 0.5
        inverse = xp.linalg.inv(hessian * scale * scale[:, None] + ridge * eye)

        def precondition(r: Array) -> Array:
            r = xp.concat([r[:, :-1] - r[:, -1:] * mean, r[:, -1:]], axis=1)
            step = ((r * scale) @ inverse) * scale
            b = step[:, -1:] - xp.sum(step[:, :-1] * mean, axis=1, keepdims=True)
            return xp.concat([step[:, :-1], self._kept(b)], axis=1)

        return precondition

    def _blocks(self) -> Iterator[tuple[Rows, Array, Array]]:
        own = share(len(self.samples), self.communicator)
        for span in self.samples.spans():
            part = slice(max(span.start, own.start), min(span.stop, own.stop))
            if part.start < part.stop:
                yield self.samples.take(part), self.labels[part, ...], self.weights[part]

    def _loss_vjp(self, logits: Array, labels: Array, a: Array) -> tuple[Array, Any]:
        options = {"sample_weight": a, "normalize": self.total, "wrt": (0,)}
        if logits.shape[1] > 1 and not self.several:
            return cross_entropy.vjp(logits, labels, check_labels=False, **options)
        xp, target = array_namespace(logits), labels
        if not self.several:  # of two classes the second
            target = xp.astype(labels, logits.dtype)[:, None] if labels.ndim == 1 else labels[:, 1:]
        return binary_cross_entropy_with_logits.vjp(logits, target, **options)

    def _slopes(self, logits: Array) -> Array:
        """Return p (1 - p) of each sample, the mean over the classes."""
        xp = array_namespace(logits)
        p = sigmoid(logits) if logits.shape[1] == 1 or self.several else softmax(logits)
        return xp.mean(p * (1 - p), axis=1)

    def _kept(self, intercept: Array) -> Array:
        return intercept if self.fit_intercept else array_namespace(intercept).zeros_like(intercept)

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        """Each feature's weighted mean (0 without intercepts), and variance about it, in a row."""
        mean = variance = self.samples.zeros(1, self.samples.features)
        if self.fit_intercept:
            for x, _, a in self._blocks():
                mean = mean + sums((a / self.total)[None, :], x)
            mean = self.communicator.sum(mean)
        for x, _, a in self._blocks():
            variance = variance + squares_about(mean, a / self.total, x)
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


def dot(a: Array, b: Array) -> Array:
    """Return the sum of products."""
    xp = array_namespace(a)
    return xp.reshape(a, (-1,)) @ xp.reshape(b, (-1,))
