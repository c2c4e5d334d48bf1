"""Divergences between the softmax of logits and another distribution.

Notation as in ``losses.py``: p the softmax of the logits, one term l a sample.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import check_shape, float_namespace, number
from ..core.operation import Pullback, operation
from .activations import log_softmax_of
from .class_loss import ClassLoss
from .losses import Normalize, class_arguments, class_gradients, class_loss_of

__all__ = ["jensen_shannon_divergence", "kl_divergence"]


def _of_terms(terms: Array, target: Array, like: Array, options: Any) -> ClassLoss:
    """Return the loss of these terms, which the target's labels, or mass, count."""
    loss = class_loss_of(array_namespace(like).zeros_like(like), target, options)
    return replace(loss, penalty=terms)


@operation
def kl_divergence(
    logits: Array,
    target_logits: Array,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    sample_weight: Array | None = None,
    reduction: str = "mean",
    normalize: Normalize = None,
    on_empty: str = "nan",
) -> Array:
    """Kullback-Leibler divergence of the softmax of logits from that of others: distillation.

    ``l = a T^2 sum_c r_c log(r_c / p_c)`` with p the softmax of ``logits / T``, r that of
    ``target_logits / T``, and ``0 log 0 = 0``. The factor T^2 keeps gradients of one size whatever
    T is.

    Parameters
    ----------
    logits : array
        Those of the student: any shape with at least one dimension, real floating dtype.
    target_logits : array
        Those of the teacher: shape and dtype of ``logits``. They have a gradient, too.
    temperature : float
        T > 0.
    axis, sample_weight, reduction, normalize, on_empty
        As for `cross_entropy` of probabilities.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits`` without ``axis``; inf where r is not 0 and
        p is.

    References
    ----------
    G. Hinton, O. Vinyals, J. Dean. Distilling the knowledge in a neural network. arXiv:1503.02531.

    Examples
    --------
    >>> loss = kl_divergence(xp.asarray([[0.0, 0.0]]), xp.asarray([[2.0, 0.0]]))
    >>> round(float(loss), 6)
    0.327813
    """
    float_namespace(logits=logits, target_logits=target_logits)
    check_shape("target_logits", target_logits, tuple(logits.shape), "that of logits")
    return class_arguments(
        "logits", logits, target_logits, axis, None, sample_weight, None, 0.0, reduction, normalize,
        on_empty, False, temperature=number("temperature", temperature, "(0, inf)"),
    )  # fmt: skip


def _kl(z: Array, target: Array, temperature: float, options: Any) -> tuple[Any, ...]:
    """Return the loss, log p, r, and ``log r - log p`` where r is not 0, else 0."""
    xp, axis = array_namespace(z), options["axis"]
    log_p, log_r = (log_softmax_of(widen(x) / temperature, axis=axis) for x in (z, target))
    r = xp.exp(log_r)
    ratio = xp.where(r == 0, constant(0, r), log_r - log_p)
    divergence = xp.sum(r * ratio, axis=axis, keepdims=True)
    return _of_terms(temperature**2 * divergence, r, r, options), log_p, r, ratio


@kl_divergence.definition
def _(z: Array, target: Array, *, temperature: float, **options: Any) -> Array:
    return narrow(_kl(z, target, temperature, options)[0].value, z)


@kl_divergence.pullback
def _(z: Array, target: Array, *, temperature: float, **options: Any) -> tuple[Array, Pullback]:
    xp, axis = array_namespace(z), options["axis"]
    loss, log_p, r, ratio = _kl(z, target, temperature, options)

    def pullback(dy: Array) -> tuple[Array, Array]:
        divergence = xp.sum(r * ratio, axis=axis, keepdims=True)
        slopes = xp.exp(log_p) - r, xp.where(r == 0, constant(0, r), r * (ratio - divergence))
        dz, dt = (narrow(loss.gradient(widen(dy), temperature * s), z) for s in slopes)
        return dz, dt

    return narrow(loss.value, z), pullback


@operation
def jensen_shannon_divergence(
    logits: Array,
    target: Array,
    *,
    mixing: float = 0.5,
    axis: int = -1,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    normalize: Normalize = None,
    on_empty: str = "nan",
    check_labels: bool = True,
) -> Array:
    """Jensen-Shannon divergence between the softmax of logits and a target.

    ``l = a (b sum_c t_c log(t_c / m_c) + (1 - b) sum_c p_c log(p_c / m_c))`` with p the softmax of
    the logits and ``m = b t + (1 - b) p``. It is bounded, so that wrong labels do little harm.

    Parameters
    ----------
    logits : array
        Any shape with at least one dimension, real floating dtype.
    mixing : float
        b in (0, 1); with 0.5 the divergence is symmetric.
    target, axis, sample_weight, ignore_index, reduction, normalize, on_empty, check_labels
        As for `cross_entropy`.

    Returns
    -------
    array
        A scalar, or with "none" the shape of ``logits`` without ``axis``; the dtype of ``logits``.

    References
    ----------
    E. Englesson, H. Azizpour. Generalized Jensen-Shannon divergence loss for learning with noisy
    labels. NeurIPS 2021, arXiv:2105.04522.

    Examples
    --------
    >>> loss = jensen_shannon_divergence(xp.asarray([[0.0, 0.0], [0.0, 900.0]]), xp.asarray([0, 0]))
    >>> round(float(loss), 6)
    0.454454
    """
    return class_arguments(
        "logits", logits, target, axis, None, sample_weight, ignore_index, 0.0, reduction,
        normalize, on_empty, check_labels, mixing=number("mixing", mixing, "(0, 1)"),
    )  # fmt: skip


class _Mixture:
    """A target t, the softmax p of logits, and what lies between them."""

    def __init__(self, z: Array, target: Array, b: float, options: Any):
        xp, axis = array_namespace(z), options["axis"]
        self.log_p = log_softmax_of(widen(z), axis=axis)
        self.p, self.t = xp.exp(self.log_p), class_loss_of(self.log_p, target, options).q
        m = b * self.t + (1 - b) * self.p
        self.log_m = xp.log(xp.where(m == 0, constant(1, m), m))
        of_target = xp.sum(self.t * self.target_ratio, axis=axis, keepdims=True)
        of_p = xp.sum(self.p * self.ratio, axis=axis, keepdims=True)
        self.loss = _of_terms(b * of_target + (1 - b) * of_p, target, self.p, options)

    @property
    def target_ratio(self) -> Array:
        """``log(t / m)``, and 0 where t is 0."""
        xp, none = array_namespace(self.t), self.t == 0
        log_t = xp.log(xp.where(none, constant(1, self.t), self.t))
        return xp.where(none, constant(0, self.t), log_t - self.log_m)

    @property
    def ratio(self) -> Array:
        """``log(p / m)``, and 0 where p is 0."""
        xp = array_namespace(self.p)
        return xp.where(self.p == 0, constant(0, self.p), self.log_p - self.log_m)


@jensen_shannon_divergence.definition
def _(z: Array, target: Array, *, mixing: float, **options: Any) -> Array:
    return narrow(_Mixture(z, target, mixing, options).loss.value, z)


@jensen_shannon_divergence.pullback
def _(z: Array, target: Array, *, mixing: float, **options: Any) -> tuple[Array, Pullback]:
    xp, axis = array_namespace(z), options["axis"]
    mixture = _Mixture(z, target, mixing, options)
    loss, p = mixture.loss, mixture.p

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        mean = xp.sum(p * mixture.ratio, axis=axis, keepdims=True)
        slope = (1 - mixing) * p * (mixture.ratio - mean)
        dz, dt = class_gradients(loss, dy, slope, z)
        if dt is not None:
            slope = mixing * (xp.log(mixture.t) - mixture.log_m)
            dt = narrow(dt + loss.gradient(widen(dy), slope), z)
        return dz, dt

    return narrow(loss.value, z), pullback
