"""Calls work whatever the state of Numba, and whatever breaks in on the first of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import fork, needs_fork

import agnostic_xent as ax
from agnostic_xent import cli
from agnostic_xent.core import forks

# --- Numba itself --------------------------------------------------------------------------------

BROKEN = {
    "missing": "raise ModuleNotFoundError('No module named numba')",
    "damaged": "raise OSError('Could not load shared object file: libllvmlite.so')",
}
PROGRAM = """
import numpy, agnostic_xent as ax
x = numpy.asarray([-1.0, 2.0])
print(ax.relu(x).tolist())
print(ax.relu(x).tolist(), ax.explain(ax.relu, x))
print(ax.info()["threads"])
"""


def run(path: Path | str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program with all warnings as errors, and ``path`` before all others."""
    paths = os.pathsep.join([*filter(None, [str(path)]), *sys.path])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_without_numba_calls_run_portably(fault, tmp_path):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(BROKEN[fault])
    done = run(tmp_path)
    reason = BROKEN[fault].partition("(")[2].strip("')")
    first, second, number = done.stdout.splitlines()
    assert first == "[0.0, 2.0]"
    assert second.startswith("[0.0, 2.0] relu: portable (the kernels need Numba, ")
    assert reason in second
    assert number == "{'number': 1}"
    assert done.stderr.count(reason) == len(done.stderr.splitlines()) == 1


def test_without_compilation_calls_run_portably():
    done = run(NUMBA_DISABLE_JIT="1")
    assert "portable (Numba compiles nothing, because NUMBA_DISABLE_JIT is set)" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_says_why_it_compiles_nothing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "agnostic_xent.kernels.cpu.warmup", None)
    assert cli.main(["warmup"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


SETTINGS = {
    "of its threads": {"NUMBA_THREADING_LAYER": "nonsense", "NUMBA_NUM_THREADS": "1"},
    "of code": {"NUMBA_OPT": "0", "NUMBA_BOUNDSCHECK": "1", "NUMBA_CAPTURED_ERRORS": "old_style"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_numba(settings):
    pytest.importorskip("numba")
    done = run(**settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[0.0, 2.0] relu: Numba" in done.stdout


# --- what breaks in on the first call ------------------------------------------------------------

INTERRUPTED = """
import itertools, signal
import numpy, agnostic_xent as ax

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
x, count = numpy.ones((3, 4), "float32"), 0
for number in itertools.count(1):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02 + number % 7 / 100)
        y = ax.relu(x)
        signal.setitimer(signal.ITIMER_REAL, 0)
        break
    except KeyboardInterrupt:
        count += 1
print(float(y.sum()), ax.explain(ax.relu, x), count > 0)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms here")
def test_interrupts_of_the_first_call(tmp_path):
    """They arrive while Numba is loaded and while it compiles; then the call works."""
    pytest.importorskip("numba")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", INTERRUPTED],
        env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "12.0 relu: Numba loops (it takes these arguments) True\n"


IMPORTS = """
import sys, threading
import numpy as np, agnostic_xent as ax

class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            print(name)

sys.meta_path.insert(0, Finder())
x = np.ones((2, 3), "float32")
ax.relu(x)
ax.cross_entropy.vjp(x, np.arange(2))
"""


def test_nothing_is_loaded_where_handlers_run():
    """An import that an interrupt breaks off leaves a package that lacks some of its modules."""
    pytest.importorskip("numba")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_work_is_done_where_no_handler_runs():
    assert forks.as_a_whole(threading.current_thread) is not threading.main_thread()


def test_an_interrupt_of_the_waiting_leaves_the_work_to_its_end(monkeypatch):
    began, may_end, done = (threading.Event() for _ in range(3))

    def work() -> None:
        began.set()
        may_end.wait()
        done.set()

    def interrupted(thread: threading.Thread) -> None:
        began.wait()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forks.as_a_whole(work)
    may_end.set()
    forks.as_a_whole(lambda: None)  # waits for the work before it
    assert done.is_set()


def test_errors_of_the_work_arrive():
    def fail() -> None:
        raise ValueError("here")

    for _ in range(2):
        with pytest.raises(ValueError, match="here"):
            forks.as_a_whole(fail)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_started(monkeypatch):
    """As under a limit of the system, or when the interpreter ends."""
    threads = pytest.importorskip("agnostic_xent.kernels.cpu.toolchain.threads")
    monkeypatch.setattr(threads, "_workers", threads.Workers())
    monkeypatch.setattr(threads, "threads", lambda: 4)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert forks.as_a_whole(lambda: 3) == 3
    x = np.ones((100, 1000), np.float32)
    with ax.kernels("require"):
        np.testing.assert_array_equal(ax.relu(x), x)
    assert threads._workers.jobs.empty()


# --- several at once -----------------------------------------------------------------------------


def test_two_threads_compile_the_same_once(monkeypatch):
    compiling = pytest.importorskip("agnostic_xent.kernels.cpu.toolchain.compiling")
    made, both = [], threading.Barrier(3)

    def machine_code(function, signature):
        made.append(signature)
        return len

    monkeypatch.setattr(compiling, "machine_code", machine_code)
    monkeypatch.setattr(compiling, "LOOPS", [])
    loop = compiling.compiled(kind=compiling_choices())(doubled)

    def ask() -> None:
        both.wait()
        assert loop[np.dtype("f4")] is len

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    both.wait()
    for thread in asking:
        thread.join()
    assert len(made) == 1


def doubled(x: float) -> float:
    return x * 2


def compiling_choices() -> tuple[np.dtype, ...]:
    return (np.dtype("f4"),)


def first_use(method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(pool.map(total, [1, 2]), total(3))


def total(n: int) -> float:
    return round(float(ax.cross_entropy(np.zeros((64 * n, 1000)), np.zeros(64 * n, int))), 4)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_of_every_kind(method):
    program = f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads
import test_compiler as t
if __name__ == "__main__":
    t.first_use("{method}")
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[6.9078, 6.9078] 6.9078\n"


@needs_fork
def test_a_fork_waits_for_work_that_cannot_be_done_anew():
    began, seen = threading.Event(), []

    def work() -> None:
        began.set()
        threading.Event().wait(0.2)
        seen.append("whole")

    worker = threading.Thread(target=lambda: forks.as_a_whole(work))
    worker.start()
    began.wait()
    child = fork()
    if child == 0:
        ok = seen == ["whole"] and forks.as_a_whole(lambda: True)
        os._exit(0 if ok else 1)
    worker.join()
    assert os.waitpid(child, 0)[1] == 0


# --- the end of the interpreter ------------------------------------------------------------------

AT_EXIT = """
import atexit, threading
import numpy, agnostic_xent as ax

x = numpy.ones((200, 1000), "float32")
def last():
    print(float(ax.relu(x).sum()))
atexit.register(last)
threading.Thread(target=lambda: [ax.softmax(x) for _ in iter(int, 1)], daemon=True).start()
"""
TOO_LATE = "Numba, which cannot be imported (RuntimeError: can't register atexit after shutdown)"
"""What Python 3.12 and newer say where the end comes before Numba is there."""


def test_calls_when_the_interpreter_ends():
    """The first use of a kernel, beside a thread that does not stop."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EXIT],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("200000.0\n", 0)
    assert all(line.endswith(TOO_LATE) for line in done.stderr.splitlines()), done.stderr
