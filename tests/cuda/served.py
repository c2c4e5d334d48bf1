"""A process that runs the tests of this folder, with other kernels than its parent's."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = "tests/cuda/"

ON_PTX = "planted_in_ptx|test_large"
"""Tests that change the PTX, or that are too much for the simulator, by their names."""

IN_SIMULATOR = "mistake|not_taken|watched|in_turn|nothing_is_caught|exponentials|tangents"
"""Tests that change the text of kernels, or what passes for arrays, and what belongs to them."""


class Served:
    """The process, and the names of the tests that it can run."""

    def __init__(self, **environment: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process runs)
        environment |= {"PYTEST_ADDOPTS": "", "AGNOSTIC_XENT_TEST_BACKENDS": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cuda.serving"], cwd=Path(__file__).parents[2],
            env=os.environ | environment, text=True,
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
            raise RuntimeError(f"the process of the tests has ended:\n{self._log.read()[-5000:]}")
        return json.loads(line)
