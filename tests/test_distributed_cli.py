"""The command line on several ranks: started by mpiexec, it uses them by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ranks import mpiexec

from agnostic_xent import load_params

TRAIN = ("agnostic_xent", "train", "--data", "digits", "--epochs", "2")


@pytest.fixture(scope="module")
def one_process():
    pytest.importorskip("sklearn")
    job = subprocess.run(
        [sys.executable, "-m", *TRAIN], capture_output=True, text=True, check=True, timeout=100
    )
    return job.stdout


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_print_once_what_one_process_prints(ranks, one_process, tmp_path):
    job = mpiexec(ranks, "-m", *TRAIN, "--out", tmp_path / "out", "--checkpoint", tmp_path / "run")
    assert job.returncode == 0, job.stderr
    assert job.stdout == one_process
    lines = [line for line in job.stderr.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert "1.weight" in load_params(tmp_path / "out" / "model.safetensors")


def test_an_error_ends_the_job():
    job = mpiexec(2, "-m", *TRAIN, "--batch-size", "none", PYTHONUNBUFFERED="1")
    assert job.returncode != 0
    errors = [line for line in job.stderr.splitlines() if "agnostic-xent" in line]
    assert 1 <= len(errors) <= 2  # the first to end may end the other before it speaks
    for line in errors:
        assert line.startswith("agnostic-xent: error: argument --batch-size")
        assert line.count("agnostic-xent") == 1
    assert job.stdout == ""


def test_an_error_of_one_rank_ends_the_job(tmp_path):
    folder = tmp_path / "run"
    for ranks, options in ((2, ["--seed", "1"]), (3, ["--seed", "2"])):
        job = mpiexec(ranks, "-m", *TRAIN, *options, "--checkpoint", folder)
    assert job.returncode != 0
    assert job.stderr.count("agnostic-xent: error") == 1
    assert "its start is of other parameters" in job.stderr


CORES = """
import os, sys
for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    del os.environ[name]
from agnostic_xent.core.communication import THREADS, share_cores
share_cores()
assert "numpy" not in sys.modules
line = *(os.environ[name] for name in THREADS), len(os.sched_getaffinity(0))
sys.stdout.write(" ".join(map(str, line)) + "\\n")  # in one go, for the other rank writes too
"""


def test_ranks_of_a_machine_share_its_cores():
    job = mpiexec(2, "-c", CORES, OMP_NUM_THREADS="7", PYTHONUNBUFFERED="1")
    assert job.returncode == 0, job.stderr
    lines = job.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        numba, openmp, openblas, mkl, cores = map(int, line.split())
        assert numba == openblas == mkl == max(1, cores // 2)
        assert openmp == 7  # the user's own
