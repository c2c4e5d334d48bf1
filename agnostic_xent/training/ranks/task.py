"""Training on many ranks: each takes its share of every batch, and their gradients are added up.

With S the sum of a batch's terms and D what their mean divides by, each rank has the terms of its
share alone. D is summed over the ranks before the backward pass, whose gradients are then those of
S / D and only have to be added: nowhere is a mean taken of means.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core.arrays import Array, array_namespace, constant, narrow, widen
from ...core.communication import Communicator, check_alike
from ...core.conversion import to_numpy
from ...network.containers import as_chain, learns, outer_params
from ...network.inference import predictor_for
from ...network.layers import Layer, Params, Pass, WithPullback, split_statistics
from ..accumulation import grouped
from ..batches import Batch, Source, samples_of
from ..linear_epochs import Steps
from ..objective import (
    CLASS_LOSSES,
    THRESHOLDS,
    Loss,
    divisor_of_all,
    has_own_divisor,
    loss_vjp,
    of_part,
    operation_of,
    options_of,
    scale_of,
    totals_of_loss,
)
from ..optimizers import State
from ..steps import Stepper, Task
from ..totals import Totals
from .shares import ShareOfDraws, share, shared
from .sums import GradientSums

NUMBERS = ":numbers"
"""How the sums of a batch's totals are called among those of the gradients."""


def distributed(task: Task, communicator: Communicator) -> Task:
    """Return a rank's part in a task.

    Raises
    ------
    TypeError, ValueError
        If what the mean divides by cannot be told from the targets of a share.
    """
    known = (*CLASS_LOSSES, *THRESHOLDS)
    if operation_of(task.loss) not in known:
        names = ", ".join(operation.name for operation in known)
        raise TypeError(f"loss must be one of {names} on several ranks, got {task.loss!r}")
    if options_of(task.loss).get("sample_weight") is not None:
        raise ValueError(
            "loss cannot set sample_weight on several ranks, which see a share of each batch; "
            'let targets be probabilities times weights, with normalize="count"'
        )
    own = {"source": shared(task.source, communicator), "whole": task.source}
    return DistributedTask(**vars(task) | own, communicator=communicator)


@dataclass(frozen=True)
class DistributedTask(Task):
    """What several ranks train together; the batch size is that of all together.

    What its steps yield is the same on every rank.
    """

    communicator: Communicator = field(kw_only=True)
    whole: Source = field(kw_only=True)
    """What the source is the rank's share of."""

    def batches(self, rng: Any) -> Iterator[Batch]:
        """Yield a rank's share of the batches of an epoch; whole ones where they are mixed."""
        if self.mixing is None:
            return super().batches(rng)
        return self.whole.batches(self.batch_size, rng, multiple=self._multiple)

    def mixed(self, batch: Batch, params: Params, rng: Any) -> Batch:
        """Return a rank's share of a batch as it is trained on."""
        if self.mixing is None:
            return batch
        own = share(int(batch[0].shape[0]), self.communicator)
        return self.mixing(batch, params, rng, own)

    def stepper(self, params: Params) -> Stepper:
        """Return what takes the steps of an epoch, one by one."""
        return self._epoch

    def steps(self, batches: Iterable[Batch], params: Params, state: State, rng: Any) -> Steps:
        """Take steps; yield parameters, state and the whole batch's totals after each.

        Raises
        ------
        ValueError
            If the batches of some ranks end before those of others.
        """
        sums, part = GradientSums(self.communicator), 1.0
        held, last = Params(), False

        def add(grads: Params) -> None:
            """Add gradients, and of running statistics this rank's part in their mean."""
            statistics = split_statistics(grads)[1]
            grads = grads | {name: part * x for name, x in statistics.items()}
            grads = {k: held.pop(k) + widen(g) if k in held else g for k, g in grads.items()}
            sums.add(grads) if last else held.update(grads)

        chain = as_chain(self.model)
        model = chain.rebuilt(
            {
                name: _HandsOut(layer, name, add) if learns(layer) else layer
                for name, layer in chain.children().items()
            }
        )
        for group in grouped(batches, self.accumulate):
            group = [self.mixed(batch, params, rng) for batch in group]
            agreed = self._agree(group, next(iter(params.values())))
            for number, (x, y) in enumerate(group):
                draws = ShareOfDraws(
                    rng, functools.partial(_count, agreed, number), self.communicator
                )
                output, pull_model = model.vjp(params, x, train=True, rng=draws, input_grad=False)
                counts, divisor = agreed()  # on its way during the forward pass
                samples, last = sum(counts), number == len(group) - 1
                scale = scale_of(self.loss, samples, divisor)
                value, pull_loss = loss_vjp(of_part(self.loss, samples), output, y)
                add({NUMBERS: _numbers(self.loss, value, output, y)})
                part = x.shape[0] / samples
                pull_model(pull_loss(constant(scale, value))[0])
            found = sums.finish(keep=state["step"] == 0)  # SGD's first velocity is the gradient
            numbers = found.pop(NUMBERS)
            params, state = self._updated(params, found, state)
            del found  # the next step needs the memory
            yield params, state, _totals(samples, scale, numbers)
        self._agree([], next(iter(params.values())))()

    def _updated(self, params: Params, found: Params, state: State) -> tuple[Params, State]:
        """Return parameters and state after a step, given the sums of what a pullback returns."""
        found = {name: narrow(x, params[name]) for name, x in found.items()}
        grads, statistics = split_statistics(found)
        copies = {k: array_namespace(x).asarray(x, copy=True) for k, x in statistics.items()}
        return self.optimizer.update(params | copies, grads, state)

    def evaluate(self, params: Params) -> tuple[float, float]:
        """Return mean loss and accuracy; the ranks add up their numbers at the end."""
        rows, predicted = [], predictor_for(self.model, params, samples_of(self.source))
        for x, y in self.source.batches(self.batch_size):
            output = predicted(x)
            value = of_part(self.loss, self.batch_size)(output, y)
            rows.append((_numbers(self.loss, value, output, y), self._divisor([y], value)))
        check_alike(self.communicator, lambda: {"number of validation batches": len(rows)})
        table = np.asarray(
            [[*to_numpy(numbers), divisor] for numbers, divisor in rows], dtype=float
        )
        totals = Totals()
        for *numbers, divisor in self.communicator.sum(table).tolist():
            totals.add(_totals(0, scale_of(self.loss, self.batch_size, divisor), numbers))
        return totals.means()

    def _agree(self, group: list[Batch], like: Array) -> Callable[[], tuple[list[int], float]]:
        """Begin to add up what a step's batches have on each rank; calling the result waits.

        It returns the samples of each batch, and what the mean divides by. It raises ValueError
        where some ranks go on with a batch, and others have none.
        """
        sums = np.zeros((2, 1 + self.accumulate))
        sums[0, 0] = self._divisor([y for _, y in group], like)
        sums[0, 1 : 1 + len(group)] = [x.shape[0] for x, _ in group]
        sums[1, 1 : 1 + len(group)] = 1
        wait = self.communicator.start_sum(sums)

        @functools.cache
        def agreed() -> tuple[list[int], float]:
            wait()
            size = self.communicator.size
            for ranks in sums[1, 1:]:
                if ranks not in (0, size):
                    raise ValueError(
                        f"data ended on {size - int(ranks)} of {size} ranks before the others: an "
                        "iterable must yield the same batches on all"
                    )
            return [int(count) for count in sums[0, 1:]], float(sums[0, 0])

        return agreed

    def _divisor(self, targets: list[Array], like: Array) -> float:
        """Return a share's part of what the mean divides by."""
        divisor = float(divisor_of_all(self.loss, targets, like))
        return divisor / self.communicator.size if has_own_divisor(self.loss) else divisor


def _count(agreed: Callable[[], tuple[list[int], float]], batch: int) -> int:
    return agreed()[0][batch]


def _numbers(loss: Loss, value: Array, output: Array, y: Array) -> Array:
    """Return the loss of a share, its right predictions, its terms and its divisor."""
    xp, own = array_namespace(output), totals_of_loss(loss, value, output, y)
    value = widen(value)
    counts = [
        xp.astype(x, value.dtype) if hasattr(x, "dtype") else constant(x, value)
        for x in (own.correct, own.terms, own.divisor)
    ]
    return xp.stack([value, *counts])


def _totals(samples: int, scale: float, numbers: Any) -> Totals:
    """Return the totals of a batch from the sums of `_numbers` over the ranks."""
    value, correct, terms, divisor = (numbers[i] for i in range(4))
    nothing = math.isnan(scale) and float(terms) == 0  # of nothing the mean may be NaN
    loss = 0.0 if nothing else value * scale * divisor
    return Totals(samples, loss, correct, terms, divisor)


# --- a model that hands out its gradients --------------------------------------------------------


@dataclass(frozen=True)
class _HandsOut(Layer):
    """A layer that hands out its gradients as soon as it has them, instead of returning them."""

    layer: Layer
    name: str
    take: Callable[[Params], None]

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        y, pullback = self.layer.vjp(params, x, **how.options())

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, grads = pullback(dy)
            self.take(outer_params(self.name, grads))
            return dx, {}  # the next pullback needs the memory

        return y, of_layer
