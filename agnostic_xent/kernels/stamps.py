"""What machine code that is kept on disk depends on, beside its own function."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def source_stamp(half: str) -> str:
    """Return a hash of all source that kernels of a half, "cpu" or "cuda", may depend on.

    That is what they may import: their own half and what both share, the operations, and what these
    rest on. Names of files count, so that code which moves is compiled anew.
    """
    stamp = hashlib.sha256()
    for name in ("core", "operations", "kernels/shapes.py", f"kernels/{half}"):
        place = PACKAGE / name
        for file in sorted(place.rglob("*.py")) or [place]:
            stamp.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0")
            stamp.update(file.read_bytes())
    return stamp.hexdigest()
