"""Tests of the CUDA kernels over NumPy arrays: on their compiled PTX, on a GPU, or in a simulator.

``AGNOSTIC_XENT_TEST_PTX=1 pytest tests/cuda``, ``AGNOSTIC_XENT_TEST_GPU=1 pytest tests/cuda`` or
``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda``: in a process of their own, since the CUDA kernels take
the place of those of the CPU. ``test_cuda_ptx.py``, ``test_cuda.py`` and ``test_cuda_simulator.py``
start it.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import pytest

from agnostic_xent.core.operation import KERNEL_PACKAGES
from tests.cuda.served import IN_SIMULATOR, ON_PTX

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
PTX = os.environ.get("AGNOSTIC_XENT_TEST_PTX") == "1" and not SIMULATED
ON_GPU = os.environ.get("AGNOSTIC_XENT_TEST_GPU") == "1" and not SIMULATED

if SIMULATED:
    KERNEL_PACKAGES["numpy"] = "agnostic_xent.kernels.cuda"
elif PTX or ON_GPU:
    KERNEL_PACKAGES["numpy"] = "on_gpu"
else:
    pytest.exit("set AGNOSTIC_XENT_TEST_PTX=1 to run tests/cuda on compiled PTX", returncode=4)
if PTX:
    from tests.ptx import gpu

    gpu.install()

LEFT_OUT = "|".join([*[ON_PTX] * (not PTX), *[IN_SIMULATOR] * (not SIMULATED)])
"""The names of the tests that another way of running the kernels alone can do."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another way of running the kernels has to do."""
    left_out = [item for item in items if re.search(LEFT_OUT, item.nodeid)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=SIMULATED)
def _nothing_in_new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new arrays with NaN: of what was there before, the right numbers may be left."""

    def filled(shape: Any, dtype: Any = float, **options: Any) -> np.ndarray:
        x = empty(shape, dtype, **options)
        x.reshape(-1).view(np.uint8)[:] = 0xFF
        return x

    empty = np.empty
    monkeypatch.setattr(np, "empty", filled)
    monkeypatch.setattr(np, "empty_like", lambda x: filled(x.shape, x.dtype))
