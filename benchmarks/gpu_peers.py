"""What torch does on the same GPU and the same arrays, where it is there."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import agnostic_xent as ax
from agnostic_xent.kernels.cuda.toolchain.device import SIMULATED

Functions = dict[str, Callable[[], Any]]


@functools.cache
def torch() -> Any:
    """Return torch if it is there and reaches the GPU, else None."""
    try:
        import torch
    except ImportError:
        return None
    if not SIMULATED and not torch.cuda.is_available():
        return None
    torch.backends.cudnn.benchmark = True
    return torch


def free() -> None:
    """Give back the memory of the GPU that torch keeps."""
    if torch() is not None:
        torch().cuda.empty_cache()


def unchecked() -> Any:
    """Return the loss without the check of labels, which would wait for the GPU."""
    return functools.partial(ax.cross_entropy, check_labels=False)


def with_tf32(f: Callable[[], Any], allowed: bool) -> Callable[[], Any]:
    """Return a function that lets torch round to TF32, or not."""

    def called() -> Any:
        torch().backends.cuda.matmul.allow_tf32 = allowed
        torch().backends.cudnn.allow_tf32 = allowed
        return f()

    return called


def precisions(f: Callable[[], Any]) -> Functions:
    """Return a function of torch in float32 and with TF32."""
    return {"torch": with_tf32(f, False), "torch tf32": with_tf32(f, True)}


def products(a: Any, b: Any) -> Functions:
    """Return products of two matrices, by TF32 and in float16."""
    if torch() is None:
        return {}
    x, y = map(torch().from_dlpack, (a, b))
    halves = x.half(), y.half()
    return {
        "TF32 product": with_tf32(lambda: x @ y, True),
        "float16 product": lambda: halves[0] @ halves[1],
    }


def loss(z: Any, labels: Any) -> Functions:
    """Return loss and gradient of softmax cross entropy."""
    if torch() is None:
        return {}
    logits, target = torch().from_dlpack(z).requires_grad_(), torch().from_dlpack(labels)

    def both() -> Any:
        value = torch().nn.functional.cross_entropy(logits, target)
        return torch().autograd.grad(value, logits)

    return {"torch": both}


def linear_loss(x: Any, weight: Any, labels: Any) -> Functions:
    """Return loss and gradients of a product with weights and softmax cross entropy."""
    if torch() is None:
        return {}
    x, weight = (torch().from_dlpack(array).requires_grad_() for array in (x, weight))
    target, functional = torch().from_dlpack(labels), torch().nn.functional

    def both() -> Any:
        value = functional.cross_entropy(functional.linear(x, weight), target)
        return torch().autograd.grad(value, (x, weight))

    return precisions(both)


def relu(x: Any) -> Functions:
    """Return the ReLU of an array."""
    if torch() is None:
        return {}
    theirs = torch().from_dlpack(x)
    return {"torch": lambda: torch().relu(theirs)}


def convolution(x: Any, w: Any, dy: Any, options: dict[str, int]) -> dict[str, Functions]:
    """Return the three directions of a convolution, by direction."""
    if torch() is None:
        return {}
    x, w, dy = map(torch().from_dlpack, (x, w, dy))
    stride, padding = [options["stride"]] * 2, [options["padding"]] * 2

    def backward(*mask: bool) -> Callable[[], Any]:
        return lambda: torch().ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, mask
        )

    forward = functools.partial(torch().nn.functional.conv2d, x, w, None, stride, padding)
    return {
        "forward": precisions(forward),
        "input gradient": precisions(backward(True, False, False)),
        "weight gradient": precisions(backward(False, True, False)),
    }


def step(name: str, shape: tuple[int, ...]) -> Functions:
    """Return a training step of a network, by SGD with momentum."""
    if torch() is None:
        return {}
    return precisions(trained(network(name), shape))


def compiled_step(name: str, shape: tuple[int, ...]) -> Functions:
    """Return the same step by networks that torch compiles, and captures in CUDA graphs."""
    if torch() is None or SIMULATED:
        return {}
    modes = {"torch compiled": "default", "torch compiled, captured": "reduce-overhead"}
    return {
        what: with_tf32(trained(torch().compile(network(name), mode=mode), shape), False)
        for what, mode in modes.items()
    }


def network(name: str) -> Any:
    """Return a network on the GPU."""
    makers = {"LeNet": lenet, "ResNet 20": resnet, "tiny": tiny}
    return makers[name](torch().nn).to("cpu" if SIMULATED else "cuda")


def trained(model: Any, shape: tuple[int, ...]) -> Callable[[], Any]:
    """Return a step of a model on random images."""
    device = next(model.parameters()).device
    x = torch().randn(shape, device=device)
    labels = torch().arange(shape[0], device=device) % 3
    optimizer = torch().optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def train() -> None:
        optimizer.zero_grad()
        torch().nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return train


# --- the networks of agnostic_xent.network.models ------------------------------------------------


def tiny(nn: Any) -> Any:
    """Return the network of the rehearsal."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))


def lenet(nn: Any) -> Any:
    """Return `agnostic_xent.lenet`."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 14 * 14, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def resnet(nn: Any) -> Any:
    """Return `agnostic_xent.resnet` of 20 layers."""

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, before: int, filters: int):
            super().__init__()
            stride = 1 if before == filters else 2
            self.body = nn.Sequential(
                nn.Conv2d(before, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters),
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters),
            )  # fmt: skip
            self.project = (
                nn.Sequential(
                    nn.Conv2d(before, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
                )
                if stride == 2
                else nn.Identity()
            )

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.project(x))

    sizes = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(*pair) for pair in itertools.pairwise(sizes)]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
