"""What the option ``--data`` names: data sets of the package, or a file of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..datasets import Dataset, load_digits, load_fashion_mnist, load_spambase
from .own_data import read_dataset, read_test
from .saved import Settings
from .scale import Scale

LOADERS: dict[tuple[str, str], Callable[[], Dataset]] = {
    ("cnn", "embedded"): lambda: load_fashion_mnist(),
    ("cnn", "full"): lambda: load_fashion_mnist("full"),
    ("cnn", "digits"): lambda: load_digits(),
    ("logistic", "spambase"): lambda: load_spambase(),
}
"""Data sets of the package, by model and name."""


def load(model: str, data: str) -> tuple[Dataset, Scale]:
    """Return what an option names to train a model on, and the scale of its numbers."""
    if (loader := _known(model, data)) is not None:
        found = loader()
        return found, Scale.of(found.train_x)
    return read_dataset(_own(model, data), images=model == "cnn")


def load_test(settings: Settings, data: str) -> Dataset:
    """Return what an option names to test a trained model on, as that takes it."""
    if (loader := _known(settings.model, data)) is None:
        return read_test(_own(settings.model, data), settings)
    found = loader()
    if (found.classes, found.test_x.shape[1:]) != (settings.classes, settings.input_shape):
        raise ValueError(
            f"argument --data: {data} has samples of shape {found.test_x.shape[1:]} in the classes "
            f"{', '.join(found.classes)}, but the model was trained on others: "
            f"{settings.input_shape}, {', '.join(settings.classes)}"
        )
    x = found.test_x
    x = settings.pictures(x) if x.ndim == 4 else settings.numbers(data, x)
    return replace(found, test_x=x)


def lasting_name(model: str, data: str) -> str:
    """Return what an option names in a way that holds in every folder."""
    return data if (model, data) in LOADERS else str(Path(data).absolute())


def _known(model: str, data: str) -> Callable[[], Dataset] | None:
    """Return what loads a data set of the package, also one whose files are in a folder."""
    if model == "cnn" and (model, data) not in LOADERS and Path(data).is_dir():
        return lambda: _fashion_mnist_in(data)
    return LOADERS.get((model, data))


def _fashion_mnist_in(folder: str) -> Dataset:
    try:
        return load_fashion_mnist("full", folder=folder)
    except FileNotFoundError as error:
        raise ValueError(
            f"argument --data: {folder} must hold the four IDX files of Fashion-MNIST; to train on "
            "pictures of your own, write them as arrays of one size into an .npz file"
        ) from error


def _own(model: str, data: str) -> Path:
    """Return the path of a user's own file."""
    if Path(data).suffix.lower() == ".npz":
        return Path(data)
    ways = "spambase" if model == "logistic" else "embedded, full, digits, a folder of IDX files"
    raise ValueError(f"argument --data: must be {ways} or an .npz file for {model}, got {data!r}")
