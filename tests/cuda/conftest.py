"""Tests of the CUDA kernels in Numba's simulator: ``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda``.

They run in a process of their own, since the simulator is chosen when Numba is loaded;
``test_cuda.py`` starts it. There, the kernels stand in on NumPy arrays.
"""

from __future__ import annotations

import os

from agnostic_xent.kernels import KERNEL_PACKAGES

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    KERNEL_PACKAGES["numpy"] = "agnostic_xent.kernels.cuda"
else:
    collect_ignore_glob = ["test_*"]
