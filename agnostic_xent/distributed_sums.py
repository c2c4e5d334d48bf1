"""Sums of gradients over ranks, which start while the backward pass still goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from .arrays import Array, array_namespace, device, library, to_backend, to_numpy, widen
from .communication import Communicator
from .layers import Params

BUCKET = 1 << 18
"""How many numbers are sent together: enough to reach the full bandwidth, and few messages."""


@dataclass(frozen=True)
class _Part:
    """Where an array lies in a buffer, and what its sum is to be like."""

    span: slice
    shape: tuple[int, ...]
    xp: ModuleType
    place: Any
    stays: bool
    """Whether the buffer is of the array's own library."""

    def of(self, buffer: Array, keep: bool) -> Array:
        """Return the part of a buffer, if it may change as a view of it."""
        x = array_namespace(buffer).reshape(buffer[self.span], self.shape)
        return x if self.stays and not keep else to_backend(x, self.xp, self.place)


@dataclass
class _Bucket:
    """Arrays that travel in one flat buffer; their sum is begun when the bucket is full."""

    arrays: Params = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True)
class _Sum:
    """A sum on its way. The arrays themselves are gone: the backward pass needs their memory."""

    buffer: Array
    parts: dict[str, _Part]
    wait: Callable[[], Any]


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
        self._sent: list[_Sum] = []
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
        for sent in self._sent:
            sent.wait()
            sums |= {name: part.of(sent.buffer, keep) for name, part in sent.parts.items()}
        self._sent = []
        return sums

    def _send(self) -> None:
        bucket, self._open = self._open, _Bucket()
        like = next(iter(bucket.arrays.values()))
        key = len(self._sent), bucket.count, str(like.dtype)
        if key not in self._buffers:
            self._buffers[key] = self._communicator.buffer(bucket.count, like)
        buffer, parts, start = self._buffers[key], {}, 0
        for name, x in bucket.arrays.items():
            span = slice(start, start := start + math.prod(x.shape))
            stays = library(x) == library(buffer)
            parts[name] = _Part(span, tuple(x.shape), array_namespace(x), device(x), stays)
            buffer[span] = (x if stays else to_numpy(x)).reshape(-1)
        self._sent.append(_Sum(buffer, parts, self._communicator.start_sum(buffer)))
