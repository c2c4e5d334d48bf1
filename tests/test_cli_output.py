"""What the command line writes: tables that run nothing, names as they are, lines that are one."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cli_case import keep_model

from agnostic_xent import cli
from agnostic_xent.cli.output import printable, write_table
from agnostic_xent.datasets.scale import Scale

RUN = [sys.executable, "-m", "agnostic_xent"]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),
        ("-", "'-"),
        ("-inf", "'-inf"),
        ("-1", "-1"),
        ("+1.5e-3", "+1.5e-3"),
        ("-.5", "-.5"),
        ("a=b", "a=b"),
        ("a;=1", "a;=1"),
        ("a\r=1", "a\r=1"),
        ("", ""),
        ('"quoted", with commas\nand lines', '"quoted", with commas\nand lines'),
    ],
)
def test_tables_run_no_formula(tmp_path, capsys, cell, written):
    write_table([["sample", cell]], tmp_path / "t.csv")
    write_table([["sample", cell]], None)
    text = (tmp_path / "t.csv").read_bytes().decode()
    assert capsys.readouterr().out == text
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["sample", written]]
    assert ";" not in cell or text.endswith(f'"{cell}"\n')  # where cells end at semicolons


@pytest.fixture
def named(tmp_path):
    """Return the folder of a model and one of pictures, both with odd names in them."""
    image = pytest.importorskip("PIL.Image")
    model = keep_model(tmp_path / "run", classes=("=A1", "-1"), scale=Scale(1, 0, 1, whole=False))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in (b"\xe9t\xe9.png", b"=1+1.png", b"\x1b[31mred.png", "naïve.png".encode()):
        with open(os.path.join(os.fsencode(pictures), name), "wb") as file:
            image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "PNG")
    return model, pictures


NAMES = [b"\x1b[31mred.png", b"'=1+1.png", "naïve.png".encode(), b"\xe9t\xe9.png"]


@pytest.mark.parametrize("encoding", [None, "utf-8:strict", "utf-8:surrogateescape"])
def test_names_of_files_are_written_as_they_are(named, tmp_path, encoding):
    """Also those that are no UTF-8; only what a spreadsheet would run is marked."""
    model, pictures = named
    if encoding is None:
        content = tmp_path / "t.csv"
        assert cli.main(["predict", str(model), str(pictures), "--out", str(content)]) == 0
        lines = content.read_bytes().splitlines()
    else:
        env = os.environ | {"PYTHONIOENCODING": encoding, "AGNOSTIC_XENT_KERNELS": "portable"}
        command = [*RUN, "predict", str(model), str(pictures)]
        lines = subprocess.run(command, stdout=-1, check=True, env=env).stdout.splitlines()
    assert lines[0] == b"sample,class,'=A1,-1"
    assert [line.split(b",")[0] for line in lines[1:]] == NAMES


def test_a_terminal_gets_no_commands(named, capsys, monkeypatch):
    model, pictures = named
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["predict", str(model), str(pictures)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [
        r"\x1b[31mred.png", "'=1+1.png", "naïve.png", r"\udce9t\udce9.png"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a\nb.npy", "\x1b[31m.npy", "a\u202eb.npy", "\udce9.npy"])
def test_errors_are_one_line_whatever_the_name(tmp_path, capsys, name):
    model = keep_model(tmp_path / "run")
    (tmp_path / name).write_bytes(b"")
    for command in (["predict", model, tmp_path / name], ["predict", tmp_path / name, "x.npy"]):
        assert cli.main([*map(str, command)]) == 2
        error = capsys.readouterr().err
        assert error.endswith("\n")
        assert error[:-1].isprintable()
        assert printable(name) in error


def test_classes_of_unprintable_names_can_be_shown(tmp_path):
    pytest.importorskip("matplotlib")
    x, y = np.random.default_rng(0).random((20, 8, 8)), np.array(["\udce9", "a\x1b[31m\nb"] * 10)
    np.savez(tmp_path / "\udce9.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    out = tmp_path / "run"
    data = str(tmp_path / "\udce9.npz")
    assert cli.main(["train", "--data", data, "--epochs", "1", "--out", str(out)]) == 0
    names = json.loads((out / "run.json").read_text())["classes"]
    assert names == [r"a\x1b[31m\nb", r"\udce9"]
    assert r"\udce9" in (out / "report.html").read_text("utf-8")
    assert cli.main(["evaluate", str(out)]) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device_under_the_table_is_one_line(tmp_path, capsys):
    model = keep_model(tmp_path / "run")
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8)))
    command = ["predict", str(model), str(tmp_path / "x.npy"), "--out", "/dev/full"]
    assert cli.main(command) == 2
    assert capsys.readouterr().err == "agnostic-xent: error: No space left on device\n"


# --- outputs that end early ----------------------------------------------------------------------

UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
LIMITED = (
    "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    "from agnostic_xent.cli import main; sys.exit(main(sys.argv[1:]))"
)
"""Stands for a full disk."""


@pytest.fixture
def long_table(tmp_path):
    """Return arguments that print more than a pipe holds."""
    model = keep_model(tmp_path / "run", "logistic", (1,))
    np.save(tmp_path / "x.npy", np.zeros((10_000, 1)))
    return ["predict", str(model), str(tmp_path / "x.npy")]


@pytest.mark.parametrize("unbuffered", [{}, UNBUFFERED])
def test_a_reader_that_goes_early_is_seen(long_table, unbuffered):
    env = {name: x for name, x in os.environ.items() if name not in UNBUFFERED} | unbuffered
    with subprocess.Popen([*RUN, *long_table], stdout=-1, stderr=-1, env=env) as process:
        assert process.stdout.readline() == b"sample,class,dark,light\n"
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 1)


@pytest.mark.parametrize("unbuffered", [{}, UNBUFFERED])
def test_a_disk_that_fills_up_is_seen(long_table, tmp_path, unbuffered):
    pytest.importorskip("resource")
    env = {name: x for name, x in os.environ.items() if name not in UNBUFFERED} | unbuffered
    command = [sys.executable, "-B", "-c", LIMITED, *long_table]
    with open(tmp_path / "t.csv", "wb") as file:
        done = subprocess.run(command, stdout=file, stderr=-1, env=env)
    assert (done.returncode, done.stderr) == (2, b"agnostic-xent: error: File too large\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", [{}, UNBUFFERED])
def test_errors_that_cannot_be_told_still_have_their_code(unbuffered):
    env = {name: x for name, x in os.environ.items() if name not in UNBUFFERED} | unbuffered
    with open("/dev/full", "w") as full:
        assert subprocess.run([*RUN, "fly"], stderr=full, env=env).returncode == 2
