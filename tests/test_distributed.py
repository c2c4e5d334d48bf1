"""Training on several ranks: the numbers of one rank, and the same bits each time."""

from __future__ import annotations

import functools

import distributed_case
import numpy as np
import pytest
from distributed_case import SAMPLES, one_after_the_other, train_all
from ranks import on_ranks

from agnostic_xent import SGD, AdamW, ClipByNorm, LayerRates, MovingAverage
from agnostic_xent.training.ranks.sums import LARGE

LIMITS = {"float32": 1e-5, "float64": 1e-12}
"""How far n ranks may be from one after 110 steps, relative to the largest parameter.

Ranks sum up other blocks than one process does, and training makes more of a rounding: one run in
float32, whose first parameters are changed by a rounding each, ends up to 6.5e-6 from float64.
"""


@pytest.fixture(scope="module")
def alone():
    return {dtype: train_all(None, dtype) for dtype in LIMITS}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_follow_one(ranks, alone):
    found = on_ranks(ranks, one_after_the_other, [(train_all, dtype) for dtype in LIMITS])
    for of_rank in found:
        for own, (dtype, limit) in zip(of_rank, LIMITS.items(), strict=True):
            for case, (params, history) in alone[dtype].items():
                for name, w in params.items():
                    error = abs(own[case][0][name] - w).max() / abs(w).max()
                    assert error < limit, f"{case}, {dtype}, {name}: {error}"
                for name, column in history.items():
                    # of a loss near 0, logits that differ by so much are the error
                    found_column = own[case][1][name]
                    np.testing.assert_allclose(found_column, column, 10 * limit, limit)


def test_clipped_gradients_of_the_whole_batch():
    """The norm is that of the sums: each rank's own is larger, as its samples are fewer."""
    optimizer = ClipByNorm(SGD(0.02, momentum=0.9), norm=0.5)
    options = {"cases": ["plain"], "optimizer": optimizer, "epochs": 2}
    expected = train_all(None, "float64", **options)["plain"][0]
    plain = train_all(None, "float64", cases=["plain"], epochs=2)["plain"][0]
    assert any(abs(plain[name] - w).max() > 1e-3 for name, w in expected.items())
    for found in on_ranks(2, train_all, "float64", **options):
        for name, w in expected.items():
            assert abs(found["plain"][0][name] - w).max() < LIMITS["float64"] * abs(w).max()


def alike(a, b):
    return all((a[name] == b[name]).all() for name in a)


def test_all_ranks_have_the_same_bits_each_time():
    cases = ["all options", "large layer"]
    runs = [on_ranks(3, train_all, cases=cases, epochs=3) for _ in range(2)]
    for case in cases:
        first = runs[0][0][case]
        for found in (*runs[0], *runs[1]):
            assert alike(first[0], found[case][0])
            assert first[1] == found[case][1]


TOOLS = {
    "accumulation": {
        "accumulate": 3,
        "cases": ["all options", "a number", "dropout", "batch norm", "large layer"],
    },
    "whole steps": {"drop_last": True, "accumulate": 2, "batch_size": 7, "cases": ["one logit"]},
    "frozen": {"trainable": ["2", "5"], "cases": ["batch norm"]},
    "the last layer": {"trainable": ["4"], "cases": ["dropout"]},
    "averages": {
        "optimizer": ClipByNorm(MovingAverage(SGD(0.02, momentum=0.9), 0.9), norm=2.0),
        "cases": ["class weights", "batch norm"],
    },
    "rates of layers": {"optimizer": LayerRates(AdamW(), {"0": 0.1}), "cases": ["plain"]},
}
CALLS = {
    name: (functools.partial(train_all, dtype="float64", epochs=3, **tool),)
    for name, tool in TOOLS.items()
} | {
    "callbacks": (distributed_case.callbacks,),
    "iterable": (distributed_case.whole_iterable,),
    "no seed": (distributed_case.unseeded,),
    "divergence": (distributed_case.diverging,),
    "losses": (distributed_case.losses,),
    "fewer batches": (distributed_case.unequal, False),
    "fewer validation batches": (distributed_case.unequal, True),
}


@pytest.fixture(scope="module")
def on_two():
    """What each of some functions returns on two ranks, which run them in one job."""
    found = on_ranks(2, one_after_the_other, [*CALLS.values()])
    return dict(zip(CALLS, zip(*found, strict=True), strict=True))


@pytest.mark.parametrize("tool", TOOLS)
def test_training_tools_have_the_numbers_of_one_process(on_two, tool):
    expected = CALLS[tool][0](None)
    for found in on_two[tool]:
        for case, (params, history) in expected.items():
            for name, w in params.items():
                error = abs(found[case][0][name] - w).max()
                assert error <= LIMITS["float64"] * abs(w).max(), (case, name)
            for name, column in history.items():
                np.testing.assert_allclose(found[case][1][name], column, 1e-10)


def test_callbacks_run_on_rank_0_unless_they_ask_for_all(on_two):
    first, second = on_two["callbacks"]
    assert first == ([(2 * SAMPLES, 2), (2 * SAMPLES, 2)], 2)
    assert second == ([(0, 0), (2 * SAMPLES, 2)], 2)


def test_the_large_layer_is_large():
    params, _ = distributed_case.WITH_LARGE_LAYER.init(0, distributed_case.IMAGE)
    assert max(w.size for w in params.values()) >= LARGE


def test_batches_of_an_iterable_are_shared(on_two):
    expected = distributed_case.whole_iterable(None)
    for params in on_two["iterable"]:
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


def test_batches_that_end_early_on_a_rank_are_refused(on_two):
    assert all("data ended on 1 of 2" in error for error in on_two["fewer batches"])
    for error in on_two["fewer validation batches"]:
        assert "number of validation batches" in error


def test_a_run_without_a_seed_has_the_same_on_all_ranks(on_two):
    first, second = on_two["no seed"]
    assert alike(first, second)


@pytest.mark.parametrize("library", ["torch", "jax", "array_api_strict"])
def test_other_libraries(library):
    pytest.importorskip(library)
    models = distributed_case.PLAIN, distributed_case.WITH_LARGE_LAYER
    calls = [(distributed_case.each_library, library, model) for model in models]
    found = on_ranks(2, one_after_the_other, calls)
    for i, model in enumerate(models):
        expected = distributed_case.each_library(None, "numpy", model)
        for params in (of_rank[i] for of_rank in found):
            for name, w in expected.items():
                assert abs(params[name] - w).max() < 10 * LIMITS["float32"] * abs(w).max()


def test_a_divergence_is_found_by_all_ranks(on_two):
    one = distributed_case.diverging(None)
    assert one is not None
    for epoch, step, _ in on_two["divergence"]:
        assert (epoch, step) == one[:2]


def test_losses_that_cannot_be_shared_are_refused(on_two):
    for errors in on_two["losses"]:
        assert ["loss must be one of" in errors[0], "sample_weight" in errors[1]] == [True, True]
