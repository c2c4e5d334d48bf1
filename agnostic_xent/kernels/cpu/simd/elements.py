"""Elements of flat arrays in blocks."""

from __future__ import annotations

from typing import Any

from .elementary import exp_biased, inlined

FEW, SMALL = 65536, 16384
"""Elements below which one thread is faster than waking the others; where they take longer."""


@inlined
def exp_minus_abs(x: Any, unbias: Any) -> Any:
    """Return exp(-abs(x)) of a number x, in its dtype."""
    return exp_biased(-x if x > 0 else x) * unbias
