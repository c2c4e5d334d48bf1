"""Training on several ranks: the numbers of one rank, and the same bits each time."""

from __future__ import annotations

import distributed_case
import numpy as np
import pytest
from distributed_case import CASES, SAMPLES, train
from ranks import on_ranks

from agnostic_xent.training.ranks.sums import LARGE

LIMITS = {"float32": 1e-6, "float64": 1e-12}
"""How far n ranks may be from one after 110 steps, relative to the largest parameter."""


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_follow_one(ranks, dtype):
    found = on_ranks(ranks, distributed_case.train_all, dtype)
    for case in CASES:
        params, history = train(None, case, dtype)
        for own in found:
            for name, w in params.items():
                error = abs(own[case][0][name] - w).max() / abs(w).max()
                assert error < LIMITS[dtype], f"{case}, {name}: {error}"
            for name, column in history.items():
                np.testing.assert_allclose(own[case][1][name], column, rtol=10 * LIMITS[dtype])


def alike(a, b):
    return all((a[name] == b[name]).all() for name in a)


@pytest.mark.parametrize("case", ["all options", "large layer"])
def test_all_ranks_have_the_same_bits_each_time(case):
    runs = [on_ranks(3, train, case, epochs=3) for _ in range(2)]
    first = runs[0][0]
    for params, history in (*runs[0], *runs[1]):
        assert alike(first[0], params)
        assert first[1] == history


def test_callbacks_run_on_rank_0_unless_they_ask_for_all():
    first, second = on_ranks(2, distributed_case.callbacks)
    assert first == ([(2 * SAMPLES, 2), (2 * SAMPLES, 2)], 2)
    assert second == ([(0, 0), (2 * SAMPLES, 2)], 2)


def test_the_large_layer_is_large():
    params, _ = distributed_case.WITH_LARGE_LAYER.init(0, distributed_case.IMAGE)
    assert max(w.size for w in params.values()) >= LARGE


def test_batches_of_an_iterable_are_shared():
    expected = distributed_case.whole_iterable(None)
    for params in on_ranks(2, distributed_case.whole_iterable):
        for name, w in expected.items():
            assert abs(params[name] - w).max() < LIMITS["float64"] * abs(w).max()


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_reads_its_own_images_of_a_file(ranks, tmp_path):
    x, y = distributed_case.data("float64")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    expected, whole = distributed_case.mapped(None, tmp_path)
    found = on_ranks(ranks, distributed_case.mapped, tmp_path)
    trial = 1  # read by each before the first step
    assert sum(read - trial for _, read in found) == whole - trial == 2 * SAMPLES
    for params, read in found:
        assert abs(read - 2 * SAMPLES / ranks) < 2 * SAMPLES / 10
        for name, w in expected.items():
            assert abs(params[name] - w).max() < LIMITS["float64"] * abs(w).max()


@pytest.mark.parametrize("validation", [False, True])
def test_batches_that_end_early_on_a_rank_are_refused(validation):
    for error in on_ranks(2, distributed_case.unequal, validation):
        assert ("number of validation batches" if validation else "data ended on 1 of 2") in error


def test_a_run_without_a_seed_has_the_same_on_all_ranks():
    first, second = on_ranks(2, distributed_case.unseeded)
    assert alike(first, second)


@pytest.mark.parametrize(
    "model", [distributed_case.PLAIN, distributed_case.WITH_LARGE_LAYER], ids=["plain", "large"]
)
@pytest.mark.parametrize("library", ["torch", "jax", "array_api_strict"])
def test_other_libraries(library, model):
    pytest.importorskip(library)
    expected = distributed_case.each_library(None, "numpy", model)
    for params in on_ranks(2, distributed_case.each_library, library, model):
        for name, w in expected.items():
            assert abs(params[name] - w).max() < 10 * LIMITS["float32"] * abs(w).max()


def test_a_divergence_is_found_by_all_ranks():
    one = distributed_case.diverging(None)
    assert one is not None
    for epoch, step, _ in on_ranks(2, distributed_case.diverging):
        assert (epoch, step) == one[:2]


def test_losses_that_cannot_be_shared_are_refused():
    for errors in on_ranks(2, distributed_case.losses):
        assert ["loss must be one of" in errors[0], "sample_weight" in errors[1]] == [True, True]
