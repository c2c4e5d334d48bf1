"""Random calls of every operation; how long is set by AGNOSTIC_XENT_FUZZ_SECONDS, and its seed."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

import fuzz
from fuzz_cases import DRAWS, draw
from fuzz_layouts import LAYOUTS, fenced, laid_out

from agnostic_xent.core.operation import OPERATIONS

SECONDS = float(os.environ.get("AGNOSTIC_XENT_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("AGNOSTIC_XENT_FUZZ_SEED", "0"))
HAS_FENCES = pytest.mark.skipif(sys.platform == "win32", reason="it has no mprotect")


@HAS_FENCES
def test_calls_in_a_process_of_their_own():
    assert int(fuzz.in_a_process(SEED, SECONDS).split()[0]) > 0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_calls(seed):
    fuzz.run_case(seed, fences=False)


def test_every_operation_is_drawn():
    assert DRAWS.keys() == OPERATIONS.keys()
    rng = np.random.default_rng(0)
    assert {draw(rng).operation for _ in range(600)} == OPERATIONS.keys()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    if "fence" in layout and sys.platform == "win32":
        pytest.skip("it has no mprotect")
    rng = np.random.default_rng(1)
    for shape in [(3, 4, 5), (7,), (2, 1), (), (0, 3)]:
        x = rng.standard_normal(shape)
        y = laid_out(rng, x, layout)
        assert y.shape == shape
        if layout not in ("broadcast", "overlapping"):
            np.testing.assert_array_equal(y, x)


# --- faults are found ----------------------------------------------------------------------------


@HAS_FENCES
@pytest.mark.parametrize("place", [-1, 4096])
def test_a_number_beyond_a_fence_ends_the_process(place):
    body = (
        "import ctypes, fuzz_layouts\n"
        "start = fuzz_layouts.fenced(4096).ctypes.data\n"
        f"ctypes.c_ubyte.from_address(start + {place}).value"
    )
    with pytest.raises(AssertionError, match=r"exit code -1[01]"):
        fuzz.run_in_a_process([sys.executable, "-c", body])
    assert fenced(10).size >= 4096


def test_a_wrong_kernel_is_found_and_its_seed_is_named(monkeypatch):
    kernel = OPERATIONS["relu"]._kernels["numpy"][0]
    monkeypatch.setitem(vars(kernel), "value", lambda x: np.maximum(x, 0) * np.float32(1.01))
    monkeypatch.setattr(OPERATIONS["relu"], "_seen", {})
    calls = (n for n in range(400) if draw(np.random.default_rng(n)).operation == "relu")
    assert any(f"seed {n}: relu" in fault(n) for n in calls)  # not where there is no number


def fault(seed):
    try:
        fuzz.run_case(seed, fences=False)
    except AssertionError as error:
        return str(error)
    return ""
