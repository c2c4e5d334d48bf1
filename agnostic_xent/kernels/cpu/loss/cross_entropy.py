"""The kernel of cross entropy: from normalised arguments to compiled loops and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....core.arrays import widen
from ....core.operation import OPERATIONS, Implementation, Pullback
from ..toolchain.arguments import why_not
from .plans import Plan, SoftPlan

operation = OPERATIONS["cross_entropy"]
OPTIONS = (
    "axis",
    "weight",
    "sample_weight",
    "ignore_index",
    "label_smoothing",
    "temperature",
    "reduction",
    "normalize",
    "on_empty",
    "overwrite_logits",
)


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(logits, target, options["weight"], options["sample_weight"])


def value(logits: Any, target: Any, *, weight: Any, sample_weight: Any, **options: Any) -> Any:
    """Return the loss."""
    made = plan(logits, target, weight, sample_weight, options)
    return made.value(logits, target, weight, sample_weight)


def vjp(
    logits: Any,
    target: Any,
    *,
    wrt: frozenset[int],
    weight: Any,
    sample_weight: Any,
    **options: Any,
) -> tuple[Any, Pullback]:
    """Return the loss and its pullback; the gradient for a cotangent of 1 is there already."""
    made = plan(logits, target, weight, sample_weight, options)
    return made.vjp(logits, target, weight, sample_weight, wrt=wrt)


def specialized(
    check_values: Any, logits: Any, target: Any, *, weight: Any, sample_weight: Any, **options: Any
) -> Implementation:
    """Return the kernel for calls like this one, which looks for bad labels by itself."""
    made = plan(logits, target, weight, sample_weight, options, check_values)
    return Implementation(kernel.name, made.value, made.vjp)


def plan(
    logits: Any,
    target: Any,
    weight: Any,
    sample_weight: Any,
    options: dict[str, Any],
    check_values: Callable[..., None] | None = None,
) -> Plan:
    """Return the plan of a call."""
    made = (SoftPlan if target.dtype.kind == "f" else Plan)(logits, options)
    by_class = weight is not None
    made.set_up(target.dtype, by_class, by_class or sample_weight is not None, check_values)
    return made


kernel = Implementation("Numba loops", value, vjp, takes, specialized, options=OPTIONS)
operation.add_kernel("numpy", kernel)


# --- of a linear layer ---------------------------------------------------------------------------

linear = OPERATIONS["linear_cross_entropy"]


def takes_linear(x: Any, weight: Any, target: Any, bias: Any, **options: Any) -> str | None:
    """Return why the blocks of these arguments are not taken, or None."""
    arrays = {"weight": options["class_weight"], "sample_weight": options["sample_weight"]}
    return takes(widen(x), target, **arrays)


linear.add_kernel(
    "numpy",
    Implementation(
        "BLAS and Numba loops",
        linear.portable.value,
        linear.portable.vjp,
        takes_linear,
        options=(*linear.options, "slices"),
    ),
)
