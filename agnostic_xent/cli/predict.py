"""``agnostic-xent predict``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import predict, recording_log_proba, to_backend
from ..core.files import write_atomically
from .data import there
from .options import BACKENDS, argument, check_writable, working_backend
from .output import write_table
from .recipes import probabilities
from .samples import read_samples
from .saved import read


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "predict",
        help="write the probabilities of a trained model for new samples as CSV",
        description="Write, as CSV, what a model that train --out has written says of new samples: "
        "for each its name or position, the most probable class, and the probability of every "
        "class. Samples have to be as the model was trained on: of the same shape, on the same "
        "scale (numbers on another one are an error), dark ground as 0; rows of Spambase "
        "transformed in the same way. Pictures are resized and cropped, and columns of a table "
        "made numbers, as those of the training were. A name that a spreadsheet would run as a "
        "formula gets an apostrophe before it.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what train --out has written")
    parser.add_argument(
        "samples",
        type=Path,
        metavar="SAMPLES",
        help="a .npy or .npz file of numbers as the model's training had them, of any dtype; a "
        ".csv file of such rows, below at most a line of names; of a model of a table, one with "
        "the same columns; or a picture, or a folder with pictures in it or in its folders (needs "
        "Pillow); of a model of signals, windows, or a recording or a folder of them, each of "
        "which gets a row; of a model of texts, a file or a folder of them",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write there instead of to standard output"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="write a JSON object a line instead, of sample, class and probabilities",
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Predict, and write the table."""
    settings, params, _ = read(options.folder)
    if options.out is not None:
        check_writable("--out", options.out.parent)
    xp = working_backend(options.backend)
    with argument("SAMPLES"):
        names, x, recording = read_samples(options.samples, settings)
    logits = predict(settings.network(), to_backend(params, xp), there(x, xp))
    if recording is not None:
        logits = recording_log_proba(logits, recording)[1]
    classes = settings.classes
    rows = [["sample", "class", *classes]]
    for name, row in zip(names, probabilities(logits), strict=True):
        rows.append([name, classes[row.argmax()], *(f"{p:.6g}" for p in row)])
    if options.json:
        _write_json(rows, options.out)
    else:
        write_table(rows, options.out)


def _write_json(rows: list[list[str]], path: Path | None) -> None:
    """Write the rows below a header as JSON objects, one a line, to a file or standard output."""
    (_, _, *classes), *rows = rows
    lines = ""
    for name, best, *row in rows:
        shares = dict(zip(classes, map(float, row), strict=True))
        lines += json.dumps({"sample": name, "class": best, "probabilities": shares}) + "\n"
    if path is None:
        print(lines, end="")
    else:
        write_atomically(path, lines.encode())
