"""Tests of the CUDA kernels over NumPy arrays, in Numba's simulator or on a GPU.

``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda`` or ``AGNOSTIC_XENT_TEST_GPU=1 pytest tests/cuda``: in a
process of their own, since the simulator is chosen when Numba is loaded, and the CUDA kernels take
the place of those of the CPU. ``test_cuda_simulator.py`` and ``test_cuda.py`` start it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from agnostic_xent.core.operation import KERNEL_PACKAGES

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
PTX = os.environ.get("AGNOSTIC_XENT_TEST_PTX") == "1" and not SIMULATED
ON_GPU = PTX or (os.environ.get("AGNOSTIC_XENT_TEST_GPU") == "1" and not SIMULATED)
SIMULATOR_ALONE = ("mistake", "not_taken", "watched")
"""Tests that change the text of kernels, or what passes for arrays."""

if PTX:
    from tests.ptx import gpu

    gpu.install()
if SIMULATED:
    KERNEL_PACKAGES["numpy"] = "agnostic_xent.kernels.cuda"
elif ON_GPU:
    KERNEL_PACKAGES["numpy"] = "on_gpu"
else:
    pytest.exit("set NUMBA_ENABLE_CUDASIM=1 to run tests/cuda in Numba's simulator", returncode=4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, on a GPU, what only the simulator can do."""
    for item in items:
        ptx = "mistakes_in_ptx" in item.name
        if SIMULATED and item.path.name == "test_large.py":
            item.add_marker(pytest.mark.skip(reason="too slow for the simulator"))
        if ptx and not PTX:
            item.add_marker(pytest.mark.skip(reason="with PTX alone"))
        if not ptx and ON_GPU and any(word in item.name for word in SIMULATOR_ALONE):
            item.add_marker(pytest.mark.skip(reason="in the simulator alone"))


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
