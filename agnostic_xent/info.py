"""What is installed: versions, libraries, devices, settings."""

from __future__ import annotations

import importlib
import os
import platform
import warnings
from typing import Any

from .core.arrays import INSTALL
from .core.conversion import backend
from .core.operation import load_kernels

__all__ = ["info"]

PACKAGES = ("numpy", "array-api-compat", "array-api-extra", "numba", "safetensors", "rich")
VARIABLES = ("AGNOSTIC_XENT_KERNELS", "AGNOSTIC_XENT_DATA", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")


def info() -> dict[str, Any]:
    """Return versions, array libraries with their devices, and environment variables.

    Returns
    -------
    dict
        "versions", "backends" (library -> version and devices, or why it is missing),
        "threads" (the number that the CPU kernels use) and "environment".

    Examples
    --------
    >>> sorted(info())
    ['backends', 'environment', 'threads', 'versions']
    """
    environment = {name: os.environ.get(name, "not set") for name in VARIABLES}
    backends = {name: backend_line(name) for name in INSTALL}
    return {
        "versions": versions(),
        "backends": backends,
        "threads": threads(),
        "environment": environment,
    }


def versions() -> dict[str, str]:
    """Return the versions of this package, of what it needs, and of Python."""
    own = {
        "agnostic-xent": _version("agnostic-xent"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return own | {name: _version(name) for name in PACKAGES}


def threads() -> dict[str, int]:
    """Return how many threads the CPU kernels use; where there are none, the one of NumPy."""
    if load_kernels("numpy") is not None:
        return {"number": 1}
    cpu = importlib.import_module(".kernels.cpu.toolchain.threads", __package__)
    return {"number": cpu.threads()}


def _version(package: str) -> str:
    from importlib import metadata  # slow to import

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def backend_line(name: str) -> str:
    """Return the version of an array library and its devices, or why it cannot be used."""
    try:
        version = importlib.import_module(name).__version__
        with warnings.catch_warnings(action="ignore"):  # libraries try devices that are not there
            devices = backend(name).__array_namespace_info__().devices()
    except ImportError:
        return "not installed"
    except Exception as error:  # each library has its own way to say that there is no device
        return f"{version}, no device ({error})"
    return f"{version} on {', '.join(str(device) for device in devices if device is not None)}"
