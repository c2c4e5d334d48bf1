"""The data sets: what they hold, where they are looked for, and what bad files are told."""

import gzip
import math
import runpy
import struct
import sys
import time
import types
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from agnostic_xent import datasets
from agnostic_xent.datasets import (
    Dataset,
    known,
    load_digits,
    load_fashion_mnist,
    load_spambase,
    load_watch,
    recordings,
)

SPLIT_LOADERS = [load_spambase, load_digits]
MAKE_DATA = Path(__file__).parents[1] / "ci" / "make_data.py"


def idx(array):
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Hide any official file that this machine has."""
    monkeypatch.delenv("AGNOSTIC_XENT_DATA", raising=False)
    monkeypatch.setattr(known, "_DEBIAN", tmp_path / "absent")


@pytest.fixture
def tiny(monkeypatch, nowhere):
    """Arrays that stand in for the official ones, 40 training and 20 test images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 10
    files = {
        key: file._replace(shape=arrays[key].shape, crc32=zlib.crc32(idx(arrays[key])))
        for key, file in known._FILES.items()
    }
    monkeypatch.setattr(known, "_FILES", files)
    return arrays


def write(folder, arrays, *, packed=True):
    folder.mkdir(exist_ok=True)
    for key, array in arrays.items():
        name = known._FILES[key].name
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


def assert_holds(data, arrays):
    for part in ("train", "test"):
        x, y = getattr(data, f"{part}_x"), getattr(data, f"{part}_y")
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert np.array_equal(np.rint(x[:, 0] * 255), arrays[f"{part}_images"])
        assert np.array_equal(y, arrays[f"{part}_labels"])


# The packaged Fashion-MNIST


def test_embedded_shapes_and_range():
    data = load_fashion_mnist()
    assert data.name == "fashion-mnist-12k"
    assert len(data.classes) == 10
    assert data.train_x.shape == (10_000, 1, 28, 28)
    assert data.test_x.shape == (2_000, 1, 28, 28)
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert (x.min(), x.max()) == (0, 1)


def test_embedded_classes_are_balanced():
    data = load_fashion_mnist("embedded")
    assert np.bincount(data.train_y).tolist() == [1_000] * 10
    assert np.bincount(data.test_y).tolist() == [200] * 10


def test_embedded_loads_fast():
    start = time.perf_counter()
    load_fashion_mnist()
    assert time.perf_counter() - start < 2  # 0.1 s on a quiet machine


def test_embedded_file_is_plain_uint8():
    path = resources.files("agnostic_xent") / "data" / "fashion_mnist_12k.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        assert {key: (arrays[key].shape, arrays[key].dtype.name) for key in arrays} == {
            "train_images": ((10_000, 28, 28), "uint8"),
            "train_labels": ((10_000,), "uint8"),
            "test_images": ((2_000, 28, 28), "uint8"),
            "test_labels": ((2_000,), "uint8"),
        }


def test_embedded_is_the_first_of_each_official_class():
    try:
        full = load_fashion_mnist("full")
    except FileNotFoundError:
        pytest.skip("the official files are not on this machine")
    embedded = load_fashion_mnist()
    assert full.name == "fashion-mnist"
    assert full.classes == embedded.classes
    assert full.train_x.shape == (60_000, 1, 28, 28)
    assert full.test_x.shape == (10_000, 1, 28, 28)
    for part, count in (("train", 1_000), ("test", 200)):
        x, y = getattr(full, f"{part}_x"), getattr(full, f"{part}_y")
        seen = np.eye(10, dtype=np.int64)[y].cumsum(axis=0)
        rows = seen[np.arange(len(y)), y] <= count
        assert np.array_equal(getattr(embedded, f"{part}_x"), x[rows])
        assert np.array_equal(getattr(embedded, f"{part}_y"), y[rows])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FASHION_MNIST_LICENSE.txt", ["Copyright (c) 2017 Zalando SE", "WITHOUT WARRANTY"]),
        ("WATCH_LICENSE.txt", ["Copyright (c) 2018, David M. Burns", "arXiv:1802.01489"]),
        ("SPAMBASE_CITATION.txt", ["https://doi.org/10.24432/C53G6X", "CC BY 4.0"]),
    ],
)
def test_notices_are_packaged(name, words):
    text = (resources.files("agnostic_xent") / "data" / name).read_text(encoding="utf-8")
    assert all(word in text for word in words)


# The full Fashion-MNIST


@pytest.mark.parametrize("packed", [True, False])
def test_full_from_folder(tiny, tmp_path, packed):
    folder = write(tmp_path / "files", tiny, packed=packed)
    assert_holds(load_fashion_mnist("full", folder=folder), tiny)
    assert_holds(load_fashion_mnist("full", folder=str(folder)), tiny)


def test_full_from_variable_then_debian(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(known, "_DEBIAN", write(tmp_path / "debian", tiny))
    monkeypatch.setenv("AGNOSTIC_XENT_DATA", "")
    assert_holds(load_fashion_mnist("full"), tiny)
    monkeypatch.setenv("AGNOSTIC_XENT_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"AGNOSTIC_XENT_DATA='.*empty' has neither"):
        load_fashion_mnist("full")
    monkeypatch.setenv("AGNOSTIC_XENT_DATA", str(write(tmp_path / "variable", tiny)))
    monkeypatch.setattr(known, "_DEBIAN", tmp_path / "absent")
    assert_holds(load_fashion_mnist("full"), tiny)


def test_folder_goes_before_variable(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("AGNOSTIC_XENT_DATA", str(tmp_path / "empty"))
    assert_holds(load_fashion_mnist("full", folder=write(tmp_path / "files", tiny)), tiny)


@pytest.mark.parametrize("key", list(known._FILES))
def test_named_folder_that_lacks_a_file(tiny, tmp_path, monkeypatch, key):
    folder = write(tmp_path / "files", tiny)
    monkeypatch.setattr(known, "_DEBIAN", write(tmp_path / "debian", tiny))
    name = known._FILES[key].name
    (folder / f"{name}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"folder='.*files' has neither {name}.gz nor"):
        load_fashion_mnist("full", folder=folder)


def test_full_is_nowhere(nowhere):
    with pytest.raises(FileNotFoundError) as caught:
        load_fashion_mnist("full")
    for way in ("folder=", "AGNOSTIC_XENT_DATA", "apt install dataset-fashion-mnist", "pooch"):
        assert way in str(caught.value)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="which must be 'embedded' or 'full', got 'all'"):
        load_fashion_mnist("all")
    with pytest.raises(ValueError, match="folder is for which='full' only"):
        load_fashion_mnist(folder=tmp_path)


DAMAGE = {
    "half a gzip": (".gz", lambda file: file[:1000], "is not a whole gzip file"),
    "garbled gzip": (".gz", lambda file: file[:-9] + bytes(9), "is not a whole gzip file"),
    "no gzip": (".gz", gzip.decompress, "is not a whole gzip file"),
    "empty": (".gz", lambda file: b"", "is not an IDX file"),
    "web page": ("", lambda file: b"<html>404</html>", "is not an IDX file"),
    "magic": ("", lambda file: idx(np.zeros(40, np.uint8)), "starts with the bytes 00000801"),
    "sizes": ("", lambda file: idx(np.zeros((40, 8, 8), np.uint8)), "expected 0000080300000028"),
    "short": ("", lambda file: file[:-1], "has 31375 of the 31376 bytes, unpacked"),
    "long": ("", lambda file: file + bytes(1), "has more than the 31376 bytes, unpacked"),
    "one pixel": ("", lambda file: file[:-1] + bytes([file[-1] ^ 1]), "damaged or of another"),
}


@pytest.mark.parametrize(("suffix", "damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_bad_file_is_named(tiny, tmp_path, suffix, damage, message):
    folder = write(tmp_path / "files", tiny, packed=bool(suffix))
    path = folder / (known._FILES["train_images"].name + suffix)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte{suffix} .*{message}"):
        load_fashion_mnist("full", folder=folder)


def test_download(tiny, tmp_path, monkeypatch):
    folder = write(tmp_path / "server", tiny)
    asked = {}

    def retrieve(url, known_hash, fname, path):
        assert path == "cache of agnostic-xent"
        asked[url] = known_hash
        return str(folder / fname)

    pooch = types.SimpleNamespace(retrieve=retrieve, os_cache=lambda name: f"cache of {name}")
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    assert_holds(load_fashion_mnist("full"), tiny)
    assert asked == {
        f"{known._URL}{file.name}.gz": f"sha256:{file.sha256}" for file in known._FILES.values()
    }


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("hash does not match")])
def test_failed_download(nowhere, monkeypatch, error):
    def retrieve(*args, **kwargs):
        raise error

    pooch = types.SimpleNamespace(retrieve=retrieve, os_cache=str)
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte.gz failed: {error}; else name"):
        load_fashion_mnist("full")


def test_real_pooch_takes_these_arguments(tiny, tmp_path, monkeypatch):
    """A file that is already in the cache with the right hash needs no network."""
    monkeypatch.delitem(sys.modules, "pooch")
    pooch = pytest.importorskip("pooch")
    cache = write(tmp_path / "cache", tiny)
    monkeypatch.setattr(pooch, "os_cache", lambda name: cache)
    files = {
        key: file._replace(sha256=pooch.file_hash(str(cache / f"{file.name}.gz")))
        for key, file in known._FILES.items()
    }
    monkeypatch.setattr(known, "_FILES", files)
    assert_holds(load_fashion_mnist("full"), tiny)


# ci/make_data.py


@pytest.fixture
def make_data():
    if not MAKE_DATA.is_file():
        pytest.skip("ci/make_data.py is only in the source tree")
    return runpy.run_path(str(MAKE_DATA))["main"]


def test_make_data_is_deterministic(tiny, tmp_path, make_data):
    packed, plain = write(tmp_path / "a", tiny), write(tmp_path / "b", tiny, packed=False)
    make_data(packed, tmp_path / "first.npz")
    make_data(plain, tmp_path / "second.npz")
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    with np.load(tmp_path / "first.npz", allow_pickle=False) as arrays:
        assert all(np.array_equal(arrays[key], tiny[key]) for key in tiny)


def test_make_data_gives_the_packaged_arrays(tmp_path, make_data):
    try:
        make_data(None, tmp_path / "again.npz")
    except FileNotFoundError:
        pytest.skip("the official files are not on this machine")
    packaged = resources.files("agnostic_xent") / "data" / "fashion_mnist_12k.npz"
    with np.load(tmp_path / "again.npz") as again, packaged.open("rb") as file:
        arrays = np.load(file)
        assert list(again) == list(arrays)
        assert all(np.array_equal(again[key], arrays[key]) for key in arrays)


# Recordings of a watch


def test_watch():
    data = load_watch()
    lengths = [x.shape[1] for x in data.signals]
    assert (len(lengths), min(lengths), max(lengths), sum(lengths)) == (140, 947, 2618, 244_102)
    assert {(x.shape[0], x.dtype.name, x.flags.c_contiguous) for x in data.signals} == {
        (6, "float32", True)
    }
    assert np.unique(data.people, return_counts=True)[1].tolist() == [14] * 10
    assert np.unique(data.labels, return_counts=True)[1].tolist() == [20] * 7
    gravity = [np.median(np.sqrt((x[:3] ** 2).sum(axis=0))) for x in data.signals]
    assert 0.9 < np.median(gravity) < 1.1


def test_make_signals_keeps_recordings_to_its_rounding(tmp_path, monkeypatch):
    script = MAKE_DATA.with_name("make_signals.py")
    if not script.is_file():
        pytest.skip("ci/make_signals.py is only in the source tree")
    rng = np.random.default_rng(0)
    x = [rng.uniform(-30, 30, (n, 6)) for n in (50, 9)]
    found = {"X": x, "y": np.asarray([0, 6]), "subject": np.asarray([3, 10])}
    np.save(tmp_path / "watch.npy", found | {"side": np.asarray([1.0, 0.0])}, allow_pickle=True)
    runpy.run_path(str(script))["main"](tmp_path / "watch.npy", tmp_path / "watch.npz")
    with np.load(tmp_path / "watch.npz", allow_pickle=False) as arrays:
        monkeypatch.setattr(recordings, "packaged", lambda name: dict(arrays))
        data = load_watch()
    for signal, expected in zip(data.signals, x, strict=True):
        np.testing.assert_allclose(signal, expected.T, rtol=0, atol=1 / 512 + 1e-6)
    assert (data.labels.tolist(), data.people.tolist()) == ([0, 6], [3, 10])


# Spambase and digits


def test_spambase():
    data = load_spambase()
    assert (data.name, data.classes) == ("spambase", ("ham", "spam"))
    assert data.train_x.shape == (3681, 57)
    assert data.test_x.shape == (920, 57)
    assert np.bincount(np.concatenate((data.train_y, data.test_y))).tolist() == [2788, 1813]
    assert data.train_x.dtype == data.test_x.dtype == np.float32
    assert data.train_y.dtype == data.test_y.dtype == np.int64


def test_spambase_is_standardised_by_the_training_part_alone():
    data = load_spambase(test_fraction=0.5)
    noise = math.sqrt(np.finfo(np.float32).eps)
    train, test = data.train_x.astype(np.float64), data.test_x.astype(np.float64)
    assert np.abs(train.mean(axis=0)).max() < noise
    assert np.abs(train.std(axis=0) - 1).max() < noise
    assert np.abs(test.mean(axis=0)).max() > noise


def test_spambase_features_are_logarithms():
    data = load_spambase()
    path = resources.files("agnostic_xent") / "data" / "spambase.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        logs = np.log1p(arrays["X"].astype(np.float64))
    rows = np.random.default_rng(0).permutation(4601)[920:]
    expected = (logs[rows] - logs[rows].mean(axis=0)) / logs[rows].std(axis=0)
    assert np.array_equal(data.train_x, expected.astype(np.float32))


def test_spambase_with_few_training_rows_stays_finite():
    data = load_spambase(test_fraction=0.999)
    assert len(data.train_y) == 5
    assert np.isfinite(data.train_x).all()
    assert np.isfinite(data.test_x).all()


def test_digits():
    data = load_digits()
    assert (data.name, data.classes) == ("digits", tuple("0123456789"))
    assert data.train_x.shape == (1438, 1, 8, 8)
    assert data.test_x.shape == (359, 1, 8, 8)
    assert data.train_x.dtype == np.float32
    assert data.train_y.dtype == np.int64
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    assert np.unique(data.test_y).tolist() == list(range(10))


def test_digits_are_those_of_scikit_learn():
    data = load_digits(test_fraction=0.3, rng=5)
    source = sys.modules["sklearn.datasets"].load_digits()
    rows = np.random.default_rng(5).permutation(1797)
    images = np.concatenate((data.test_x, data.train_x))
    assert np.array_equal(images[:, 0] * 16, source.images[rows])
    assert np.array_equal(np.concatenate((data.test_y, data.train_y)), source.target[rows])


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"load_digits needs .* pip install scikit-learn$"):
        load_digits()


@pytest.mark.parametrize("load", SPLIT_LOADERS)
def test_split_follows_rng(load):
    first, same = load(rng=3), load(rng=np.random.default_rng(3))
    assert np.array_equal(first.train_x, same.train_x)
    assert np.array_equal(first.test_y, same.test_y)
    for other in (load(rng=4), load(rng=None)):
        assert not np.array_equal(first.train_y, other.train_y)


@pytest.mark.parametrize("load", SPLIT_LOADERS)
@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, 1e-9, 1 - 1e-9, float("nan"), True])
def test_fraction_out_of_range(load, fraction):
    with pytest.raises(ValueError, match=r"test_fraction must (be in \(0, 1\)|leave some of)"):
        load(test_fraction=fraction)


@pytest.mark.parametrize("load", SPLIT_LOADERS)
def test_wrong_types(load):
    with pytest.raises(ValueError, match=r"test_fraction must be in \(0, 1\), got '0.2'"):
        load(test_fraction="0.2")
    with pytest.raises(TypeError, match=r"rng must be an integer >= 0, .* got 'seed'"):
        load(rng="seed")
    with pytest.raises(TypeError, match=r"rng must be an integer >= 0, .* got -1"):
        load(rng=-1)


# The record


def test_dataset_is_frozen_and_prints_short():
    data = load_digits()
    with pytest.raises(AttributeError):
        data.name = "other"
    assert isinstance(data, Dataset)
    assert "array" not in repr(data)


def test_public_names():
    modules = (
        datasets.dataset,
        datasets.images,
        datasets.known,
        datasets.recordings,
        datasets.tables,
    )
    assert datasets.__all__ == sorted(name for module in modules for name in module.__all__)
