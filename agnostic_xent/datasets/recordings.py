"""Recordings of signals, each of a length and a person of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .packaged import packaged

__all__ = ["Recordings", "load_watch"]

STEPS = 256
"""Levels of a unit that the packaged numbers are rounded to."""


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings of signals, with the label and the person of each.

    Attributes
    ----------
    signals : list of ndarray of float32
        A recording each, (C, L), of its own length L.
    labels : ndarray of int64, shape (R,)
        Labels from 0 to ``len(classes) - 1``.
    people : ndarray of int64, shape (R,)
        Who was recorded.
    classes : tuple of str
        Name of each label.
    channels : tuple of str
        Name of each channel.
    rate : float
        Numbers of a channel in a second.
    name : str
        Name of the data set.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = [np.zeros((1, 30), np.float32), np.zeros((1, 40), np.float32)], np.asarray([0, 1])
    >>> Recordings(x, y, y, classes=("no", "yes"), channels=("force",), rate=10.0, name="toy")
    Recordings(classes=('no', 'yes'), channels=('force',), rate=10.0, name='toy')
    """

    signals: list[NDArray[np.float32]] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    people: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    rate: float
    name: str


def load_watch() -> Recordings:
    """Load 140 recordings of a watch: seven exercises of the shoulder, by ten people on each side.

    A recording is about 20 repetitions of an exercise, 19 to 52 seconds at 50 Hz. Channels are the
    three axes of acceleration, in units of gravity, and three of rotation, in radians a second.
    Numbers are rounded to 1/256.

    Returns
    -------
    Recordings
        Signals float32 ``(6, L)``, L from 947 to 2,618.

    References
    ----------
    Burns, Leung, Hardisty, Whyne, Henry & McLachlin (2018), Shoulder physiotherapy exercise
    recognition: machine learning the inertial signals from a smartwatch,
    https://arxiv.org/abs/1802.01489. From the package seglearn (BSD licence).

    Examples
    --------
    >>> data = load_watch()
    >>> len(data.signals), data.signals[0].shape
    (140, (6, 1333))
    >>> data.classes[data.labels[0]], int(data.people[0])
    ('PEN', 7)
    """
    arrays = packaged("watch.npz")
    levels = np.cumsum(arrays["differences"], axis=1, dtype=np.int64)  # (C, steps of all)
    signals = (levels / STEPS).astype(np.float32)
    ends = np.cumsum(arrays["lengths"], dtype=np.int64)
    return Recordings(
        [x.copy() for x in np.split(signals, ends[:-1], axis=1)],
        arrays["labels"].astype(np.int64),
        arrays["people"].astype(np.int64),
        classes=("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"),
        channels=("ax", "ay", "az", "wx", "wy", "wz"),
        rate=50.0,
        name="watch",
    )
