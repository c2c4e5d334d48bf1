"""Losses over classes: cross entropy of logits, log-probabilities or probabilities.

Notation: z logits, p probabilities, t target, one term l a sample.
Reduction: "none" returns the terms, "sum" their sum, "mean" their mean (NaN for an empty batch).

A term of a target that is a distribution is ``-sum_c t_c log p_c`` with ``0 * log 0 = 0``; integer
labels mean the distribution that is 1 at the label. The three losses over classes differ only in
where log p comes from.
"""

from __future__ import annotations

from typing import Any

from .activations import log_softmax_of
from .arrays import (
    Array,
    arange,
    array_namespace,
    check_axis,
    check_choice,
    check_shape,
    constant,
    dtype_kind,
    float_namespace,
    is_traced,
    namespace,
    to_numpy,
)
from .operation import Pullback, normalized, operation
from .reductions import REDUCTIONS, reduce, term_cotangents, times_log

__all__ = [
    "categorical_cross_entropy",
    "cross_entropy",
    "nll_loss",
]


@operation
def cross_entropy(
    logits: Array,
    target: Array,
    *,
    axis: int = -1,
    reduction: str = "mean",
    check_labels: bool = True,
) -> Array:
    """Softmax cross entropy of logits.

    ``l = -sum_c t_c log_softmax(z)_c``, which for an integer label is ``logsumexp(z) - z_label``.
    Computed from ``z - max(z)``: a common offset of any size is harmless.

    Parameters
    ----------
    logits : array
        Any shape with at least one dimension, real floating dtype.
    target : array
        Integer labels in [0, classes), of the shape of ``logits`` without ``axis``; or
        probabilities of the shape and dtype of ``logits``.
    axis : int
        The axis of the classes.
    reduction : {"mean", "sum", "none"}
        Over all samples.
    check_labels : bool
        Read the labels and raise when one is out of range. Without the check, and under
        ``jax.jit`` or in dask, such a sample's loss and gradient are NaN.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits`` without ``axis``.

    Raises
    ------
    ValueError
        If shapes do not fit or a label is out of range.
    TypeError
        If ``target`` has neither an integer dtype nor that of ``logits``.

    Examples
    --------
    >>> loss = cross_entropy(xp.asarray([[2.0, 0.0], [0.0, 2.0]]), xp.asarray([0, 1]))
    >>> round(float(loss), 6)
    0.126928
    """
    return _class_arguments("logits", logits, target, axis, reduction, check_labels)


@cross_entropy.definition
def _(z: Array, target: Array, *, axis: int, reduction: str) -> Array:
    return reduce(_class_terms(log_softmax_of(z, axis=axis), target, axis), reduction)


@cross_entropy.pullback
def _(z: Array, target: Array, *, axis: int, reduction: str) -> tuple[Array, Pullback]:
    xp = array_namespace(z)
    log_p = log_softmax_of(z, axis=axis)
    terms = _class_terms(log_p, target, axis)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        scale = xp.expand_dims(term_cotangents(dy, terms, reduction), axis=axis)
        t = _distribution(target, log_p, axis)
        total = xp.sum(t, axis=axis, keepdims=True)
        dz = scale * (xp.exp(log_p) * total - t)
        return dz, (None if t is not target else -scale * log_p)

    return reduce(terms, reduction), pullback


@operation
def nll_loss(
    log_probs: Array,
    target: Array,
    *,
    axis: int = -1,
    reduction: str = "mean",
    check_labels: bool = True,
) -> Array:
    """Negative log-likelihood: ``l = -sum_c t_c log p_c`` of given log-probabilities.

    Parameters
    ----------
    log_probs : array
        Any shape with at least one dimension, real floating dtype, values <= 0.
    target, axis, reduction, check_labels
        As for `cross_entropy`.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``log_probs`` without ``axis``.

    Examples
    --------
    >>> float(nll_loss(xp.asarray([[-0.5, -1.0]]), xp.asarray([1])))
    1.0
    """
    return _class_arguments("log_probs", log_probs, target, axis, reduction, check_labels)


@nll_loss.definition
def _(log_p: Array, target: Array, *, axis: int, reduction: str) -> Array:
    return reduce(_class_terms(log_p, target, axis), reduction)


@nll_loss.pullback
def _(log_p: Array, target: Array, *, axis: int, reduction: str) -> tuple[Array, Pullback]:
    xp = array_namespace(log_p)
    terms = _class_terms(log_p, target, axis)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        scale = xp.expand_dims(term_cotangents(dy, terms, reduction), axis=axis)
        t = _distribution(target, log_p, axis)
        return -scale * t, (None if t is not target else -scale * log_p)

    return reduce(terms, reduction), pullback


@operation
def categorical_cross_entropy(
    probs: Array,
    target: Array,
    *,
    axis: int = -1,
    reduction: str = "mean",
    check_labels: bool = True,
) -> Array:
    """Cross entropy of probabilities: ``l = -sum_c t_c log p_c`` with ``0 * log 0 = 0``.

    `cross_entropy` from logits is exact where a probability rounds to 0; prefer it.

    Parameters
    ----------
    probs : array
        Any shape with at least one dimension, real floating dtype, values in [0, 1].
    target, axis, reduction, check_labels
        As for `cross_entropy`.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``probs`` without ``axis``; inf where the target's
        probability is 0.

    Examples
    --------
    >>> loss = categorical_cross_entropy(xp.asarray([[0.25, 0.75]]), xp.asarray([[1.0, 0.0]]))
    >>> round(float(loss), 6)
    1.386294
    """
    return _class_arguments("probs", probs, target, axis, reduction, check_labels)


@categorical_cross_entropy.definition
def _(p: Array, target: Array, *, axis: int, reduction: str) -> Array:
    return reduce(_class_terms(array_namespace(p).log(p), target, axis), reduction)


@categorical_cross_entropy.pullback
def _(p: Array, target: Array, *, axis: int, reduction: str) -> tuple[Array, Pullback]:
    xp = array_namespace(p)
    log_p = xp.log(p)
    terms = _class_terms(log_p, target, axis)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        scale = xp.expand_dims(term_cotangents(dy, terms, reduction), axis=axis)
        t = _distribution(target, log_p, axis)
        dp = xp.where(t == 0, constant(0, p), -scale * t / xp.where(t == 0, constant(1, p), p))
        return dp, (None if t is not target else -scale * log_p)

    return reduce(terms, reduction), pullback


def _class_arguments(
    name: str, scores: Array, target: Array, axis: int, reduction: str, check_labels: bool
) -> Any:
    """Check the arguments of a loss over classes; labels lose their range check from here on."""
    xp = float_namespace(**{name: scores})
    namespace(**{name: scores, "target": target})
    axis = check_axis(scores, axis, name)
    check_choice("reduction", reduction, REDUCTIONS)
    shape = tuple(scores.shape)
    samples = shape[:axis] + shape[axis + 1 :]
    if dtype_kind(xp, target.dtype) == "integral":
        check_shape("target", target, samples, f"that of {name} without axis {axis}")
        if check_labels:
            check_label_range(target, shape[axis])
    elif target.dtype == scores.dtype:
        check_shape("target", target, shape, f"probabilities of the shape of {name}")
    else:
        raise TypeError(
            f"target must be labels of an integer dtype or probabilities of the dtype of {name} "
            f"({scores.dtype}), got {target.dtype}"
        )
    return normalized(scores, target, axis=axis, reduction=reduction)


def check_label_range(labels: Array, classes: int) -> None:
    """Raise ValueError that names the first label outside [0, classes); traced arrays pass."""
    xp = array_namespace(labels)
    bad = (labels < 0) | (labels >= classes)
    if not is_traced(bad) and bool(xp.any(bad)):
        where = to_numpy(bad).nonzero()
        position = tuple(int(indices[0]) for indices in where)
        place = ", ".join(map(str, position))
        raise ValueError(
            f"target[{place}] is {int(labels[position])}, but labels must be in [0, {classes})"
        )


def _one_hot(labels: Array, like: Array, axis: int) -> Array:
    """Tell where each sample's label is: a boolean array of the shape of ``like``."""
    xp = array_namespace(labels)
    classes = arange(like.shape[axis], labels, labels.dtype)
    spread = (-1,) + (1,) * (like.ndim - 1 - axis)
    return xp.expand_dims(labels, axis=axis) == xp.reshape(classes, spread)


def _distribution(target: Array, like: Array, axis: int) -> Array:
    """Return the target as probabilities; NaN for labels out of range."""
    xp = array_namespace(target)
    if target.ndim == like.ndim:
        return target
    hit = _one_hot(target, like, axis)
    known = xp.any(hit, axis=axis, keepdims=True)
    return xp.where(known, xp.astype(hit, like.dtype), constant(float("nan"), like))


def _class_terms(log_p: Array, target: Array, axis: int) -> Array:
    """Return -sum_c t_c log p_c with 0 * -inf = 0; NaN for labels out of range."""
    xp = array_namespace(log_p)
    if target.ndim == log_p.ndim:
        return -xp.sum(times_log(target, log_p), axis=axis)
    hit = _one_hot(target, log_p, axis)
    terms = -xp.sum(xp.where(hit, log_p, constant(0, log_p)), axis=axis)
    return xp.where(xp.any(hit, axis=axis), terms, constant(float("nan"), log_p))
