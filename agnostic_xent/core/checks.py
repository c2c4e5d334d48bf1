"""Checks of arguments, with errors that name the argument, what was wrong and what is accepted."""

from __future__ import annotations

import math
import numbers
import operator
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .arrays import (
    MASKED,
    Array,
    array_namespace,
    device,
    dtype_kind,
    is_array,
    is_masked,
    is_traced,
    library,
)

if TYPE_CHECKING:
    import numpy as np


def namespace(**arrays: Array | None) -> ModuleType:
    """Return the one namespace of the named arrays; None is passed over.

    Raises
    ------
    TypeError
        If an argument is no array, or the arguments belong to different libraries.
    ValueError
        If the arguments lie on different devices.
    """
    first_name, first = "", None
    for name, x in arrays.items():
        if x is None:
            continue
        if not is_array(x):
            raise TypeError(
                f"{name} must be an array (of NumPy, CuPy, torch, JAX, dask or another library "
                f"that follows the Array API standard), got {type(x).__name__}"
                f"{f'; {MASKED}' if is_masked(x) else ''}"
            )
        if first is None:
            first_name, first = name, x
        elif type(x) is type(first) and library(x) == "numpy":
            continue
        elif library(x) != library(first):
            raise TypeError(
                f"{name} is an array of {library(x)} but {first_name} is one of {library(first)}; "
                "pass arrays of one library (agnostic_xent.to_backend converts)"
            )
        elif not is_traced(x) and not is_traced(first) and device(x) != device(first):
            raise ValueError(
                f"{name} is on device {device(x)} but {first_name} is on {device(first)}; "
                "pass arrays of one device (agnostic_xent.to_backend moves them)"
            )
    return array_namespace(first)


def float_namespace(**arrays: Array | None) -> ModuleType:
    """Return the namespace of the named arrays, which must share one real floating dtype."""
    kinds = tuple([(type(x), getattr(x, "dtype", None)) for x in arrays.values()])
    if kinds in _passed:
        return _passed[kinds]
    xp = namespace(**arrays)
    first_name, first = "", None
    for name, x in arrays.items():
        if x is None:
            continue
        if dtype_kind(xp, x.dtype) != "real floating":
            raise TypeError(
                f"{name} must have a real floating dtype such as float32 or float64, got {x.dtype}"
            )
        if first is None:
            first_name, first = name, x
        elif x.dtype != first.dtype:
            raise TypeError(
                f"{name} has dtype {x.dtype} but {first_name} has {first.dtype}; "
                "pass arrays of one dtype (xp.astype converts)"
            )
    if library(first) == "numpy":  # elsewhere a device has to be compared each time
        _passed[kinds] = xp
    return xp


_passed: dict[Any, ModuleType] = {}
"""Types and dtypes of NumPy arguments that went through `float_namespace`."""


def check_ndim(name: str, x: Array, ndim: int, layout: str) -> None:
    """Raise ValueError unless ``x`` has ``ndim`` dimensions."""
    if x.ndim != ndim:
        raise ValueError(
            f"{name} must have {ndim} dimensions {layout}, got {x.ndim} in shape {tuple(x.shape)}"
        )


def check_shape(name: str, x: Array, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless ``x`` has exactly this shape."""
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have shape {shape} ({meaning}), got {tuple(x.shape)}")


COLOURS = (1, 3, 4)
"""How many channels an image file has."""


def check_channels_first(name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError where images (N, C, H, W) look like (N, H, W, C), as files hold them."""
    if len(shape) != 4:
        return
    _, channels, height, width = shape
    if width in COLOURS and channels not in COLOURS and min(channels, height) > width:
        raise ValueError(
            f"{name} must have shape (N, C, H, W), but {shape} looks like images with the channel "
            "last; numpy.moveaxis(x, -1, 1) puts it first"
        )


def check_axis(x: Array, axis: int, name: str = "x") -> int:
    """Return ``axis`` counted from the front; raise ValueError when ``x`` has no such axis.

    A number without dimensions counts as a row of one.
    """
    if is_bool(axis) or not hasattr(axis, "__index__"):
        raise TypeError(f"axis must be an integer, got {axis!r}")
    ndim = max(1, int(x.ndim))
    if not -ndim <= axis < ndim:
        raise ValueError(
            f"axis {axis} is out of range for {name} of {x.ndim} dimensions "
            f"(accepted: {-ndim} to {ndim - 1})"
        )
    return int(axis) % ndim


def check_axes(x: Array, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the axes that ``axis`` names, in order: one, several, or all for None."""
    if axis is None:
        return tuple(range(x.ndim))
    named = axis if isinstance(axis, tuple) else (axis,)
    if any(is_bool(a) or not hasattr(a, "__index__") for a in named):
        raise TypeError(f"axis must be an integer, a tuple of integers or None, got {axis!r}")
    axes = sorted(check_axis(x, a) for a in named)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis must name each axis once, got {axis!r}")
    return tuple(axes) if x.ndim else ()


def integer(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """Return ``value`` as an int; raise ValueError unless it is an integer of this range.

    Anything with ``__index__`` is one, such as a number of NumPy; True and False are not.
    """
    with suppress(TypeError):  # no integer, or an array of several
        found = least - 1 if is_bool(value) else operator.index(value)
        if least <= found <= most:
            return found
    bounds = f">= {least}" if most == math.inf else f">= {least} and <= {most}"
    raise ValueError(f"{name} must be an integer {bounds}, got {value!r}")


def number(name: str, value: Any, bounds: str) -> float:
    """Return ``value`` as a float; raise ValueError unless it is a number within ``bounds``.

    Numbers of any library are taken, also arrays without dimensions; True, False and strings are
    not. ``bounds`` is an interval such as "[0, 1)" or "(0, inf)".
    """
    low, high = map(float, bounds[1:-1].split(","))
    if is_number(value):
        found = float(value)
        above = found > low or (found == low and bounds[0] == "[")
        below = found < high or (found == high and bounds[-1] == "]")
        if above and below:
            return found
    wanted = f"in {bounds}"
    if high == math.inf:
        finite = "" if bounds[-1] == "]" else "finite "
        least = "" if low == -math.inf else f" {'>=' if bounds[0] == '[' else '>'} {low:g}"
        wanted = f"a {finite}number{least}"
    raise ValueError(f"{name} must be {wanted}, got {value!r}")


def set_numbers(owner: Any, **bounds: str) -> None:
    """Replace attributes of a frozen object by floats, each within its bounds."""
    for name, interval in bounds.items():
        object.__setattr__(owner, name, number(name, getattr(owner, name), interval))


def set_integers(owner: Any, *names: str) -> None:
    """Replace attributes of a frozen object by ints, each >= 1."""
    for name in names:
        object.__setattr__(owner, name, integer(name, getattr(owner, name)))


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a real number, of Python or of any library."""
    if is_bool(value):
        return False
    return isinstance(value, numbers.Real) or (is_array(value) and value.ndim == 0)


def is_bool(value: Any) -> bool:
    """Return whether ``value`` is True or False, of Python or of any library."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def generator(rng: int | np.random.Generator | None) -> np.random.Generator:
    """Return the NumPy generator that ``rng`` stands for (SPEC 7): an integer, itself, or fresh."""
    import numpy as np

    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"rng must be an integer >= 0, a numpy.random.Generator or None, got {rng!r}"
        ) from error
