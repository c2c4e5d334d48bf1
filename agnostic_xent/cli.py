"""The command line: ``agnostic-xent train``, ``info`` and ``warmup``."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import (
    SGD,
    History,
    Progress,
    Sequential,
    binary_cross_entropy_with_logits,
    cosine,
    cross_entropy,
    fit,
    info,
    logistic,
    predict,
    save_params,
    sigmoid,
    small_cnn,
    softmax,
    to_backend,
    to_numpy,
)
from .arrays import Array, backend
from .checkpoints import write_atomically
from .datasets import Dataset, load_digits, load_fashion_mnist, load_spambase
from .history import Callback, Epoch
from .report import save_picture
from .steps import Loss

BACKENDS = ("numpy", "cupy", "torch", "jax")


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how unless options say otherwise."""

    network: Callable[[int], Sequential]
    loss: Loss
    momentum: float
    data: str
    epochs: int
    batch_size: int
    learning_rate: float


RECIPES = {
    "cnn": Recipe(
        network=small_cnn,
        loss=cross_entropy,
        momentum=0.9,
        data="embedded",
        epochs=3,
        batch_size=64,
        learning_rate=0.05,
    ),
    "logistic": Recipe(
        network=logistic,
        loss=binary_cross_entropy_with_logits,
        momentum=0.0,
        data="spambase",
        epochs=5,
        batch_size=1,  # the stochastic gradient descent of textbooks
        learning_rate=0.02,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; None takes those of the process.
    """
    try:
        return _run(argv)
    except BrokenPipeError:  # the reader of our output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("agnostic-xent: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, ImportError, OSError) as error:
        print("agnostic-xent: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def _run(argv: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(argv)
        options.command(options)
    finally:
        sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
    return 0


# --- options -------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """Leave errors to `main`, which prints one line."""
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="agnostic-xent",
        description="Train small networks on NumPy, CuPy, torch or JAX arrays.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    text = "show versions, array libraries with their devices, and settings"
    show = commands.add_parser("info", help=text, description=f"{text.capitalize()}.")
    show.set_defaults(command=_info)
    text = "compile all CPU kernels ahead, for later processes to load from disk"
    warm = commands.add_parser("warmup", help=text, description=f"{text.capitalize()}.")
    warm.set_defaults(command=_warmup)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a model and print its test accuracy",
        description="Train a model by SGD, with a learning rate that falls to 0 along a half "
        "cosine. Progress goes to standard error; the last line on standard output is the "
        "test accuracy.",
    )
    add = train.add_argument
    add(
        "model",
        nargs="?",
        choices=tuple(RECIPES),
        default="cnn",
        help="cnn (default): two convolutions on images; logistic: logistic regression on e-mails",
    )
    add(
        "--data",
        help="for cnn: embedded (12,000 images of Fashion-MNIST), full (all 70,000), digits "
        "(scikit-learn's), or a folder that holds the four IDX files of Fashion-MNIST; "
        f"for logistic: spambase ({_defaults('data')})",
    )
    add("--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)")
    add("--epochs", type=_count, metavar="N", help=f"passes over the data ({_defaults('epochs')})")
    add(
        "--batch-size",
        type=_count,
        metavar="N",
        help=f"samples a step ({_defaults('batch_size')})",
    )
    add(
        "--learning-rate",
        type=_rate,
        metavar="RATE",
        help=f"of the first step ({_defaults('learning_rate')})",
    )
    add(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of the initial weights and the order of the samples (default: 0)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="write model.safetensors and history.json there after every epoch, and at the end "
        "the picture report.png (needs matplotlib)",
    )
    add(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="keep the run there after every epoch; the same command goes on where it was "
        "interrupted",
    )
    train.set_defaults(command=_train)


def _defaults(option: str) -> str:
    values = (f"{name} {getattr(recipe, option)}" for name, recipe in RECIPES.items())
    return f"default: {', '.join(values)}"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return rate


# --- train ---------------------------------------------------------------------------------------


class _Save(Callback):
    """Keep the files in a folder those of the last finished epoch."""

    def __init__(self, folder: Path):
        self._folder, self._history = folder, History()

    def on_resume(self, history: History, params: dict[str, Array]) -> None:
        self._history.extend(history)
        self._write(params)

    def on_epoch(self, epoch: Epoch, params: dict[str, Array]) -> None:
        self._history.append(epoch)
        self._write(params)

    def _write(self, params: dict[str, Array]) -> None:
        save_params(self._folder / "model.safetensors", params)
        write_atomically(self._folder / "history.json", self._history.to_json().encode())


def _train(options: argparse.Namespace) -> None:
    names = ("data", "epochs", "batch_size", "learning_rate")
    given = {name: vars(options)[name] for name in names if vars(options)[name] is not None}
    recipe, out = replace(RECIPES[options.model], **given), options.out
    if out is not None:
        _check_writable(out)
    xp = _working_backend(options.backend)
    data = _load(options.model, recipe.data)
    steps = recipe.epochs * math.ceil(len(data.train_x) / recipe.batch_size)
    rate = cosine(recipe.learning_rate, steps=steps)

    model = recipe.network(len(data.classes))
    params = to_backend(model.init(options.seed, data.train_x.shape[1:])[0], xp)
    test_x = to_backend(data.test_x, xp)
    params, history = fit(
        model,
        params,
        (to_backend(data.train_x, xp), to_backend(_targets(recipe, data.train_y), xp)),
        loss=recipe.loss,
        optimizer=SGD(rate, momentum=recipe.momentum),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        rng=options.seed,
        validation=(test_x, to_backend(_targets(recipe, data.test_y), xp)),
        callbacks=[Progress()] if out is None else [_Save(out), Progress()],
        checkpoint=options.checkpoint,
    )
    if out is not None:
        title = f"{options.model} on {data.name}, {options.backend}"
        _report(out, history, data, _probabilities(predict(model, params, test_x)), title)
    print(f"test accuracy: {history[-1].validation_accuracy:.4f}")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"argument --out: cannot write to {folder}: {error.strerror}") from error


def _working_backend(name: str) -> ModuleType:
    xp = backend(name)
    try:
        xp.zeros(1)
    except Exception as error:  # each library has its own way to say that there is no device
        raise OSError(f"backend {name!r} has no working device: {error}") from error
    return xp


def _load(model: str, data: str) -> Dataset:
    loaders: dict[tuple[str, str], Callable[[], Dataset]] = {
        ("cnn", "embedded"): load_fashion_mnist,
        ("cnn", "full"): lambda: load_fashion_mnist("full"),
        ("cnn", "digits"): load_digits,
        ("logistic", "spambase"): load_spambase,
    }
    if (model, data) in loaders:
        return loaders[model, data]()
    if model == "cnn" and Path(data).is_dir():
        return load_fashion_mnist("full", folder=data)
    ways = "spambase" if model == "logistic" else "embedded, full, digits or a folder of IDX files"
    raise ValueError(f"argument --data: must be {ways} for {model}, got {data!r}")


def _targets(recipe: Recipe, labels: NDArray[np.int64]) -> NDArray[Any]:
    if recipe.loss is binary_cross_entropy_with_logits:
        return labels[:, None].astype(np.float32)  # (N, 1)
    return labels.astype(np.int32)  # JAX has no int64 unless it is told to


def _probabilities(logits: Array) -> NDArray[np.floating]:
    if logits.shape[1] == 1:
        p = to_numpy(sigmoid(logits))
        return np.concatenate([1 - p, p], axis=1)  # (N, 2)
    return to_numpy(softmax(logits))


def _report(
    folder: Path,
    history: History,
    data: Dataset,
    probabilities: NDArray[np.floating],
    title: str,
) -> None:
    try:
        save_picture(
            folder / "report.png",
            history=history,
            labels=data.test_y,
            probabilities=probabilities,
            images=data.test_x if data.test_x.ndim == 4 else None,
            classes=data.classes,
            title=title,
        )
    except ImportError:
        hint = 'no report.png: pip install "agnostic-xent[plot]" brings the picture'
        print(hint, file=sys.stderr)


# --- info ----------------------------------------------------------------------------------------


def _info(options: argparse.Namespace) -> None:
    sections = info()
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(title)
        for name, value in section.items():
            print(f"  {name:<{width}}  {value}")


# --- warmup --------------------------------------------------------------------------------------


def _warmup(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    ready = importlib.import_module(".kernels.cpu.warmup", __package__).compile_all()
    for name, seconds in ready:
        print(f"{seconds:6.1f} s  {name}", flush=True)
    print(f"all kernels are ready after {time.perf_counter() - start:.0f} s")
