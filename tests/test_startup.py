"""Start-up of the CPU kernels: no compilation at import or twice, and all of it ahead if asked."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import SAMPLES

from agnostic_xent import cli
from agnostic_xent.core.operation import OPERATIONS

pytest.importorskip("numba")

from test_threads import KERNELS, ONE_THREAD, digest

from agnostic_xent.kernels import cpu
from agnostic_xent.kernels.cpu import optimizers, warmup
from agnostic_xent.kernels.cpu.toolchain.compiling import LOOPS

NO_COMPILATION = """
from numba.core import compiler

def refuse(*args, **options):
    raise AssertionError("something is compiled")

compiler.compile_extra = refuse
"""
FIRST_USE = """
import logging
import numpy as np
import agnostic_xent as ax

logging.basicConfig(level="INFO", format="%(message)s")
with ax.kernels("require"):
    print(ax.sigmoid(np.zeros(3, "float32")))
"""
WARM = """
from agnostic_xent import cli
from agnostic_xent.kernels.cpu import warmup
from agnostic_xent.kernels.cpu.activation.loops import elements

elements.choices = {"kind": elements.choices["kind"][:1]}
warmup.LOOPS = [elements]
if __name__ == "__main__":
    print(cli.main(["warmup"]))
"""


def run(program: str, cache: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_nothing_compiles_at_import(tmp_path):
    done = run(NO_COMPILATION + "import agnostic_xent.kernels.cpu", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.rglob("*.code"))


def test_the_second_process_compiles_nothing(tmp_path):
    refused = run(NO_COMPILATION + FIRST_USE, tmp_path)
    assert "something is compiled" in refused.stderr
    first = run(FIRST_USE, tmp_path)
    assert first.stdout == "[0.5 0.5 0.5]\n"
    assert first.stderr == "compiling elements for the first time on this machine\n"
    second = run(NO_COMPILATION + FIRST_USE, tmp_path)
    assert (second.stdout, second.stderr) == (first.stdout, "")


def test_warmup_leaves_nothing_to_compile(tmp_path):
    warm = run(WARM, tmp_path)
    lines = warm.stdout.splitlines()
    assert re.fullmatch(r" +\d+\.\d s  loops\.elements\[float32\]", lines[0])
    assert re.fullmatch(r"all kernels are ready after \d+ s", lines[1])
    assert lines[2:] == ["0"]
    done = run(NO_COMPILATION + FIRST_USE, tmp_path)
    assert (done.stdout, done.stderr) == ("[0.5 0.5 0.5]\n", "")


def test_the_command_prints_what_is_ready(capsys, monkeypatch):
    monkeypatch.setattr(warmup, "LOOPS", [optimizers.sgd])
    assert cli.main(["warmup"]) == 0
    *ready, end = capsys.readouterr().out.splitlines()
    names = sorted(line.split("s  ")[1] for line in ready)
    assert names == [f"optimizers.sgd[{dtype}]" for dtype in ("float32", "float64")]
    assert re.fullmatch(r"all kernels are ready after \d+ s", end)


# --- the table of all compiled loops -------------------------------------------------------------


def test_the_table_has_the_loops_of_all_modules():
    known = {(module, name) for module, name, _ in warmup.calls()}
    modules = [m.name for m in pkgutil.walk_packages(cpu.__path__, f"{cpu.__name__}.")]
    for module in modules:
        importlib.import_module(module)
    assert known == {(loop.function.__module__, loop.function.__name__) for loop in LOOPS}
    for loop in LOOPS:  # another process finds them by these names
        module, name = loop.function.__module__, loop.function.__name__
        assert getattr(sys.modules[module], name) is loop


def test_a_function_in_parts_takes_parts_and_part_last():
    for loop in LOOPS:
        names = list(inspect.signature(loop.function).parameters)
        assert (names[-2:] == ["parts", "part"]) == bool(loop.pieces)


def test_the_table_has_all_that_kernels_ask_for():
    """Sample calls, large and small, ask for no loop that warmup would not have made."""
    for loop in LOOPS:
        loop.clear()
    for sample in SAMPLES:
        for dtype in ("float32", "float64"):
            sampled(sample, dtype)
    for name in set(KERNELS) - ONE_THREAD:
        digest(name)
    for loop in LOOPS:
        assert set(loop) <= set(loop.variants()), loop.function.__name__
    assert sum(map(len, LOOPS)) > 60


def sampled(sample, dtype) -> None:
    arrays = [a.astype(dtype) if getattr(a, "dtype", "i") == "f8" else a for a in sample.arrays]
    value, back = OPERATIONS[sample.operation].vjp(*arrays, *sample.extra, **sample.options)
    value = value[0] if isinstance(value, tuple) else value
    back(np.ones_like(value))


def test_import_loads_no_compiler():
    program = "import sys, agnostic_xent; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"
