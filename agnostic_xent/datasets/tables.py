"""Tables of one's own, in CSV or Parquet files, with a column of labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.requirements import missing
from ..core.texts import printable
from .columns import Columns
from .dataset import Dataset, split_by_class
from .labels import as_labels, class_indices, class_names
from .reading import naming, reading

if TYPE_CHECKING:
    import pandas

__all__ = ["load_table"]

SUFFIXES = (".csv", ".tsv", ".parquet")
DELIMITERS = ",;\t|"


def load_table(
    path: str | os.PathLike[str],
    *,
    label: str,
    test_fraction: float = 0.2,
    rng: int | np.random.Generator | None = 0,
) -> Dataset:
    """Load a table of your own, a CSV or Parquet file with a column of labels.

    Numbers are standardised with the mean and the standard deviation of the training part, and
    those that are missing are the mean. Texts become a 0 or 1 for each category, of which a missing
    text is one. Columns of more than 50 different texts, such as names, are left out. Needs pandas,
    and for Parquet pyarrow.

    Parameters
    ----------
    path : path
        Of a ``.csv`` or ``.tsv`` file with a header, whose cells end at commas, semicolons, tabs or
        bars, or of a ``.parquet`` file.
    label : str
        Name of the column that holds the classes: texts or integers, none of them missing.
    test_fraction : float
        Part of each class to hold out, between 0 and 1.
    rng : int, numpy.random.Generator or None
        Seed or generator that chooses it, and shuffles; None takes fresh entropy.

    Returns
    -------
    Dataset
        Features float32 ``(N, features)``, labels int64 ``(N,)``; its ``columns`` tell what became
        of each column, and ``columns.rows(frame)`` does it to the rows of another table.

    Raises
    ------
    ImportError
        If pandas, or for Parquet pyarrow, is not installed.
    ValueError
        If the file cannot be read, a label is missing, or there are fewer than two classes.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "trees.csv"
    >>> import pandas
    >>> trees = pandas.DataFrame({"height": range(10), "kind": ["oak", "fir"] * 5})
    >>> trees.assign(tall=trees.height > 5).to_csv(path, index=False)
    >>> data = load_table(path, label="tall")
    >>> data.classes, data.train_x.shape, data.test_x.shape
    (('False', 'True'), (8, 3), (2, 3))
    """
    path = Path(path)
    return table_dataset(path, read_frame(path), label, test_fraction, rng)


def table_dataset(
    path: Path,
    frame: pandas.DataFrame,
    label: str,
    test_fraction: float = 0.2,
    rng: int | np.random.Generator | None = 0,
) -> Dataset:
    """Return the data set that `load_table` returns, given the table of the file."""
    with naming(path):
        y = labels_of(frame, label)
        classes = class_names(f"column {label!r}", y)
        train, test = split_by_class(y, test_fraction, rng)
        columns = Columns.of(frame.iloc[train], label)
        x, indices = columns.rows(frame), class_indices(f"column {label!r}", y, classes)
    return Dataset(
        train_x=x[train],
        train_y=indices[train],
        test_x=x[test],
        test_y=indices[test],
        classes=classes,
        name=printable(path.stem),
        columns=columns,
    )


def read_frame(path: Path) -> pandas.DataFrame:
    """Return the table in a file.

    Raises
    ------
    ValueError
        If it cannot be read, or has no rows.
    """
    try:
        import pandas
    except ImportError as error:
        raise missing("reading tables", "pandas") from error
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} must be a {', '.join(SUFFIXES)} file")
    if suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise missing("reading Parquet", "pyarrow") from error
    with reading(path):
        if suffix == ".parquet":
            frame = pandas.read_parquet(path)
        else:
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline()
            delimiter = max(DELIMITERS, key=header.count)
            frame = pandas.read_csv(
                path, sep=delimiter, skipinitialspace=True, encoding="utf-8-sig", index_col=False
            )
        frame.columns = frame.columns.map(str)
        if not len(frame):
            raise ValueError("it has no rows")
        if len(set(frame.columns)) < len(frame.columns):
            raise ValueError("two of its columns have one name")
    return frame


def labels_of(frame: pandas.DataFrame, label: str) -> NDArray[Any]:
    """Return the labels of a table.

    Raises
    ------
    ValueError
        If it has no such column, or a label is missing.
    """
    if label not in frame.columns:
        known = ", ".join(map(repr, frame.columns))
        raise ValueError(f"it has no column {label!r} of labels, but {known}")
    column = frame[label]
    if column.isna().any():
        absent = np.flatnonzero(column.isna())
        rows = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        raise ValueError(f"column {label!r} has no label in row {rows} (counted from 0)")
    y = column.to_numpy()
    return as_labels(f"column {label!r}", y.astype(str) if y.dtype.kind == "O" else y, len(y))
