"""``agnostic-xent completion``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.requirements import missing


def add_to(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands, options and files in a shell",
        description="Print a script for a shell, which then completes commands, options and files "
        "at the Tab key. For bash: agnostic-xent completion bash > "
        "~/.local/share/bash-completion/completions/agnostic-xent. For zsh, into a folder of "
        "$fpath: agnostic-xent completion zsh > _agnostic-xent. Needs the package shtab.",
    )
    parser.add_argument("shell", choices=SHELLS, help="which one")
    parser.set_defaults(command=run)


SHELLS = "bash", "zsh", "tcsh"


def run(options: argparse.Namespace) -> None:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise missing("completion", "shtab") from error
    _complete_files(options.parser, shtab.FILE)
    print(shtab.complete(options.parser, options.shell))


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Have paths completed by files, in all commands of a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type is Path or action.dest == "data":
            action.complete = files  # type: ignore[attr-defined]
