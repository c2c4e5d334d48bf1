"""How the columns of a table become the numbers of a model: what its training decided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

MOST_TEXTS = 50
"""A column of more different texts is no category but a name, a date or a number of a person."""
MISSING = "(missing)"
"""The category of a text that is missing."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table become: standardised numbers, and a 0 or 1 a category."""

    label: str
    """The column of the classes."""
    numbers: dict[str, tuple[float, float]]
    """Mean and standard deviation, by column; a number that is missing is the mean."""
    categories: dict[str, tuple[str, ...]]
    """The texts of the training, by column; another one is all zeros."""
    left_out: dict[str, str]
    """Why, by column."""
    missing: dict[str, int]
    """How many values were missing in the training, by column."""

    def __post_init__(self) -> None:
        numbers = [*self.numbers.values()]
        texts = [text for some in self.categories.values() for text in some]
        sound = all(math.isfinite(mean) and 0 < std < math.inf for mean, std in numbers)
        if not (sound and all(isinstance(text, str) for text in [self.label, *texts])):
            raise ValueError(f"there are no columns {self!r}")

    @property
    def features(self) -> int:
        """How many numbers a row becomes."""
        return len(self.numbers) + sum(map(len, self.categories.values()))

    @property
    def names(self) -> list[str]:
        """What the numbers of a row are: standardised columns, and categories."""
        own = (f"{name} = {text}" for name, some in self.categories.items() for text in some)
        return [*(f"{name} (standardised)" for name in self.numbers), *own]

    @classmethod
    def of(cls, frame: pandas.DataFrame, label: str) -> Columns:
        """Return what the columns of a training become."""
        numbers, categories, left_out = {}, {}, {}
        for name in frame.columns:
            if name == label:
                continue
            if _is_numeric(frame[name]):
                values = _floats(name, frame[name])
                values = values[~np.isnan(values)]
                if len(values):
                    numbers[name] = float(values.mean()), float(values.std()) or 1.0
                else:
                    left_out[name] = "it has no value"
            elif len(texts := np.unique(_texts(frame[name]))) <= MOST_TEXTS:
                categories[name] = tuple(map(str, texts))
            else:
                left_out[name] = f"it has {len(texts)} different texts"
        if not numbers and not categories:
            raise ValueError(f"it has no column of numbers or categories beside {label!r}")
        counts = {name: int(frame[name].isna().sum()) for name in numbers | categories}
        missing = {name: count for name, count in counts.items() if count}
        return cls(label, numbers, categories, left_out, missing)

    def rows(self, frame: pandas.DataFrame) -> NDArray[np.float32]:
        """Return the rows of a table as numbers (N, features).

        Raises
        ------
        ValueError
            If a column is missing, or has texts instead of numbers.
        """
        wanted = [*self.numbers, *self.categories]
        if absent := [name for name in wanted if name not in frame.columns]:
            raise ValueError(f"it has no column {', '.join(map(repr, absent))}")
        parts = []
        for name, (mean, std) in self.numbers.items():
            x = _floats(name, frame[name])
            parts.append((np.where(np.isnan(x), mean, x) - mean)[:, None] / std)
        for name, texts in self.categories.items():
            parts.append(_texts(frame[name])[:, None] == np.asarray(texts))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def __str__(self) -> str:
        """Return what was decided, in a line."""
        parts = [f"{len(self.numbers)} columns of numbers, standardised"]
        if self.categories:
            count = self.features - len(self.numbers)
            parts.append(f"{len(self.categories)} of categories, one-hot in {count}")
        for name, count in self.missing.items():
            taken = "the mean" if name in self.numbers else "a category"
            parts.append(f"{name!r} lacks {count} values, taken as {taken}")
        parts += [f"{name!r} left out: {why}" for name, why in self.left_out.items()]
        return "; ".join(parts)


def _is_numeric(column: Any) -> bool:
    return column.dtype.kind in "biuf"


def _floats(name: str, column: Any) -> NDArray[np.float64]:
    if not _is_numeric(column) and not column.isna().all():
        raise ValueError(f"column {name!r} must be of numbers, got {column.dropna().iloc[0]!r}")
    x: NDArray[np.float64] = column.to_numpy(np.float64, na_value=np.nan)
    if np.isinf(x).any():
        raise ValueError(f"column {name!r} has an infinite number in row {np.isinf(x).argmax()}")
    return x


def _texts(column: Any) -> NDArray[Any]:
    pairs = zip(column, column.isna(), strict=True)
    return np.asarray([MISSING if absent else str(text) for text, absent in pairs])
