"""Texts in pictures and pages: of every script, of any length, with whatever is in them."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

FIRST = "DejaVu Sans"
"""The font that comes with matplotlib."""

LEFT_TO_RIGHT = "\u200e"
"""A mark that nobody sees, for text between words of Arabic or Hebrew."""

TURNING = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
"""Characters that turn the direction of the text behind them."""


def printable(text: str) -> str:
    """Return a text on one line, with the numbers of characters that nobody sees."""
    if text.isprintable():
        return text
    return "".join(f"\\u{ord(c):04x}" if _unseen(c) else c for c in " ".join(text.split()))


def shortened(text: str, columns: int) -> str:
    """Return the beginning and the end of a text that takes more than so many columns."""
    if width(text) <= columns:
        return text
    end = _beginning(text[::-1], (columns - 1) // 2)[::-1]
    while end and not width(end[0]):  # an accent whose letter is gone
        end = end[1:]
    return f"{_beginning(text, columns - 1 - (columns - 1) // 2)}…{end}"


def width(text: str) -> int:
    """Return how many columns a text takes where Chinese characters take two."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2 if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )  # fmt: skip


def arrow(start: str, end: str) -> str:
    """Return "start → end", which reads from left to right whatever the scripts of the two."""
    turned = any(unicodedata.bidirectional(c) in ("R", "AL") for c in start + end)
    mark = LEFT_TO_RIGHT if turned else ""
    return f"{mark}{start}{mark} → {mark}{end}"


@contextmanager
def drawing(style: Any, texts: Iterable[str]) -> Iterator[None]:
    """Let matplotlib draw in a style, a dict, by fonts that have the characters of ``texts``.

    One warning tells of the characters that no font has.
    """
    import matplotlib

    families, without = _fonts({c for text in texts for c in text if width(c)})
    if without:
        warnings.warn(
            f"no font here has {' '.join(sorted(without)[:20])}, so pictures show boxes; install "
            "one that has, such as Noto (https://fonts.google.com/noto; on Debian and Ubuntu "
            "fonts-noto-cjk, fonts-noto-core, fonts-symbola)",
            stacklevel=4,
        )
    with matplotlib.rc_context({**style, "font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # told already
        yield


def _unseen(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs") or c in TURNING


def _beginning(text: str, columns: int) -> str:
    return next(text[:i] for i in range(len(text), -1, -1) if width(text[:i]) <= columns)


def _fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Return families that have the characters, and those that none has.

    The user's own come after the first one, then whatever else is installed.
    """
    from matplotlib import font_manager, rcParams

    families, without = [], set(characters)
    for name in (FIRST, *rcParams["font.family"], *rcParams["font.sans-serif"]):
        with suppress(ValueError):  # it is not installed
            file = font_manager.findfont(name, fallback_to_default=False)
            without -= _characters(file)
            families.append(name)
    for path in sorted(font_manager.findSystemFonts()) if without else ():
        if found := without & _characters(path):
            font_manager.fontManager.addfont(path)
            families.append(font_manager.FontProperties(fname=path).get_name())
            without -= found
    return families, without


def _characters(file: str) -> set[str]:
    """Return the characters that a font can draw in any size."""
    from matplotlib.ft2font import FT2Font

    with suppress(OSError, RuntimeError):  # it is no font that matplotlib reads
        font = FT2Font(file)
        if font.scalable:
            return {*map(chr, font.get_charmap())}
    return set()
