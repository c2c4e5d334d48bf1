"""Options of ``train``: what is minimised."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import cross_entropy, focal_loss, generalized_cross_entropy, to_backend
from ..training.objective import Loss
from .options import share
from .recipes import loss_of

LOSSES = {op.name: op for op in (cross_entropy, focal_loss, generalized_cross_entropy)}
OPTIONS = ("loss", "class_prior", "label_smoothing")
"""The names of the options; the settings of a run keep them."""


def add_to(add: Callable[..., Any]) -> None:
    """Add the options."""
    add(
        "--loss",
        choices=tuple(LOSSES),
        metavar="NAME",
        default=cross_entropy.name,
        help=f"of networks: what is minimised, of {', '.join(LOSSES)}; the last one where many "
        "labels are wrong (default: cross_entropy)",
    )
    add(
        "--class-prior",
        action="store_true",
        help="of networks: learn scores that are free of how often each class occurs in the "
        "training data, which finds rare classes better",
    )
    add(
        "--label-smoothing",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of networks: the share of each label that all classes get, such as 0.1 (default: 0)",
    )


def check(options: argparse.Namespace) -> None:
    """Raise ValueError if options do not fit the model, or each other."""
    given = {
        "--loss": options.loss != cross_entropy.name,
        "--class-prior": options.class_prior,
        "--label-smoothing": options.label_smoothing > 0,
    }
    for name, chosen in given.items():
        if chosen and options.model == "logistic":
            raise ValueError(f"argument {name}: is for networks, not for logistic")
    if options.class_prior and options.loss != cross_entropy.name:
        raise ValueError(f"argument --class-prior: is for cross_entropy, not for {options.loss}")


def chosen_loss(
    options: argparse.Namespace, labels: NDArray[np.int64], classes: int, xp: ModuleType
) -> Loss:
    """Return the loss that options ask for, of samples with these labels."""
    if options.model == "logistic":
        return loss_of(options.model, classes)
    set_by: dict[str, Any] = {}
    if options.label_smoothing:
        set_by["label_smoothing"] = options.label_smoothing
    if options.class_prior:
        counts = np.bincount(labels, minlength=classes)
        set_by["class_prior"] = to_backend(counts.astype(np.float32), xp)
    return functools.partial(LOSSES[options.loss], **set_by) if set_by else LOSSES[options.loss]
