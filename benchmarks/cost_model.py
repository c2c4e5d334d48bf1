"""What a training step on many ranks costs: computing, and the sums that are not hidden behind it.

With n ranks a sum of s bytes takes ``2 ceil(log2 n) a + 2 (n - 1) / n s / w``: latency a of each
stage of a tree up and down, bandwidth w of the slowest link. Two ranks on one machine have a plain
``a + s / w``, both fitted. Gradients are summed while the backward pass, two thirds of the
computing, goes on; a part of that time can hide them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .measure import table


@dataclass(frozen=True)
class Fit:
    """The model of two ranks on this machine."""

    latency: float
    bandwidth: float
    fixed: float
    """Seconds a step whatever the number of images."""
    sample: float
    """Seconds an image."""
    sums: float
    """Seconds of a step's sums by themselves."""
    overlap: float
    """The part of them that is hidden."""

    @classmethod
    def to(cls, steps: dict[str, float], sums: dict[str, float], sent: int) -> Fit:
        """Fit to seconds of steps by way and batch, seconds of sums by size, bytes of a step."""
        latency, per_byte = fit_line({int(size): t for size, t in sums.items()})
        fixed, sample = fit_line({batch: steps[f"apart {batch}"] for batch in (64, 128)})
        alone = 2 * latency + sent * per_byte  # numbers of the batch, then gradients
        exposed = steps["together 128"] - (fixed + 64 * sample)
        return cls(latency, 1 / per_byte, fixed, sample, alone, max(0.0, 1 - exposed / alone))

    def together(self, batch: int) -> float:
        """Return seconds of a step of two ranks, given the images of each."""
        return self.fixed + batch * self.sample + (1 - self.overlap) * self.sums


def fit_line(points: dict[int, float]) -> tuple[float, float]:
    """Return the line t = a + b s with the least squares of relative errors."""
    s, t = (np.array(list(part), float) for part in (points.keys(), points.values()))
    a, b = np.linalg.lstsq(np.stack([1 / t, s / t], axis=1), np.ones_like(t), rcond=None)[0]
    return float(a), float(b)


# --- machines that are not here ------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """GPUs in boxes of eight, as data sheets describe them; nothing of it is measured here."""

    flops: float = 200e12
    """Sustained, in TF32 or a half precision: a fifth to two fifths of what is promised."""
    step: float = 1e-3
    """Seconds that launching the kernels of a step takes at least."""
    inside: tuple[float, float] = (3e-6, 300e9)
    """Latency of a stage and bandwidth between the GPUs of a box."""
    between: tuple[float, float] = (6e-6, 40e9)
    """The same between boxes, for each GPU."""
    hidden: float = 0.8
    """The part of the backward pass that can hide sums."""

    def sum(self, size: float, ranks: int) -> float:
        """Return the seconds that a sum takes, the slower link deciding."""
        latency, bandwidth = self.inside if ranks <= 8 else self.between
        return (
            2 * math.ceil(math.log2(ranks)) * latency + 2 * (ranks - 1) / ranks * size / bandwidth
        )


@dataclass(frozen=True)
class Job:
    """What is trained; operations of the forward and the backward pass of a sample."""

    name: str
    operations: float
    parameters: float
    batch: int
    """Samples a rank in weak scaling; in strong scaling 64 times as many of all ranks."""
    split: int = 0
    """With the classes split over the ranks: numbers of a row that are summed, and not hidden."""

    def seconds(self, machine: Machine, ranks: int, batch: float) -> float:
        """Return the time of a step on ``batch`` samples a rank."""
        computing = max(machine.step, batch * self.operations / machine.flops)
        if ranks == 1:
            return computing
        sums = machine.sum(4 * self.parameters, ranks)
        return computing + max(0.0, sums - machine.hidden * computing * 2 / 3)

    def split_seconds(self, machine: Machine, ranks: int, batch: float) -> float:
        """Return the time of a step on ``batch`` samples of all ranks, each with a slice."""
        computing = max(machine.step, batch * self.operations / machine.flops / ranks)
        return computing + (machine.sum(4 * batch * self.split, ranks) if ranks > 1 else 0.0)


RANKS = (8, 64, 512, 4096)
FEATURES, CLASSES = 4096, 256_000
JOBS = (
    Job("LeNet, 128 images of 28 x 28 a GPU", 3 * 2 * 16.3e6, 1.63e6, 128),
    Job("ResNet-18, 64 images of 224 x 224 a GPU", 3 * 2 * 1.82e9, 11.7e6, 64),
    Job("head of 256,000 classes, 8,192 rows of 4,096 features a GPU",
        3 * 2 * FEATURES * CLASSES, FEATURES * CLASSES, 8192),
)  # fmt: skip
SPLIT = Job("head", 3 * 2 * FEATURES * CLASSES, 0, 65_536, split=FEATURES + 5)


def outlook() -> str:
    """Return, in Markdown, what the model expects of machines that are not here."""
    machine = Machine()
    rows = []
    for job in JOBS:
        one = job.seconds(machine, 1, job.batch)
        weak = [one / job.seconds(machine, n, job.batch) for n in RANKS]
        whole = 64 * job.batch
        one = job.seconds(machine, 1, whole)
        strong = [
            one / n / job.seconds(machine, n, whole / n) if n <= whole else 0.0 for n in RANKS
        ]
        rows += [[job.name, "weak", *map(_percent, weak)]]
        rows += [[f"the same, {whole:,} in all", "strong", *map(_percent, strong)]]
    one = SPLIT.split_seconds(machine, 1, SPLIT.batch)
    split = [one / n / SPLIT.split_seconds(machine, n, SPLIT.batch) for n in RANKS]
    rows.append([f"the same head, its classes split, {SPLIT.batch:,} rows in all", "strong",
                 *map(_percent, split)])  # fmt: skip
    latency, bandwidth = machine.between
    text = (
        "## On paper: GPUs that are not here\n\n"
        "No GPU and no network has been measured; the same model, with assumptions from data "
        f"sheets. A GPU sustains {machine.flops / 1e12:.0f} TFLOP/s and needs "
        f"{1e3 * machine.step:.0f} ms a step at least, for launching kernels. In boxes of eight a "
        f"stage takes {1e6 * machine.inside[0]:.0f} us at {machine.inside[1] / 1e9:.0f} GB/s, "
        f"between boxes {1e6 * latency:.0f} us at {bandwidth / 1e9:.0f} GB/s a GPU. Gradients are "
        f"float32 and can be hidden behind {100 * machine.hidden:.0f} % of the backward pass, two "
        "thirds of the computing; the sums of split classes hide behind nothing. Reading the data, "
        "slow ranks and failures cost nothing. Efficiency, against one GPU:\n\n"
    )
    return text + table(["what", "scaling", *(f"{n} GPUs" for n in RANKS)], rows)


def _percent(x: float) -> str:
    return f"{100 * x:.0f} %" if x >= 0.01 else f"{100 * x:.1f} %"
