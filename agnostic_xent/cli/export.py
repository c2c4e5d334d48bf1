"""``agnostic-xent export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.texts import printable
from ..datasets.words import Words
from ..evaluation.folder import Settings
from ..network.exchange import Exported, after_division, write_onnx
from .options import check_writable
from .output import add_json, print_results
from .saved import read


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "export",
        help="write a trained model as an ONNX file",
        description="Write a model that train --out or save_classifier has written as an ONNX "
        "file, for any number of samples. Its input is called input: the numbers of the training, "
        "as its files had them, or pictures from black, 0, to white, 1; of a table or of texts, "
        "what predict makes of them. Its output is called probabilities. The metadata has the "
        "classes, as JSON, and what the input is. Needs the package onnx.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what train --out has written")
    parser.add_argument("file", type=Path, metavar="FILE", help="such as model.onnx")
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Write the file, and say what it takes and makes."""
    if options.file.suffix != ".onnx":
        raise ValueError(f"argument FILE: must end in .onnx, got {str(options.file)!r}")
    settings, params, _ = read(options.folder)
    check_writable("FILE", options.file.parent)
    shape, divisor = settings.input_shape, 1 if settings.scale is None else settings.scale.divisor
    model, params = after_division(settings.network(), params, shape, divisor)
    labels = (settings.estimator or {}).get("labels", [*settings.classes])
    exported = Exported(model, params, shape, labels, what_it_takes(settings))
    write_onnx(options.file, exported)
    results = {
        "file": str(options.file),
        "bytes": options.file.stat().st_size,
        "input_shape": shape,
        "input": exported.input,
        "classes": labels,
    }
    lines = (
        f"{options.file}: {results['bytes']:,} bytes",
        f"input: float32 (batch, {', '.join(map(str, shape))}), {exported.input}",
        f"{exported.output}: float32 (batch, {len(labels)}) of {', '.join(map(str, labels))}",
    )
    print_results(options, results, map(printable, lines))


def what_it_takes(settings: Settings) -> str:
    """Return what the input of a model is, in words."""
    if isinstance(settings.columns, Words):
        return "the words of a text by TF-IDF, in the order of words.json"
    if settings.columns is not None:
        return f"the columns of a table: {', '.join(settings.columns.names)}"
    channels, *sides = settings.input_shape
    if settings.resized:
        colours = "grey" if channels == 1 else "in colour"
        size = " x ".join(map(str, reversed(sides)))
        return f"pictures resized and cropped to {size}, {colours}, black 0, white 1"
    if settings.scale is None:
        return "numbers as in the training"
    return f"numbers from {settings.scale.least:g} to {settings.scale.greatest:g}"
