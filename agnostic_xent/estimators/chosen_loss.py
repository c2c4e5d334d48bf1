"""The loss that a classifier is told to train on, with the prior of its classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..operations.divergences import jensen_shannon_divergence
from ..operations.losses import cross_entropy
from ..operations.robust_losses import focal_loss, generalized_cross_entropy
from ..training.objective import Loss, operation_of, options_of
from .samples import Labelled, host

LOSSES = (cross_entropy, focal_loss, generalized_cross_entropy, jensen_shannon_divergence)
OPTIONS = ("gamma", "label_smoothing", "mixing", "q", "z_loss")
"""Those that leave the probabilities of a classifier the softmax of its scores."""


def chosen_loss(loss: Any, class_prior: Any, data: Labelled) -> Loss:
    """Return the loss of one label a sample, with a prior of the classes if there is one.

    Raises
    ------
    ValueError
        If the loss or the prior cannot be that of a classifier of the data.
    """
    found = cross_entropy if loss is None else loss
    if operation_of(found) not in LOSSES or not options_of(found).keys() <= set(OPTIONS):
        names = ", ".join(operation.name for operation in LOSSES)
        raise ValueError(
            f"loss must be one of {names}, or a functools.partial of one that sets "
            f"{', '.join(OPTIONS)} and nothing else; got {found!r}"
        )
    if data.several and (loss is not None or class_prior is not None):
        raise ValueError("loss and class_prior are for one label a sample; leave them None")
    if class_prior is None:
        return found
    if "class_prior" not in inspect.signature(operation_of(found)).parameters:
        raise ValueError(f"class_prior is for cross_entropy, not for {operation_of(found).name}")
    prior = data.samples.numbers(_shares(class_prior, data))
    return functools.partial(found, class_prior=prior)


def loss_named(name: str, options: Mapping[str, Any]) -> Loss | None:
    """Return the loss that `chosen_loss` takes for a name and options."""
    operation = {loss.name: loss for loss in LOSSES}[name]
    if options:
        return functools.partial(operation, **options)
    return None if operation is cross_entropy else operation


def _shares(class_prior: Any, data: Labelled) -> NDArray[np.float64]:
    """Return how often each class occurs."""
    if isinstance(class_prior, str) and class_prior == "empirical":
        prior: NDArray[np.float64] = data.mass
        return prior / float(prior.sum())
    try:
        prior = np.asarray(host(class_prior), np.float64)
    except (TypeError, ValueError):
        prior = np.empty(0)
    if prior.shape != data.classes.shape or not (np.isfinite(prior).all() and (prior > 0).all()):
        raise ValueError(
            f'class_prior must be "empirical", {len(data.classes)} numbers > 0, one for each '
            f"class, or None; got {class_prior!r}"
        )
    return prior / float(prior.sum())


def linear_loss(loss: Loss, table: NDArray[Any]) -> tuple[Loss, NDArray[Any]]:
    """Return a loss that is linear in its targets, and the targets (N, classes) for it.

    A target times a number then is the target of a sample of that weight. Labels are smoothed here,
    before they are multiplied.
    """
    options = dict(options_of(loss))
    smoothing = options.pop("label_smoothing", 0.0)
    if operation_of(loss) is jensen_shannon_divergence or options.get("z_loss"):
        raise ValueError(
            "sample_weight and class_weight must be None where the loss is not linear in the "
            f"target, as with z_loss and of jensen_shannon_divergence; got {loss!r}"
        )
    smoothed = (1 - smoothing) * table + smoothing / table.shape[1]
    return functools.partial(operation_of(loss), **options), smoothed
