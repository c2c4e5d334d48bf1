"""Options of the command line: their values, and errors on one line."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.conversion import BACKENDS as BACKENDS
from ..core.conversion import backend


class Parser(argparse.ArgumentParser):
    """A parser that leaves errors to `main`, which prints one line."""

    def error(self, message: str) -> Any:
        """Raise what `main` prints."""
        raise ValueError(message)


@contextmanager
def argument(name: str) -> Iterator[None]:
    """Have a ValueError begin with the argument that it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"argument {name}: {error}") from error


def count(text: str) -> int:
    """Return the value of an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Return the value of an option that is a seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def rate(text: str) -> float:
    """Return the value of an option that is a learning rate."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value


def share(text: str) -> float:
    """Return the value of an option that is a share, less than all."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1), got {text!r}")
    return value


def check_writable(option: str, folder: Path) -> None:
    """Make a folder, if it is not there, and see that files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"argument {option}: cannot write to {folder}: {error.strerror}") from error


def working_backend(name: str) -> ModuleType:
    """Return the namespace of an array library that has a device to run on."""
    xp = backend(name)
    try:
        xp.zeros(1)
    except Exception as error:  # each library has its own way to say that there is no device
        raise OSError(f"backend {name!r} has no working device: {error}") from error
    return xp
