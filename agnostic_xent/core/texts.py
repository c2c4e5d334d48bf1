"""Texts that others have written, as they can be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text with escapes for what does not show, or would command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
