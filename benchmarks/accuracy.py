"""How large errors are: losses and activations in units of the last place, convolutions in |x||w|.

``python -m benchmarks.accuracy`` writes benchmarks/results/accuracy.md, which docs/accuracy.md
shows. Exact values of losses come from mpmath in 40 digits, those of convolutions from float64.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import mpmath
import numpy as np

import agnostic_xent as ax

from .measure import machine, table

DTYPES = ("float64", "float32", "float16", "bfloat16")
WAYS = {"portable": "portable", "auto": "kernel"}
CLASSES, SPREADS, OFFSETS = (2, 10, 1000), (1e-6, 1.0, 30.0, 1e4), (0.0, 1e3, 1e8)
ROWS = 4
TINY = 1e-3
"""What is smaller is an exponential of a large argument, whose own rounding it shows."""

LAYERS = {  # name -> C, pixels, K, window, stride, padding
    "3x3, 1 to 32": (1, 28, 32, 3, 1, 1),
    "3x3, 64 to 64": (64, 32, 64, 3, 1, 1),
    "3x3, 256 to 256": (256, 8, 256, 3, 1, 1),
    "3x3, stride 2": (64, 32, 128, 3, 2, 1),
    "1x1": (256, 16, 64, 1, 1, 0),
    "5x5": (6, 28, 16, 5, 1, 0),
    "7x7, stride 2": (3, 64, 64, 7, 2, 3),
}


def kind(dtype: str) -> Any:
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


def ulps(found: Any, exact: Any) -> Any:
    """Return the errors in units of the last place of the exact values, denormal ones included."""
    limits = ml_dtypes.finfo(found.dtype)
    size = np.maximum(np.abs(exact), float(limits.smallest_normal))
    place = float(limits.eps) * 2.0 ** np.floor(np.log2(size))
    return np.abs(found.astype("longdouble") - exact) / place


# --- losses ---------------------------------------------------------------------------------------


def rows(dtype: str) -> Iterator[tuple[Any, Any]]:
    """Yield logits and labels: all numbers of classes, spreads and offsets that the dtype holds."""
    largest = float(ml_dtypes.finfo(kind(dtype)).max) / 8
    for classes, spread, offset in product(CLASSES, SPREADS, OFFSETS):
        if max(spread, offset) < largest:
            rng = np.random.default_rng(classes)
            z = (offset + spread * rng.standard_normal((ROWS, classes))).astype(kind(dtype))
            yield z, np.array([0, classes - 1, *np.argmax(z[2:], axis=1)])


def wide(values: Any) -> Any:
    """Return numbers of mpmath in NumPy's widest float."""
    near = np.array([float(v) for v in values])
    rest = [float(v - float(v)) for v in values]
    return near.astype("longdouble") + np.array(rest)


def exact(z: Any, label: int) -> tuple[Any, Any]:
    """Return the loss of one row, and its gradient."""
    with mpmath.workdps(40):
        values = [mpmath.mpf(float(v)) for v in z]
        top = max(values)
        e = [mpmath.exp(v - top) for v in values]
        others = mpmath.fsum(e[:label] + e[label + 1 :])
        total = others + e[label]
        loss = mpmath.log1p(others / e[label])
        gradient = [v / total for v in e]
        gradient[label] = -others / total
        return wide([loss])[0], wide(gradient)


def of_cross_entropy(dtype: str) -> list[list[str]]:
    """Return a row of the table for each way to compute."""
    errors: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for z, labels in rows(dtype):
        right = [exact(row, label) for row, label in zip(z, labels, strict=True)]
        for mode in WAYS:
            with ax.kernels(mode):
                loss, pullback = ax.cross_entropy.vjp(z, labels, reduction="none")
                (gradient, _) = pullback(np.ones(ROWS, z.dtype))
            for n, (value, slope) in enumerate(right):
                for name, found, v in (("loss", loss[n], value), ("gradient", gradient[n], slope)):
                    errors[mode][name].append((ulps(np.atleast_1d(found), v), np.atleast_1d(v)))
    return [[dtype, WAYS[mode], *largest(errors[mode])] for mode in ways(dtype)]


def ways(dtype: str) -> list[str]:
    """Return the modes that differ: there are kernels for two dtypes."""
    return list(WAYS) if dtype in ("float32", "float64") else ["portable"]


def largest(errors: dict[str, Any]) -> Iterator[str]:
    """Yield the largest error of loss and gradient where they are not tiny, and everywhere."""
    for name in ("loss", "gradient"):
        error, value = (np.concatenate(a) for a in zip(*errors[name], strict=True))
        yield f"{error[np.abs(value) > TINY].max():.2f}"
        yield f"{error.max():.2f}"


# --- functions of an element, and softmax ---------------------------------------------------------

ELEMENTS = {
    "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
    "log_sigmoid": lambda v: -mpmath.log1p(mpmath.exp(-v)),
}


def of_activations(dtype: str) -> list[list[str]]:
    """Return a row of the table for each activation and way to compute."""
    x = np.concatenate([np.linspace(-80, 80, 1601), [1e-6, -1e-6, -20.5, 17.25]]).astype(dtype)
    many = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    found = []
    with mpmath.workdps(40):
        right = {
            name: (x, wide([f(mpmath.mpf(float(v))) for v in x])) for name, f in ELEMENTS.items()
        }
        e = [mpmath.exp(mpmath.mpf(float(v))) for v in many]
        total = mpmath.fsum(e)
        right["softmax"] = many, wide([v / total for v in e])
        right["log_softmax"] = many, wide([mpmath.log(v / total) for v in e])
        right["logsumexp"] = many, wide([mpmath.log(total)])[0]
    for name, (arguments, values) in right.items():
        for mode in WAYS:
            with ax.kernels(mode):
                error = ulps(np.asarray(getattr(ax, name)(arguments)), values)
            found.append([name, dtype, WAYS[mode], f"{error.max():.2f}"])
    return found


# --- convolutions ---------------------------------------------------------------------------------


def of_convolution(layer: tuple[int, ...]) -> list[str]:
    """Return the largest errors relative to sum |x| |w|: three directions, two modes."""
    c, pixels, k, window, stride, padding = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, c, pixels, pixels), dtype="float32")
    w = rng.standard_normal((k, c, window, window), dtype="float32")
    options = {"stride": stride, "padding": padding}
    dy = rng.standard_normal(ax.conv2d(x, w, **options).shape, dtype="float32")
    exact = directions("portable", *(a.astype("float64") for a in (x, w, dy)), **options)
    sizes = directions("portable", *(np.abs(a.astype("float64")) for a in (x, w, dy)), **options)
    cells = []
    for mode in ("direct", "auto"):
        found = directions(mode, x, w, dy, **options)
        for y, right, size in zip(found, exact, sizes, strict=True):
            met = size > 0  # the others are pixels that no window reaches
            cells.append(f"{np.max(np.abs(y - right)[met] / size[met]):.1e}")
    return cells


def directions(mode: str, x: Any, w: Any, dy: Any, **options: Any) -> tuple[Any, ...]:
    """Return the value and the gradients of x and w."""
    with ax.kernels(mode):
        y, pullback = ax.conv2d.vjp(x, w, **options)
        return y, *pullback(dy)[:2]


# --- the report -----------------------------------------------------------------------------------


def main() -> None:
    versions = machine()["versions"]
    text = "# Measured errors\n\nWritten by `python -m benchmarks.accuracy`: "
    text += ", ".join(f"{name} {versions[name]}" for name in ("agnostic-xent", "numpy", "numba"))
    text += ".\nThe largest error found is given, in units of the last place (ulp) of the exact\n"
    text += "value where nothing else is said.\n\n## Cross entropy\n\n"
    text += f"{CLASSES} classes, logits with offsets to 1e8 and spreads from\n"
    text += f"1e-6 to 1e4. *Usual*: values above {TINY:g}.\n\n"
    header = ["dtype", "computed by", "usual loss", "any loss", "usual gradient", "any gradient"]
    text += table(header, [row for dtype in DTYPES for row in of_cross_entropy(dtype)])
    text += "\n## Activations\n\nElements from -80 to 80; 1000 classes of normal numbers.\n\n"
    rows = [row for dtype in DTYPES[:2] for row in of_activations(dtype)]
    text += table(["function", "dtype", "computed by", "error"], rows)
    text += "\n## Convolution\n\nfloat32, normal x and w; relative to the output's own sum of\n"
    text += '|x| |w|. *Direct*: with `kernels("direct")`.\n\n'
    names = ("forward", "input gradient", "weight gradient")
    header = ["layer", *(f"direct {name}" for name in names), *names]
    text += table(header, [[name, *of_convolution(layer)] for name, layer in LAYERS.items()])
    path = Path(__file__).parent / "results" / "accuracy.md"
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
