"""What all losses share: reduction of the terms, and its transpose."""

from __future__ import annotations

import math

from .arrays import Array, array_namespace, constant

REDUCTIONS = ("mean", "sum", "none")


def reduce(terms: Array, reduction: str) -> Array:
    """Return the terms, their sum or their mean (NaN for no terms)."""
    xp = array_namespace(terms)
    if reduction == "none":
        return terms
    total = xp.sum(terms)
    return total if reduction == "sum" else total / constant(math.prod(terms.shape), total)


def term_cotangents(dy: Array, terms: Array, reduction: str) -> Array:
    """Return the cotangent of each term, given that of the reduced loss."""
    if reduction == "mean":
        dy = dy / max(math.prod(terms.shape), 1)
    return array_namespace(terms).broadcast_to(dy, terms.shape)


def times_log(t: Array, log_p: Array) -> Array:
    """Return t * log_p with 0 * -inf = 0."""
    xp = array_namespace(t)
    return t * xp.where((t == 0) & xp.isinf(log_p), constant(0, log_p), log_p)
