"""Samples in a file or a graph become of the dtype of the parameters; labels stay integers."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import VERSIONS
from training_case import SOFTMAX, each_home, images, same, start, train

import agnostic_xent as ax
from agnostic_xent.core.conversion import backend, to_numpy


def stored(folder, x, y):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return folder / "x.npy", folder / "y.npy"


def whole(dtype):
    """Return images of small integers, which all dtypes hold."""
    x, y = images()
    x = np.clip(np.round(2 * x), 0, 3)
    return x.astype(dtype), y


@pytest.mark.parametrize("labels", ["i1", ">i4", "u2", "<u8"])
@pytest.mark.parametrize("dtype", ["u1", "?", "f2", "f8", ">f4"])
@each_home
def test_training_on_any_dtype(home, dtype, labels, tmp_path):
    x, y = whole(dtype)
    params = {name: home.array(w) for name, w in start().items()}
    own = home.array(x.astype("float32")), home.array(y)
    files = stored(tmp_path, x, y.astype(labels))
    expected, history = train(own, params=params, validation=own)
    found, again = train(files, params=params, validation=files)
    same(found, expected)
    assert again.column("validation_loss") == history.column("validation_loss")
    mapped = np.load(files[0], mmap_mode="r")
    home.check(ax.predict(SOFTMAX, found, mapped), "float32")


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
@each_home
def test_unsigned_labels_in_memory(home, dtype):
    x, y = images()
    params = {name: home.array(w) for name, w in start().items()}
    expected, _ = train((home.array(x), home.array(y)), params=params)
    unsigned = home.xp.astype(home.array(y), getattr(home.xp, dtype))
    found, _ = train((home.array(x), unsigned), params=params)
    same(found, expected)


def test_soft_targets_are_numbers(tmp_path):
    x, y = images()
    one_hot = np.eye(3)[y]
    expected, _ = train((x, one_hot.astype("float32")))
    found, _ = train(stored(tmp_path, x.astype("float64"), one_hot))
    same(found, expected)


@pytest.mark.skipif(not VERSIONS["jax"], reason="JAX is not installed")
@pytest.mark.parametrize("graph", [False, True])
def test_labels_of_64_bits_without_x64(graph, tmp_path):
    import jax

    off = getattr(jax, "enable_x64", None)
    context = off(False) if off is not None else jax.experimental.disable_x64()
    x, y = images()
    data = stored(tmp_path, x.astype("float64"), y.astype("int64"))
    if graph:
        dask = pytest.importorskip("dask.array")
        data = dask.from_array(x, chunks=7), dask.from_array(y, chunks=9)
    with context:
        params = ax.to_backend(start(), backend("jax"))
        found, _ = train(data, params=params, validation=data)
        found = {name: to_numpy(w) for name, w in found.items()}
    expected, _ = train((x, y))
    for name, w in found.items():
        np.testing.assert_allclose(w, expected[name], rtol=1e-4, atol=1e-6)


LABELS = {
    "2^64 - 1": (np.uint64, 2**64 - 1, r"target\[5\] is 18446744073709551615,"),
    "2^31": (np.int64, 2**31, r"target\[5\] is 2147483648,"),
    "-1": (np.int8, -1, r"target\[5\] is -1,"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_is_named_as_it_was_stored(name, tmp_path):
    dtype, wrong, words = LABELS[name]
    x, y = images()
    y = y.astype(dtype)
    y[5] = wrong
    with pytest.raises(ValueError, match=words):
        train(stored(tmp_path, x, y))
    with pytest.raises(ValueError, match=r"no index|target\[5\]"):
        ax.evaluate(SOFTMAX, start(), stored(tmp_path, x, y), loss=ax.cross_entropy)


@pytest.mark.parametrize("dtype", ["complex64", "U3", "M8[s]"])
@pytest.mark.parametrize("part", ["x", "y"])
def test_what_is_no_number_is_refused(part, dtype, tmp_path):
    arrays = dict(zip("xy", images(), strict=True))
    arrays[part] = np.ones(arrays[part].shape, "int64").astype(dtype)
    with pytest.raises(TypeError, match=f"data must hold real numbers, but its {part} has dtype"):
        train(stored(tmp_path, arrays["x"], arrays["y"]))


def test_the_fast_steps_of_a_linear_model_take_one_dtype(tmp_path):
    x, y = whole("u1")
    model = ax.Sequential(ax.Flatten(), ax.Dense(3))
    options = {"optimizer": ax.SGD(0.1), "model": model, "params": start(model)}
    expected, _ = train((x.astype("float32"), y), **options)
    found, _ = train(stored(tmp_path, x, y), **options)
    for name, w in found.items():
        np.testing.assert_allclose(w, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", [n for n in ("numpy", "torch", "jax") if VERSIONS[n]])
def test_bfloat16_parameters(library, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, y = images()
    xp = backend(library)
    dtype = ml_dtypes.bfloat16 if library == "numpy" else xp.bfloat16
    params = {name: xp.astype(xp.asarray(w), dtype) for name, w in start().items()}
    found, history = train(stored(tmp_path, x, y), params=params, epochs=4)
    assert {str(w.dtype).rpartition(".")[2] for w in found.values()} == {"bfloat16"}
    assert history[-1].loss < history[0].loss
