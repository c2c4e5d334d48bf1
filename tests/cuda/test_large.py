"""Larger and odd problems of the CUDA kernels: several blocks, tiles and parts, and a rest."""

from __future__ import annotations

import pytest

from agnostic_xent import avg_pool2d, global_avg_pool2d, log_softmax, max_pool2d, softmax
from tests.cuda import cross_entropy_case
from tests.cuda import test_convolution as convolution
from tests.cuda import test_normalization as normalization
from tests.cuda import test_pooling as pooling
from tests.cuda import test_softmax as rows
from tests.cuda.test_convolution import RELU, case

CONVOLUTIONS = [
    case((2, 64, 16, 16), (64, 64, 3, 3), padding=1, **RELU),
    case((1, 48, 19, 17), (72, 48, 3, 3), padding=1),
    case((2, 20, 13, 11), (40, 20, 5, 3), stride=2, padding=2),
    case((1, 32, 21, 14), (66, 16, 3, 3), padding=1, dilation=2, groups=2),
    case((3, 3, 31, 29), (64, 3, 7, 7), stride=2, padding=3),
    case((2, 64, 9, 9), (130, 64, 1, 1), bias=False),
    case((1, 16, 40, 3), (96, 16, 3, 1), stride=3, padding=1),
    case((2, 37, 23, 29), (37, 1, 3, 3), groups=37, padding=1, stride=2),
]


@pytest.mark.parametrize("way", [None, "tf32", "tf32x3"])
@pytest.mark.parametrize("problem", CONVOLUTIONS, ids=str)
def test_convolutions(problem, way):
    convolution.check(problem, way=way)


LOSSES = [(5, 8192), (3, 20_000), (2, 70_001), (33, 1000), (9, 256), (1025, 7), (257, 130)]


@pytest.mark.parametrize("options", ["plain", "all"])
@pytest.mark.parametrize("shape", LOSSES, ids=str)
def test_losses(shape, options):
    named = cross_entropy_case.OPTIONS[options]
    cross_entropy_case.check(*cross_entropy_case.draw(shape, **named))


@pytest.mark.parametrize("operation", [softmax, log_softmax], ids=lambda o: o.name)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5003), 1), ((700, 33), 1), ((2, 67, 31, 33), 1)], ids=str
)
def test_softmax(operation, shape, axis):
    rows.check(operation, *rows.draw(shape), axis)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", [(7, 5, 33, 31), (3, 67, 9, 11), (130, 3, 7, 5)], ids=str)
def test_batch_norm(shape, train):
    normalization.check(*normalization.draw(shape), train=train)


@pytest.mark.parametrize("operation", [max_pool2d, avg_pool2d], ids=lambda o: o.name)
@pytest.mark.parametrize(
    "options", [{"window": 3, "stride": 2, "padding": 1}, {"window": (5, 2), "stride": (1, 3)}]
)
def test_pools(operation, options):
    pooling.check(operation, pooling.draw((3, 7, 61, 53)), options)


@pytest.mark.parametrize("shape", [(5, 67, 31, 29), (2, 3, 112, 111)], ids=str)
def test_means_of_planes(shape):
    pooling.check(global_avg_pool2d, pooling.draw(shape), {})
