"""Texts of one's own, in files or in a column of a table, as data sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.texts import printable
from .dataset import Dataset, split_by_class
from .images import Kind, held_out
from .labels import class_indices, class_names
from .reading import naming, reading
from .tables import labels_of
from .words import Words, texts_of

if TYPE_CHECKING:
    import pandas


def texts_dataset(
    name: str,
    texts: tuple[Sequence[str], Sequence[str]],
    labels: tuple[NDArray[Any], NDArray[Any]],
    text: str | None = None,
    label: str | None = None,
) -> Dataset:
    """Return a data set of texts to train on, and to test on."""
    words, classes = Words.of(texts[0], text, label), class_names("it", labels[0])
    train, test = (class_indices("it", y, classes) for y in labels)
    rows: list[Any] = [words.rows_of(part) for part in texts]
    return Dataset(rows[0], train, rows[1], test, classes=classes, name=name, columns=words)


# --- columns of tables ---------------------------------------------------------------------------


def texts_in_table(path: Path, frame: pandas.DataFrame, text: str, label: str) -> Dataset:
    """Return the texts of a table, of which a fifth of each class is held out."""
    with naming(path):
        x, y = texts_of(frame, text), labels_of(frame, label)
        parts = split_by_class(y, 0.2, 0)
        train, test = ([x[i] for i in rows] for rows in parts)
        labels = y[parts[0]], y[parts[1]]
        return texts_dataset(printable(path.stem), (train, test), labels, text, label)


# --- files ---------------------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and in the folders in it, in the order of their paths."""
    found = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(
        file
        for file in found
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


TEXTS = Kind("texts", "spam/1.txt and ham/2.txt", files_in)


def read_texts(files: Sequence[Path]) -> list[str]:
    """Return the texts in files, in UTF-8; what is none becomes a mark.

    Raises
    ------
    ValueError
        If one cannot be read, or is no text.
    """
    texts = []
    for file in files:
        with reading(file):
            content = file.read_bytes()
            if b"\0" in content:
                raise ValueError("it is no text: it has a zero byte")
            texts.append(content.decode("utf-8-sig", errors="replace"))
    return texts


def texts_in_folders(folder: Path) -> Dataset:
    """Return the texts in a folder for each class, of which a fifth is held out."""
    with naming(folder):
        parts = held_out(folder, kind=TEXTS)
    train, test = (read_texts(part.files) for part in parts)
    with naming(folder):
        labels = [np.asarray(part.labels) for part in parts]
        return texts_dataset(
            printable(folder.absolute().name), (train, test), (labels[0], labels[1])
        )
