"""Run a function on the ranks of an MPI job, and return what each of them returns."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LIMIT = 600
"""Seconds after which a job counts as hanging."""


def mpiexec(ranks, *command, timeout=LIMIT, **variables):
    """Run ``python -m mpi4py`` with these arguments on so many ranks, one thread each."""
    pytest.importorskip("mpi4py")
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    launcher = shutil.which("mpiexec", path=places)
    if launcher is None:
        pytest.skip("no mpiexec here")
    one_thread = dict.fromkeys(
        ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    path = os.pathsep.join(
        (str(TESTS), str(TESTS.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep))
    )
    return subprocess.run(
        [launcher, "-n", str(ranks), sys.executable, "-m", "mpi4py", *map(str, command)],
        env=os.environ | one_thread | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def on_ranks(ranks, function, *arguments, **options):
    """Return ``function(communicator, *arguments)`` of each rank; it is one of a module."""
    with tempfile.TemporaryDirectory() as folder:
        call = Path(folder) / "call"
        call.write_bytes(pickle.dumps((function, arguments, options)))
        job = mpiexec(ranks, Path(__file__), call)
        assert job.returncode == 0, job.stderr
        return [pickle.loads((Path(folder) / f"{rank}").read_bytes()) for rank in range(ranks)]


def main(call):
    from agnostic_xent import MPICommunicator

    function, arguments, options = pickle.loads(call.read_bytes())
    communicator = MPICommunicator()
    result = function(communicator, *arguments, **options)
    (call.parent / f"{communicator.rank}").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
