"""Tests of tests/cuda in Numba's simulator: those that change the text of kernels, or their arrays.

The others run on compiled PTX (test_cuda_ptx.py), for which each changed text would be compiled
anew. The simulator is chosen when Numba is loaded, so they run in another process as well.
"""

from __future__ import annotations

import re

import pytest

from tests.cuda.served import FOLDER, IN_SIMULATOR, Served

pytest.importorskip("numba_cuda")
pytest.importorskip("greenlet")

SIMULATOR = Served(NUMBA_ENABLE_CUDASIM="1", AGNOSTIC_XENT_TEST_PTX="0")
NAMES = [name for name in SIMULATOR.names if re.search(IN_SIMULATOR, name)]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.removeprefix(FOLDER))
def test_in_the_simulator(name):
    text = SIMULATOR.run(name)
    if text:  # of a test that is skipped, too: here all can run
        pytest.fail(text, pytrace=False)
