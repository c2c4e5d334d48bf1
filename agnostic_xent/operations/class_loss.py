"""A loss over classes as a function of log-probabilities: its terms, its mean, its gradients.

With q_c = weight_c t_c (t the target's distribution after smoothing) and a the sample's weight, the
term of a sample is ``l = -a sum_c q_c log p_c``, where ``0 * log 0 = 0``; 0 if it is ignored; NaN
if its label is out of range.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any

from ..core.arrays import (
    Array,
    all_below,
    array_namespace,
    constant,
    device,
    dtype_kind,
    is_traced,
    library,
)
from ..core.checks import check_shape, number
from ..core.conversion import to_numpy
from .reductions import Reduction, reduction_options, times_log

SIGNED = 2**63 - 1
"""The largest label that a signed dtype holds."""


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

    @cached_property
    def value(self) -> Array:
        """The reduced loss."""
        return self._reduction.value(self._terms)

    def gradient(self, dy: Array, slope: Array) -> Array:
        """Return the gradient of the loss, given each term's ``slope`` before its weight a."""
        xp = array_namespace(slope)
        scale = self._reduction.cotangents(dy, self._terms)
        if self.sample_weight is not None:
            scale = scale * self.sample_weight
        gradient = self._spread(scale) * slope
        if self._live is None:
            return gradient
        return xp.where(self._spread(self._live), gradient, constant(0, gradient))

    def target_gradient(self, dy: Array) -> Array | None:
        """Return the gradient with respect to the target's probabilities; None for labels."""
        if self._labels is not None:
            return None
        weight = constant(1, self.log_p) if self._weight is None else self._weight
        gradient = self.gradient(dy, -(1 - self.label_smoothing) * weight * self.log_p)
        if self._weight is not None and self.reduction == "mean" and self._by == "weight":
            share = self._reduction.cotangents(dy * self.value, self._terms)  # the denominator's
            if self.sample_weight is not None:
                share = share * self.sample_weight
            gradient = gradient - self._spread(share) * weight
        return gradient

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
            t = xp.astype(t, self.log_p.dtype)
            t = xp.where(known, t, constant(float("nan"), t))
        if self.label_smoothing:
            uniform = self.label_smoothing / self.log_p.shape[self.axis]
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

    @cached_property
    def denominator(self) -> Array | float:
        """What the mean divides by: a number, or a scalar array."""
        if not isinstance(self._by, str):
            return self._by
        weighted = self.weight is not None or self.sample_weight is not None
        if self._by == "weight" and weighted:
            return self._sum_of_weights()
        if self._counted is None:
            return float(math.prod(self._sample_shape))
        return self._sum(self._counted)

    def _sum_of_weights(self) -> Array:
        xp = array_namespace(self.log_p)
        weights = xp.ones(self._sample_shape, dtype=self.log_p.dtype, device=device(self.log_p))
        if self._weight is not None:
            one_hot = xp.astype(self._one_hot, self.log_p.dtype)
            weights = xp.sum(one_hot * self._weight, axis=self.axis)
        if self.sample_weight is not None:
            weights = weights * self.sample_weight
        if self._counted is not None:
            weights = xp.where(self._counted, weights, constant(0, weights))
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
        xp, after = array_namespace(classes), self.log_p.ndim - 1 - self.axis
        return xp.reshape(classes, (classes.shape[0],) + (1,) * after)


def is_labels(target: Array) -> bool:
    """Tell labels from probabilities."""
    return dtype_kind(array_namespace(target), target.dtype) == "integral"


def as_indices(labels: Array) -> Array:
    """Return labels in a signed dtype that holds any number of classes (int32 or int64)."""
    xp = array_namespace(labels)
    dtype = _index_dtype(xp, labels.dtype)
    return labels if dtype is None else xp.astype(labels, dtype)


@lru_cache
def _index_dtype(xp: ModuleType, dtype: Any) -> Any:
    if dtype in (xp.int32, xp.int64):
        return None
    return xp.int32 if dtype in (xp.int8, xp.uint8, xp.int16, xp.uint16) else xp.int64


def not_ignored(target: Array, ignore_index: int | None) -> Array | None:
    """Return which labels are not to be ignored; None if all count, as probabilities do."""
    if ignore_index is None or not is_labels(target):
        return None
    limits = array_namespace(target).iinfo(target.dtype)
    if not limits.min <= ignore_index <= limits.max:  # such as -100 for unsigned labels
        return None
    if ignore_index > SIGNED:  # `as_indices` makes a negative number of it
        ignore_index -= 2 * SIGNED + 2
    return as_indices(target) != ignore_index


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


def label_check(
    position: int, target: Array, classes: int, ignore_index: int | None
) -> Callable[..., None] | None:
    """Return the check of the labels among the arrays of a call; None for probabilities."""
    if not is_labels(target):
        return None
    return lambda *arrays: check_label_range(arrays[position], classes, ignore_index)


def check_label_range(labels: Array, classes: int, ignore_index: int | None = None) -> None:
    """Raise ValueError that names the first label outside [0, classes); traced arrays pass."""
    if library(labels) == "numpy" and all_below(labels, classes):
        return
    xp, indices = array_namespace(labels), as_indices(labels)
    bad = (indices < 0) | (indices >= classes)
    counted = not_ignored(labels, ignore_index)
    if counted is not None:
        bad = bad & counted
    if not is_traced(bad) and bool(xp.any(bad)):
        where = to_numpy(bad)
        position = tuple(int(found[0]) for found in where.nonzero()) if where.ndim else ()
        name = f"target[{', '.join(map(str, position))}]" if position else "target"
        raise ValueError(f"{name} is {int(labels[position])}, but labels must be in [0, {classes})")


def check_not_empty(denominator: Array | float) -> None:
    """Raise ValueError where the mean would divide by 0; traced arrays pass."""
    if not is_traced(denominator) and float(denominator) == 0:
        raise ValueError(
            'target holds no sample that counts, so the mean has no divisor (on_empty="raise")'
        )
