"""What a training step on many ranks costs: computing, and the sums that are not hidden behind it.

With n ranks a sum of s bytes takes ``2 ceil(log2 n) a + 2 (n - 1) / n s / w``: latency a of each
stage of a tree up and down, bandwidth w of the slowest link. Two ranks on one machine have a plain
``a + s / w``, both fitted. Gradients are summed while the backward pass, two thirds of the
computing, goes on; a part of that time can hide them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agnostic_xent.operations.linear_loss import HELD_PORTABLE

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

    def seconds(self, machine: Machine, ranks: int, batch: float) -> float:
        """Return the time of a step on ``batch`` samples a rank."""
        computing = max(machine.step, batch * self.operations / machine.flops)
        if ranks == 1:
            return computing
        sums = machine.sum(4 * self.parameters, ranks)
        return computing + max(0.0, sums - machine.hidden * computing * 2 / 3)

    def weak(self, machine: Machine, ranks: int) -> float:
        """Return the efficiency with as many samples a rank on any number of them."""
        return self.seconds(machine, 1, self.batch) / self.seconds(machine, ranks, self.batch)

    def strong(self, machine: Machine, ranks: int) -> float:
        """Return the efficiency with as many samples in all; 0 where a rank has none."""
        whole = 64 * self.batch
        if ranks > whole:
            return 0.0
        one = self.seconds(machine, 1, whole)
        return one / ranks / self.seconds(machine, ranks, whole / ranks)


@dataclass(frozen=True)
class SplitHead:
    """A head whose classes are split over the ranks, by `linear_cross_entropy`."""

    memory: int
    """Its option of that name: bytes for the logits of a block of rows."""

    def seconds(self, machine: Machine, ranks: int) -> float:
        """Return the time of a step; its sums hide behind nothing."""
        own = CLASSES / ranks
        computing = max(machine.step, HEAD * ROWS / ranks / machine.flops)
        if ranks == 1:
            return computing
        blocks = math.ceil(ROWS * own * 4 * HELD_PORTABLE / self.memory)
        maxima, sums = (machine.sum(4 * count * ROWS / blocks, ranks) for count in (1, 4))
        return computing + blocks * (maxima + sums) + machine.sum(4 * ROWS * FEATURES, ranks)

    def strong(self, machine: Machine, ranks: int) -> float:
        """Return the efficiency with as many rows in all."""
        return self.seconds(machine, 1) / ranks / self.seconds(machine, ranks)


RANKS = (8, 64, 512, 4096)
FEATURES, CLASSES, ROWS = 4096, 256_000, 65_536
HEAD = 3 * 2 * FEATURES * CLASSES
JOBS = (
    Job("LeNet, 128 images of 28 x 28 a GPU", 3 * 2 * 16.3e6, 1.63e6, 128),
    Job("ResNet-18, 64 images of 224 x 224 a GPU", 3 * 2 * 1.82e9, 11.7e6, 64),
    Job("head of 256,000 classes, 8,192 rows of 4,096 features a GPU", HEAD, FEATURES * CLASSES,
        8192),
)  # fmt: skip


def outlook() -> str:
    """Return, in Markdown, what the model expects of machines that are not here."""
    machine = Machine()
    rows = []
    for job in JOBS:
        rows.append(_row(job.name, "weak", job.weak, machine))
        whole = f"the same, {64 * job.batch:,} in all"
        rows.append(_row(whole, "strong", job.strong, machine))
    for power in (26, 30):
        what = f"the same head, its classes split, {ROWS:,} rows in all, `memory=2**{power}`"
        rows.append(_row(what, "strong", SplitHead(2**power).strong, machine))
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
        "slow ranks and failures cost nothing. Efficiency against one GPU, and up to how many "
        "(a power of 2) it is at least a half:\n\n"
    )
    header = ["what", "scaling", *(f"{n} GPUs" for n in RANKS), "at least 50 %"]
    return text + table(header, rows)


def _row(
    what: str, scaling: str, efficiency: Callable[[Machine, int], float], machine: Machine
) -> list[str]:
    good = [2**k for k in range(17) if efficiency(machine, 2**k) >= 0.5]
    most = f"up to {good[-1]}" if good[-1] < 2**16 else "all the way"
    return [what, scaling, *(_percent(efficiency(machine, n)) for n in RANKS), most]


def _percent(x: float) -> str:
    return f"{100 * x:.0f} %" if x >= 0.01 else f"{100 * x:.1f} %"
