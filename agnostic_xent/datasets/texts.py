"""Texts of one's own, in files or in a column of a table, as rows of words."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.requirements import missing
from ..core.sparse import CSR, as_csr
from ..core.texts import printable
from .dataset import Dataset, split_by_class
from .images import Kind, held_out
from .labels import class_indices, class_names
from .reading import naming, reading
from .tables import labels_of

if TYPE_CHECKING:
    import pandas

LEAST_TEXTS = 2
"""A word has to be in so many texts of the training."""


@dataclass(frozen=True)
class Words:
    """The words of a training: a text becomes a row of how often it has each, times its rarity.

    Rows have length 1: TF-IDF, as by `sklearn.feature_extraction.text.TfidfVectorizer`.
    """

    words: tuple[str, ...] = field(repr=False)
    rarity: tuple[float, ...] = field(repr=False)
    """Of each word: the logarithm of the share of texts that have it, negated, and 1."""
    text: str | None = None
    """The column of the texts, if they were in a table; likewise the labels."""
    label: str | None = None

    def __post_init__(self) -> None:
        sound = all(isinstance(word, str) for word in self.words)
        sound = sound and all(math.isfinite(number) and number > 0 for number in self.rarity)
        if not sound or len({*self.words}) != len(self.rarity) or not self.words:
            raise ValueError("there are no such words")

    @property
    def features(self) -> int:
        """How many numbers a row has."""
        return len(self.words)

    @classmethod
    def of(cls, texts: Sequence[str], text: str | None = None, label: str | None = None) -> Words:
        """Return the words of the texts of a training.

        Raises
        ------
        ValueError
            If no word is in two of them.
        """
        vectorizer = _vectorizer(min_df=LEAST_TEXTS)
        try:
            vectorizer.fit(texts)
        except ValueError as error:
            raise ValueError(f"its texts have no words in common: {error}") from error
        words = map(str, vectorizer.get_feature_names_out())
        return cls(tuple(words), tuple(map(float, vectorizer.idf_)), text, label)

    def rows_of(self, texts: Sequence[str]) -> CSR:
        """Return the rows of texts; words that are not those of the training do not count."""
        vectorizer = _vectorizer(vocabulary=self.words)
        vectorizer.idf_ = np.asarray(self.rarity, np.float32)
        return as_csr(vectorizer.transform(texts))

    def rows(self, frame: pandas.DataFrame) -> CSR:
        """Return the rows of the texts in a table.

        Raises
        ------
        ValueError
            If it has no such column.
        """
        return self.rows_of(texts_of(frame, self.text))

    def __str__(self) -> str:
        """Return what was decided, in a line."""
        where = "" if self.text is None else f" of column {self.text!r}"
        return f"texts{where}, rows of {self.features:,} words by TF-IDF"


def _vectorizer(**options: Any) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise missing("text", "scikit-learn") from error
    return TfidfVectorizer(dtype=np.float32, **options)


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


def texts_of(frame: pandas.DataFrame, column: str | None) -> list[str]:
    """Return the texts in a column of a table; one that is missing is empty.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    if column not in frame.columns:
        known = ", ".join(map(repr, frame.columns))
        raise ValueError(f"it has no column {column!r} of texts, but {known}")
    return [str(x) for x in frame[column].fillna("")]


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
