"""The kernels of batch normalization: sums over each channel, and what becomes of each element.

Images (N, C, H, W) are N * C planes of ``plane`` pixels, cut in pieces of at most PIECE pixels, of
which a warp does one after the other. A channel's pieces are shared out to ``parts`` blocks, whose
number the problem decides; the warps of the next kernel add the parts' sums in a fixed order.

``found`` holds mean and ``inverse = 1 / sqrt(var + eps)`` of each channel. A training step takes
two means off a cotangent, of ``dy`` and of ``dy * unit`` with ``unit = (x - mean) * inverse``. With
``relu`` the value is rectified, and a cotangent counts where the value is not 0: it is found again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import I8, Kernel, codes_of
from ..toolchain.ptx import get, narrow, put, shuffle_xor, widen
from ..toolchain.teams import LANES, cuda, device, exchange, team_sum

THREADS = 256
WARPS = THREADS // LANES
AT_ONCE = 8  # pixels that a lane waits for together
STEP = LANES * AT_ONCE
PIECE = 4 * STEP


class Extent(NamedTuple):
    """How many images there are, channels of each, and pixels of a plane."""

    images: I8
    channels: I8
    plane: I8


@device
def divided(k: Any, n: Any) -> Any:
    """Return k // n and k % n, by a division of 32 bits: one of 64 is a call."""
    times = np.int64(np.uint32(k) // np.uint32(n))
    return times, k - times * n


@device
def piece_of(k: Any, pieces: Any, first_plane: Any, planes: Any, plane: Any) -> Any:
    """Return where piece k of every ``planes``-th plane, from the first on, starts and ends."""
    image, piece = divided(k, pieces)
    start = (image * planes + first_plane) * plane
    return start + piece * PIECE, start + min(piece * PIECE + PIECE, plane)


@device
def normalized(v: Any, mean: Any, scale: Any, shift: Any) -> Any:
    """Return ``(v - mean) * scale + shift``, to the same bits in all kernels."""
    return (v - mean) * scale + shift


# --- mean and variance ---------------------------------------------------------------------------
# Of some numbers: their count, their sum, and that of squared differences to their mean


@device
def merge(
    count: Any, total: Any, spread: Any, more: Any, other_total: Any, other_spread: Any
) -> Any:
    """Return count, total and spread of two sets together (Chan, Golub and LeVeque 1979)."""
    kind = type(spread)
    if more == 0:
        return count, total, spread
    if count == 0:
        return more, other_total, other_spread
    both = count + more
    delta = kind(other_total) / more - kind(total) / count
    spread += other_spread + delta * delta * (count * (more / both))
    return both, total + other_total, spread


@device
def team_merge(count: Any, total: Any, spread: Any, room: Any, t: Any, team: Any) -> Any:
    """Return count, total and spread of the numbers of all threads of a warp or a block."""
    step = 1
    while step < LANES:
        more, other_total = shuffle_xor(count, step), shuffle_xor(total, step)
        other_spread = shuffle_xor(spread, step)
        count, total, spread = merge(count, total, spread, more, other_total, other_spread)
        step *= 2
    if team > LANES:
        count = exchange(count, room, t, team)
        total = exchange(total, room, t, team)
        spread = exchange(spread, room, t, team)
        step = 1
        while step < team // LANES:
            more, other_total = shuffle_xor(count, step), shuffle_xor(total, step)
            other_spread = shuffle_xor(spread, step)
            count, total, spread = merge(count, total, spread, more, other_total, other_spread)
            step *= 2
    return count, total, spread


def make_moments(code: str) -> Callable[..., None]:
    """Return the kernel that writes each part's count, sum and spread: ``sums`` is (3, parts, C).

    A common offset costs no digits: sums are of differences to the channel's first number.
    """
    kind: Any = WIDE[code]

    def moments(x: Any, sums: Any, images: int, channels: int, plane: int) -> None:
        room = cuda.shared.array(32, np.float64)
        v = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        part, parts = np.int64(cuda.blockIdx.y), np.int64(cuda.gridDim.y)
        channel, pieces = np.int64(cuda.blockIdx.x), (plane + PIECE - 1) // PIECE
        pivot = widen(get(x, channel * plane))
        if pivot - pivot != 0:  # it is not finite
            pivot = kind(0)
        count, total, spread = kind(0), 0.0, kind(0)
        for k in range(part * WARPS + t // LANES, images * pieces, parts * WARPS):
            start, end = piece_of(k, pieces, channel, channels, plane)
            for i in range(start + t % LANES, end, STEP):
                held, few, apart = kind(0), kind(0), kind(0)
                for u in range(AT_ONCE):
                    v[u] = kind(0)
                    if i + u * LANES < end:
                        v[u] = widen(get(x, i + u * LANES)) - pivot
                        held += kind(1)
                for u in range(AT_ONCE):
                    few += v[u]
                for u in range(AT_ONCE):
                    if i + u * LANES < end:
                        d = v[u] - few / held
                        apart += d * d
                count, total, spread = merge(count, total, spread, held, np.float64(few), apart)
        numbers, total, spreads = team_merge(
            np.float64(count), total, np.float64(spread), room, t, THREADS
        )
        if t == 0:
            place, next_sum = part * channels + channel, parts * channels
            put(sums, place, numbers)
            put(sums, place + next_sum, total + numbers * pivot)
            put(sums, place + 2 * next_sum, spreads)

    return moments


@device
def of_parts(sums: Any, parts: Any, channels: Any, channel: Any, room: Any, t: Any) -> Any:
    """Return count, mean and spread of a channel, of which each part has written its own."""
    count, total, spread, next_sum = 0.0, 0.0, 0.0, parts * channels
    for part in range(t % LANES, parts, LANES):
        count += get(sums, part * channels + channel)
        total += get(sums, part * channels + channel + next_sum)
    count = team_sum(count, room, t, LANES)
    mean = team_sum(total, room, t, LANES) / count
    for part in range(t % LANES, parts, LANES):
        i = part * channels + channel
        apart = get(sums, i + next_sum) / get(sums, i) - mean
        spread += get(sums, i + 2 * next_sum) + get(sums, i) * apart * apart
    return count, mean, team_sum(spread, room, t, LANES)


def make_transform(code: str) -> Callable[..., None]:
    """Return the kernel that writes ``y = (x - mean) * (weight * inverse) + bias``, or its ReLU.

    Each warp finds mean and variance of its channel itself, which takes less time than a kernel
    more. That of a channel's first pixels writes ``found``, and the new running statistics.
    """
    kind: Any = WIDE[code]

    def transform(
        x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, sums: Any, found: Any,
        new_mean: Any, new_var: Any, y: Any, planes: int, channels: int, plane: int, parts: int,
        momentum: float, eps: float, train: int, relu: int,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(1, np.float64)
        v = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        pieces = (plane + PIECE - 1) // PIECE
        k = np.int64(cuda.blockIdx.x) * WARPS + t // LANES
        if k >= planes * pieces:  # all of a warp
            return
        channel = divided(divided(k, pieces)[0], channels)[1]
        writes = k == channel * pieces and t % LANES == 0
        average = np.float64(widen(get(running_mean, channel)))
        var = np.float64(widen(get(running_var, channel)))
        if train:
            old_mean, old_var = average, var
            count, average, spread = of_parts(sums, parts, channels, channel, room, t)
            var, unbiased = spread / count, spread / (count - 1)
            if writes:
                moved = (1 - momentum) * old_mean + momentum * average
                put(new_mean, channel, narrow(new_mean, kind(moved)))
                moved = (1 - momentum) * old_var + momentum * unbiased
                put(new_var, channel, narrow(new_var, kind(moved)))
        inverse = (var + eps) ** -0.5
        if writes:
            put(found, channel, average)
            put(found, channels + channel, inverse)
        mean, shift = kind(average), widen(get(bias, channel))
        scale = kind(np.float64(widen(get(weight, channel))) * inverse)
        start, end = piece_of(k, pieces, 0, 1, plane)
        for i in range(start + t % LANES, end, STEP):
            for u in range(AT_ONCE):
                if i + u * LANES < end:
                    v[u] = widen(get(x, i + u * LANES))
            for u in range(AT_ONCE):
                if i + u * LANES < end:
                    z = normalized(v[u], mean, scale, shift)
                    if relu and z <= 0:
                        z = kind(0)
                    put(y, i + u * LANES, narrow(y, z))

    return transform


# --- gradients -----------------------------------------------------------------------------------


def make_products(code: str) -> Callable[..., None]:
    """Return the kernel that writes each part's sums of dy and dy * unit: (2, parts, C)."""
    kind: Any = WIDE[code]

    def products(
        x: Any, dy: Any, weight: Any, bias: Any, found: Any, sums: Any, images: int, channels: int,
        plane: int, relu: int,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, np.float64)
        v = cuda.local.array(AT_ONCE, kind)
        dv = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        part, parts = np.int64(cuda.blockIdx.y), np.int64(cuda.gridDim.y)
        channel, pieces = np.int64(cuda.blockIdx.x), (plane + PIECE - 1) // PIECE
        mean = kind(get(found, channel))
        inverse = kind(get(found, channels + channel))
        shift = widen(get(bias, channel))
        scale = kind(np.float64(widen(get(weight, channel))) * get(found, channels + channel))
        total, product = 0.0, 0.0
        for k in range(part * WARPS + t // LANES, images * pieces, parts * WARPS):
            start, end = piece_of(k, pieces, channel, channels, plane)
            for i in range(start + t % LANES, end, STEP):
                few, few_products = kind(0), kind(0)
                for u in range(AT_ONCE):
                    v[u], dv[u] = mean, kind(0)
                    if i + u * LANES < end:
                        v[u] = widen(get(x, i + u * LANES))
                        dv[u] = widen(get(dy, i + u * LANES))
                for u in range(AT_ONCE):
                    if relu and normalized(v[u], mean, scale, shift) <= 0:
                        dv[u] = kind(0)
                    few += dv[u]
                    if i + u * LANES < end:
                        few_products += dv[u] * ((v[u] - mean) * inverse)
                total += few
                product += few_products
        total = team_sum(total, room, t, THREADS)
        product = team_sum(product, room, t, THREADS)
        if t == 0:
            put(sums, part * channels + channel, total)
            put(sums, (parts + part) * channels + channel, product)

    return products


def make_gradient(code: str) -> Callable[..., None]:
    """Return the kernel of dx, where a channel's first warp writes dbias and dweight, too.

    In training, the means of dy and of dy * unit are taken off.
    """
    kind: Any = WIDE[code]

    def gradient(
        x: Any, dy: Any, weight: Any, bias: Any, found: Any, sums: Any, dx: Any, dweight: Any,
        dbias: Any, planes: int, channels: int, plane: int, parts: int, count: float, train: int,
        relu: int,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(1, np.float64)
        v = cuda.local.array(AT_ONCE, kind)
        dv = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        pieces = (plane + PIECE - 1) // PIECE
        k = np.int64(cuda.blockIdx.x) * WARPS + t // LANES
        if k >= planes * pieces:
            return
        channel = divided(divided(k, pieces)[0], channels)[1]
        total, product = 0.0, 0.0
        for part in range(t % LANES, parts, LANES):
            total += get(sums, part * channels + channel)
            product += get(sums, (parts + part) * channels + channel)
        total = team_sum(total, room, t, LANES)
        product = team_sum(product, room, t, LANES)
        if k == channel * pieces and t % LANES == 0:
            put(dbias, channel, narrow(dbias, kind(total)))
            put(dweight, channel, narrow(dweight, kind(product)))
        mean, inverse = kind(get(found, channel)), get(found, channels + channel)
        scale = kind(np.float64(widen(get(weight, channel))) * inverse)
        even, slope, shift = kind(0), kind(0), widen(get(bias, channel))
        if train:  # the batch's mean and variance depend on x, too
            even, slope = kind(total / count), kind(product / count)
        start, end = piece_of(k, pieces, 0, 1, plane)
        for i in range(start + t % LANES, end, STEP):
            for u in range(AT_ONCE):
                if i + u * LANES < end:
                    dv[u] = widen(get(dy, i + u * LANES))
                    if train or relu:
                        v[u] = widen(get(x, i + u * LANES))
            for u in range(AT_ONCE):
                if i + u * LANES < end:
                    d = dv[u]
                    if relu and normalized(v[u], mean, scale, shift) <= 0:
                        d = kind(0)
                    if train:
                        d = d - even - (v[u] - mean) * kind(inverse) * slope
                    put(dx, i + u * LANES, narrow(dx, d * scale))

    return gradient


# --- made ----------------------------------------------------------------------------------------


@functools.cache
def kernels_of(code: str) -> dict[str, Kernel]:
    """Return the kernels for elements of the dtype ``code`` by their names, made once."""
    x, extent = f"{code}*", codes_of(Extent)
    made = {
        make_moments: f"{x} f8* {extent}",
        make_transform: f"{x} {x} {x} {x} {x} f8* f8* {x} {x} {x} i8 i8 i8 i8 f8 f8 i4 i4",
        make_products: f"{x} {x} {x} {x} f8* f8* {extent} i4",
        make_gradient: f"{x} {x} {x} {x} f8* f8* {x} {x} {x} i8 i8 i8 i8 f8 i4 i4",
    }
    found = {}
    for make, parameters in made.items():
        function = make(code)
        function.__qualname__ = function.__name__
        found[function.__name__] = Kernel(function, parameters, THREADS, 2 if code == "f8" else 4)
    return found


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [kernel for code in WIDE for kernel in kernels_of(code).values()]
