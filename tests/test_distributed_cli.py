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
    assert "0.weight" in load_params(tmp_path / "out" / "model.safetensors")


def test_an_error_ends_the_job(tmp_path):
    job = mpiexec(2, "-m", *TRAIN, "--batch-size", "none")
    assert job.returncode != 0
    assert "agnostic-xent: error: argument --batch-size" in job.stderr
    assert job.stdout == ""
