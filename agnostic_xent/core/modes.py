"""Whether kernels run: what a ``with`` block or the environment says."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .arrays import is_compiling
from .checks import check_choice

__all__ = ["kernels"]

MODES = ("auto", "direct", "portable", "require", "tf32", "tf32x3")

_mode: ContextVar[str | None] = ContextVar("kernels", default=None)


@functools.cache
def default_mode() -> str:
    """Return the mode that the environment asks for."""
    mode = os.environ.get("AGNOSTIC_XENT_KERNELS", "auto")
    check_choice("the environment variable AGNOSTIC_XENT_KERNELS", mode, MODES)
    return mode


def current_mode() -> str:
    """Return the mode that holds here: of the ``with`` block, or of the environment."""
    return default_mode() if is_compiling() else _mode.get() or default_mode()


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    """Choose, within a ``with`` block of this thread, whether kernels run.

    Parameters
    ----------
    mode : {"auto", "direct", "portable", "require", "tf32", "tf32x3"}
        "auto": a kernel where one takes the arguments, else the portable definition.
        "direct": the same without Winograd convolution, which is faster and rounds more.
        "portable": always the portable definition. "require": RuntimeError where "auto" would
        fall back, so that a benchmark cannot time the slow path unseen. "tf32": "auto", but on
        CUDA float32 convolutions multiply numbers rounded to 10 bits of mantissa, on the tensor
        cores; "tf32x3": they multiply three times, which keeps nearly all of float32.
        Outside such a block the environment variable ``AGNOSTIC_XENT_KERNELS`` decides.

    Examples
    --------
    >>> with kernels("portable"):
    ...     y = relu(xp.asarray([-1.0, 2.0]))
    >>> float(y[1])
    2.0
    """
    check_choice("mode", mode, MODES)
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)
