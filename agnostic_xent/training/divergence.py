"""Where a training run stopped being finite: found by taking an epoch's steps again."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.arrays import Array, array_namespace
from ..core.sparse import numbers_in
from ..network.containers import mapped
from ..network.layers import Layer, Params, Pass, WithPullback
from .batches import Batch, IterableSource
from .optimizers import State
from .steps import Task

__all__ = ["DivergenceError"]

ADVICE = (
    "lower the learning rate, or scale the features, such as by "
    "sklearn.preprocessing.StandardScaler"
)


class DivergenceError(ValueError):
    """The loss or the parameters of a training run became NaN or infinite.

    Attributes
    ----------
    epoch, step : int
        The epoch, and the step within it, both counted from 1; a step of None could not be found,
        since the batches did not come a second time.
    layer : str or None
        The first layer whose output or gradient was not finite, such as "2" in a `Sequential`.

    Examples
    --------
    >>> x, y = xp.asarray([[1e30], [-1e30]]), xp.asarray([0, 1])
    >>> w = {"0.weight": xp.zeros((2, 1)), "0.bias": xp.zeros(2)}
    >>> model, options = Sequential(Dense(2)), {"loss": cross_entropy, "epochs": 1, "rng": 0}
    >>> try:
    ...     fit(model, w, (x, y), optimizer=SGD(1e300), **options)
    ... except DivergenceError as error:
    ...     error.epoch, error.step, error.layer
    (1, 1, None)
    """

    def __init__(
        self, message: str, *, epoch: int = 0, step: int | None = None, layer: str | None = None
    ):
        super().__init__(message)
        self.epoch, self.step, self.layer = epoch, step, layer


def is_finite(arrays: Iterable[Array]) -> bool:
    """Return whether all numbers of all arrays are finite; this reads from the device once."""
    found = []
    for x in arrays:
        xp = array_namespace(x)
        found.append(xp.all(xp.isfinite(x)))
    return bool(functools.reduce(operator.and_, found))


def stays_finite(after: Mapping[str, Array], before: Mapping[str, Array]) -> bool:
    """Return whether all numbers of ``after`` are finite that were finite in ``before``.

    A bias may start at -inf.
    """
    if is_finite(after.values()):
        return True
    gone = []
    for name, x in after.items():
        xp = array_namespace(x)
        gone.append(xp.any(xp.isfinite(before[name]) & ~xp.isfinite(x)))
    return not bool(functools.reduce(operator.or_, gone))


def divergence(
    task: Task, params: Params, state: State, rng: Any, epoch: int, loss: float
) -> DivergenceError:
    """Take the steps of an epoch again, from where it started, and say what went first.

    Parameters
    ----------
    task, params, state, rng
        What was trained, and where it stood before the epoch.
    epoch : int
        Its number, counted from 1.
    loss : float
        Its mean.
    """
    step, cause, layer = _first(task, params, state, rng)
    what = "the parameters" if math.isfinite(loss) else "the loss"
    value = "NaN or infinite" if math.isfinite(loss) else loss
    where = "" if step is None else f", at its step {step}"
    return DivergenceError(
        f"{what} became {value} in epoch {epoch}{where}: {cause}; {ADVICE}",
        epoch=epoch,
        step=step,
        layer=layer,
    )


def _first(
    task: Task, params: Params, state: State, rng: Any
) -> tuple[int | None, str, str | None]:
    """Return the first step of a task that was not finite, what was not, and in which layer."""
    source = task.source
    if isinstance(source, IterableSource) and isinstance(source.data, Iterator):
        return None, "an iterator does not give its batches again to look", None
    group: list[Batch] = []
    before: list[Any] = []

    def noted() -> Iterator[Batch]:
        for batch in task.batches(rng):
            if len(group) == task.accumulate:
                group.clear()
            group.append(batch)
            before[:] = [rng.bit_generator.state]
            yield batch

    for step, (after, _, done) in enumerate(task.steps(noted(), params, state, rng), 1):
        finite = math.isfinite(float(done.loss))
        if not finite or not stays_finite(after, params):
            (rng.bit_generator.state,) = before
            gone = [name for name in after if not stays_finite({name: after[name]}, params)]
            return step, *_cause(task, params, group, rng, finite, gone)
        params = after
    return None, "the same steps again found nothing; their batches may have been others", None


def _cause(
    task: Task, params: Params, group: list[Batch], rng: Any, finite_loss: bool, gone: list[str]
) -> tuple[str, str | None]:
    """Return what was not finite first in the step on batches, and in which layer."""
    if not is_finite(numbers_in(x) for x, _ in group):
        return "its batch has NaN or infinity in x", None
    spoiled = [name for name, w in params.items() if not is_finite([w])]
    if spoiled and not finite_loss:
        return f"the optimizer's step before took the parameter {spoiled[0]} there", None
    notes: list[_Note] = []
    watched = mapped(task.model, lambda name, layer: _Watched(layer, name, notes))
    replace(task, model=watched).gradients(params, group, rng)
    kind = "gradient" if finite_loss else "output"
    for note in notes:
        if note.kind == kind:
            return f"the {kind} of {note.title} was the first that was not finite", note.layer
    if finite_loss:
        return f"the optimizer's step took the parameter {gone[0]} there", None
    return "the loss was the first, of finite outputs", None


# --- a model that takes note ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Note:
    """That a layer's output or gradient was not finite."""

    kind: str
    layer: str
    title: str


@dataclass(frozen=True)
class _Watched(Layer):
    """A layer whose outputs and gradients are looked at."""

    layer: Layer
    name: str
    notes: list[_Note]

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        y, pullback = self.layer.vjp(params, x, **how.options())
        self._look("output", [y])

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, grads = pullback(dy)
            self._look("gradient", [*grads.values(), *([] if dx is None else [dx])])
            return dx, grads

        return y, of_layer

    def _look(self, kind: str, arrays: list[Array]) -> None:
        if arrays and not is_finite(arrays):
            kind_of_layer = type(self.layer).__name__
            title = f"layer {self.name} ({kind_of_layer})" if self.name else kind_of_layer
            self.notes.append(_Note(kind, self.name, title))
