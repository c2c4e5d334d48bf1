"""Compilation of everything ahead: the table of all compiled loops."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from typing import Any

import numpy as np

from . import linear_sgd, optimizers
from .activation import activations
from .conv import (
    column_plans,
    columns,
    cotangents,
    direct,
    direct_plans,
    pointwise,
    pointwise_plans,
    tiling,
    winograd,
    winograd_gradient,
    winograd_plans,
)
from .loss import binary_cross_entropy
from .loss import plans as loss_plans
from .normalization import batch_norm as normalization
from .pool import pooling
from .pool.windows import BY_ROWS, Windows
from .simd import products as matrices
from .toolchain.threads import threads

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
TAPS = (np.dtype(np.uint8), np.dtype(np.uint16))  # more than 65,534 of a window wait for their use
EITHER = (False, True)

LOOPS: tuple[tuple[Any, ...], ...] = (
    (
        winograd_plans.loop,
        (
            winograd.forward,
            winograd.transform_weights,
        ),
        (tiling.Stride1, tiling.Stride2, tiling.Stride2Gradient),
    ),
    (
        winograd_plans.loop,
        (
            winograd_gradient.gradient_by_sections,
            winograd_gradient.transform,
            winograd_gradient.multiply_points,
            winograd_gradient.add_sections,
            winograd_gradient.finish,
        ),
        (tiling.Stride1, tiling.Stride2),
    ),
    (direct_plans.loop, (direct.correlate, direct.weight_gradient), FLOATS),
    (pointwise_plans.loop, (pointwise.forward, pointwise.weight_gradient), FLOATS),
    (column_plans.loop, (columns.forward, columns.weight_gradient)),
    (cotangents.loop, (cotangents.mask_planes, cotangents.sum_planes), FLOATS),
    (matrices.loop, FLOATS),
    (pooling.loop_of, (pooling.MAXIMA, pooling.MAXIMA_GRADIENT), BY_ROWS, FLOATS, TAPS[:1]),
    (pooling.loop_of, (pooling.MAXIMA, pooling.MAXIMA_GRADIENT), (Windows,), FLOATS, TAPS),
    (pooling.loop_of, (pooling.MEANS, pooling.MEANS_GRADIENT), (*BY_ROWS, Windows), FLOATS),
    (pooling.compiled_plane_means, FLOATS),
    (normalization.loops, FLOATS),
    (activations.compiled_loops, FLOATS, (1, 2)),
    (loss_plans.loops, FLOATS, tuple(loss_plans.LOOPS), EITHER),
    (loss_plans.soft_loops, FLOATS, EITHER),
    (loss_plans.scaling, FLOATS, tuple(loss_plans.SCALING), EITHER),
    (binary_cross_entropy.loop, FLOATS),
    (optimizers.sgd_loop, FLOATS),
    (optimizers.adamw_loop, FLOATS),
    (linear_sgd.scoring, FLOATS),
    (
        linear_sgd.loop,
        (linear_sgd.one_by_one, linear_sgd.in_batches, linear_sgd.of_classes),
        FLOATS,
        ("C", "A"),
    ),
)
"""What returns compiled loops, and the values that each of its arguments may have."""


def calls() -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Yield each function of the table with each combination of arguments."""
    for function, *choices in LOOPS:
        for args in product(*choices):
            yield function, args


def compile_all() -> Iterator[tuple[str, float]]:
    """Compile in as many processes as there are threads; yield what is ready, and its seconds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(threads(), context) as pool:
        futures = [pool.submit(_timed, *call) for call in calls()]
        for future in as_completed(futures):
            yield future.result()


def _timed(function: Any, args: tuple[Any, ...]) -> tuple[str, float]:
    start = time.perf_counter()
    function(*args)
    names = ", ".join(getattr(a, "__name__", str(a)) for a in args)
    module = function.__module__.rpartition(".")[2]
    return f"{module}.{function.__name__}({names})", time.perf_counter() - start
