"""Sums of gradients over ranks, which start while the backward pass still goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from array_api_compat import is_writeable_array

from ...core.arrays import Array, array_namespace, device, widen
from ...core.communication import Communicator
from ...core.conversion import backend, to_backend, to_numpy
from ...network.layers import Params

LARGE = 1 << 18
"""How many numbers are sent by themselves: enough to reach the full bandwidth."""


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


@dataclass(frozen=True)
class _Sum:
    """A sum on its way."""

    buffer: Array
    parts: dict[str, _Part]
    wait: Callable[[], Any]


class GradientSums:
    """Adds up the arrays of a step over the ranks.

    A large array is summed where it lies, as soon as it is there. Small ones go together in flat
    buffers, as do those that the ranks cannot read; the next step uses the buffers again.

    Parameters
    ----------
    communicator : Communicator
        The ranks; all have to `add` arrays of the same names, shapes and dtypes in one order.
    """

    def __init__(self, communicator: Communicator):
        self._communicator = communicator
        self._buffers: dict[tuple[int, int, str], Array] = {}
        self._sent: list[_Sum] = []
        self._small: Params = {}
        self._small_count = 0

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Take in arrays, which may be written to; begin their sum when there is enough to send."""
        for name, x in arrays.items():
            x = widen(x)
            count = math.prod(x.shape)
            if count >= LARGE:
                self._send({name: x}, count)
                continue
            if self._small and next(iter(self._small.values())).dtype != x.dtype:
                self._send_small()
            self._small[name] = x
            self._small_count += count
            if self._small_count >= LARGE:
                self._send_small()

    def finish(self, *, keep: bool = False) -> Params:
        """Return the sums of all arrays of a step; of half precision in float32.

        Unless ``keep``, they may lie in the buffers, which the next step writes to.
        """
        if self._small:
            self._send_small()
        sums: Params = {}
        for sent in self._sent:
            sent.wait()
            sums |= {name: part.of(sent.buffer, keep) for name, part in sent.parts.items()}
        self._sent = []
        return sums

    def _send_small(self) -> None:
        self._send(self._small, self._small_count)
        self._small, self._small_count = {}, 0

    def _send(self, arrays: Params, count: int) -> None:
        first, *others = arrays.values()
        readable, start = self._communicator.reads(first), 0
        in_place = readable and not others and _holds_its_memory(first)
        buffer = first.reshape(-1) if in_place else self._buffer(count, first, readable)
        parts = {}
        for name, x in arrays.items():
            span = slice(start, start := start + math.prod(x.shape))
            parts[name] = _Part(span, tuple(x.shape), array_namespace(x), device(x), readable)
            if not in_place:
                buffer[span] = (x if readable else to_numpy(x)).reshape(-1)
        self._sent.append(_Sum(buffer, parts, self._communicator.start_sum(buffer)))

    def _buffer(self, count: int, like: Array, readable: bool) -> Array:
        """Return the buffer of the sum that is started next."""
        key = len(self._sent), count, str(like.dtype)
        if key not in self._buffers and readable:
            xp = array_namespace(like)
            self._buffers[key] = xp.empty(count, dtype=like.dtype, device=device(like))
        elif key not in self._buffers:
            dtype = str(like.dtype).rpartition(".")[2]
            self._buffers[key] = backend("numpy").empty(count, dtype=dtype)
        return self._buffers[key]


def _holds_its_memory(x: Array) -> bool:
    """Tell whether an array of NumPy or CuPy has all of its memory, in order, and may change it."""
    flags = getattr(x, "flags", None)  # which no other library has
    whole = flags is not None and flags.c_contiguous and not isinstance(x.base, type(x))
    return whole and is_writeable_array(x)
