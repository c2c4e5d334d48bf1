"""Recordings of signals as samples: their windows, and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.texts import printable
from ..datasets import Dataset, load_watch
from ..datasets.dataset import split_by_group
from ..datasets.images import Files, Kind, held_out, labelled
from ..datasets.labels import class_indices, class_names
from ..datasets.reading import naming, reading, rows_of
from ..datasets.scale import Scale, as_floats
from ..datasets.texts import files_in
from ..evaluation.folder import Settings
from ..evaluation.windows import Windows, windows

LENGTH = 200
"""Numbers in a window, unless told otherwise or a recording is shorter."""
SUFFIXES = (".npy", ".csv")
Signals = list[NDArray[np.float32]]
"""Recordings (C, L), each of its own length L."""


def recordings_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder and in the folders in it, in the order of their paths."""
    return [file for file in files_in(folder) if file.suffix.lower() in SUFFIXES]


RECORDINGS = Kind("recordings", "walk/1.npy and run/2.npy", recordings_in, of_people=True)


def cut(signals: Sequence[NDArray[Any]], length: int, people: Any = None) -> Windows:
    """Cut recordings into windows; each begins in the middle of the one before."""
    return windows(signals, length, max(1, length // 2), people=people)


def watch() -> Dataset:
    """Return windows of the recordings of a watch; those to test on are of other people."""
    data = load_watch()
    train, test = split_by_group(data.people, data.labels, 0.2, 0)
    parts = [
        cut([data.signals[i] for i in rows], LENGTH, data.people[rows]) for rows in (train, test)
    ]
    labels = data.labels[train], data.labels[test]
    return _dataset(data.name, data.classes, parts, labels, of_people=True)


def read_dataset(folder: Path, window: int | None) -> tuple[Dataset, Scale]:
    """Return windows of the recordings in a folder for each class, and the scale of their numbers.

    Raises
    ------
    ValueError
        If a recording cannot be read, is too short, or does not fit the others.
    """
    with naming(folder):
        files = held_out(folder, kind=RECORDINGS)
        classes = class_names("it", np.asarray(files[0].labels))
        labels = [class_indices("it", np.asarray(part.labels), classes) for part in files]
    signals = [[_read(file) for file in part.files] for part in files]
    length = window or min(LENGTH, *(x.shape[1] for part in signals for x in part))
    parts = [
        _windows(some, x, (len(signals[0][0]), length))
        for some, x in zip(files, signals, strict=True)
    ]
    name = printable(folder.absolute().name)
    of_people = any(files[1].people)
    return _dataset(name, classes, parts, labels, of_people=of_people), Scale.of(parts[0].x)


def read_test(folder: Path, settings: Settings, trained_on: bool) -> Dataset:
    """Return windows of the recordings in a folder to test a model on."""
    with naming(folder):
        files = held_out(folder, kind=RECORDINGS)[1] if trained_on else labelled(folder, RECORDINGS)
        labels = class_indices("it", np.asarray(files.labels), settings.classes)
    found = _windows(files, [*map(_read, files.files)], settings.input_shape)
    with naming(folder):
        found = found._replace(x=settings.numbers("it", found.x))
    nothing = found._replace(x=found.x[:0], recording=found.recording[:0])
    return _dataset(
        printable(folder.name),
        settings.classes,
        (nothing, found),
        (labels, labels),
        of_people=any(files.people),
    )


def read_samples(path: Path, settings: Settings) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """Return the names of recordings, that in a file or those in a folder, and their windows.

    And the number of the recording that each window is of.
    """
    names = recordings_in(path) if path.is_dir() else [path]
    if not names:
        raise ValueError(f"{printable(str(path))}: it has no {', '.join(SUFFIXES)} files")
    found = _windows(Files(names, [], []), [*map(_read, names)], settings.input_shape)
    with naming(path):
        x = settings.numbers("it", found.x)
    shown = [f.relative_to(path).as_posix() if path.is_dir() else f.name for f in names]
    return shown, x, found.recording


def _read(file: Path) -> NDArray[np.float32]:
    """Return a recording (C, L): an array (C, L) or (L,), or a table with a row for each time."""
    with reading(file):
        is_table = file.suffix.lower() == ".csv"
        x = rows_of(file).T if is_table else np.load(file, allow_pickle=False)
        x = x[None] if x.ndim == 1 else x
        if x.ndim != 2 or not x.size:
            raise ValueError(f"a recording must have shape (C, L) or (L,), got {x.shape}")
        if len(x) > x.shape[1]:
            last = "give each time a row" if is_table else "save x.T where time is the first axis"
            raise ValueError(f"a recording of {len(x)} channels of {x.shape[1]} numbers: {last}")
        return np.ascontiguousarray(as_floats("it", x.T).T)


def _windows(files: Files, signals: Signals, shape: tuple[int, ...]) -> Windows:
    """Return the windows (C, length) of recordings, whose files an error names."""
    channels, length = shape
    for file, x in zip(files.files, signals, strict=True):
        if len(x) != channels or x.shape[1] < length:
            raise ValueError(
                f"{printable(str(file))}: it must have {channels} channels of at least {length} "
                f"numbers, got {len(x)} of {x.shape[1]}"
            )
    return cut(signals, length, files.people if any(files.people) else None)


def _dataset(
    name: str,
    classes: tuple[str, ...],
    parts: Sequence[Windows],
    labels: Sequence[NDArray[np.int64]],
    *,
    of_people: bool,
) -> Dataset:
    """Return the data set of two parts, whose recordings have these labels."""
    train, test = parts
    return Dataset(
        train_x=train.x,
        train_y=labels[0][train.recording],
        test_x=test.x,
        test_y=labels[1][test.recording],
        classes=classes,
        name=name,
        test_recording=test.recording,
        test_person=test.person if of_people else None,
    )
