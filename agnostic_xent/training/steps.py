"""The steps of an epoch: batch -> model -> loss -> pullback -> optimizer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..core.arrays import Array, array_namespace, dtype_kind
from ..network.inference import predictor_for
from ..network.layers import Layer, Params, split_statistics
from ..operations.labels import check_label_range
from .accumulation import accumulated, grouped
from .batches import ArraySource, Batch, Source, samples_of
from .linear_epochs import Steps, linear_steps
from .mixing import Mixing
from .objective import Loss, loss_vjp, operation_of, options_of, totals_of_loss
from .optimizers import Optimizer, State, averages_of
from .sparse_epochs import sparse_steps
from .totals import Totals

COUNTS = (None, "count")
"""How a mean over samples is normalised: where each counts as one."""

Stepper: TypeAlias = Callable[[Params, State, Any], Steps]
"""Takes the steps of an epoch, given parameters, the optimizer's state and the rng."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how."""

    model: Layer
    source: Source
    loss: Loss
    optimizer: Optimizer
    batch_size: int
    mixing: Mixing | None = field(default=None, kw_only=True)
    """What mixes the samples of a batch before it is trained on."""
    accumulate: int = 1
    """Batches of a step."""
    drop_last: bool = False
    """Whether a step of fewer samples is left out, at the end of an epoch of arrays."""

    @property
    def samples(self) -> int | None:
        """How many samples take part in an epoch, where that is known."""
        samples = samples_of(self.source)
        return None if samples is None else samples // self._multiple * self._multiple

    @property
    def _multiple(self) -> int:
        return self.batch_size * self.accumulate if self.drop_last else 1

    def averages(self, params: Params, state: State) -> Params:
        """Return the parameters that are evaluated: averages, where the optimizer has some."""
        return averages_of(self.optimizer, params, state)

    def batches(self, rng: Any) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        return self.source.batches(self.batch_size, rng, multiple=self._multiple)

    def stepper(self, params: Params) -> Stepper:
        """Return what takes the steps of an epoch: a kernel for many at once where there is one."""
        options = options_of(self.loss)
        if self.mixing is not None:
            return self._epoch
        # labels are checked already; and no loss of these has weights that a mean could count
        if options.keys() <= {"check_labels", "normalize"} and options.get("normalize") in COUNTS:
            loss = operation_of(self.loss)
            step = self.batch_size * self.accumulate
            task = self.model, params, self.source, loss, self.optimizer, step, self.samples
            fast = linear_steps(*task) or sparse_steps(*task)
            if fast is not None:
                return fast
        return self._epoch

    def _epoch(self, params: Params, state: State, rng: Any) -> Steps:
        return self.steps(self.batches(rng), params, state, rng)

    def steps(self, batches: Iterable[Batch], params: Params, state: State, rng: Any) -> Steps:
        """Take steps; yield parameters, state and the totals of its samples after each."""
        for group in grouped(batches, self.accumulate):
            found, totals = self.gradients(params, group, rng)
            grads, statistics = split_statistics(found)
            params, state = self.optimizer.update(params | statistics, grads, state)
            yield params, state, totals

    def gradients(self, params: Params, group: list[Batch], rng: Any) -> tuple[Params, Totals]:
        """Return what the pullback of a step's batches returns, and the totals of its samples."""
        group = [self.mixed(batch, params, rng) for batch in group]
        if len(group) > 1:
            return accumulated(self.model, params, group, self.loss, rng)
        x, y = group[0]
        value, output, found = loss_and_grads(self.model, params, x, y, self.loss, rng)
        return found, totals_of_loss(self.loss, value, output, y)

    def mixed(self, batch: Batch, params: Params, rng: Any) -> Batch:
        """Return a batch as it is trained on."""
        return batch if self.mixing is None else self.mixing(batch, params, rng)

    def evaluate(self, params: Params) -> tuple[float, float]:
        """Return mean loss and accuracy, in order and as in inference."""
        return mean_scores(self.model, params, self.source, self.loss, self.batch_size)


def loss_and_grads(
    model: Layer, params: Params, x: Array, y: Array, loss: Loss, rng: Any
) -> tuple[Array, Array, Params]:
    """Return the mean loss of a batch, the model's output, and what its pullback returns."""
    output, pull_model = model.vjp(params, x, train=True, rng=rng, input_grad=False)
    value, pull_loss = loss_vjp(loss, output, y)
    (dy, _) = pull_loss(array_namespace(value).ones_like(value))
    return value, output, pull_model(dy)[1]


def mean_scores(
    model: Layer, params: Mapping[str, Array], source: Source, loss: Loss, batch_size: int
) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a model on batches."""
    totals, predicted = Totals(), predictor_for(model, params, samples_of(source))
    for x, y in source.batches(batch_size):
        output = predicted(x)
        totals.add(totals_of_loss(loss, loss(output, y), output, y))
    return totals.means()


def checked_once(loss: Loss, model: Layer, params: Params, source: Source) -> Loss:
    """Try a sample and check all labels before the first step; then no step waits to check."""
    if not isinstance(source, ArraySource):
        return loss
    x, y = next(source.batches(1))
    output, options = model(params, x), options_of(loss)
    loss(output, y)  # raises here, before any state changes, where model, loss and data do not fit
    takes_check = "check_labels" in inspect.signature(operation_of(loss)).parameters
    if not takes_check or dtype_kind(array_namespace(y), y.dtype) != "integral":
        return loss
    for labels in source.stored_targets(1 << 20):
        classes = output.shape[options.get("axis", -1)]
        check_label_range("target", labels, classes, options.get("ignore_index"))
    return functools.partial(loss, check_labels=False)
