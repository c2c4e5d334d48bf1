"""Files that others have written: arrays and tables, and errors that name the file."""

from __future__ import annotations

import csv
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.texts import printable


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have a ValueError begin with the file that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{printable(str(path))}: {error}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make one kind of error, with the file's name, of whatever goes wrong while it is read.

    A damaged file raises what its parser, its decompressor or the memory happens to raise.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is a folder" if path.is_dir() else "it is no regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{printable(str(path))}: {reason}") from error


def arrays_of(path: Path, choose: Callable[[list[str]], Sequence[str]]) -> list[NDArray[Any]]:
    """Return some arrays of an .npz file, those that a function chooses from all names.

    Or of a folder of .npy files, whose names are theirs.
    """
    if path.is_dir():
        files = {file.stem: file for file in sorted(path.glob("*.npy"))}
        return [_array_in(files[name]) for name in choose([*files])]
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as found:
            return [_array(found, name) for name in choose(found.files)]


def _array(found: Any, name: str) -> NDArray[Any]:
    try:
        array = found[name]
    except ValueError as error:
        hint = (
            ": save texts as x.astype(str), and recordings of several lengths as an .npy file each"
        )
        raise ValueError(
            f"{name}: {error}{hint if 'allow_pickle' in str(error) else ''}"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no array")
    return array


def _array_in(file: Path) -> NDArray[Any]:
    with reading(file):
        return np.lib.format.open_memmap(file, mode="r")


def rows_of(path: Path) -> NDArray[np.float64]:
    """Return the rows (N, columns) of a .csv file of numbers, whose first line may be names."""
    lines = path.read_text("utf-8-sig").rstrip().split("\n")
    for i, line in enumerate(lines, 1):
        if not line.strip():  # else it would be passed over, and all rows after it renumbered
            raise ValueError(f"line {i} is empty")
    names = _names_in(lines) if len(lines) > 1 else []
    below = lines[1:] if names else lines
    try:
        found = np.loadtxt(below, delimiter=",", comments=None, quotechar='"', ndmin=2)
        if names and len(names) != found.shape[1]:
            raise ValueError(f"{found.shape[1]} columns have {len(names)} names")
    except ValueError as error:
        fault = next(_faults(lines, 2 if names else 1), str(error))
        raise ValueError(
            f"it must be of numbers and commas, below at most a line of names; {fault}"
        ) from error
    return found


def _names_in(lines: list[str]) -> list[str]:
    """Return the cells of the first line, or none where one of them is a number or empty."""
    cells = next(csv.reader(lines))
    return cells if all(cell.strip() and not _is_number(cell) for cell in cells) else []


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _faults(lines: list[str], first: int) -> Iterator[str]:
    """Yield what is wrong with a table whose numbers begin in a line, counted from 1."""
    columns = len(next(csv.reader(lines)))
    for i, row in enumerate(csv.reader(lines[first - 1 :]), first):
        yield from (
            f"line {i}, column {j} is {cell[:40]!r}"
            for j, cell in enumerate(row, 1)
            if not _is_number(cell)
        )
        if len(row) != columns:
            yield f"line {i} has {len(row)} numbers, the first one {columns}"
