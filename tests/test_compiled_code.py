"""Compiled code is kept on disk, and made anew when its source changes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

numba = pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.toolchain import compiling  # noqa: E402

PROGRAM = """
import logging, numpy, agnostic_xent
logging.basicConfig(level="INFO", format="%(message)s")
print(agnostic_xent.cross_entropy(numpy.ones((2, 3), "float32"), numpy.array([0, 1])))
"""


def test_the_second_process_compiles_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    logs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "1.0986123\n"
        logs.append(done.stderr)
    assert logs[0].count("compiling short") == 1
    assert "compiling" not in logs[1]


def test_the_cache_sees_edits_of_other_files(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    caplog.set_level(logging.INFO, "agnostic_xent")
    signature = numba.float64(numba.float64)
    compiling.machine_code(halved, signature)
    caplog.clear()
    compiling.machine_code(halved, signature)
    assert not caplog.records
    monkeypatch.setattr(compiling, "stamp", lambda: ("edited",))
    compiling.machine_code(halved, signature)
    assert "compiling halved" in caplog.text


def halved(x):
    return x / 2
