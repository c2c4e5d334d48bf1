"""Exponential and logarithm that a vectorising compiler can take apart, and the maximum of a row.

``exp_biased`` is the exponential of x <= 0 times 2**24 (float32) or 2**54 (float64). The factor
keeps denormal results apart from zero until the caller's own multiplication takes it out again,
with one rounding and at no cost. The range reduction is ``x = n ln 2 + r`` in two steps. The first
part of ln 2 has so few bits that n times it is exact, so processors without fused multiply-adds
lose nothing; n comes from adding a number so large that only integers are left, which also leaves
n in the low bits, ready to become an exponent.

Accuracy over all x <= 0: below 1 ulp, denormal results included; exp(-inf) = 0; NaN stays NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import extending as _extending
from numba import njit as _njit
from numba import types
from numba.core import cgutils as _cgutils

from ..toolchain.callees import CALLEE
from .instructions import emit_fma

# Numba's annotations know neither options from a dict nor what an intrinsic looks like from outside
njit: Any = _njit
intrinsic: Any = _extending.intrinsic
overload: Any = _extending.overload
cgutils: Any = _cgutils

BIAS = {np.dtype(np.float32): 2.0**24, np.dtype(np.float64): 2.0**54}
STRICT = {"fastmath": False} | CALLEE
"""Options of a function whose every rounding is meant."""

SUM = {"fastmath": {"reassoc"}} | CALLEE
"""Options of a loop whose sum may be taken in lanes; infinities and NaN keep their meaning."""

plain = njit(**STRICT)
"""Decorator of a function for compiled code."""

inlined = njit(**STRICT, forceinline=True)
"""The same without a call: one that takes arrays costs as much as 100 elements."""

pasted = njit(**STRICT, inline="always")
"""The same, pasted before it is optimised: each layer is optimised again with all below it."""

# --- single instructions that Python has no name for ---------------------------------------------


@intrinsic
def fma(context: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x * y + z, with one rounding where `emit_fma` has it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit_fma(builder, *args)

    return x(x, x, x), emit


@intrinsic
def larger(context: Any, x: Any, y: Any) -> Any:
    """Return the larger of x and y; either, if one of them is NaN.

    Only with this promise, that it need not matter, does a maximum of floats go in lanes.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flags = ("nnan", "nsz")
        return builder.select(builder.fcmp_ordered(">", *args, flags=flags), *args, flags=flags)

    return x(x, y), emit


@intrinsic
def float_bits(context: Any, x: Any) -> Any:
    """Return the bits of the float64 x as int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), emit


@intrinsic
def bits_float(context: Any, bits: Any) -> Any:
    """Return the float64 of these bits."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), emit


@intrinsic
def borrowed(context: Any, x: Any) -> Any:
    """Return the array x so that its views count no references: two atomic operations a view.

    The array that it was made of has to outlive it, as an argument does.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        array.meminfo = ir.Constant(array.meminfo.type, None)
        return array._getvalue()

    return x(x), emit


LOG_HI, LOG_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2

# --- exp -----------------------------------------------------------------------------------------


class Exp(NamedTuple):
    """Constants of the exponential of a floating type."""

    low: float
    """Below it n would leave the range of an exponent; the result is 0 already here."""
    log2_e: float
    ln2_high: float
    ln2_low: float
    magic: float
    """Leaves an integer, with the format's bias and that of the result in its low bits."""
    digits: int
    """Bits below the exponent."""
    polynomial: tuple[float, ...]


EXP = {
    types.float32: Exp(
        -104.5, 1.442695, 0.693359375, -2.12194440e-4, 1.5 * 2**23 + 24 + 127, 23,
        (1, 1, 0.5, 0.16666576, 0.041666556, 0.008363179, 0.0013926184),
    ),
    types.float64: Exp(
        -746.2, 1.4426950408889634, LOG_HI, LOG_LO,
        1.5 * 2**52 + 54 + 1023, 52,
        (1, 1, 0.5000000000000001, 0.16666666666666669, 0.04166666666662413, 0.008333333333330062,
         0.0013888888917213717, 0.00019841269863053618, 2.4801521295954376e-05,
         2.7557268459997064e-06, 2.7620088445409746e-07, 2.510038549551032e-08),
    ),
}  # fmt: skip


def emit_exp(builder: Any, floating: Any, x: Any) -> Any:
    """Emit the biased exponential of a number x, or of each lane of a vector."""
    kind, numbers, integer = x.type, EXP[floating], ir.IntType(floating.bitwidth)
    lanes = kind.count if isinstance(kind, ir.VectorType) else 0

    def same(value: Any, kind: Any = kind) -> Any:
        return ir.Constant(kind, [value] * lanes if lanes else value)

    low, magic = same(numbers.low), same(numbers.magic)
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
    t = emit_fma(builder, x, same(numbers.log2_e), magic)
    n = builder.fsub(t, magic)
    r = emit_fma(builder, n, same(-numbers.ln2_high), x)
    r = emit_fma(builder, n, same(-numbers.ln2_low), r)
    *rest, last = (same(float(c)) for c in numbers.polynomial)
    for c in reversed(rest):
        last = emit_fma(builder, last, r, c)
    integers = ir.VectorType(integer, lanes) if lanes else integer
    bits = builder.shl(builder.bitcast(t, integers), same(numbers.digits, integers))
    return builder.fmul(last, builder.bitcast(bits, kind))  # times 2**n


@intrinsic
def _exp(context: Any, x: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit_exp(builder, signature.args[0], args[0])

    return x(x), emit


def exp_biased(x: Any) -> Any:
    """Return the exponential of x <= 0 times ``BIAS``; the type of x chooses the polynomial."""
    raise NotImplementedError("for compiled code")


@overload(exp_biased, jit_options={"error_model": "numpy"})
def _exp_biased(x: Any) -> Any:
    def exp(x: Any) -> Any:  # a function of its own, so that its caller's options leave it alone
        return _exp(x)

    return exp


# --- log -----------------------------------------------------------------------------------------

ROOT_HALF = 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2): mantissas lie in [sqrt(1/2), sqrt(2))
TO_ONE = 0x3FF0000000000000 - ROOT_HALF
MANTISSA = 0x000FFFFFFFFFFFFF
INTEGER = 0x4330000000000000  # the bits of 2**52: low bits are an integer
INTEGER_BIAS = 2.0**52 + 1023
L1, L2, L3, L4, L5, L6, L7 = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
    2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
    1.479819860511658591e-01,
)  # fmt: skip


@njit(**STRICT)
def log1p(x: Any) -> Any:
    """Return log(1 + x) of a float64 x >= 0, for a tiny x to full relative accuracy.

    After fdlibm: ``1 + x`` is ``u (1 + c)`` with u rounded, u is ``2**k (1 + f)``.
    """
    u = 1.0 + x
    c = (1.0 - (u - x) if x >= 1.0 else x - (u - 1.0)) / u
    bits = float_bits(u) + TO_ONE
    k = bits_float((bits >> 52) | INTEGER) - INTEGER_BIAS
    f = bits_float((bits & MANTISSA) + ROOT_HALF) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = z * fma(fma(fma(L7, w, L5), w, L3), w, L1)
    even = w * fma(fma(L6, w, L4), w, L2)
    half = 0.5 * f * f
    return s * (half + (odd + even)) + fma(k, LOG_LO, c) - half + f + k * LOG_HI


# --- loops over a row ----------------------------------------------------------------------------


@njit(**STRICT)
def row_max(x: Any) -> Any:
    """Return the maximum of a contiguous row x that is not empty.

    What comes out for a row with NaN does not matter: the exponential of the NaN itself spoils
    the sum.
    """
    top = x[0]
    for j in range(x.size):
        top = larger(x[j], top)
    return top


@njit(**SUM)
def row_sum(x: Any) -> Any:
    """Return the sum of a contiguous row x."""
    total = x.dtype.type(0)
    for j in range(x.size):
        total += x[j]
    return total
