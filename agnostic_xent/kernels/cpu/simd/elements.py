"""Elements of flat arrays in blocks."""

from __future__ import annotations

from typing import Any

from .elementary import exp_biased
from .rows import inlined

FEW = 65536  # elements below which one thread is faster than waking the others


@inlined
def exp_minus_abs(x: Any, unbias: Any) -> Any:
    """Return exp(-abs(x)) of a number of this dtype."""
    return exp_biased(-x if x > 0 else x) * unbias
