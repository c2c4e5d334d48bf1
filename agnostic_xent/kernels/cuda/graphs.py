"""Steps that are captured in a CUDA graph by CuPy, and replayed.

A capture records on a stream of its own what kernels would do, in memory that the graph keeps. A
replay runs on the current stream, behind the copies of the batch that it works on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from .toolchain import dtypes
from .toolchain.capturing import Capture
from .toolchain.device import SIMULATED, register_routine, xp


def captured_step(arrays: Sequence[Any], step: Callable[[], Any]) -> Callable[[float, int], None]:
    """Take a step on the arrays' device; return the function that replays it."""
    capture = Capture()
    capture.run(step)  # which also compiles, and loads, what the recording may not
    launch = record(capture, step)

    def replay(rate: float, later: int) -> None:
        capture.write(rate, later)
        launch()

    return replay


def record_on_gpu(capture: Capture, step: Callable[[], Any]) -> Callable[[], None]:
    """Record a step in a CUDA graph; return the function that launches it."""
    device, stream = xp.cuda.Device(), xp.cuda.Stream(non_blocking=True)
    xp.get_default_memory_pool().free_all_blocks()  # the graph needs as much of its own
    with xp.cuda.using_allocator(xp.cuda.MemoryPool(capture.allocate).malloc), stream:
        stream.begin_capture()
        try:
            capture.run(step, records=True)
        except BaseException:
            with contextlib.suppress(Exception):  # what was recorded is no use, nor its end
                stream.end_capture()
            raise
        graph = stream.end_capture()

    def launch() -> None:
        with device:
            graph.launch()

    return launch


def record_in_simulator(capture: Capture, step: Callable[[], Any]) -> Callable[[], None]:
    """Return the function that takes the step anew, since the simulator records nothing."""
    return lambda: capture.run(step)


record = record_in_simulator if SIMULATED else record_on_gpu

register_routine("captured_step", captured_step, dtypes.takes)
