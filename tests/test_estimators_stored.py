"""Estimators on samples that stay in a file or in a graph: the same results, in little memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import assert_close

pytest.importorskip("sklearn")

from agnostic_xent import (
    CNNClassifier,
    Conv2d,
    Dense,
    Flatten,
    LogisticRegression,
    ReLU,
    Sequential,
)
from agnostic_xent.estimators import samples as estimator_data

MODELS = {
    "lbfgs": LogisticRegression(),
    "lasso": LogisticRegression(l1_ratio=1.0, tol=1e-12),
    "sgd": LogisticRegression(solver="sgd", random_state=0, max_iter=3),
    "stopping": LogisticRegression(solver="sgd", random_state=0, early_stopping=True, max_iter=3),
    "cnn": CNNClassifier(
        Sequential(Conv2d(2, 3), ReLU(), Flatten(), Dense(3)),
        random_state=0,
        epochs=2,
        batch_size=16,
    ),
}


def blobs(samples=90):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, samples)
    return (rng.standard_normal((samples, 16)) + np.eye(3, 16)[y]).astype("float32"), y


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(estimator_data, "BLOCK_BYTES", 16 * 8 * 40)  # 40 rows


def stored(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_memory_mapped_samples_give_the_same(name, weighted, tmp_path):
    x, y = blobs()
    a = np.linspace(0, 2, len(y)) if weighted else None
    model, expected = MODELS[name], MODELS[name].fit(x, y, sample_weight=a).predict_proba(x)
    mapped = stored(tmp_path, x)
    found = model.fit(mapped, y, sample_weight=a).predict_proba(mapped)
    assert type(found) is np.ndarray
    assert_close(found, expected, "float32", 0 if name == "sgd" else 1000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", MODELS)
def test_dask_samples(name):
    dask_array = pytest.importorskip("dask.array")
    x, y = blobs()
    lazy = dask_array.from_array(x, chunks=(25, 16))
    model = MODELS[name].fit(lazy, y)
    found = model.predict_proba(lazy).compute()
    np.testing.assert_array_equal(found, model.predict_proba(x))
    expected = MODELS[name].fit(x, y)
    if name == "lbfgs":
        assert_close(found, expected.predict_proba(x), "float32", 1000)
    assert (
        abs(expected.score(x, y) - model.fit(lazy, dask_array.from_array(y)).score(lazy, y)) < 0.1
    )


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "float16"])
def test_other_dtypes_are_converted_block_by_block(dtype, tmp_path):
    x, y = blobs()
    x = (10 * np.abs(x)).astype(dtype)
    mapped = stored(tmp_path, x)
    wide = x.astype("float64")
    found = LogisticRegression().fit(mapped, y).predict_proba(mapped)
    assert_close(found, LogisticRegression().fit(wide, y).predict_proba(wide), "float64", 1000)
    model = MODELS["cnn"].fit(mapped.reshape(-1, 4, 4), y)
    assert model.params_["0.weight"].dtype == "float32"


def test_refuses_what_is_stored(tmp_path):
    x, y = blobs()
    x[70, 3] = np.nan
    with pytest.raises(ValueError, match="X contains NaN or infinity"):
        LogisticRegression().fit(stored(tmp_path, x), y)
    dask_array = pytest.importorskip("dask.array")
    lazy = dask_array.from_array(x)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        LogisticRegression().fit(lazy[lazy[:, 0] > 0], y)


LIMITED = """
    import ctypes, resource, sys
    import dask, dask.array
    import numpy as np
    from agnostic_xent import *
    from agnostic_xent.estimators import *

    rows, features = 3_000_000, 16
    x = np.lib.format.open_memmap(sys.argv[1], "w+", "float32", (rows, features))  # 192 MB
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows, dtype="int8")
    for start in range(0, rows, 500_000):
        part = slice(start, start + 500_000)
        x[part] = rng.standard_normal((500_000, features), dtype="float32")
        x[part, 0] += 2 * y[part]
    x.flush()
    x = np.load(sys.argv[1], mmap_mode="r")

    {work}

    train(x[:1000], y[:1000])  # compiles and imports what needs memory by itself
    ctypes.CDLL(None).malloc_trim(0)  # what is free in the heap would hold a part of the samples
    used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + 170_000_000,) * 2)
    try:
        np.array(x)
        raise SystemExit("the samples fit into memory, so this shows nothing")
    except MemoryError:
        pass
    print(train(x, y).score(x[:1000], y[:1000]))
"""
WORK = {
    "lbfgs": """
    def train(x, y):
        return LogisticRegression(tol=1e-4).fit(x, y)
    """,
    "sgd": """
    def train(x, y):
        return LogisticRegression(solver="sgd", max_iter=1, batch_size=5000).fit(x, y)
    """,
    "dask": """
    dask.config.set(scheduler="synchronous")
    def train(x, y):
        size = len(x) // 10
        parts = [
            dask.array.from_delayed(dask.delayed(x.__getitem__)(slice(start, start + size)),
                                    (size, features), x.dtype)
            for start in range(0, len(x), size)
        ]
        return LogisticRegression(tol=1e-4).fit(dask.array.concatenate(parts), y)
    """,
    "cnn": """
    def train(x, y):
        model = Sequential(Conv2d(2, 4), Flatten(), Dense(2))
        images = x.reshape(-1, 4, 4)
        return CNNClassifier(model, optimizer=AdamW(0.02), epochs=1, batch_size=5000).fit(images, y)
    """,
}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on data is Linux's")
@pytest.mark.parametrize("work", WORK)
def test_samples_larger_than_memory(work, tmp_path):
    code = textwrap.dedent(LIMITED.replace("{work}", WORK[work].strip("\n").lstrip()))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert float(done.stdout) > 0.8
