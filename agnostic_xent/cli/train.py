"""``agnostic-xent train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import (
    Callback,
    Progress,
    fit,
    standardized,
    synchronize_batch_norm,
    to_backend,
)
from ..core.arrays import Array
from ..core.communication import Communicator, world
from ..core.sparse import CSR
from ..core.texts import printable
from ..evaluation.folder import CHANGED, Save, Settings, now
from ..network.layers import Layer
from ..training.recipe import (
    CHANGES,
    AtChance,
    augmented,
    some_of,
    standardizes,
)
from . import losses, tuning
from .data import decided, holds_pictures, is_own, lasting_name, load, there
from .options import BACKENDS, argument, check_writable, count, rate, seed, working_backend
from .output import add_json
from .recipes import RECIPES, TEXTS, targets
from .recordings import LENGTH
from .result import of_recordings, print_scores, write_report

DATA = (
    "for cnn: embedded (12,000 images of Fashion-MNIST), full (all 70,000), digits "
    "(scikit-learn's), or a folder that holds the four IDX files of Fashion-MNIST; for signals: "
    "watch (exercises of ten people, two of them held out); for logistic: spambase (e-mails). Or "
    "your own: a folder that has a folder of pictures for each class (needs Pillow) or, for "
    "signals, of recordings, .npy files (C, L) or .csv files with a row for each time, or, for "
    "logistic, of texts; for logistic a .csv, .tsv or .parquet table (needs "
    "pandas); or an .npz file, or a "
    "folder of .npy files, of the arrays train_x, train_y, test_x and test_y, x_train and so on, "
    "or x and y alone, of which a fifth is then held out, of whole groups if there are groups: "
    "labels of any type or one-hot, images (N, C, H, W) or (N, H, W), volumes (N, C, D, H, W), for "
    "signals windows (N, C, L) or (N, L), for logistic rows. Images of levels up to 255, 1023, "
    "4095, 16383 or 65535, and rows of uint8, are divided by that; a line tells what was decided, "
    "and the model remembers it"
)


CHOSEN = "data", "batch_size", "learning_rate"
"""What a recipe has unless an option says otherwise."""


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    train = commands.add_parser(
        "train",
        help="train a model and print its test accuracy",
        description="Train a model: cnn and signals by AdamW, with a learning rate that rises for "
        "a twentieth of the steps, or a quarter, logistic by SGD; the rate falls to 0 along a half "
        "cosine. Progress goes to standard error; the last line on standard output is the test "
        "accuracy.",
    )
    add = train.add_argument
    add(
        "model",
        nargs="?",
        choices=tuple(RECIPES),
        default="cnn",
        help="cnn (default): convolutions with batch normalization, on images or volumes; signals: "
        "the same on windows of signals; logistic: logistic regression, on rows",
    )
    _add_data(add)
    add("--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)")
    _add_steps(add)
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="write model.safetensors, history.json and run.json there after every epoch, and at "
        "the end report.html, and report.png with its main pictures (both need "
        "matplotlib and jinja2)",
    )
    add(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="keep the run there after every epoch; the same command goes on where it was "
        "interrupted, also with more epochs",
    )
    add_json(train)
    train.set_defaults(command=run)


def _add_data(add: Callable[..., Any]) -> None:
    """Add the options of what is trained on."""
    add("--data", help=f"{DATA} ({_defaults('data')})")
    add(
        "--label",
        metavar="COLUMN",
        help="of a table: the column of the labels (default: label, target, class or y)",
    )
    add(
        "--text",
        metavar="COLUMN",
        help="of a table, for logistic: the column of texts, whose words are what counts, and "
        "nothing else (needs scikit-learn)",
    )
    add(
        "--window",
        type=count,
        metavar="N",
        help="of recordings: numbers in a window; the next one begins in its middle (default: "
        f"{LENGTH}, or all of the shortest recording)",
    )
    add(
        "--augment",
        action="store_true",
        help="for cnn: mirror half of the images and shift all by up to a twelfth of each side, "
        "anew in each epoch; for pictures whose mirror image is of the same class, not for digits; "
        "for signals: turn three-axis sensors by up to 25 degrees",
    )


def _add_steps(add: Callable[..., Any]) -> None:
    """Add the options of how many steps are taken, and which."""
    most, fewest = RECIPES["cnn"].epochs
    add(
        "--epochs",
        type=count,
        metavar="N",
        help=f"passes over the data (default: cnn and signals {fewest} to {most}, fewer for more "
        f"samples, logistic {RECIPES['logistic'].epochs[0]})",
    )
    add(
        "--batch-size",
        type=count,
        metavar="N",
        help=f"samples a step ({_defaults('batch_size')})",
    )
    add(
        "--learning-rate",
        type=rate,
        metavar="RATE",
        help=f"the greatest ({_defaults('learning_rate')})",
    )
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of the initial weights and the order of the samples (default: 0)",
    )
    losses.add_to(add)
    tuning.add_to(add)


def _defaults(option: str) -> str:
    values = (f"{name} {getattr(recipe, option)}" for name, recipe in RECIPES.items())
    return f"default: {', '.join(values)}"


def run(options: argparse.Namespace) -> None:
    """Train, keep what ``--out`` asks for, and print the test accuracy."""
    given = {name: x for name, x in vars(options).items() if name in CHOSEN and x is not None}
    ranks = world(options.backend)
    out, named = options.out, options.data or RECIPES[options.model].data
    _check(options)
    xp = working_backend(options.backend)
    data, scale = load(options.model, named, options.label, options.text, options.window)
    recipe = replace(TEXTS if isinstance(data.train_x, CSR) else RECIPES[options.model], **given)
    pictures = holds_pictures(options.model, named)
    if is_own(options.model, named) and ranks.rank == 0:
        print(printable(decided(data, scale, pictures=pictures)), file=sys.stderr)
    samples = len(data.train_x)
    epochs = options.epochs or recipe.epochs_of(samples)
    steps = epochs * tuning.steps_of(options, samples, recipe.batch_size)
    loss = losses.chosen_loss(options, data.train_y, len(data.classes), xp)

    def part(x: NDArray[Any], y: NDArray[np.int64]) -> tuple[Array, Array]:
        return there(x, xp), to_backend(targets(loss, y), xp)

    settings = Settings(
        model=options.model,
        data=lasting_name(options.model, named),
        backend=options.backend,
        epochs=epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=options.seed,
        classes=data.classes,
        input_shape=data.train_x.shape[1:],
        scale=scale,
        resized=pictures,
        columns=data.columns,
        augment=options.augment,
        **{name: vars(options)[name] for name in losses.OPTIONS},
        command=options.line,
        date=now(),
    )
    model = settings.network()
    first = tuning.started(options, settings, _start(model, options.seed, data.train_x))
    params, history = fit(
        _in_training(model, settings, ranks),
        to_backend(first, xp),
        part(data.train_x, data.train_y),
        loss=loss,
        optimizer=tuning.optimizer_of(options, recipe.optimizer(recipe.learning_rate, steps)),
        epochs=epochs,
        batch_size=recipe.batch_size,
        rng=options.seed,
        validation=part(data.test_x, data.test_y),
        callbacks=_callbacks(settings, out, data.train_y),
        checkpoint=options.checkpoint,
        communicator=ranks,
        **tuning.of_steps(options, first),
    )
    if ranks.rank == 0:
        if out is not None:
            write_report(out, settings, params, history, data, history[-1].validation_loss)
        recordings, last = of_recordings(settings, params, data), history[-1]
        print_scores(options, recordings, last.validation_loss, last.validation_accuracy)


def _check(options: argparse.Namespace) -> None:
    """Raise an error if options do not fit, or a folder cannot be written to."""
    if options.augment and options.model not in CHANGED:
        raise ValueError(
            f"argument --augment: is for {' and '.join(CHANGED)}, not for {options.model}"
        )
    losses.check(options)
    for name, folder in (("--out", options.out), ("--checkpoint", options.checkpoint)):
        if folder is not None:
            check_writable(name, folder)


def _in_training(model: Layer, settings: Settings, ranks: Communicator) -> Layer:
    """Return a model as it is trained: on several ranks, and of images that change."""
    together = synchronize_batch_norm(model, ranks) if ranks.size > 1 else model
    if not settings.augment:
        return together
    with argument("--augment"):
        return augmented(together, CHANGES[CHANGED[settings.model]](settings.input_shape))


def _start(model: Layer, seed: int, x: NDArray[Any]) -> dict[str, Array]:
    """Return the first parameters, with the statistics of samples where they are standardised."""
    params = model.init(seed, x.shape[1:])[0]
    if isinstance(x, CSR):  # the loss is convex; words of few texts keep what they begin with
        return {name: 0 * w for name, w in params.items()}
    return standardized(model, params, x[some_of(len(x))]) if standardizes(model) else params


def _callbacks(settings: Settings, out: Path | None, labels: NDArray[np.int64]) -> list[Callback]:
    counts = np.bincount(labels)
    at_chance = AtChance(counts, settings.batch_size, lambda text: print(text, file=sys.stderr))
    return [*([] if out is None else [Save(out, settings)]), Progress(), at_chance]
