"""``agnostic-xent info``."""

from __future__ import annotations

import argparse
from typing import Any

from .. import info
from .output import add_json, print_results


def add_to(commands: Any) -> None:
    """Add the command."""
    text = "show versions, array libraries with their devices, and settings"
    show = commands.add_parser("info", help=text, description=f"{text.capitalize()}.")
    add_json(show)
    show.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print the sections, their values aligned."""
    sections = info()
    width = max(len(name) for section in sections.values() for name in section)
    lines = []
    for title, section in sections.items():
        lines += [title, *(f"  {name:<{width}}  {value}" for name, value in section.items())]
    print_results(options, sections, lines)
