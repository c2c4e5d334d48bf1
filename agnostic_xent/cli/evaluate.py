"""``agnostic-xent evaluate``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import evaluate, to_backend
from .data import load_test, there
from .options import BACKENDS, check_writable, working_backend
from .output import add_json
from .recipes import loss_of, targets
from .result import of_recordings, print_scores, write_report
from .saved import read


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a trained model on test data and write its report",
        description="Measure a model that train --out has written on the test part of its data, "
        "and write report.html and report.png beside it. The last line on standard output is the "
        "test accuracy.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what train --out has written")
    parser.add_argument(
        "--data",
        help="as for train, with the same classes; all of it, or its test part where it has one; "
        "of what the model was trained on, the part that was held out (default: that)",
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, help="array library (default: that of the training)"
    )
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate, write the report, and print loss and accuracy."""
    settings, params, history = read(options.folder)
    check_writable("DIR", options.folder)
    backend, named = options.backend or settings.backend, options.data or settings.data
    if not named:
        raise ValueError("argument --data: is needed: a classifier in a folder keeps no data")
    xp, loss_here = working_backend(backend), loss_of(settings.model, len(settings.classes))
    data = load_test(settings, named)
    settings = replace(settings, data=named, backend=backend)
    params = to_backend(params, xp)
    test = (there(data.test_x, xp), to_backend(targets(loss_here, data.test_y), xp))
    loss, accuracy = evaluate(settings.network(), params, test, loss=loss_here)
    write_report(options.folder, settings, params, history, data, loss)
    recordings = of_recordings(settings, params, data)
    print_scores(options, recordings, loss, accuracy, {"test loss": f"{loss:.4g}"})
