"""Array libraries by name, and arrays that move from one library or device to another."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import array_api_compat
from array_api_compat import device as device

from .arrays import INSTALL, Array, array_namespace, library
from .checks import namespace
from .requirements import installing, missing

if TYPE_CHECKING:
    import numpy as np

__all__ = ["to_backend", "to_numpy"]

BACKENDS = ("numpy", "cupy", "torch", "jax")
"""The libraries that a training may be asked to run on by name."""


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
            f"backend {name!r} is not installed; {installing(*INSTALL[name])} installs it ({error})"
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

    Raises
    ------
    ImportError
        If a torch tensor is of bfloat16, and the package ml_dtypes, by which NumPy knows this
        dtype, is not installed.
    TypeError
        If NumPy has no such dtype.

    Examples
    --------
    >>> to_numpy(xp.asarray([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    import numpy as np

    if array_api_compat.is_numpy_array(x):
        return x
    if array_api_compat.is_torch_array(x):
        return _from_torch(x.detach().cpu())
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
    host = to_numpy(params)
    host = host.astype(host.dtype.newbyteorder("="), order="C")  # a copy
    result = _placed(host, _compat(xp), device)
    if str(result.dtype).rpartition(".")[2] != str(host.dtype):
        raise TypeError(
            f"{library(result)} turned an array of {host.dtype} into {result.dtype}; "
            "for 64-bit arrays in JAX set jax_enable_x64"
        )
    return result


def detached(x: Any) -> Any:
    """Return arrays, also those in a dict, without torch's record of how they came about.

    What has gradients of its own needs none: a record would keep the arrays of every step.
    """
    if isinstance(x, Mapping):
        return {name: detached(inner) for name, inner in x.items()}
    return x.detach() if library(x) == "torch" and x.requires_grad else x


def _from_torch(x: Array) -> np.ndarray:
    """Return a tensor on the host as an array that shares its memory."""
    import numpy as np

    if str(x.dtype) == "torch.bfloat16":  # torch hands out the bits alone
        return np.asarray(x.view(array_namespace(x).int16)).view(bfloat16())
    try:
        return np.asarray(x)
    except TypeError as error:
        raise TypeError(f"NumPy cannot hold a tensor of {x.dtype}: {error}") from error


def _placed(host: np.ndarray, xp: ModuleType, device: Any) -> Array:
    """Return an array of NumPy as one of another library."""
    if host.dtype.name == "bfloat16" and xp.__name__.endswith("torch"):  # it takes the bits alone
        return xp.asarray(host.view("int16"), device=device).view(xp.bfloat16)
    return xp.asarray(host, device=device)


def bfloat16() -> np.dtype[Any]:
    """Return the dtype that NumPy has by the package ml_dtypes."""
    import numpy as np

    try:
        import ml_dtypes
    except ImportError as error:
        raise missing("bfloat16 in NumPy", "ml_dtypes") from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def uploaded(batches: Iterator[tuple[Array, ...]], like: Array) -> Iterator[tuple[Array, ...]]:
    """Return batches with the parts that NumPy holds moved to where ``like`` is."""
    if library(like) == "numpy":
        return batches
    if library(like) == "cupy":  # which computes on one batch while the next one is copied
        moved = importlib.import_module(".uploads", __package__).overlapped
        return cast(Iterator[tuple[Array, ...]], moved(batches, device(like)))
    xp, place = array_namespace(like), device(like)
    return (
        tuple([to_backend(x, xp, place) if library(x) == "numpy" else x for x in batch])
        for batch in batches
    )


def _compat(xp: ModuleType) -> ModuleType:
    """Return the standard's namespace for a library given by its own module, such as ``torch``."""
    return xp if hasattr(xp, "__array_namespace_info__") else array_namespace(xp.empty(0))
