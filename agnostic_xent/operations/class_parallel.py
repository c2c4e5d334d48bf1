"""Cross entropy of scores whose classes are split over ranks.

Notation as in ``class_loss.py`` and ``scores.py``. Each rank has a slice of the classes, and of a
row's scores u those. With m the row's maximum over all ranks, k how many scores equal it, s the sum
of ``exp(u - m)`` of the others, Q the sum of q and R that of ``q (u - m)``, the term is
``a (Q (log k + log1p(s / k)) - R)``: five numbers a row go around, however many classes there are.
With a prior, the maximum before it goes around as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core.arrays import Array, array_namespace, constant, device
from ..core.cached import cached_property
from ..core.communication import Communicator
from .labels import as_indices, is_labels, not_ignored
from .reductions import times_log


@dataclass(frozen=True)
class ClassParallelLoss:
    """The terms of some rows, and their gradients; arrays over classes are a rank's slice."""

    tempered: Array
    """The scores before the prior, shape (rows, classes of this rank)."""
    target: Array
    """Labels among all classes; or probabilities, a slice."""
    first: int
    """Which of all classes is the slice's first."""
    classes: int
    """How many there are in all."""
    communicator: Communicator
    weight: Array | None
    sample_weight: Array | None
    ignore_index: int | None
    label_smoothing: float
    log_prior: Array | None
    """A slice, one number a class."""
    z_loss: float

    @cached_property
    def terms(self) -> Array:
        """The term of each row, the same on every rank."""
        _, log_sum, total, linear = self._of_rows
        terms = total * log_sum - linear
        if self.z_loss:
            terms = terms + self.z_loss * self.log_sum**2
        return self._kept(terms if self.sample_weight is None else terms * self.sample_weight)

    @cached_property
    def log_sum(self) -> Array:
        """The log-sum-exp of each row's scores, the same on every rank."""
        top, log_sum, *_ = self._of_rows
        return self._shifted[1] + (top + log_sum)

    def gradient(self, dy: Array) -> Array:
        """Return the gradient of the slice of scores, given the terms' cotangents."""
        xp, total, log_p = array_namespace(dy), self._of_rows[2][:, None], self._log_p
        # p - 1 loses its digits where p is almost 1, expm1 does not
        alone = self._q == total
        slope = xp.where(alone, total * xp.expm1(log_p), total * xp.exp(log_p) - self._q)
        if self.z_loss:
            slope = slope + (2 * self.z_loss) * self.log_sum[:, None] * xp.exp(log_p)
        return self._scaled(dy, slope)

    def target_gradient(self, dy: Array) -> Array:
        """Return the gradient of the slice of the target's probabilities."""
        weight = constant(1, self.tempered) if self.weight is None else self.weight
        return self._scaled(dy, -times_log((1 - self.label_smoothing) * weight, self._log_p))

    @cached_property
    def _shifted(self) -> tuple[Array, Array]:
        """The slice of scores, but for a number of each row; and that number."""
        xp, u = array_namespace(self.tempered), self.tempered
        if self.log_prior is None:
            return u, constant(0, u)
        offset = self.communicator.maximum(xp.max(u + self.log_prior, axis=1))
        return (u - offset[:, None]) + self.log_prior, offset

    @cached_property
    def _of_rows(self) -> tuple[Array, Array, Array, Array]:
        """The maximum of each row's shifted scores, the log of the sum of ``exp(u - m)``, Q, R."""
        xp, z, q = array_namespace(self.tempered), self._shifted[0], self._q
        top = self.communicator.maximum(xp.max(z, axis=1))
        shifted, highest = z - top[:, None], z == top[:, None]
        sums = [
            xp.where(highest, constant(0, z), xp.exp(shifted)),
            xp.astype(highest, z.dtype),
            q,
            times_log(q, shifted),
        ]
        reduced = self.communicator.sum(xp.stack([xp.sum(x, axis=1) for x in sums]))
        s, k, total, linear = (reduced[i, :] for i in range(4))
        log_sum = xp.where(xp.isfinite(top), xp.log(k) + xp.log1p(s / k), math.nan)
        return top, log_sum, total, linear

    @cached_property
    def _log_p(self) -> Array:
        top, log_sum, *_ = self._of_rows
        return (self._shifted[0] - top[:, None]) - log_sum[:, None]

    @cached_property
    def _q(self) -> Array:
        """The coefficients of -log p in a term, without the sample's weight."""
        xp, z, t = array_namespace(self.tempered), self.tempered, self.target
        if is_labels(t):
            labels, count = as_indices(t), z.shape[1]
            names = xp.arange(count, dtype=labels.dtype, device=device(labels)) + self.first
            t = xp.astype(labels[:, None] == names[None, :], z.dtype)
            known = (labels >= 0) & (labels < self.classes)
            t = xp.where(known[:, None], t, math.nan)
        if self.label_smoothing:
            t = t * (1 - self.label_smoothing) + self.label_smoothing / max(1, self.classes)
        return t if self.weight is None else t * self.weight

    @cached_property
    def _live(self) -> Array | None:
        """Which rows have a say in the loss; None if all."""
        counted = not_ignored(self.target, self.ignore_index)
        if self.sample_weight is None:
            return counted
        weighted = self.sample_weight != 0
        return weighted if counted is None else weighted & counted

    def _scaled(self, dy: Array, slope: Array) -> Array:
        scale = dy if self.sample_weight is None else dy * self.sample_weight
        return self._kept(scale[:, None] * slope)

    def _kept(self, x: Array) -> Array:
        """Return 0 for the rows that have no say."""
        if self._live is None:
            return x
        live = self._live if x.ndim == 1 else self._live[:, None]
        return array_namespace(x).where(live, x, constant(0, x))
