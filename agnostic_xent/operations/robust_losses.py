"""Losses over classes that weigh a sample by how likely its class is already.

Each is ``l = a sum_c w_c t_c f(log p_c)`` with a cost f, p the softmax of the logits; ``f(x) = -x``
would be cross entropy. Notation as in ``losses.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import number
from ..core.operation import Pullback, operation
from .activations import log_softmax_of
from .losses import Normalize, class_arguments, class_gradients, class_loss_of
from .reductions import times_log

__all__ = ["focal_loss", "generalized_cross_entropy"]


@operation
def focal_loss(
    logits: Array,
    target: Array,
    *,
    gamma: float = 2.0,
    axis: int = -1,
    weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalize: Normalize = None,
    on_empty: str = "nan",
    check_labels: bool = True,
) -> Array:
    """Focal loss of logits: cross entropy that attends less to what is already right.

    ``l = -a sum_c w_c t_c (1 - p_c)^g log p_c`` with p the softmax of the logits; g = 0 is
    `cross_entropy`.

    Parameters
    ----------
    logits : array
        Any shape with at least one dimension, real floating dtype.
    gamma : float
        g >= 0.
    target, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, normalize, \
on_empty, check_labels
        As for `cross_entropy`.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits`` without ``axis``; the dtype of ``logits``.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár. Focal loss for dense object detection.
    ICCV 2017, arXiv:1708.02002.

    Examples
    --------
    >>> loss = focal_loss(xp.asarray([[2.0, 0.0], [0.0, 2.0]]), xp.asarray([0, 0]))
    >>> round(float(loss), 6)
    0.825941
    """
    return class_arguments(
        "logits", logits, target, axis, weight, sample_weight, ignore_index, label_smoothing,
        reduction, normalize, on_empty, check_labels,
        gamma=number("gamma", gamma, "[0, inf)"),
    )  # fmt: skip


def focal_cost(log_p: Array, gamma: float) -> Array:
    """Return ``-(1 - p)^g log p``."""
    return -times_log(_complement(log_p) ** gamma, log_p)


def focal_slope(log_p: Array, gamma: float) -> Array:
    """Return the derivative of `focal_cost` with respect to ``log p``."""
    xp, rest = array_namespace(log_p), _complement(log_p)
    sure = rest == 0
    ratio = times_log(xp.exp(log_p), log_p) / xp.where(sure, constant(1, log_p), rest)
    ratio = xp.where(sure, constant(-1, log_p), ratio)
    return rest**gamma * (gamma * ratio - 1)


def _complement(log_p: Array) -> Array:
    return -array_namespace(log_p).expm1(log_p)


@focal_loss.definition
def _(z: Array, target: Array, *, gamma: float, **options: Any) -> Array:
    log_p = log_softmax_of(widen(z), axis=options["axis"])
    return narrow(class_loss_of(-focal_cost(log_p, gamma), target, options).value, z)


@focal_loss.pullback
def _(z: Array, target: Array, *, gamma: float, **options: Any) -> tuple[Array, Pullback]:
    log_p = log_softmax_of(widen(z), axis=options["axis"])
    cost, slope = focal_cost(log_p, gamma), lambda: focal_slope(log_p, gamma)
    return _with_pullback(z, log_p, cost, slope, target, options)


@operation
def generalized_cross_entropy(
    logits: Array,
    target: Array,
    *,
    q: float = 0.7,
    axis: int = -1,
    weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalize: Normalize = None,
    on_empty: str = "nan",
    check_labels: bool = True,
) -> Array:
    """Generalized cross entropy of logits, which wrong labels lead less astray.

    ``l = a sum_c w_c t_c (1 - p_c^q) / q`` with p the softmax of the logits: between
    `cross_entropy` (q towards 0) and the mean absolute error (q = 1). No sample costs more than
    ``1 / q``.

    Parameters
    ----------
    logits : array
        Any shape with at least one dimension, real floating dtype.
    q : float
        In (0, 1].
    target, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, normalize, \
on_empty, check_labels
        As for `cross_entropy`.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits`` without ``axis``; the dtype of ``logits``.

    References
    ----------
    Z. Zhang, M. Sabuncu. Generalized cross entropy loss for training deep neural networks with
    noisy labels. NeurIPS 2018, arXiv:1805.07836.

    Examples
    --------
    >>> logits, labels = xp.asarray([[2.0, 0.0], [0.0, 900.0]]), xp.asarray([0, 0])
    >>> round(float(generalized_cross_entropy(logits, labels, q=0.5)), 6)
    1.061492
    """
    return class_arguments(
        "logits", logits, target, axis, weight, sample_weight, ignore_index, label_smoothing,
        reduction, normalize, on_empty, check_labels,
        q=number("q", q, "(0, 1]"),
    )  # fmt: skip


def _generalized_cost(log_p: Array, q: float) -> Array:
    return -array_namespace(log_p).expm1(q * log_p) / q


@generalized_cross_entropy.definition
def _(z: Array, target: Array, *, q: float, **options: Any) -> Array:
    log_p = log_softmax_of(widen(z), axis=options["axis"])
    return narrow(class_loss_of(-_generalized_cost(log_p, q), target, options).value, z)


@generalized_cross_entropy.pullback
def _(z: Array, target: Array, *, q: float, **options: Any) -> tuple[Array, Pullback]:
    log_p = log_softmax_of(widen(z), axis=options["axis"])
    xp, cost = array_namespace(z), _generalized_cost(log_p, q)
    return _with_pullback(z, log_p, cost, lambda: -xp.exp(q * log_p), target, options)


def _with_pullback(
    z: Array, log_p: Array, cost: Array, slope: Callable[[], Array], target: Array, options: Any
) -> tuple[Array, Pullback]:
    """Return the loss of a cost, and its pullback, given the cost's derivative by ``log p``."""
    xp, axis = array_namespace(z), options["axis"]
    loss = class_loss_of(-cost, target, options)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        of_log_p = loss.q * slope()
        total = xp.sum(of_log_p, axis=axis, keepdims=True)
        # 1 - p loses its digits where p is almost 1, expm1 does not
        alone, rest = of_log_p == total, of_log_p - total * xp.exp(log_p)
        return class_gradients(loss, dy, xp.where(alone, -total * xp.expm1(log_p), rest), z)

    return narrow(loss.value, z), pullback
