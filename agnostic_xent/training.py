"""The training loop: batches -> model -> loss -> pullback -> optimizer -> History."""

from __future__ import annotations

import functools
import inspect
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from .arrays import Array, array_namespace, constant, dtype_kind, generator, namespace
from .batches import ArraySource, Source, as_source
from .class_loss import check_label_range, not_ignored
from .layers import Layer, split_statistics
from .operation import Operation, Pullback
from .optimizers import Optimizer

__all__ = ["Callback", "Epoch", "History", "evaluate", "fit", "predict"]

Params: TypeAlias = dict[str, Array]
Loss: TypeAlias = Operation[Any, Any] | functools.partial[Any]
"""An operation (output, target) -> mean loss, or a partial of one that sets its options."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch did: means over its samples, while the weights moved."""

    epoch: int
    """Counted from 1."""
    loss: float
    accuracy: float
    learning_rate: float
    """Of the last step."""
    seconds: float
    """Training alone, without validation."""
    images_per_second: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


class History(list[Epoch]):
    """The epochs of a run, in order.

    Examples
    --------
    >>> History([Epoch(1, 0.5, 0.8, 0.1, 2.0, 100.0)]).column("loss")
    [0.5]
    """

    def column(self, name: str) -> list[Any]:
        """Return one quantity of every epoch, such as "loss" or "validation_accuracy"."""
        return [getattr(epoch, name) for epoch in self]

    def to_json(self) -> str:
        """Return the epochs as a JSON list of objects."""
        return json.dumps([asdict(epoch) for epoch in self], indent=2) + "\n"


class Callback:
    """What `fit` calls while it runs; override what is needed."""

    def on_start(self, epochs: int, samples: int | None) -> None:
        """Before the first step; ``samples`` an epoch, None if unknown."""

    def on_step(self, samples: int) -> None:
        """After each step, with the number of samples in its batch."""

    def on_epoch(self, epoch: Epoch, params: Params) -> bool | None:
        """After each epoch and its validation; True ends the training."""

    def on_end(self) -> None:
        """After the last step, also when the training was interrupted."""


def fit(
    model: Layer,
    params: Mapping[str, Array],
    data: Any,
    *,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 128,
    rng: Any = None,
    validation: Any = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[Params, History]:
    """Train a model.

    Parameters
    ----------
    model : layer
        Such as `Sequential`.
    params : dict of str to array
        Where to start, from ``model.init`` (see `to_backend`); not changed. Their library and
        device are where everything runs.
    data : (x, y), or iterable of (x, y)
        Arrays with the samples along axis 0, of the library of ``params``; or memory-mapped or
        dask arrays, or paths of two .npy files, which are read batch by batch; or an iterable of
        batches, passed through once an epoch.
    loss : operation
        ``loss(model output, y)``, such as `cross_entropy`; ``functools.partial`` sets options.
    optimizer : optimizer
        `SGD` or `AdamW`.
    epochs, batch_size : int
        At least 1. The last batch of an epoch is smaller where samples do not divide.
    rng : int, numpy.random.Generator or None
        Shuffles the samples before each epoch, and drives dropout. The same on every library.
    validation : (x, y), or iterable of (x, y), optional
        Evaluated after each epoch.
    callbacks : sequence of Callback
        Such as `Progress`.

    Returns
    -------
    params : dict of str to array
        The trained parameters.
    history : History
        Loss, accuracy, learning rate, seconds and images a second of each epoch. They are read
        from the device once an epoch.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or does not fit, or a label is out of range; before the
        first step wherever it can be known by then.

    Examples
    --------
    >>> x, y = xp.asarray([[0.0], [1.0]] * 8), xp.asarray([0, 1] * 8)
    >>> w = {"0.weight": xp.zeros((2, 1)), "0.bias": xp.zeros(2)}
    >>> w, history = fit(
    ...     Sequential(Dense(2)), w, (x, y), loss=cross_entropy, optimizer=SGD(1.0), epochs=9, rng=0
    ... )
    >>> history[-1].accuracy
    1.0
    """
    _check_model(model, params, epochs=epochs, batch_size=batch_size)
    _check_loss(loss)
    _check_helpers(optimizer, callbacks)
    params, rng = dict(params), generator(rng)
    like = next(iter(params.values()))
    source = as_source("data", data, like, passes=epochs)
    train_loss = test_loss = _checked_once(loss, model, params, source)
    held_out: Source | None = None
    if validation is not None:
        held_out = as_source("validation", validation, like, passes=epochs)
        test_loss = _checked_once(loss, model, params, held_out)
    samples = len(source) if isinstance(source, ArraySource) else None
    history, state = History(), optimizer.init(params)
    try:
        for callback in callbacks:
            callback.on_start(epochs, samples)
        for number in range(1, epochs + 1):
            started, totals = time.perf_counter(), _Totals(train_loss)
            for x, y in source.batches(batch_size, rng):
                value, output, grads = _loss_and_grads(model, params, x, y, train_loss, rng)
                grads, statistics = split_statistics(grads)
                rate = optimizer.rate(state["step"])
                params, state = optimizer.update(params, grads, state)
                params |= statistics
                totals.add(value, output, y)
                for callback in callbacks:
                    callback.on_step(x.shape[0])
            mean_loss, accuracy = totals.means()  # reads from the device: the epoch has ended
            seconds = time.perf_counter() - started
            scores: tuple[float, float] | tuple[None, None] = (None, None)
            if held_out is not None:
                scores = _evaluate(model, params, held_out, test_loss, batch_size)
            speed = totals.samples / max(seconds, 1e-9)
            history.append(Epoch(number, mean_loss, accuracy, rate, seconds, speed, *scores))
            if sum(bool(callback.on_epoch(history[-1], params)) for callback in callbacks):
                break
    finally:
        for callback in callbacks:
            callback.on_end()
    return params, history


def evaluate(
    model: Layer,
    params: Mapping[str, Array],
    data: Any,
    *,
    loss: Loss,
    batch_size: int = 512,
) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a model on data.

    Parameters
    ----------
    model, params, data, loss, batch_size
        As for `fit`; in order, without dropout and with the running statistics.

    Examples
    --------
    >>> w = {"0.weight": xp.asarray([[-1.0], [1.0]])}
    >>> data = (xp.asarray([[1.0], [-1.0]]), xp.asarray([1, 1]))
    >>> evaluate(Sequential(Dense(2, bias=False)), w, data, loss=cross_entropy)[1]
    0.5
    """
    _check_model(model, params, batch_size=batch_size)
    _check_loss(loss)
    source = as_source("data", data, next(iter(params.values())))
    return _evaluate(model, params, source, loss, batch_size)


def predict(model: Layer, params: Mapping[str, Array], x: Array, *, batch_size: int = 512) -> Array:
    """Return a model's output (of a classifier: the logits), computed batch by batch.

    Parameters
    ----------
    model, params, batch_size
        As for `fit`; without dropout and with the running statistics.
    x : array
        Samples along axis 0, as in `fit`.

    Returns
    -------
    array
        One row a sample, of the library of ``params``.

    Examples
    --------
    >>> y = predict(Sequential(Dense(1)), {"0.weight": xp.asarray([[2.0]])}, xp.asarray([[3.0]]))
    >>> float(y[0, 0])
    6.0
    """
    _check_model(model, params, batch_size=batch_size)
    if isinstance(x, (tuple, list)):
        raise TypeError(f"x must be an array or the path of a .npy file, got {type(x).__name__}")
    source = as_source("x", (x, x), next(iter(params.values())))
    assert isinstance(source, ArraySource)
    outputs = [model(params, piece) for piece in source.pieces(source.x, batch_size)]
    return array_namespace(outputs[0]).concat(outputs, axis=0)


def _check_model(model: Any, params: Any, **counts: Any) -> None:
    if not isinstance(model, Layer):
        raise TypeError(f"model must be a layer such as Sequential(...), got {model!r}")
    if not isinstance(params, Mapping) or not params:
        raise TypeError(f"params must be a dict of arrays from model.init, got {params!r}")
    namespace(**{f"params[{name!r}]": x for name, x in params.items()})
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {count!r}")


def _check_loss(loss: Any) -> None:
    if not isinstance(_operation(loss), Operation):
        raise TypeError(
            f"loss must be an operation such as cross_entropy, or a partial of one, got {loss!r}"
        )
    if _options(loss).get("reduction", "mean") != "mean":
        raise ValueError(f'loss must have reduction="mean", got {loss!r}')


def _check_helpers(optimizer: Any, callbacks: Any) -> None:
    if isinstance(optimizer, type) or not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be one such as SGD(0.1), got {optimizer!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be instances of Callback, got {callback!r}")


def _evaluate(
    model: Layer, params: Mapping[str, Array], source: Source, loss: Loss, batch_size: int
) -> tuple[float, float]:
    totals = _Totals(loss)
    for x, y in source.batches(batch_size):
        output = model(params, x)
        totals.add(loss(output, y), output, y)
    return totals.means()


def _loss_and_grads(
    model: Layer, params: Params, x: Array, y: Array, loss: Loss, rng: Any
) -> tuple[Array, Array, Params]:
    output, pull_model = model.vjp(params, x, train=True, rng=rng, input_grad=False)
    value, pull_loss = _loss_vjp(loss, output, y)
    (dy, _) = pull_loss(constant(1, value))
    return value, output, pull_model(dy)[1]


# --- the loss ------------------------------------------------------------------------------------


def _operation(loss: Any) -> Any:
    return loss.func if isinstance(loss, functools.partial) else loss


def _options(loss: Loss) -> dict[str, Any]:
    return loss.keywords if isinstance(loss, functools.partial) else {}


def _loss_vjp(loss: Loss, output: Array, target: Array) -> tuple[Array, Pullback]:
    result: tuple[Array, Pullback] = _operation(loss).vjp(
        output, target, wrt=(0,), **_options(loss)
    )
    return result


def _checked_once(loss: Loss, model: Layer, params: Params, source: Source) -> Loss:
    """Try a sample and check all labels before the first step; then no step waits to check."""
    if not isinstance(source, ArraySource):
        return loss
    x, y = next(source.batches(1))
    output, options = model(params, x), _options(loss)
    loss(output, y)  # raises here, before any state changes, where model, loss and data do not fit
    takes_check = "check_labels" in inspect.signature(_operation(loss)).parameters
    if not takes_check or dtype_kind(array_namespace(y), y.dtype) != "integral":
        return loss
    for labels in source.pieces(source.y, 1 << 20):
        classes = output.shape[options.get("axis", -1)]
        check_label_range(labels, classes, options.get("ignore_index"))
    return functools.partial(loss, check_labels=False)


# --- running totals, kept on the device ----------------------------------------------------------


@dataclass
class _Totals:
    loss_function: Loss
    samples: int = 0
    loss: Any = 0
    correct: Any = 0
    terms: Any = 0

    def add(self, value: Array, output: Array, target: Array) -> None:
        count = output.shape[0]
        options = _options(self.loss_function)
        hits = _hits(output, target, options.get("axis", -1))
        self.samples += count
        counted = not_ignored(target, options.get("ignore_index"))
        if counted is None:
            self.terms = self.terms + math.prod(hits.shape)
        else:
            hits = hits & counted
            self.terms = self.terms + array_namespace(hits).count_nonzero(counted)
        self.loss = self.loss + value * count
        self.correct = self.correct + array_namespace(hits).count_nonzero(hits)

    def means(self) -> tuple[float, float]:
        return float(self.loss) / self.samples, float(self.correct) / float(self.terms)


def _hits(output: Array, target: Array, axis: int) -> Array:
    """Tell which predictions are right: the largest logit, or of a single one its sign."""
    xp = array_namespace(output)
    if dtype_kind(xp, target.dtype) == "integral":
        return xp.argmax(output, axis=axis) == target
    if output.shape[axis] == 1:
        return (output > 0) == (target > 0.5)
    return xp.argmax(output, axis=axis) == xp.argmax(target, axis=axis)
