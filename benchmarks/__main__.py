"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import inspect

NAMES = (
    "xent", "linear_xent", "conv", "layers", "choice", "train", "nets", "infer", "startup", "scale",
    "overhead", "elementwise", "tools",
    "logistic", "sparse", "fashion_mnist", "fashion_augmented", "watch", "moving", "trust", "jobs",
    "gpu", "gpu_code", "gpu_conv", "gpu_forecast",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--quick", action="store_true", default=False, help="few repetitions, smaller problems"
    )
    parser.add_argument("--inner", default=None, help=argparse.SUPPRESS)  # a run within a run
    parser.add_argument(
        "--seed",
        type=int,
        help="layers, choice, nets, infer, jobs, fashion_augmented: of what is drawn",
    )
    parser.add_argument("--count", type=int, help="layers, choice, nets, infer: how many of a seed")
    parser.add_argument("--stored", action="store_true", help="choice: judge times of before")
    own = vars(parser.parse_args())
    name, quick, inner = (own.pop(key) for key in ("name", "quick", "inner"))
    run = importlib.import_module(f"benchmarks.{name}").main
    for option in own.keys() - inspect.signature(run).parameters:
        parser.error(f"{name} takes no --{option}")
    run(quick, inner, **own)


if __name__ == "__main__":
    main()
