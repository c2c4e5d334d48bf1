"""The CUDA kernels for NumPy arrays, which go to the GPU and come back: a package of kernels.

Imported in place of the CPU's, so that the tests of the simulator run on a GPU as they stand.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from agnostic_xent.core.operation import OPERATIONS, ROUTINES, Implementation, load_kernels


def to_gpu(x: np.ndarray) -> Any:
    """Return a copy on the GPU with the same strides, as far from a multiple of 16 bytes."""
    cp = importlib.import_module("cupy")
    if not x.size or not x.dtype.isnative:
        return cp.asarray(x)
    low, high = np.lib.array_utils.byte_bounds(x)
    memory = (np.ctypeslib.ctypes.c_ubyte * (high - low)).from_address(low)
    there = cp.empty(low % 16 + high - low, cp.uint8)
    there[low % 16 :] = cp.asarray(np.frombuffer(memory, np.uint8))
    start = there.data + (low % 16 + x.ctypes.data - low)
    return cp.ndarray(x.shape, x.dtype, memptr=start, strides=x.strides)


def to_numpy(x: Any) -> Any:
    """Return an array of the GPU as NumPy's; anything else as it is."""
    return x.get() if type(x).__module__.partition(".")[0] == "cupy" else x


def mapped(found: Any, change: Callable[[Any], Any]) -> Any:
    """Return a structure of arguments or results with its leaves changed."""
    if isinstance(found, (tuple, list)):
        return type(found)(mapped(x, change) for x in found)
    return change(found)


def across(
    function: Callable[..., Any], there: Callable[[Any], Any], back: Callable[[Any], Any]
) -> Callable[..., Any]:
    """Let a function, and the functions that it returns, take arrays there and give them back."""

    def go(x: Any) -> Any:
        return there(x) if isinstance(x, np.ndarray) else x

    def come(x: Any) -> Any:
        return across(x, there, back) if callable(x) else back(x)

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        options = {name: mapped(x, go) for name, x in options.items()}
        return mapped(function(*mapped(args, go), **options), come)

    return called


def bridged(kernel: Implementation) -> Implementation:
    """Return a kernel of CuPy arrays as one of NumPy arrays."""
    value, vjp, takes = (
        across(f, to_gpu, to_numpy) for f in (kernel.value, kernel.vjp, kernel.takes)
    )
    return dataclasses.replace(kernel, value=value, vjp=vjp, takes=takes)


if __name__ == "on_gpu":
    if os.environ.get("AGNOSTIC_XENT_TEST_POOL") == "0":  # so that memcheck knows each array's end
        importlib.import_module("cupy").cuda.set_allocator(None)
    why = load_kernels("cupy")
    assert why is None, why
    for operation in (OPERATIONS | ROUTINES).values():
        for kernel in operation._kernels.get("cupy", ()):
            operation.add_kernel("numpy", bridged(kernel))
