"""What options of cross entropy cost, and frozen layers save: on the CPU, beside the plain ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.network.frozen import frozen
from agnostic_xent.training.batches import ArraySource
from agnostic_xent.training.steps import Task

from .measure import alternate, described, machine, ratio, table, write

SHAPES = [(4096, 1000), (512, 32000), (128, 10)]
Z_LOSS, SOFTCAP = 1e-4, 30.0
NETS: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "small_cnn": (ax.small_cnn(), (1, 28, 28), 64),
    "lenet": (ax.lenet(), (1, 28, 28), 64),
    "convnet": (ax.convnet(), (1, 28, 28), 64),
    "resnet(20)": (ax.resnet(20), (3, 32, 32), 32),
}
SGD = ax.SGD(0.01, momentum=0.9)


def main(quick: bool, inner: str | None) -> None:
    """Measure and write the results."""
    seconds = 0.5 if quick else 2.0
    result = {
        "machine": machine(),
        "losses": [of_losses(shape, seconds) for shape in SHAPES],
        "steps": [of_steps(name, seconds) for name in NETS],
    }
    write("tools_quick" if quick else "tools", result, report(result))


def of_losses(shape: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Return times of value and gradient with each option, and ratios to those without."""
    times = alternate(losses(shape), seconds)
    names = [name for name in times if name != "plain"]
    return {
        "shape": shape,
        "seconds": {name: float(np.median(t)) for name, t in times.items()},
        "ratio": {name: ratio(times, name, "plain")["median"] for name in names},
        "torch": ratio(times, "torch, z_loss composed", "z_loss")["median"],
    }


def losses(shape: tuple[int, int]) -> dict[str, Callable[[], Any]]:
    """Return what is measured of logits of a shape."""
    import torch

    rng = np.random.default_rng(0)
    z, y = 3 * rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])
    prior, one = rng.random(shape[1], dtype=np.float32) + 0.1, np.ones((), np.float32)
    options = {
        "plain": {},
        "class_prior": {"class_prior": prior},
        "z_loss": {"z_loss": Z_LOSS},
        "softcap": {"softcap": SOFTCAP},
    }

    def ours(chosen: dict[str, Any]) -> Any:
        _, pullback = ax.cross_entropy.vjp(z, y, wrt=(0,), check_labels=False, **chosen)
        return pullback(one)

    leaf, labels = torch.from_numpy(z.copy()).requires_grad_(), torch.from_numpy(y)

    def torchs() -> Any:
        loss = torch.nn.functional.cross_entropy(leaf, labels)
        loss = loss + Z_LOSS * (torch.logsumexp(leaf, 1) ** 2).mean()
        return torch.autograd.grad(loss, leaf)

    found: dict[str, Callable[[], Any]] = {
        name: functools.partial(ours, chosen) for name, chosen in options.items()
    }
    return found | {"torch, z_loss composed": torchs}


def of_steps(name: str, seconds: float) -> dict[str, Any]:
    """Return times of a step of all layers, of the last one alone, and with averages."""
    model, shape, samples = NETS[name]
    params, _ = model.init(0, shape)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((samples, *shape), dtype=np.float32), rng.integers(0, 10, samples)
    last = [*params][-1].rpartition(".")[0]

    def step(net: Any, optimizer: Any) -> Callable[[], Any]:
        task = Task(net, ArraySource(x, y, x), ax.cross_entropy, optimizer, samples)
        state = optimizer.init(params)
        return lambda: next(task.steps([(x, y)], params, state, None))

    times = alternate(
        {
            "all": step(model, SGD),
            "last": step(frozen(model, params, [last]), SGD),
            "average": step(model, ax.MovingAverage(SGD)),
        },
        seconds,
    )
    return {
        "net": name,
        "samples": samples,
        "seconds": {kind: float(np.median(t)) for kind, t in times.items()},
        "ratio": {kind: ratio(times, kind, "all")["median"] for kind in ("last", "average")},
    }


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# Options of cross entropy, and frozen layers: float32 on the CPU\n\n"
    text += (
        "Written by `python -m benchmarks tools`. Milliseconds: medians over rounds in turns, of\n"
    )
    text += "the best call of each round.\n"
    text += f"\n{described(result['machine'])}\n"
    text += "\n## Value and gradient of cross entropy\n\n"
    text += (
        "In parentheses the time over that without options. The last column is torch's time of\n"
    )
    text += "cross entropy plus the z-loss, composed of its operations, over ours.\n\n"
    names = ["class_prior", "z_loss", "softcap"]
    rows = [
        [
            str(tuple(case["shape"])),
            f"{1e3 * case['seconds']['plain']:.3g}",
            *(f"{1e3 * case['seconds'][n]:.3g} ({case['ratio'][n]:.2f})" for n in names),
            f"{case['torch']:.1f}",
        ]
        for case in result["losses"]
    ]
    text += table(["shape", "plain", *names, "torch / ours"], rows)
    text += "\n## A step of training\n\n"
    text += (
        "Of all layers; of the last one alone, the others frozen; and with `MovingAverage`. In\n"
    )
    text += "parentheses the time over that of all layers.\n\n"
    rows = [
        [
            f"{case['net']}, {case['samples']} images",
            f"{1e3 * case['seconds']['all']:.3g}",
            *(f"{1e3 * case['seconds'][k]:.3g} ({r:.2f})" for k, r in case["ratio"].items()),
        ]
        for case in result["steps"]
    ]
    return text + table(["net", "all layers", "the last layer", "averages"], rows)
