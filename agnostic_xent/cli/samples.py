"""What a trained model is to predict: the samples in a file or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.sparse import CSR
from ..core.texts import printable
from ..datasets.pictures import SUFFIXES, is_picture, pictures_in, read_pictures
from ..datasets.reading import arrays_of, naming, reading, rows_of
from ..datasets.tables import read_frame
from ..datasets.texts import files_in, read_texts
from ..datasets.words import Words
from ..evaluation.folder import Settings
from . import recordings
from .own_data import as_samples, is_table


class Samples(NamedTuple):
    """What is to be predicted."""

    names: list[str]
    x: Any
    """Shape (N, ...), as the model takes them."""
    recording: NDArray[np.int64] | None = None
    """Of windows of recordings: whose name each has."""


def read_samples(path: Path, settings: Settings) -> Samples:
    """Return samples in a file or a folder.

    Raises
    ------
    ValueError
        If they are of another shape or on another scale, or there is none.
    """
    if isinstance(settings.columns, Words) and not is_table(path):
        return Samples(*_texts(path, settings.columns))
    if settings.model == "signals" and path.is_dir():
        return Samples(*recordings.read_samples(path, settings))
    if path.is_dir() or is_picture(path):
        return Samples(*_pictures(path, settings))
    if settings.columns is not None and is_table(path):
        frame = read_frame(path)
        with naming(path):
            return Samples([str(i) for i in range(len(frame))], settings.columns.rows(frame))
    shape = settings.input_shape
    with reading(path):
        x = _array(path)
    given = x.shape
    if _is_recording(path, given, settings):
        return Samples(*recordings.read_samples(path, settings))
    with naming(path):
        x = as_samples("it", x, settings.model)
        if x.shape[1:] != shape or not len(x):
            wanted = ", ".join(map(str, shape))
            one = ": of one sample, save x[None]" if given == shape else ""
            raise ValueError(f"it must have shape (N, {wanted}), got {given}{one}")
        return Samples([str(i) for i in range(len(x))], settings.numbers("it", x))


def _is_recording(path: Path, given: tuple[int, ...], settings: Settings) -> bool:
    """Return whether an array of a shape is one recording, and no windows of signals."""
    signals = settings.model == "signals" and path.suffix.lower() in recordings.SUFFIXES
    return signals and len(given) < 3 and settings.input_shape != (1, *given[1:])


def _texts(path: Path, words: Words) -> tuple[list[str], CSR]:
    """Return the names of the texts in a tree of folders, or of one, and their rows."""
    files = files_in(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{printable(str(path))}: it has no files")
    names = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
    return names, words.rows_of(read_texts(files))


def _pictures(path: Path, settings: Settings) -> tuple[list[str], NDArray[np.float32]]:
    """Return the names of the pictures in a tree of folders, or of one, and their pixels."""
    shape = settings.input_shape
    with naming(path):
        if len(shape) != 3 or shape[0] not in (1, 3):
            kind = "it is a folder" if path.is_dir() else "it is a picture"
            raise ValueError(f"{kind}, but the model takes no pictures of 1 or 3 channels")
        files = pictures_in(path) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"it has no {', '.join(SUFFIXES)} files")
    white = settings.white_of_16_bits
    pixels = read_pictures(files, shape, resized=settings.resized, white_of_16_bits=white)
    names = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
    with naming(path):
        return names, settings.pictures(pixels)


def _array(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.lib.format.open_memmap(path, mode="r")
    if suffix == ".npz":
        return arrays_of(path, _one)[0]
    if suffix == ".csv":
        return rows_of(path)
    raise ValueError("it must be a .npy, .npz or .csv file, a picture or a folder of pictures")


def _one(names: list[str]) -> list[str]:
    if len(names) != 1 and "x" not in names:
        raise ValueError(f"it must hold an array called x, but has {', '.join(names)}")
    return ["x"] if "x" in names else names
