"""The kernel of cross entropy: from normalised arguments to compiled loops and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....core.arrays import widen
from ....core.operation import OPERATIONS, Implementation, Pullback
from ..toolchain.arguments import why_not
from .plans import ARRAYS, Plan, SoftPlan

operation = OPERATIONS["cross_entropy"]
OPTIONS = (
    "axis",
    "weight",
    "sample_weight",
    "ignore_index",
    "label_smoothing",
    "temperature",
    "softcap",
    "class_prior",
    "z_loss",
    "reduction",
    "normalize",
    "on_empty",
    "return_logsumexp",
    "overwrite_logits",
)


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    if options["class_prior"] is not None and options["temperature"] == math.inf:
        return "it takes a finite temperature beside class_prior"
    return why_not(logits, target, *(options[name] for name in ARRAYS))


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss."""
    arrays, options = parted(options)
    return plan(logits, target, arrays, options).value(logits, target, **arrays)


def vjp(logits: Any, target: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the loss and its pullback; the gradient for a cotangent of 1 is there already."""
    arrays, options = parted(options)
    return plan(logits, target, arrays, options).vjp(logits, target, wrt=wrt, **arrays)


def specialized(check_values: Any, logits: Any, target: Any, **options: Any) -> Implementation:
    """Return the kernel for calls like this one, which looks for bad labels by itself."""
    made = plan(logits, target, *parted(options), check_values)
    return Implementation(kernel.name, made.value, made.vjp)


def parted(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that are arrays, and the others."""
    arrays = {name: options[name] for name in ARRAYS}
    return arrays, {name: x for name, x in options.items() if name not in ARRAYS}


def plan(
    logits: Any,
    target: Any,
    arrays: dict[str, Any],
    options: dict[str, Any],
    check_values: Callable[..., None] | None = None,
) -> Plan:
    """Return the plan of a call."""
    made = (SoftPlan if target.dtype.kind == "f" else Plan)(logits, options)
    by_class = arrays["weight"] is not None
    weighted = by_class or arrays["sample_weight"] is not None
    made.set_up(target.dtype, by_class, weighted, check_values)
    return made


kernel = Implementation("Numba loops", value, vjp, takes, specialized, options=OPTIONS)
operation.add_kernel("numpy", kernel)


# --- of a linear layer ---------------------------------------------------------------------------

linear = OPERATIONS["linear_cross_entropy"]


def takes_linear(x: Any, weight: Any, target: Any, bias: Any, **options: Any) -> str | None:
    """Return why the blocks of these arguments are not taken, or None."""
    names = ("sample_weight", "class_prior", "temperature")
    given = {name: options[name] for name in names} | {"weight": options["class_weight"]}
    return takes(widen(x), target, **given)


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
