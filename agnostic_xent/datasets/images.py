"""Pictures of one's own, in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.checks import integer
from ..core.texts import printable
from .dataset import Dataset, split_by_class, split_by_group
from .labels import class_indices, class_names
from .pictures import common_shape, pictures_in, read_pictures
from .reading import naming

__all__ = ["load_images"]

LARGEST = 64
"""The side that larger pictures are brought to, unless another is asked for."""
TRAINING = ("train", "training")
TESTING = ("test", "testing", "val", "valid", "validation")


class Kind(NamedTuple):
    """What is in the folders of the classes."""

    name: str
    example: str
    files_in: Callable[[Path], list[Path]]
    of_people: bool = False
    """Whether the folders in those of the classes are people, who are held out as a whole."""


PICTURES = Kind("pictures", "cat/1.jpg and dog/2.jpg", pictures_in)


class Files(NamedTuple):
    """Files, the names of the folders that they are in, their classes, and of those in these."""

    files: list[Path]
    labels: list[str]
    people: list[str]
    """Empty where a file lies in the folder of its class."""


def load_images(
    folder: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    test_fraction: float = 0.2,
    rng: int | np.random.Generator | None = 0,
) -> Dataset:
    """Load pictures of your own: a folder that has a folder of them for each class.

    They are turned as their camera says, brought to one size by resizing and cropping the middle,
    and read by several threads. If all are grey they have one channel, else three. Needs Pillow.

    Parameters
    ----------
    folder : path
        Such as "photos" with "photos/cat/1.jpg", "photos/dog/a/2.png". Of folders "train" and
        "test" (or "val") that hold those of the classes, the second one is the held-out part.
    size : int or (int, int), optional
        Side of a square, or (H, W). By default that of the pictures if they have one size of at
        most 64 x 64, else a square: the median of their shorter sides, at most 64.
    test_fraction : float
        Part of each class to hold out, between 0 and 1, where no folder is for that.
    rng : int, numpy.random.Generator or None
        Seed or generator that chooses these, and shuffles; None takes fresh entropy.

    Returns
    -------
    Dataset
        Images float32 ``(N, C, H, W)``, black 0 and white 1, labels int64 ``(N,)``, classes named
        as their folders. More than a gigabyte of them lies in a temporary file, memory-mapped.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    ValueError
        If there are fewer than two classes, or a picture cannot be read or is transparent.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("red", "green"):
    ...     (folder / name).mkdir()
    ...     for i in range(5):
    ...         Image.new("RGB", (40 + i, 30), name).save(folder / name / f"{i}.png")
    >>> data = load_images(folder)
    >>> data.classes, data.train_x.shape, data.test_x.shape
    (('green', 'red'), (8, 3, 30, 30), (2, 3, 30, 30))
    """
    folder = Path(folder)
    with naming(folder):
        train, test = held_out(folder, test_fraction, rng)
        classes = class_names("it", np.asarray(train.labels))
    if size is None:
        shape = common_shape(train.files, LARGEST)
    else:
        sides = (size, size) if isinstance(size, int) else size
        height, width = (integer("size", side) for side in sides)
        shape = common_shape(train.files, LARGEST)[0], height, width
    return Dataset(
        train_x=read_pictures(train.files, shape, resized=True),
        train_y=class_indices(str(folder), np.asarray(train.labels), classes),
        test_x=read_pictures(test.files, shape, resized=True),
        test_y=class_indices(str(folder), np.asarray(test.labels), classes),
        classes=classes,
        name=printable(folder.absolute().name),
    )


def held_out(
    folder: Path,
    test_fraction: float = 0.2,
    rng: int | np.random.Generator | None = 0,
    kind: Kind = PICTURES,
) -> tuple[Files, Files]:
    """Return the files to train on, and those that are held out."""
    parts = {path.name.lower(): path for path in _folders(folder)}
    names = [next((n for n in some if n in parts), None) for some in (TRAINING, TESTING)]
    if all(names):
        train, test = (labelled(parts[name], kind) for name in names if name)
        return train, test
    found = labelled(folder, kind)
    labels = np.asarray(found.labels)
    if kind.of_people and all(found.people):
        rows = split_by_group(np.asarray(found.people), labels, test_fraction, rng)
    else:
        rows = split_by_class(labels, test_fraction, rng)
    train, test = (Files(*([column[i] for i in part] for column in found)) for part in rows)
    return train, test


def labelled(folder: Path, kind: Kind = PICTURES) -> Files:
    """Return the files in the folders of a folder.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [
        (file, path.name, file.parent.relative_to(path).as_posix().removeprefix("."))
        for path in _folders(folder)
        for file in kind.files_in(path)
    ]
    if not found:
        raise ValueError(
            f"it must hold a folder of {kind.name} for each class, such as {kind.example}, "
            "but has none"
        )
    return Files(*map(list, zip(*found, strict=True)))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
