"""Arrays of any library: namespace, device, dtype, validation, conversion.

The only file above ``kernels/`` that names an array library.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import array_api_compat
from array_api_compat import device as device

if TYPE_CHECKING:
    import numpy as np

__all__ = ["to_backend", "to_numpy"]

Array: TypeAlias = Any
"""An array of any library that follows the Array API standard."""

INSTALL = {
    "numpy": "numpy",
    "cupy": "agnostic-xent[cuda13]",
    "torch": "torch",
    "jax": "jax",
    "dask": "dask[array]",
    "array_api_strict": "array-api-strict",
}
"""The libraries that the test matrix runs, and what pip installs them by."""


def array_namespace(x: Array) -> ModuleType:
    """Return the Array API namespace of an array."""
    cls = type(x)
    try:
        return _namespaces[cls]
    except KeyError:
        xp = array_api_compat.array_namespace(x)
        if library(x) != "jax":  # among its types, a value tells a zero gradient from an array
            _namespaces[cls] = xp
        return xp


_namespaces: dict[type, ModuleType] = {}


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


def backend(name: str) -> ModuleType:
    """Import an array library by name and return its Array API namespace.

    Raises
    ------
    ValueError
        For another name than those of `INSTALL`.
    ImportError
        If the library is not installed.
    OSError
        If it is CuPy and there is no GPU.
    """
    if name not in INSTALL:
        raise ValueError(f"backend must be one of {', '.join(INSTALL)}; got {name!r}")
    compat = {"numpy", "cupy", "torch", "dask"}
    module = f"array_api_compat.{name}" if name in compat else name
    try:
        check_device(importlib.import_module(name))
        return importlib.import_module(
            {"dask": "array_api_compat.dask.array", "jax": "jax.numpy"}.get(name, module)
        )
    except ImportError as error:
        raise ImportError(
            f"backend {name!r} is not installed; "
            f'python -m pip install "{INSTALL[name]}" installs it ({error})'
        ) from error


def check_device(xp: ModuleType) -> None:
    """Raise OSError if a library is CuPy and has no GPU, without which it makes no array."""
    if xp.__name__.rpartition(".")[2] == "cupy":
        try:
            xp.cuda.runtime.getDeviceCount()
        except RuntimeError as error:
            raise OSError(
                f"CuPy is installed, but there is no GPU that it can use ({error})"
            ) from error


# --- checks of arguments -------------------------------------------------------------------------


def namespace(**arrays: Array | None) -> ModuleType:
    """Return the one namespace of the named arrays; None is passed over.

    Raises
    ------
    TypeError
        If an argument is no array, or the arguments belong to different libraries.
    ValueError
        If the arguments lie on different devices.
    """
    first_name, first = "", None
    for name, x in arrays.items():
        if x is None:
            continue
        if type(x) not in _namespaces and not array_api_compat.is_array_api_obj(x):
            raise TypeError(
                f"{name} must be an array (of NumPy, CuPy, torch, JAX, dask or another library "
                f"that follows the Array API standard), got {type(x).__name__}"
            )
        if first is None:
            first_name, first = name, x
        elif type(x) is type(first) and library(x) == "numpy":
            continue
        elif library(x) != library(first):
            raise TypeError(
                f"{name} is an array of {library(x)} but {first_name} is one of {library(first)}; "
                "pass arrays of one library (agnostic_xent.to_backend converts)"
            )
        elif not is_traced(x) and not is_traced(first) and device(x) != device(first):
            raise ValueError(
                f"{name} is on device {device(x)} but {first_name} is on {device(first)}; "
                "pass arrays of one device (agnostic_xent.to_backend moves them)"
            )
    return array_namespace(first)


def float_namespace(**arrays: Array | None) -> ModuleType:
    """Return the namespace of the named arrays, which must share one real floating dtype."""
    kinds = tuple([(type(x), getattr(x, "dtype", None)) for x in arrays.values()])
    if kinds in _passed:
        return _passed[kinds]
    xp = namespace(**arrays)
    first_name, first = "", None
    for name, x in arrays.items():
        if x is None:
            continue
        if dtype_kind(xp, x.dtype) != "real floating":
            raise TypeError(
                f"{name} must have a real floating dtype such as float32 or float64, got {x.dtype}"
            )
        if first is None:
            first_name, first = name, x
        elif x.dtype != first.dtype:
            raise TypeError(
                f"{name} has dtype {x.dtype} but {first_name} has {first.dtype}; "
                "pass arrays of one dtype (xp.astype converts)"
            )
    if library(first) == "numpy":  # elsewhere a device has to be compared each time
        _passed[kinds] = xp
    return xp


_passed: dict[Any, ModuleType] = {}
"""Types and dtypes of NumPy arguments that went through `float_namespace`."""


@lru_cache
def dtype_kind(xp: ModuleType, dtype: Any) -> str:
    """Return the standard's name of a dtype's kind: "bool", "integral", "real floating", ..."""
    if is_half(dtype):  # NumPy does not count bfloat16 as floating
        return "real floating"
    for kind in ("real floating", "integral", "bool", "complex floating"):
        if xp.isdtype(dtype, kind):
            return kind
    return "other"


def check_ndim(name: str, x: Array, ndim: int, layout: str) -> None:
    """Raise ValueError unless ``x`` has ``ndim`` dimensions."""
    if x.ndim != ndim:
        raise ValueError(
            f"{name} must have {ndim} dimensions {layout}, got {x.ndim} in shape {tuple(x.shape)}"
        )


def check_shape(name: str, x: Array, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless ``x`` has exactly this shape."""
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have shape {shape} ({meaning}), got {tuple(x.shape)}")


def check_axis(x: Array, axis: int, name: str = "x") -> int:
    """Return ``axis`` counted from the front; raise ValueError when ``x`` has no such axis."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"axis must be an integer, got {axis!r}")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"axis {axis} is out of range for {name} of {x.ndim} dimensions "
            f"(accepted: {-x.ndim} to {x.ndim - 1})"
        )
    return int(axis) % int(x.ndim)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def all_below(x: Array, limit: int) -> bool:
    """Tell whether the integers of a NumPy array are all in [0, limit), in one pass."""
    unsigned = x.view(_unsigned(x.dtype))  # which makes negative ones large
    return x.size == 0 or int(unsigned.max()) < limit


@lru_cache
def _unsigned(dtype: Any) -> Any:
    """Return NumPy's unsigned dtype of the same size and byte order."""
    numpy: Any = sys.modules["numpy"]
    return numpy.dtype(dtype.str.replace("i", "u"))


def is_traced(x: Array) -> bool:
    """Tell whether the values of ``x`` are not there to be read: under ``jax.jit``, or in dask."""
    name = library(x)
    return name == "dask" or (name == "jax" and isinstance(x, sys.modules["jax"].core.Tracer))


def quiet() -> AbstractContextManager[Any]:
    """Silence NumPy's warnings: an infinity or NaN that a formula defines is a result."""
    numpy = sys.modules.get("numpy")
    return nullcontext() if numpy is None else numpy.errstate(all="ignore")


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


def generator(rng: int | np.random.Generator | None) -> np.random.Generator:
    """Return the NumPy generator that ``rng`` stands for (SPEC 7): an integer, itself, or fresh."""
    import numpy as np

    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"rng must be an integer >= 0, a numpy.random.Generator or None, got {rng!r}"
        ) from error


def to_numpy(x: Array) -> np.ndarray:
    """Copy an array of any library and device to NumPy (a NumPy array is returned as it is).

    Parameters
    ----------
    x : array
        Of any library, on any device. Dask arrays are computed, torch tensors detached.

    Returns
    -------
    numpy.ndarray
        Same shape and dtype.

    Examples
    --------
    >>> to_numpy(xp.asarray([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    import numpy as np

    if array_api_compat.is_numpy_array(x):
        return x
    if array_api_compat.is_torch_array(x):
        return np.asarray(x.detach().cpu())
    if library(x) == "array_api_strict":  # reads by buffer or DLPack from its CPU device alone
        return np.asarray(x.to_device(array_namespace(x).Device("CPU_DEVICE")))
    return x.get() if array_api_compat.is_cupy_array(x) else np.asarray(x)


def to_backend(params: Any, xp: ModuleType, device: Any = None) -> Any:
    """Copy arrays to another library or device.

    Parameters
    ----------
    params : array or (nested) dict of arrays
        Of any library.
    xp : module
        The library to convert to: ``numpy``, ``cupy``, ``torch``, ``jax.numpy``, or its
        array-api-compat namespace.
    device : optional
        A device of that library; None means its default.

    Returns
    -------
    array or dict
        The same values, shapes and dtypes, never sharing memory with ``params``.

    Raises
    ------
    TypeError
        If the library cannot hold the dtype (JAX without ``jax_enable_x64``).
    OSError
        If the library is CuPy and there is no GPU.

    Examples
    --------
    >>> import numpy as np
    >>> float(to_backend({"0.bias": xp.asarray([0.5])}, np)["0.bias"][0])
    0.5
    """
    if isinstance(params, Mapping):
        return {name: to_backend(x, xp, device) for name, x in params.items()}
    if hasattr(params, "__sklearn_array_api_convert__"):  # an estimator: a copy of it
        return params.__sklearn_array_api_convert__(lambda x: to_backend(x, xp, device))
    namespace(params=params)
    check_device(xp)
    host = to_numpy(params).copy()
    result = _compat(xp).asarray(host, device=device)
    if str(result.dtype).rpartition(".")[2] != str(host.dtype):
        raise TypeError(
            f"{library(result)} turned an array of {host.dtype} into {result.dtype}; "
            "for 64-bit arrays in JAX set jax_enable_x64"
        )
    return result


def uploaded(batches: Iterator[tuple[Array, ...]], like: Array) -> Iterator[tuple[Array, ...]]:
    """Return batches with the parts that NumPy holds moved to where ``like`` is."""
    if library(like) == "numpy":
        return batches
    if library(like) == "cupy":  # which computes on one batch while the next one is copied
        moved = importlib.import_module(f"{__package__}.kernels.uploads").overlapped
        return cast(Iterator[tuple[Array, ...]], moved(batches, device(like)))
    xp, place = array_namespace(like), device(like)
    return (
        tuple([to_backend(x, xp, place) if library(x) == "numpy" else x for x in batch])
        for batch in batches
    )


def _compat(xp: ModuleType) -> ModuleType:
    """Return the standard's namespace for a library given by its own module, such as ``torch``."""
    return xp if hasattr(xp, "__array_namespace_info__") else array_namespace(xp.empty(0))
