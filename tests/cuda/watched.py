"""NumPy arrays that pass for arrays of a GPU, in the simulator: reads and copies are noted.

What a GPU must be waited for, or is sent, cannot be seen on NumPy arrays themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy
import numpy as np

from agnostic_xent.core import arrays
from agnostic_xent.core.operation import OPERATIONS, ROUTINES, load_kernels
from agnostic_xent.kernels import cuda
from agnostic_xent.kernels.cuda.toolchain import launching

NOTES: list[str] = []
"""What the host has read from arrays, and sent to them."""

SIZE_DEPENDS_ON_VALUES = {"nonzero", "flatnonzero", "argwhere", "unique", "extract", "compress"}


class ndarray(np.ndarray):
    """An array whose values are on a GPU: reading them is noted."""

    __module__ = "cupy"
    data = SimpleNamespace(device_id=0)

    def __array_wrap__(self, found: Any, *args: Any) -> Any:
        return there(found)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if any(hasattr(k, "dtype") and k.dtype.kind == "b" for k in keys):
            NOTES.append("read by a mask")
        return there(super().__getitem__(key))


def noted(name: str) -> Callable[..., Any]:
    """Return the method ``name`` of NumPy's arrays, which notes that it reads."""

    def read(self: Any, *args: Any) -> Any:
        NOTES.append(f"read by {name}")
        return getattr(np.asarray(self), name)(*args)

    return read


for name in ("__bool__", "__float__", "__int__", "__index__", "__complex__", "item", "tolist"):
    setattr(ndarray, name, noted(name))


def there(x: Any) -> Any:
    """Return NumPy's arrays and scalars as watched arrays, in lists of them as well."""
    if isinstance(x, (tuple, list)):
        return type(x)(map(there, x)) if type(x) in (tuple, list) else x
    return np.asarray(x).view(ndarray) if isinstance(x, (np.ndarray, np.generic)) else x


def here(x: Any) -> Any:
    """Return watched arrays as NumPy's, which kernels in the simulator take."""
    if isinstance(x, tuple):
        return tuple(map(here, x))
    return np.asarray(x) if isinstance(x, ndarray) else x


class Namespace:
    """A namespace of NumPy over watched arrays."""

    ndarray = ndarray

    def __init__(self, of: Any):
        self._of = of
        self.__name__ = of.__name__

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found) or isinstance(found, type):
            return found

        def function(*args: Any, **options: Any) -> Any:
            if name in SIZE_DEPENDS_ON_VALUES:
                NOTES.append(f"read by {name}")
            sends = name in ("array", "asarray") and not isinstance(args[0], ndarray)
            if sends and np.ndim(args[0]):  # a number is an argument of a kernel
                NOTES.append(f"sent {np.shape(args[0])}")
            return there(found(*args, **options))

        return function


def install(monkeypatch: Any, namespace: type[Namespace] = Namespace) -> None:
    """Let the kernels run on watched arrays."""
    assert load_kernels("numpy") is None
    xp = namespace(np)
    for found in pkgutil.walk_packages(cuda.__path__, f"{cuda.__name__}."):
        module = importlib.import_module(found.name)
        if getattr(module, "xp", None) is np:
            monkeypatch.setattr(module, "xp", xp)
    launch = launching.launch
    monkeypatch.setattr(launching, "launch", lambda k, grid, args: launch(k, grid, here(args)))
    monkeypatch.setitem(arrays._namespaces, ndarray, namespace(array_api_compat.numpy))
    for operation in (OPERATIONS | ROUTINES).values():
        kernels = operation._kernels.get("numpy", [])
        monkeypatch.setitem(operation._kernels, "cupy", kernels)
