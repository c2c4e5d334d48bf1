"""The tests of tests/cuda in Numba's simulator, each as a test of its own.

The simulator is chosen when Numba is loaded. So they run in another process, which each worker of
pytest starts once, and which then runs the tests that it is asked for (tests/cuda/serving.py).
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba_cuda")
pytest.importorskip("greenlet")

FOLDER = "tests/cuda/"
ENVIRONMENT = {
    "NUMBA_ENABLE_CUDASIM": "1", "PYTEST_ADDOPTS": "", "AGNOSTIC_XENT_TEST_BACKENDS": "",
}  # fmt: skip


class Simulator:
    """A process with Numba's simulator, and the names of the tests that it can run."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process runs)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cuda.serving"], cwd=Path(__file__).parents[1],
            env=os.environ | ENVIRONMENT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        atexit.register(self.end)
        self.names: list[str] = self._answer()

    def run(self, name: str) -> str | None:
        """Run a test by its name; return why it did not pass, None if it did."""
        print(json.dumps(name), file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        """End the process, by the end of its input."""
        self._process.communicate()
        self._log.close()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the simulator's process has ended:\n{self._log.read()[-5000:]}")
        return json.loads(line)


SIMULATOR = Simulator()


@pytest.mark.parametrize("name", SIMULATOR.names, ids=lambda name: name.removeprefix(FOLDER))
def test_in_the_simulator(name):
    text = SIMULATOR.run(name)
    if text:  # of a test that is skipped, too: here all can run
        pytest.fail(text, pytrace=False)
