"""Plain SGD of a linear model of sparse samples, many steps in one call of a kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.arrays import Array, array_namespace
from ..core.operation import Operation, Routine
from ..core.sparse import CSR
from ..network.containers import as_chain, prefix_of
from ..network.layers import Dense, Layer, Params, Pass, WithPullback
from ..operations.binary_losses import binary_cross_entropy_with_logits as binary_loss
from ..operations.losses import cross_entropy
from ..operations.sparse import sparse_affine, sparse_affine_vjp
from .averages import Averaged, share
from .batches import ArraySource, Source
from .linear_epochs import CHUNK, Steps, calls, sgd_of, step_options
from .optimizers import Optimizer, State
from .schedules import rates_of
from .totals import Totals

if TYPE_CHECKING:
    import numpy as np

PASSES = 8
"""Entries of a call for each weight: a call reads and writes all of them."""


@dataclass(frozen=True)
class _SparseDense(Dense):
    """`Dense` of sparse rows, which have no gradient of their own."""

    def __call__(self, params: Mapping[str, Array], x: Any) -> Array:
        """Return the logits."""
        return sparse_affine(x, params["weight"], params.get("bias"))

    def forward(self, params: Mapping[str, Array], x: Any, how: Pass) -> WithPullback:
        """Return the logits and their pullback."""
        y, pullback = sparse_affine_vjp(x, params["weight"], params.get("bias"))

        def of_layer(dy: Array) -> tuple[None, Params]:
            dw, db = pullback(dy)
            return None, {"weight": dw, "bias": db} if self.bias else {"weight": dw}

        return y, of_layer


@dataclass(frozen=True)
class _ZeroLogit(Layer):
    """(N, 1) -> (N, 2): a logit of 0 for the first class; the softmax becomes the sigmoid."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return both logits and their pullback."""
        y = array_namespace(x).concat([array_namespace(x).zeros_like(x), x], axis=1)
        return y, lambda dy: (dy[:, 1:], {})


@Routine
def sparse_sgd(
    params: list[Array | None],
    rows: tuple[Array, Array, Array],
    targets: list[Array],
    means: list[Array | None],
    *,
    order: np.ndarray,
    rates: np.ndarray,
    shares: np.ndarray,
    batch_size: int,
    weight_decay: float,
    decay_bias: bool,
    l1: float = 0.0,
) -> tuple[list[Array | None], list[Array | None], float, int]:
    """Take the steps of SGD over batches of the rows ``order`` of a `CSR`, as `linear_sgd` does.

    Parameters
    ----------
    params : list of array
        Weights (units, columns), and bias (units,) or None.
    rows : tuple of array
        The arrays of a `CSR`.
    targets : list of array
        One: labels (N,); or each class's share of a sample's weight, (N, classes), 2 of one unit.
    means : list of array
        The averages of weights and bias; None where there are none.
    order, rates, shares : numpy.ndarray
        Row numbers, and a learning rate for each batch; and the share that the parameters after
        each have in the averages, nothing where there are none.

    Returns
    -------
    params, means : list of array
        After the steps.
    loss : float
        The sum of the samples' losses, before the step that each took part in.
    correct : int
        How many predictions were right.
    """
    raise NotImplementedError("where no kernel takes the arguments, `fit` takes the steps")


@dataclass(frozen=True)
class SparseSteps:
    """Takes the steps of an epoch of a linear model of sparse samples by a kernel."""

    kernel: Callable[..., Any]
    weight: str
    """The parameter's name; likewise the bias."""
    bias: str
    x: CSR
    y: Array
    optimizer: Any
    """`SGD`, perhaps `Proximal`, or `Averaged` of that."""
    batch_size: int
    samples: int | None
    """How many of them an epoch takes; None for all."""

    def __call__(self, params: Params, state: State, rng: np.random.Generator) -> Steps:
        """Yield parameters, state and the samples' totals after each call of the kernel."""
        import numpy as np

        order, names = rng.permutation(len(self.x))[: self.samples], [self.weight, self.bias]
        averages = isinstance(self.optimizer, Averaged) and self.optimizer.average
        batches = self._batches(math.prod(params[self.weight].shape))
        for rows, steps in calls(order, self.batch_size, batches, state["step"]):
            of_params, of_means, loss, correct = self.kernel(
                [params.get(name) for name in names],
                self.x.arrays,
                [self.y],
                [state["mean"].get(name) if averages else None for name in names],
                order=rows,
                rates=rates_of(sgd_of(_inner(self.optimizer)).learning_rate, steps),
                shares=share(steps + 1) if averages else np.empty(0),
            )
            params = params | _present(names, of_params)
            state = self._after(state, len(steps), params, _present(names, of_means))
            yield params, state, Totals(len(rows), loss, correct, len(rows), len(rows))

    def _batches(self, weights: int) -> int:
        """Return how many batches a call does, at most."""
        units = weights // self.x.columns
        of_batch = self.batch_size * max(1, self.x.entries // len(self.x)) * units
        return max(1, max(CHUNK, PASSES * weights) // of_batch)

    def _after(self, state: State, steps: int, params: Params, means: Params) -> State:
        """Return the optimizer's state after some steps."""
        if not isinstance(self.optimizer, Averaged):
            return state | {"step": state["step"] + steps}
        inner = state["inner"] | {"step": state["inner"]["step"] + steps}
        known = {"step": state["step"] + steps, "inner": inner, "last": params}
        self.optimizer.state = known | {"mean": means or state["mean"]}
        return self.optimizer.state


def sparse_steps(
    model: Layer,
    params: Mapping[str, Array],
    source: Source,
    loss: Operation[Any, Any],
    optimizer: Optimizer,
    batch_size: int,
    samples: int | None = None,
) -> SparseSteps | None:
    """Return what takes the steps of an epoch, where `sparse_sgd` has a kernel for it.

    That may be for one `_SparseDense`, perhaps before `_ZeroLogit`, and SGD without momentum,
    perhaps `Proximal` or averaged, not both.
    """
    (name, first), *after = as_chain(model).children().items()
    if type(first) is not _SparseDense or not isinstance(source, ArraySource):
        return None
    options, prefix = step_options(_inner(optimizer), batch_size), prefix_of(name)
    binary = loss is binary_loss and first.units == 1 and not after
    of_classes = loss is cross_entropy and [type(layer) for _, layer in after] in ([], [_ZeroLogit])
    if options is None or not (binary or of_classes):
        return None
    if options["l1"] and isinstance(optimizer, Averaged) and optimizer.average:
        return None
    y, (weight, bias) = source.y, (f"{prefix}weight", f"{prefix}bias")
    if binary:
        y = array_namespace(y).concat([1 - y, y], axis=1)
    arrays = params[weight], params.get(bias), *source.x.arrays, y
    kernel = sparse_sgd.kernel(*arrays, **options)
    if kernel is None:
        return None
    value = functools.partial(kernel.value, **options)
    return SparseSteps(value, weight, bias, source.x, y, optimizer, batch_size, samples)


def _inner(optimizer: Any) -> Any:
    return optimizer.optimizer if isinstance(optimizer, Averaged) else optimizer


def _present(names: list[str], arrays: list[Array | None]) -> Params:
    return {name: x for name, x in zip(names, arrays, strict=True) if x is not None}
