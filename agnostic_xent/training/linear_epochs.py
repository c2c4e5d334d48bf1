"""Plain SGD of a linear model, many steps in one call of a kernel: logistic regression."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.arrays import Array, array_namespace
from ..core.operation import Operation, Routine
from ..network.containers import as_chain, prefix_of
from ..network.layers import Dense, Flatten, Layer, Params
from ..operations.binary_losses import binary_cross_entropy_with_logits as binary_loss
from ..operations.losses import cross_entropy
from .batches import ArraySource, Source
from .optimizers import SGD, Optimizer, State
from .proximal import Proximal
from .schedules import Schedule, rates_of
from .totals import Totals

if TYPE_CHECKING:
    import numpy as np

Steps: TypeAlias = Iterator[tuple[Params, State, Totals]]
"""Parameters and state after some steps of an epoch, and the totals of their samples."""

CHUNK = 1 << 22
"""Weights times samples of a call: milliseconds, so that progress shows and Ctrl-C works."""


@Routine
def linear_sgd(
    w: Array,
    b: Array | None,
    x: Array,
    y: Array,
    order: np.ndarray,
    rates: np.ndarray,
    *,
    loss: str,
    batch_size: int,
    weight_decay: float,
    decay_bias: bool,
    l1: float = 0.0,
) -> tuple[Array, Array | None, float, int]:
    """Take the steps of SGD, without momentum, over batches of the rows ``order`` of x and y.

    ``w = w - rate * (mean over the batch of (p - y) x + weight_decay * w)``, and b likewise, but
    without the decay unless ``decay_bias``; then the weights come nearer to 0 by rate * l1.

    Parameters
    ----------
    w, b : array
        Weights (units, features) and bias (units,) of the logits ``w x + b``.
    x, y : array
        Samples (N, features) and targets (N, 1) of one unit, or labels (N,).
    order, rates : numpy.ndarray
        Row numbers, and a learning rate for each batch of them.
    loss : {"binary_cross_entropy_with_logits", "cross_entropy"}
        The operation.

    Returns
    -------
    w, b : array
        After the steps.
    loss : float
        The sum of the samples' losses, before the step that each took part in.
    correct : int
        How many predictions were right.
    """
    raise NotImplementedError("where no kernel takes the arguments, `fit` takes the steps")


@dataclass(frozen=True)
class LinearSteps:
    """Takes the steps of an epoch of a linear model by a kernel."""

    kernel: Callable[..., tuple[Array, Array | None, float, int]]
    """It knows the options of the steps."""
    weight: str
    """The parameter's name; likewise the bias."""
    bias: str
    x: Array
    y: Array
    learning_rate: float | Schedule
    batch_size: int
    samples: int | None
    """How many of them an epoch takes; None for all."""

    def __call__(self, params: Params, state: State, rng: np.random.Generator) -> Steps:
        """Yield parameters, state and the samples' totals after each call of the kernel."""
        order = rng.permutation(self.x.shape[0])[: self.samples]
        w, b = params[self.weight], params.get(self.bias)
        batches = max(1, CHUNK // (self.batch_size * math.prod(w.shape)))
        for rows, steps in calls(order, self.batch_size, batches, state["step"]):
            rates = rates_of(self.learning_rate, steps)
            w, b, loss, correct = self.kernel(w, b, self.x, self.y, rows, rates)
            state = state | {"step": state["step"] + len(steps)}
            params = params | {self.weight: w} | ({} if b is None else {self.bias: b})
            yield params, state, Totals(len(rows), loss, correct, len(rows), len(rows))


def calls(
    order: np.ndarray, batch_size: int, batches: int, step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of each call of a kernel, so many batches at most, and its steps' numbers."""
    import numpy as np

    for start in range(0, len(order), batch_size * batches):
        rows = order[start : start + batch_size * batches]
        yield rows, step + start // batch_size + np.arange(math.ceil(len(rows) / batch_size))


def linear_steps(
    model: Layer,
    params: Mapping[str, Array],
    source: Source,
    loss: Operation[Any, Any],
    optimizer: Optimizer,
    batch_size: int,
    samples: int | None = None,
) -> LinearSteps | None:
    """Return what takes the steps of an epoch, where `linear_sgd` has a kernel for it.

    That may be for one `Dense` layer, perhaps behind `Flatten`, in-memory samples, SGD without
    momentum, perhaps `Proximal`, and `cross_entropy` of labels or
    `binary_cross_entropy_with_logits` of one logit.
    """
    *before, (name, dense) = as_chain(model).children().items()
    if type(dense) is not Dense or any(type(layer) is not Flatten for _, layer in before):
        return None
    options = step_options(optimizer, batch_size)
    if options is None or not isinstance(source, ArraySource):
        return None
    if loss is not cross_entropy and (loss is not binary_loss or dense.units != 1):
        return None
    prefix = prefix_of(name)
    weight, bias, x = f"{prefix}weight", f"{prefix}bias", source.x
    if before and x.ndim > 2:
        x = array_namespace(x).reshape(x, (len(source), math.prod(x.shape[1:])))
    options |= {"loss": loss.name}
    kernel = linear_sgd.kernel(params[weight], params.get(bias), x, source.y, **options)
    if kernel is None:
        return None
    value, rate = functools.partial(kernel.value, **options), sgd_of(optimizer).learning_rate
    return LinearSteps(value, weight, bias, x, source.y, rate, batch_size, samples)


def sgd_of(optimizer: Any) -> Any:
    """Return the optimizer within `Proximal`."""
    return optimizer.optimizer if isinstance(optimizer, Proximal) else optimizer


def step_options(optimizer: Any, batch_size: int) -> dict[str, Any] | None:
    """Return the options of kernels for steps of SGD; None of others, or of momentum."""
    sgd = sgd_of(optimizer)
    if type(sgd) is not SGD or sgd.momentum:
        return None
    return {
        "batch_size": batch_size,
        "weight_decay": sgd.weight_decay,
        "decay_bias": sgd.decay_bias,
        "l1": optimizer.l1 if isinstance(optimizer, Proximal) else 0.0,
    }
