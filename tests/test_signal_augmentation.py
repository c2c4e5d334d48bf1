"""Layers that change signals at random: a plain reference, and the same numbers everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_close

from agnostic_xent import Jitter, RandomRotation3d, RandomScale, to_numpy
from agnostic_xent.core.communication import Alone
from agnostic_xent.training.ranks.shares import ShareOfDraws

LAYERS = [RandomRotation3d(25), RandomScale(0.2), Jitter(0.1)]


def signals(shape=(5, 6, 11), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def about(axis, angle, v):
    """Return v turned about a unit vector: its part along it stays, the other one turns."""
    along = axis * (axis @ v)
    return along + math.cos(angle) * (v - along) + math.sin(angle) * np.cross(axis, v)


@pytest.mark.parametrize("shape", [(5, 6, 11), (4, 3, 2, 7), (3, 9, 1)])
@pytest.mark.parametrize("degrees", [10, 180.0])
def test_rotations_are_those_of_the_plain_formula(shape, degrees):
    x = signals(shape)
    y, _ = RandomRotation3d(degrees).vjp({}, x, rng=3)
    draws = np.random.default_rng(3).random((shape[0], 3))
    for sample, turned, (u, v, w) in zip(x, y, draws, strict=True):
        z, around = 2 * u - 1, 2 * math.pi * v
        s = math.sqrt(1 - z * z)
        axis = np.asarray([s * math.cos(around), s * math.sin(around), z])
        angle = math.radians(degrees) * (2 * w - 1)
        for sensor in range(0, shape[1], 3):
            old = sample[sensor : sensor + 3].reshape(3, -1)
            new = turned[sensor : sensor + 3].reshape(3, -1)
            for t in range(old.shape[1]):
                assert_close(new[:, t], about(axis, angle, old[:, t]), "float64", 10)


def test_rotations_go_everywhere():
    x = np.zeros((4000, 3, 1))
    x[:, 2] = 1
    y, _ = RandomRotation3d(180).vjp({}, x, rng=0)
    assert np.all(np.abs(y.mean(axis=(0, 2))[:2]) < 0.05)
    small, _ = RandomRotation3d(25).vjp({}, x, rng=0)
    angles = np.degrees(np.arccos(np.clip(small[:, 2, 0], -1, 1)))
    assert 20 < angles.max() <= 25.0001


def test_scale_and_jitter():
    x = signals()
    y, _ = RandomScale(0.2).vjp({}, x, rng=1)
    factor = 0.8 + 0.4 * np.random.default_rng(1).random((5, 1, 1))
    assert_close(y, factor * x, "float64", 4)
    y, _ = Jitter(0.1).vjp({}, x, rng=1)
    assert_close(y, x + 0.1 * np.random.default_rng(1).standard_normal(x.shape), "float64", 4)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_every_library_gives_the_same_numbers(layer, row):
    for dtype in row.dtypes:
        x, dy = signals().astype(dtype), signals(seed=1).astype(dtype)
        expected, pullback = layer.vjp({}, x, rng=7)
        found, pull = layer.vjp({}, row.array(x), rng=7)
        row.check(found, dtype)
        np.testing.assert_array_equal(to_numpy(found), expected)
        np.testing.assert_array_equal(to_numpy(pull(row.array(dy))[0]), pullback(dy)[0])


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_the_pullback_is_the_transpose(layer):
    x, dx, dy = signals(), signals(seed=1), signals(seed=2)
    y, pullback = layer.vjp({}, x, rng=0)
    moved, _ = layer.vjp({}, x + dx, rng=0)
    gradient, grads = pullback(dy)
    assert grads == {}
    assert np.sum(dy * (moved - y)) == pytest.approx(np.sum(gradient * dx))
    assert layer.vjp({}, x, rng=0, input_grad=False)[1](dy) == (None, {})


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_inference_changes_nothing(layer):
    x = signals()
    assert layer({}, x) is x
    assert layer.init(0, (6, 11)) == ({}, (6, 11))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_ranks_draw_shares_of_one_batch(layer):
    class Two(Alone):
        size, rank = 2, 1

    x = signals((6, 6, 4))
    whole, _ = layer.vjp({}, x, rng=5)
    draws = ShareOfDraws(np.random.default_rng(5), lambda: (6, 6.0), Two())
    own, _ = layer.vjp({}, x[3:], rng=draws)
    np.testing.assert_array_equal(own, whole[3:])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomRotation3d(0), r"degrees must be in \(0, 180\], got 0"),
        (lambda: RandomScale(1), r"by must be in \(0, 1\), got 1"),
        (lambda: Jitter(-0.1), "std must be a finite number > 0, got -0.1"),
        (lambda: RandomRotation3d(5).vjp({}, signals((2, 4, 5))), "three channels a sensor"),
        (lambda: RandomRotation3d(5).vjp({}, signals((2, 3))), r"got \(2, 3\)"),
    ],
)
def test_refuses(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_refuses_integers():
    with pytest.raises(TypeError, match="x must have a real floating dtype"):
        Jitter(0.1).vjp({}, np.ones((2, 3, 4), int))
