"""Plans on CuPy: a function of an array of a known shape as a CUDA graph.

A graph reads and writes at the same places each time, so samples are copied there, and the value is
copied from there. All of that is put on the current stream, where it runs in order; each stream has
a graph of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ...core.plans import PLANNERS, Constants, Plan, Planner, Step
from . import graphs
from .toolchain.capturing import Capture
from .toolchain.device import LIBRARY, SIMULATED, on_its_device, xp


class Graph:
    """A function of a shape, recorded."""

    def __init__(self, function: Callable[[Any], Any], like: Any):
        self.x = xp.zeros(like.shape, like.dtype)
        self.y: Any = None
        self.capture = Capture()

        def step() -> None:
            self.y = function(self.x)

        self.capture.run(step)  # which also compiles, and loads, what the recording may not
        self.launch = graphs.record(self.capture, step)

    def __call__(self, x: Any) -> Any:
        """Return the value for x."""
        self.x[...] = x
        self.launch()
        return self.y.copy()


class GraphPlan:
    """The graphs of a function, one a stream."""

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


def captured_plan(function: Callable[[Any], Any], x: Any, constants: Constants) -> Plan | None:
    """Return the plan of a function for arrays like x; None if it cannot be captured."""
    try:
        return GraphPlan(function, x)
    except Exception:  # of a device or driver, whatever its type
        return None


PLANNERS[LIBRARY] = Planner(captured_plan, in_pieces=False, kept=8)
