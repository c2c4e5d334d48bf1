"""Which CUDA kernels an operation launches, and on how many bytes: nothing is computed.

In a process with Numba's simulator, where NumPy's arrays pass for those of a GPU: each launch is
noted and not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.kernels.cuda.toolchain import launching
from agnostic_xent.kernels.cuda.toolchain.capturing import Capture
from agnostic_xent.kernels.cuda.warmup import PACKAGE

from . import gpu
from .measure import best_batch

LOSSES, LAYERS = gpu.WHOLE
ELEMENTS, ROWS, IMAGES = (1 << 24,), (4096, 1000), (64, 64, 32, 32)
WIDTH = 64  # features
MODES = ("require", "tf32", "tf32x3")

Problem = tuple[str, str, int, Callable[[], Any]]


def launches() -> list[dict[str, Any]]:
    """Return each problem's operations, the kernels that it launches, and the bytes of theirs."""
    noted, found = noting(), []
    for name, mode, operations, function in problems():
        noted.clear()  # what the problem itself was made by
        with ax.kernels(mode), np.errstate(all="ignore"):
            function()
        found.append({
            "problem": name, "mode": mode, "operations": operations,
            "bytes": sum(bytes_of(args) for _, args in noted),
            "launches": [
                (
                    k.function.__module__.removeprefix(f"{PACKAGE}."), k.function.__qualname__,
                    k.parameters,
                )
                for k, _ in noted
            ],
        })  # fmt: skip
    return found


def noting() -> list[Any]:
    """Return a list to which each launch adds its kernel and arguments, in place of all else."""
    noted: list[Any] = []
    launching.launch = lambda kernel, grid, args: noted.append((kernel, args))
    return noted


def steps() -> dict[str, dict[str, Any]]:
    """Return how many kernels a training step launches, and its seconds without them.

    Of one tiny image, so that what NumPy computes in CuPy's place is little.
    """
    noted, found = noting(), {}
    for name, model, channels in (("LeNet", ax.lenet(), 1), ("ResNet 20", ax.resnet(20), 3)):
        step = gpu.our_step("auto", model, (1, channels, 8, 8))
        step()
        noted.clear()
        step()
        count = len(noted)
        with np.errstate(all="ignore"):
            found[name] = {"launches": count, "seconds": best_batch(step, 5, 2.0)}
    return found


def bytes_of(args: Any) -> int:
    """Return the bytes of all arrays among the arguments of a launch."""
    if isinstance(args, tuple):
        return sum(map(bytes_of, args))
    return int(getattr(args, "nbytes", 0)) if isinstance(args, np.ndarray) else 0


def problems() -> Iterator[Problem]:
    """Yield a name, the mode of kernels, how many operations it takes, and what runs it."""
    labels = np.random.default_rng(0).integers(0, 10, 4096)
    images, rows, plain = (np.ones(shape, np.float32) for shape in (IMAGES, ROWS, ELEMENTS))
    for op, each in ((ax.relu, 2), (ax.sigmoid, 6), (ax.log_sigmoid, 8)):
        yield f"{op.name} {ELEMENTS}", "require", each * plain.size, both(op, plain)
    work = both(ax.add, plain, plain, activation="relu")
    yield f"add {ELEMENTS}", "require", 3 * plain.size, work
    for op, each in ((ax.softmax, 8), (ax.log_softmax, 8)):
        yield f"{op.name} {ROWS}", "require", each * rows.size, both(op, rows)
    for shape in LOSSES:
        z = np.ones(shape, np.float32)
        work = ahead(ax.cross_entropy, z, np.resize(labels, shape[0]))
        yield f"cross_entropy {shape}", "require", 5 * z.size, work
    work = ahead(ax.cross_entropy, rows, rows / ROWS[1])
    yield f"cross_entropy, probabilities {ROWS}", "require", 9 * rows.size, work
    x, weight = (np.ones((n, WIDTH), np.float32) for n in ROWS)
    work = ahead(ax.linear_cross_entropy, x, weight, np.resize(labels, ROWS[0]))
    shapes, products = (ROWS[0], WIDTH, ROWS[1]), 3 * 2 * rows.size * WIDTH
    yield f"linear_cross_entropy {shapes}", "require", products, work
    work = captured(both(ax.dense, x, weight))
    yield f"dense {shapes}, in a captured step", "require", products, work
    for loss in (ax.binary_cross_entropy_with_logits, ax.binary_cross_entropy):
        yield f"{loss.name} {ELEMENTS}", "require", 10 * plain.size, ahead(loss, plain, plain)
    work = both(ax.dropout, plain, rate=0.5, rng=0)
    yield f"dropout {ELEMENTS}", "require", 2 * plain.size, work
    channel = np.ones(IMAGES[1], np.float32)
    work = both(ax.batch_norm, images, *[channel] * 4, wrt=[0, 1, 2], train=True)
    yield f"batch_norm {IMAGES}", "require", 13 * images.size, work
    yield f"max_pool2d 2 {IMAGES}", "require", 2 * images.size, both(ax.max_pool2d, images, 2)
    yield f"avg_pool2d 2 {IMAGES}", "require", 2 * images.size, both(ax.avg_pool2d, images, 2)
    yield from of_other_ranks(images)
    work = both(ax.global_avg_pool2d, images)
    yield f"global_avg_pool2d {IMAGES}", "require", images.size, work
    params = ax.resnet(20).init(0, (3, 32, 32))[0]
    size = sum(w.size for w in params.values())
    for optimizer, each in ((ax.SGD(0.1, momentum=0.9), 4), (ax.AdamW(), 14)):
        name = f"{type(optimizer).__name__} of ResNet 20"
        yield name, "require", each * size, stepped(optimizer, params)
    yield from convolutions()


def of_other_ranks(images: Any) -> Iterator[Problem]:
    """Yield what the kernels of images do for signals and volumes: as many numbers as images."""
    n, c, h, w = IMAGES
    signals, volumes = images.reshape(n, c, h * w), images.reshape(n, c, 4, h // 4, w)
    for x, rank in ((signals, 1), (volumes, 3)):
        for name in ("max_pool", "avg_pool"):
            work = both(getattr(ax, f"{name}{rank}d"), x, 2)
            yield f"{name}{rank}d 2 {x.shape}", "require", 2 * x.size, work
        filters = np.ones((c, c, *(1,) * (rank - 1), 3), np.float32)
        work = both(getattr(ax, f"conv{rank}d"), x, filters)
        yield f"conv{rank}d 3 {x.shape}", "require", 18 * c * x.size, work
    yield f"global_avg_pool {IMAGES}", "require", images.size, both(ax.global_avg_pool, images)


def convolutions() -> Iterator[Problem]:
    """Yield the directions of each convolution in float32, and of one on the tensor cores."""
    for layer, (n, c, h, w, filters, window, stride, padding) in LAYERS.items():
        x, weights = np.ones((n, c, h, w), np.float32), np.ones((filters, c, window, window), "f4")
        options = {"stride": stride, "padding": padding}
        dy = np.ones(ax.conv2d.vjp(x, weights, wrt=[], **options)[0].shape, np.float32)
        for mode in MODES if layer == "ResNet 64" else ("require",):
            for direction in ("forward", "input gradient", "weight gradient"):
                work = gpu.our_convolution(mode, direction, x, weights, dy, options)
                yield f"conv2d {layer}, {direction}", mode, 2 * dy.size * c * window**2, work


def both(op: Any, *arrays: Any, **options: Any) -> Callable[[], Any]:
    """Return what computes an operation and its gradients."""

    def run() -> Any:
        value, pullback = op.vjp(*arrays, **options)
        value = value[0] if isinstance(value, tuple) else value
        return pullback(np.ones_like(value))

    return run


def captured(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return what runs as in a step that is captured, where cuBLAS is not at hand."""
    return lambda: Capture().run(function)


def ahead(loss: Any, *arrays: Any) -> Callable[[], Any]:
    """Return what computes a loss, and its gradient ahead, as which a cotangent of 1 leaves it."""
    return lambda: loss.vjp(*arrays, wrt=[0])


def stepped(optimizer: Any, params: dict[str, Any]) -> Callable[[], Any]:
    """Return what takes the second step of an optimizer."""
    return lambda: optimizer.update(params, params, STATES[type(optimizer)](params))


STATES = {
    ax.SGD: lambda params: {"step": 1, "velocity": params},
    ax.AdamW: lambda params: {
        "step": 1, "steps": dict.fromkeys(params, 1.0), "mean": params, "square": params,
    },
}  # fmt: skip
