"""Data of a user's own: the arrays of an .npz file, to train a model on or to test it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..datasets import Dataset
from .labels import as_labels, class_indices, class_names
from .output import printable
from .pictures import as_images
from .reading import arrays_of, naming, reading
from .saved import Settings
from .scale import Scale, as_floats

LEAST_SIDE = 4
"""Of images: the two pools of the CNN leave a quarter."""
Part = tuple[NDArray[Any], NDArray[Any]]
"""Samples and their labels."""


def read_dataset(path: Path, *, images: bool) -> tuple[Dataset, Scale]:
    """Return what to train and test on, as the model takes it, and the scale of its numbers.

    Raises
    ------
    ValueError
        If an array is missing, or they do not fit each other or a model.
    """
    (train_x, train_y), (test_x, test_y) = _parts(path, ("train", "test"), images=images)
    with naming("--data", path):
        as_floats("train_x", train_x)
        scale, classes = Scale.of(train_x), class_names("train_y", train_y)
        if len(classes) > 2 and not images:
            raise ValueError(f"train_y must hold 2 classes for logistic, got {len(classes)}")
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
        )
    return data, scale


def read_test(path: Path, settings: Settings) -> Dataset:
    """Return what to test a model on, as it takes it: a data set without a training part.

    Raises
    ------
    ValueError
        If an array is missing, or does not fit the model.
    """
    [(x, y)] = _parts(path, ("test",), images=len(settings.input_shape) == 3)
    with naming("--data", path):
        if x.shape[1:] != settings.input_shape:
            raise ValueError(
                f"test_x must hold samples of shape {settings.input_shape}, on which the model was "
                f"trained, got {x.shape[1:]}"
            )
        x, y = settings.numbers("test_x", x), class_indices("test_y", y, settings.classes)
    return Dataset(x[:0], y[:0], x, y, classes=settings.classes, name=printable(path.stem))


def _parts(path: Path, parts: tuple[str, ...], *, images: bool) -> list[Part]:
    """Return the samples and the labels of parts, such as "train", and check their shapes."""
    names = [f"{part}_{array}" for part in parts for array in "xy"]
    with reading("--data", path):
        arrays = dict(zip(names, arrays_of(path, lambda there: _find(names, there)), strict=True))
    with naming("--data", path):
        return [_part(part, arrays, images=images) for part in parts]


def _find(names: list[str], there: list[str]) -> list[str]:
    """Return what arrays are called in a file, such as train_x, or x_train as Keras has it."""
    known = {name.lower(): name for name in reversed(there)}
    keras = {name: "_".join(reversed(name.split("_"))) for name in names}
    found = {name: known.get(name, known.get(keras[name], "")) for name in names}
    if missing := [f"{name} (or {keras[name]})" for name in names if not found[name]]:
        raise ValueError(f"it has no {', '.join(missing)}")
    return [*found.values()]


def _part(part: str, arrays: dict[str, NDArray[Any]], *, images: bool) -> Part:
    x_name, y_name = f"{part}_x", f"{part}_y"
    x, y = arrays[x_name], arrays[y_name]
    if images:
        x = as_images(x_name, x)
    if x.ndim != (4 if images else 2):
        wanted = "(N, C, H, W) or (N, H, W)" if images else "(N, features)"
        raise ValueError(f"{x_name} must have shape {wanted}, got {x.shape}")
    if images and 0 < min(x.shape[2:]) < LEAST_SIDE:
        raise ValueError(
            f"{x_name} must hold images of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, "
            f"got shape {x.shape}"
        )
    if not x.size:
        raise ValueError(f"{x_name} must hold a sample, got shape {x.shape}")
    return x, as_labels(y_name, y, len(x))
