"""The tests of tests/cuda on the compiled PTX of the kernels, executed by the CPU, one by one.

Which arrays the CUDA kernels take is chosen when they are imported. So they run in another process,
which each worker of pytest starts once, and which then runs the tests that it is asked for
(tests/cuda/serving.py).
"""

from __future__ import annotations

import pytest

from tests.cuda.served import FOLDER, Served

pytest.importorskip("numba_cuda")
pytest.importorskip("cuda.bindings.nvjitlink")

EXECUTOR = Served(AGNOSTIC_XENT_TEST_PTX="1", NUMBA_ENABLE_CUDASIM="0")


@pytest.mark.parametrize("name", EXECUTOR.names, ids=lambda name: name.removeprefix(FOLDER))
def test_on_ptx(name):
    text = EXECUTOR.run(name)
    if text:  # of a test that is skipped, too: here all can run
        pytest.fail(text, pytrace=False)
