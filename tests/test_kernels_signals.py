"""Winograd's algorithm along signals, against a plain reference in float64, and where it runs."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax

pytest.importorskip("numba")

from convolution_case import PLANS, RELU, ROW, Reference, case, check, use
from convolution_spread import SPREADS

from agnostic_xent.kernels.cpu.conv import (
    convolution,
    direct_plans,
    implicit_plans,
    row_plans,
    row_winograd,
)
from agnostic_xent.kernels.cpu.conv.costs import DIRECTIONS
from agnostic_xent.kernels.cpu.conv.geometry import Geometry
from agnostic_xent.kernels.cpu.toolchain import memory

cut = row_plans.cut_of
LAYER = Geometry(8, 64, 1, 200, 64, 1, (1, 5), (1, 1), ((0, 0), (2, 2)), (1, 1))


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Have NaN stand in every work space and result that is not written to."""

    def poisoned(shape, dtype):
        x = np.empty(shape, dtype)
        x.view(np.uint8)[...] = 255
        return x

    for module in (*PLANS.values(), memory):
        monkeypatch.setattr(module, "empty", poisoned)


@pytest.mark.parametrize("shapes", ROW, ids=lambda c: c.id)
def test_values_and_gradients(monkeypatch, shapes):
    use(monkeypatch, "row")
    check(shapes, SPREADS["row"])


@pytest.mark.parametrize("seed", range(40))
def test_random_shapes(monkeypatch, seed):
    use(monkeypatch, "row")
    rng = np.random.default_rng(seed)

    def one(*values):
        return int(rng.choice(values))

    groups, stride = one(1, 1, 1, 2, 3), one(1, 1, 1, 2)
    c, k = groups * one(1, 2, 3, 16, 17, 40), groups * one(1, 3, 8, 17, 64)
    dilation = one(1, 1, 2, 3, 8) if stride == 1 else 1
    window = one(*range(2 * stride + 1, 20), 33)
    reach = (window - 1) * dilation + 1
    length = one(*range(1, 60), 300)
    before, after = one(*range(reach)), one(*range(reach))
    length = max(length, reach - before - after)
    options = {"groups": groups, "stride": (1, stride), "dilation": (1, dilation)}
    options["padding"] = (0, 0), (before, after)
    shapes = (one(1, 2, 3, 9), c, 1, length), (k, c // groups, 1, window)
    check(case(*shapes, bias=one(0, 1) == 1, **options), SPREADS["row"], seed=seed)


@pytest.mark.parametrize("place", [0, 1])
def test_it_is_as_signals_are(place):
    """conv1d chooses it, and its bits are those of the image with one row."""
    rng = np.random.default_rng(place)
    x, w = (rng.standard_normal(s).astype("f4") for s in [(9, 64, 100), (48, 64, 7)])
    assert "Winograd F(4, 4) along the row, in pieces" in ax.explain(ax.conv1d, x, w)
    y, pullback = ax.conv1d.vjp(x, w, None, padding=3)
    image, image_pullback = ax.conv2d.vjp(x[:, :, None], w[:, :, None], None, padding=(0, 3))
    np.testing.assert_array_equal(y, image[:, :, 0])
    for found, of_image in zip(pullback(y)[:2], image_pullback(image)[:2], strict=True):
        np.testing.assert_array_equal(found, of_image[:, :, 0])


def test_it_is_chosen_for_its_geometry_only():
    for direction in DIRECTIONS:
        assert convolution.algorithm(LAYER, np.dtype("f4"), direction) is row_plans
        assert convolution.algorithm(LAYER, np.dtype("f8"), direction) is not row_plans


@pytest.mark.parametrize(
    "change",
    [
        {"window": (1, 2)}, {"height": 2}, {"padding": ((1, 0), (2, 2))}, {"stride": (1, 3)},
        {"stride": (1, 2), "dilation": (1, 2)}, {"window": (1, 257)}, {"dilation": (1, 500)},
        {"window": (2, 5), "padding": ((0, 1), (2, 2))},
    ],
)  # fmt: skip
def test_it_applies_to_its_geometry_only(change):
    assert row_plans.applies(LAYER, np.dtype("f4"))
    assert not row_plans.applies(LAYER._replace(**change), np.dtype("f4"))


@pytest.mark.parametrize("layer", [(1, 16, 64), (6, 16, 3)])
def test_few_channels_are_for_others(layer):
    c, k, window = layer
    g = LAYER._replace(channels=c, filters=k, window=(1, window))
    assert convolution.algorithm(g, np.dtype("f4"), "forward") in (direct_plans, implicit_plans)


@pytest.mark.parametrize(
    "window", [3, 4, 5, 6, 7, 8, 9, 12, 13, 39, 64],
)  # fmt: skip
def test_a_window_is_cut_into_the_pieces_with_the_fewest_products(window):
    written, taps, pieces = cut(window)
    assert taps * pieces >= window
    assert taps * (pieces - 1) < window
    assert pieces == 1 or taps % written == 0
    assert 8 * pieces / written < 0.7 * window
    assert written + taps <= 9


@pytest.mark.parametrize("name", ["transform_weights", "finish"])
def test_a_broken_kernel_is_caught(monkeypatch, name):
    """A factor of the weights' transform that is a thousandth larger."""
    use(monkeypatch, "row")
    shapes = case((2, 5, 1, 60), (6, 5, 1, 9), padding=(0, 4), **RELU)
    check(shapes, SPREADS["row"])
    loop = getattr(row_winograd, name)

    class Changed(dict):
        def __missing__(self, variant):
            def run(w, factors, *args, **options):
                factors = factors.copy()
                factors[np.argmax(abs(factors))] *= 1.001
                loop[variant](w, factors, *args, **options)

            return run

    monkeypatch.setattr(row_winograd, name, Changed())
    with pytest.raises(AssertionError, match="beyond the bound"):
        check(shapes, SPREADS["row"])


# --- accuracy, relative to sum |x| |w| ------------------------------------------------------------

STATED = 4e-6
"""The largest error of an output from 16 channels on, relative to the largest sum of its tile."""


def largest(sizes, written):
    """Return the largest number of each tile of a row."""
    outputs = sizes.shape[-1]
    tiles = np.pad(sizes, [*[(0, 0)] * 3, (0, -outputs % written)])
    tiles = tiles.reshape(*sizes.shape[:3], -1, written)
    return np.repeat(tiles.max(axis=-1), written, axis=-1)[..., :outputs]


@pytest.mark.parametrize("window", [3, 5, 8, 39])
@pytest.mark.parametrize("channels", [16, 64])
def test_accuracy(window, channels):
    x, w, _ = case((4, channels, 1, 200), (32, channels, 1, window)).arrays()
    g = Geometry(4, channels, 1, 200, 32, 1, (1, window), (1, 1), ((0, 0), (0, 0)), (1, 1))
    exact, sizes, (written, _, _) = Reference(x, w, {}), Reference(abs(x), abs(w), {}), cut(window)
    dy = np.random.default_rng(1).standard_normal((4, 32, *exact.output)).astype("f4")
    value = row_plans.forward(g, x, w, None, False) - exact.value()
    dx = row_plans.input_gradient(g, dy, w) - exact.input_gradient(dy)
    dw = row_plans.weight_gradient(g, x, dy) - exact.weight_gradient(dy)
    assert np.max(abs(value) / largest(sizes.value(), written)) < STATED
    assert np.max(abs(dx) / largest(sizes.input_gradient(abs(dy)), written)) < STATED
    assert np.max(abs(dw) / sizes.weight_gradient(abs(dy))) < STATED
