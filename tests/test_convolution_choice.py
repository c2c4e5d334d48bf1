"""Which algorithm of convolution runs, and what `explain` says of it."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax

pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.conv import (
    column_plans,
    convolution,
    depthwise_plans,
    direct_plans,
    implicit_plans,
    winograd_plans,
)
from agnostic_xent.kernels.cpu.conv.costs import DIRECTIONS
from agnostic_xent.kernels.cpu.conv.geometry import Geometry

GENERAL = direct_plans, implicit_plans


def chosen(layer, dtype, direction="forward"):
    return convolution.algorithm(layer, np.dtype(dtype), direction)


@pytest.mark.parametrize(
    "change",
    [
        {"window": (5, 5)}, {"window": (3, 1)}, {"stride": (1, 2)}, {"dilation": (2, 1)},
        {"padding": ((3, 0), (0, 0))}, {"padding": ((1, 1), (1, 3))},
    ],
)  # fmt: skip
def test_winograd_is_chosen_for_its_geometry_only(change):
    layer = Geometry(8, 64, 28, 28, 64, 1, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    assert chosen(layer, "f4") is winograd_plans
    assert chosen(layer, "f8") in GENERAL
    assert chosen(layer._replace(**change), "f4") is not winograd_plans


@pytest.mark.parametrize(
    "change", [{"padding": ((0, 1), (1, 1))}, {"padding": ((1, 2), (1, 1))}, {"stride": (2, 1)}]
)
def test_winograd_with_stride_2_is_chosen_for_its_geometry_only(change):
    layer = Geometry(8, 256, 28, 28, 256, 1, (3, 3), (2, 2), ((1, 1), (1, 0)), (1, 1))
    assert chosen(layer, "f4") is winograd_plans
    assert chosen(layer._replace(**change), "f4") in GENERAL


@pytest.mark.parametrize(
    "change", [{"window": (8, 5)}, {"window": (2, 5)}, {"stride": (3, 1)}, {"dilation": (1, 2)}]
)
def test_columns_are_chosen_for_their_geometry_only(change):
    layer = Geometry(8, 16, 28, 28, 16, 1, (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1))
    assert chosen(layer, "f4") is column_plans
    assert chosen(layer, "f8") in GENERAL
    assert chosen(layer._replace(**change), "f4") in GENERAL


@pytest.mark.parametrize(
    "change", [{"filters": 2}, {"channels": 2}, {"groups": 1}, {"stride": (1, 3)},
               {"window": (13, 13)}]
)  # fmt: skip
def test_depthwise_is_chosen_for_its_geometry_only(change):
    layer = Geometry(8, 1, 28, 28, 1, 32, (5, 3), (2, 1), ((2, 0), (1, 1)), (1, 2))
    for dtype in ("f4", "f8"):
        for direction in DIRECTIONS:
            assert chosen(layer, dtype, direction) is depthwise_plans
            assert chosen(layer._replace(**change), dtype, direction) is not depthwise_plans


def test_long_single_rows_are_not_for_depthwise():
    row = Geometry(8, 1, 1, 500, 1, 32, (1, 3), (1, 1), ((0, 0), (1, 1)), (1, 1))
    assert chosen(row, "f4") is direct_plans
    assert chosen(row._replace(width=20), "f4") is depthwise_plans


def test_explain_names_the_algorithm():
    x, w = np.zeros((8, 64, 28, 28), "f4"), np.zeros((64, 64, 3, 3), "f4")
    fast = "conv2d: Numba, Winograd F(4x4, 3x3) (it takes these arguments)"
    assert ax.explain(ax.conv2d, x, w, padding=1) == fast
    product = fast.replace("Winograd F(4x4, 3x3)", "implicit product")
    assert ax.explain(ax.conv2d, x, w, dilation=2, stride=2) == product
    interleaved = fast.replace("3x3)", "3x3) of interleaved images")
    assert ax.explain(ax.conv2d, x, w, dilation=2) == interleaved
    deep = np.zeros((8, 256, 28, 28), "f4"), np.zeros((256, 256, 3, 3), "f4")
    assert "Winograd F(4x4, 3x3) with stride 2" in ax.explain(ax.conv2d, *deep, padding=1, stride=2)
    few = ax.explain(
        ax.conv2d, np.zeros((8, 3, 64, 64), "f4"), np.zeros((64, 3, 4, 4), "f4"), stride=4
    )
    assert "implicit product; input gradient direct, weight gradient implicit product" in few
    wide = np.zeros((16, 64, 5, 5), "f4")
    assert "Winograd F(4, 5) down the columns" in ax.explain(ax.conv2d, x, wide)
    with ax.kernels("direct"):
        assert "direct" in ax.explain(ax.conv2d, x, w, padding=1)
    with ax.kernels("portable"):
        assert ax.explain(ax.conv2d, x, w, padding=1).startswith("conv2d: portable (")
