"""What the tests of distributed training run on each rank; also on one, without a communicator."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from importlib import metadata
from unittest import mock

import numpy as np

from agnostic_xent import (
    SGD,
    AdamW,
    BatchNorm2d,
    Callback,
    Conv2d,
    CutMix,
    Cutout,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    Mixup,
    RandomFlip,
    RandomShift,
    ReLU,
    Residual,
    Sequential,
    binary_cross_entropy_with_logits,
    cross_entropy,
    fit,
    synchronize_batch_norm,
    to_backend,
    to_numpy,
)
from agnostic_xent.core.conversion import backend

SEED, CLASSES, IMAGE, BATCH = 4, 3, (1, 6, 6), 10
SAMPLES, EPOCHS = 101, 10  # 11 steps an epoch, the last of one sample: most shares are empty
IGNORED = -1

PLAIN = Sequential(
    Conv2d(4, 3, padding=1), ReLU(), MaxPool2d(2), Flatten(), Dense(8), ReLU(), Dense(CLASSES)
)
WITH_DROPOUT = Sequential(Flatten(), Dense(16), ReLU(), Dropout(0.3), Dense(CLASSES))
AUGMENTED = Sequential(RandomFlip(), RandomShift(1), Cutout(2), Flatten(), Dense(CLASSES))
WITH_BATCH_NORM = Sequential(
    Conv2d(3, 3, padding=1, bias=False),
    BatchNorm2d(),
    Residual(Sequential(Conv2d(3, 3, padding=1, bias=False), BatchNorm2d()), BatchNorm2d()),
    ReLU(),
    Flatten(),
    Dense(CLASSES),
)
WITH_LARGE_LAYER = Sequential(Flatten(), Dense(512), Dense(520), Dense(CLASSES))
ONE_LOGIT = Sequential(Flatten(), Dense(1))


def data(dtype, *, soft=False, ignored=False, binary=False, samples=SAMPLES):
    """Return noisy images of bars and which bar; as labels, or as probabilities times weights."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, CLASSES, samples)
    x = rng.standard_normal((samples, *IMAGE)) / 2
    x[np.arange(samples), 0, 2 * y] += 1
    weights = rng.random(samples) + 0.5
    if binary:
        return x.astype(dtype), (y[:, None] == 0).astype(dtype)
    if soft:
        return x.astype(dtype), ((y[:, None] == np.arange(CLASSES)) * weights[:, None]).astype(
            dtype
        )
    if ignored:  # unevenly among the ranks, and some whole shares
        y[(weights < 0.9) | (np.arange(samples) % 10 < 4)] = IGNORED
    return x.astype(dtype), y


MODELS = PLAIN, WITH_BATCH_NORM, WITH_LARGE_LAYER
CLASS_WEIGHT = [0.2, 1.0, 3.0]
CASES = {
    "plain": (PLAIN, {}, {}),
    "class weights": (PLAIN, {"weight": CLASS_WEIGHT}, {}),
    "ignored labels": (PLAIN, {"ignore_index": IGNORED, "on_empty": "zero"}, {"ignored": True}),
    "all options": (
        PLAIN,
        {"weight": CLASS_WEIGHT, "ignore_index": IGNORED, "on_empty": "zero",
         "label_smoothing": 0.1},
        {"ignored": True},
    ),
    "sample weights": (PLAIN, {"normalize": "count"}, {"soft": True}),
    "sum of weights": (PLAIN, {"normalize": "weight", "weight": CLASS_WEIGHT}, {"soft": True}),
    "a number": (PLAIN, {"normalize": 7.5}, {}),
    "dropout": (WITH_DROPOUT, {}, {}),
    "augmented": (AUGMENTED, {}, {}),
    "batch norm": (WITH_BATCH_NORM, {}, {}),
    "large layer": (WITH_LARGE_LAYER, {}, {}),
    "mixup": (WITH_DROPOUT, {"label_smoothing": 0.1}, {"mix": Mixup(0.4)}),
    "cutmix": (WITH_BATCH_NORM, {"weight": CLASS_WEIGHT}, {"mix": CutMix()}),
    "one logit": (ONE_LOGIT, {}, {"binary": True}),
}  # fmt: skip


def loss_of(options, dtype, binary):
    arrays = {k: np.asarray(v, dtype) if isinstance(v, list) else v for k, v in options.items()}
    base = binary_cross_entropy_with_logits if binary else cross_entropy
    return functools.partial(base, **arrays)


def train(communicator, case, dtype="float32", *, backend=None, optimizer=None, **changed):
    """Train; return parameters as NumPy arrays, and the history without times."""
    model, options, kind = CASES[case]
    params = {k: v.astype(dtype) for k, v in model.init(SEED, IMAGE)[0].items()}
    x, y = data(dtype, **{name: value for name, value in kind.items() if name != "mix"})
    arguments = {
        "loss": loss_of(options, dtype, kind.get("binary")),
        "optimizer": optimizer or SGD(0.02, momentum=0.9),
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "rng": SEED,
        "validation": (x[:33], y[:33]),
        "mix": kind.get("mix"),
    }
    arguments |= changed
    if communicator is not None:
        model = synchronize_batch_norm(model, communicator)
    params, history = fit(model, params, (x, y), communicator=communicator, **arguments)
    return params, curves(history)


def curves(history):
    names = ("loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate")
    return {name: history.column(name) for name in names}


def train_all(communicator, dtype="float32", cases=tuple(CASES), **changed):
    return {case: train(communicator, case, dtype, **changed) for case in cases}


def one_after_the_other(communicator, calls):
    """Return what each function returns on this rank: a job for all, as starting one takes most."""
    return [function(communicator, *arguments) for function, *arguments in calls]


class Recorder(Callback):
    """Count what is called."""

    def __init__(self, every_rank=False):
        self.every_rank, self.steps, self.epochs = every_rank, 0, 0

    def on_step(self, samples):
        self.steps += samples

    def on_epoch(self, epoch, params):
        self.epochs += 1
        return self.epochs == 2


def callbacks(communicator):
    """Return what two callbacks have seen, of which one is for rank 0, and how many epochs ran."""
    seen = Recorder(), Recorder(every_rank=True)
    _, history = train(communicator, "plain", callbacks=seen)
    return [(callback.steps, callback.epochs) for callback in seen], len(history["loss"])


def whole_iterable(communicator):
    """Train on batches that an iterable makes."""
    x, y = data("float64")
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, SAMPLES, BATCH)]
    params = {k: v.astype("float64") for k, v in PLAIN.init(SEED, IMAGE)[0].items()}
    return fit(PLAIN, params, batches, loss=cross_entropy, optimizer=AdamW(), epochs=3, rng=0,
               communicator=communicator)[0]  # fmt: skip


def mapped(communicator, folder):
    """Train on files mapped into memory; return parameters, and how many images were read."""

    class Counting(np.memmap):
        read = 0

        def __getitem__(self, rows):
            found = np.asarray(super().__getitem__(rows))
            Counting.read += len(found)
            return found

    x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")
    params = {k: v.astype(x.dtype) for k, v in PLAIN.init(SEED, IMAGE)[0].items()}
    params, _ = fit(PLAIN, params, (x.view(Counting), y), loss=cross_entropy, optimizer=SGD(0.02),
                    epochs=2, batch_size=BATCH, rng=SEED, communicator=communicator)  # fmt: skip
    return params, Counting.read


def unequal(communicator, validation):
    """Return the error where rank 1 has a batch less to train on, or to validate on."""
    x, y = data("float32")
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, SAMPLES, BATCH)]
    fewer = batches[communicator.rank :]
    params = PLAIN.init(SEED, IMAGE)[0]
    try:
        fit(PLAIN, params, batches if validation else fewer, validation=fewer, loss=cross_entropy,
            optimizer=SGD(0.02), epochs=1, rng=0, communicator=communicator)  # fmt: skip
    except ValueError as error:
        return str(error)
    return "accepted"


def unseeded(communicator):
    """Train without a seed: it is chosen once, for all ranks."""
    return train(communicator, "dropout", epochs=1, rng=None)[0]


def each_library(communicator, name, model=PLAIN):
    """Train on another library; return parameters as NumPy arrays."""
    xp = backend(name)
    x, y = data("float32")
    params = to_backend(model.init(SEED, IMAGE)[0], xp)
    pair = to_backend(x, xp), to_backend(y.astype("int32"), xp)
    if communicator is not None:
        model = synchronize_batch_norm(model, communicator)
    params, _ = fit(model, params, pair, loss=cross_entropy, optimizer=SGD(0.02, momentum=0.9),
                    epochs=2, batch_size=BATCH, rng=SEED, communicator=communicator)  # fmt: skip
    return {name: to_numpy(w) for name, w in params.items()}


def with_nccl(communicator):
    """Train on a stand-in for CuPy; return the GPU that the rank took, and parameters."""
    import nccl_stand_in

    from agnostic_xent import NCCLCommunicator, kernels

    nccl_stand_in.install([f"bus {i}" for i in range(communicator.size)])
    ranks = NCCLCommunicator()
    with kernels("portable"):
        found = [each_library(ranks, "cupy", model) for model in MODELS]
    own = nccl_stand_in.Device.current
    return own, [{name: np.array(w) for name, w in params.items()} for params in found]


def without_nccl(communicator):
    """Return what becomes of ranks that see too few GPUs, one each, or no NCCL."""
    import nccl_stand_in

    from agnostic_xent import NCCLCommunicator

    found = []
    own = [f"bus {communicator.rank}"]
    for visible, available in ((["bus 0"], True), (own, True), (own, False)):
        nccl_stand_in.install(visible, available=available)
        try:
            NCCLCommunicator()
        except (ImportError, ValueError) as error:
            found.append(str(error))
        else:
            found.append(nccl_stand_in.Device.current)
    return found


def refused(communicator, changed):
    """Return the error of a rank 1 with other arguments, or another version of the package."""
    changed = dict(changed)
    version = changed.pop("version", None)
    if version and communicator.rank == 1:
        with mock.patch.object(metadata, "version", return_value=version):
            return refused(communicator, changed)
    name = changed.pop("library", None)
    kind = {"samples": changed.pop("samples", SAMPLES)} if communicator.rank == 1 else {}
    x, y = data(changed.pop("dtype", "float32") if communicator.rank == 1 else "float32", **kind)
    arguments = {"loss": cross_entropy, "optimizer": SGD(0.02), "epochs": 1, "rng": SEED}
    if communicator.rank == 1:
        arguments |= changed
    params = {k: v.astype(x.dtype) for k, v in PLAIN.init(SEED, IMAGE)[0].items()}
    if name and communicator.rank == 1:
        xp = backend(name)
        x, y, params = to_backend(x, xp), to_backend(y, xp), to_backend(params, xp)
    try:
        fit(PLAIN, params, (x, y), communicator=communicator, **arguments)
    except ValueError as error:
        return str(error)
    return "accepted"


def with_small_shares(communicator):
    """Return what becomes of batch normalization where a last batch has fewer samples than ranks.

    By whose statistics, and how many samples the batch has.
    """
    own = Sequential(Conv2d(4, 3), BatchNorm2d(), Flatten(), Dense(2))  # of 1 x 1 pixels
    models, found = {"own": own, "all": synchronize_batch_norm(own, communicator)}, {}
    for name, last in (("own", 2), ("all", 2), ("all", 1)):
        x = np.random.default_rng(SEED).normal(size=(32 + last, 1, 3, 3)).astype("float32")
        try:
            fit(models[name], own.init(SEED, (1, 3, 3))[0], (x, np.arange(len(x)) % 2),
                loss=cross_entropy, optimizer=SGD(0.1), epochs=1, batch_size=32, rng=SEED,
                communicator=communicator)  # fmt: skip
            found[f"{name}, {last}"] = "trained"
        except ValueError as error:
            found[f"{name}, {last}"] = str(error)
    return found


def diverging(communicator):
    """Return the error of a run whose learning rate is far too high, and where it arose."""
    from agnostic_xent import DivergenceError

    try:
        train(communicator, "plain", optimizer=SGD(1e20))
    except DivergenceError as error:
        return error.epoch, error.step, error.layer
    return None


def failing(communicator, folder, kind, rank):
    """Train with checkpoints until a rank fails in the third epoch."""
    epoch = 0

    class Failing(Callback):
        every_rank = True

        def on_step(self, samples):
            if communicator.rank == rank and epoch == 2:
                if kind == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "exits":
                    sys.exit(3)
                raise RuntimeError("out of coffee")

        def on_epoch(self, done, params):
            nonlocal epoch
            epoch = done.epoch

    train(communicator, "plain", checkpoint=folder, callbacks=[Failing()])


def losses(communicator):
    """Return the errors of losses that several ranks cannot take."""
    from agnostic_xent import linear_cross_entropy

    found = []
    for loss in (
        linear_cross_entropy,
        functools.partial(cross_entropy, sample_weight=np.ones(BATCH, "float32")),
    ):
        try:
            x = np.zeros((BATCH, 2), "float32")
            fit(Sequential(Dense(2)), {"0.weight": x[:2], "0.bias": x[0]},
                [(x, x[:, 0].astype(int))], loss=loss, optimizer=SGD(0.1), epochs=1,
                batch_size=BATCH, rng=0, communicator=communicator)  # fmt: skip
        except (TypeError, ValueError) as error:
            found.append(str(error))
    return found


def class_parallel(communicator, cases, *memories):
    """Return value and gradients of each case of `linear_cross_entropy`, from slices of classes."""
    from agnostic_xent import linear_cross_entropy

    found = []
    for memory, ((x, w, target, b), options) in itertools.product(memories, cases):
        own = slice_of(w.shape[0], communicator)
        options = dict(options)
        for name in options.keys() & {"class_weight", "class_prior"}:
            options[name] = options[name][own]
        target = target if target.ndim == 1 else target[:, own]
        b = None if b is None else b[own]
        try:
            value, pullback = linear_cross_entropy.vjp(
                x, w[own], target, b, memory=memory, communicator=communicator, **options
            )
        except ValueError as error:
            found.append(str(error))
            continue
        alone = linear_cross_entropy(
            x, w[own], target, b, memory=memory, communicator=communicator, **options
        )
        dy = np.linspace(0.5, 2, value.size, dtype=x.dtype).reshape(value.shape)
        found.append([value, alone, *pullback(dy)])
    return found


def slice_of(classes, communicator):
    """Cut classes unevenly: rank 0 has one."""
    cuts = [0, *np.linspace(1, classes, communicator.size).astype(int)]
    return slice(cuts[communicator.rank], cuts[communicator.rank + 1])


def memory_of_slices(communicator, classes):
    """Return the peak of memory of a loss whose classes are split, in bytes."""
    import tracemalloc

    from agnostic_xent import linear_cross_entropy

    rng = np.random.default_rng(SEED)
    count = classes // communicator.size
    x, labels = rng.standard_normal((64, 32), "f4"), rng.integers(0, classes, 64)
    w = rng.standard_normal((count, 32), dtype="f4")
    for rows in (1, 64):  # the first call loads what it needs
        tracemalloc.start()
        arrays, options = (x[:rows], w, labels[:rows]), {"memory": 2**20}
        linear_cross_entropy.vjp(*arrays, communicator=communicator, **options)[1](np.float32(1))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak
