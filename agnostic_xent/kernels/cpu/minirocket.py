"""The kernel of MiniRocket's features: all convolutions of a signal while it is in the cache.

Threads share out the signals. Every sum is of the order of the portable definition, so that all
bits are those of it.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

from ...core.operation import ROUTINES, Implementation
from ...operations.minirocket import KERNELS, MIDDLE, TAPS, Convolutions
from .simd.elementary import borrowed, plain
from .toolchain.arguments import flat, why_not
from .toolchain.compiling import compiled_in_parts
from .toolchain.memory import empty, scratch
from .toolchain.signatures import SINGLE, Array, Integers, Read1, Read3, Write1, Write2

TAPS_OF = np.asarray(KERNELS)  # (84, 3)

Kernels = Annotated[Any, Array(np.dtype(np.int64), 2)]


class Space(NamedTuple):
    """Where things are in the memory of a thread, in numbers from its start."""

    edge: int
    """Zeros at each end of a signal."""
    pitch: int
    """Of the signals between zeros, which begin at 0."""
    ones: int
    """Where the convolutions with weights of -1 begin, one for each channel."""
    values: int
    """Where the values of a convolution begin."""
    size: int


def space_of(channels: int, length: int, dilation: int) -> Space:
    """Return the layout for signals and the largest dilation."""
    edge = MIDDLE * dilation
    pitch = length + 2 * edge
    ones = channels * pitch
    values = ones + channels * length
    return Space(edge, pitch, ones, values, values + length)


def value(signals: Any, plan: Any) -> Any:
    """Return the features."""
    (x,), plan = signals, Convolutions(*plan)
    count, channels, length = x.shape
    layout, alone = space_of(channels, length, int(plan.dilations[-1])), count == 1
    space = scratch(layout.size, x.dtype, alone)
    y = empty((count, plan.biases.size), x.dtype)
    arrays = np.ascontiguousarray(x), TAPS_OF, *map(flat, plan)
    features_of_signals[x.dtype](*arrays, layout, space, y, alone=alone)
    return y


@compiled_in_parts(kind=SINGLE)
def features_of_signals(
    x: Read3, kernels: Kernels, biases: Read1, dilations: Integers, counts: Integers,
    starts: Integers, channels: Integers, layout: Space, space: Write1, y: Write2,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write the features of a part of the signals to y."""
    s0, length = part * layout.size, x.shape[2]
    for i in range(len(x) * part // parts, len(x) * (part + 1) // parts):
        put_threes(x, i, layout, space, s0)
        number = first = 0
        for position in range(dilations.size):
            dilation, count = dilations[position], counts[position]
            put_ones(x, i, dilation, layout, space, s0)
            for k in range(len(kernels)):
                put_values(kernels, k, channels, starts[number], starts[number + 1],
                           dilation, length, layout, space, s0)  # fmt: skip
                margin = MIDDLE * dilation if (position + k) % 2 else 0
                begin = s0 + layout.values + margin
                put_proportions(space, begin, length - 2 * margin, biases, first, count, y, i)
                number, first = number + 1, first + count


@plain
def put_threes(x: Any, i: Any, layout: Any, space: Any, s0: Any) -> None:
    """Write three times each channel of signal i, between zeros."""
    three = x.dtype.type(3)
    for c in range(x.shape[1]):
        row = borrowed(space)[s0 + c * layout.pitch : s0 + (c + 1) * layout.pitch]
        row[:] = 0
        inner = row[layout.edge : layout.edge + x.shape[2]]
        for t in range(x.shape[2]):
            inner[t] = three * x[i, c, t]


@plain
def put_ones(x: Any, i: Any, dilation: Any, layout: Any, space: Any, s0: Any) -> None:
    """Write the convolution of each channel with weights of -1."""
    length = x.shape[2]
    for c in range(x.shape[1]):
        start = s0 + layout.ones + c * length
        total, row = borrowed(space)[start : start + length], borrowed(x)[i, c]
        for t in range(length):
            total[t] = -row[t]
        for tap in range(TAPS):
            shift = (tap - MIDDLE) * dilation
            if shift < 0:
                subtract(total[-shift:], row, length + shift)
            elif shift > 0:
                subtract(total, row[shift:], length - shift)


@plain
def subtract(total: Any, row: Any, count: Any) -> None:
    """Subtract so many numbers."""
    for t in range(count):
        total[t] -= row[t]


@plain
def put_values(
    kernels: Any, k: Any, channels: Any, first: Any, last: Any, dilation: Any, length: Any,
    layout: Any, space: Any, s0: Any,
) -> None:  # fmt: skip
    """Write the values of kernel k, summed over its channels."""
    values = borrowed(space)[s0 + layout.values : s0 + layout.values + length]
    for j in range(first, last):
        start = s0 + channels[j] * layout.pitch + layout.edge - MIDDLE * dilation
        ones = borrowed(space)[s0 + layout.ones + channels[j] * length :]
        threes = borrowed(space)[start:]
        a = threes[kernels[k, 0] * dilation :]
        b = threes[kernels[k, 1] * dilation :]
        c = threes[kernels[k, 2] * dilation :]
        if j == first:
            for t in range(length):
                values[t] = ((ones[t] + a[t]) + b[t]) + c[t]
        else:
            for t in range(length):
                values[t] += ((ones[t] + a[t]) + b[t]) + c[t]


@plain
def put_proportions(
    space: Any, begin: Any, length: Any, biases: Any, first: Any, count: Any, y: Any, i: Any
) -> None:
    """Write which part of the values exceeds each bias."""
    values, size = borrowed(space)[begin : begin + length], space.dtype.type(length)
    for f in range(first, first + count):
        bias, above = biases[f], np.int32(0)
        for t in range(length):
            above = np.int32(above + np.int32(values[t] > bias))
        y[i, f] = space.dtype.type(above) / size


def takes(x: Any, *plan: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(x) or (None if x.dtype == np.float32 else "it takes float32")


ROUTINES["positive_proportions"].add_kernel(
    "numpy", Implementation("Numba loops", value, takes=takes)
)
