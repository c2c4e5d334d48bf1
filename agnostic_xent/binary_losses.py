"""Losses over two classes: binary cross entropy of probabilities and of logits.

Notation as in ``losses.py``: z logits, p probabilities, t target, one term l an element.
"""

from __future__ import annotations

from typing import Any

from .activations import log_sigmoid_of
from .arrays import Array, array_namespace, check_choice, check_shape, constant, float_namespace
from .operation import Pullback, normalized, operation
from .reductions import REDUCTIONS, reduce, term_cotangents, times_log

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits"]

LOG_FLOOR = -100.0
"""Where `binary_cross_entropy` clamps a logarithm, as torch does."""


@operation
def binary_cross_entropy(probs: Array, target: Array, *, reduction: str = "mean") -> Array:
    """Binary cross entropy of probabilities: ``l = -(t log p + (1 - t) log(1 - p))``.

    A logarithm is clamped at -100, as in torch, and has gradient 0 where it is;
    `binary_cross_entropy_with_logits` needs no clamp: prefer it.

    Parameters
    ----------
    probs : array
        Any shape, real floating dtype, values in [0, 1].
    target : array
        Shape and dtype of ``probs``, values in [0, 1].
    reduction : {"mean", "sum", "none"}
        Over all elements.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``probs``.

    Examples
    --------
    >>> loss = binary_cross_entropy(xp.asarray([0.25]), xp.asarray([1.0]))
    >>> round(float(loss), 6)
    1.386294
    """
    return _binary_arguments("probs", probs, target, reduction)


@binary_cross_entropy.definition
def _(p: Array, t: Array, *, reduction: str) -> Array:
    return reduce(-(t * _clamped_log(p) + (1 - t) * _clamped_log(1 - p)), reduction)


@binary_cross_entropy.pullback
def _(p: Array, t: Array, *, reduction: str) -> tuple[Array, Pullback]:
    log_p, log_q = _clamped_log(p), _clamped_log(1 - p)
    terms = -(t * log_p + (1 - t) * log_q)

    def pullback(dy: Array) -> tuple[Array, Array]:
        scale = term_cotangents(dy, terms, reduction)
        dp = (1 - t) * _clamped_reciprocal(1 - p) - t * _clamped_reciprocal(p)
        return scale * dp, scale * (log_q - log_p)

    return reduce(terms, reduction), pullback


def _above_floor(p: Array) -> Array:
    """Tell where log(p) needs no clamp (or p is NaN, which must show)."""
    xp = array_namespace(p)
    return ~(p <= xp.exp(constant(LOG_FLOOR, p)))


def _clamped_log(p: Array) -> Array:
    xp, above = array_namespace(p), _above_floor(p)
    return xp.where(above, xp.log(xp.where(above, p, constant(1, p))), constant(LOG_FLOOR, p))


def _clamped_reciprocal(p: Array) -> Array:
    """Return the derivative of `_clamped_log`."""
    xp, above = array_namespace(p), _above_floor(p)
    return xp.where(above, 1 / xp.where(above, p, constant(1, p)), constant(0, p))


@operation
def binary_cross_entropy_with_logits(
    logits: Array, target: Array, *, reduction: str = "mean"
) -> Array:
    """Binary cross entropy of logits: ``l = -(t log s(z) + (1 - t) log s(-z))``, s the sigmoid.

    Exact for every z: ``log s(z)`` is `log_sigmoid`, and ``0 * inf = 0``.

    Parameters
    ----------
    logits : array
        Any shape, real floating dtype.
    target : array
        Shape and dtype of ``logits``, values in [0, 1].
    reduction : {"mean", "sum", "none"}
        Over all elements.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits``.

    Examples
    --------
    >>> z = xp.asarray([-100.0, 0.0])
    >>> y = binary_cross_entropy_with_logits(z, xp.asarray([1.0, 0.0]), reduction="none")
    >>> float(y[0]), round(float(y[1]), 6)
    (100.0, 0.693147)
    """
    return _binary_arguments("logits", logits, target, reduction)


@binary_cross_entropy_with_logits.definition
def _(z: Array, t: Array, *, reduction: str) -> Array:
    return reduce(_logit_terms(z, t), reduction)


@binary_cross_entropy_with_logits.pullback
def _(z: Array, t: Array, *, reduction: str) -> tuple[Array, Pullback]:
    xp = array_namespace(z)
    terms = _logit_terms(z, t)

    def pullback(dy: Array) -> tuple[Array, Array]:
        scale = term_cotangents(dy, terms, reduction)
        # not s(z) - t: that would lose all digits where s(z) rounds to t
        dz = (1 - t) * xp.exp(log_sigmoid_of(z)) - t * xp.exp(log_sigmoid_of(-z))
        return scale * dz, -scale * z

    return reduce(terms, reduction), pullback


def _logit_terms(z: Array, t: Array) -> Array:
    return -(times_log(t, log_sigmoid_of(z)) + times_log(1 - t, log_sigmoid_of(-z)))


def _binary_arguments(name: str, scores: Array, target: Array, reduction: str) -> Any:
    float_namespace(**{name: scores, "target": target})
    check_shape("target", target, tuple(scores.shape), f"that of {name}")
    check_choice("reduction", reduction, REDUCTIONS)
    return normalized(scores, target, reduction=reduction)
