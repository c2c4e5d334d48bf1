"""The kernel of dense: products of matrices that share the threads of the other kernels."""

from __future__ import annotations

from typing import Any

from ...core.arrays import quiet
from ...core.operation import OPERATIONS, Implementation, Pullback
from .simd.products import product
from .toolchain.arguments import why_not

operation = OPERATIONS["dense"]


def takes(x: Any, w: Any, b: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(x, w, b)


def value(x: Any, w: Any, b: Any) -> Any:
    """Return the layer's output."""
    y = product(x.reshape(-1, x.shape[-1]), w, turned=(False, True), bias=b)
    return y.reshape(*x.shape[:-1], w.shape[0])


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int]) -> tuple[Any, Pullback]:
    """Return the layer's output and its pullback."""
    rows = x.reshape(-1, x.shape[-1])

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        dy = dy.reshape(-1, w.shape[0])
        if 0 in wrt:
            dx = product(dy, w).reshape(x.shape)
        if 1 in wrt:
            dw = product(dy, rows, turned=(True, False))
        if 2 in wrt and b is not None:
            with quiet():
                db = dy.sum(axis=0)
        return dx, dw, db

    return value(x, w, b), pullback


operation.add_kernel("numpy", Implementation("Numba", value, vjp, takes))
