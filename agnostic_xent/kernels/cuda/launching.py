"""A kernel and its launch: on CuPy's current stream, from bare pointers, without waiting."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import cuda as _cuda

from .device import SIMULATED, xp

cuda: Any = _cuda  # Numba is typed in part only

Grid = int | tuple[int, ...]


class Kernel:
    """A function that all threads of a grid run; compiled at its first launch on a device.

    Parameters
    ----------
    function : callable
        Plain Python for Numba; its parameters are pointers to elements, and numbers.
    parameters : str
        The types of its parameters in NumPy's codes: ``"f4* f4* i4"``; ``f4*8`` are 8 pointers.
    threads : int
        Threads in a block.
    blocks : int
        Blocks that shall fit a multiprocessor at once: the limit on registers.
    """

    def __init__(self, function: Callable[..., None], parameters: str, threads: int, blocks: int):
        self.function, self.parameters = function, parameters
        self.threads, self.blocks = threads, blocks
        self._numbers = [
            None if "*" in code else np.dtype(code).type for code in parameters.split()
        ]
        self._loaded: dict[int, Any] = {}
        KERNELS.append(self)

    def __repr__(self) -> str:
        return f"<kernel {self.function.__name__}({self.parameters})>"

    def __call__(self, grid: Grid, *args: Any) -> None:
        """Start the blocks of a grid; arrays are contiguous, None is a pointer to nothing."""
        grid = (grid, 1, 1) if isinstance(grid, int) else (*grid, 1, 1)[:3]
        launch(self, grid, args)

    def loaded(self) -> Any:
        """Return the function as the current device has it."""
        device = xp.cuda.runtime.getDevice()
        if device not in self._loaded:
            from .compiling import machine_code

            capability = divmod(int(xp.cuda.Device(device).compute_capability), 10)
            bounds = self.threads, self.blocks
            name, cubin = machine_code(capability, self.function, self.parameters, bounds)
            module = xp.cuda.function.Module()
            module.load(cubin)
            self._loaded[device] = module.get_function(name)
        return self._loaded[device]


KERNELS: list[Kernel] = []
"""Every kernel, for those who compile or check them all."""


def launch_on_gpu(kernel: Kernel, grid: tuple[int, ...], args: Sequence[Any]) -> None:
    """Start a kernel on CuPy's current stream."""
    values: list[Any] = []
    for kind, x in zip(kernel._numbers, args, strict=True):
        if kind is None:
            arrays = x if isinstance(x, tuple) else (x,)
            values += [0 if a is None else a.data.ptr for a in arrays]
        else:
            values.append(kind(x))
    kernel.loaded()(grid, (kernel.threads, 1, 1), values)


def launch_in_simulator(kernel: Kernel, grid: tuple[int, ...], args: Sequence[Any]) -> None:
    """Run a kernel on the CPU, with checks that no array argument hides a copy."""
    arrays: Any = importlib.import_module("numba.cuda.simulator.cudadrv.devicearray")

    def pointer(x: Any) -> Any:
        x = np.empty(0) if x is None else x
        assert x.flags.c_contiguous, "a kernel takes contiguous arrays alone"
        return arrays.FakeWithinKernelCUDAArray(arrays.FakeCUDAArray(x.reshape(-1)))

    values: list[Any] = []
    for kind, x in zip(kernel._numbers, args, strict=True):
        if kind is None:
            values.append(tuple(map(pointer, x)) if isinstance(x, tuple) else pointer(x))
        else:
            assert kind(x) == x or x != x, f"{x} does not fit {kind.__name__}"
            values.append(kind(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a GPU does not warn of infinities
        cuda.jit(kernel.function)[grid, kernel.threads](*values)


launch = launch_in_simulator if SIMULATED else launch_on_gpu
