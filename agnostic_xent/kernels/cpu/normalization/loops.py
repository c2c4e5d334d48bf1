"""Loops of batch normalization over channels of images, whose pixels lie as (N, C * pixels).

A part does some channels, each with all that it needs: sums are taken while memory is read, and
the next pass finds in the cache what the first has read. Lanes are the pixels of one channel or, if
these are few, of several channels, up to WIDTH; what belongs to a channel is written out for every
lane. Sums are taken in float64, and in the order of the images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..simd.elementary import SUM, borrowed, inlined, njit, plain
from ..simd.lines import prefetch_to_read, prefetch_to_write
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Doubles, Read1, Read2, Write1, Write2, WrittenDoubles
from ..toolchain.threads import PIECES

WIDTH = 512
"""Lanes at most."""

APART = WIDTH + 16
"""Between numbers of one lane that are used together: not a page, at which stores hold up loads."""

LINE = 64  # bytes

SCALE, SHIFT = APART, 2 * APART
"""Where the scales and shifts of the lanes begin, behind their means."""


UNROLLED = 64
"""Lanes of one turn of a compiled loop."""


class Rule(NamedTuple):
    """How images are normalised."""

    train: bool
    """By their own mean and variance, of which the running ones are moved."""
    relu: bool
    """And rectified."""
    momentum: float
    eps: float


class Channels(NamedTuple):
    """The channels that a part does together."""

    first: int
    last: int
    pixels: int
    """Of each channel."""
    step: int
    """Pixels that are done at once, at most as many as there are lanes."""


@inlined
def channels_at(group: Any, channels: Any, pixels: Any) -> Any:
    """Return the channels of a group."""
    together = max(1, WIDTH // pixels)
    pieces = -(-pixels // WIDTH)
    step = together * pixels if pieces == 1 else -(-pixels // (UNROLLED * pieces)) * UNROLLED
    return Channels(group * together, min(channels, group * together + together), pixels, step)


@inlined
def groups_of(channels: Any, pixels: Any) -> Any:
    """Return how many groups there are."""
    return -(-channels // max(1, WIDTH // pixels))


@inlined
def lanes_of(at: Any, channel: Any) -> Any:
    """Return the lanes of a channel."""
    start = (channel - at.first) * at.pixels
    return slice(start, min(start + at.pixels, at.step))


@plain
def spread_out(found: Any, weight: Any, bias: Any, at: Any, lanes: Any) -> None:
    """Write mean, scale and shift of the channels to their lanes."""
    kind, inverse = lanes.dtype.type, weight.size
    for c in range(at.first, at.last):
        mean, scale = kind(found[c]), kind(np.float64(weight[c]) * found[inverse + c])
        own = lanes_of(at, c)
        for j in range(own.start, own.stop):
            lanes[j], lanes[SCALE + j], lanes[SHIFT + j] = mean, scale, bias[c]


@inlined
def fetch(x: Any, n: Any, start: Any, stop: Any) -> None:
    """Have these pixels of image n, if there is one, brought to the cache."""
    if n < x.shape[0]:
        for j in range(start, stop, LINE // x.itemsize):
            prefetch_to_read(x[n], j)


@inlined
def fetch_to_write(y: Any, n: Any, start: Any, stop: Any) -> None:
    """Have the place of these pixels of image n, if there is one, brought to the cache."""
    if n < y.shape[0]:
        for j in range(start, stop, LINE // y.itemsize):
            prefetch_to_write(y[n], j)


@inlined
def normalized(x: Any, lanes: Any, j: Any) -> Any:
    """Return ``(x - mean) * scale + shift`` of lane j, to the same bits in all loops."""
    return (x - lanes[j]) * lanes[SCALE + j] + lanes[SHIFT + j]


# --- statistics ----------------------------------------------------------------------------------


@njit(**SUM)
def total(x: Any) -> Any:
    """Return the sum of x."""
    s = 0.0
    for j in range(x.size):
        s += x[j]
    return s


@plain
def differences(x: Any, centres: Any, sums: Any) -> None:
    """Add the differences of x from the centres of the lanes to their sums."""
    for j in range(x.size):
        sums[j] += np.float64(x[j]) - centres[j]


@plain
def squares(x: Any, centres: Any, sums: Any) -> None:
    """Add the squared differences of x from the centres of the lanes to their sums."""
    for j in range(x.size):
        d = np.float64(x[j]) - centres[j]
        sums[j] += d * d


@plain
def statistics(x: Any, at: Any, centres: Any, sums: Any, mean: Any, var: Any) -> None:
    """Write the mean and the biased variance of each channel of a group.

    Means are sums of differences from a first pixel: a common offset costs no digits.
    """
    count, end = x.shape[0] * at.pixels, at.last * at.pixels
    for squared in (False, True):
        sums[:] = 0
        for c in range(at.first, at.last):
            own = lanes_of(at, c)
            centres[own] = mean[c] if squared else np.float64(x[0, c * at.pixels])
        for n in range(x.shape[0]):
            for start in range(at.first * at.pixels, end, at.step):
                stop = min(start + at.step, end)
                piece = x[n, start:stop]
                fetch(x, n + 1, start, stop)
                if squared:
                    squares(piece, centres, sums)
                else:
                    differences(piece, centres, sums)
        for c in range(at.first, at.last):
            own = lanes_of(at, c)
            if squared:
                var[c] = total(sums[own]) / count
            else:
                mean[c] = centres[own.start] + total(sums[own]) / count


# --- value ---------------------------------------------------------------------------------------


@plain
def transform(x: Any, lanes: Any, relu: Any, y: Any) -> None:
    """Write what is normalised to y; with ``relu`` where it is above 0 or NaN, else 0."""
    zero = x.dtype.type(0)
    if relu:
        for j in range(x.size):
            z = normalized(x[j], lanes, j)
            y[j] = zero if z <= zero else z
    else:
        for j in range(x.size):
            y[j] = normalized(x[j], lanes, j)


@compiled_in_parts(PIECES, kind=FLOATS)
def value(
    x: Read2, weight: Read1, bias: Read1, running_mean: Read1, running_var: Read1, rule: Rule,
    found: WrittenDoubles, new_mean: Write1, new_var: Write1, y: Write2, parts: int, part: int,
) -> None:  # fmt: skip
    """Write the normalised images to y, and the new running statistics if it trains.

    ``found`` gets the mean of each channel and then, for each, ``1 / sqrt(variance + eps)``.
    """
    x, y, channels = borrowed(x), borrowed(y), weight.size
    images, pixels = x.shape[0], x.shape[1] // channels
    groups, count = groups_of(channels, pixels), images * pixels
    means, variances = found[:channels], found[channels:]
    lanes, centres, sums = np.empty(3 * APART, x.dtype), np.empty(WIDTH), np.empty(WIDTH)
    for group in range(groups * part // parts, groups * (part + 1) // parts):
        at = channels_at(group, channels, pixels)
        if rule.train:
            statistics(x, at, centres, sums, means, variances)
        for c in range(at.first, at.last):
            if rule.train:
                keep, more = 1 - rule.momentum, rule.momentum * (count / (count - 1))
                new_mean[c] = keep * running_mean[c] + rule.momentum * means[c]
                new_var[c] = keep * running_var[c] + more * variances[c]
            else:
                means[c], variances[c] = running_mean[c], running_var[c]
            variances[c] = 1 / np.sqrt(variances[c] + rule.eps)
        spread_out(found, weight, bias, at, lanes)
        end = at.last * pixels
        for n in range(images):
            for start in range(at.first * pixels, end, at.step):
                stop = min(start + at.step, end)
                fetch_to_write(y, n + 1, start, stop)
                transform(x[n, start:stop], lanes, rule.relu, y[n, start:stop])


# --- gradient ------------------------------------------------------------------------------------


@plain
def sums_with(dy: Any, x: Any, lanes: Any, relu: Any, sums: Any) -> None:
    """Add dy, where it counts, to the sums of the lanes, and ``dy * (x - mean)`` behind them."""
    zero = x.dtype.type(0)
    if relu:
        for j in range(x.size):
            d = np.float64(zero if normalized(x[j], lanes, j) <= zero else dy[j])
            sums[j] += d
            sums[APART + j] += d * (np.float64(x[j]) - np.float64(lanes[j]))
    else:
        for j in range(x.size):
            d = np.float64(dy[j])
            sums[j] += d
            sums[APART + j] += d * (np.float64(x[j]) - np.float64(lanes[j]))


@plain
def input_gradient(dy: Any, x: Any, lanes: Any, relu: Any, means: Any, dx: Any) -> None:
    """Write ``scale * (dy - means[0] - (x - mean) * means[1])`` to dx, of dy where it counts."""
    zero = x.dtype.type(0)
    if relu:
        for j in range(x.size):
            d = zero if normalized(x[j], lanes, j) <= zero else dy[j]
            rest = (x[j] - lanes[j]) * means[APART + j]
            dx[j] = (d - means[j] - rest) * lanes[SCALE + j]
    else:
        for j in range(x.size):
            rest = (x[j] - lanes[j]) * means[APART + j]
            dx[j] = (dy[j] - means[j] - rest) * lanes[SCALE + j]


@compiled_in_parts(PIECES, kind=FLOATS)
def gradient(
    dy: Read2, x: Read2, weight: Read1, bias: Read1, found: Doubles, rule: Rule, dx: Write2,
    dweight: Write1, dbias: Write1, parts: int, part: int,
) -> None:  # fmt: skip
    """Write the gradients of weight and bias, and that of the images if ``dx`` has elements."""
    dy, x, dx, channels = borrowed(dy), borrowed(x), borrowed(dx), weight.size
    images, pixels = x.shape[0], x.shape[1] // channels
    groups, count = groups_of(channels, pixels), images * pixels
    lanes, means = np.empty(3 * APART, x.dtype), np.zeros(2 * APART, x.dtype)
    sums = np.empty(2 * APART)
    for group in range(groups * part // parts, groups * (part + 1) // parts):
        at = channels_at(group, channels, pixels)
        spread_out(found, weight, bias, at, lanes)
        sums[:] = 0
        end = at.last * pixels
        for n in range(images):
            for start in range(at.first * pixels, end, at.step):
                stop = min(start + at.step, end)
                fetch(x, n + 1, start, stop)
                fetch(dy, n + 1, start, stop)
                sums_with(dy[n, start:stop], x[n, start:stop], lanes, rule.relu, sums)
        for c in range(at.first, at.last):
            own, inverse = lanes_of(at, c), found[channels + c]
            even, slope = total(sums[own]), total(sums[APART:][own])
            # The mean that was taken off is rounded: the rest of it is in each of dy.
            slope += even * (np.float64(lanes[own.start]) - found[c])
            dbias[c], dweight[c] = even, slope * inverse
            if rule.train:  # the batch's mean and variance depend on x, too
                means[own] = even / count
                means[APART:][own] = slope * inverse * inverse / count
        for n in range(images if dx.size else 0):
            for start in range(at.first * pixels, end, at.step):
                stop = min(start + at.step, end)
                fetch_to_write(dx, n + 1, start, stop)
                above, below = dy[n, start:stop], dx[n, start:stop]
                input_gradient(above, x[n, start:stop], lanes, rule.relu, means, below)
