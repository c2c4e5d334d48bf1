"""Arrays of any library: namespace, device, dtype, and what is told of them at a glance.

Above ``kernels/``, this file, ``conversion.py`` and ``sparse.py`` alone name an array library.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat
from array_api_compat import device as device

from .forks import as_a_whole

Array: TypeAlias = Any
"""An array of any library that follows the Array API standard."""

INSTALL = {
    "numpy": ("numpy",),
    "cupy": ("cupy-cuda13x[ctk]", "numba-cuda[cu13]"),
    "torch": ("torch",),
    "jax": ("jax",),
    "dask": ("dask[array]",),
    "array_api_strict": ("array-api-strict",),
}
"""The libraries that the test matrix runs, and what pip installs for them."""


MASKED = (
    "masked arrays are not taken, since their mask would be ignored; "
    "use their filled() or compressed()"
)
"""What is said of masked arrays of NumPy."""


def array_namespace(x: Array) -> ModuleType:
    """Return the Array API namespace of an array."""
    cls = type(x)
    try:
        return _namespaces[cls]
    except KeyError:
        if is_masked(x):
            raise TypeError(MASKED) from None
        if library(x) not in _loaded:
            as_a_whole(lambda: array_api_compat.array_namespace(x))
            _loaded.add(library(x))
        xp = array_api_compat.array_namespace(x)
        if library(x) != "jax":  # among its types, a value tells a zero gradient from an array
            _namespaces[cls] = xp
        return xp


_namespaces: dict[type, ModuleType] = {}
_loaded: set[str] = set()
"""Libraries whose modules of namespaces are there; a package half loaded stays so for good."""


def is_array(x: Any) -> bool:
    """Return whether an object is an array of a library that follows the standard."""
    return type(x) in _namespaces or (array_api_compat.is_array_api_obj(x) and not is_masked(x))


def is_masked(x: Any) -> bool:
    """Return whether x is a masked array of NumPy, whose operations would ignore the mask."""
    masked = sys.modules.get("numpy.ma")
    # a module that another thread is importing has no names yet
    return isinstance(x, getattr(masked, "MaskedArray", ()))


def library(x: Array) -> str:
    """Return the name of the library that an array's type belongs to, such as "numpy"."""
    cls: Any = type(x)
    return _library_of_type(cls)


@lru_cache
def _library_of_type(cls: Any) -> str:
    module: str = cls.__module__
    for base in cls.__mro__:  # a subclass such as numpy.memmap or a user's own counts as its base
        root: str = base.__module__.partition(".")[0]
        if root in INSTALL:
            return root
    return {"jaxlib": "jax"}.get(module.partition(".")[0], module)


def has_known_device(x: Array) -> bool:
    """Tell whether it costs little to know where an array lies: one of NumPy or CuPy."""
    return library(x) in ("numpy", "cupy")


def device_number(x: Any) -> int | None:
    """Return the number of the device of an array of CuPy, None for anything else."""
    return x.data.device_id if library(x) == "cupy" else None


def alike(x: Array, y: Any) -> bool:
    """Tell at a glance whether two arrays of NumPy or CuPy are of one dtype, shape and device."""
    if library(x) != library(y) or not has_known_device(x):
        return False
    same = x.dtype is y.dtype and x.shape == y.shape
    return same and device_number(x) == device_number(y)


@lru_cache
def dtype_kind(xp: ModuleType, dtype: Any) -> str:
    """Return the standard's name of a dtype's kind: "bool", "integral", "real floating", ..."""
    if is_half(dtype):  # NumPy does not count bfloat16 as floating
        return "real floating"
    for kind in ("real floating", "integral", "bool", "complex floating"):
        if xp.isdtype(dtype, kind):
            return kind
    return "other"


def all_below(x: Array, limit: int) -> bool:
    """Return whether the integers of a NumPy array are all in [0, limit), in one pass."""
    unsigned, negative = _unsigned(x.dtype)
    return x.size == 0 or int(x.view(unsigned).max()) < min(limit, negative)


@lru_cache
def _unsigned(dtype: Any) -> tuple[Any, int]:
    """Return NumPy's unsigned dtype of the same size and byte order, and where negatives begin."""
    numpy: Any = sys.modules["numpy"]
    return numpy.dtype(dtype.str.replace("i", "u")), int(numpy.iinfo(dtype).max) + 1


def is_compiling() -> bool:
    """Tell whether ``torch.compile`` or ``torch.export`` follows the code.

    They know neither context variables nor NumPy's error state.
    """
    # a module that another thread is importing has no names yet
    compiler = getattr(sys.modules.get("torch"), "compiler", None)
    return compiler is not None and bool(compiler.is_compiling())


def is_traced(x: Array) -> bool:
    """Tell whether the values of ``x`` are not there to be read.

    So it is in dask, and where ``jax.jit``, ``torch.compile`` or ``torch.export`` follows the code.
    """
    name = library(x)
    if name == "torch":
        return is_compiling()
    return name == "dask" or (name == "jax" and isinstance(x, sys.modules["jax"].core.Tracer))


def is_true(x: Any) -> bool:
    """Return whether a boolean scalar is true; False where its value is not there to be read.

    torch says so in an error alone: under ``torch.func.vmap``, of fake and of meta tensors.
    """
    if is_traced(x):
        return False
    try:
        return bool(x)
    except RuntimeError:
        if library(x) != "torch":
            raise
        return False


def quiet() -> AbstractContextManager[Any]:
    """Silence NumPy's warnings: an infinity or NaN that a formula defines is a result."""
    numpy = sys.modules.get("numpy")
    return nullcontext() if numpy is None or is_compiling() else numpy.errstate(all="ignore")


def is_dask(x: Array) -> bool:
    """Tell whether ``x`` is a graph of tasks, to be fetched piece by piece."""
    return array_api_compat.is_dask_array(x)


# --- making arrays -------------------------------------------------------------------------------


def constant(value: float, like: Array) -> Array:
    """Return a scalar array of the library, device and dtype of ``like``."""
    return array_namespace(like).asarray(value, dtype=like.dtype, device=device(like))


def widen(x: Array) -> Array:
    """Return half-precision numbers as float32, in which everything is summed; others as is."""
    if not is_half(x.dtype):
        return x
    xp = array_namespace(x)
    return xp.astype(x, xp.float32)


def narrow(y: Array, like: Array) -> Array:
    """Return a result in the dtype of the argument that it was widened from."""
    return y if y.dtype == like.dtype else array_namespace(y).astype(y, like.dtype)


@lru_cache(typed=True)  # the dtypes of two libraries can hash alike and dislike a comparison
def is_half(dtype: Any) -> bool:
    """Tell whether a dtype is float16 or bfloat16."""
    return str(dtype).rpartition(".")[2] in ("float16", "bfloat16")
