"""Texts as rows of words: what a training decided, and how later texts become the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.requirements import missing
from ..core.sparse import CSR, as_csr

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
