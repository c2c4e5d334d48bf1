"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib

NAMES = (
    "xent", "linear_xent", "conv", "train", "startup", "scale", "overhead", "elementwise",
    "logistic", "fashion_mnist",
    "gpu", "gpu_code", "gpu_conv", "gpu_forecast",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="few repetitions, smaller problems")
    parser.add_argument("--inner", help=argparse.SUPPRESS)  # a run within a run: where to write
    arguments = parser.parse_args()
    importlib.import_module(f"benchmarks.{arguments.name}").main(arguments.quick, arguments.inner)


if __name__ == "__main__":
    main()
