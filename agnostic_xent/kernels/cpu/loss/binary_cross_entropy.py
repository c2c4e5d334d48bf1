"""The kernel of binary cross entropy of logits: from normalised arguments to compiled loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import OPERATIONS, Implementation, Pullback
from ..simd.elementary import BIAS
from ..simd.elements import SMALL
from ..toolchain.arguments import NOTHING, flat, why_not
from ..toolchain.memory import empty
from .binary_loops import BLOCK, Numbers, binary

operation = OPERATIONS["binary_cross_entropy_with_logits"]
portable = operation.portable


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    weights = [options[name] for name in ("weight", "pos_weight", "sample_weight")]
    why = why_not(logits, target, *weights)
    return why or (None if logits.ndim else "it takes arrays of at least one dimension")


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss."""
    return run(logits, target, options, gradient=False)[0]


def vjp(logits: Any, target: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the loss and its pullback; the gradient for a cotangent of 1 is there already."""
    loss, gradient = run(logits, target, options, gradient=0 in wrt)
    ready = [gradient]

    def pullback(dy: Any) -> tuple[Any, Any]:
        g = dt = None
        if 1 in wrt:
            dt = portable.vjp(logits, target, **options)[1](dy)[1]
        if 0 in wrt:  # goes out once: its new owner may write to it
            g = ready.pop() if ready else run(logits, target, options, gradient=True)[1]
            if dy.ndim or float(dy) != 1:
                scale(g, dy, element_weights(logits, options))
        return g, dt

    return loss, pullback


def run(logits: Any, target: Any, options: dict[str, Any], gradient: bool) -> tuple[Any, Any]:
    """Return the loss; its gradient for a cotangent of 1, or None."""
    dtype, reduction = logits.dtype, options["reduction"]
    w, q = element_weights(logits, options), options["pos_weight"]
    divisor = mean_divisor(logits, w, options["normalize"]) if reduction == "mean" else 1.0
    nothing = 0.0 if options["on_empty"] == "zero" else math.nan
    unit = 1 / divisor if divisor else nothing
    g = empty(logits.shape, dtype) if gradient else None
    terms = np.empty(logits.size if reduction == "none" else 0)
    sums = np.empty(-(-logits.size // BLOCK))
    binary[dtype](
        spread(logits, logits), spread(target, logits), spread(w, logits), spread(q, logits),
        tuple(Numbers(options["label_smoothing"], 1 / BIAS[dtype], unit)),
        terms, sums, NOTHING[dtype] if g is None else g.reshape(-1), alone=logits.size < SMALL,
    )  # fmt: skip
    with quiet():
        if reduction == "none":
            return terms.astype(dtype).reshape(logits.shape), g
        total = float(np.sum(sums))
        return dtype.type(total / divisor if divisor else nothing), g


def scale(g: Any, dy: Any, w: Any) -> None:
    """Multiply the gradient g by dy, in place; where the weight w is 0 it stays exactly 0."""
    with quiet():
        np.multiply(g, dy, out=g)
    if w is not None:
        np.copyto(g, 0, where=w == 0)


def element_weights(logits: Any, options: dict[str, Any]) -> Any:
    """Return what multiplies the term of each logit, of a shape that broadcasts; None for 1."""
    weight, a = options["weight"], options["sample_weight"]
    if a is None:
        return weight
    a = a.reshape(-1, *(1,) * (logits.ndim - 1))
    return a if weight is None else weight * a


def mean_divisor(logits: Any, w: Any, normalize: Any) -> float:
    """Return what a mean over the terms of the logits divides by, with weights w or None."""
    if isinstance(normalize, float):
        return normalize
    if normalize != "weight" or w is None:
        return float(logits.size)
    return float(np.sum(np.broadcast_to(w, logits.shape), dtype=float))


def spread(x: Any, logits: Any) -> Any:
    """Return x as the loops read it: a number a logit, or no elements for None."""
    return NOTHING[logits.dtype] if x is None else flat(np.broadcast_to(x, logits.shape))


OPTIONS = (
    "weight",
    "pos_weight",
    "sample_weight",
    "label_smoothing",
    "reduction",
    "normalize",
    "on_empty",
)
operation.add_kernel("numpy", Implementation("Numba loops", value, vjp, takes, options=OPTIONS))
