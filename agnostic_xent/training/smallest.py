"""The smallest batch of an epoch, tried before the first step."""

from __future__ import annotations

from ..core.arrays import Array
from ..core.communication import Communicator
from ..network.layers import Params, split_statistics
from .divergence import stays_finite
from .steps import Task


def check_smallest_batch(task: Task, params: Params, communicator: Communicator) -> None:
    """Raise ValueError, on all ranks, if a model cannot be trained on the last batch of an epoch.

    Batch normalization needs two values a channel, which one sample may not have. Larger shares of
    a batch are not tried, nor what an iterable is going to yield.
    """
    samples = task.samples
    if samples is None or not split_statistics(params)[1]:
        return
    last = samples % task.batch_size or min(samples, task.batch_size)
    if last // communicator.size > 1:
        return
    x, _ = next(task.source.batches(last))
    reasons = [why for why in communicator.gather(_why_not(task, params, x)) if why]
    if not reasons:
        return
    ranks, advice = "", "choose a batch_size that leaves another remainder"
    if communicator.size > 1:
        ranks = f" for {communicator.size} ranks"
        advice += ", or let synchronize_batch_norm take the statistics over all ranks"
    raise ValueError(
        f"the last batch of an epoch has {last} of {samples} samples{ranks} (batch_size="
        f"{task.batch_size}), too few to train on: {reasons[0]}; {advice}"
    )


def _why_not(task: Task, params: Params, x: Array) -> str | None:
    try:
        output, pullback = task.model.vjp(params, x, train=True, rng=0, input_grad=False)
        statistics = split_statistics(pullback(0 * output)[1])[1]
    except ValueError as error:
        return str(error)
    if statistics and not stays_finite(statistics, params):
        return "the running statistics would not be finite"
    return None
