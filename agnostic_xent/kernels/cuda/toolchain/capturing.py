"""What kernels know of a step that is captured in a CUDA graph: what changes, and what stays.

A replay starts each kernel with the arguments that it was captured with. So the numbers that change
from step to step lie on the device, parameters and the optimizer's state are written in place, and
arrays that were there before, such as the kernels' tables, are kept for as long as the graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from .device import is_array, xp

Numbers = Callable[[float, int], tuple[float, ...]]
"""(learning rate, how many steps later) -> numbers."""


class Capture:
    """A step that is taken over and over, and what its replays need."""

    def __init__(self) -> None:
        self._numbers: list[tuple[Any, Numbers]] = []
        self._asked = 0
        self._memory: list[Any] = []
        self._held: list[Any] = []
        self._records = False

    def run(self, step: Callable[[], Any], *, records: bool = False) -> None:
        """Take ``step``; ``records``: a stream only records what it would do."""
        self._asked, self._records, CAPTURING.now = 0, records, self
        try:
            step()
        finally:
            CAPTURING.now, self._records = None, False

    def on_device(self, numbers: Numbers, rate: float, dtype: Any) -> Any:
        """Return an array of this step's numbers on the device, to which later ones are written."""
        if self._asked == len(self._numbers):
            if self._records:
                raise RuntimeError("the step asks for other numbers than the one before")
            values = numbers(rate, 0)
            self._numbers.append((xp.empty(len(values), dtype), numbers))
            write(self._numbers[-1][0], values)
        self._asked += 1
        return self._numbers[self._asked - 1][0]

    def write(self, rate: float, later: int) -> None:
        """Write the numbers of the step that is ``later``, with its rate, to the device."""
        for place, numbers in self._numbers:
            write(place, numbers(rate, later))

    def allocate(self, size: int) -> Any:
        """Return ``size`` bytes of new memory, which live as long as the graph."""
        self._memory.append(xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0))
        return self._memory[-1]

    @property
    def size(self) -> int:
        """Bytes of the graph's memory."""
        return sum(int(block.mem.size) for block in self._memory)

    def hold(self, args: Iterable[Any]) -> None:
        """Keep the arrays among a launch's arguments that were there before the recording."""
        for x in args if self._records else ():
            if isinstance(x, tuple):
                self.hold(x)
            elif is_array(x) and not any(
                0 <= x.data.ptr - new.ptr < new.mem.size for new in self._memory
            ):
                self._held.append(x)


def write(place: Any, values: tuple[float, ...]) -> None:
    """Write ``values`` to ``place`` on the device, each as an argument of a kernel."""
    for i, value in enumerate(values):
        place[i] = value


class Capturing(threading.local):
    """The capture that runs in this thread, if one does."""

    now: Capture | None = None


CAPTURING = Capturing()
