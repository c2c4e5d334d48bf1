"""A GPU that is this CPU: what the kernels use of CuPy, over NumPy, with PTX for machine code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat.numpy
import numpy as np

from .program import Program

CAPABILITY = 90
SHARED = 227 * 1024  # bytes


class MemoryPointer:
    """An address in memory of the device."""

    device_id = 0

    def __init__(self, memory: np.ndarray, offset: int = 0):
        self.memory, self.offset = memory, offset
        self.ptr = memory.ctypes.data + offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.memory, self.offset + offset)


class ndarray(np.ndarray):
    """An array of the device."""

    __module__ = "cupy"

    def __new__(
        cls, shape: Any, dtype: Any, memptr: MemoryPointer, strides: Any = None
    ) -> np.ndarray:
        memory, offset = memptr.memory, memptr.offset
        return super().__new__(cls, shape, dtype, np.asarray(memory), offset, strides)

    @property
    def data(self) -> MemoryPointer:  # type: ignore[override]
        """Where the first element is."""
        return MemoryPointer(self)

    def get(self) -> np.ndarray:
        """Return a copy on the host."""
        return np.array(self)

    def __array_wrap__(self, found: Any, *args: Any) -> Any:
        return there(found)

    def __getitem__(self, key: Any) -> Any:
        return there(super().__getitem__(key))


def there(x: Any) -> Any:
    """Return NumPy's arrays and scalars as arrays of the device, in lists of them as well."""
    if type(x) in (tuple, list):
        return type(x)(map(there, x))
    return np.asarray(x).view(ndarray) if isinstance(x, (np.ndarray, np.generic)) else x


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Return an array of NaN: of what was there before, the right numbers may be left."""
    x = np.empty(shape, dtype)
    x.reshape(-1).view(np.uint8)[:] = 0xFF
    return there(x)


class Namespace(ModuleType):
    """A namespace of NumPy, whose functions return arrays of the device."""

    def __init__(self, name: str, of: ModuleType, **own: Any):
        super().__init__(name)
        self._of = of
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found) or isinstance(found, type):
            return found
        return lambda *args, **options: there(found(*args, **options))


class Module:
    """A kernel that is loaded."""

    def load(self, code: bytes) -> None:
        """Take the PTX of a kernel, in place of a GPU's machine code."""
        self.program = Program(code.decode())

    def get_function(self, name: str) -> Function:
        """Return the function that launches the kernel."""
        assert name == self.program.entry.name

        return Function(self.program)


class Function:
    """What launches a kernel."""

    ptr = 0

    def __init__(self, program: Program):
        self.program = program

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        parameters: Sequence[int],
        shared: int,
    ) -> None:
        """Launch the kernel, with so many bytes of shared memory besides its own."""
        Launched.count += 1
        self.program.launch(grid, block, parameters, Launched.arrays, shared, Launched.count)


class Launched:
    """The arrays of the launch that runs, and how many there were."""

    arrays: Sequence[np.ndarray] = ()
    count = 0


def launch(kernel: Any, grid: tuple[int, ...], args: Sequence[Any]) -> None:
    """Launch a kernel as on a GPU, and let it touch the arrays among its arguments alone."""
    flat = (x for arg in args for x in (arg if isinstance(arg, tuple) else (arg,)))
    Launched.arrays = [x for x in flat if isinstance(x, np.ndarray)]
    importlib.import_module(f"{TOOLCHAIN}.launching").launch_on_gpu(kernel, grid, args)


class Driver:
    """Attributes of kernels, which tell nothing and change nothing here."""

    def __getattr__(self, name: str) -> str:
        return name

    def funcGetAttribute(self, name: str, kernel: int) -> int:
        """Return the bytes of shared memory of a kernel, as if it had none."""
        return 0

    def funcSetAttribute(self, name: str, kernel: int, value: int) -> None:
        """Set an attribute of a kernel."""


TOOLCHAIN = "agnostic_xent.kernels.cuda.toolchain"


def machine_code(*kernel: Any) -> tuple[str, bytes]:
    """Return a kernel's name and, in place of machine code, its PTX."""
    code = importlib.import_module("tests.ptx.compiled").compiled(*kernel)
    return code.name, code.ptx.encode()


def install() -> None:
    """Take CuPy's place; before the kernels are imported."""
    device = SimpleNamespace(
        id=0,
        compute_capability=str(CAPABILITY),
        attributes={"MaxSharedMemoryPerBlockOptin": SHARED},
    )
    runtime = SimpleNamespace(
        is_hip=False, getDeviceCount=lambda: 1, getDevice=lambda: 0, CUDARuntimeError=OSError
    )
    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(
        runtime=runtime, Device=lambda number=0: device, get_current_stream=lambda: stream,
        function=SimpleNamespace(Module=Module, CPointer=int), is_available=lambda: False,
        using_allocator=lambda malloc: nullcontext(), driver=Driver(),
    )  # fmt: skip
    sys.modules["cupy"] = Namespace(
        "cupy", np, ndarray=ndarray, cuda=cuda, empty=empty,
        empty_like=lambda x: empty(x.shape, x.dtype),
    )  # fmt: skip
    arrays = importlib.import_module("agnostic_xent.core.arrays")
    arrays._namespaces[ndarray] = Namespace("cupy", array_api_compat.numpy)
    importlib.import_module(f"{TOOLCHAIN}.compiling").machine_code = machine_code
    importlib.import_module(f"{TOOLCHAIN}.launching").launch = launch
