"""The training loop: batches -> model -> loss -> pullback -> optimizer -> History."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ..core.arrays import Array, array_namespace
from ..core.checks import integer, namespace
from ..core.communication import Alone, Communicator, check_alike, first_rank_first, same_generator
from ..core.conversion import detached
from ..core.operation import Operation
from ..network.frozen import frozen
from ..network.inference import predictor_for
from ..network.layers import Layer, Params
from .batches import ArraySource, Source, as_source, samples_of
from .captured import captured_steps
from .divergence import DivergenceError, divergence, stays_finite
from .history import Callback, Epoch, History
from .mixing import Mix, Mixing
from .objective import Loss, check_divides, operation_of, options_of
from .optimizers import Optimizer, check_optimizer
from .runs import Run, RunFile, facts, fingerprint
from .smallest import check_smallest_batch
from .steps import Stepper, Task, checked_once, mean_scores
from .totals import Totals

__all__ = ["Callback", "Epoch", "History", "Loss", "evaluate", "fit", "predict"]


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
    mix: Mix | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    communicator: Communicator | None = None,
    capture: bool = False,
    trainable: Sequence[str] | None = None,
    accumulate: int = 1,
    drop_last: bool = False,
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
        dask arrays, or paths of two .npy files, which are read batch by batch and become of the
        library and dtype of ``params``, labels integers; or an iterable of batches, passed through
        once an epoch.
    loss : operation
        ``loss(model output, y)``, such as `cross_entropy`; ``functools.partial`` sets options.
    optimizer : optimizer
        `SGD` or `AdamW`.
    epochs, batch_size : int
        At least 1. The last batch of an epoch is smaller where samples do not divide; see
        ``drop_last``.
    rng : int, numpy.random.Generator or None
        Shuffles the samples before each epoch, mixes them, and drives dropout and layers such as
        `RandomFlip`. The same on every library.
    validation : (x, y), or iterable of (x, y), optional
        Evaluated after each epoch.
    mix : Mixup or CutMix, optional
        Trains on mixtures of two samples and of their targets; loss and accuracy of the training
        are those of mixtures.
    callbacks : sequence of Callback
        Such as `Progress`, `EarlyStopping` or `KeepBest`.
    checkpoint : path of a folder, optional
        Where the run is kept after each epoch, in one file that is replaced whole. Where the
        folder holds a run already, that one goes on, after an interruption with the same bits as
        without it (on a CPU; an iterable has to give the same batches again). It has to be of the
        same arguments; only ``epochs`` may grow, and with them the ``steps`` of a schedule, whose
        rates the remaining steps take; and the number of ranks may change. No two runs use a
        folder at a time.
    communicator : Communicator, optional
        Such as `MPICommunicator`: the ranks that train together, each with a share of every batch.
        All of them call `fit` with the same arguments, of which ``batch_size`` is that of all
        together; what they return is the same, and but for rounding what one rank returns.
        Callbacks run, and checkpoints are written, on rank 0 alone.
    capture : bool
        For CuPy: capture the step in a CUDA graph and replay it, so that a step costs the host a
        few short calls. Never tried on a GPU yet; see its page. Where a step cannot be captured,
        a warning says why, and it is taken as without. Not with a communicator.
    trainable : sequence of str, optional
        Names of the layers, or parameters, that are trained, such as ``["6"]``; "3.body" stands for
        all within. By default all are. A layer in which nothing is trained does what it does in
        inference: batch normalization uses its running statistics. Below the lowest trained layer
        nothing goes back, and no gradients are computed of what is not trained.
    accumulate : int
        Batches of a step: their gradients are added up, so that a step of many samples needs the
        memory of ``batch_size``. The loss of the step is the mean over all its samples, as if they
        were one batch, but batch normalization takes the statistics of each batch. The last step of
        an epoch may have fewer batches.
    drop_last : bool
        Whether samples at the end of an epoch that are too few for a whole step are left out; which
        ones these are differs from epoch to epoch, if they are shuffled. For arrays alone.

    Returns
    -------
    params : dict of str to array
        The trained parameters; of a `MovingAverage` the averages.
    history : History
        Loss, accuracy, learning rate, seconds and images a second of each epoch. They are read
        from the device once an epoch.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or does not fit, a label is out of range, or the checkpoint
        is damaged or of another run, or the ranks differ in something; before the first step
        wherever it can be known by then.
    BlockingIOError
        If another run uses the checkpoint's folder; the error names its process.
    DivergenceError
        If the loss or the parameters became NaN or infinite; it names the step and the layer that
        went first. The checkpoint stays that of the last good epoch.

    Examples
    --------
    >>> x, y = xp.asarray([[0.0], [1.0]] * 8), xp.asarray([0, 1] * 8)
    >>> w = {"0.weight": xp.zeros((2, 1)), "0.bias": xp.zeros(2)}
    >>> w, history = fit(
    ...     Sequential(Dense(2)), w, (x, y), loss=cross_entropy, optimizer=SGD(1.0), epochs=9, rng=0
    ... )
    >>> history[-1].accuracy
    1.0

    A run that is kept, and goes on from there for another epoch:

    >>> import tempfile
    >>> task = {"loss": cross_entropy, "optimizer": AdamW(), "rng": 0}
    >>> task["checkpoint"] = tempfile.mkdtemp()
    >>> w = {"0.weight": xp.zeros((2, 1)), "0.bias": xp.zeros(2)}
    >>> for epochs in (3, 4):
    ...     _, history = fit(Sequential(Dense(2)), w, (x, y), epochs=epochs, **task)
    >>> history.column("epoch")
    [1, 2, 3, 4]
    """
    params = _checked_params(model, params)
    epochs, batch_size = integer("epochs", epochs), integer("batch_size", batch_size)
    accumulate = integer("accumulate", accumulate)
    loss = _checked_loss(loss)
    _check_helpers(optimizer, callbacks, communicator, capture=capture)
    learner = model if trainable is None else frozen(model, params, _names(trainable))
    communicator = Alone() if communicator is None else communicator
    run = Run(params, optimizer.init(params), same_generator(rng, communicator))
    source = _source("data", data, run.params, epochs)
    task = Task(learner, source, loss, optimizer, batch_size, accumulate, drop_last)
    task, held_out = _on_ranks(task, run.params, communicator), None
    if mix is not None:
        task = replace(task, mixing=Mixing(mix, model, task.loss))
    if validation is not None:
        source = _source("validation", validation, run.params, epochs)
        held_out = Task(model, source, loss, optimizer, batch_size)
        held_out = _on_ranks(held_out, run.params, communicator)
    check_alike(communicator, lambda: facts(task, held_out, run, epochs))
    check_smallest_batch(task, run.params, communicator)
    callbacks = [each for each in callbacks if communicator.rank == 0 or each.every_rank]
    with ExitStack() as held:
        file = None
        if checkpoint is not None:
            file = RunFile(checkpoint, task, seeded=rng is not None)
            if communicator.rank == 0:
                held.enter_context(file.held())
            first_rank_first(communicator, functools.partial(file.resume, run, epochs))
        take_steps = captured_steps(task, run.params) if capture else task.stepper(run.params)
        _train(task, held_out, run, epochs, take_steps, callbacks, file, communicator)
    return task.averages(run.params, run.state), run.history


def _train(
    task: Task,
    held_out: Task | None,
    run: Run,
    epochs: int,
    take_steps: Stepper,
    callbacks: Sequence[Callback],
    file: RunFile | None,
    communicator: Communicator,
) -> None:
    """Take the epochs that a run has still to take."""
    try:
        for callback in callbacks:
            callback.on_start(epochs, task.samples)
            if run.history:
                callback.on_resume(run.history, task.averages(run.params, run.state))
        while len(run.history) < epochs and not run.ended:
            handed_out = bool(callbacks or file) or len(run.history) + 1 == epochs
            look = any(communicator.gather(handed_out))
            epoch = _epoch(task, run, take_steps, callbacks, look=look)
            params = task.averages(run.params, run.state)
            if held_out is not None:
                scores = held_out.evaluate(params)
                epoch = replace(epoch, validation_loss=scores[0], validation_accuracy=scores[1])
            run.history.append(epoch)
            answers = [callback.on_epoch(epoch, params) for callback in callbacks]
            run.ended = any(communicator.gather(any(answers)))
            check_alike(communicator, lambda: fingerprint(run))
            if file is not None and communicator.rank == 0:
                file.save(run)
    except DivergenceError as error:
        if file is not None:
            error.args = (f"{error}; {file.path} keeps the last good epoch",)
        raise
    finally:
        for callback in callbacks:
            callback.on_end()


def _source(name: str, data: Any, params: Params, epochs: int) -> Source:
    return as_source(name, data, next(iter(params.values())), passes=epochs)


def _on_ranks(task: Task, params: Params, communicator: Communicator) -> Task:
    """Return what is done on this rank of a task, whose arguments are tried before."""
    _check_steps(task)
    task = replace(task, loss=checked_once(task.loss, task.model, params, task.source))
    if communicator.size == 1:
        return task
    from .ranks.task import distributed  # it needs NumPy, which is slow to import

    return distributed(task, communicator)


def _check_steps(task: Task) -> None:
    """Raise an error if there is no step, or its loss cannot be put together."""
    if task.accumulate > 1:
        check_divides(task.loss, "with accumulate > 1")
    if not task.drop_last:
        return
    if task.samples is None:
        raise ValueError("drop_last=True is for arrays; what an iterable yields is taken as it is")
    if task.samples == 0:
        raise ValueError(
            f"drop_last=True leaves no step: one takes {task.batch_size * task.accumulate} samples "
            f"(batch_size={task.batch_size}, accumulate={task.accumulate}), and there are "
            f"{samples_of(task.source)}"
        )


def _epoch(
    task: Task, run: Run, take_steps: Stepper, callbacks: Sequence[Callback], *, look: bool
) -> Epoch:
    """Take the steps of an epoch, and bring the run there; what is not finite stops it.

    With ``look`` also of the parameters: what the last step did no loss has seen yet.
    """
    params, state, random = run.params, run.state, run.rng.bit_generator.state
    started, totals = time.perf_counter(), Totals()
    for after in take_steps(params, state, run.rng):
        run.params, run.state, done = after
        totals.add(done)
        for callback in callbacks:
            callback.on_step(done.samples)
    number, rate = len(run.history) + 1, task.optimizer.rate(run.state["step"] - 1)
    loss, accuracy = totals.means()  # reads from the device: the epoch has ended
    seconds = time.perf_counter() - started
    finite = math.isfinite(loss) or math.isfinite(float(totals.loss))  # a mean of nothing is NaN
    if not finite or (look and not stays_finite(run.params, params)):
        run.rng.bit_generator.state = random
        raise divergence(task, params, state, run.rng, number, loss)
    speed = totals.samples / max(seconds, 1e-9)
    return Epoch(number, loss, accuracy, rate, seconds, speed)


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
    params, loss = _checked_params(model, params), _checked_loss(loss)
    batch_size = integer("batch_size", batch_size)
    source = as_source("data", data, next(iter(params.values())))
    return mean_scores(model, params, source, loss, batch_size)


def predict(
    model: Layer,
    params: Mapping[str, Array],
    x: Any,
    *,
    batch_size: int = 512,
    callbacks: Sequence[Callback] = (),
) -> Array:
    """Return a model's output (of a classifier: the logits), computed batch by batch.

    The model is compiled first where there are many samples; see `compile_predictor`, which is for
    who predicts again and again.

    Parameters
    ----------
    model, params, batch_size
        As for `fit`; without dropout and with the running statistics.
    x : array, or path of a .npy file
        Samples along axis 0, as in `fit`; memory-mapped and dask arrays are read batch by batch.
    callbacks : sequence of Callback
        Such as `Progress`: told of the start, of each batch as a step, and of the end.

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
    params = _checked_params(model, params)
    batch_size = integer("batch_size", batch_size)
    if isinstance(x, (tuple, list)):
        raise TypeError(f"x must be an array or the path of a .npy file, got {type(x).__name__}")
    source = as_source("x", (x, x), next(iter(params.values())))
    assert isinstance(source, ArraySource)
    _check_callbacks(callbacks)
    predicted, outputs = predictor_for(model, params, len(source)), []
    try:
        for callback in callbacks:
            callback.on_start(1, len(source))
        for piece in source.pieces(batch_size):
            outputs.append(predicted(piece))
            for callback in callbacks:
                callback.on_step(piece.shape[0])
    finally:
        for callback in callbacks:
            callback.on_end()
    return array_namespace(outputs[0]).concat(outputs, axis=0)


def _checked_params(model: Any, params: Any) -> Params:
    if not isinstance(model, Layer):
        raise TypeError(f"model must be a layer such as Sequential(...), got {model!r}")
    if not isinstance(params, Mapping) or not params:
        raise TypeError(f"params must be a dict of arrays from model.init, got {params!r}")
    namespace(**{f"params[{name!r}]": x for name, x in params.items()})
    own: Params = detached(params)
    return own


def _checked_loss(loss: Any) -> Loss:
    if not isinstance(operation_of(loss), Operation):
        raise TypeError(
            f"loss must be an operation such as cross_entropy, or a partial of one, got {loss!r}"
        )
    if options_of(loss).get("reduction", "mean") != "mean":
        raise ValueError(f'loss must have reduction="mean", got {loss!r}')
    options = detached(options_of(loss))
    return functools.partial(loss, **options) if options else loss


def _names(trainable: Any) -> list[str]:
    if isinstance(trainable, str) or not all(isinstance(name, str) for name in trainable):
        raise TypeError(
            f'trainable must be a sequence of names such as ["6"] or None, got {trainable!r}'
        )
    return [*trainable]


def _check_helpers(optimizer: Any, callbacks: Any, communicator: Any, *, capture: bool) -> None:
    check_optimizer(optimizer)
    _check_callbacks(callbacks)
    if capture and communicator is not None:
        raise ValueError("capture=True is for training without a communicator; pass one of them")


def _check_callbacks(callbacks: Any) -> None:
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be instances of Callback, got {callback!r}")
