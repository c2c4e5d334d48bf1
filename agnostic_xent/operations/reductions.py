"""What all losses share: reduction of the terms, and its transpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..core.arrays import Array, array_namespace, constant, widen
from ..core.checks import check_choice, is_number

REDUCTIONS = ("mean", "sum", "none")
ON_EMPTY = ("nan", "zero", "raise")
BY = ("weight", "count")


@dataclass(frozen=True)
class Reduction:
    """How the terms become the loss; ``denominator`` is a number or a scalar array."""

    kind: str
    denominator: Any
    on_empty: str

    def value(self, terms: Array) -> Array:
        """Return the terms, their sum, or their sum over the denominator."""
        if self.kind == "none":
            return terms
        total = array_namespace(terms).sum(terms)
        return total if self.kind == "sum" else self._divided(total)

    def cotangents(self, dy: Array, terms: Array) -> Array:
        """Return the cotangent of each term, given that of the value."""
        if self.kind == "mean":
            dy = self._divided(dy)
        return array_namespace(terms).broadcast_to(dy, terms.shape)

    def _divided(self, total: Array) -> Array:
        xp = array_namespace(total)
        denominator = self.denominator
        if isinstance(denominator, (int, float)):
            denominator = constant(denominator, total)
        empty = denominator == 0
        mean = total / xp.where(empty, constant(1, total), denominator)
        # a number of Python: an array of NaN would stop `jax_debug_nans`, also where none is chosen
        return xp.where(empty, 0.0 if self.on_empty == "zero" else math.nan, mean)


def reduction_options(reduction: str, normalize: Any, on_empty: str) -> dict[str, Any]:
    """Return the three options of a reduction; raise ValueError unless the losses know them."""
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("on_empty", on_empty, ON_EMPTY)
    if is_number(normalize) and 0 < float(normalize) < math.inf:
        normalize = float(normalize)
    elif not (normalize is None or (isinstance(normalize, str) and normalize in BY)):
        raise ValueError(
            f'normalize must be "weight", "count", a number > 0 or None, got {normalize!r}'
        )
    return {"reduction": reduction, "normalize": normalize, "on_empty": on_empty}


def times_log(t: Array, log_p: Array) -> Array:
    """Return t * log_p with 0 * -inf = 0."""
    xp = array_namespace(t)
    return t * xp.where((t == 0) & xp.isinf(log_p), constant(0, log_p), log_p)


def times(weights: Array | None, x: Array) -> Array:
    """Return weights * x, with 0 * NaN = 0 * inf = 0; None stands for 1."""
    if weights is None:
        return x
    xp = array_namespace(x)
    weights = xp.broadcast_to(widen(weights), x.shape) if x.ndim else weights
    return xp.where(weights == 0, constant(0, x), weights * x)
