"""Capped logits: ``t = tanh(z / S)`` of a block, and what it does to the gradient, while in cache.

The scores ``S t / T`` are then those of logits t at the temperature ``T / S``.

Accuracy: below 2 ulp. Up to 1 a polynomial does, which takes a third of the time of the exponential
and the division beyond; the choice is made for `PIECE` logits at a time.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ..simd.elementary import SUM, exp_biased, inlined, intrinsic, njit, plain
from ..simd.instructions import emit_fma
from ..simd.rows import PIECE

TANH = {
    types.float32: (
        -0.3333333134651184, 0.1333312839269638, -0.053934790194034576, 0.02166011556982994,
        -0.008218921720981598, 0.0025104593951255083, -0.00042069549090228975,
    ),
    types.float64: (
        -0.33333333333333326, 0.13333333333330813, -0.05396825396636394, 0.02186948847999737,
        -0.00886323465252544, 0.0035921197425441464, -0.0014557829138450453,
        0.0005898067307783174, -0.00023845344045191568, 9.540778823530722e-05,
        -3.679721325874468e-05, 1.2889423623414145e-05, -3.6986096809521603e-06,
        7.386981472384082e-07, -7.41114097654018e-08,
    ),
}  # fmt: skip
"""P in ``tanh(x) = x + x^3 P(x^2)`` for x from -1 to 1, by interpolation at Chebyshev's nodes."""


@intrinsic
def near_tanh(context: Any, x: Any) -> Any:
    """Return tanh(x) of a number from -1 to 1."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (number,) = args
        square = builder.fmul(number, number)
        *rest, found = (number.type(c) for c in TANH[x])
        for c in reversed(rest):
            found = emit_fma(builder, found, square, c)
        return emit_fma(builder, builder.fmul(number, square), found, number)

    return x(x), emit


@intrinsic
def only_read(context: Any, x: Any) -> Any:
    """Return the array x as one that is only read, as the logits that are given."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if context.enable_nrt:
            context.nrt.incref(builder, signature.return_type, args[0])
        return args[0]

    return x.copy(readonly=True)(x), emit


@inlined
def any_tanh(x: Any, unbias: Any) -> Any:
    """Return tanh(x) of any number."""
    one = type(unbias)(1)
    e = exp_biased(-abs(x + x)) * unbias
    far = (one - e) / (one + e)
    return near_tanh(x) if abs(x) <= one else far if x > 0 else -far


@njit(**SUM, forceinline=True)
def reaches_beyond(x: Any, limit: Any) -> Any:
    """Return whether a number of x is larger than a limit, or smaller than its negative."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    beyond = zero
    for j in range(x.size):
        beyond += one if abs(x[j]) > limit else zero
    return beyond > 0


@plain
def cap(x: Any, softcap: Any, unbias: Any, t: Any) -> None:
    """Write ``tanh(x / softcap)`` to t."""
    kind = t.dtype.type
    scale, unbias = kind(1 / softcap), kind(unbias)
    for start in range(0, x.size, PIECE):
        piece, tanh = x[start : start + PIECE], t[start : start + PIECE]
        if reaches_beyond(piece, kind(softcap)):
            for j in range(piece.size):
                tanh[j] = any_tanh(piece[j] * scale, unbias)
        else:
            for j in range(piece.size):
                tanh[j] = near_tanh(piece[j] * scale)


@plain
def capped(x: Any, softcap: Any, unbias: Any, t: Any) -> Any:
    """Return the logits x; with a cap, ``tanh(x / softcap)``, in the memory t."""
    if softcap == 0:
        return x
    t = t[: x.size]
    cap(x, softcap, unbias, t)
    return only_read(t)


@inlined
def uncap(g: Any, t: Any) -> None:
    """Multiply the gradient g by ``1 - t^2``; what is 0 stays so, whatever t is."""
    one, zero = g.dtype.type(1), g.dtype.type(0)
    for j in range(g.size):
        g[j] = zero if g[j] == zero else g[j] * ((one - t[j]) * (one + t[j]))
