"""Windows of a pool: their geometry, and classes of it by which loops are compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..toolchain.compiling import shared


class Windows(NamedTuple):
    """The geometry of a pool; all are integers. Of this class itself: any windows, by planes."""

    height: int
    width: int
    rows: int
    """Of outputs."""
    columns: int
    down: int
    """Taps."""
    across: int
    step_down: int
    """Pixels from a window to the next."""
    step_across: int
    apart_down: int
    """Pixels from a tap to the next."""
    apart_across: int
    top: int
    """Where the first window starts: 0, or less by the padding."""
    left: int

    @classmethod
    def suits(cls, lanes: int) -> bool:
        """Return whether such windows are met by vectors of so many lanes."""
        return True


class Pairs(Windows):
    """2x2 with step 2, inside the image; a vector is of neighbouring outputs of a row."""

    __slots__ = ()


class Triples(Windows):
    """3x3 with step 2, around the even pixels of images of even size; vectors as in `Pairs`."""

    __slots__ = ()


class ShortPairs(Windows):
    """2x2 on images of even size with short rows, whose outputs make whole vectors.

    A vector of outputs is of several rows, of ``SHORT`` outputs each, and its pixels are the four
    vectors that follow each other in memory. They pass for an image: one row of outputs.
    """

    __slots__ = ()
    SHORT = 0

    @classmethod
    def suits(cls, lanes: int) -> bool:
        """Return whether rows of outputs are shorter than vectors of so many lanes."""
        return lanes > cls.SHORT


class ShortPairs2(ShortPairs):
    """Short rows of two outputs."""

    __slots__ = ()
    SHORT = 2


class ShortPairs4(ShortPairs):
    """Short rows of four outputs."""

    __slots__ = ()
    SHORT = 4


class ShortPairs8(ShortPairs):
    """Short rows of eight outputs."""

    __slots__ = ()
    SHORT = 8


class ShortTriples(Windows):
    """3x3 with step 2, around the even pixels of images of 8x8, whose outputs are a vector."""

    __slots__ = ()
    SHORT = 4

    @classmethod
    def suits(cls, lanes: int) -> bool:
        """Return whether the outputs of an image are one vector of so many lanes."""
        return lanes == cls.SHORT**2


SHORT_PAIRS = {cls.SHORT: cls for cls in (ShortPairs2, ShortPairs4, ShortPairs8)}
BY_ROWS = (Pairs, Triples, *SHORT_PAIRS.values(), ShortTriples)


def classified(w: Windows, lanes: int) -> Windows:
    """Return the windows as an instance of the class that suits vectors of so many lanes."""
    steps = w.step_down, w.step_across, w.apart_down, w.apart_across
    if steps != (2, 2, 1, 1):
        return w
    taps, start = (w.down, w.across), (w.top, w.left)
    even = (w.height, w.width) == (2 * w.rows, 2 * w.columns)
    filled = 2 * w.columns >= lanes
    one_row = w._replace(height=2, width=2 * lanes, rows=1, columns=lanes)
    if taps == (2, 2) and start == (0, 0):
        short = SHORT_PAIRS.get(w.columns)
        if even and short is not None and short.suits(lanes):
            return short(*one_row)
        if filled and 2 * w.rows <= w.height and 2 * w.columns <= w.width:
            return Pairs(*w)
    if taps == (3, 3) and start == (-1, -1) and even:
        if w.rows == w.columns == ShortTriples.SHORT and ShortTriples.suits(lanes):
            return ShortTriples(*one_row)
        if filled:
            return Triples(*w)
    return w


# --- memory --------------------------------------------------------------------------------------

MET = np.dtype([("pixel", np.int64), ("down", np.int64), ("across", np.int64), ("tap", np.int64)])
"""What the window of an output meets: the first pixel, how many rows and columns of taps meet any,
and the number of the first of these taps, or that behind all where there is none."""


class RowsOfNumbers(NamedTuple):
    """How the numbers of taps lie where windows go by rows of outputs."""

    pitch: int
    """From a row to the next: whole vectors."""
    size: int
    """Of all rows, and two behind them that may be read."""


@shared
def rows_of_numbers(w: Windows, outputs: int, lanes: int) -> RowsOfNumbers:
    """Return where the numbers of so many ``outputs`` lie, for vectors of so many lanes."""
    pitch = -(-w.columns // lanes) * lanes
    return RowsOfNumbers(pitch, (-(-outputs // w.columns) + 2) * pitch)


class Space(NamedTuple):
    """A thread's memory for a group of planes: their pixels, and then their outputs."""

    outputs: int
    size: int


@shared
def space_of(w: Windows, lanes: int) -> Space:
    """Return the memory for as many planes as a vector has lanes."""
    outputs = w.height * w.width * lanes
    return Space(outputs, outputs + w.rows * w.columns * lanes)
