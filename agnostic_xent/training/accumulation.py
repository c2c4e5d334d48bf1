"""Steps of several batches, whose gradients are added up.

The loss of a step is the mean over the samples of all its batches: the sum of their terms over the
sum of what their means divide by. Nowhere is a mean taken of means.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..core.arrays import constant, narrow, widen
from ..network.layers import Layer, Params, split_statistics
from .batches import Batch
from .objective import (
    Loss,
    divisor_of_all,
    loss_of_all,
    loss_vjp,
    of_part,
    scale_of,
    totals_of_loss,
)
from .totals import Totals


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield so many batches at a time; at last there may be fewer."""
    batches = iter(batches)
    while group := list(itertools.islice(batches, size)):
        yield group


def accumulated(
    model: Layer, params: Params, batches: list[Batch], loss: Loss, rng: Any
) -> tuple[Params, Totals]:
    """Return what the pullback of several batches together would return, and their totals.

    A layer sees one batch at a time: batch normalization takes the statistics of each, and moves
    the running ones by their mean.
    """
    samples = sum(int(x.shape[0]) for x, _ in batches)
    divisor = divisor_of_all(loss, [y for _, y in batches], next(iter(params.values())))
    scale, sums, totals = scale_of(loss, samples, divisor), Params(), Totals()
    for x, y in batches:
        output, pull_model = model.vjp(params, x, train=True, rng=rng, input_grad=False)
        value, pull_loss = loss_vjp(of_part(loss, samples), output, y)
        share = narrow(scale, value) if hasattr(scale, "dtype") else constant(scale, value)
        found = pull_model(pull_loss(share)[0])[1]
        statistics = split_statistics(found)[1]
        found |= {name: x.shape[0] / samples * new for name, new in statistics.items()}
        sums |= {k: sums[k] + widen(g) if k in sums else widen(g) for k, g in found.items()}
        totals.add(replace(totals_of_loss(loss, value, output, y), loss=widen(value)))
    totals.loss = loss_of_all(totals.loss * scale, totals.divisor)
    return {name: narrow(total, params[name]) for name, total in sums.items()}, totals
