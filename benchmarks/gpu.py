"""On a GPU: what the card can do at most, losses, convolutions, training steps, launches.

Times are between CUDA events on CuPy's current stream, on which torch runs as well. Losses and
convolutions are issued behind other work, so that the GPU never waits for the host; steps are not,
since a user's are not. "host" is what issuing costs the processor. torch is measured where it is
there: its convolutions are cuDNN's. In Numba's simulator the same functions run over NumPy arrays
and tiny problems, which measures nothing: a rehearsal.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.core.operation import KERNEL_PACKAGES, ROUTINES
from agnostic_xent.kernels.cuda import activations
from agnostic_xent.kernels.cuda.toolchain.device import SIMULATED, xp
from agnostic_xent.network.layers import split_statistics
from agnostic_xent.training.batches import IterableSource
from agnostic_xent.training.captured import CapturedStep
from agnostic_xent.training.steps import Task, loss_and_grads

from . import gpu_peers as peers
from .measure import machine, table, write

if SIMULATED:
    KERNEL_PACKAGES["numpy"] = "agnostic_xent.kernels.cuda"

ROUNDS = 1 if SIMULATED else 7
SECONDS = 0.001 if SIMULATED else 0.01  # of a function in a round
MOST = 20  # calls in a round: more launches than a GPU's queue holds would make the host wait
LOSSES = [(4096, 1000), (512, 32000), (64, 128256), (16384, 64), (65536, 10), (128, 10)]
LAYERS = {  # N, C, H, W, filters, window, stride, padding
    "LeNet 1": (128, 1, 28, 28, 32, 3, 1, 1),
    "LeNet 2": (128, 32, 28, 28, 64, 3, 1, 1),
    "ResNet 64": (64, 64, 32, 32, 64, 3, 1, 1),
    "ResNet 256": (64, 256, 8, 8, 256, 3, 1, 1),
    "1x1": (64, 256, 16, 16, 64, 1, 1, 0),
    "stride 2": (64, 64, 32, 32, 128, 3, 2, 1),
    "stem 7x7": (16, 3, 224, 224, 64, 7, 2, 3),
}
NETWORKS: dict[str, tuple[ax.Sequential, tuple[int, ...]]] = {
    "LeNet": (ax.lenet(), (128, 1, 28, 28)),
    "ResNet 20": (ax.resnet(20), (128, 3, 32, 32)),
}
VOCABULARY, WORDS, FEATURES = 32000, 4096, 1024
COPIED, MULTIPLIED, TINY = 2**28, 8192, 32
FASTEST = 1e13  # bytes a second, more than any card copies
WHOLE = LOSSES, LAYERS
ROWS, CLASSES = (8192, 32768), (256, 512, 1000, 4096, 16384, 32768, 49152, 131072, 262144)
LARGEST = 2**31  # logits
LOSSES = LOSSES + [n for n in itertools.product(ROWS, CLASSES) if math.prod(n) <= LARGEST]
if SIMULATED:
    LOSSES, LAYERS = [(3, 5)], {"tiny": (1, 2, 4, 4, 3, 3, 1, 1)}
    tiny = ax.Sequential(ax.Conv2d(2, 3), ax.ReLU(), ax.Flatten(), ax.Dense(3))
    NETWORKS = {"tiny": (tiny, (2, 1, 5, 5))}
    VOCABULARY, WORDS, FEATURES, COPIED, MULTIPLIED = 7, 4, 3, 2**10, 16

Functions = dict[str, Callable[[], Any]]


def main(quick: bool, inner: str | None) -> None:
    """Measure all, and write the results after each part, into a folder if one is named."""
    name = card()
    result: dict[str, Any] = {
        "card": name,
        "machine": machine(),
        "libraries": ax.info()["backends"],
    }
    for part in PARTS:
        try:
            result[part.__name__] = part()
        except Exception:  # the other parts are worth having
            result[part.__name__] = {"failed": traceback.format_exc()}
        folder = Path(inner) if inner else None
        write(f"gpu_{name.replace(' ', '_')}", result, report(result), folder)
    failed = [key for key, part in result.items() if isinstance(part, dict) and "failed" in part]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def card() -> str:
    """Return the name of the GPU."""
    if SIMULATED:
        return "rehearsal"
    return str(xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)["name"].decode())


# --- clocks --------------------------------------------------------------------------------------


def seconds(functions: Functions, ahead: bool = True) -> dict[str, float]:
    """Return seconds a call on the GPU: medians of rounds in turns; the host may be ahead of it."""
    for f in functions.values():
        f()
    counts = {name: min(MOST, int(SECONDS / span(f, 1)) + 1) for name, f in functions.items()}
    issuing = {name: counts[name] * host(f, 1) if ahead else 0.0 for name, f in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, f in functions.items():
            times[name].append(span(f, counts[name], issuing[name]))
    return {name: float(np.median(t)) for name, t in times.items()}


def span(f: Callable[[], Any], count: int, delay: float = 0.0) -> float:
    """Return seconds a call on the GPU, of so many calls behind so many seconds of other work."""
    if SIMULATED:
        return host(f, count)
    start, end = xp.cuda.Event(), xp.cuda.Event()
    source, target = room()
    for _ in range(math.ceil(delay * FASTEST / (2 * COPIED))):
        xp.copyto(target, source)
    start.record()
    for _ in range(count):
        f()
    end.record()
    end.synchronize()
    return 1e-3 * float(xp.cuda.get_elapsed_time(start, end)) / count


@functools.cache
def room() -> tuple[Any, Any]:
    """Return the arrays of a large copy."""
    return xp.zeros(COPIED // 4, np.float32), xp.empty(COPIED // 4, np.float32)


def host(f: Callable[[], Any], count: int = 1 if SIMULATED else 50) -> float:
    """Return seconds a call until the processor is free again."""
    start = time.perf_counter()
    for _ in range(count):
        f()
    found = (time.perf_counter() - start) / count
    if not SIMULATED:
        xp.cuda.runtime.deviceSynchronize()
    return found


def numbers(*shape: int, seed: int = 0) -> Any:
    """Return random float32 numbers, drawn on the GPU."""
    return xp.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def has_room(size: int) -> bool:
    """Return whether the GPU has that many bytes left, after it has got back what is kept."""
    if SIMULATED:
        return True
    xp.get_default_memory_pool().free_all_blocks()
    peers.free()
    return bool(size < xp.cuda.runtime.memGetInfo()[0])


# --- what is measured ----------------------------------------------------------------------------


def ceilings() -> dict[str, float]:
    """Return bytes a second of a copy, and operations a second of matrix products."""
    x, y = room()
    a, b = numbers(MULTIPLIED, MULTIPLIED), numbers(MULTIPLIED, MULTIPLIED, seed=1)
    work = {"copy": lambda: xp.copyto(y, x), "float32 product": lambda: xp.matmul(a, b)}
    work |= peers.products(a, b)
    amounts = dict.fromkeys(work, 2.0 * MULTIPLIED**3) | {"copy": 2.0 * COPIED}
    return {name: amounts[name] / t for name, t in seconds(work).items()}


def losses() -> list[dict[str, Any]]:
    """Return seconds of loss and gradient of softmax cross entropy, and of a copy of logits."""
    return [loss(*shape) for shape in LOSSES if has_room(5 * 4 * math.prod(shape))]


def loss(n: int, classes: int) -> dict[str, Any]:
    """Return the seconds for some rows and classes."""
    z, copied = numbers(n, classes), xp.empty((n, classes), np.float32)
    labels = xp.arange(n) * 7919 % classes
    one = xp.ones((), np.float32)

    def ours() -> Any:
        with ax.kernels("require"):
            _, pullback = ax.cross_entropy.vjp(z, labels, check_labels=False)
        return pullback(one)

    work = {"ours": ours, "copy": lambda: xp.copyto(copied, z)}
    times = seconds(work | peers.loss(z, labels))
    share = f"{times['copy'] / times['ours']:.0%}"
    return {"shape": [n, classes], "share of a copy": share, "seconds": times}


def convolutions() -> list[dict[str, Any]]:
    """Return seconds of each direction of each layer, in all precisions."""
    found = []
    for layer, (n, c, h, w, filters, window, stride, padding) in LAYERS.items():
        x, weights = numbers(n, c, h, w), numbers(filters, c, window, window, seed=1)
        options = {"stride": stride, "padding": padding}
        dy = numbers(*ax.conv2d(x, weights, **options).shape, seed=2)
        theirs = peers.convolution(x, weights, dy, options)
        operations = 2 * dy.size * c * window**2
        for direction in ("forward", "input gradient", "weight gradient"):
            work = {
                mode: our_convolution(mode, direction, x, weights, dy, options)
                for mode in ("require", "tf32", "tf32x3")
            }
            times = seconds(work | theirs.get(direction, {}))
            found.append({
                "layer": layer, "direction": direction, "seconds": times, "operations": operations,
            })  # fmt: skip
    return found


def our_convolution(
    mode: str, direction: str, x: Any, weights: Any, dy: Any, options: dict[str, int]
) -> Callable[[], Any]:
    """Return one direction of a convolution in a mode of kernels."""
    wrt = {"forward": [], "input gradient": [0], "weight gradient": [1]}[direction]

    def forward() -> Any:
        with ax.kernels(mode):
            return ax.conv2d(x, weights, **options)

    with ax.kernels(mode):
        pullback = ax.conv2d.vjp(x, weights, wrt=wrt, **options)[1]

    def backward() -> Any:
        with ax.kernels(mode):
            return pullback(dy)

    return backward if wrt else forward


def steps() -> list[dict[str, Any]]:
    """Return seconds of training steps, on the GPU and of the host; and of those in a CUDA graph.

    The host's are of a batch of one image, which leaves the GPU little to do.
    """
    found = []
    for name, (model, shape) in NETWORKS.items():
        one = 1, *shape[1:]
        theirs, single = peers.step(name, shape), {"ours": our_step("auto", model, one)}
        if theirs:
            single["torch"] = peers.step(name, one)["torch"]
        for f in single.values():
            f()
        work = {f"ours {mode}": our_step(mode, model, shape) for mode in ("auto", "tf32")}
        found.append({
            "network": name, "batch": shape[0], "seconds": seconds(work | theirs, ahead=False),
            "host": {key: host(f) for key, f in single.items()},
            "captured": captured(model, shape, one),
        })  # fmt: skip
    return found


def our_step(mode: str, model: ax.Sequential, shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a training step by SGD with momentum."""
    task, params, (x, labels) = training(model, shape)
    state = task.optimizer.init(params)

    def step() -> None:
        nonlocal params, state
        with ax.kernels(mode):
            grads = loss_and_grads(model, params, x, labels, task.loss, 0)[2]
            grads, statistics = split_statistics(grads)
            params, state = task.optimizer.update(params, grads, state)
            params = params | statistics

    return step


def captured(model: ax.Sequential, *shapes: tuple[int, ...]) -> Any:
    """Return seconds of a step that is replayed from a CUDA graph, as those of the others.

    With all that `fit` does: the batch is copied to its place, the rate written, the loss added.
    """
    try:
        step, single = (captured_step(model, shape) for shape in shapes)
        return {
            "on the GPU": seconds({"step": step}, ahead=False)["step"], "host": host(single),
        }  # fmt: skip
    except Exception as error:
        if SIMULATED:
            raise
        return f"no: {type(error).__name__}: {error}"  # the other numbers are worth having


def captured_step(model: ax.Sequential, shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return the same step, captured behind an ordinary one."""
    task, params, batch = training(model, shape)
    ((params, state, _),) = task.steps([batch], params, task.optimizer.init(params), 0)
    kernel = ROUTINES["captured_step"].kernel(*params.values())
    assert kernel is not None
    step = CapturedStep(task, kernel, params, state, [batch])
    return lambda: step.take([batch])


def training(model: ax.Sequential, shape: tuple[int, ...]) -> tuple[Task, dict[str, Any], Any]:
    """Return what is trained, its first parameters, and a batch."""
    params = ax.to_backend(model.init(0, shape[1:])[0], xp)
    batch = numbers(*shape), xp.asarray(np.arange(shape[0]) % 3)
    source, sgd = IterableSource("batches", [batch]), ax.SGD(0.01, momentum=0.9)
    return Task(model, source, peers.unchecked(), sgd, shape[0]), params, batch


def compiled_steps() -> list[dict[str, Any]]:
    """Return seconds of the steps as torch compiles them, and as it captures them besides."""
    found = []
    for name, (_, shape) in NETWORKS.items():
        if theirs := peers.compiled_step(name, shape):
            times = seconds(theirs, ahead=False)
            found.append({"network": name, "batch": shape[0], "seconds": times})
    return found


def launches() -> list[dict[str, Any]]:
    """Return seconds of the host, a call: of an operation of one kernel, and of the kernel."""
    x = numbers(TINY)
    y, kernel = xp.empty_like(x), activations.variants()[0]
    called = {
        "relu": lambda: ax.relu(x),
        "its kernel": lambda: kernel(1, x, y, TINY),
        "a copy": lambda: xp.copyto(y, x),
        **peers.relu(x),
    }
    for f in called.values():
        f()
    return [{"call": name, "seconds": {"host": host(f)}} for name, f in called.items()]


def memory() -> dict[str, Any]:
    """Return the bytes that the loss of a large vocabulary needs beside its arguments."""
    x, weight = numbers(WORDS, FEATURES), numbers(VOCABULARY, FEATURES, seed=1)
    labels = xp.asarray(np.arange(WORDS) % VOCABULARY)
    one = xp.ones((), np.float32)

    def fused() -> Any:
        return ax.linear_cross_entropy.vjp(x, weight, labels, check_labels=False)[1](one)

    def whole() -> Any:
        z, through = ax.dense.vjp(x, weight)
        return through(ax.cross_entropy.vjp(z, labels, check_labels=False)[1](one)[0])

    work = {"linear_cross_entropy": fused, "dense, cross_entropy": whole}
    return {
        "shape": [WORDS, FEATURES, VOCABULARY],
        "bytes": {name: peak(f) for name, f in work.items()},
        "seconds": seconds(work | peers.linear_loss(x, weight, labels)),
    }


def peak(f: Callable[[], Any]) -> int | None:
    """Return the bytes that CuPy's pool takes from the GPU for a call, gradients with it."""
    if SIMULATED:
        f()
        return None
    f()
    pool = xp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    f()
    return int(pool.total_bytes() - before)


PARTS = ceilings, losses, convolutions, steps, memory, launches, compiled_steps
"""What takes longest is the last."""


# --- report --------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = f"# {result['card']}\n\nWritten by `python -m benchmarks gpu`. Microseconds on the GPU: "
    text += "medians of rounds in turns.\n"
    if SIMULATED:
        text += "\n**A rehearsal in the simulator: no number here says anything.**\n"
    for part in (part.__name__ for part in PARTS):
        found = result.get(part)
        if not found:  # yet, or because torch is not here
            continue
        rows = {"ceilings": ceiling_rows, "memory": memory_rows}.get(part, time_rows)
        text += f"\n## {part.replace('_', ' ').capitalize()}\n\n"
        if isinstance(found, dict) and "failed" in found:
            text += f"```\n{found['failed']}```\n"
        else:
            header, lines = rows(found)
            text += table(header, lines)
    return text


def ceiling_rows(found: dict[str, float]) -> tuple[list[str], list[list[str]]]:
    """Return the table of what the card can do."""
    unit = {name: "TB/s" if name == "copy" else "TFLOP/s" for name in found}
    return ["what", "at most"], [[k, f"{v / 1e12:.2f} {unit[k]}"] for k, v in found.items()]


def time_rows(found: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return a table with a column for each function, and what else is known of each line."""
    names = list(found[0]["seconds"])
    others = [key for key in found[0] if key not in ("seconds", "operations")]
    rows = [
        [shown(line[key]) for key in others] + [shown(line["seconds"][name]) for name in names]
        for line in found
    ]
    return others + names, rows


def shown(value: Any) -> str:
    """Return seconds as microseconds, and anything else as it is."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(entry)}" for key, entry in value.items())
    return f"{1e6 * value:.1f}" if isinstance(value, float) else str(value)


def memory_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table of what a large vocabulary needs."""
    sizes = {name: f"{size / 2**20:.0f}" for name, size in found["bytes"].items() if size}
    rows = [[name, sizes.get(name, ""), f"{1e3 * t:.2f}"] for name, t in found["seconds"].items()]
    return [f"words, features, vocabulary: {found['shape']}", "MiB", "ms"], rows
