"""What a user hands to a model in files: samples as arrays, tables and images; data to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..datasets import Dataset

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def read_samples(path: Path, shape: tuple[int, ...]) -> tuple[list[str], NDArray[np.float32]]:
    """Return names and values (N, *shape) of the samples in a file or a folder.

    Raises
    ------
    ValueError
        If they are of another shape, or there is none.
    """
    try:
        names, x = _images(path, shape) if path.is_dir() else _numbers(path)
    except (BadZipFile, EOFError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"argument SAMPLES: cannot read {path}: {reason}") from error
    if x.ndim == len(shape) and shape[0] == 1 and len(shape) == 3:
        x = x[:, None]  # (N, H, W) -> (N, 1, H, W)
    if x.shape[1:] != shape or not len(x):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"argument SAMPLES: must have shape (N, {wanted}), got {x.shape}")
    return names or [str(i) for i in range(len(x))], _as_floats("SAMPLES", x)


def read_dataset(path: Path, *, images: bool) -> Dataset:
    """Return the arrays train_x, train_y, test_x and test_y in an .npz file.

    Raises
    ------
    ValueError
        If one is missing, or they do not fit each other.
    """
    names = ("train_x", "train_y", "test_x", "test_y")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            if missing := [name for name in names if name not in found.files]:
                raise ValueError(f"it has no {', '.join(missing)}")
            train_x, train_y, test_x, test_y = (found[name] for name in names)
    except (BadZipFile, EOFError, OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"argument --data: cannot read {path}: {reason}") from error
    if images and train_x.ndim == test_x.ndim == 3:
        train_x, test_x = train_x[:, None], test_x[:, None]  # (N, H, W) -> (N, 1, H, W)
    classes = np.unique(train_y)
    shape = "(N, C, H, W) or (N, H, W)" if images else "(N, features)"
    for problem, there in (
        (f"train_x must have shape {shape}", train_x.ndim != (4 if images else 2)),
        (
            "train_x and test_x must hold samples of one shape",
            train_x.shape[1:] != test_x.shape[1:],
        ),
        ("train_y must hold a label for each of train_x", train_y.shape != train_x.shape[:1]),
        ("test_y must hold a label for each of test_x", test_y.shape != test_x.shape[:1]),
        ("test_x must hold a sample", not len(test_x)),
        ("train_y must hold at least 2 classes", len(classes) < 2),
        ("train_y must hold 2 classes for logistic", len(classes) > 2 and not images),
        ("test_y must hold labels of train_y", not np.isin(test_y, classes).all()),
    ):
        if there:
            raise ValueError(f"argument --data: in {path} {problem}")
    return Dataset(
        train_x=_as_floats("--data", train_x),
        train_y=np.searchsorted(classes, train_y),
        test_x=_as_floats("--data", test_x),
        test_y=np.searchsorted(classes, test_y),
        classes=tuple(map(str, classes)),
        name=path.stem,
    )


def _as_floats(argument: str, x: NDArray[Any]) -> NDArray[np.float32]:
    """Return numbers as float32; those of images, 0 to 255, between 0 and 1."""
    if x.dtype == np.uint8:
        x = x / np.float32(255)
    if x.dtype.kind not in "fiu":
        raise ValueError(f"argument {argument}: must be of numbers, got dtype {x.dtype}")
    return x.astype(np.float32)


def _numbers(path: Path) -> tuple[list[str], NDArray[Any]]:
    if path.suffix == ".csv":
        return [], np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError("it must be a .npy, .npz or .csv file or a folder of images")
    if path.suffix == ".npy":
        return [], np.lib.format.open_memmap(path, mode="r")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
        if len(found.files) != 1 and "x" not in found.files:
            raise ValueError(f"it must hold an array called x, but has {', '.join(found.files)}")
        return [], found["x" if "x" in found.files else found.files[0]]


def _images(folder: Path, shape: tuple[int, ...]) -> tuple[list[str], NDArray[Any]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("a folder of images needs Pillow: pip install pillow") from error
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError("it is a folder, but the model takes no images")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)
    if not files:
        raise ValueError(f"it has no {', '.join(IMAGES)} files")
    arrays = []
    for file in files:
        with Image.open(file) as image:
            array = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"))
        array = array.reshape(*array.shape[:2], shape[0]).transpose(2, 0, 1)  # (C, H, W)
        if array.shape != shape:
            raise ValueError(
                f"{file.name} has {array.shape[2]} x {array.shape[1]} pixels, but the model takes "
                f"{shape[2]} x {shape[1]}"
            )
        arrays.append(array)
    return [file.name for file in files], np.stack(arrays)
