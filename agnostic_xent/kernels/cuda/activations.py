"""The kernels of the activations of elements: one read and one write."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...operation import OPERATIONS, Implementation, Pullback
from .device import LIBRARY, contiguous, is_array, xp
from .launching import Kernel, cuda

THREADS = 256
PER_THREAD = 4  # elements


def takes(x: Any, **options: Any) -> str | None:
    """Say why an array is not taken, if it is not."""
    if not is_array(x):
        return f"it takes {xp.__name__}.ndarray, not {type(x).__name__}"
    return None if x.dtype.str in ("<f4", "<f8") else f"it takes float32 and float64, not {x.dtype}"


def relu(x: Any, y: Any, n: int) -> None:
    """Write max(x, 0); NaN stays NaN."""
    i = cuda.blockIdx.x * THREADS * PER_THREAD + cuda.threadIdx.x
    for _ in range(PER_THREAD):
        if i < n:
            v = x[i]
            y[i] = type(v)(0) if v <= 0 else v
        i += THREADS


def relu_gradient(x: Any, dy: Any, dx: Any, n: int) -> None:
    """Write dy where x is not below 0, else 0."""
    i = cuda.blockIdx.x * THREADS * PER_THREAD + cuda.threadIdx.x
    for _ in range(PER_THREAD):
        if i < n:
            v = dy[i]
            dx[i] = type(v)(0) if x[i] <= 0 else v
        i += THREADS


@functools.cache
def kernel(function: Callable[..., None], code: str) -> Kernel:
    """Return a kernel for a dtype's code; all its parameters but the last are arrays."""
    arrays = function.__code__.co_argcount - 1
    return Kernel(function, f"{code}* " * arrays + "i8", THREADS, 8)


def run(function: Callable[..., None], *arrays: Any) -> Any:
    """Return what a kernel writes of arrays of one shape."""
    y = xp.empty(arrays[0].shape, arrays[0].dtype)
    blocks = -(-y.size // (THREADS * PER_THREAD))
    if blocks:
        kernel(function, y.dtype.str[1:])(blocks, *map(contiguous, arrays), y, y.size)
    return y


def relu_vjp(x: Any) -> tuple[Any, Pullback]:
    """Return the value and its pullback."""
    return run(relu, x), lambda dy: (run(relu_gradient, x, dy),)


OPERATIONS["relu"].add_kernel(
    LIBRARY, Implementation("CUDA", functools.partial(run, relu), relu_vjp, takes)
)
