"""Files that are damaged, swapped or no files at all: one line that names them, and code 2."""

from __future__ import annotations

import io
import os
import random
import re
import warnings
import zipfile

import numpy as np
import pytest
from cli_case import keep_model, one_error_line
from cli_case import no_report as no_report

from agnostic_xent import cli, kernels
from agnostic_xent.datasets import reading
from agnostic_xent.datasets.scale import Scale

SHARES = Scale(1, 0, 1, whole=False)
PICTURES = ("a.png", "b.jpg", "c.gif", "d.bmp", "e.webp")
NOT_A_NUMBER = re.compile(r",nan\b")
TIMES = 8
"""How often each file is damaged."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Make a folder of two models and of files for them."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    keep_model(folder / "cnn", scale=SHARES)
    keep_model(folder / "logistic", "logistic", (5,), scale=SHARES)
    x, rows, y = rng.random((8, 8, 8)), rng.random((8, 5)), np.arange(8) % 2
    np.save(folder / "x.npy", x)
    np.save(folder / "rows.npy", rows)
    np.savetxt(folder / "rows.csv", rows, delimiter=",")
    np.savez_compressed(folder / "x.npz", x=x)
    np.savez(folder / "test.npz", test_x=x, test_y=np.array(["dark", "light"])[y])
    np.savez_compressed(folder / "train.npz", train_x=rows, train_y=y, test_x=rows, test_y=y)
    (folder / "pictures").mkdir()
    for name in PICTURES:
        image.fromarray((x[0] * 255).astype(np.uint8)).save(folder / "pictures" / name)
    return folder


COMMANDS = {
    "x.npy": ("predict", "cnn", "x.npy"),
    "x.npz": ("predict", "cnn", "x.npz"),
    "rows.csv": ("predict", "logistic", "rows.csv"),
    "test.npz": ("evaluate", "cnn", "--data", "test.npz"),
    "train.npz": ("train", "logistic", "--data", "train.npz", "--epochs", "1"),
    **{f"pictures/{name}": ("predict", "cnn", "pictures") for name in PICTURES},
    **{
        f"{model}/{name}": ("predict", model, samples)
        for model, samples in (("cnn", "x.npy"), ("logistic", "rows.npy"))
        for name in ("run.json", "model.safetensors", "history.json")
    },
}


def flipped(content, rng):
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 4))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def headed(content, rng):
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 4))):
        damaged[rng.randrange(min(100, len(damaged)))] = rng.randrange(256)
    return bytes(damaged)


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def put_in(content, rng):
    words = (
        b"nan",
        b"null",
        b"[" * 100_000,
        b"9" * 20,
        b"-1",
        b"\0",
        b"\xff",
        b",",
        b"{",
        b"1e999",
    )
    i = rng.randrange(len(content))
    return content[:i] + rng.choice(words) + content[i + rng.choice((0, 1)) :]


def counted(content, rng):
    """Change a number near the start: a shape, a size or an option."""
    digits = [i for i, byte in enumerate(content[:1000]) if chr(byte).isdigit()]
    i = rng.choice(digits or [0])
    values = (b"0", b"-1", b"9999999", b"9" * 20, b"9" * 5000, b"null", b'"a"', b"1.5", b"{}")
    return content[:i] + rng.choice(values) + content[i + 1 :]


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("damage", [flipped, headed, cut, put_in, counted])
@pytest.mark.parametrize("name", COMMANDS)
def test_damage_is_one_line_that_names_the_file(
    no_report, files, capsys, monkeypatch, name, damage
):
    """Or it does no harm: then the result is as always, of finite numbers."""
    monkeypatch.chdir(files)
    content, rng = (files / name).read_bytes(), random.Random(f"{name} {damage.__name__}")
    wrong = []
    try:
        with kernels("portable"), warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(TIMES):
                (files / name).write_bytes(damage(content, rng))
                code = cli.main(COMMANDS[name])
                out, err = capsys.readouterr()
                named = name in err or "of the training" in err or "was trained on" in err
                refused = code == 2 and out == "" and err.count("\n") == 1 and named
                if not refused and (code or NOT_A_NUMBER.search(out)):
                    wrong.append((code, err))
    finally:
        (files / name).write_bytes(content)
    assert wrong == []


# --- no damage, but no file either ---------------------------------------------------------------


def header(shape):
    """Return the start of a .npy file, without the numbers that it promises."""
    content = io.BytesIO()
    description = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, description)
    return content.getvalue()


@pytest.mark.parametrize("shape", [(10**13, 5), (10**30, 5), (-1, 5), (2**61, 8), (3, 5)])
def test_shapes_that_no_content_has_are_an_error(tmp_path, capsys, shape):
    model = keep_model(tmp_path / "run", "logistic", (5,), scale=SHARES)
    (tmp_path / "x.npy").write_bytes(header(shape))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", header(shape))
    for name in ("x.npy", "x.npz"):
        assert cli.main(["predict", str(model), str(tmp_path / name)]) == 2
        assert one_error_line(capsys).startswith(f"argument SAMPLES: {tmp_path / name}: ")


@pytest.mark.parametrize("sizes", [[10**12], [5, 10**12], [10**9], [4, 4, 4], [1, 10**6, 10**6]])
def test_a_model_of_a_size_that_its_parameters_have_not_is_an_error(tmp_path, capsys, sizes):
    kind = "logistic" if len(sizes) < 3 else "cnn"
    model = keep_model(tmp_path / "run", kind, (5,) if kind == "logistic" else (1, 8, 8))
    text = (model / "run.json").read_text()
    (model / "run.json").write_text(
        re.sub(r'"input_shape": \[[^]]*]', f'"input_shape": {sizes}', text)
    )
    assert cli.main(["predict", str(model), "x.npy"]) == 2
    assert "run.json" in one_error_line(capsys)


def make_folder(path):
    path.mkdir()


def make_pipe(path):
    os.mkfifo(path)


def make_loop(path):
    path.symlink_to(path)


def make_link(path):
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("make", [make_folder, make_pipe, make_loop, make_link])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "pictures/a.png", "run/run.json"])
def test_what_is_no_regular_file_is_an_error_and_not_waited_for(tmp_path, capsys, make, name):
    model, file = keep_model(tmp_path / "run", scale=SHARES), tmp_path / name
    (tmp_path / "pictures").mkdir()
    file.unlink(missing_ok=True)
    make(file)
    samples = file.parent if file.suffix == ".png" else file
    assert cli.main(["predict", str(model), str(samples)]) == 2
    named = samples if make is make_folder else file  # folders are looked into
    assert named.name in one_error_line(capsys)
    if file.suffix == ".npz" and make is not make_folder:
        assert cli.main(["train", "--data", str(file)]) == 2
        assert one_error_line(capsys).startswith(f"argument --data: {file}: ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_named(tmp_path, capsys):
    model, file = keep_model(tmp_path / "run", scale=SHARES), tmp_path / "x.npy"
    np.save(file, np.zeros((2, 8, 8)))
    file.chmod(0)
    assert cli.main(["predict", str(model), str(file)]) == 2
    assert one_error_line(capsys) == f"argument SAMPLES: {file}: Permission denied"


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1 is empty"),
        ("1,2,3\n\n4,5,6\n", "line 2 is empty"),
        ("a,b,3\n1,2,3\n", "below at most a line of names; line 1, column 1 is 'a'"),
        ("a,b,c\nd,e,f\n1,2,3\n", "line 2, column 1 is 'd'"),
        ("a,b,c\n1,2,?\n", "line 2, column 3 is '?'"),
        ("a,b\n1,2,3\n", "line 2 has 3 numbers, the first one 2"),
        ("a,b,c\n", "line 1, column 1 is 'a'"),
        ("a,,c\n1,2,3\n", "line 1, column 1 is 'a'"),
        ("1;2;3\n", "numbers and commas, below at most a line of names; line 1, column 1 is '1"),
        ("1;2;3\n4;5;6\n", "line 2, column 1 is '4"),
        ("1,5;2;3\n", "column 2 is '5;2;3'"),
        ("1,,3\n", "line 1, column 2 is ''"),
        ("1,2,3\n4,5\n", "line 2 has 2 numbers, the first one 3"),
        ("1,2\n", "must have shape (N, 3), got (1, 2)"),
        ("#1,2,3\n4,5,6\n", "line 1, column 1 is '#1'"),
        ("1,2,nan\n", "sample 0 has nan"),
        ("1,2,2026-11-30\n", "column 3 is '2026-11-30'"),
        ("1,2,yes\n", "column 3 is 'yes'"),
        ("1,2,3\0\n", "line"),
    ],
)
def test_tables_that_are_not_of_numbers_alone_are_an_error(tmp_path, capsys, text, part):
    model, file = keep_model(tmp_path / "run", "logistic", (3,), scale=SHARES), tmp_path / "x.csv"
    file.write_text(text)
    assert cli.main(["predict", str(model), str(file)]) == 2
    line = one_error_line(capsys)
    assert line.startswith(f"argument SAMPLES: {file}: ")
    assert part in line


@pytest.mark.parametrize(
    "content", [b"1,2,3\r\n4,5,6\r\n", b"\xef\xbb\xbf1,2,3\n4,5,6", b'"1","2"," 3"\n4, 5,6\n\n\n']
)
def test_tables_as_spreadsheets_write_them_are_read(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    assert reading.rows_of(tmp_path / "x.csv").tolist() == [[1, 2, 3], [4, 5, 6]]
