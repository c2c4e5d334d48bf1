"""Options of ``train``: how steps are taken, and what they start from."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import ClipByNorm, CutMix, Mixup, MovingAverage, transfer_params
from ..core.arrays import Array
from ..evaluation.folder import Settings
from ..training.optimizers import Optimizer
from .options import argument, count, rate, share
from .saved import read

MIXES = {"mixup": Mixup(), "cutmix": CutMix()}
MIXED = {"mixup": ("cnn", "signals"), "cutmix": ("cnn",)}
"""The models of whose samples there are mixtures."""


def add_to(add: Callable[..., Any]) -> None:
    """Add the options."""
    add(
        "--accumulate",
        type=count,
        default=1,
        metavar="N",
        help="batches whose gradients are added up for a step: more samples a step than fit into "
        "memory (default: 1)",
    )
    add(
        "--drop-last",
        action="store_true",
        help="leave out the samples at the end of an epoch that are too few for a whole step",
    )
    add(
        "--mix",
        choices=tuple(MIXES),
        help="train on mixtures of two samples and of their classes: of cnn and signals the means "
        "of two (mixup), of cnn images with a rectangle of another one (cutmix)",
    )
    add("--clip", type=rate, metavar="NORM", help="scale gradients down to this norm")
    add(
        "--average",
        type=share,
        metavar="DECAY",
        help="test and keep an exponential moving average of the weights, such as of 0.999",
    )
    add(
        "--start",
        type=Path,
        metavar="DIR",
        help="of cnn and signals: start from the model in the folder that another train --out has "
        "written, of samples of the same shape; it may have had other classes, then the last layer "
        "starts anew",
    )
    add(
        "--freeze",
        action="store_true",
        help="with --start: train the last layer alone, which takes less time",
    )


def optimizer_of(options: argparse.Namespace, optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that clips and averages as the options say."""
    if options.clip is not None:
        optimizer = ClipByNorm(optimizer, norm=options.clip)
    if options.average is not None:
        optimizer = MovingAverage(optimizer, options.average)
    return optimizer


def started(
    options: argparse.Namespace, settings: Settings, params: dict[str, Array]
) -> dict[str, Array]:
    """Return first parameters: those given, or in their place those in the folder of --start."""
    if options.start is None:
        if options.freeze:
            raise ValueError("argument --freeze: needs --start, a model that has been trained")
        return params
    with argument("--start"):
        other, found, _ = read(options.start)
        kinds = [(run.model, run.input_shape) for run in (other, settings)]
        if settings.model == "logistic" or kinds[0] != kinds[1]:
            raise ValueError(
                "is for cnn or signals and samples of the same shape, but the model there is "
                f"{kinds[0][0]} of {kinds[0][1]}, here {kinds[1][0]} of {kinds[1][1]}"
            )
        return transfer_params(params, found)


def of_steps(options: argparse.Namespace, params: dict[str, Array]) -> dict[str, Any]:
    """Return the arguments of `fit` that say what a step is."""
    if options.mix is not None and options.model not in MIXED[options.mix]:
        known = " and ".join(MIXED[options.mix])
        raise ValueError(f"argument --mix: {options.mix} is for {known}, not for {options.model}")
    last = next(reversed(params)).rpartition(".")[0]
    return {
        "mix": MIXES.get(options.mix),
        "accumulate": options.accumulate,
        "drop_last": options.drop_last,
        "trainable": [last] if options.freeze else None,
    }


def steps_of(options: argparse.Namespace, samples: int, batch_size: int) -> int:
    """Return the number of steps in an epoch, at least 1."""
    step: int = batch_size * options.accumulate
    return max(1, samples // step if options.drop_last else math.ceil(samples / step))
