"""CUDA graphs: steps, and functions of arrays of a known shape, captured by CuPy and replayed.

A capture records on a stream of its own what kernels would do, in memory that the graph keeps. A
replay runs on the current stream, behind the copies of the batch that it works on.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ...core.plans import PLANNERS, Constants, NoPlan, Plan, Planner, Step
from .toolchain import dtypes
from .toolchain.capturing import Capture
from .toolchain.device import LIBRARY, SIMULATED, on_its_device, register_routine, xp


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


# --- functions as plans --------------------------------------------------------------------------


class Graph:
    """A function of arrays like one, which reads and writes at the same places each time."""

    def __init__(self, function: Callable[[Any], Any], like: Any):
        self.x = xp.zeros(like.shape, like.dtype)
        self.y: Any = None
        self.capture = Capture()

        def step() -> None:
            self.y = function(self.x)

        self.capture.run(step)  # which also compiles, and loads, what the recording may not
        self.launch = record(self.capture, step)

    def __call__(self, x: Any) -> Any:
        """Return the value for x."""
        self.x[...] = x
        self.launch()
        return self.y.copy()


class GraphPlan:
    """The graphs of a function, one a stream, on which its copies and launches run in order."""

    def __init__(self, function: Callable[[Any], Any], like: Any):
        self.function = function
        self.graphs: dict[int, Graph] = {}
        self.lock = threading.Lock()
        """Copies and launch of a thread stay together."""
        self.value = on_its_device(self._value)
        self.value(like)

    def _value(self, x: Any) -> Any:
        stream = 0 if SIMULATED else xp.cuda.get_current_stream().ptr
        with self.lock:
            if stream not in self.graphs:
                self.graphs[stream] = Graph(self.function, x)
            return self.graphs[stream](x)

    @property
    def size(self) -> int:
        """Bytes that the graphs keep beside samples and value."""
        return sum(graph.capture.size for graph in self.graphs.values())

    def __call__(self, x: Any) -> Any:
        """Return the value for the samples x."""
        return self.value(x)

    def steps(self, x: Any) -> list[Step]:
        """Return what is done to the samples: a graph is one step."""
        start = time.perf_counter()
        float(self(x).reshape(-1)[0])  # which waits for it
        return [Step("CUDA graph", 1, time.perf_counter() - start)]


_told: set[str] = set()
"""Reasons that have been told in a warning."""


def captured_plan(function: Callable[[Any], Any], x: Any, constants: Constants) -> Plan:
    """Return the plan of a function for arrays like x, or raise NoPlan if it cannot be captured."""
    try:
        return GraphPlan(function, x)
    except Exception as error:  # of a device or driver, whatever its type
        why = f"no CUDA graph was captured: {type(error).__name__}: {error}"
        if why not in _told:
            _told.add(why)
            warnings.warn(f"predictions run layer by layer; {why}", RuntimeWarning, stacklevel=2)
        raise NoPlan(why) from error


register_routine("captured_step", captured_step, dtypes.takes)
PLANNERS[LIBRARY] = Planner(captured_plan, in_pieces=False, kept=8)
