"""The loss of a run: its options, its value and pullback, and what a batch adds to its sums.

A mean over several batches is the sum of all terms over the sum of what each batch's mean divides
by; nowhere is a mean taken of means.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

from ..core.arrays import Array, array_namespace, constant, widen
from ..core.operation import Operation, Pullback
from ..operations.binary_losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    binary_focal_loss,
    weights_and_reduction,
)
from ..operations.class_loss import ClassLoss, check_not_empty
from ..operations.divergences import jensen_shannon_divergence, kl_divergence
from ..operations.labels import as_indices, is_labels, not_ignored
from ..operations.losses import categorical_cross_entropy, cross_entropy, nll_loss
from ..operations.robust_losses import focal_loss, generalized_cross_entropy
from .totals import Totals

Loss: TypeAlias = Operation[Any, Any] | functools.partial[Any]
"""An operation (output, target) -> mean loss, or a partial of one that sets its options."""

CLASS_LOSSES: tuple[Any, ...] = (
    cross_entropy,
    nll_loss,
    categorical_cross_entropy,
    focal_loss,
    generalized_cross_entropy,
    jensen_shannon_divergence,
)
THRESHOLDS: dict[Any, float] = {
    binary_cross_entropy: 0.5,
    binary_cross_entropy_with_logits: 0.0,
    binary_focal_loss: 0.0,
}
"""The binary losses, and the score above which each decides for 1."""


def operation_of(loss: Any) -> Any:
    """Return the operation that a loss is, or that it sets options of."""
    return loss.func if isinstance(loss, functools.partial) else loss


def options_of(loss: Loss) -> dict[str, Any]:
    """Return the options that a loss sets."""
    return loss.keywords if isinstance(loss, functools.partial) else {}


def loss_vjp(loss: Loss, output: Array, target: Array) -> tuple[Array, Pullback]:
    """Return the mean loss of an output, and its pullback."""
    result: tuple[Array, Pullback] = operation_of(loss).vjp(
        output, target, wrt=(0,), **options_of(loss)
    )
    return result


# --- sums of a batch -----------------------------------------------------------------------------


def totals_of_loss(loss: Loss, mean_loss: Array, output: Array, target: Array) -> Totals:
    """Return the totals of a batch with this mean loss."""
    mean_loss, divisor = widen(mean_loss), divisor_of(loss, target, output)
    xp, hits = array_namespace(output), right_predictions(loss, output, target)
    total = loss_of_all(mean_loss, divisor)
    counted = not_ignored(target, options_of(loss).get("ignore_index"))
    terms: Any = math.prod(hits.shape)
    if counted is not None:
        hits, terms = hits & counted, xp.count_nonzero(counted)
    return Totals(output.shape[0], total, xp.count_nonzero(hits), terms, divisor)


def loss_of_all(mean_loss: Array, divisor: Any) -> Array:
    """Return the sum of the terms whose mean is given; 0 where the mean is that of nothing."""
    total = mean_loss * divisor
    if not hasattr(divisor, "dtype"):
        return total
    return array_namespace(total).where(divisor == 0, constant(0, total), total)


def right_predictions(loss: Loss, output: Array, target: Array) -> Array:
    """Return which predictions are right: those of a sample's class, or each single decision."""
    xp, axis = array_namespace(output), options_of(loss).get("axis", -1)
    if is_labels(target):
        return xp.argmax(output, axis=axis) == as_indices(target)
    if operation_of(loss) in THRESHOLDS or output.shape[axis] == 1:
        return (output > THRESHOLDS.get(operation_of(loss), 0.0)) == (target > 0.5)
    return xp.argmax(output, axis=axis) == xp.argmax(target, axis=axis)


def divisor_of(loss: Loss, target: Array, like: Array) -> Any:
    """Return what the mean over a batch divides by: a float, or a scalar array of ``like``'s kind.

    For a number of the user's own that is the number of terms, so that means over several batches
    stay means.
    """
    options = options_of(loss)
    by, ignored = options.get("normalize"), options.get("ignore_index")
    if operation_of(loss) is kl_divergence:  # its targets are logits, whose probabilities sum to 1
        by = "count"
    weights = {name: options.get(name) for name in ("weight", "sample_weight")}
    plain = all(w is None for w in weights.values())
    if operation_of(loss) in THRESHOLDS:
        if by != "weight" or plain:
            return float(math.prod(target.shape))
        by_weight = {"normalize": by, "reduction": "mean", "on_empty": "nan"}
        _, reduction = weights_and_reduction(target, weights | by_weight)
        return reduction.denominator
    if is_labels(target) and plain and ignored is None:
        return float(math.prod(target.shape))
    shape, axis = tuple(target.shape), options.get("axis", -1)
    if is_labels(target):
        axis %= target.ndim + 1
        classes = 1 if weights["weight"] is None else weights["weight"].shape[0]
        shape = (*shape[:axis], classes, *shape[axis:])
    wide = {name: None if w is None else widen(w) for name, w in weights.items()}
    return ClassLoss(
        log_p=array_namespace(like).broadcast_to(constant(0, widen(like)), shape),
        target=target if is_labels(target) else widen(target),
        axis=axis % len(shape),
        ignore_index=ignored,
        label_smoothing=0.0,
        reduction="mean",
        normalize=by if by in (None, "weight") else "count",
        on_empty="nan",
        **wide,
    ).denominator


# --- a part of what a mean is over ---------------------------------------------------------------


def of_part(loss: Loss, samples: int) -> Loss:
    """Return the loss with the sum of its terms over ``samples``, also where there are none."""
    options = {"normalize": float(samples), "on_empty": "nan"}
    return functools.partial(loss, **options)


def scale_of(loss: Loss, samples: int, divisor: Any) -> Any:
    """Return what makes the mean over so many samples the mean by a divisor.

    Of an array of one number, such an array.
    """
    on_empty = options_of(loss).get("on_empty", "nan")
    if on_empty == "raise":
        check_not_empty(divisor)
    empty = 0.0 if on_empty == "zero" else math.nan
    if not hasattr(divisor, "dtype"):
        return samples / divisor if divisor else empty
    xp, none = array_namespace(divisor), divisor == 0
    scale = samples / xp.where(none, constant(1, divisor), divisor)
    return xp.where(none, constant(empty, scale), scale)


def divisor_of_all(loss: Loss, targets: Iterable[Array], like: Array) -> Any:
    """Return what the mean over several batches together divides by."""
    if has_own_divisor(loss):
        return float(options_of(loss)["normalize"])
    return sum(divisor_of(loss, target, like) for target in targets)


def has_own_divisor(loss: Loss) -> bool:
    """Return whether a mean divides by a number of the user's own."""
    return not isinstance(options_of(loss).get("normalize"), str | None)


def check_divides(loss: Loss, when: str) -> None:
    """Raise TypeError for a loss whose mean cannot be told what to divide by."""
    operation = operation_of(loss)
    if "normalize" not in inspect.signature(operation).parameters:
        raise TypeError(f"loss must have the option normalize {when}, got {operation.name}")
