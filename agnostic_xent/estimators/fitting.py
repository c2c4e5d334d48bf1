"""What lies between an estimator and `fit`: weights, a validation part, averages."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from ..core.arrays import Array, array_namespace, constant
from ..core.communication import Communicator
from ..network.containers import Sequential
from ..network.layers import Layer, Params, Pass, WithPullback
from ..operations.binary_losses import binary_cross_entropy_with_logits
from ..operations.losses import cross_entropy
from ..training.batches import is_stored
from ..training.callbacks import EarlyStopping
from ..training.loop import Callback, Epoch, History, Loss, evaluate, fit
from ..training.optimizers import Optimizer, State
from .samples import Batches, Labelled, Samples

DECAY = 3.0
"""Averages forget: iterate i of t counts about as ``(i / t) ** DECAY``."""


@dataclass
class Steps:
    """An optimizer that averages, and can be continued.

    The average is of polynomial decay (Shamir and Zhang, Stochastic gradient descent for
    non-smooth optimization, ICML 2013): Polyak's, but the first iterates fade.
    """

    optimizer: Optimizer
    average: bool = False
    state: State | None = None
    """After the last step; what to continue from."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.optimizer.rate(step)

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the next step."""
        if self.state is None:
            self.state = state_after(0, self.optimizer.init(params), params)
        return self.state

    def update(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State
    ) -> tuple[Params, State]:
        """Return the parameters and the state after a step; nothing is written to."""
        params, inner = self.optimizer.update(params, grads, state["inner"])
        step, mean = state["step"] + 1, state["mean"]
        if self.average:
            share = (DECAY + 1) / (DECAY + step)
            mean = {name: mean[name] + share * (w - mean[name]) for name, w in params.items()}
        self.state = {"step": step, "inner": inner, "mean": mean, "last": params}
        return params, self.state


def state_after(steps: int, inner: State, params: Mapping[str, Array]) -> State:
    """Return the state of `Steps` that have not averaged, given that of the inner optimizer."""
    return {"step": steps, "inner": inner, "mean": dict(params), "last": dict(params)}


class Trained(NamedTuple):
    """What a training returns."""

    params: Params
    state: State | None
    """Of `Steps`, to continue from; None of another optimizer."""
    steps: int
    """How many were taken, of samples in memory."""
    history: History
    validation_losses: list[float]


@dataclass(frozen=True)
class HeldOut:
    """A part that is held out: training ends when its loss no longer falls, where it was least."""

    fraction: float
    patience: int
    """Epochs without improvement."""


@dataclass(frozen=True)
class Problem:
    """What a model is trained on: samples, and as targets their labels with their weights."""

    model: Layer
    loss: Loss
    samples: Samples
    shape: tuple[int, ...]
    """Of one sample, as the model takes it."""
    labels: NDArray[np.int64]
    targets: Array

    def part(self, rows: NDArray[np.int64], batch_size: int, rng: Any = None) -> Any:
        """Return data for `fit`: some of the samples."""
        if is_stored(self.samples.x):
            return Batches(self.samples, self.shape, self.targets, rows, batch_size, rng)
        x, y = self.samples.x, self.targets
        xp = array_namespace(x)
        if len(rows) < len(self.samples):
            x, y = self.samples.take(rows), xp.take(y, self.samples.indices(rows), axis=0)
        return xp.reshape(x, (-1, *self.shape)), y


def problem(model: Layer, units: int, data: Labelled, shape: tuple[int, ...]) -> Problem:
    """Choose loss and targets for a model of so many logits, 1 for two classes.

    Weights are scaled to a mean of 1 and become the size of the targets: a cross entropy is linear
    in them.
    """
    samples, labels, weights = data.samples, data.labels, data.weights
    if weights is None and units > 1:
        return Problem(model, cross_entropy, samples, shape, labels, samples.indices(labels))
    if weights is None:
        targets = samples.numbers(labels[:, None])
        return Problem(model, binary_cross_entropy_with_logits, samples, shape, labels, targets)
    if units == 1:
        model = Sequential(*model.children().values(), _ZeroLogit())
    one_hot = labels[:, None] == np.arange(max(units, 2))
    targets = samples.numbers(one_hot * (weights / weights.mean())[:, None])
    loss = functools.partial(cross_entropy, normalize="count")
    return Problem(model, loss, samples, shape, labels, targets)


def train(
    problem: Problem,
    params: Params,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    communicator: Communicator,
    held_out: HeldOut | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train with `fit`; raise ValueError also if a class is too small for a validation part."""
    rows, validation, best = np.arange(len(problem.samples)), None, None
    if held_out is not None:
        rows, others = train_test_split(
            rows,
            test_size=held_out.fraction,
            stratify=problem.labels,
            random_state=int(rng.integers(2**31 - 1)),
        )
        validation = problem.part(others, batch_size)
        best = _Best(held_out.patience, problem, validation, optimizer)
    last, history = fit(
        problem.model,
        params,
        problem.part(rows, batch_size, rng),
        loss=problem.loss,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        rng=rng,
        validation=validation,
        callbacks=[*callbacks] if best is None else [*callbacks, best],
        communicator=communicator,
    )
    state = optimizer.state if isinstance(optimizer, Steps) else None
    steps = len(history) * math.ceil(len(rows) / batch_size)
    if best is None:
        return Trained(_result(optimizer, last), state, steps, history, [])
    state = state and state | {"last": best.params}
    return Trained(best.params, state, steps, history, best.losses)


def _result(optimizer: Optimizer, params: Params) -> Params:
    """Return the average, where there is one, instead of the last parameters."""
    if isinstance(optimizer, Steps) and optimizer.average and optimizer.state:
        mean: Params = optimizer.state["mean"]
        return mean
    return params


class _Best(EarlyStopping):
    """Early stopping that keeps the best parameters, or averages of them, in memory."""

    every_rank = True  # each needs the parameters

    def __init__(self, patience: int, problem: Problem, validation: Any, optimizer: Optimizer):
        super().__init__(patience)
        self.problem, self.validation, self.optimizer = problem, validation, optimizer
        self.losses: list[float] = []
        self.params: Params = {}

    def on_epoch(self, epoch: Epoch, params: Params) -> bool:
        found = _result(self.optimizer, params)
        if found is not params:  # the validation of `fit` was that of the last ones
            loss, _ = evaluate(self.problem.model, found, self.validation, loss=self.problem.loss)
            epoch = replace(epoch, validation_loss=loss)
        assert epoch.validation_loss is not None
        self.losses.append(epoch.validation_loss)
        ends = super().on_epoch(epoch, found)
        if self.best_epoch in (0, epoch.epoch):  # 0 where no loss has been finite yet
            self.params = dict(found)
        return ends


@dataclass(frozen=True)
class _ZeroLogit(Layer):
    """(N, 1) -> (N, 2): a logit of 0 for the first class; the softmax becomes the sigmoid."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        y = array_namespace(x).concat([constant(0, x) * x, x], axis=1)
        return y, lambda dy: (dy[:, 1:], {})
