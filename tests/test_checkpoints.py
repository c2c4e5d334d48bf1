"""Parameters to a file and back: every library, every memory layout, damage, half-written files."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys

import numpy as np
import pytest
from conftest import PRESENT, Row

from agnostic_xent import Dense, Sequential, load_params, save_params, to_backend, to_numpy
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


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "complex64", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_memory_layout(tmp_path, layout, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
        if layout == "big-endian":
            pytest.skip("NumPy has no other byte order of it")
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


# --- bfloat16 ------------------------------------------------------------------------------------


def halves(row):
    """Return some numbers in bfloat16 of a row, as an array of NumPy and of the row."""
    host = (grid("float32")[:2] * 100).astype(pytest.importorskip("ml_dtypes").bfloat16)
    if row.library == "torch":
        placed = row.xp.asarray(host.astype("float32"), device=row.place()).to(row.xp.bfloat16)
    else:
        placed = row.array(host)
    return host, placed


def test_bfloat16_comes_back_in_every_library(row: Row, tmp_path):
    if row.library == "array_api_strict":
        bits = np.ones(2, pytest.importorskip("ml_dtypes").bfloat16)
        with pytest.raises(TypeError, match="does not support the dtype 'bfloat16'"):
            to_backend(bits, row.xp, row.place())
        return
    host, placed = halves(row)
    assert to_numpy(placed).dtype == host.dtype
    assert to_numpy(placed).tolist() == host.tolist()
    parts = {"matrix": placed, "transposed": placed.T, "number": placed[1, 2], "empty": host[:0]}
    if row.empty:
        parts["empty"] = placed[:0]
    save_params(tmp_path / "model", parts)
    found = load_params(tmp_path / "model")
    expected = {"matrix": host, "transposed": host.T, "number": host[1, 2], "empty": host[:0]}
    assert_same(found, {name: np.asarray(x) for name, x in expected.items()})
    again = to_backend(found, row.xp, row.place())
    for name, x in again.items():
        row.check(x, "bfloat16")
        assert to_numpy(x).tolist() == expected[name].tolist()


def test_bfloat16_goes_from_library_to_library():
    rows = [row for row in PRESENT if row.library in ("numpy", "torch", "jax")]
    for row, other in itertools.permutations(rows, 2):
        host, placed = halves(row)
        moved = to_backend({"inner": {"w": placed}}, other.xp, other.place())["inner"]["w"]
        other.check(moved, "bfloat16")
        assert to_numpy(moved).tolist() == host.tolist()


def test_either_byte_order_goes_to_every_library(row: Row):
    host = grid(">f4")
    row.check(to_backend({"w": host}, row.xp, row.place())["w"], "float32")
    assert to_numpy(to_backend(host, row.xp, row.place())).tolist() == host.tolist()


def test_files_of_half_precision_exchange_with_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    params = {name: torch.arange(6.0).to(getattr(torch, name)) for name in ("bfloat16", "float16")}
    save_file(params, tmp_path / "theirs")
    found = load_params(tmp_path / "theirs")
    assert {name: x.dtype.name for name, x in found.items()} == {name: name for name in params}
    save_params(tmp_path / "ours", found)
    for name, x in load_file(tmp_path / "ours").items():
        assert x.dtype == params[name].dtype
        assert (x == params[name]).all()


def test_numbers_that_numpy_lacks_are_told(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    small = torch.ones(2).to(torch.float8_e4m3fn)
    save_file({"0.weight": small}, tmp_path / "file")
    with pytest.raises(ValueError, match=r"file .*no dtype for its numbers in F8_E4M3"):
        load_params(tmp_path / "file")
    with pytest.raises(TypeError, match=r"NumPy cannot hold a tensor of torch\.float8_e4m3fn"):
        save_params(tmp_path / "new", {"0.weight": small})
    save_file({"0.weight": torch.ones(2).to(torch.bfloat16)}, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for act in (
        lambda: load_params(tmp_path / "file"),
        lambda: save_params(tmp_path / "new", {"w": torch.ones(2).to(torch.bfloat16)}),
    ):
        with pytest.raises(ImportError, match=r"bfloat16 in NumPy needs ml_dtypes: .* ml_dtypes$"):
            act()
    assert os.listdir(tmp_path) == ["file"]


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


def test_a_changed_byte_of_parameters_is_noticed_or_changes_nothing(tmp_path):
    path, rng, params = tmp_path / "file", np.random.default_rng(1), {"a": grid()[0]}
    save_params(path, params)
    whole, harmless = path.read_bytes(), []
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            assert_same(load_params(path), params)
            harmless.append(position)
        except ValueError as error:
            assert re.search("file is (no|damaged)", str(error))  # noqa: PT017
    header = len(whole) - params["a"].nbytes
    assert len(harmless) < 20  # in the word "checksum" and the like
    assert max(harmless) < header


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HOSTILE = {
    "nested": with_header(b'{"a":' + b"[" * 100_000),
    "no object": with_header([FOUR], b"1234"),
    "no text": with_header({"\ud800": FOUR}, b"1234"),
    "twice": with_header(b'{"a":1,"a":2}'),
    "metadata": with_header({"__metadata__": {"checksum": 1}}),
    "huge header": (1 << 40).to_bytes(8, "little") + b"{}",
    "negative": with_header({"a": FOUR | {"shape": [-1]}}, b"1234"),
    "huge": with_header({"a": FOUR | {"shape": [1 << 62, 1 << 62]}}, b"1234"),
    "huge of nothing": with_header({"a": FOUR | {"shape": [0, 1 << 62], "data_offsets": [0, 0]}}),
    "hundred axes": with_header({"a": FOUR | {"shape": [1] * 100}}, b"1234"),
    "offsets": with_header({"a": FOUR | {"data_offsets": [4, 0]}}, b"1234"),
    "overlap": with_header({"a": FOUR, "b": FOUR}, b"1234"),
    "gap": with_header({"a": FOUR | {"data_offsets": [4, 8]}}, b"12345678"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_made_to_break_a_reader(tmp_path, name):
    (tmp_path / "file").write_bytes(HOSTILE[name])
    for load in (load_params, lambda path: load_record(path, "kind")):
        with pytest.raises(ValueError, match="file is no whole safetensors file"):
            load(tmp_path / "file")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "nan,"], ids=["empty", "cut", "deep", "no"]
)
def test_a_record_that_is_no_json(tmp_path, monkeypatch, text):
    monkeypatch.setattr(json, "dumps", lambda record: text)
    save_record(tmp_path / "file", "kind", {}, {"a": grid()})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="file is damaged: its record is no JSON"):
        load_record(tmp_path / "file", "kind")


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
