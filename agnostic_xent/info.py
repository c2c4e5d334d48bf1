"""What is installed: versions, libraries, devices, settings."""

from __future__ import annotations

import importlib
import os
import platform
import warnings
from typing import Any

from .arrays import INSTALL, backend

__all__ = ["info"]

PACKAGES = ("numpy", "array-api-compat", "array-api-extra", "numba", "safetensors", "rich")
VARIABLES = ("AGNOSTIC_XENT_KERNELS", "AGNOSTIC_XENT_DATA", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")


def info() -> dict[str, Any]:
    """Return versions, array libraries with their devices, and environment variables.

    Returns
    -------
    dict
        "versions", "backends" (library -> version and devices, or why it is missing),
        "threads" (of the CPU kernels) and "environment".

    Examples
    --------
    >>> sorted(info())
    ['backends', 'environment', 'threads', 'versions']
    """
    versions = {
        "agnostic-xent": _version("agnostic-xent"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    versions |= {name: _version(name) for name in PACKAGES}
    environment = {name: os.environ.get(name, "not set") for name in VARIABLES}
    backends = {name: _backend_line(name) for name in INSTALL}
    cpu = importlib.import_module(".kernels.cpu.threads", __package__)
    return {
        "versions": versions,
        "backends": backends,
        "threads": {"layer": cpu.layer(), "number": cpu.threads()},
        "environment": environment,
    }


def _version(package: str) -> str:
    from importlib import metadata  # slow to import

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _backend_line(name: str) -> str:
    try:
        xp = backend(name)
    except ImportError:
        return "not installed"
    version = importlib.import_module(name).__version__
    try:
        with warnings.catch_warnings(action="ignore"):  # libraries try devices that are not there
            devices = xp.__array_namespace_info__().devices()
    except Exception as error:  # each library has its own way to say that there is no device
        return f"{version}, no device ({type(error).__name__})"
    return f"{version} on {', '.join(str(device) for device in devices if device is not None)}"
