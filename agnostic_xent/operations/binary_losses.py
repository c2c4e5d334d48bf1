"""Losses over two classes: binary cross entropy of probabilities and of logits, and focal loss.

Notation as in ``losses.py``: z logits, p probabilities, t target, one term l an element.
"""

from __future__ import annotations

import math
from typing import Any

from ..core.arrays import Array, array_namespace, constant, is_true, narrow, widen
from ..core.checks import check_shape, float_namespace, number
from ..core.operation import Pullback, normalized, operation, repeatable
from .activations import log_sigmoid_of
from .reductions import Reduction, reduction_options, times, times_log
from .robust_losses import focal_cost, focal_slope

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_focal_loss"]

LOG_FLOOR = -100.0
"""Where `binary_cross_entropy` clamps a logarithm, as torch does."""


@operation
def binary_cross_entropy(
    probs: Array,
    target: Array,
    *,
    weight: Array | None = None,
    sample_weight: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalize: str | float | None = None,
    on_empty: str = "nan",
) -> Array:
    """Binary cross entropy of probabilities: ``l = -w (t log p + (1 - t) log(1 - p))``.

    A logarithm is clamped at -100, as in torch, and has gradient 0 where it is;
    `binary_cross_entropy_with_logits` needs no clamp: prefer it.

    Parameters
    ----------
    probs : array
        p: any shape, real floating dtype, values in [0, 1].
    target : array
        t: shape and dtype of ``probs``, values in [0, 1].
    weight, sample_weight, label_smoothing, reduction, normalize, on_empty
        As for `binary_cross_entropy_with_logits`.

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
    return _arguments(
        "probs", probs, target, weight, sample_weight, label_smoothing, reduction, normalize,
        on_empty,
    )  # fmt: skip


@binary_cross_entropy.definition
def _(p: Array, t: Array, *, label_smoothing: float, **options: Any) -> Array:
    terms = _probability_terms(widen(p), _smoothed(widen(t), label_smoothing))
    weights, reduction = weights_and_reduction(p, options)
    return narrow(reduction.value(times(weights, terms)), p)


@binary_cross_entropy.pullback
def _(p: Array, t: Array, *, label_smoothing: float, **options: Any) -> tuple[Array, Pullback]:
    wide, smooth = widen(p), _smoothed(widen(t), label_smoothing)
    weights, reduction = weights_and_reduction(p, options)
    terms = times(weights, _probability_terms(wide, smooth))
    counted = None if weights is None else array_namespace(p).astype(weights != 0, wide.dtype)

    def pullback(dy: Array) -> tuple[Array, Array]:
        scale = reduction.cotangents(widen(dy), terms)
        dt = (1 - label_smoothing) * (_clamped_log_complement(wide) - _clamped_log(wide))
        # multiplied before divided: a quotient by a tiny p may overflow, and the product not
        share = times(weights, scale)
        dp = _clamped_quotient(share * (1 - smooth), 1 - wide)
        dp = dp - _clamped_quotient(share * smooth, wide)
        return narrow(times(counted, dp), p), narrow(times(weights, scale * dt), p)

    return narrow(reduction.value(terms), p), pullback


def _probability_terms(p: Array, t: Array) -> Array:
    return -(t * _clamped_log(p) + (1 - t) * _clamped_log_complement(p))


def _above_floor(p: Array) -> Array:
    """Tell where log(p) needs no clamp (or p is NaN, which must show)."""
    return ~(p <= math.exp(LOG_FLOOR))


def _clamped_log(p: Array) -> Array:
    xp, above = array_namespace(p), _above_floor(p)
    return xp.where(above, xp.log(xp.where(above, p, constant(1, p))), constant(LOG_FLOOR, p))


def _clamped_log_complement(p: Array) -> Array:
    """Return log(1 - p), with all digits where p is tiny; it is below the floor at p = 1 alone."""
    xp, below = array_namespace(p), ~(p >= 1)
    return xp.where(below, xp.log1p(-xp.where(below, p, constant(0, p))), constant(LOG_FLOOR, p))


def _clamped_quotient(t: Array, p: Array) -> Array:
    """Return t times the derivative of `_clamped_log` at p, which is 0 where t is."""
    xp, above = array_namespace(p), _above_floor(p)
    return xp.where(above, t / xp.where(above, p, constant(1, p)), constant(0, p))


@operation
def binary_cross_entropy_with_logits(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    sample_weight: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalize: str | float | None = None,
    on_empty: str = "nan",
) -> Array:
    """Binary cross entropy of logits.

    ``l = -w (q t log s(z) + (1 - t) log s(-z))``, s the sigmoid; for q = 1 that is
    ``w (max(z, 0) - z t + log1p(exp(-abs(z))))``. Exact for every z: ``log s(z)`` is
    `log_sigmoid`, and ``0 * inf = 0``. Half precision is computed and summed in float32.

    Parameters
    ----------
    logits : array
        z: any shape, real floating dtype.
    target : array
        t: shape and dtype of ``logits``, values in [0, 1].
    weight : array, optional
        w: weight of each element, of a shape that broadcasts to that of ``logits``.
    pos_weight : array, optional
        q: weight of the positive part, of a shape that broadcasts to that of ``logits``.
    sample_weight : array, shape (N,), optional
        Multiplies w along the first axis. A weight of 0 takes the sample out, whatever its logits.
    label_smoothing : float
        e in [0, 1]: t becomes ``(1 - e) t + e / 2``.
    reduction : {"mean", "sum", "none"}
        Over all elements.
    normalize : {"weight", "count", None} or float
        What the mean divides by. "count": the number of elements; "weight": the sum of their
        weights w; a number: itself. None, as torch: "count".
    on_empty : {"nan", "zero", "raise"}
        What the mean is where it would divide by 0. "raise" reads from the device.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits``; the dtype of ``logits``.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or options do not fit.

    Examples
    --------
    >>> z = xp.asarray([-100.0, 0.0])
    >>> y = binary_cross_entropy_with_logits(z, xp.asarray([1.0, 0.0]), reduction="none")
    >>> float(y[0]), round(float(y[1]), 6)
    (100.0, 0.693147)
    """
    if pos_weight is not None:
        float_namespace(logits=logits, pos_weight=pos_weight)
        _check_broadcasts("pos_weight", pos_weight, logits)
    return _arguments(
        "logits", logits, target, weight, sample_weight, label_smoothing, reduction, normalize,
        on_empty, pos_weight=pos_weight,
    )  # fmt: skip


@binary_cross_entropy_with_logits.definition
def _(
    z: Array, t: Array, *, label_smoothing: float, pos_weight: Array | None, **options: Any
) -> Array:
    terms = _logit_terms(widen(z), _smoothed(widen(t), label_smoothing), pos_weight)
    weights, reduction = weights_and_reduction(z, options)
    return narrow(reduction.value(times(weights, terms)), z)


@binary_cross_entropy_with_logits.pullback
def _(
    z: Array, t: Array, *, label_smoothing: float, pos_weight: Array | None, **options: Any
) -> tuple[Array, Pullback]:
    xp, wide, smooth = array_namespace(z), widen(z), _smoothed(widen(t), label_smoothing)
    weights, reduction = weights_and_reduction(z, options)
    terms = times(weights, _logit_terms(wide, smooth, pos_weight))

    def pullback(dy: Array) -> tuple[Array, Array]:
        scale = reduction.cotangents(widen(dy), terms)
        log_p, log_q = log_sigmoid_of(wide), log_sigmoid_of(-wide)
        # not s(z) - t: that would lose all digits where s(z) rounds to t
        dz = (1 - smooth) * xp.exp(log_p) - times(pos_weight, smooth * xp.exp(log_q))
        dt = (1 - label_smoothing) * (log_q - times(pos_weight, log_p))
        return narrow(times(weights, scale * dz), z), narrow(times(weights, scale * dt), z)

    return narrow(reduction.value(terms), z), pullback


def _logit_terms(z: Array, t: Array, pos_weight: Array | None) -> Array:
    positive = times(pos_weight, times_log(t, log_sigmoid_of(z)))
    return -(positive + times_log(1 - t, log_sigmoid_of(-z)))


@operation
def binary_focal_loss(
    logits: Array,
    target: Array,
    *,
    gamma: float = 2.0,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    sample_weight: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalize: str | float | None = None,
    on_empty: str = "nan",
) -> Array:
    """Binary focal loss of logits.

    ``l = -w (q t (1 - p)^g log p + (1 - t) p^g log(1 - p))``, p the sigmoid of the logit; g = 0 is
    `binary_cross_entropy_with_logits`. The balance alpha of the paper is ``pos_weight = alpha / (1
    - alpha)`` with a weight of ``1 - alpha``.

    Parameters
    ----------
    logits : array
        Any shape, real floating dtype.
    gamma : float
        g >= 0.
    target, weight, pos_weight, sample_weight, label_smoothing, reduction, normalize, on_empty
        As for `binary_cross_entropy_with_logits`.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits``; the dtype of ``logits``.

    References
    ----------
    T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár. Focal loss for dense object detection.
    ICCV 2017, arXiv:1708.02002.

    Examples
    --------
    >>> z = xp.asarray([-2.0, 2.0])
    >>> y = binary_focal_loss(z, xp.asarray([1.0, 1.0]), reduction="none")
    >>> round(float(y[0]), 6), round(float(y[1]), 6)
    (1.650078, 0.001804)
    """
    if pos_weight is not None:
        float_namespace(logits=logits, pos_weight=pos_weight)
        _check_broadcasts("pos_weight", pos_weight, logits)
    return _arguments(
        "logits", logits, target, weight, sample_weight, label_smoothing, reduction, normalize,
        on_empty, pos_weight=pos_weight, gamma=number("gamma", gamma, "[0, inf)"),
    )  # fmt: skip


@binary_focal_loss.definition
def _(
    z: Array,
    t: Array,
    *,
    gamma: float,
    label_smoothing: float,
    pos_weight: Array | None,
    **options: Any,
) -> Array:
    terms = _focal_terms(widen(z), _smoothed(widen(t), label_smoothing), gamma, pos_weight)
    weights, reduction = weights_and_reduction(z, options)
    return narrow(reduction.value(times(weights, terms)), z)


@binary_focal_loss.pullback
def _(
    z: Array,
    t: Array,
    *,
    gamma: float,
    label_smoothing: float,
    pos_weight: Array | None,
    **options: Any,
) -> tuple[Array, Pullback]:
    xp, wide, smooth = array_namespace(z), widen(z), _smoothed(widen(t), label_smoothing)
    weights, reduction = weights_and_reduction(z, options)
    terms = times(weights, _focal_terms(wide, smooth, gamma, pos_weight))

    def pullback(dy: Array) -> tuple[Array, Array]:
        scale = reduction.cotangents(widen(dy), terms)
        log_p, log_q = log_sigmoid_of(wide), log_sigmoid_of(-wide)
        of_p, of_q = focal_slope(log_p, gamma), focal_slope(log_q, gamma)
        dz = times(pos_weight, smooth * of_p * xp.exp(log_q)) - (1 - smooth) * of_q * xp.exp(log_p)
        dt = times(pos_weight, focal_cost(log_p, gamma)) - focal_cost(log_q, gamma)
        dt = (1 - label_smoothing) * dt
        return narrow(times(weights, scale * dz), z), narrow(times(weights, scale * dt), z)

    return narrow(reduction.value(terms), z), pullback


def _focal_terms(z: Array, t: Array, gamma: float, pos_weight: Array | None) -> Array:
    of_p, of_q = (focal_cost(log_sigmoid_of(x), gamma) for x in (z, -z))
    return times(pos_weight, times_log(t, of_p)) + times_log(1 - t, of_q)


# --- what they share -----------------------------------------------------------------------------


def _arguments(
    name: str,
    scores: Array,
    target: Array,
    weight: Array | None,
    sample_weight: Array | None,
    label_smoothing: float,
    reduction: str,
    normalize: str | float | None,
    on_empty: str,
    **others: Any,
) -> Any:
    arrays = {name: scores, "target": target, "weight": weight, "sample_weight": sample_weight}
    float_namespace(**arrays)
    check_shape("target", target, tuple(scores.shape), f"that of {name}")
    if weight is not None:
        _check_broadcasts("weight", weight, scores)
    if sample_weight is not None:
        check_shape("sample_weight", sample_weight, tuple(scores.shape[:1]), "one a sample")
    options: dict[str, Any] = {"weight": weight, "sample_weight": sample_weight}
    options |= reduction_options(reduction, normalize, on_empty)
    options |= {"label_smoothing": number("label_smoothing", label_smoothing, "[0, 1]")} | others
    if on_empty == "raise" and reduction == "mean":
        denominator = weights_and_reduction(scores, options)[1].denominator
        if is_true(denominator == 0):
            raise ValueError(f'{name} holds no element that counts (on_empty="raise")')
        return normalized(scores, target, **options)
    return repeatable(scores, target, **options)


def _check_broadcasts(name: str, x: Array, like: Array) -> None:
    """Raise ValueError unless the shape of ``x`` broadcasts to that of ``like``."""
    tail = like.shape[like.ndim - x.ndim :] if x.ndim <= like.ndim else ()
    if len(tail) != x.ndim or any(n not in (1, m) for n, m in zip(x.shape, tail, strict=True)):
        raise ValueError(
            f"{name} must broadcast to shape {tuple(like.shape)}, got {tuple(x.shape)}"
        )


def _smoothed(t: Array, label_smoothing: float) -> Array:
    return t * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else t


def weights_and_reduction(scores: Array, options: Any) -> tuple[Array | None, Reduction]:
    """Return the weight of each element (None if all are 1), and how the terms are reduced."""
    xp = array_namespace(scores)
    weights, sample_weight = (
        None if options[name] is None else widen(options[name])
        for name in ("weight", "sample_weight")
    )
    if sample_weight is not None:
        along = (sample_weight.shape[0],) + (1,) * (scores.ndim - 1)
        sample_weight = xp.reshape(sample_weight, along)
        weights = sample_weight if weights is None else weights * sample_weight
    denominator = options["normalize"]
    if denominator in (None, "count") or (denominator == "weight" and weights is None):
        denominator = float(math.prod(scores.shape))
    elif denominator == "weight":
        denominator = xp.sum(xp.broadcast_to(weights, scores.shape))
    return weights, Reduction(options["reduction"], denominator, options["on_empty"])
