"""Convolution of layers drawn at random on the CPU, against torch in the faster of its two layouts.

Nobody picked these layers, so they tell what to expect of any network. All three directions are
compared with torch's numbers before they are timed. Both libraries have as many threads.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agnostic_xent.kernels.cpu.toolchain.threads import threads

from .conv import DIRECTIONS, LAYOUTS, OURS, Functions, against_torch, timed
from .drawn_layers import KINDS, Layer, draw_layer
from .measure import SPREAD, described, machine, mean_of, of_seeds, spread, table, write

COUNT, QUICK, SHOWN = 60, 4, 15
ERROR = 1e-4
"""Of numbers of order 1, from torch's; of larger ones, so much of the largest."""


def main(quick: bool, inner: str | None, seed: int | None = None, count: int = 0) -> None:
    """Measure the layers of all seeds, or of one, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(seed, count)))
        return
    count = count or (QUICK if quick else COUNT)
    found = of_seeds("layers", quick, seed, count)
    result = {"machine": machine(), "threads": threads(), "count": count, "layers": found}
    write("layers_quick" if quick else "layers", result, report(result))


def measure(seed: int | None, count: int) -> list[dict[str, Any]]:
    """Return times and ratios of each direction of layers of a seed."""
    import torch

    torch.set_num_threads(threads())
    rng, found = np.random.default_rng(seed), []
    for layer in [draw_layer(rng) for _ in range(count)]:
        for direction, functions in against_torch(*layer.arrays(rng), layer.options).items():
            check(layer, direction, functions)
            about = {"layer": asdict(layer), "direction": direction}
            found.append(about | timed(functions, seconds=0.3, rounds=3))
    return found


def check(layer: Layer, direction: str, functions: Functions) -> None:
    """Raise if the numbers of the two libraries differ."""
    ours, torchs = (np.asarray(functions[who]()) for who in (OURS, LAYOUTS[0]))
    error = float(np.abs(ours - torchs).max() / max(1.0, np.abs(torchs).max()))
    if not error < ERROR:
        raise AssertionError(f"{direction} of {layer}: error {error:.1e}")


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    found = result["layers"]
    seeds = sorted({entry["seed"] for entry in found})
    text = f"""# Convolution of layers drawn at random: float32 on the CPU

Written by `python -m benchmarks layers`: {result["count"]} layers of each seed
({", ".join(map(str, seeds))}). Ratio: time of torch in its faster layout over ours, medians of
rounds in turns. The numbers of both agree to {ERROR:.0e}.

{described(result["machine"])} {result["threads"]} threads each.

"""
    groups = [(d, [e for e in found if e["direction"] == d]) for d in DIRECTIONS]
    groups += [("all", found)]
    groups += [(f"all of seed {s}", [e for e in found if e["seed"] == s]) for s in seeds]
    rows = [[name, *spread(ratios(entries))] for name, entries in groups]
    text += table(["direction", *SPREAD], rows) + "\n## By kind: geometric means\n\n"
    rows = []
    for kind in KINDS:
        own = [e for e in found if e["layer"]["kind"] == kind]
        if own:
            apart = [ratios([e for e in own if e["direction"] == d]) for d in DIRECTIONS]
            rows.append([kind, str(len(apart[0])), *(f"{mean_of(r):.2f}" for r in apart)])
    text += table(["kind", "layers", *DIRECTIONS], rows) + "\n## The lowest ratios\n\n"
    rows = []
    for e in sorted(found, key=lambda e: e["ratio"]["median"])[:SHOWN]:
        times = [f"{1e3 * e['seconds'][who]:.3f}" for who in (*LAYOUTS, OURS)]
        layer = Layer.stored(e["layer"])
        rows.append([layer.kind, str(layer), e["direction"], *times, f"{e['ratio']['median']:.2f}"])
    header = ["kind", "layer: x * w", "direction", *(f"{who}, ms" for who in (*LAYOUTS, OURS))]
    return text + table([*header, "ratio"], rows)


def ratios(entries: list[dict[str, Any]]) -> list[float]:
    """Return the ratios of some of the results."""
    return [entry["ratio"]["median"] for entry in entries]
