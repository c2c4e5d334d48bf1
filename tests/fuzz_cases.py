"""What the fuzzer calls: arguments of every operation, drawn as they are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rng = np.random.Generator
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 10, 13, 16, 17, 31, 32, 33, 64, 100)
EXTREME = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 88.0, -104.0, 1e8, -1e30)


@dataclass
class Arguments:
    """Arguments of a call: arrays, of float64 or integers, then others; and options."""

    operation: str
    arrays: list[Any]
    extra: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    terms: int = 32
    """About how many roundings follow each other."""
    dtypes: tuple[str, ...] = ("float32", "float32", "float64")


DRAWS: dict[str, Callable[[Rng], Arguments]] = {}
OFTEN = {
    "conv2d": 4,
    "conv1d": 2,
    "conv3d": 2,
    "cross_entropy": 5,
    "dense": 2,
    "max_pool2d": 2,
    "avg_pool2d": 2,
}
"""Operations that are drawn more than once as often as others."""


def draws(*names: str) -> Callable[..., Any]:
    """Enter a function that draws arguments of these operations, whose name it gets."""

    def enter(draw: Callable[..., Arguments]) -> Callable[..., Arguments]:
        for name in names:
            DRAWS[name] = lambda rng, name=name: draw(rng, name)
        return draw

    return enter


def draw(rng: Rng) -> Arguments:
    """Return arguments of an operation that is drawn, too."""
    shares = np.array([OFTEN.get(name, 1) for name in DRAWS], float)
    return DRAWS[str(rng.choice([*DRAWS], p=shares / shares.sum()))](rng)


def one_of(rng: Rng, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def shape_of(rng: Rng, least: int, most: int, numbers: int = 20_000) -> tuple[int, ...]:
    """Return a shape of so many dimensions, now and then with a long one, rarely with none."""
    shape = [int(rng.choice(SIZES)) for _ in range(int(rng.integers(least, most + 1)))]
    if shape and rng.random() < 0.15:
        shape[-1] = int(rng.integers(1, 5000))
    if shape and rng.random() < 0.03:
        shape[int(rng.integers(len(shape)))] = 0
    while math.prod(shape) > numbers:
        shape[int(np.argmax(shape))] //= 2
    return tuple(shape)


def numbers(rng: Rng, shape: Any, scale: float = 1.0) -> Any:
    return np.asarray(scale * rng.standard_normal(shape))


def with_extremes(rng: Rng, x: Any, share: float = 0.15) -> Any:
    """Put numbers at the edge of their range in some places of x, in a share of the calls."""
    if x.size and rng.random() < share:
        places = rng.integers(0, x.size, 1 + x.size // 20)
        x.reshape(-1)[places] = rng.choice(EXTREME, places.size)
    return x


# --- activations ---------------------------------------------------------------------------------


@draws("leaky_relu", "gelu", "tanh", "silu")
def other_elements(rng: Rng, name: str) -> Arguments:
    x = with_extremes(rng, numbers(rng, shape_of(rng, 0, 4), one_of(rng, 1, 10)))
    options = {}
    if name == "gelu":
        options["approximate"] = one_of(rng, "none", "tanh")
    elif name == "leaky_relu":
        options["negative_slope"] = one_of(rng, 0.01, 0.3)
    return Arguments(name, [x], options=options, terms=64)


@draws("layer_norm", "group_norm")
def sample_normalization(rng: Rng, name: str) -> Arguments:
    groups, each = one_of(rng, 1, 2, 4), one_of(rng, 1, 3, 8)
    sizes = one_of(rng, (), (33,), (5, 7), (2, 3, 4))
    x = numbers(rng, (one_of(rng, 1, 2, 8), groups * each, *sizes))
    own = x.shape[1:2] if name == "group_norm" else x.shape[int(rng.integers(1, x.ndim)) :]
    options = {"eps": one_of(rng, 1e-5, 1e-2)} | ({"groups": groups} if name[0] == "g" else {})
    arrays = [x, numbers(rng, own), numbers(rng, own)]
    return Arguments(name, arrays, options=options, terms=512)


@draws("relu", "sigmoid", "log_sigmoid")
def elements(rng: Rng, name: str) -> Arguments:
    x = with_extremes(rng, numbers(rng, shape_of(rng, 0, 4), one_of(rng, 1, 30)))
    return Arguments(name, [x])


@draws("add")
def sums(rng: Rng, name: str) -> Arguments:
    x1 = with_extremes(rng, numbers(rng, shape_of(rng, 0, 4), one_of(rng, 1, 30)))
    options = {"activation": one_of(rng, None, "relu")}
    return Arguments(name, [x1, numbers(rng, x1.shape)], options=options)


@draws("softmax", "log_softmax", "logsumexp")
def rows(rng: Rng, name: str) -> Arguments:
    x = with_extremes(rng, numbers(rng, shape_of(rng, 0, 4), one_of(rng, 1, 10)))
    axis: Any = int(rng.integers(-x.ndim, x.ndim)) if x.ndim else -1
    options = {"axis": axis}
    if name == "logsumexp" and rng.random() < 0.5:
        axes = rng.permutation(x.ndim)[: rng.integers(x.ndim + 1)]
        options = {"axis": one_of(rng, None, tuple(map(int, axes)))}
        options["keepdims"] = bool(rng.integers(2))
    return Arguments(name, [x], options=options, terms=64, dtypes=(*HALF, "float32", "float64"))


# --- images --------------------------------------------------------------------------------------

WINDOWS = ((3, 3), (3, 3), (3, 3), (1, 1), (1, 1), (5, 5), (7, 7), (2, 2), (1, 3), (4, 2))


def image_of(rng: Rng) -> tuple[int, int]:
    return one_of(rng, (28, 28), (14, 14), (8, 8), (7, 7), (9, 16), (5, 33), (32, 32), (1, 40))


@draws("conv2d")
def convolution(rng: Rng, name: str) -> Arguments:
    window, image = one_of(rng, *WINDOWS), image_of(rng)
    groups = one_of(rng, 1, 1, 1, 2, 4)
    channels, filters = (groups * one_of(rng, 1, 2, 3, 8, 16, 20) for _ in range(2))
    if rng.random() < 0.1:  # depthwise
        groups = channels
        filters = channels * one_of(rng, 1, 2)
    dilation = one_of(rng, 1, 1, 1, 1, 2, (1, 3))
    across = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    need = [d * (k - 1) + 1 for d, k in zip(across, window, strict=True)]
    image = tuple(max(n, m) for n, m in zip(image, need, strict=True))
    images = one_of(rng, 1, 1, 2, 3, 9)
    b = numbers(rng, filters) if rng.random() < 0.6 else None
    options = {
        "stride": one_of(rng, 1, 1, 1, 2, (1, 2), 3),
        "padding": one_of(rng, 0, 1, "same", "valid", (1, 2), ((1, 0), (0, 2))),
        "dilation": dilation,
        "groups": groups,
        "activation": one_of(rng, None, None, "relu"),
    }
    arrays = [numbers(rng, (images, channels, *image))]
    arrays += [numbers(rng, (filters, channels // groups, *window)), b]
    return Arguments(name, arrays, options=options, terms=1000)


@draws("conv1d", "conv3d")
def convolution_of_rank(rng: Rng, name: str) -> Arguments:
    rank, most = (1, 70) if name == "conv1d" else (3, 9)
    taps = (1, 2, 3, 3, 5, 9) if rank == 1 else (1, 2, 3, 3)
    window = tuple(int(rng.choice(taps)) for _ in range(rank))
    dilation = tuple(one_of(rng, 1, 1, 1, 2) for _ in range(rank))
    need = [d * (k - 1) + 1 for d, k in zip(dilation, window, strict=True)]
    sizes = tuple(max(m, int(rng.integers(1, most))) for m in need)
    groups = one_of(rng, 1, 1, 1, 2, 3)
    channels, filters = (groups * one_of(rng, 1, 2, 3, 8) for _ in range(2))
    options = {
        "stride": one_of(rng, 1, 1, 2, tuple(one_of(rng, 1, 2, 3) for _ in range(rank))),
        "padding": one_of(rng, 0, 0, 1, "same", "valid", tuple((i, 2 * i) for i in range(rank))),
        "dilation": dilation,
        "groups": groups,
        "activation": one_of(rng, None, None, "relu"),
    }
    arrays = [numbers(rng, (one_of(rng, 1, 2, 5), channels, *sizes))]
    arrays += [numbers(rng, (filters, channels // groups, *window))]
    arrays += [numbers(rng, filters) if rng.random() < 0.6 else None]
    return Arguments(name, arrays, options=options, terms=1000)


@draws("max_pool1d", "avg_pool1d", "max_pool3d", "avg_pool3d")
def pool_of_rank(rng: Rng, name: str) -> Arguments:
    rank, most = (1, 70) if "1d" in name else (3, 9)
    window = tuple(int(rng.integers(1, 4)) for _ in range(rank))
    sizes = tuple(int(rng.integers(3, most)) for _ in range(rank))
    x = numbers(rng, (one_of(rng, 1, 2, 5), one_of(rng, 1, 3, 8), *sizes))
    options = {
        "stride": one_of(rng, None, 1, tuple(one_of(rng, 1, 2) for _ in range(rank))),
        "padding": one_of(rng, 0, tuple(k // 2 for k in window)),
        "ceil_mode": bool(rng.integers(2)),
    }
    if name.startswith("max"):
        x = with_extremes(rng, x, 0.1)
    else:
        options["count_include_pad"] = bool(rng.integers(2))
    return Arguments(name, [x], (window,), options, terms=64)


@draws("max_pool2d", "avg_pool2d")
def pool(rng: Rng, name: str) -> Arguments:
    window = one_of(rng, 2, 2, 2, 3, 3, (2, 3), (1, 5), 4)
    k = max(window) if isinstance(window, tuple) else window
    image = tuple(max(n, k) for n in image_of(rng))
    x = numbers(rng, (one_of(rng, 1, 2, 5), one_of(rng, 1, 3, 8, 17), *image))
    least = min(window) if isinstance(window, tuple) else window
    options = {
        "stride": one_of(rng, None, None, 1, 2, (2, 1)),
        "padding": one_of(rng, 0, 0, 0, least // 2, least - 1),
        "ceil_mode": bool(rng.integers(2)),
    }
    if name == "max_pool2d":
        x = with_extremes(rng, x, 0.1)
        options["dilation"] = 1
    else:
        options["count_include_pad"] = bool(rng.integers(2))
    return Arguments(name, [x], (window,), options, terms=64)


@draws("global_avg_pool2d")
def whole_image(rng: Rng, name: str) -> Arguments:
    return Arguments(name, [numbers(rng, (one_of(rng, 1, 4), one_of(rng, 1, 9), *image_of(rng)))])


@draws("global_avg_pool")
def whole_sample(rng: Rng, name: str) -> Arguments:
    return Arguments(name, [numbers(rng, (2, 3, *shape_of(rng, 1, 3, 500)))])


@draws("batch_norm")
def normalization(rng: Rng, name: str) -> Arguments:
    sizes = one_of(rng, image_of(rng), image_of(rng), (), (33,), (3, 5, 4))
    x = numbers(rng, (one_of(rng, 2, 8), one_of(rng, 1, 3, 16), *sizes))
    arrays = [x, *(numbers(rng, x.shape[1]) for _ in range(3)), rng.random(x.shape[1]) + 0.1]
    options = {"train": bool(rng.integers(2)), "momentum": 0.1, "eps": 1e-5}
    options["activation"] = one_of(rng, None, "relu")
    return Arguments(name, arrays, options=options, terms=512)


@draws("dense")
def layer(rng: Rng, name: str) -> Arguments:
    features, units = one_of(rng, 1, 3, 10, 64, 100, 784), one_of(rng, 1, 2, 10, 17, 100)
    lead = one_of(rng, (), (1,), (7,), (32,), (2, 3), (65,))
    b = numbers(rng, units) if rng.random() < 0.7 else None
    arrays = [numbers(rng, (*lead, features)), numbers(rng, (units, features)), b]
    return Arguments(name, arrays, terms=1000)


# --- losses --------------------------------------------------------------------------------------

HALF = ("float16",)
SMOOTHING = (0.0, 0.0, 0.0, 0.1, 1.0)


def mean_options(rng: Rng) -> dict[str, Any]:
    return {
        "reduction": one_of(rng, "mean", "mean", "sum", "none"),
        "normalize": one_of(rng, None, None, "weight", "count", 7.5),
        "on_empty": one_of(rng, "nan", "zero"),
    }


def some(rng: Rng, shape: Any) -> Any:
    """Return weights, of which some are 0; or None."""
    weights = np.asarray(rng.random(shape) + 0.1)
    weights *= rng.random(shape) > one_of(rng, 0.0, 0.3)
    return weights if rng.random() < 0.35 else None


def target_of(rng: Rng, shape: tuple[int, ...], axis: int, options: dict[str, Any]) -> Any:
    """Return labels, of any dtype and perhaps out of range or ignored; or probabilities."""
    classes, samples = shape[axis], shape[:axis] + shape[axis + 1 :]
    if rng.random() < 0.3 or not classes:
        t = rng.random(shape) * (rng.random(shape) > 0.2)
        total = t.sum(axis=axis, keepdims=True)
        return t / np.where(total > 0, total, 1) * one_of(rng, 1, 1, 0.5)
    dtype = one_of(rng, "int64", "int64", *INTEGERS)
    labels = np.asarray(rng.integers(0, min(classes, np.iinfo(dtype).max), samples)).astype(dtype)
    if rng.random() < 0.3:
        options["ignore_index"] = one_of(rng, 0, -1, -100, np.iinfo(dtype).max, 255)
    if rng.random() < 0.15 and labels.size:
        options["check_labels"] = False
        place = rng.integers(0, labels.size, 1 + labels.size // 10)
        info = np.iinfo(dtype)
        edges = np.array([info.min, info.max], dtype)
        labels.reshape(-1)[place] = edges[rng.integers(0, 2, place.size)]
    ignored = options.get("ignore_index", 0)
    if np.iinfo(dtype).min <= ignored <= np.iinfo(dtype).max:
        labels.reshape(-1)[:: one_of(rng, 1, 3)] = ignored
    return labels


@draws("cross_entropy", "nll_loss", "categorical_cross_entropy")
def class_loss(rng: Rng, name: str) -> Arguments:
    shape = shape_of(rng, 1, 4, 6000)
    axis = int(rng.integers(len(shape)))
    samples = shape[:axis] + shape[axis + 1 :]
    options = mean_options(rng) | {"label_smoothing": one_of(rng, *SMOOTHING)}
    options |= {"axis": one_of(rng, axis, axis - len(shape))}
    options |= {"weight": some(rng, shape[axis]), "sample_weight": some(rng, samples)}
    target = target_of(rng, shape, axis, options)
    scores = numbers(rng, shape, one_of(rng, 1, 10))
    if name == "cross_entropy":
        scores = with_extremes(rng, scores)
        options["temperature"] = one_of(rng, 1.0, 1.0, 2.0, 0.5)
        options["overwrite_logits"] = rng.random() < 0.2
        options |= score_options(rng, shape[axis])
    elif name == "nll_loss":
        scores = -np.abs(scores)
    else:
        scores = rng.random(shape) * (rng.random(shape) > 0.05)
    return Arguments(name, [scores, target], options=options, terms=256, dtypes=(*HALF, "float32",
                     "float32", "float64"))  # fmt: skip


def score_options(rng: Rng, classes: int) -> dict[str, Any]:
    """Return what is done to logits before the softmax, and with their log-sum-exp."""
    return {
        "softcap": one_of(rng, None, None, None, 3.0),
        "class_prior": some(rng, classes),
        "z_loss": one_of(rng, 0.0, 0.0, 0.1),
        "return_logsumexp": bool(rng.random() < 0.3),
    }


@draws("focal_loss", "generalized_cross_entropy", "jensen_shannon_divergence")
def robust_loss(rng: Rng, name: str) -> Arguments:
    shape = shape_of(rng, 1, 4, 3000)
    axis = int(rng.integers(len(shape)))
    options = mean_options(rng) | {"axis": axis}
    options["sample_weight"] = some(rng, shape[:axis] + shape[axis + 1 :])
    if name == "jensen_shannon_divergence":
        options["mixing"] = one_of(rng, 0.1, 0.5, 0.9)
    else:
        options |= {"weight": some(rng, shape[axis]), "label_smoothing": one_of(rng, *SMOOTHING)}
        options |= {"q": one_of(rng, 0.3, 1.0)} if name[0] == "g" else {"gamma": one_of(rng, 0, 2)}
    target = target_of(rng, shape, axis, options)
    scores = numbers(rng, shape, one_of(rng, 1, 5))
    return Arguments(name, [scores, target], options=options, terms=256)


@draws("kl_divergence")
def divergence(rng: Rng, name: str) -> Arguments:
    shape = shape_of(rng, 1, 4, 3000)
    axis = int(rng.integers(len(shape)))
    options = mean_options(rng) | {"axis": axis, "temperature": one_of(rng, 1.0, 1.0, 2.0)}
    options["sample_weight"] = some(rng, shape[:axis] + shape[axis + 1 :])
    arrays = [numbers(rng, shape, one_of(rng, 1, 5)) for _ in range(2)]
    return Arguments(name, arrays, options=options, terms=256)


@draws("linear_cross_entropy")
def linear_loss(rng: Rng, name: str) -> Arguments:
    rows, features, classes = one_of(rng, 1, 7, 40), one_of(rng, 1, 5, 32), one_of(rng, 1, 3, 30)
    options = mean_options(rng) | {"label_smoothing": one_of(rng, *SMOOTHING)}
    options |= {"class_weight": some(rng, classes), "sample_weight": some(rng, rows)}
    options |= {"memory": one_of(rng, 2**20, 2**12), "temperature": one_of(rng, 1.0, 2.0)}
    options |= score_options(rng, classes)
    target = target_of(rng, (rows, classes), 1, options)
    b = numbers(rng, classes) if rng.random() < 0.5 else None
    arrays = [numbers(rng, (rows, features)), numbers(rng, (classes, features)), target, b]
    return Arguments(name, arrays, options=options, terms=512)


@draws("binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_focal_loss")
def binary_loss(rng: Rng, name: str) -> Arguments:
    shape = shape_of(rng, 1, 3, 20_000)
    options = mean_options(rng) | {"label_smoothing": one_of(rng, *SMOOTHING)}
    options |= {"weight": some(rng, one_of(rng, shape, shape[-1:], (1,)))}
    options |= {"sample_weight": some(rng, shape[:1])}
    target = one_of(rng, rng.random(shape), (rng.random(shape) > 0.5).astype(float))
    if name == "binary_cross_entropy":
        scores = rng.random(shape)
        places = rng.random(shape) < 0.1
        scores[places] = rng.choice([0, 1, 1e-40, 1e-8, 0.9999999, np.nan], int(places.sum()))
    else:
        scores = with_extremes(rng, numbers(rng, shape, one_of(rng, 1, 30)))
        options["pos_weight"] = some(rng, one_of(rng, shape, shape[-1:]))
    if name == "binary_focal_loss":
        scores, options["gamma"] = numbers(rng, shape, one_of(rng, 1, 5)), one_of(rng, 0.0, 2.0)
    return Arguments(name, [scores, target], options=options, terms=256)


@draws("dropout")
def dropout(rng: Rng, name: str) -> Arguments:
    options = {"rate": one_of(rng, 0.0, 0.5, 0.1), "rng": int(rng.integers(99))}
    return Arguments(name, [numbers(rng, shape_of(rng, 1, 4))], options=options)
