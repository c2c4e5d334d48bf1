"""``agnostic-xent report``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ..evaluation.comparison import Trained, save_comparison
from .options import check_writable
from .output import add_json, print_results
from .result import readable
from .saved import read


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="compare two trained models on one page",
        description="Write a page with the curves of two models that train --out has written, "
        "where they ended, and the settings that differ (needs matplotlib and jinja2). Samples are "
        "not looked at.",
    )
    parser.add_argument("first", type=Path, metavar="DIR", help="what train --out has written")
    parser.add_argument("second", type=Path, metavar="OTHER", help="another one")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        default=Path("comparison.html"),
        help="the page (default: comparison.html)",
    )
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Write the page, and print its name."""
    runs = [_trained(folder) for folder in (options.first, options.second)]
    check_writable("--out", options.out.parent)
    save_comparison(options.out, *runs)
    print_results(options, {"page": str(options.out)}, [str(options.out)])


def _trained(folder: Path) -> Trained:
    settings, _, history = read(folder)
    if not history:
        raise ValueError(f"{folder} holds a training without epochs, which is not compared")
    return Trained(str(folder), history, math.log(len(settings.classes)), readable(settings))
