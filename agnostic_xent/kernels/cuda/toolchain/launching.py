"""A kernel and its launch: on CuPy's current stream, from bare pointers, without waiting."""

from __future__ import annotations

import ctypes
import functools
import importlib
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeAlias, get_type_hints

import numpy as np
from numba import cuda as _cuda

from ....core.operation import NoKernels
from .capturing import CAPTURING
from .device import SIMULATED, most_shared, xp

cuda: Any = _cuda  # Numba is typed in part only

Grid = int | tuple[int, ...]

I4: TypeAlias = Annotated[int, "i4"]
I8: TypeAlias = Annotated[int, "i8"]
"""An integer of 4 or 8 bytes, as a field of a struct whose numbers are handed to a kernel."""


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
    shared : callable, optional
        Returns the bytes of shared memory of a block, from the arguments of a launch, besides
        those that the function names itself.
    """

    def __init__(
        self,
        function: Callable[..., None],
        parameters: str,
        threads: int,
        blocks: int,
        shared: Callable[..., int] | None = None,
    ):
        self.function, self.parameters = function, parameters
        self.threads, self.blocks, self.shared = threads, blocks, shared
        self._loaded: dict[int, Callable[..., None]] = {}
        KERNELS.append(self)

    def __repr__(self) -> str:
        return f"<kernel {self.function.__name__}({self.parameters})>"

    def __call__(self, grid: Grid, *args: Any) -> None:
        """Start the blocks of a grid; arrays are contiguous, None is a pointer to nothing."""
        grid = (grid, 1, 1) if isinstance(grid, int) else (*grid, 1, 1)[:3]
        if CAPTURING.now is not None:
            CAPTURING.now.hold(args)
        launch(self, grid, args)

    @functools.cached_property
    def arguments(self) -> Arguments:
        """Where the arguments of a launch are written."""
        return Arguments(self.parameters)

    def loaded(self) -> Callable[..., None]:
        """Return the function as the current device has it; raise NoKernels if that cannot be."""
        device = xp.cuda.runtime.getDevice()
        if device not in self._loaded:
            try:
                self._loaded[device] = self._load(device)
            except Exception as error:  # of any of the compilers, the assembler or the driver
                name = self.function.__name__
                why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                raise NoKernels(
                    f"the kernel {name} cannot be compiled or loaded ({why})"
                ) from error
        return self._loaded[device]

    def _load(self, device: int) -> Callable[..., None]:
        from .compiling import machine_code

        capability = divmod(int(xp.cuda.Device(device).compute_capability), 10)
        bounds = self.threads, self.blocks
        name, cubin = machine_code(capability, self.function, self.parameters, bounds)
        module = xp.cuda.function.Module()
        module.load(cubin)
        function = module.get_function(name)
        make_room(function, self.shared is not None, self.blocks)
        found: Callable[..., None] = function
        return found


def make_room(function: Any, dynamic: bool, blocks: int) -> None:
    """Ask for the shared memory that a kernel needs.

    For all that a block can have, where its size is that of a launch; and for what so many blocks
    take on a multiprocessor, if that is much: else the driver decides how much of it is a cache.
    """
    driver = xp.cuda.driver
    shared = driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function.ptr)
    if dynamic:  # more than 48 KB have to be asked for
        most = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        driver.funcSetAttribute(function.ptr, most, most_shared() - shared)
    if dynamic or blocks * shared > MUCH:
        carveout = driver.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
        driver.funcSetAttribute(function.ptr, carveout, 100)  # percent


MUCH = 64 << 10  # bytes


def load(*kernels: Kernel) -> None:
    """Compile and load kernels before any of them runs, or raise NoKernels."""
    for kernel in kernels:
        if not SIMULATED:
            kernel.loaded()


KERNELS: list[Kernel] = []
"""Every kernel, for those who compile or check them all."""


def codes_of(struct: type, floats: str = "") -> str:
    """Return the types of a NamedTuple's fields as parameters of a kernel: "i4 i8 f4".

    Fields are I4, I8, or float, whose type is ``floats``. A launch unpacks them.
    """
    hints = get_type_hints(struct, include_extras=True).values()
    return " ".join(floats if hint is float else hint.__metadata__[0] for hint in hints)


def number_types(parameters: str) -> list[Any]:
    """Return NumPy's type of each parameter, None for pointers."""
    return [None if "*" in code else np.dtype(code).type for code in parameters.split()]


# --- on a GPU ------------------------------------------------------------------------------------


class Arguments:
    """Memory for a kernel's arguments, all written at once; the driver reads them at a launch.

    Else CuPy makes an object of each argument, which costs more than all else of a launch.
    """

    def __init__(self, parameters: str):
        codes = [
            "P" * int(code.partition("*")[2] or 1) if kind is None else np.dtype(kind).char
            for code, kind in zip(parameters.split(), number_types(parameters), strict=True)
        ]
        layout = "".join(codes)
        self._layout = struct.Struct(f"@{layout}")
        self._memory = ctypes.create_string_buffer(self._layout.size)
        ends = [struct.calcsize(f"@{layout[:i]}") for i in range(1, len(layout) + 1)]
        starts = [end - struct.calcsize(code) for end, code in zip(ends, layout, strict=True)]
        first, pointer = ctypes.addressof(self._memory), xp.cuda.function.CPointer
        self.pointers = [pointer(first + start) for start in starts]
        """What CuPy passes on to the driver: where each argument is."""
        self.lock = threading.Lock()
        """To be held from the writing until the driver has read."""

    def write(self, args: Iterable[Any]) -> None:
        """Write addresses of arrays, and numbers; raise struct.error where one does not fit."""
        values: list[Any] = []
        for x in args:
            kind = type(x)
            if kind is xp.ndarray:
                values.append(x.data.ptr)
            elif kind is tuple:
                values += [0 if array is None else array.data.ptr for array in x]
            else:
                values.append(0 if x is None else x)
        self._layout.pack_into(self._memory, 0, *values)


def launch_on_gpu(kernel: Kernel, grid: tuple[int, ...], args: Sequence[Any]) -> None:
    """Start a kernel on CuPy's current stream."""
    function, arguments = kernel.loaded(), kernel.arguments
    shared = kernel.shared(*args) if kernel.shared else 0
    with arguments.lock:
        arguments.write(args)
        function(grid, (kernel.threads, 1, 1), arguments.pointers, shared)


# --- in the simulator ----------------------------------------------------------------------------


def launch_in_simulator(kernel: Kernel, grid: tuple[int, ...], args: Sequence[Any]) -> None:
    """Run a kernel in the simulator; arrays must be contiguous, and numbers fit their types."""
    arrays: Any = importlib.import_module("numba.cuda.simulator.cudadrv.devicearray")

    def pointer(x: Any) -> Any:
        x = np.empty(0) if x is None else x
        assert x.flags.c_contiguous, "a kernel takes contiguous arrays alone"
        return arrays.FakeWithinKernelCUDAArray(arrays.FakeCUDAArray(x.reshape(-1)))

    values: list[Any] = []
    for kind, x in zip(number_types(kernel.parameters), args, strict=True):
        if kind is None:
            values.append(tuple(map(pointer, x)) if isinstance(x, tuple) else pointer(x))
        else:
            struct.pack(np.dtype(kind).char, x)  # as on a GPU
            assert kind(x) == x or x != x, f"{x} does not fit {kind.__name__}"
            values.append(kind(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a GPU does not warn of infinities
        shared = kernel.shared(*args) if kernel.shared else 0
        cuda.jit(kernel.function)[grid, kernel.threads, 0, shared](*values)


launch = launch_in_simulator if SIMULATED else launch_on_gpu
