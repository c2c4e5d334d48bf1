"""``agnostic-xent export``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import export_onnx
from .options import check_writable
from .saved import read


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "export",
        help="write a trained model as an ONNX file",
        description="Write a model that train --out has written as an ONNX file, for any number of "
        "samples: its input is called input, its output, logits, output. The input is as the model "
        "takes it, already divided by the divisor in run.json, which a line tells if it is not 1. "
        "Needs the package onnx.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what train --out has written")
    parser.add_argument("file", type=Path, metavar="FILE", help="such as model.onnx")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Write the file."""
    if options.file.suffix != ".onnx":
        raise ValueError(f"argument FILE: must end in .onnx, got {str(options.file)!r}")
    settings, params, _ = read(options.folder)
    check_writable("FILE", options.file.parent)
    export_onnx(settings.network(), params, options.file, settings.input_shape)
    if settings.scale is not None and settings.scale.divisor > 1:
        print(f"the input of {options.file} is numbers from {settings.scale}", file=sys.stderr)
