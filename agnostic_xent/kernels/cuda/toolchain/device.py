"""Where the kernels run: on the GPU over CuPy arrays, or in Numba's simulator over NumPy arrays.

The simulator (``NUMBA_ENABLE_CUDASIM=1``) runs every kernel on the CPU, for tests on small shapes.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from importlib import util
from typing import Any

from ....core.operation import (
    OPERATIONS,
    ROUTINES,
    Implementation,
    NoKernels,
    Operation,
    Pullback,
)
from ....core.requirements import installing
from ...compiler import config

SIMULATED = bool(config.ENABLE_CUDASIM)

LIBRARY = "numpy" if SIMULATED else "cupy"
"""The library whose arrays the kernels take."""

CAPABILITY = 80
"""The least compute capability, in tenths, whose instructions the kernels use."""

GRID = 1 << 31
"""A grid has fewer blocks than this."""

if util.find_spec("numba_cuda") is None:
    raise NoKernels(
        "the kernels need numba-cuda, which is not installed; "
        f"{installing('numba-cuda[cu13]')} installs it"
    )
try:
    xp: Any = importlib.import_module(LIBRARY)
except ImportError as error:
    raise NoKernels(f"the kernels need CuPy, which cannot be imported ({error})") from error


def count_devices() -> int:
    """Return the number of devices; raise NoKernels unless the kernels can run on all of them."""
    if SIMULATED:
        return 1
    runtime = xp.cuda.runtime
    if runtime.is_hip:
        raise NoKernels("the kernels are written for CUDA, and this CuPy is built for ROCm")
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError:  # none: kernels can be compiled all the same
        return 0
    for device in map(xp.cuda.Device, range(count)):
        if int(device.compute_capability) < CAPABILITY:
            raise NoKernels(
                f"the kernels need compute capability {CAPABILITY / 10}, "
                f"device {device.id} has {int(device.compute_capability) / 10}"
            )
    return count


DEVICES = count_devices()


def most_shared() -> int:
    """Return the bytes of shared memory that a block may have on the current device."""
    return 227 * 1024 if SIMULATED else _most_shared(xp.cuda.runtime.getDevice())  # of an H100


@functools.cache
def _most_shared(device: int) -> int:
    """Ask a device once: CuPy asks it for everything."""
    return int(xp.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"])


def is_array(x: Any) -> bool:
    """Return whether an array is one that the kernels take, and no subclass of it."""
    return type(x) is xp.ndarray


def contiguous(x: Any) -> Any:
    """Return x, or a copy of it, with its elements in C order."""
    return xp.ascontiguousarray(x)


def uploaded(x: Any) -> Any:
    """Return a table of the host on the current device, where kernels of every stream may read it.

    It is used on streams that know nothing of its copy, so that one is waited for. And they may
    still read it when nobody holds it any more. So it lies in memory of its own, for whose end the
    driver waits until the device is through with what it was given.
    """
    if SIMULATED:
        return xp.asarray(x)
    with xp.cuda.using_allocator(own_memory):
        there = xp.asarray(x)
    xp.cuda.get_current_stream().synchronize()
    return there


def own_memory(size: int) -> Any:
    """Return new memory that is in no pool."""
    return xp.cuda.MemoryPointer(xp.cuda.Memory(size), 0)


# --- registered ----------------------------------------------------------------------------------


def register(
    name: str,
    value: Callable[..., Any],
    vjp: Callable[..., Any],
    takes: Callable[..., str | None],
    *options: str,
    fits: Callable[..., bool] | None = None,
    describe: Callable[..., str] | None = None,
) -> None:
    """Let kernels that know some options stand in for an operation.

    They run on the device where its first array lies. ``fits`` returns whether they can run on the
    shapes of a call, at which ``takes`` may not look; where they cannot, the portable definition
    runs.
    """
    if fits is not None:
        portable = OPERATIONS[name].portable
        value = where(fits, value, portable.value)
        vjp = where(fits, vjp, portable.vjp if portable.sees_wrt else without_wrt(portable.vjp))
    value, vjp = on_its_device(value), on_its_device(or_portably(OPERATIONS[name], vjp))
    kernel = Implementation("CUDA", value, vjp, takes, describe=describe, options=options)
    OPERATIONS[name].add_kernel(LIBRARY, kernel)


def or_portably(
    operation: Operation[..., Any], vjp: Callable[..., Any]
) -> Callable[..., tuple[Any, Pullback]]:
    """Return the ``vjp`` whose first pullback runs portably if it cannot be compiled or loaded."""
    proven = set()

    @functools.wraps(vjp)
    def first(*arrays: Any, **options: Any) -> tuple[Any, Pullback]:
        value, pullback = vjp(*arrays, **options)
        kind = options.get("wrt"), arrays[0].dtype
        if kind in proven:  # nothing is held that the pullback does not need itself
            return value, pullback

        def tried(cotangent: Any) -> tuple[Any, ...]:
            try:
                gradients: tuple[Any, ...] = pullback(cotangent)
            except NoKernels as error:
                operation.set_aside(LIBRARY, error)
                portable = operation.portable.vjp
                if not operation.portable.sees_wrt:
                    portable = without_wrt(portable)
                gradients = portable(*arrays, **options)[1](cotangent)
            proven.add(kind)
            return gradients

        return value, tried

    return first


def register_routine(
    name: str, value: Callable[..., Any], takes: Callable[..., str | None], *options: str
) -> None:
    """Let kernels that know some options stand in for a routine, on its first array's device."""
    kernel = Implementation("CUDA", on_its_device(value), takes=takes, options=options)
    ROUTINES[name].add_kernel(LIBRARY, kernel)


def where(
    fits: Callable[..., bool], function: Callable[..., Any], other: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the function that runs ``function`` on arguments that fit, and else ``other``."""

    @functools.wraps(function)
    def chosen(*arrays: Any, **options: Any) -> Any:
        return (function if fits(*arrays, **options) else other)(*arrays, **options)

    return chosen


def without_wrt(vjp: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``vjp`` that is told which gradients are wanted, and computes all of them."""
    return lambda *arrays, wrt=None, **options: vjp(*arrays, **options)


def in_blocks_of(elements: int) -> Callable[..., bool]:
    """Return a ``fits`` for kernels whose blocks each do that many elements of the first array."""
    return lambda x, *arrays, **options: x.size < elements * GRID


def on_its_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function, and the pullback that it returns, on the device of its first array.

    Else new arrays and launches would go to whichever device is current.
    """

    @functools.wraps(function)
    def there(*args: Any, **options: Any) -> Any:
        if DEVICES == 1:
            return function(*args, **options)
        with first_array(args).device:
            found = function(*args, **options)
        if isinstance(found, tuple) and callable(found[-1]):
            return *found[:-1], on_its_device(found[-1])
        return found

    return function if SIMULATED else there


def first_array(args: Iterable[Any]) -> Any:
    """Return the first array among arguments and in lists of them."""
    arrays = (x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else (arg,)))
    return next(filter(is_array, arrays))
