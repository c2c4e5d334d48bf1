"""The command line: ``agnostic-xent COMMAND``, one module a command."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TextIO

from .. import __version__
from ..core.texts import printable
from . import bench, completion, evaluate, export, info, predict, report, train, warmup
from .compiling import told_of_compiling
from .options import Parser

COMMANDS = (train, evaluate, report, predict, export, bench, info, warmup, completion)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 after success, 1 where the reader of the output has gone, 2 after an error, which is one line
    on standard error, 130 after an interrupt.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; None takes those of the process.
    """
    try:
        _run(argv)
    except BrokenPipeError:  # the reader of our output has gone, such as `head`
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except (ValueError, TypeError, ImportError, OSError) as error:
        _complain(f"error: {_in_one_line(error)}")
        return 2
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        words = sys.argv[1:] if argv is None else argv
        parser = _parser()
        options = parser.parse_args(words or ["--help"])
        options.line, options.parser = shlex.join(["agnostic-xent", *words]), parser
        with told_of_compiling():
            options.command(options)
    finally:
        _flush()


def _flush() -> None:
    """Write the rest of the output: a closed pipe or a full disk shows here, and once."""
    if sys.stdout is None:  # closed before we started
        return
    try:
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout)
        raise


def _give_up(stream: TextIO) -> None:
    """Let what cannot be written go: the interpreter, when it ends, flushes again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _complain(message: str) -> None:
    """Write a line in one go: several ranks of a job may write at the same time."""
    try:
        print(f"agnostic-xent: {printable(message)}\n", end="", file=sys.stderr, flush=True)
    except OSError:  # where even that cannot be written, the exit code says it
        _give_up(sys.stderr)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="agnostic-xent",
        description="Train small networks on NumPy, CuPy, torch or JAX arrays.",
        epilog="Exit codes: 0 success, 1 the reader of the output has gone, 2 an error, told in "
        "one line, 130 interrupted. `agnostic-xent COMMAND --help` says more.",
    )
    version = f"agnostic-xent {__version__}"
    parser.add_argument("--version", action="version", version=version, help="show it and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser
