"""NCCL through CuPy's communicator: its calls, against a stand-in; no GPU has run them."""

from __future__ import annotations

import warnings

import distributed_case
import pytest
from ranks import on_ranks
from test_distributed import LIMITS


@pytest.mark.parametrize("ranks", [2, 3])
def test_trains_as_one_rank_does(ranks):
    models = distributed_case.MODELS
    expected = [distributed_case.each_library(None, "numpy", model) for model in models]
    for rank, (device, found) in enumerate(on_ranks(ranks, distributed_case.with_nccl)):
        assert device == f"bus {rank}"
        for params, others in zip(expected, found, strict=True):
            for name, w in params.items():
                assert abs(others[name] - w).max() < 10 * LIMITS["float32"] * abs(w).max()


def test_takes_one_device_a_rank():
    for rank, found in enumerate(on_ranks(2, distributed_case.without_nccl)):
        assert "2 ranks of this machine see 1;" in found[0]
        assert found[1] == f"bus {rank}"
        assert "pip install nvidia-nccl-cu13" in found[2]


def test_stand_in_has_the_names_of_cupy():
    cuda = pytest.importorskip("cupy").cuda
    for path in ("Device.pci_bus_id", "Device.use", "Stream.record", "Stream.wait_event",
                 "get_current_stream", "runtime.getDeviceCount"):  # fmt: skip
        place = cuda
        for name in path.split("."):
            place = getattr(place, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where NCCL is not installed
        from cupy.cuda import nccl
    if not nccl.available:
        pytest.skip("NCCL is not installed")
    import nccl_stand_in

    for name, value in nccl_stand_in.NAMES.items():
        assert getattr(nccl, name) == value
    assert len(nccl.get_unique_id()) == len(nccl_stand_in.IDENTITY)
    assert callable(nccl.NcclCommunicator.allReduce)
