"""How well the algorithm of a convolution is chosen on the CPU: the regret of the rule.

All algorithms that can be used are timed on layers drawn at random, in each direction. The regret
is the time of the chosen one over the time of the fastest. Times are stored: after a change of
`kernels/cpu/conv/costs.py`, ``--stored`` judges the rule by them, without measuring again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from agnostic_xent.kernels.cpu.conv.costs import DIRECTIONS, candidates, cycles, fastest
from agnostic_xent.kernels.cpu.conv.geometry import Geometry
from agnostic_xent.kernels.cpu.toolchain.threads import threads

from .drawn_layers import Layer, draw_layer
from .measure import RESULTS, alternate, described, machine, of_seeds, table, write

COUNT, QUICK, WORST = 100, 8, 10
DTYPE = np.dtype(np.float32)
ERROR = 1e-4
"""Of numbers of order 1, between two algorithms; of larger ones, so much of the largest."""


def main(
    quick: bool, inner: str | None, seed: int | None = None, count: int = 0, stored: bool = False
) -> None:
    """Measure the layers of all seeds, or of one, or take the stored times; write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(seed, count)))
        return
    name, count = "choice_quick" if quick else "choice", count or (QUICK if quick else COUNT)
    if stored:
        result = json.loads((RESULTS / f"{name}.json").read_text())
    else:
        found = of_seeds("choice", quick, seed, count)
        result = {"machine": machine(), "threads": threads(), "count": count, "layers": found}
    write(name, result, report(result))


def measure(seed: int | None, count: int) -> list[dict[str, Any]]:
    """Return seconds of each algorithm in each direction of layers of a seed."""
    rng, found = np.random.default_rng(seed), []
    for layer in [draw_layer(rng) for _ in range(count)]:
        arrays = layer.arrays(rng)
        for direction in DIRECTIONS:
            functions = functions_of(geometry_of(layer), direction, *arrays)
            check(layer, direction, functions)
            times = alternate(functions, 0.1 * len(functions), rounds=3)
            seconds = {name: float(np.median(t)) for name, t in times.items()}
            found.append({"layer": asdict(layer), "direction": direction, "seconds": seconds})
    return found


def geometry_of(layer: Layer) -> Geometry:
    """Return what a layer is to the kernels."""
    rows, columns = layer.padding
    return Geometry(
        layer.images, layer.channels // layer.groups, layer.height, layer.width,
        layer.filters // layer.groups, layer.groups, layer.window, layer.stride,
        ((rows, rows), (columns, columns)), layer.dilation,
    )  # fmt: skip


def functions_of(
    g: Geometry, direction: str, x: Any, w: Any, dy: Any
) -> dict[str, Callable[[], Any]]:
    """Return one direction of a convolution by each algorithm that can be used."""
    arguments = {
        "forward": (x, w, None, False), "input_gradient": (dy, w), "weight_gradient": (x, dy)
    }[direction]  # fmt: skip
    return {
        name_of(plans): lambda plans=plans: getattr(plans, direction)(g, *arguments)
        for plans in candidates(g, DTYPE, direction)
    }


def name_of(plans: ModuleType) -> str:
    """Return the name of an algorithm."""
    return plans.__name__.rpartition(".")[2].removesuffix("_plans")


def check(layer: Layer, direction: str, functions: dict[str, Callable[[], Any]]) -> None:
    """Raise if the numbers of two algorithms differ."""
    first, *others = (function() for function in functions.values())
    for other in others:
        error = float(np.abs(other - first).max() / max(1.0, np.abs(first).max()))
        if not error < ERROR:
            raise AssertionError(f"{direction} of {layer} by {[*functions]}: error {error:.1e}")


# --- the rule, and what it says of the times -----------------------------------------------------


def judged(entry: dict[str, Any]) -> dict[str, Any]:
    """Return which algorithm is chosen, its regret, and seconds a counted cycle of each."""
    layer, direction, seconds = Layer.stored(entry["layer"]), entry["direction"], entry["seconds"]
    g = geometry_of(layer)
    known = {name_of(plans): plans for plans in candidates(g, DTYPE, direction)}
    if known.keys() != seconds.keys():
        raise ValueError(f"{direction} of {layer} can be computed by {[*known]}, and has stored "
                         f"times of {[*seconds]}: measure again")  # fmt: skip
    chosen, best = name_of(fastest(g, DTYPE, direction)), min(seconds, key=seconds.__getitem__)
    return {
        "layer": layer, "direction": direction, "chosen": chosen, "best": best,
        "seconds": seconds, "regret": seconds[chosen] / seconds[best],
        "a cycle": {k: seconds[k] / cycles(plans, g, direction) for k, plans in known.items()},
    }  # fmt: skip


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    found = [judged(entry) for entry in result["layers"]]
    choices = [entry for entry in found if len(entry["seconds"]) > 1]
    seeds = sorted({entry["seed"] for entry in result["layers"]})
    text = f"""# The choice of an algorithm of convolution: float32 on the CPU

Written by `python -m benchmarks choice`: {result["count"]} layers of each seed
({", ".join(map(str, seeds))}). Regret: time of the chosen algorithm over the time of the fastest,
where several can be used; medians of rounds in turns. Time lost: the same, of the sums of times.

{described(result["machine"])} {result["threads"]} threads.

"""
    return text + "\n".join([regrets(choices), worst(choices), counts(found)])


def regrets(choices: list[dict[str, Any]]) -> str:
    """Return a table of the regret by direction."""
    rows = []
    for name in (*DIRECTIONS, "all"):
        own = [entry for entry in choices if name in (entry["direction"], "all")]
        if own:
            r = [entry["regret"] for entry in own]
            chosen, best = (
                sum(e["seconds"][e[which]] for e in own) for which in ("chosen", "best")
            )
            right = sum(entry["chosen"] == entry["best"] for entry in own)
            numbers = [f"{n:.2f}" for n in (*np.quantile(r, [0.5, 0.95]), max(r))]
            rows.append([
                name.replace("_", " "), f"{right} of {len(own)}", *numbers,
                f"{chosen / best - 1:.1%}",
            ])  # fmt: skip
    header = ["direction", "the fastest chosen", "median", "95th percentile", "most", "time lost"]
    return table(header, rows)


def worst(choices: list[dict[str, Any]]) -> str:
    """Return a table of the layers with the most regret."""
    rows = []
    wrong = [entry for entry in choices if entry["regret"] > 1]
    for entry in sorted(wrong, key=lambda entry: -entry["regret"])[:WORST]:
        layer, direction = entry["layer"], entry["direction"].replace("_", " ")
        both = [f"{entry[k]} {1e3 * entry['seconds'][entry[k]]:.3f}" for k in ("chosen", "best")]
        rows.append([layer.kind, str(layer), direction, *both, f"{entry['regret']:.2f}"])
    header = ["kind", "layer: x * w", "direction", "chosen, ms", "fastest, ms", "regret"]
    return "## The most regret\n\n" + table(header, rows)


def counts(found: list[dict[str, Any]]) -> str:
    """Return a table of how long a counted cycle takes."""
    times: dict[tuple[str, str], list[float]] = {}
    for entry in found:
        for name, seconds in entry["a cycle"].items():
            times.setdefault((name, entry["direction"]), []).append(1e9 * seconds)
    rows = [
        [name, direction.replace("_", " "), str(len(t)),
         *(f"{n:.3f}" for n in np.quantile(t, [0.05, 0.25, 0.5, 0.75, 0.95]))]
        for (name, direction), t in sorted(times.items())
    ]  # fmt: skip
    text = "## Nanoseconds a counted cycle\n\nThe rule is right if all algorithms have the same; "
    text += "an algorithm with more is counted too cheap.\n\n"
    quantiles = ["5 %", "25 %", "median", "75 %", "95 %"]
    return text + table(["algorithm", "direction", "layers", *quantiles], rows)
