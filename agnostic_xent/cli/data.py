"""What the option ``--data`` names: data sets of the package, or files of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import to_backend
from ..core.arrays import library
from ..core.sparse import CSR, LIBRARIES
from ..datasets import Dataset, load_digits, load_fashion_mnist, load_spambase
from ..datasets.known import holds_fashion_mnist
from ..datasets.scale import Scale
from ..evaluation.folder import Settings
from ..training.batches import is_stored
from . import recordings
from .options import argument
from .own_data import holds_arrays, is_table, read_dataset, read_test

LOADERS: dict[tuple[str, str], Callable[[], Dataset]] = {
    ("cnn", "embedded"): lambda: load_fashion_mnist(),
    ("cnn", "full"): lambda: load_fashion_mnist("full"),
    ("cnn", "digits"): lambda: load_digits(),
    ("signals", "watch"): recordings.watch,
    ("logistic", "spambase"): lambda: load_spambase(),
}
"""Data sets of the package, by model and name."""


def load(
    model: str,
    data: str,
    label: str | None = None,
    text: str | None = None,
    window: int | None = None,
) -> tuple[Dataset, Scale]:
    """Return what an option names to train a model on, and the scale of its numbers."""
    recorded = holds_recordings(model, data)
    if window is not None and not recorded:
        raise ValueError(
            f"argument --window: is for signals in a folder of recordings, got {model} and {data!r}"
        )
    if text is not None and not (model == "logistic" and is_table(Path(data))):
        raise ValueError(
            "argument --text: it names a column of a table, a .csv, .tsv or .parquet file, for "
            f"logistic; got {model} and {data!r}"
        )
    with argument("--data"):
        if (loader := _known(model, data)) is not None:
            found = loader()
            return found, Scale.of(found.train_x)
        path = _own(model, data)
        if recorded:
            return recordings.read_dataset(path, window)
        return read_dataset(path, model, label=label, text=text)


def load_test(settings: Settings, data: str) -> Dataset:
    """Return what an option names to test a trained model on, as that takes it."""
    with argument("--data"):
        if (loader := _known(settings.model, data)) is None:
            path = _own(settings.model, data)
            trained_on = str(path.absolute()) == settings.data
            if holds_recordings(settings.model, data):
                return recordings.read_test(path, settings, trained_on)
            return read_test(path, settings, trained_on)
        found = loader()
        if (found.classes, found.test_x.shape[1:]) != (settings.classes, settings.input_shape):
            raise ValueError(
                f"{data} has samples of shape {found.test_x.shape[1:]} in the classes "
                f"{', '.join(found.classes)}, but the model was trained on others: "
                f"{settings.input_shape}, {', '.join(settings.classes)}"
            )
        x = found.test_x
        x = settings.pictures(x) if x.ndim == 4 else settings.numbers(data, x)
        return replace(found, test_x=x)


def there(x: Any, xp: ModuleType) -> Any:
    """Return samples as arrays of a library; those in files stay as they are.

    Raises
    ------
    ValueError
        If they are rows of texts, and the library has no sparse matrices.
    """
    if not isinstance(x, CSR):
        return x if is_stored(x) else to_backend(x, xp)
    if (name := library(xp.zeros(0))) not in LIBRARIES:
        known = " or ".join(LIBRARIES)
        raise ValueError(f"argument --backend: must be {known} for texts, got {name!r}")
    import_module(LIBRARIES[name])
    data, indices, indptr = (to_backend(part, xp) for part in x.arrays)
    return CSR(data, indices, indptr, x.columns)


def lasting_name(model: str, data: str) -> str:
    """Return what an option names in a way that holds in every folder."""
    return data if (model, data) in LOADERS else str(Path(data).absolute())


def is_own(model: str, data: str) -> bool:
    """Return whether an option names files of the user's own."""
    return _known(model, data) is None


def holds_pictures(model: str, data: str) -> bool:
    """Return whether an option names a folder of pictures of the user's own."""
    return model == "cnn" and _is_folder_of_files(model, data)


def holds_recordings(model: str, data: str) -> bool:
    """Return whether an option names a folder of recordings of the user's own."""
    return model == "signals" and _is_folder_of_files(model, data)


def _is_folder_of_files(model: str, data: str) -> bool:
    return is_own(model, data) and Path(data).is_dir() and not holds_arrays(Path(data))


def decided(data: Dataset, scale: Scale, *, pictures: bool) -> str:
    """Return what was decided about data of the user's own, in a line."""
    names = ", ".join(data.classes[:10]) + (", ..." if len(data.classes) > 10 else "")
    count = f"{len(data.train_x):,} samples to train on and {len(data.test_x):,} to test on"
    count += _held_out(data)
    shape = data.train_x.shape[1:]
    if data.columns is not None:
        how = str(data.columns)
    elif pictures:
        channels, height, width = shape
        colours = "grey" if channels == 1 else "in colour"
        how = f"pictures resized and cropped to {width} x {height}, {colours}, black 0, white 1"
    elif len(shape) == 2:
        channels, length = shape
        how = f"{channels} channels of {length} numbers, from {scale}"
        if channels > length:
            how += "; is time their first axis? Then np.moveaxis(x, -1, 1) makes signals of them"
    else:
        how = f"samples of shape {shape}, numbers from {scale}"
    return f"{data.name}: {count}; {len(data.classes)} classes: {names}; {how}"


def _held_out(data: Dataset) -> str:
    """Return what the samples to test on are, where they belong together."""
    found = []
    if data.test_recording is not None:
        found.append(f"windows of {len(np.unique(data.test_recording))} recordings")
    if data.test_person is not None:
        found.append(f"all of the groups {', '.join(map(str, np.unique(data.test_person)))}")
    return f" ({', '.join(found)})" if found else ""


def _known(model: str, data: str) -> Callable[[], Dataset] | None:
    """Return what loads a data set of the package, also one whose files are in a folder."""
    if model == "cnn" and (model, data) not in LOADERS and holds_fashion_mnist(Path(data)):
        return lambda: load_fashion_mnist("full", folder=data)
    return LOADERS.get((model, data))


def _own(model: str, data: str) -> Path:
    """Return the path of a user's own file or folder."""
    path = Path(data)
    if holds_arrays(path) or is_table(path) or path.is_dir():
        return path
    raise ValueError(f"must be {WAYS[model]} for {model}, got {data!r}")


WAYS = {
    "cnn": "embedded, full, digits, a folder of pictures, of .npy or of IDX files or an .npz file",
    "signals": "watch, a folder of recordings or of .npy files or an .npz file",
    "logistic": "spambase, a .csv, .tsv, .parquet or .npz file, or a folder of .npy files or of "
    "texts",
}
"""What data can be, by model."""
