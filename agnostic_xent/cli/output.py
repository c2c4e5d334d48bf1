"""What the command line writes: tables for other programs, and texts for a terminal."""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import write_atomically
from ..core.texts import printable

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet may take the rest of a cell for a formula after."""


def add_json(parser: Any) -> None:
    """Add the option that has results written for other programs."""
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON, in one line, for programs"
    )


def print_results(
    options: argparse.Namespace, results: Mapping[str, Any], lines: Iterable[str]
) -> None:
    """Print results: with ``--json`` in one line, null for what is not finite; else the lines."""
    if options.json:
        finite = {
            k: None if x in (math.inf, -math.inf) or x != x else x for k, x in results.items()
        }
        print(json.dumps(finite, allow_nan=False))
    else:
        print("\n".join(lines))


def write_table(rows: Iterable[Sequence[str]], path: Path | None) -> None:
    """Write rows as CSV to a file, or to standard output if the path is None.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    if path is None and sys.stdout is not None and sys.stdout.isatty():
        rows = ([printable(cell) for cell in row] for row in rows)
    table = "".join(",".join(map(_cell, row)) + "\n" for row in rows)
    if path is not None:  # names of files need not be UTF-8
        write_atomically(path, table.encode(errors="surrogateescape"))
    elif isinstance(sys.stdout, io.TextIOWrapper):
        content = memoryview(table.encode(sys.stdout.encoding, "surrogateescape"))
        sys.stdout.flush()
        while content:  # an output without a buffer may take a part, and print would lose the rest
            content = content[sys.stdout.buffer.write(content) :]
    else:
        print(table, end="")


def _cell(text: str) -> str:
    """Return a text as a cell that stays one, also where cells end at semicolons."""
    if text.startswith(FORMULAS) and not NUMBER.fullmatch(text):
        text = f"'{text}"
    if any(character in text for character in ',;\t"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text
