"""Ranks that differ, fail or are killed end the job at once; its checkpoint goes on elsewhere."""

from __future__ import annotations

import pickle
import time

import distributed_case
import numpy as np
import pytest
import ranks
from conftest import VERSIONS
from distributed_case import EPOCHS, train
from ranks import mpiexec, on_ranks

from agnostic_xent import load_checkpoint

SOON = 60
"""Seconds, of which starting takes most."""


DIFFERENCES = {
    "its epochs is 2, there 1": {"epochs": 2},
    "its batch_size is 64, there 128": {"batch_size": 64},
    "its data is x (50, 1, 6, 6)": {"samples": 50},
    "float64": {"dtype": "float64"},
    "its rng": {"rng": 7},
    "its version of agnostic-xent is 0.0.1, there": {"version": "0.0.1"},
    "its array library is torch": {"library": "torch"},
}
if not VERSIONS["torch"]:
    del DIFFERENCES["its array library is torch"]


def test_a_rank_that_differs_is_refused():
    calls = [(distributed_case.refused, changed) for changed in DIFFERENCES.values()]
    for errors in on_ranks(2, distributed_case.one_after_the_other, calls):
        for words, error in zip(DIFFERENCES, errors, strict=True):
            assert error.startswith("rank 1 differs from rank 0: "), words
            assert words in error


@pytest.mark.parametrize("rank", [0, 1])  # which writes the checkpoints, or not
@pytest.mark.parametrize(
    ("kind", "words"), [("raises", "out of coffee"), ("exits", ""), ("killed", "signal 9")]
)
def test_a_rank_that_fails_ends_the_job(kind, words, rank, tmp_path):
    call, folder = tmp_path / "call", tmp_path / "run"
    call.write_bytes(pickle.dumps((distributed_case.failing, (folder, kind, rank), {})))
    start = time.monotonic()
    job = mpiexec(3, ranks.__file__, call)
    assert time.monotonic() - start < SOON
    assert job.returncode != 0
    assert words in job.stdout + job.stderr
    assert len(load_checkpoint(folder)[1]) == 2
    left = {path.name for path in folder.iterdir()}
    assert left - {"checkpoint.safetensors.lock"} == {"checkpoint.safetensors"}


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    expected, history = train(None, "all options", "float64")
    for number, epochs in ((3, 2), (1, 4), (2, EPOCHS)):
        (params, found), *_ = on_ranks(
            number, train, "all options", "float64", epochs=epochs, checkpoint=tmp_path
        )
        assert len(found["loss"]) == epochs
    for name, w in expected.items():
        assert abs(params[name] - w).max() < 1e-12 * abs(w).max()
    for name, column in history.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-12)
