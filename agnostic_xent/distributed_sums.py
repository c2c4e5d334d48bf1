"""Sums of gradients over ranks, which start while the backward pass still goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .arrays import Array, array_namespace, device, library, to_backend, to_numpy, widen
from .communication import Communicator
from .layers import Params

BUCKET = 1 << 18
"""How many numbers are sent together: enough to reach the full bandwidth, and few messages."""


@dataclass
class _Bucket:
    """Arrays that travel in one flat buffer; their sum is begun when the bucket is full."""

    arrays: Params = field(default_factory=dict)
    count: int = 0
    buffer: Array = None
    wait: Callable[[], Any] = lambda: None


class GradientSums:
    """Adds up the arrays of a step over the ranks, in few flat buffers that the next step reuses.

    Parameters
    ----------
    communicator : Communicator
        The ranks; all have to `add` arrays of the same names, shapes and dtypes in one order.
    """

    def __init__(self, communicator: Communicator):
        self._communicator = communicator
        self._buffers: dict[tuple[int, int, str], Array] = {}
        self._sent: list[_Bucket] = []
        self._open = _Bucket()

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Take in arrays; begin their sum when enough have come together."""
        for name, x in arrays.items():
            x = widen(x)
            if any(other.dtype != x.dtype for other in self._open.arrays.values()):
                self._send()
            self._open.arrays[name] = x
            self._open.count += math.prod(x.shape)
            if self._open.count >= BUCKET:
                self._send()

    def finish(self, *, keep: bool = False) -> Params:
        """Return the sums of all arrays of a step; of half precision in float32.

        Unless ``keep``, they may lie in the buffers, which the next step writes to.
        """
        if self._open.arrays:
            self._send()
        sums: Params = {}
        for bucket in self._sent:
            bucket.wait()
            for name, x, span in _spans(bucket.arrays):
                sums[name] = _taken(bucket.buffer[span], x, keep)
        self._sent = []
        return sums

    def _send(self) -> None:
        bucket, self._open = self._open, _Bucket()
        like = next(iter(bucket.arrays.values()))
        key = len(self._sent), bucket.count, str(like.dtype)
        if key not in self._buffers:
            self._buffers[key] = self._communicator.buffer(bucket.count, like)
        bucket.buffer = self._buffers[key]
        for _, x, span in _spans(bucket.arrays):
            here = library(x) == library(bucket.buffer)
            bucket.buffer[span] = (x if here else to_numpy(x)).reshape(-1)
        bucket.wait = self._communicator.start_sum(bucket.buffer)
        self._sent.append(bucket)


def _spans(arrays: Params) -> list[tuple[str, Array, slice]]:
    """Return where each array lies in the buffer."""
    found, start = [], 0
    for name, x in arrays.items():
        stop = start + math.prod(x.shape)
        found.append((name, x, slice(start, stop)))
        start = stop
    return found


def _taken(flat: Array, like: Array, keep: bool) -> Array:
    """Return a part of a buffer in shape and library of the array that it is the sum of."""
    x = array_namespace(flat).reshape(flat, like.shape)
    if library(x) != library(like) or keep:
        return to_backend(x, array_namespace(like), device(like))
    return x
