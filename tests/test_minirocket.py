"""MiniRocket: values on every library, the bits of the kernel and of aeon, and what is refused."""

from __future__ import annotations

import json
import pickle

import minirocket_features as stored
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
pytest.importorskip("numba")

from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from agnostic_xent import LogisticRegression, MiniRocket, kernels, to_backend, to_numpy
from agnostic_xent.core.arrays import device
from agnostic_xent.operations.minirocket import KERNELS, Convolutions, positive_proportions

STORED = json.loads(stored.FILE.read_text())


def signals(seed, n=12, c=3, length=60):
    return np.random.default_rng(seed).standard_normal((n, c, length)).astype("float32")


def drawn_plan(rng, channels, length, of_kernel):
    """Return convolutions with any dilations, channels and half-integer biases."""
    dilations = np.unique(rng.integers(1, (length - 1) // 8 + 1, 3))
    counts = rng.integers(1, of_kernel + 1, len(dilations))
    sizes = rng.integers(1, channels + 1, 84 * len(dilations))
    chosen = [rng.permutation(channels)[:size] for size in sizes]
    biases = rng.integers(-40, 40, 84 * counts.sum()).astype("float32") + np.float32(0.5)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Convolutions(biases, dilations, counts, starts, np.concatenate(chosen))


def slow_features(x, plan):
    """Return the features by the definition: weights times numbers, one signal after the other."""
    n, _, length = x.shape
    columns, number, first = [], 0, 0
    for position, dilation in enumerate(plan.dilations):
        for kernel, twos in enumerate(KERNELS):
            weights = np.where(np.isin(np.arange(9), twos), 2.0, -1.0)
            padded = np.pad(x.astype("float64"), [(0, 0), (0, 0), (4 * dilation, 4 * dilation)])
            chosen = plan.channels[plan.starts[number] : plan.starts[number + 1]]
            z = np.zeros((n, length))
            for t in range(length):
                z[:, t] = padded[:, chosen, t : t + 8 * dilation + 1 : dilation].sum(1) @ weights
            if (position + kernel) % 2:
                z = z[:, 4 * dilation : length - 4 * dilation]
            last = first + plan.counts[position]
            columns += [(z > bias).mean(axis=1) for bias in plan.biases[first:last]]
            number, first = number + 1, last
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("mode", ["require", "portable"])
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(9, 40))
def test_values(mode, seed, channels, length):
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, (3, channels, length)).astype("float32")  # all sums are exact
    plan = drawn_plan(rng, channels, length, 2)
    with kernels(mode):
        found = positive_proportions([x], plan)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, slow_features(x, plan).astype("float32"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(9, 300), st.integers(1, 9))
def test_kernel_and_definition_give_the_same_bits(seed, channels, length, count):
    rng = np.random.default_rng(seed)
    x, plan = signals(seed, count, channels, length), drawn_plan(rng, channels, length, 4)
    with kernels("require"):
        found = positive_proportions([x], plan)
        turned = np.asfortranarray(x)
        turned.flags.writeable = False
        np.testing.assert_array_equal(positive_proportions([turned], plan), found)
    with kernels("portable"):
        np.testing.assert_array_equal(positive_proportions([x], plan), found)


@pytest.mark.parametrize("name", stored.CASES)
def test_biases_and_features_are_those_of_aeon(name):
    x, kernel_count = stored.signals(name), stored.CASES[name][3]
    model = MiniRocket(kernel_count, random_state=len(name)).fit(x)
    assert [stored.digest(model.biases_), stored.digest(model.transform(x))] == STORED[name]


def test_every_library_gives_the_same_bits(row):
    x = signals(1)
    expected = MiniRocket(200, random_state=0).fit(x)
    there = row.array(x)
    model = MiniRocket(200, random_state=0).fit(there)
    np.testing.assert_array_equal(to_numpy(model.biases_), expected.biases_)
    found = row.call(lambda x: x, model.transform(there))
    row.check(found, "float32")
    np.testing.assert_array_equal(to_numpy(found), expected.transform(x))
    if row.library != "dask":
        moved = to_backend(expected, row.xp, device(there))
        np.testing.assert_array_equal(to_numpy(moved.transform(there)), to_numpy(found))


def test_refuses_signals_of_another_library():
    strict = pytest.importorskip("array_api_strict")
    model = MiniRocket(84).fit(signals(1))
    with pytest.raises(ValueError, match=r"MiniRocket.transform\(\) must use the same namespace"):
        model.transform(strict.asarray(signals(1)))


@pytest.mark.parametrize("dtype", ["float64", "int16", "uint8", ">f4", "float16"])
def test_numbers_become_float32(dtype, tmp_path):
    x = (100 + 10 * signals(2)).astype(dtype)
    model = MiniRocket(84, random_state=0).fit(x)
    found = model.transform(x)
    np.testing.assert_array_equal(model.transform(x.astype("float32")), found)
    np.testing.assert_array_equal(model.transform(x.tolist()), found)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(clone(model).fit(mapped).transform(mapped), found)


def test_one_channel_needs_no_axis():
    x = signals(3, c=1)
    with_axis = MiniRocket(300, random_state=1).fit(x).transform(x)
    without = MiniRocket(300, random_state=1).fit(x[:, 0]).transform(x[:, 0])
    np.testing.assert_array_equal(with_axis, without)


def test_short_signals_get_zeros(row):
    x = signals(3, length=5)
    expected = np.concatenate([x, np.zeros((12, 3, 4), "float32")], axis=2)
    found = MiniRocket(84, random_state=1).fit(row.array(x)).transform(row.array(x))
    np.testing.assert_array_equal(
        to_numpy(found), MiniRocket(84, random_state=1).fit(expected).transform(expected)
    )


def test_features_of_a_dask_array_are_lazy():
    dask_array = pytest.importorskip("dask.array")
    x = signals(4)
    model, read = MiniRocket(84, random_state=0).fit(x), []
    lazy = dask_array.from_array(x, chunks=(5, 2, 60)).map_blocks(
        lambda block: read.append(0) or block, dtype="float32", meta=x[:0]
    )
    read.clear()
    features = model.transform(lazy)
    assert features.shape == (12, 84)
    assert not read
    np.testing.assert_array_equal(features.compute(), model.transform(x))


def test_random_states():
    x = signals(5)
    for state in (7, np.int64(7)):
        np.testing.assert_array_equal(
            MiniRocket(84, random_state=state).fit(x).biases_,
            MiniRocket(84, random_state=7).fit(x).biases_,
        )
    rng = np.random.RandomState(7)
    first, second = (MiniRocket(84, random_state=rng).fit(x).biases_ for _ in range(2))
    assert np.any(first != second)


def test_how_many_features():
    x = signals(6)
    counts = {n: MiniRocket(n).fit(x).transform(x).shape[1] for n in (1, 84, 167, 168, 10_000)}
    assert counts == {1: 84, 84: 84, 167: 84, 168: 168, 10_000: 9996}
    assert MiniRocket(10_000, max_dilations_per_kernel=2).fit(x).dilations_ == (1, 7)


def test_scikit_learn():
    x = signals(7, n=60)
    y = np.arange(60) % 3
    x[y == 1] += np.sin(np.arange(60))
    x[y == 2] += np.sin(np.arange(60) / 2)
    model = make_pipeline(MiniRocket(500, random_state=0), LogisticRegression(C=1e-2))
    assert model.fit(x[:40], y[:40]).score(x[40:], y[40:]) == 1.0
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    names = model[0].get_feature_names_out()
    assert (names[0], len(names)) == ("minirocket0", 420)
    assert model[0].n_features_in_ == 180


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (signals(0)[None], {}, r"X must have shape \(N, C, L\) or \(N, L\), got"),
        (np.full((4, 20), np.nan), {}, "NaN"),
        (signals(0) + 1j, {}, "[Cc]omplex"),
        (signals(0), {"n_kernels": 0}, "n_kernels must be an integer >= 1, got 0"),
        (signals(0), {"max_dilations_per_kernel": 1.5}, "max_dilations_per_kernel must be"),
    ],
)
def test_refuses(x, options, words):
    with pytest.raises(ValueError, match=words):
        MiniRocket(**options).fit(x)


def test_refuses_signals_of_another_shape():
    model = MiniRocket(84).fit(signals(0, c=2, length=30))
    for x in (signals(0, c=3, length=20), signals(0, c=1, length=60)[:, 0]):
        with pytest.raises(ValueError, match=r"shape \(2, 30\), as fitted"):
            model.transform(x)
