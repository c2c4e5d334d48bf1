"""A word on the first seconds of a command, in which kernels may be compiled."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("agnostic_xent")


@contextmanager
def told_of_compiling() -> Iterator[None]:
    """Say it on standard error, once, if kernels are compiled while a block runs."""
    level, teller = LOGGER.level, _Teller(logging.INFO)
    LOGGER.addHandler(teller)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(teller)


class _Teller(logging.Handler):
    """Writes one line for all messages below a warning, which are those of the compiler."""

    told = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not self.told:
            self.told = True
            line = "compiling kernels, once on this machine: the first steps take longer"
            print(line, file=sys.stderr, flush=True)
