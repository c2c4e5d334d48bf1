"""What a prediction needs beside samples and value: layouts of weights, arrays, kernels' memory."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import drawn_net, drawn_params

from agnostic_xent import Conv2d, Flatten, MaxPool2d, Sequential, compile_predictor
from agnostic_xent.kernels.cpu import plans
from agnostic_xent.kernels.cpu.conv import winograd, winograd_plans
from agnostic_xent.kernels.cpu.conv.geometry import Geometry
from agnostic_xent.kernels.cpu.toolchain.threads import threads
from agnostic_xent.network.containers import parts


@pytest.fixture
def two_threads():
    """Let at most two threads share loops: what each of them needs counts."""
    before = threads()
    numba.set_num_threads(min(2, before))
    yield min(2, before)
    numba.set_num_threads(before)


def rooms_of(predictor):
    every = (plan for stretch in predictor._stretches for plan in stretch.plans.values())
    return [room for plan in every for rooms in plan.free.values() for room in rooms]


def weights_of(predictor):
    """Return the bytes of the parameters and of their layouts."""
    kept = [x for s in predictor._stretches for like in s.constants.values() for x in like]
    return sum(x.nbytes for x in [*predictor.params.values(), *kept])


def two_largest(model, params, x):
    """Return the bytes of the two largest arrays before, between and behind the layers."""
    sizes = [x.nbytes]
    for part in parts(model, params).values():
        x = part(x)
        sizes.append(x.nbytes)
    return sum(sorted(sizes)[-2:])


MOST = {8: 1.5, 64: 1.0}
"""Samples -> times the weights and the two largest arrays, with 20 % more. With few samples the
memory of the kernels counts for more than the arrays."""


@pytest.mark.parametrize("seed", range(6))
def test_memory_of_random_nets(two_threads, seed):
    rng = np.random.default_rng(seed)
    model, shape = drawn_net(rng)
    params = drawn_params(model, shape, rng)
    for samples, times in MOST.items():
        predictor = compile_predictor(model, params, shape)
        x = rng.standard_normal((samples, *shape)).astype("float32")
        predictor(x)
        weights = weights_of(predictor)
        rooms = sum(room.space.nbytes + room.words.nbytes for room in rooms_of(predictor))
        assert weights + rooms <= times * 1.2 * (weights + two_largest(model, params, x))


def wide_net():
    """Return a net whose kernels need memory, its parameters, and samples."""
    model = Sequential(
        Conv2d(16, 3, padding=1), Conv2d(32, 3, padding=1, activation="relu"), MaxPool2d(3),
        Conv2d(32, 5, padding=2), Flatten(),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = drawn_params(model, (16, 24, 24), rng)
    return model, params, rng.standard_normal((8, 16, 24, 24)).astype("float32")


def test_threads_have_memory_of_their_own_where_they_share_steps(two_threads, monkeypatch):
    """With pieces of their own, each needs the memory of one; both ways have the same bits."""
    monkeypatch.setattr(plans, "SHORT", 0)
    monkeypatch.setattr(plans, "WORTH_SHARING", 0)
    model, params, x = wide_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    expected = predictor(x)
    (plan,) = (p for p in predictor._stretches[0].plans.values() if p.free)
    assert [room.space.size // plan.single.size for room in rooms_of(predictor)] == [two_threads]
    assert (plan.shared.size > plan.single.size) == (two_threads > 1)
    pieces = range(0, len(x), plan.samples)
    for _ in range(2):
        found = [plan(x[first : first + plan.samples]) for first in pieces]
        np.testing.assert_array_equal(np.concatenate(found), expected)
        for room in rooms_of(predictor):
            room.space[:] = 255  # NaN


def test_what_makes_a_plan_keeps_no_memory():
    model, params, x = wide_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    predictor(x)
    assert len(rooms_of(predictor)) == 1
    predictor(x[:1])
    assert len(rooms_of(predictor)) == 2


# --- memory of the kernels -----------------------------------------------------------------------

SIZES = st.integers(1, 40)


@settings(max_examples=200, deadline=None)
@given(
    images=st.integers(1, 9), channels=st.integers(1, 300), filters=st.integers(1, 300),
    height=SIZES, width=SIZES, stride=st.sampled_from([1, 2]),
)  # fmt: skip
def test_products_lie_where_no_pixels_are_still_to_be_read(
    images, channels, filters, height, width, stride
):
    padding = ((1, 1), (1, 1))
    g = Geometry(
        images, channels, height, width, filters, 1, (3, 3), (stride, stride), padding, (1, 1)
    )
    for t in (winograd_plans.forward_tiling(g), winograd_plans.input_gradient_tiling(g)):
        layout, points = winograd.scratch_of(t, winograd_plans.LANES), t.side**2
        read = [layout.v + p * layout.v_plane for p in range(points)]
        written = [layout.m + p * layout.m_plane for p in range(points)]
        assert layout.m_line * t.cuts >= t.padded_filters
        assert layout.v > 0
        assert written[-1] + layout.m_plane == layout.out < layout.size
        for p in reversed(range(points)):  # the order of the loop
            last = points - 1 if t.cuts > 1 else p  # another cut reads all of them again
            assert written[p] >= read[last] + layout.v_plane
