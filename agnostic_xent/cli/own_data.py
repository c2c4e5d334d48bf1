"""Data of a user's own, to train or to test a model on: arrays, pictures, tables, texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.checks import check_channels_first
from ..core.texts import printable
from ..datasets import Dataset, load_images
from ..datasets.dataset import split_by_class, split_by_group
from ..datasets.images import held_out, labelled
from ..datasets.labels import as_labels, class_indices, class_names
from ..datasets.pictures import read_pictures
from ..datasets.reading import arrays_of, naming, reading
from ..datasets.scale import Scale, as_floats
from ..datasets.tables import SUFFIXES, labels_of, read_frame, table_dataset
from ..datasets.texts import TEXTS, read_texts, texts_in_folders, texts_in_table
from ..datasets.words import Words
from ..evaluation.folder import RANKS, Settings

LABELS = ("label", "target", "class", "y")
"""Columns that are the labels of a table unless another one is named."""
SHAPES = {
    "cnn": "(N, C, H, W), (N, H, W) or (N, C, D, H, W)",
    "signals": "(N, C, L) or (N, L)",
    "logistic": "(N, features)",
}
"""Of samples, by model."""


class Part(NamedTuple):
    """Samples to train on, or to test on."""

    x: Any
    """An array, or the rows of texts."""
    y: NDArray[Any]
    """Their labels."""
    person: NDArray[Any] | None = None
    """Who each is of, or another group that is held out as a whole."""


def is_table(path: Path) -> bool:
    """Return whether a file has the name of a table with a header."""
    return path.suffix.lower() in SUFFIXES


def holds_arrays(path: Path) -> bool:
    """Return whether a path is an .npz file or a folder of .npy files."""
    return path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*.npy")))


OF_SHARES = Scale(1, 0.0, 1.0, whole=False)
"""Of pictures and of texts."""


def read_dataset(
    path: Path, model: str, *, label: str | None, text: str | None = None
) -> tuple[Dataset, Scale]:
    """Return what to train and test on, as the model takes it, and the scale of its numbers.

    Of a table, ``text`` is the column of texts.

    Raises
    ------
    ValueError
        If something is missing, or does not fit something else or a model.
    """
    if holds_arrays(path):
        return _read_arrays(path, model)
    if is_table(path):
        if model != "logistic":
            raise ValueError(f"{path} is a table: `train logistic` takes tables")
        frame = read_frame(path)
        with naming(path):
            label = _label(label, [*frame.columns])
        if text is not None:
            return texts_in_table(path, frame, text, label), OF_SHARES
        data = table_dataset(path, frame, label)
        return data, Scale.of(data.train_x)
    return load_images(path) if model == "cnn" else texts_in_folders(path), OF_SHARES


def _label(label: str | None, columns: list[str]) -> str:
    """Return the name of the column of labels."""
    names = [name for name in columns if name.lower() in LABELS]
    if label is None and len(names) != 1:
        known = ", ".join(map(repr, columns))
        raise ValueError(f"name the column of its labels by --label: one of {known}")
    return names[0] if label is None else label


def read_test(path: Path, settings: Settings, trained_on: bool) -> Dataset:
    """Return what to test a model on, as it takes it: a data set without a training part.

    Of what it was trained on that is the part that was held out.

    Raises
    ------
    ValueError
        If something is missing, or does not fit the model.
    """
    if holds_arrays(path):
        x, y, person = _test_arrays(path, settings, trained_on)
    elif is_table(path):
        x, y, person = _test_rows(path, settings, trained_on)
    elif isinstance(settings.columns, Words):
        x, y, person = _test_texts(path, settings.columns, trained_on)
    else:
        x, y, person = _test_pictures(path, settings, trained_on)
    with naming(path):
        y = class_indices("test_y", y, settings.classes)
    name = printable(path.stem)
    return Dataset(x[:0], y[:0], x, y, classes=settings.classes, name=name, test_person=person)


# --- pictures and tables -------------------------------------------------------------------------


def _test_pictures(path: Path, settings: Settings, trained_on: bool) -> Part:
    with naming(path):
        pictures = held_out(path)[1] if trained_on else labelled(path)
    x = read_pictures(
        pictures.files,
        settings.input_shape,
        resized=settings.resized,
        white_of_16_bits=settings.white_of_16_bits,
    )
    with naming(path):
        return Part(settings.pictures(x), np.asarray(pictures.labels))


def _test_texts(path: Path, words: Words, trained_on: bool) -> Part:
    with naming(path):
        files = held_out(path, kind=TEXTS)[1] if trained_on else labelled(path, TEXTS)
    return Part(words.rows_of(read_texts(files.files)), np.asarray(files.labels))


def _test_rows(path: Path, settings: Settings, trained_on: bool) -> Part:
    frame = read_frame(path)
    with naming(path):
        if settings.columns is None or settings.columns.label is None:
            raise ValueError("it is a table, but the model was trained on arrays or files")
        y = labels_of(frame, settings.columns.label)
        rows = split_by_class(y, 0.2, 0)[1] if trained_on else slice(None)
        return Part(settings.columns.rows(frame)[rows], y[rows])


# --- arrays --------------------------------------------------------------------------------------

PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
ARRAYS = {
    "x": ("x", "images", "data", "samples", "features"),
    "y": ("y", "labels", "label", "targets", "target"),
    "g": ("groups", "group", "people", "person", "subjects", "subject"),
}
"""What others call the arrays, such as x_train and train_labels, in any case; there may be no g."""


def as_samples(name: str, x: NDArray[Any], model: str) -> NDArray[Any]:
    """Return samples with an axis of channels, also images or signals without one.

    Raises
    ------
    ValueError
        If the channels of images are the last axis.
    """
    if model != "logistic" and x.ndim == min(RANKS[model]):
        x = x[:, None]  # (N, H, W) -> (N, 1, H, W), (N, L) -> (N, 1, L)
    check_channels_first(name, x.shape)
    return x


def _read_arrays(path: Path, model: str) -> tuple[Dataset, Scale]:
    parts = _parts(path, ("train", "test"), model)
    with naming(path):
        (train_x, train_y, _), (test_x, test_y, person) = _both(parts)
        as_floats("train_x", train_x)
        scale, classes = Scale.of(train_x), class_names("train_y", train_y)
        if train_x.shape[1:] != test_x.shape[1:]:
            raise ValueError(
                f"train_x and test_x must hold samples of one shape, "
                f"got {train_x.shape[1:]} and {test_x.shape[1:]}"
            )
        data = Dataset(
            train_x=scale.numbers("train_x", train_x),
            train_y=class_indices("train_y", train_y, classes),
            test_x=scale.numbers("test_x", test_x),
            test_y=class_indices("test_y", test_y, classes),
            classes=classes,
            name=printable(path.stem),
            test_person=person,
        )
    return data, scale


def _test_arrays(path: Path, settings: Settings, trained_on: bool) -> Part:
    parts = _parts(path, ("train", "test") if trained_on else ("test",), settings.model)
    with naming(path):
        part = _both(parts)[1] if trained_on else next(iter(parts.values()))
        if part.x.shape[1:] != settings.input_shape:
            raise ValueError(
                f"test_x must hold samples of shape {settings.input_shape}, on which the model was "
                f"trained, got {part.x.shape[1:]}"
            )
        return part._replace(x=settings.numbers("test_x", part.x))


def _both(parts: dict[str, Part]) -> tuple[Part, Part]:
    """Return what to train on and what to test on, held out where there is but one part."""
    if len(parts) > 1:
        return parts["train"], parts["test"]
    ((name, (x, y, person)),) = parts.items()
    as_floats(f"{name}_x".lstrip("_"), x)  # while the samples have their numbers in the file
    if person is None:
        train, test = split_by_class(y, 0.2, 0)
        return Part(x[train], y[train]), Part(x[test], y[test])
    train, test = split_by_group(person, y, 0.2, 0)
    return Part(x[train], y[train], person[train]), Part(x[test], y[test], person[test])


def _parts(path: Path, wanted: tuple[str, ...], model: str) -> dict[str, Part]:
    """Return the samples and the labels of parts, such as "train", or the only part, named ""."""
    names: dict[str, str] = {}

    def choose(there: list[str]) -> list[str]:
        names.update(_find(wanted, there))
        return [*names.values()]

    with naming(path) if path.is_dir() else reading(path):
        arrays = dict(zip(names, arrays_of(path, choose), strict=True))
    with naming(path):
        return {name[:-2]: _part(name[:-1], arrays, model) for name in names if name.endswith("x")}


def _find(wanted: tuple[str, ...], there: list[str]) -> dict[str, str]:
    """Return what arrays such as train_x are called in a file.

    Where none has the name of a part they may be x and y alone, and where none is of a test part,
    that is left out.
    """
    known = {name.lower(): name for name in reversed(there)}
    found = {
        f"{part}_{array}": next((known[n] for n in _called(part, array) if n in known), "")
        for part in ("", *wanted)
        for array in "xy"
    }
    own = {name: found.pop(name) for name in ("_x", "_y")}
    if not any(found.values()) and any(own.values()):
        found = own
    elif "train" in wanted and not (found["test_x"] or found["test_y"]) and found["train_x"]:
        found = {name: found[name] for name in ("train_x", "train_y")}
    if missing := [_shown(name) for name, own_name in found.items() if not own_name]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for part in [name[:-2] for name in found if name.endswith("x")]:
        if own_name := next((known[n] for n in _called(part, "g") if n in known), ""):
            found[f"{part}_g"] = own_name
    return found


def _called(part: str, array: str) -> Iterator[str]:
    """Yield what an array may be called, the usual names first."""
    if not part:
        yield from ARRAYS[array]
    else:
        for name in ARRAYS[array]:
            for own in PARTS[part]:
                yield from (f"{own}_{name}", f"{name}_{own}")


def _shown(name: str) -> str:
    part, array = name.split("_")
    return f"{name} (or {array}_{part})" if part else array


def _part(prefix: str, arrays: dict[str, NDArray[Any]], model: str) -> Part:
    """Return the part of the arrays whose names begin so, such as "train_", after a check."""
    name = prefix.removeprefix("_")
    x_name, person = f"{name}x", arrays.get(f"{prefix}g")
    x = as_samples(x_name, arrays[f"{prefix}x"], model)
    if x.ndim - 1 not in RANKS[model]:
        raise ValueError(f"{x_name} must have shape {SHAPES[model]}, got {x.shape}")
    if not x.size:
        raise ValueError(f"{x_name} must hold a sample, got shape {x.shape}")
    if person is not None:
        person = as_labels(f"{name}groups", person, len(x))
    return Part(x, as_labels(f"{name}y", arrays[f"{prefix}y"], len(x)), person)
