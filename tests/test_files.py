"""Files that are replaced whole, by whoever writes them, and files that one process holds."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from subprocess import PIPE

import pytest
from conftest import fork, needs_fork

from agnostic_xent.core import files, locks
from agnostic_xent.core.files import write_atomically
from agnostic_xent.core.locks import locked

posix = pytest.mark.skipif(not hasattr(os, "fchown"), reason="needs modes and owners")
ROOT = hasattr(os, "getuid") and os.getuid() == 0
root = pytest.mark.skipif(not ROOT, reason="needs root")


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the collector closes it
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_interrupt_at_any_moment_leaves_one_whole_file(tmp_path, old):
    """An exception comes before the first instruction, the second one, and so on to the last."""
    path, moment, reached = tmp_path / "file", 0, True

    def stepped(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return stepped

    traced = sys.gettrace()
    while reached:
        path.unlink(missing_ok=True) if old is None else path.write_bytes(old)
        moment += 1
        left, reached = moment, False
        try:
            sys.settrace(stepped)
            write_atomically(path, b"new")
        except KeyboardInterrupt:
            reached = True
        finally:
            sys.settrace(traced)
        assert os.listdir(tmp_path) == ([] if old is None and not path.exists() else ["file"])
        assert not path.exists() or path.read_bytes() in (old, b"new")
    assert path.read_bytes() == b"new"
    assert moment > 50


# --- replaced whole ------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777, 0])
def test_a_new_file_is_as_open_as_any_and_an_old_ones_mode_stays(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "new", b"new")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask
        for mode in (0o600, 0o664, 0o640, 0o755):
            (tmp_path / "old").write_bytes(b"old")
            (tmp_path / "old").chmod(mode)
            write_atomically(tmp_path / "old", b"new")
            assert (tmp_path / "old").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


@posix
def test_nobody_reads_a_private_file_while_it_is_written(tmp_path, monkeypatch):
    path, modes = tmp_path / "private", []
    path.touch(0o600)
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (modes.append(os.fstat(file)), sync(file)))
    write_atomically(path, b"secret")
    assert modes[0].st_mode & 0o777 == 0o600


AS_NOBODY = """
import os, sys
from pathlib import Path
from agnostic_xent.core.files import write_atomically

folder = Path(sys.argv[1])
mine, others = folder / "mine", folder / "others"
others.touch()
os.chown(others, 0, 12)
others.chmod(0o666 if len(sys.argv) > 2 else 0o640)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
mine.touch()
mine.chmod(0o400)
folder.chmod(0o300)  # closed to readers
for path in (mine, others):
    try:
        write_atomically(path, b"new")
    except PermissionError as error:
        print(Path(error.filename).name, "refused")
write_atomically(folder / "new", b"new")
folder.chmod(0o700)
print(sorted(os.listdir(folder)), (folder / "new").read_text())
print(others.stat().st_uid, oct(others.stat().st_mode & 0o777), others.stat().st_size)
"""


@root
def test_what_others_may_not_write_stays():
    """And of another's file, what its group might do, a group of one's own may not."""
    expected = {
        (): "mine refused\nothers refused\n['mine', 'new', 'others'] new\n0 0o640 0\n",
        ("open",): "mine refused\n['mine', 'new', 'others'] new\n65534 0o606 3\n",
    }
    for options, text in expected.items():
        with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
            os.chown(folder, 65534, 65534)
            command = [sys.executable, "-c", AS_NOBODY, folder, *options]
            done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (text, "")


@posix
@pytest.mark.skipif(ROOT, reason="root may write everything")
def test_a_file_closed_to_writers_stays(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o400)
    with pytest.raises(PermissionError, match="file"):
        write_atomically(path, b"new")
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"old")


@root
def test_owner_and_group_stay(tmp_path):
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 65534, 12)
    write_atomically(tmp_path / "file", b"new")
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid, found.st_size) == (65534, 12, 3)


@posix
def test_links(tmp_path):
    link, loop, target = tmp_path / "link", tmp_path / "loop", tmp_path / "target"
    link.symlink_to("target")
    for content in (b"first", b"second"):  # where nothing is yet, too
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    loop.symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write_atomically(loop, b"new")
    assert loop.is_symlink()
    os.link(target, tmp_path / "other name")
    write_atomically(target, b"third")
    assert (tmp_path / "other name").read_bytes() == b"second"


@posix
@pytest.mark.parametrize("planted", ["link", "dangling", "file", "folder"])
def test_what_lies_at_the_temporary_name_is_not_touched(tmp_path, monkeypatch, planted):
    """Nobody can foretell the name; if one did, nothing would be lost."""
    monkeypatch.setattr("secrets.token_hex", lambda count: "guessed")
    temporary, victim = tmp_path / "model.guessed.part", tmp_path / "victim"
    victim.write_bytes(b"precious")
    match planted:
        case "link":
            temporary.symlink_to(victim)
        case "dangling":
            temporary.symlink_to(tmp_path / "nowhere")
        case "file":
            os.link(victim, temporary)
        case "folder":
            temporary.mkdir()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError, match="model"):
        write_atomically(tmp_path / "model", b"new")
    assert sorted(os.listdir(tmp_path)) == before
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a" * 255, "語" * 85, "[*]?", "-", "with spaces", "é\u0301"])
def test_every_name_that_a_file_can_have(tmp_path, name):
    for content in (b"first", b"second"):
        write_atomically(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert os.listdir(tmp_path) == [name]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(OSError, match=tmp_path.name):
        write_atomically(tmp_path, b"new")
    with pytest.raises(OSError, match="missing"):
        write_atomically(tmp_path / "missing" / "file", b"new")
    assert os.listdir(tmp_path) == []


WRITER = """
import sys, threading
from agnostic_xent.core.files import write_atomically

def write(letter):
    for _ in range(40):
        write_atomically(sys.argv[1], letter * 100_000)

threads = [threading.Thread(target=write, args=[letter.encode()]) for letter in sys.argv[2]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_several_writers_of_one_file(tmp_path):
    """Two processes of two threads each; a reader always finds the whole of what one wrote."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letters], stderr=PIPE)
        for letters in ("ab", "cd")
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert content == content[:1] * 100_000
        seen.add(content[:1])
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(seen) > 1
    assert os.listdir(tmp_path) == ["file"]


# --- held by one ---------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from pathlib import Path
from agnostic_xent.core.locks import locked

with locked(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:  # a worker that outlives its parent
        print(f"{os.getpid()}\\n", end="", flush=True)  # at once: both write
        time.sleep(60)
        os._exit(0)
    print("held\\n", end="", flush=True)
    sys.stdin.read()
"""


def holder(path, *options):
    command = [sys.executable, "-c", HOLDER, str(path), *options]
    process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True)
    lines = {process.stdout.readline().strip() for _ in range(1 + len(options))}
    assert "held" in lines
    return process, lines - {"held"}


def test_a_held_file_names_its_process(tmp_path):
    path = tmp_path / "lock"
    process, _ = holder(path)
    expected = f"in use: process {process.pid} on {socket.gethostname()} holds lock$"
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=expected), locked(path):
            raise AssertionError("held twice")
    process.communicate("")
    assert os.listdir(tmp_path) == []
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kill", [signal.SIGTERM, getattr(signal, "SIGKILL", None)])
def test_a_dead_process_holds_nothing(tmp_path, kill):
    path = tmp_path / "lock"
    process, _ = holder(path)
    process.send_signal(kill)
    process.communicate()
    assert path.exists()  # with its name in it
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert os.listdir(tmp_path) == []


@needs_fork
def test_a_forked_child_holds_nothing(tmp_path):
    """Neither after its parent was killed, nor does it end what its parent holds."""
    path = tmp_path / "lock"
    process, (worker,) = holder(path, "fork")
    process.kill()
    process.wait()
    with locked(path):
        child = fork()
        if child == 0:
            os._exit(0 if not locks._held else 1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(BlockingIOError, match="in use"), locked(path):
            raise AssertionError("held twice")
    os.kill(int(worker), signal.SIGKILL)
    process.communicate()


def test_threads_take_turns(tmp_path):
    inside, refused, most = [], [], []

    def work():
        for _ in range(200):
            try:
                with locked(tmp_path / "lock"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except BlockingIOError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 600
    assert os.listdir(tmp_path) == []


@posix
def test_a_link_in_place_of_the_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to("victim")
    with pytest.raises(OSError, match="lock"), locked(tmp_path / "lock"):
        raise AssertionError("held")
    assert (tmp_path / "victim").read_text() == "precious"


@posix
def test_the_file_of_another_holder_stays(tmp_path):
    """One removes the file by hand, and the next one makes its own."""
    path = tmp_path / "lock"
    with locked(path):
        path.unlink()
        process, _ = holder(path)
    assert path.exists()
    process.communicate("")
    assert not path.exists()


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*args):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.warns(RuntimeWarning, match=r"lock cannot be locked \(no locks available\)"),
        locked(tmp_path / "lock"),
    ):
        assert (tmp_path / "lock").exists()
    assert os.listdir(tmp_path) == []
