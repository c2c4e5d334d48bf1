"""Compiled code is kept on disk, made anew when its source changes, and never breaks a call."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

numba = pytest.importorskip("numba")

from agnostic_xent.kernels import store  # noqa: E402
from agnostic_xent.kernels.cpu.toolchain import cache, compiling  # noqa: E402

SIGNATURE = numba.float64(numba.float64)

needs_modes = pytest.mark.skipif(os.name != "posix", reason="rights are not in modes here")


def halved(x):
    return x / 2


@pytest.fixture
def folder(monkeypatch, tmp_path, caplog) -> Path:
    """Where the code of this test is kept."""
    monkeypatch.setattr(store.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(store, "_told", set())
    caplog.set_level(logging.INFO, "agnostic_xent")
    return store._shared()


@pytest.fixture
def log(folder, caplog):
    """Return what is logged when ``halved`` is asked for, which works whatever is on disk."""

    def ask() -> str:
        caplog.clear()
        assert compiling.machine_code(halved, SIGNATURE)(3.0) == 1.5
        return caplog.text

    return ask


def files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


# --- when it is made anew ------------------------------------------------------------------------


def test_it_is_compiled_once(log, folder):
    assert "compiling halved" in log()
    assert len(files(folder)) == 1
    assert log() == ""


def test_edits_of_other_files_are_seen(log, folder, monkeypatch):
    log()
    for source in ("edited", "again"):
        monkeypatch.setattr(cache, "source", lambda source=source: source)
        assert "compiling halved" in log()
        assert "is damaged" not in log()
    assert len(files(folder)) == 1  # what is outdated is replaced


OTHERS = {
    "processor": ("numba.core.codegen.JITCPUCodegen.magic_tuple", lambda self: ("other",)),
    "optimisation": ("numba.config.OPT", 0),
    "checks": ("numba.config.BOUNDSCHECK", 1),
    "library of vectors": ("numba.config.USING_SVML", "other"),
    "Numba": ("numba.__version__", "0.1"),
    "llvmlite": ("llvmlite.__version__", "0.1"),
    "NumPy": ("numpy.__version__", "0.1"),
}


@pytest.mark.parametrize(("name", "value"), OTHERS.values(), ids=OTHERS)
def test_code_for_another(name, value, folder):
    """Each has a name of its own: nobody takes it for his, and all are kept."""

    def key() -> str:
        codegen = numba.core.registry.cpu_target.target_context.codegen()
        return cache.Cache(halved)._name(SIGNATURE, codegen)

    before = key()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, value)
        assert key() != before
    assert key() == before


# --- damage --------------------------------------------------------------------------------------


def cut(content: bytes) -> bytes:
    return content[:-100]


def turned(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE = {
    "empty": lambda content: b"",
    "short": lambda content: content[:10],
    "cut": cut,
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + b"x",
    "a bit": turned,
    "text": lambda content: b"<html>" * 1000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_made_anew(log, folder, damage):
    log()
    (file,) = files(folder)
    file.write_bytes(damage(file.read_bytes()))
    said = log()
    assert said.count("WARNING") == said.count("is damaged") == 1
    assert "compiling halved" in said
    assert files(folder) == [file]
    assert log() == ""


def test_a_second_damaged_file_is_not_told_of(log, folder):
    log()
    for expected in (1, 0):
        files(folder)[0].write_bytes(b"")
        assert log().count("WARNING") == expected


@pytest.mark.parametrize("content", [b"", b"no pickle", b"cagnostic_xent.kernels\nGone\n."])
def test_foreign_content_is_made_anew(log, folder, content):
    """Whole files of the right name, with what cannot be code."""
    log()
    (file,) = files(folder)
    store.keep(file.name, cache.source(), content)
    assert "foreign" in log()
    assert log() == ""


def test_a_folder_in_place_of_a_file(log, folder):
    log()
    (file,) = files(folder)
    file.unlink()
    file.mkdir()
    assert log().count("WARNING") == 2  # it is neither read nor kept
    assert "WARNING" not in log()


# --- folders that take nothing -------------------------------------------------------------------


def test_a_full_disk(log, folder, monkeypatch):
    def full(descriptor, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    said = log()
    assert said.count("WARNING") == 1
    assert "No space left on device" in said
    assert "WARNING" not in log()
    assert files(folder) == []


def test_a_file_in_place_of_the_folder(log, folder, tmp_path):
    (tmp_path / "cache").write_text("")
    assert "compiling" in log()
    assert len(files(tmp_path / "own")) == 1  # kept elsewhere
    assert log() == ""


def test_a_folder_that_can_only_be_read(log, folder, tmp_path, monkeypatch):
    """What is there is loaded; what is not goes to the user's own."""
    log()
    monkeypatch.setattr(os, "access", lambda path, mode: folder not in (path, *path.parents))
    assert log() == ""
    assert files(tmp_path / "own") == []
    files(folder)[0].unlink()
    assert "compiling" in log()
    assert files(folder) == []
    assert len(files(tmp_path / "own")) == 1
    assert log() == ""


def test_no_folder_at_all(log, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    (tmp_path / "own").write_text("")
    assert log().count("WARNING") == 1
    assert "WARNING" not in log()


@needs_modes
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_used(log, folder, tmp_path, mode):
    log()
    folder.chmod(mode)
    said = log()
    assert said.count("WARNING") == 1
    assert f"other users can write to {folder}" in said
    assert "compiling" in said
    assert len(files(tmp_path / "own")) == 1
    assert "compiling" not in log()


@needs_modes
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o602])
def test_nor_is_such_a_file(log, folder, mode):
    log()
    (file,) = files(folder)
    file.chmod(mode)
    assert f"other users can write to {file}" in log()
    assert log() == ""
    assert stat.S_IMODE(file.stat().st_mode) & 0o022 == 0  # it was replaced


@pytest.fixture
def foreign(monkeypatch):
    """Return what gives a path away, and makes this process another user than it is."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 54321)
            monkeypatch.setattr(store, "PACKAGE", Path("/"))

    return give


@needs_modes
@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_nor_is_what_belongs_to_another_user(log, folder, tmp_path, foreign, what):
    log()
    (file,) = files(folder)
    if what == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    foreign(file if what == "file" else folder)
    said = log()
    assert "belongs to another user" in said
    assert "compiling" in said


@needs_modes
def test_code_of_the_owner_of_the_package_serves_others(log, monkeypatch):
    """Whoever owns the package, as who built an image, can run code in this process anyway."""
    log()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert log() == ""


@needs_modes
@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
def test_what_is_kept_can_be_used_whatever_the_umask(log, folder, umask):
    before = os.umask(umask)
    try:
        log()
    finally:
        os.umask(before)
    assert log() == ""
    for path in (folder, *files(folder)):
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


# --- processes of their own ----------------------------------------------------------------------

PROGRAM = """
import logging, numpy, agnostic_xent
logging.basicConfig(level="INFO", format="%(message)s")
print(agnostic_xent.relu(numpy.ones((3, 4), "float32")).sum())
"""


def start(folder: Path, **environment: str):
    """Start a process that needs one kernel."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip


def ends(process) -> str:
    """Return what a process logs, which ends well."""
    out, log = process.communicate(timeout=300)
    assert (out, process.returncode) == ("12.0\n", 0), log
    return log


def test_processes_that_start_at_once(tmp_path):
    """On no cache, and on a damaged one: they do not meet each other's halves."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for together in (3, 2):
        for process in [start(tmp_path, **cache) for _ in range(together)]:
            ends(process)
        (file,) = files(tmp_path / "cache")
        whole = file.read_bytes()
        file.write_bytes(whole[:1000])
    file.write_bytes(whole)
    assert ends(start(tmp_path, **cache)) == ""


def test_threads_that_keep_and_load_at_once(folder, caplog):
    codes = [bytes([i]) * 100_000 for i in range(4)]

    def work(code: bytes) -> bool:
        for _ in range(50):
            store.keep("name.code", "source", code)
            if store.load("name.code", "source") not in codes:
                return False
        return True

    with ThreadPoolExecutor() as pool:
        assert all(pool.map(work, codes))
    assert caplog.text == ""
    assert len(files(folder)) == 1


TILDES = [
    ("~/x", "{home}/x"),
    ("~nobody_of_this_name/x", "{home}/.cache"),  # none has this home: the user's own
]


@pytest.mark.skipif(os.name != "posix", reason="homes are elsewhere")
@pytest.mark.parametrize(("named", "meant"), TILDES)
def test_a_tilde_is_a_home(folder, monkeypatch, tmp_path, named, meant):
    monkeypatch.setattr(store.config, "CACHE_DIR", named)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    (found,) = store.folders()
    assert found.parents[1] == Path(meant.format(home=tmp_path))


@pytest.mark.skipif(os.name != "posix", reason="homes are elsewhere")
@pytest.mark.parametrize("home", ["~", "relative", ""])
@pytest.mark.parametrize("xdg", ["~/cache", "relative", ""])
def test_no_cache_is_relative_to_where_we_are(folder, monkeypatch, home, xdg):
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", home)
    own = store._own()
    assert own is None or own.is_absolute()


@pytest.mark.skipif(os.name != "posix", reason="homes are elsewhere")
def test_no_folder_is_called_tilde(tmp_path):
    names = {"NUMBA_CACHE_DIR": "~/x", "HOME": "~", "XDG_CACHE_HOME": "~/cache"}
    assert "not kept" in ends(start(tmp_path, **names))
    assert list(tmp_path.iterdir()) == []
