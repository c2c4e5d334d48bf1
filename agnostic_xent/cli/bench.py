"""``agnostic-xent bench``."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="run the project's benchmarks, in its repository",
        description="Run benchmarks of the project, one after the other; each prints its results "
        "and writes them to benchmarks/results/. They are in the repository, not in the installed "
        "package, so this is for its folder.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="which; without any, a line tells what each of them measures",
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, smaller problems")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Run the benchmarks, or list them."""
    if not Path("benchmarks", "__main__.py").is_file():
        raise FileNotFoundError(
            "bench runs the benchmarks of the project's repository, and there is no folder "
            "benchmarks here: go to the repository's folder"
        )
    sys.path.insert(0, "")  # the current folder, which a console script does not search
    known = import_module("benchmarks.__main__").NAMES
    if not options.names:
        width = max(map(len, known))
        print("\n".join(f"{name:<{width}}  {_what_it_is(name)}" for name in known))
    for name in options.names:
        if name not in known:
            raise ValueError(f"argument NAME: must be one of {', '.join(known)}; got {name!r}")
    for name in options.names:
        command = [sys.executable, "-m", "benchmarks", name, *["--quick"] * options.quick]
        code = subprocess.run(command).returncode
        if code:
            raise OSError(f"benchmark {name} ended with exit code {code}")


def _what_it_is(name: str) -> str:
    """Return the first line of a benchmark's docstring; what it imports may not be installed."""
    tree = ast.parse(Path("benchmarks", f"{name}.py").read_text("utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]
