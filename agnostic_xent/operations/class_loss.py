"""A loss over classes as a function of log-probabilities: its terms, its mean, its gradients.

With q_c = weight_c t_c (t the target's distribution after smoothing) and a the sample's weight, the
term of a sample is ``l = a (penalty - sum_c q_c log p_c)``, where ``0 * log 0 = 0``; 0 if it is
ignored; NaN if its label is out of range.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from ..core.arrays import Array, array_namespace, constant, device, is_true
from ..core.cached import cached_property
from ..core.checks import check_shape, number
from .labels import as_indices, is_labels, not_ignored
from .reductions import Reduction, reduction_options, times_log


@dataclass(frozen=True)
class ClassLoss:
    """The loss of log-probabilities and a target; fields are the normalised options."""

    log_p: Array
    target: Array
    axis: int
    weight: Array | None
    sample_weight: Array | None
    ignore_index: int | None
    label_smoothing: float
    reduction: str
    normalize: str | float | None
    on_empty: str
    penalty: Array | None = None
    """What each term has besides, before the sample's weight; the axis of the classes stays."""

    @cached_property
    def value(self) -> Array:
        """The reduced loss."""
        return self._reduction.value(self._terms)

    def gradient(self, dy: Array, slope: Array, over: Array | None = None) -> Array:
        """Return the gradient of the loss, given each term's ``slope`` before its weight a.

        It is divided by ``over`` last: tiny probabilities make numbers that overflow before a mean
        has divided them.
        """
        xp = array_namespace(slope)
        scale = self._reduction.cotangents(dy, self._terms)
        if self.sample_weight is not None:
            scale = scale * self.sample_weight
        gradient = self._spread(scale) * slope
        if over is not None:
            gradient = gradient / over
        if self._live is None:
            return gradient
        return xp.where(self._spread(self._live), gradient, constant(0, gradient))

    def target_gradient(self, dy: Array) -> Array | None:
        """Return the gradient with respect to the target's probabilities; None for labels."""
        if self._labels is not None:
            return None
        weight = constant(1, self.log_p) if self._weight is None else self._weight
        slope = -times_log((1 - self.label_smoothing) * weight, self.log_p)
        if self.reduction == "mean" and self.weighs_classes:
            slope = slope - weight * self.value  # the denominator's part
        return self.gradient(dy, slope)

    # --- the target ------------------------------------------------------------------------------

    @cached_property
    def q(self) -> Array:
        """The coefficients of -log p in a term, without the sample's weight."""
        xp = array_namespace(self.log_p)
        t = self._one_hot
        if self._labels is not None:
            known = xp.any(t, axis=self.axis, keepdims=True)
            if self._counted is not None:  # NaN that is masked later spoils what autograd returns
                known = known | xp.logical_not(self._spread(self._counted))
            t = xp.where(known, xp.astype(t, self.log_p.dtype), math.nan)
        if self.label_smoothing:
            uniform = self.label_smoothing / max(1, self.log_p.shape[self.axis])
            t = t * (1 - self.label_smoothing) + uniform
        return t if self._weight is None else t * self._weight

    @cached_property
    def _labels(self) -> Array | None:
        """The labels; None for probabilities."""
        return as_indices(self.target) if is_labels(self.target) else None

    @cached_property
    def _one_hot(self) -> Array:
        """The target's probabilities; of labels, where each one is: a boolean array."""
        if self._labels is None:
            return self.target
        labels, classes = self._labels, self.log_p.shape[self.axis]
        names = array_namespace(labels).arange(classes, dtype=labels.dtype, device=device(labels))
        return self._spread(labels) == self._along_axis(names)

    @cached_property
    def _counted(self) -> Array | None:
        """Which samples are not ignored; None if all."""
        return not_ignored(self.target, self.ignore_index)

    @cached_property
    def _live(self) -> Array | None:
        """Which samples have a say in the loss; None if all. The others' NaN must not show."""
        if self.sample_weight is None:
            return self._counted
        weighted = self.sample_weight != 0
        return weighted if self._counted is None else weighted & self._counted

    @cached_property
    def _weight(self) -> Array | None:
        return None if self.weight is None else self._along_axis(self.weight)

    # --- terms and mean --------------------------------------------------------------------------

    @cached_property
    def _terms(self) -> Array:
        xp = array_namespace(self.log_p)
        terms = -xp.sum(times_log(self.q, self.log_p), axis=self.axis)
        if self.penalty is not None:
            terms = terms + xp.squeeze(self.penalty, axis=self.axis)
        if self.sample_weight is not None:
            terms = terms * self.sample_weight
        return terms if self._live is None else xp.where(self._live, terms, constant(0, terms))

    @cached_property
    def _reduction(self) -> Reduction:
        return Reduction(self.reduction, self.denominator, self.on_empty)

    @property
    def _by(self) -> str | float:
        """What the mean divides by; by default torch's choice."""
        if self.normalize is None:
            return "count" if self._labels is None else "weight"
        return self.normalize

    @property
    def weighs_classes(self) -> bool:
        """Whether what the mean divides by is a sum over classes, too."""
        return self._by == "weight" and (self.weight is not None or self._labels is None)

    @cached_property
    def denominator(self) -> Array | float:
        """What the mean divides by: a number, or a scalar array."""
        if not isinstance(self._by, str):
            return self._by
        if self._by == "weight" and (self.weighs_classes or self.sample_weight is not None):
            return self._sum_of_weights()
        if self._counted is None:
            return float(math.prod(self._sample_shape))
        return self._sum(self._counted)

    def _sum_of_weights(self) -> Array:
        xp = array_namespace(self.log_p)
        weights = xp.ones(self._sample_shape, dtype=self.log_p.dtype, device=device(self.log_p))
        if self.weighs_classes:
            t = xp.astype(self._one_hot, self.log_p.dtype)
            weights = xp.sum(t if self._weight is None else t * self._weight, axis=self.axis)
        if self.sample_weight is not None:
            weights = weights * self.sample_weight
        if self._live is not None:
            weights = xp.where(self._live, weights, constant(0, weights))
        return xp.sum(weights)

    def _sum(self, mask: Array) -> Array:
        xp = array_namespace(mask)
        return xp.sum(xp.astype(mask, self.log_p.dtype))

    # --- shapes ----------------------------------------------------------------------------------

    @property
    def _sample_shape(self) -> tuple[int, ...]:
        shape = tuple(self.log_p.shape)
        return shape[: self.axis] + shape[self.axis + 1 :]

    def _spread(self, samples: Array) -> Array:
        """Give one value a sample an axis of length 1 for the classes."""
        return array_namespace(samples).expand_dims(samples, axis=self.axis)

    def _along_axis(self, classes: Array) -> Array:
        """Lay one value a class along the axis of the classes."""
        shape = [1] * self.log_p.ndim
        shape[self.axis] = classes.shape[0]
        return array_namespace(classes).reshape(classes, tuple(shape))


# --- checks of arguments -------------------------------------------------------------------------


def class_options(
    name: str,
    shape: tuple[int, ...],
    axis: int,
    dtype: Any,
    target: Array,
    weight: Array | None,
    sample_weight: Array | None,
    ignore_index: int | None,
    label_smoothing: float,
    reduction: str,
    normalize: str | float | None,
    on_empty: str,
    weight_name: str = "weight",
) -> dict[str, Any]:
    """Check the arguments of a loss of ``name`` with this shape and dtype.

    Returns the options that are no arrays.
    """
    samples = shape[:axis] + shape[axis + 1 :]
    like = f"that of {name} without the classes"
    options = reduction_options(reduction, normalize, on_empty)
    if weight is not None:
        check_shape(weight_name, weight, (shape[axis],), "one weight a class")
    if sample_weight is not None:
        check_shape("sample_weight", sample_weight, samples, like)
    options["label_smoothing"] = number("label_smoothing", label_smoothing, "[0, 1]")
    if ignore_index is not None and not hasattr(ignore_index, "__index__"):
        raise TypeError(f"ignore_index must be an integer or None, got {ignore_index!r}")
    if is_labels(target):
        check_shape("target", target, samples, like)
    elif target.dtype != dtype:
        raise TypeError(
            f"target must be labels of an integer dtype or probabilities of the dtype of {name} "
            f"({dtype}), got {target.dtype}"
        )
    elif ignore_index is not None:
        raise ValueError("ignore_index is for integer labels; give probabilities a sample_weight")
    else:
        check_shape("target", target, shape, f"probabilities of the shape of {name}")
    return options | {
        "ignore_index": None if ignore_index is None else operator.index(ignore_index)
    }


def check_not_empty(denominator: Array | float) -> None:
    """Raise ValueError where the mean would divide by 0; traced arrays pass."""
    if is_true(denominator == 0):
        raise ValueError(
            'target holds no sample that counts, so the mean has no divisor (on_empty="raise")'
        )
