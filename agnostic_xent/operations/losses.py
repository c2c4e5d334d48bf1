"""Losses over classes: cross entropy of logits, log-probabilities or probabilities.

Notation: z logits, p probabilities, t the target's distribution (1 at the label for integer
labels), l the term of one sample. The three losses differ only in where log p comes from;
``class_loss.py`` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import check_axis, float_namespace, namespace
from ..core.operation import Pullback, normalized, operation, repeatable
from .class_loss import ClassLoss, check_not_empty, class_options
from .labels import is_labels, label_check
from .scores import Scores, log_of, score_options

__all__ = ["categorical_cross_entropy", "cross_entropy", "nll_loss"]

Normalize = str | float | None


@operation
def cross_entropy(
    logits: Array,
    target: Array,
    *,
    axis: int = -1,
    weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_prior: Array | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    normalize: Normalize = None,
    on_empty: str = "nan",
    check_labels: bool = True,
    return_logsumexp: bool = False,
    overwrite_logits: bool = False,
) -> Any:
    """Softmax cross entropy of logits.

    ``l = a (b logsumexp(u)^2 - sum_c w_c t_c log_softmax(u)_c)`` with ``0 * log 0 = 0`` and the
    scores ``u = S tanh(z / S) / T + log prior``. Without options that is ``logsumexp(z) - z_y`` for
    an integer label y. Computed from ``z - max(z)``: a common offset of any size is harmless.
    Half-precision logits are computed and summed in float32. A row of logits that holds NaN or
    +inf, or -inf alone, makes its own term NaN and no other; a logit of -inf at the label makes it
    inf.

    Parameters
    ----------
    logits : array
        z: any shape with at least one dimension, real floating dtype.
    target : array
        Integer labels in [0, classes), of any integer dtype and of the shape of ``logits`` without
        ``axis``; or probabilities t of the shape and dtype of ``logits``.
    axis : int
        The axis of the classes.
    weight : array, shape (classes,), optional
        w: weight of each class.
    sample_weight : array, shape of ``logits`` without ``axis``, optional
        a: weight of each sample. A weight of 0 takes the sample out, whatever its logits.
    ignore_index : int, optional
        Samples with this label count for nothing: term 0, gradient exactly 0. Any integer, compared
        as a whole number whatever the dtype of the labels; if it is one of the classes, that class
        stays in the softmax. None means none. Labels only.
    label_smoothing : float
        e in [0, 1]: t becomes ``(1 - e) t + e / classes``. A logit of -inf then makes the term inf.
    temperature : float
        T > 0.
    softcap : float, optional
        S > 0: the scores stay between -S and S. A logit of -inf then counts as -S. None means no
        cap: ``u = z / T + log prior``.
    class_prior : array, shape (classes,), optional
        How often each class occurs, such as its share or its count in the training data, in the
        dtype of ``logits``: numbers >= 0, which need not add up to 1. With it, the loss learns
        logits that are free of it, which serve where all classes matter alike; a class of prior 0
        has probability 0. Without it ``u = z / T``.
    z_loss : float
        b >= 0: how much the square of the log-sum-exp costs, which keeps logits from drifting away.
    reduction : {"mean", "sum", "none"}
        Over all samples.
    normalize : {"weight", "count", None} or float
        What the mean divides by. "weight": the sum of ``a sum_c w_c t_c`` (of t before smoothing;
        a and w are 1 where they are not given) over the samples that are not ignored; "count":
        their number; a number: itself, such as the size of the whole batch for one of its parts.
        None, as torch: "weight" for labels, "count" for probabilities.
    on_empty : {"nan", "zero", "raise"}
        What the mean is where it would divide by 0: every sample ignored, or none there. The
        gradient is 0 with "zero". "raise" reads from the device.
    check_labels : bool
        Read the labels and raise when one is out of range. Without the check, and where labels
        cannot be read (``jax.jit``, ``torch.compile``, ``torch.func.vmap``, dask), such a sample's
        loss and gradient are NaN.
    return_logsumexp : bool
        Return ``logsumexp(u)`` as well. It has no gradient.
    overwrite_logits : bool
        Let ``vjp`` write the gradient over the logits, which saves an array of their size and time.
        Their content is then lost, and the pullback can be called once. For logits that nobody
        needs any more; a kernel may do so, and what has no kernel leaves them alone.

    Returns
    -------
    loss : array
        A scalar, or with "none" the shape of ``logits`` without ``axis``; the dtype of ``logits``.
    logsumexp : array
        If asked for: the shape of ``logits`` without ``axis``, of all samples that there are.

    Raises
    ------
    ValueError
        If shapes do not fit, an option is out of range, or a label is.
    TypeError
        If ``target`` has neither an integer dtype nor that of ``logits``.

    References
    ----------
    Prior: A. K. Menon and others. Long-tail learning via logit adjustment. ICLR 2021,
    arXiv:2007.07314. z-loss: A. Chowdhery and others. PaLM. arXiv:2204.02311. Cap: Gemma Team.
    Gemma 2. arXiv:2408.00118.

    Examples
    --------
    >>> logits, labels = xp.asarray([[2.0, 0.0], [0.0, 2.0]]), xp.asarray([0, 1])
    >>> round(float(cross_entropy(logits, labels)), 6)
    0.126928
    >>> rare = cross_entropy(logits, labels, class_prior=xp.asarray([0.9, 0.1]), reduction="none")
    >>> [round(float(rare[i]), 6) for i in range(2)]
    [0.014925, 0.796614]
    """
    float_namespace(logits=logits, class_prior=class_prior)
    return class_arguments(
        "logits", logits, target, axis, weight, sample_weight, ignore_index, label_smoothing,
        reduction, normalize, on_empty, check_labels,
        **score_options(
            logits.shape[check_axis(logits, axis, "logits")] if logits.ndim else 1,
            temperature, softcap, class_prior, z_loss,
        ),
        return_logsumexp=bool(return_logsumexp),
        overwrite_logits=bool(overwrite_logits),
    )  # fmt: skip


def _logits_loss(
    z: Array,
    target: Array,
    *,
    temperature: float,
    softcap: float | None,
    class_prior: Array | None,
    z_loss: float,
    return_logsumexp: bool,
    overwrite_logits: bool,
    **options: Any,
) -> tuple[Scores, ClassLoss, Callable[[], Any]]:
    """Return the scores, their loss, and what gives the value in the dtype of the logits."""
    scores = Scores(widen(z), options["axis"], temperature, softcap, log_of(class_prior))
    loss = class_loss_of(scores.log_p, target, options)
    if z_loss:
        loss = replace(loss, penalty=z_loss * scores.log_sum**2)

    def value() -> Any:
        found = narrow(loss.value, z)
        if not return_logsumexp:
            return found
        sums = array_namespace(z).squeeze(scores.log_sum, axis=options["axis"])
        return found, narrow(sums, z)

    return scores, loss, value


@cross_entropy.definition
def _(z: Array, target: Array, **options: Any) -> Any:
    return _logits_loss(z, target, **options)[2]()


@cross_entropy.pullback
def _(z: Array, target: Array, *, z_loss: float, **options: Any) -> tuple[Any, Pullback]:
    xp, axis = array_namespace(z), options["axis"]
    scores, loss, value = _logits_loss(z, target, z_loss=z_loss, **options)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        q, log_p = loss.q, loss.log_p
        total = xp.sum(q, axis=axis, keepdims=True)
        # p - 1 loses its digits where p is almost 1, expm1 does not
        slope = xp.where(q == total, total * xp.expm1(log_p), total * xp.exp(log_p) - q)
        if z_loss:
            slope = slope + (2 * z_loss) * scores.log_sum * xp.exp(log_p)
        return class_gradients(loss, dy, scores.gradient(slope), z)

    return value(), pullback


@operation
def nll_loss(
    log_probs: Array,
    target: Array,
    *,
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
    """Negative log-likelihood: ``l = -a sum_c w_c t_c log p_c`` of given log-probabilities.

    Parameters
    ----------
    log_probs : array
        log p: any shape with at least one dimension, real floating dtype, values <= 0.
    target, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, normalize, \
on_empty, check_labels
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
    return class_arguments(
        "log_probs", log_probs, target, axis, weight, sample_weight, ignore_index, label_smoothing,
        reduction, normalize, on_empty, check_labels,
    )  # fmt: skip


@nll_loss.definition
def _(log_p: Array, target: Array, **options: Any) -> Array:
    return narrow(class_loss_of(widen(log_p), target, options).value, log_p)


@nll_loss.pullback
def _(log_p: Array, target: Array, **options: Any) -> tuple[Array, Pullback]:
    loss = class_loss_of(widen(log_p), target, options)
    return narrow(loss.value, log_p), lambda dy: class_gradients(loss, dy, -loss.q, log_p)


@operation
def categorical_cross_entropy(
    probs: Array,
    target: Array,
    *,
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
    """Cross entropy of probabilities: ``l = -a sum_c w_c t_c log p_c`` with ``0 * log 0 = 0``.

    `cross_entropy` from logits is exact where a probability rounds to 0; prefer it.

    Parameters
    ----------
    probs : array
        p: any shape with at least one dimension, real floating dtype, values in [0, 1].
    target, axis, weight, sample_weight, ignore_index, label_smoothing, reduction, normalize, \
on_empty, check_labels
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
    return class_arguments(
        "probs", probs, target, axis, weight, sample_weight, ignore_index, label_smoothing,
        reduction, normalize, on_empty, check_labels,
    )  # fmt: skip


@categorical_cross_entropy.definition
def _(p: Array, target: Array, **options: Any) -> Array:
    log_p = array_namespace(p).log(widen(p))
    return narrow(class_loss_of(log_p, target, options).value, p)


@categorical_cross_entropy.pullback
def _(p: Array, target: Array, **options: Any) -> tuple[Array, Pullback]:
    xp, wide = array_namespace(p), widen(p)
    loss = class_loss_of(xp.log(wide), target, options)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        met = xp.where(loss.q == 0, constant(1, wide), wide)
        return class_gradients(loss, dy, -loss.q, p, met)

    return narrow(loss.value, p), pullback


# --- what losses over classes share --------------------------------------------------------------


def class_arguments(
    name: str,
    scores: Array,
    target: Array,
    axis: int,
    weight: Array | None,
    sample_weight: Array | None,
    ignore_index: int | None,
    label_smoothing: float,
    reduction: str,
    normalize: Normalize,
    on_empty: str,
    check_labels: bool,
    **others: Any,
) -> Any:
    """Check the arguments of a loss over classes."""
    float_namespace(**{name: scores, "weight": weight, "sample_weight": sample_weight})
    namespace(**{name: scores, "target": target})
    if scores.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension, that of the classes")
    axis, shape = check_axis(scores, axis, name), tuple(scores.shape)
    options = {"axis": axis, "weight": weight, "sample_weight": sample_weight} | class_options(
        name, shape, axis, scores.dtype, target, weight, sample_weight, ignore_index,
        label_smoothing, reduction, normalize, on_empty,
    )  # fmt: skip
    check = label_check(1, target, shape[axis], ignore_index) if check_labels else None
    if on_empty == "raise" and reduction == "mean":
        if check is not None:
            check(scores, target)
        check_not_empty(class_loss_of(widen(scores), target, options).denominator)
        return normalized(scores, target, **options, **others)
    return repeatable(scores, target, check_values=check, **options, **others)


def class_loss_of(log_p: Array, target: Array, options: Any) -> ClassLoss:
    """Return the loss of log-probabilities, or of whatever is to be linear in the target."""
    wide = {
        name: None if options[name] is None else widen(options[name])
        for name in ("weight", "sample_weight")
    }
    target = target if is_labels(target) else widen(target)
    return ClassLoss(log_p, target, **(options | wide))


def class_gradients(
    loss: ClassLoss, dy: Array, slope: Array, like: Array, over: Array | None = None
) -> tuple[Array | None, ...]:
    """Return the gradients of the scores and the target, by `ClassLoss.gradient`, as ``like``."""
    dy = widen(dy)
    dt = loss.target_gradient(dy)
    return narrow(loss.gradient(dy, slope, over), like), None if dt is None else narrow(dt, like)
