"""What lies between an estimator and `fit`: weights, a validation part, averages."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from ..core.arrays import Array, array_namespace
from ..core.communication import Communicator
from ..core.files import write_atomically
from ..core.sparse import CSR
from ..network.checkpoints import checksum, host_arrays
from ..network.containers import Sequential
from ..network.layers import Layer, Params, Pass, WithPullback
from ..operations.binary_losses import binary_cross_entropy_with_logits
from ..operations.losses import cross_entropy
from ..training.averages import Averaged
from ..training.batches import is_stored
from ..training.callbacks import EarlyStopping
from ..training.loop import Callback, Epoch, History, Loss, fit
from ..training.mixing import Mix
from ..training.optimizers import Optimizer, State
from ..training.recipe import some_of
from ..training.sparse_epochs import _ZeroLogit
from .chosen_loss import linear_loss
from .samples import Batches, Labelled, Samples

DRAWS = 100
"""So often groups are drawn to be held out, until all classes are among the others."""


class Trained(NamedTuple):
    """What a training returns."""

    params: Params
    state: State | None
    """Of `Averaged`, to continue from; None of another optimizer."""
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
    groups: NDArray[Any] | None = None
    """If there are some, the part is one of whole groups, and the fraction that of groups."""

    def split(
        self, samples: int, labels: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the samples to train on, and those that are held out.

        With ``labels``, all classes are among those to train on.
        """
        rows, seed = np.arange(samples), int(rng.integers(2**31 - 1))
        if self.groups is None:
            train, others = train_test_split(
                rows, test_size=self.fraction, stratify=labels, random_state=seed
            )
            return train, others
        if len(np.unique(self.groups)) < 2:
            raise ValueError("groups must be at least 2, for one of them to be held out; got 1")
        splits = GroupShuffleSplit(DRAWS, test_size=self.fraction, random_state=seed)
        for train, others in splits.split(rows, groups=self.groups):
            if labels is None or len(np.unique(labels[train])) == len(np.unique(labels)):
                return train, others
        raise ValueError(
            f"groups must leave samples of every class to train on; in {DRAWS} draws of "
            f"validation_fraction={self.fraction} of them none did"
        )


@dataclass(frozen=True)
class Problem:
    """What a model is trained on: samples, and as targets their labels with their weights."""

    model: Layer
    loss: Loss
    samples: Samples
    shape: tuple[int, ...]
    """Of one sample, as the model takes it."""
    strata: NDArray[np.int64] | None
    """What a part that is held out has as large shares of, if anything: the labels."""
    targets: Array

    def part(self, rows: NDArray[np.int64], batch_size: int, rng: Any = None) -> Any:
        """Return data for `fit`: some of the samples."""
        if is_stored(self.samples.x):
            return Batches(self.samples, self.shape, self.targets, rows, batch_size, rng)
        x, y = self.samples.x, self.targets
        xp = array_namespace(y)
        if len(rows) < len(self.samples):
            x, y = self.samples.take(rows), xp.take(y, self.samples.indices(rows), axis=0)
        return (x if isinstance(x, CSR) else xp.reshape(x, (-1, *self.shape))), y


def problem(
    model: Layer, units: int, data: Labelled, shape: tuple[int, ...], loss: Loss = cross_entropy
) -> Problem:
    """Choose loss and targets for a model of so many logits, 1 for two classes.

    Weights are scaled to a mean of 1 and become the size of the targets: a cross entropy is linear
    in them. ``loss`` is that of more logits than one, and one label a sample.
    """
    samples, weights, table = data.samples, data.weights, data.targets
    strata = data.labels if data.table is None else None
    binary = units == 1 or data.several
    if weights is None and binary:
        targets = samples.numbers(table if data.several else table[:, 1:])
        return Problem(model, binary_cross_entropy_with_logits, samples, shape, strata, targets)
    if weights is None and data.table is None:
        return Problem(model, loss, samples, shape, strata, samples.indices(data.labels))
    sizes = np.ones(len(samples)) if weights is None else weights / weights.mean()
    if binary:  # the binary cross entropy as one of two classes
        model = Sequential(
            *model.children().values(), _ZeroLogits() if data.several else _ZeroLogit()
        )
    elif weights is not None:
        loss, table = linear_loss(loss, table)
    if data.several:
        table, sizes = np.stack([1 - table, table], axis=2), sizes[:, None]
    loss = functools.partial(loss, normalize="count")
    return Problem(model, loss, samples, shape, strata, samples.numbers(table * sizes[..., None]))


class _ZeroLogits(Layer):
    """(N, labels) -> (N, labels, 2): beside each logit one of 0, for a sample without the label."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return both logits of each label, and their pullback."""
        xp = array_namespace(x)
        return xp.stack([xp.zeros_like(x), x], axis=2), lambda dy: (dy[..., 1], {})


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
    checkpoint: str | os.PathLike[str] | None = None,
    mix: Mix | None = None,
) -> Trained:
    """Train with `fit`; raise ValueError also if a class is too small for a validation part.

    An interruption by Ctrl-C, of one rank, leaves what the epochs before it have learnt.
    """
    rows, validation, best = np.arange(len(problem.samples)), None, None
    if held_out is not None:
        rows, others = held_out.split(len(rows), problem.strata, rng)
        validation = problem.part(others, batch_size)
        best = _Best(held_out.patience)
    kept = _Last()
    try:
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
            callbacks=[*callbacks, kept] if best is None else [*callbacks, kept, best],
            checkpoint=checkpoint,
            communicator=communicator,
            mix=mix,
        )
    except KeyboardInterrupt:
        if not kept.history or communicator.size > 1:
            raise
        last, history = kept.params, kept.history
        warnings.warn(
            f"interrupted: fit keeps what it learnt in the first {len(history)} of {epochs} epochs",
            stacklevel=4,
        )
    state = optimizer.state if isinstance(optimizer, Averaged) else None
    steps = len(history) * math.ceil(len(rows) / batch_size)
    if best is None:
        return Trained(last, state, steps, history, [])
    state = state and state | {"last": best.params}
    return Trained(best.params, state, steps, history, best.losses)


SAMPLES = "samples.crc32"
"""The file beside a checkpoint that tells its samples from others of the same shape."""


def check_same_samples(folder: Path, task: Problem) -> None:
    """Raise ValueError if the run in a folder is of other samples, labels or weights."""
    rows = some_of(len(task.samples))
    arrays = {"x": task.samples.take(rows), "targets": task.targets}
    found, path = checksum("", host_arrays(arrays)), folder / SAMPLES
    if path.exists() and path.read_text() != found:
        raise ValueError(
            f"checkpoint {folder} holds a run on other samples, labels or weights; name another "
            "folder, or remove that one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, found.encode())


class _Last(Callback):
    """What the finished epochs have learnt."""

    def __init__(self) -> None:
        self.params: Params = {}
        self.history = History()

    def on_resume(self, history: History, params: Params) -> None:
        self.params, self.history = params, History(history)

    def on_epoch(self, epoch: Epoch, params: Params) -> None:
        self.params = params
        self.history.append(epoch)


class _Best(EarlyStopping):
    """Early stopping that keeps the best parameters, or averages of them, in memory."""

    every_rank = True  # each needs the parameters

    def __init__(self, patience: int):
        super().__init__(patience)
        self.losses: list[float] = []
        self.params: Params = {}

    def on_epoch(self, epoch: Epoch, params: Params) -> bool:
        assert epoch.validation_loss is not None
        self.losses.append(epoch.validation_loss)
        ends = super().on_epoch(epoch, params)
        if self.best_epoch in (0, epoch.epoch):  # 0 where no loss has been finite yet
            self.params = dict(params)
        return ends
