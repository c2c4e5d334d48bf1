"""Parameters to a file and back: every library, every memory layout, damage, half-written files."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import Row

from agnostic_xent import Dense, Sequential, load_params, save_params, to_backend
from agnostic_xent.core.conversion import backend
from agnostic_xent.network.checkpoints import load_record, save_record

LAYOUTS = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "transposed": lambda x: x.T,
    "strided": lambda x: x[::2, ::3],
    "reversed": lambda x: x[::-1, ::-1],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "0-d": lambda x: x[3, 2],
    "empty": lambda x: x[:0],
}


def grid(dtype="float64"):
    return np.random.default_rng(2).standard_normal((6, 7)).astype(dtype)


def assert_same(found, expected):
    """Check names, values, shapes, and dtypes up to the byte order."""
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == x.dtype.newbyteorder("=")
        assert found[name].shape == x.shape
        np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_memory_layout(tmp_path, layout, dtype):
    params = {"0.weight": np.asarray(LAYOUTS[layout](grid(dtype))), "0.bias": grid(dtype)[0]}
    save_params(tmp_path / "model.safetensors", params)
    assert_same(load_params(tmp_path / "model.safetensors"), params)


@pytest.mark.parametrize("layout", ["C", "transposed", "strided", "0-d", "empty"])
def test_every_library(row: Row, tmp_path, layout):
    for dtype in row.dtypes:
        host = {"a": grid(dtype), "b": np.asarray(LAYOUTS[layout](grid(dtype)))}
        if layout == "0-d" or (layout == "empty" and not row.empty):
            placed = {"a": row.array(host["a"]), "b": row.xp.asarray(host["b"])}
        else:  # the layout is made by the library itself
            made = LAYOUTS[layout](row.array(host["a"])) if layout != "empty" else None
            placed = {"a": row.array(host["a"])}
            placed["b"] = row.array(host["b"]) if made is None else made
        save_params(tmp_path / "model.safetensors", placed)
        found = load_params(str(tmp_path / "model.safetensors"))
        assert_same(found, host)
        again = to_backend(found, row.xp, row.place())
        row.check(again["b"], dtype)


def test_of_a_model_and_of_no_parameters(tmp_path):
    params, _ = Sequential(Dense(3)).init(0, (2,))
    for content in (params, {}):
        save_params(tmp_path / "model", content)
        assert_same(load_params(tmp_path / "model"), content)


def test_torch_tensors_that_require_grad(tmp_path):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Linear(3, 2).double().weight
    save_params(tmp_path / "model", {"weight": weight})
    assert_same(load_params(tmp_path / "model"), {"weight": weight.detach().numpy()})


def test_files_exchange_with_safetensors(tmp_path):
    numpy_format = pytest.importorskip("safetensors.numpy")
    params = {"0.weight": grid("float32")}
    save_params(tmp_path / "ours", params)
    assert_same(numpy_format.load_file(tmp_path / "ours"), params)
    numpy_format.save_file(params, tmp_path / "theirs")
    assert_same(load_params(tmp_path / "theirs"), params)


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:5],
        lambda whole: whole + b"more",
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: whole.replace(b"F64", b"F99"),
        lambda whole: b"epoch,loss\n1,0.5\n" * 20,
    ],
    ids=["empty", "cut", "half", "header", "longer", "length", "dtype", "text"],
)
def test_damaged_and_foreign_files(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    save_params(path, {"0.weight": grid()})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors file"):
        load_params(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        load_params(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_params(tmp_path / "nowhere" / "model", {"0.weight": grid()})


# --- whole or not at all -------------------------------------------------------------------------


def fail(*args, **kwargs):
    raise OSError(28, "no space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "model"
    old, new = {"0.weight": grid()}, {"0.weight": grid() + 1}
    save_params(path, old)
    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        patched.setattr("pathlib.Path.replace", fail)
        with pytest.raises(OSError, match=r"no space left on device: '.*model'"):
            save_params(path, new)
    assert os.listdir(tmp_path) == ["model"]
    assert_same(load_params(path), old)
    save_params(path, new)
    assert os.listdir(tmp_path) == ["model"]
    assert_same(load_params(path), new)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes")
def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "folder").mkdir()
    save_params(tmp_path / "folder" / "file", {"a": grid()})
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "folder" / "file")
    save_params(link, {"a": 2 * grid()})
    assert link.is_symlink()
    assert_same(load_params(tmp_path / "folder" / "file"), {"a": 2 * grid()})
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        save_params(pipe, {"a": grid()})
        content = reader.read()
    assert pipe.is_fifo()
    save_params(tmp_path / "expected", {"a": grid()})
    assert content == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("bad", [{"0.weight": np.zeros(2, complex)}, {"0.weight": [1.0]}])
def test_what_cannot_be_saved_leaves_the_old_file(tmp_path, bad):
    path, old = tmp_path / "model", {"0.weight": grid()}
    save_params(path, old)
    with pytest.raises((TypeError, ValueError), match="params"):
        save_params(path, bad)
    assert os.listdir(tmp_path) == ["model"]
    assert_same(load_params(path), old)


def test_a_path_keeps_its_name(tmp_path):
    assert backend("numpy")  # the array library is loaded; the file gets no suffix of its own
    save_params(tmp_path / "model.of.mine", {"w": grid()})
    assert os.listdir(tmp_path) == ["model.of.mine"]


# --- arrays with a record ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_record_comes_back(tmp_path, layout):
    arrays = {"a": np.asarray(LAYOUTS[layout](grid())), "b:c": grid("int64")}
    record = {"numbers": [1, 0.1, 1e308, 2**127, None, True], "ü": {"x": float("inf")}}
    save_record(tmp_path / "file", "kind", record, arrays)
    found, again = load_record(tmp_path / "file", "kind")
    assert found == record
    assert_same(again, arrays)
    assert_same(load_params(tmp_path / "file"), arrays)


def test_every_changed_byte_of_a_record_is_noticed(tmp_path):
    path, rng = tmp_path / "file", np.random.default_rng(1)
    save_record(path, "kind", {"epoch": 3}, {"a": grid()[0], "b": grid("float32")[0]})
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"file is (no|damaged)"):
            load_record(path, "kind")
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="file is no whole safetensors file"):
            load_record(path, "kind")


def test_files_of_another_kind(tmp_path):
    save_params(tmp_path / "params", {"a": grid()})
    save_record(tmp_path / "record", "recipe", {}, {"a": grid()})
    with pytest.raises(ValueError, match="params is no kind: it says None"):
        load_record(tmp_path / "params", "kind")
    with pytest.raises(ValueError, match="record is no kind: it says 'recipe'"):
        load_record(tmp_path / "record", "kind")
