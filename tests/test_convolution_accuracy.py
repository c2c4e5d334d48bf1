"""How accurate the CPU kernels of conv2d are, and that broken ones are seen to be."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba")

from convolution_case import GENERAL, PLANS, POOL, RELU, Reference, case, check, rounding, use
from convolution_spread import POINTS, SPREADS, ColumnPoints, Plain, matrix, points_of

import agnostic_xent as ax
from agnostic_xent.kernels.cpu.conv import (
    columns,
    convolution,
    depthwise,
    depthwise_planes,
    direct_plans,
    implicit,
    winograd,
    winograd_gradient,
    winograd_plans,
)
from agnostic_xent.kernels.cpu.conv.column_transforms import of_cotangents
from agnostic_xent.kernels.cpu.conv.geometry import geometry_of
from agnostic_xent.kernels.cpu.conv.tiling import Stride1, Stride2Gradient

LAYERS = {  # of the benchmark: channels, pixels, filters, window, stride, padding
    "LeNet 1": (1, 28, 32, 3, 1, 1),
    "LeNet 2": (32, 28, 64, 3, 1, 1),
    "LeNet 3": (32, 14, 64, 3, 1, 1),
    "LeNet 4": (64, 14, 128, 3, 1, 1),
    "ResNet 64": (64, 32, 64, 3, 1, 1),
    "ResNet 128": (128, 16, 128, 3, 1, 1),
    "ResNet 256": (256, 8, 256, 3, 1, 1),
    "1x1": (256, 16, 64, 1, 1, 0),
    "5x5": (6, 28, 16, 5, 1, 0),
    "stride 2": (64, 32, 128, 3, 2, 1),
    "stem 7x7": (3, 64, 64, 7, 2, 3),
}

# --- accuracy, relative to sum |x| |w| ------------------------------------------------------------

GAUSSIAN = np.pi / 2
"""Root mean square of a product of normal numbers over its mean absolute value."""


def amplification(taps, after, *before):
    """Return how much larger than sum |x| |w| the numbers are that Winograd's sums up.

    Their root mean square for normal x and w, where it is largest, for a single channel and |x| and
    |w| of 1; an output has ``taps`` products in each of the two directions. Both roots together are
    one square; in one direction it is the root of this.
    """
    squares = np.prod([np.sum(m**2, axis=1) for m in before], axis=0)
    return float(np.max(after**2 @ squares / np.square(taps)))


def stated(algorithm, terms, sums):
    """Return the largest error of normal x and w that is stated, relative to sum |x| |w|.

    Direct and implicit products: 6e-7, for any number of products. Winograd's sums are of as many
    numbers as there are channels (or tiles), which are larger than products, and have roundings of
    the transforms on top: 4e-6 to 9e-6 for 16 channels and tiles or more, up to 3e-5 for a single
    channel; with stride 2, 1e-6 to 7e-6 and 2e-5. Down the columns: 1e-6 to 4e-6, up to 1.1e-5.
    """
    if algorithm in GENERAL:
        return rounding("f4", 1) * GAUSSIAN
    chain, factor = sums
    return rounding("f4", chain) * factor * GAUSSIAN / np.sqrt(terms)


def directions(algorithm, x, w, dy, options):
    """Return the error, sum |x| |w|, the numbers of a sum, and Winograd's chain and factor."""
    shapes = options | {"groups": 1, "dilation": (1, 1)}
    exact, sizes = Reference(x, w, options), Reference(abs(x), abs(w), options)
    shapes |= {"stride": exact.stride, "padding": exact.margins}
    geometry, plans = geometry_of(x, w, shapes), PLANS[algorithm]
    if algorithm == "columns":
        yield from of_columns(geometry, x, w, dy, exact, sizes)
        return
    p, back = points_of(exact.stride)
    met = 3 if back.written == 4 else np.array([1, 2] * 4)  # outputs, by a row of pixels
    tiles = x.shape[0] * int(np.prod([-(-n // 4) for n in exact.output]))
    c, k, pixels = w.shape[1], w.shape[0], dy[:, 0].size
    yield (
        plans.forward(geometry, x, w, None, False) - exact.value(), sizes.value(), c,
        (c + p.roundings, amplification(3, p.of_output, p.of_input, p.of_weights)),
    )  # fmt: skip
    yield (
        plans.input_gradient(geometry, dy, w) - exact.input_gradient(dy),
        sizes.input_gradient(abs(dy)), k,
        (k + back.roundings, amplification(met, back.of_output, back.of_input, back.of_weights)),
    )  # fmt: skip
    yield (
        plans.weight_gradient(geometry, x, dy) - exact.weight_gradient(dy),
        sizes.weight_gradient(abs(dy)), pixels / 16,
        (tiles + p.roundings_back, amplification(4, p.of_weights.T, p.of_input, p.of_output.T)),
    )  # fmt: skip


def of_columns(geometry, x, w, dy, exact, sizes):
    """Yield the same, with the largest sum |x| |w| of each column of a tile."""
    plans = PLANS["columns"]
    c, k, n = geometry.channels, geometry.filters, geometry.images
    (step, _), (_, window), rows = geometry.stride, geometry.window, exact.output[0]
    p = ColumnPoints(-(-geometry.window[0] // step))
    met = geometry.window[0] / step
    factor = np.sqrt(amplification(met, p.of_output, p.of_input, p.of_weights))
    yield (
        plans.forward(geometry, x, w, None, False) - exact.value(),
        largest(sizes.value(), p.written), c, (c * step * window + p.roundings, factor),
    )  # fmt: skip
    error = plans.input_gradient(geometry, dy, w) - exact.input_gradient(dy)
    size = sizes.input_gradient(abs(dy))
    if geometry.stride == (1, 1):
        yield error, largest(size, p.written), k, (k * window + p.roundings, factor)
    else:  # which is direct
        yield error, size, 1, (1, 1)
    back = np.sqrt(amplification(p.written, p.of_weights.T, p.of_input, p.of_output.T))
    yield (
        plans.weight_gradient(geometry, x, dy) - exact.weight_gradient(dy),
        sizes.weight_gradient(abs(dy)), dy[:, 0].size / p.written,
        (n * -(-rows // p.written) * exact.output[1] + p.roundings, back),
    )  # fmt: skip


def largest(sizes, rows):
    """Return the largest number of each column of each tile of so many rows."""
    found = np.zeros_like(sizes)
    for first in range(0, sizes.shape[2], rows):
        tile = sizes[:, :, first : first + rows]
        found[:, :, first : first + rows] = tile.max(axis=2, keepdims=True)
    return found


FITTING = [
    (algorithm, layer)
    for algorithm in PLANS
    for layer, (_, _, _, window, stride, _) in LAYERS.items()
    if algorithm in GENERAL
    or (algorithm == "winograd" and window == 3)
    or (algorithm == "columns" and window > 2 * stride)
]


@pytest.mark.parametrize(("algorithm", "layer"), FITTING)
def test_accuracy_of_the_benchmark_layers(algorithm, layer):
    c, pixels, k, window, stride, padding = LAYERS[layer]
    options = {"stride": stride, "padding": padding}
    x, w, _ = case((2, c, pixels, pixels), (k, c, window, window)).arrays()
    dy = np.random.default_rng(1).standard_normal((2, k, *Reference(x, w, options).output))
    for error, size, terms, points in directions(algorithm, x, w, dy.astype("f4"), options):
        met = size > 0  # pixels at the edge that no window reaches
        assert not error[~met].any()
        assert np.max(np.abs(error[met]) / size[met]) < stated(algorithm, terms, points)


LONG = {  # sums of up to 20,000 products: shapes of x and w, options
    "channels": ((1, 2048, 4, 4), (2, 2048, 3, 3), {}),
    "channels, one pixel": ((1, 20_000, 4, 8), (8, 20_000, 1, 1), {}),
    "filters": ((1, 2, 4, 4), (2048, 2, 3, 3), {}),
    "images": ((1500, 2, 4, 4), (2, 2, 3, 3), {"padding": 1}),
    "pixels": ((2, 1, 110, 111), (3, 1, 3, 2), {"stride": (1, 2)}),
    "pixels, one pixel": ((3, 8, 80, 84), (8, 8, 1, 1), {}),
    "groups": ((9, 2, 50, 50), (2, 1, 5, 5), {"groups": 2, "padding": 2}),
    "depthwise": ((9, 2, 50, 50), (2, 1, 5, 5), {"groups": 2, "padding": 2}),
    "depthwise, short rows": ((400, 16, 7, 7), (16, 1, 3, 3), {"groups": 16, "padding": 1}),
    "depthwise, large window": ((2, 3, 30, 40), (3, 1, 12, 10), {"groups": 3, "padding": 3}),
}


@pytest.mark.parametrize("numbers", ["equal", "positive"])
@pytest.mark.parametrize(
    ("algorithm", "name"),
    [(algorithm, name) for algorithm in GENERAL for name in LONG]
    + [("depthwise", name) for name in LONG if name.startswith("depthwise")],
)
def test_errors_do_not_grow_with_the_number_of_products(monkeypatch, algorithm, name, numbers):
    """Numbers of one sign, whose roundings do not cancel: blocks of a sum are added apart."""

    def chosen(geometry, dtype, direction):
        plans = PLANS[algorithm]
        return plans if plans.applies(geometry, dtype) else direct_plans

    monkeypatch.setattr(convolution, "algorithm", chosen)
    x_shape, w_shape, options = LONG[name]
    rng = np.random.default_rng(0)

    def draw(shape):
        return (np.full(shape, 0.1) if numbers == "equal" else rng.random(shape)).astype("f4")

    x, w = draw(x_shape), draw(w_shape)
    b = np.zeros(len(w), "f4")
    with ax.kernels("portable"):
        exact, back = ax.conv2d.vjp(x.astype(float), w.astype(float), b.astype(float), **options)
    dy = draw(exact.shape)
    value, pullback = ax.conv2d.vjp(x, w, b, **options)
    for found, expected in zip(
        (value, *pullback(dy)), (exact, *back(dy.astype(float))), strict=True
    ):
        met = expected > 0
        assert np.max(np.abs(found[met] / expected[met] - 1)) < 1.5e-6


def test_sums_of_dense_and_pools_are_of_blocks_too():
    x, w, dy = (np.full(s, 0.1, "f4") for s in [(40, 20_000), (3, 20_000), (20_000, 3)])
    y, dw = ax.dense(x, w), ax.dense.vjp(x.reshape(-1, 40), w[:, :40])[1](dy)[1]
    tenth = float(np.float32(0.1))
    for found in (y, dw):
        assert np.max(np.abs(found / (20_000 * tenth**2) - 1)) < 1.5e-6
    image = np.full((1, 1, 150, 130), 0.1, "f4")
    for mean in (ax.avg_pool2d(image, (150, 130)), ax.global_avg_pool2d(image)):
        assert np.max(np.abs(mean / tenth - 1)) < 2.5e-6


def test_errors_of_winograd_follow_the_largest_sums_of_a_tile():
    """An output beside a bright pixel in its tile has that one's error, not its own.

    Relative to the output's own sum |x| |w| the error knows no bound; relative to the largest
    such sum of the tile it is as stated. Direct convolution is as stated for every output.
    """
    x, w, _ = case((1, 16, 16, 16), (16, 16, 3, 3)).arrays()
    x[:, :, 1::4, 1::4] *= 1e4
    options = {"padding": 1}
    dy = np.zeros((1, 16, 16, 16), "f4")
    error, size, terms, points = next(directions("direct", x, w, dy, options))
    assert np.max(np.abs(error) / size) < stated("direct", terms, points)
    error, size, terms, points = next(directions("winograd", x, w, dy, options))
    bound = stated("winograd", terms, points)
    assert np.max(np.abs(error) / size) > 10 * bound
    tiles = size.reshape(1, 16, 4, 4, 4, 4)
    largest = np.broadcast_to(tiles.max(axis=(3, 5), keepdims=True), tiles.shape)
    assert np.max(np.abs(error) / largest.reshape(error.shape)) < bound


# --- the transforms -------------------------------------------------------------------------------


def correlation(tiling):
    """Return which pixel times which tap is added to which output: (y, w, x)."""
    if tiling is Stride2Gradient:  # pixel 2i meets tap 1 of output i, 2i + 1 taps 0 and 2
        met = [{1: i // 2} if i % 2 == 0 else {0: i // 2, 2: i // 2 + 1} for i in range(8)]
        return np.array(
            [[np.eye(5)[m[u]] if u in m else np.zeros(5) for u in range(3)] for m in met]
        )
    stride, read = (1, 6) if tiling is Stride1 else (2, 9)
    return np.array([[np.eye(read)[stride * i + u] for u in range(3)] for i in range(4)])


def assert_interpolates(tiling, of_input, of_weights, of_output):
    """Check y[i] = sum_u w[u] x[i * stride + u] for all pairs of one pixel and one tap."""
    found = np.einsum("yp,pw,px->ywx", of_output, of_weights, of_input)
    products = np.einsum("yp,pw,px->ywx", *map(np.abs, (of_output, of_weights, of_input)))
    assert np.all(np.abs(found - correlation(tiling)) <= rounding("f8", 6) * products)


@pytest.mark.parametrize("tiling", POINTS)
def test_transforms_make_a_convolution(tiling):
    p = POINTS[tiling]
    assert_interpolates(tiling, p.of_input, p.of_weights, p.of_output)
    if tiling is not Stride2Gradient:
        side = tiling.SIZES[0]
        back = matrix(p.scheme.of_output_gradient, 4), matrix(p.scheme.of_weight_gradient, side)
        np.testing.assert_array_equal(back[0], p.of_output.T)
        np.testing.assert_allclose(back[1], p.of_weights.T, rtol=rounding("f8", 1))


@pytest.mark.parametrize("window", range(3, 8))
def test_transforms_down_the_columns_make_a_convolution(window):
    p = ColumnPoints(window)
    found = np.einsum("yp,pw,px->ywx", p.of_output, p.of_weights, p.of_input)
    exact = [[np.eye(8)[i + u] for u in range(window)] for i in range(p.written)]
    products = np.einsum("yp,pw,px->ywx", *map(np.abs, (p.of_output, p.of_weights, p.of_input)))
    assert np.all(np.abs(found - exact) <= rounding("f8", 8) * products)
    rows = [*np.eye(p.written), *np.zeros((6 - p.written, p.written))]
    np.testing.assert_array_equal(of_cotangents(Plain(), rows), p.of_output.T[:-1])


@pytest.mark.parametrize("tiling", POINTS)
def test_a_wrong_constant_is_caught(tiling):
    p = POINTS[tiling]
    matrices = p.of_input, p.of_weights, p.of_output
    for number, right in enumerate(matrices):
        for place in np.argwhere(right):
            wrong = [m.copy() for m in matrices]
            wrong[number][tuple(place)] *= 1.0001
            with pytest.raises(AssertionError):
                assert_interpolates(tiling, *wrong)


# --- broken kernels -------------------------------------------------------------------------------


def changed_plan(monkeypatch, name, change):
    plans = convolution.algorithm(None, None, None)
    make = getattr(plans, name).__wrapped__

    def made(geometry, dtype):
        plan = make(geometry, dtype)
        change(plan)
        return plan

    monkeypatch.setattr(plans, name, made)


def drop_a_tap(plan):
    plan.taps[-1][len(plan.taps[-1]) // 2] = -1  # the index of a weight that is 0


def shift_a_tap(plan):
    plan.packing.offsets = plan.packing.offsets.copy()
    plan.packing.offsets[5] += 1


def move_an_output(plan):
    plan.places[3] += 1


def move_a_tap(plan):
    plan.steps = plan.steps + (np.arange(plan.steps.size) == 5)


def shift_a_row(plan):
    plan.phases[1] = plan.phases[1]._replace(shift=plan.phases[1].shift + 1)


def roll_weights(plan):
    plan.lines = np.roll(plan.lines, 1)
    plan.in_order = False


def pack_another_row(plan):
    plan.packing.row_starts = plan.packing.row_starts + 1


def changed_result(monkeypatch, module, name, change):
    run = getattr(module, name)

    def changed(*args, **options):
        found = run(*args, **options)
        change(found)
        return found

    monkeypatch.setattr(module, name, changed)


def flip_a_mask_bit(found):
    masked = found[0].reshape(-1)
    place = np.flatnonzero(masked == 0)[7]
    masked[place] = 1


def swap_a_winner(found):
    found[1][7] ^= 1


def swap_winners(monkeypatch):
    run = convolution.max_pool2d.vjp

    def changed(x, window):
        y, pullback = run(x, window)

        def swapped(dy):
            (dx,) = pullback(dy)
            dx[0, 0, :2, :2] = dx[0, 0, 1::-1, 1::-1].copy()
            return (dx,)

        return y, swapped

    monkeypatch.setattr(convolution, "max_pool2d", SimpleNamespace(vjp=changed))


def changed_loop(monkeypatch, module, name, number, after):
    """Make a number that a loop gets or leaves a thousandth larger."""
    loop = getattr(module, name)

    class Changed(dict):
        def __missing__(self, variant):
            def run(*args, **options):
                if after:
                    loop[variant](*args, **options)
                args[number].flat[3] *= 1.001
                if not after:
                    loop[variant](*args, **options)

            return run

    monkeypatch.setattr(module, name, Changed())


VALUE, INPUT = "forward_plan", "input_gradient_plan"
BREAKS = {
    "tap of the value": ("direct", changed_plan, VALUE, drop_a_tap),
    "tap of the input gradient": ("direct", changed_plan, INPUT, drop_a_tap),
    "tap of the weight gradient": ("direct", changed_plan, VALUE, shift_a_tap),
    "packed row": ("direct", changed_plan, INPUT, pack_another_row),
    "mask bit": ("direct", changed_result, convolution, "through_relu", flip_a_mask_bit),
    "winner": ("direct", swap_winners),
    "mask bit, winograd": (
        "winograd",
        changed_result,
        convolution,
        "through_relu",
        flip_a_mask_bit,
    ),
    "winner, winograd": ("winograd", changed_result, winograd_plans, "pooled", swap_a_winner),
    "transformed weight": ("winograd", changed_loop, winograd, "transform_weights", 1, True),
    "transformed gradient": ("winograd", changed_loop, winograd_gradient, "finish", 0, False),
    "output, implicit": ("implicit", changed_plan, VALUE, move_an_output),
    "tap, implicit": ("implicit", changed_plan, VALUE, move_a_tap),
    "tap of the input gradient, implicit": ("implicit", changed_plan, INPUT, move_a_tap),
    "order of weights, implicit": ("implicit", changed_plan, INPUT, roll_weights),
    "tap, by rows": ("implicit", changed_plan, "forward_by_rows", move_a_tap),
    "row, by rows": ("implicit", changed_plan, "input_gradient_by_rows", shift_a_row),
    "weight, implicit": ("implicit", changed_loop, implicit, "lay_out", 2, True),
    "sum, implicit": ("implicit", changed_loop, implicit, "finish", 0, False),
    "weight, columns": ("columns", changed_loop, columns, "forward", 1, False),
    "gradient, columns": ("columns", changed_loop, columns, "weight_gradient", 3, True),
    "weight, depthwise": ("depthwise", changed_loop, depthwise, "correlate", 2, False),
    "gradient, depthwise": ("depthwise", changed_loop, depthwise, "weight_gradient", 8, True),
    "planes, depthwise": ("short rows", changed_loop, depthwise_planes, "correlate", 1, False),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_kernel_is_caught(monkeypatch, broken):
    name, change, *args = BREAKS[broken]
    follows = POOL if "winner" in broken else RELU
    height = 4 if "by rows" in broken else 9
    shapes = case((2, 5, height, 12), (6, 5, 3, 3), padding=1, **follows)
    if "depthwise" in broken:
        width = 7 if name == "short rows" else 30
        name = "depthwise"
        shapes = case((2, 16, 9, width), (16, 1, 3, 3), padding=1, groups=16, **follows)
    use(monkeypatch, name)
    check(shapes, SPREADS[name])
    change(monkeypatch, *args)
    with pytest.raises(AssertionError, match="beyond the bound"):
        check(shapes, SPREADS[name])
