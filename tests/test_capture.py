"""Captured steps beside the simulator: errors, CuPy's own classes as far as they work, a GPU."""

from __future__ import annotations

import gc
import weakref
from unittest.mock import MagicMock

import numpy as np
import pytest
from conftest import ROWS, VERSIONS, assert_close
from test_cuda_launch import hosted

import agnostic_xent as ax
from agnostic_xent.core.communication import Alone
from agnostic_xent.core.operation import NoKernels
from agnostic_xent.training import schedules

cupy = pytest.importorskip("cupy")
pytest.importorskip("agnostic_xent.kernels.cuda", exc_type=NoKernels)

from agnostic_xent.kernels.cuda import graphs, optimizers  # noqa: E402
from agnostic_xent.kernels.cuda.toolchain import capturing  # noqa: E402

MODEL = ax.Sequential(ax.Flatten(), ax.Dense(3))
TASK = {"loss": ax.cross_entropy, "optimizer": ax.SGD(0.1), "epochs": 1, "capture": True}


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy", "torch", "strict@device1"])
def test_other_libraries_are_an_error(name):
    (row,) = (row for row in ROWS if row.name == name)
    if not VERSIONS[name]:
        pytest.skip("not available here")
    params = {name: row.array(w) for name, w in MODEL.init(0, (2,))[0].items()}
    data = row.array(np.ones((4, 2), "float32")), row.array(np.arange(4) % 3)
    with pytest.raises(ValueError, match="capture=True needs parameters that lie on a GPU"):
        ax.fit(MODEL, params, data, **TASK)


def test_a_communicator_is_an_error():
    params, data = MODEL.init(0, (2,))[0], (np.ones((4, 2), "float32"), np.arange(4) % 3)
    with pytest.raises(ValueError, match="without a communicator"):
        ax.fit(MODEL, params, data, communicator=Alone(), **TASK)


# --- what CuPy is asked for, by a stand-in where it would ask a driver ---------------------------

STREAM, DEVICE = "cuda.Stream()", "cuda.Device()"
IN_ORDER = [
    "get_default_memory_pool().free_all_blocks", "cuda.using_allocator().__enter__",
    f"{STREAM}.__enter__", f"{STREAM}.begin_capture", "step", f"{STREAM}.end_capture",
    f"{STREAM}.__exit__", "cuda.using_allocator().__exit__",
]  # fmt: skip


def test_cupy_has_what_is_asked_for():
    """The stand-in below has everything."""
    asked = {
        cupy: ["get_default_memory_pool"],
        cupy.cuda: ["Device", "Memory", "MemoryPointer", "MemoryPool", "Stream", "using_allocator"],
        cupy.cuda.MemoryPool: ["malloc", "free_all_blocks"],
        cupy.cuda.Stream: ["begin_capture", "end_capture"],
        cupy.cuda.Graph: ["launch"],
    }
    assert all(callable(getattr(of, name)) for of, names in asked.items() for name in names)
    pool = cupy.cuda.MemoryPool(capturing.Capture().allocate)
    with cupy.cuda.using_allocator(pool.malloc):
        assert cupy.cuda.get_allocator() == pool.malloc


@pytest.fixture
def xp(monkeypatch):
    xp = MagicMock()
    monkeypatch.setattr(graphs, "xp", xp)
    return xp


def names(xp):
    return [name for name, _, _ in xp.mock_calls]


def test_a_step_is_recorded_in_memory_of_its_own_and_launched_on_its_device(xp):
    capture = capturing.Capture()

    def step():
        assert capturing.CAPTURING.now is capture
        xp.step()

    launch = graphs.record_on_gpu(capture, step)
    assert capturing.CAPTURING.now is None
    assert [name for name in names(xp) if name in IN_ORDER] == IN_ORDER
    xp.cuda.Stream.assert_called_once_with(non_blocking=True)
    xp.cuda.MemoryPool.assert_called_once_with(capture.allocate)
    xp.cuda.using_allocator.assert_called_once_with(xp.cuda.MemoryPool.return_value.malloc)
    xp.reset_mock()
    launch()
    launches = [f"{DEVICE}.__enter__", f"{STREAM}.end_capture().launch", f"{DEVICE}.__exit__"]
    assert names(xp) == launches


@pytest.mark.parametrize("also_at_the_end", [False, True])
def test_a_step_that_fails_ends_the_capture_and_says_why(xp, also_at_the_end):
    capture = capturing.Capture()
    if also_at_the_end:
        xp.cuda.Stream.return_value.end_capture.side_effect = RuntimeError("invalidated")

    def step():
        xp.step()
        raise NotImplementedError("calling cuBLAS")

    with pytest.raises(NotImplementedError, match="calling cuBLAS"):
        graphs.record_on_gpu(capture, step)
    assert capturing.CAPTURING.now is None
    assert [name for name in names(xp) if name in IN_ORDER] == IN_ORDER


# --- with CuPy's own arrays ----------------------------------------------------------------------


def test_arrays_that_were_there_are_kept_and_the_graphs_own_are_not(monkeypatch):
    """Such as the table of an optimizer's kernel, which its cache may drop."""
    kernel, dtype = optimizers.variants()[0], np.float32
    monkeypatch.setitem(vars(kernel), "loaded", lambda: lambda *launch: None)
    room = np.zeros(64, dtype)
    memory = cupy.cuda.UnownedMemory(room.ctypes.data, room.nbytes, room, 0)
    monkeypatch.setattr(cupy.cuda, "Memory", lambda size: memory)
    capture, weights, table = capturing.Capture(), hosted(np.zeros(8, dtype)), hosted(np.zeros(3))
    own = cupy.ndarray((8,), dtype, memptr=capture.allocate(room.nbytes) + 128)
    lists = [(x, *[None] * (optimizers.TOGETHER - 1)) for x in (weights, own, own, own, own)]

    def step():
        kernel(1, *lists, table, None, 0.0, 0.0, 0.0, 0.0, 0, 0)

    capture.run(step)
    assert capture._held == []
    capture.run(step, records=True)
    assert len(capture._held) == 2
    assert capture._held[0] is weights
    assert capture._held[1] is table
    step()
    assert len(capture._held) == 2


def test_memory_is_freed_with_the_capture_alone(monkeypatch):
    """CuPy's pool may give a block back, to take another one; kernels were recorded with it."""

    class Owner:
        """Of some memory, which nobody reads."""

    def memory(size):
        owners.add(owner := Owner())
        return cupy.cuda.UnownedMemory(256, size, owner, 0)

    owners, capture = weakref.WeakSet(), capturing.Capture()
    monkeypatch.setattr(cupy.cuda, "Memory", memory)
    capture.allocate(256)
    gc.collect()
    assert len(owners) == 1
    del capture
    gc.collect()
    assert len(owners) == 0


def test_a_recorded_step_asks_for_the_numbers_of_the_one_before(monkeypatch):
    monkeypatch.setattr(capturing, "xp", np)
    capture, later = capturing.Capture(), []

    def step(count):
        places = [capture.on_device(lambda rate, k: (rate, k), 0.5, "f4") for _ in range(count)]
        later.append(places)

    capture.run(lambda: step(2))
    np.testing.assert_array_equal(later[0], [[0.5, 0]] * 2)
    capture.run(lambda: step(2), records=True)
    assert all(a is b for a, b in zip(*later, strict=True))
    capture.write(0.25, 3)
    np.testing.assert_array_equal(later[0], [[0.25, 3]] * 2)
    with pytest.raises(RuntimeError, match="other numbers"):
        capture.run(lambda: step(3), records=True)


# --- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", [ax.SGD(schedules.cosine(0.1, steps=40), 0.9), ax.AdamW()])
def test_captured_steps_on_a_gpu(optimizer):
    if not cupy.cuda.is_available():
        pytest.skip("no GPU is here")
    model = ax.Sequential(
        ax.Conv2d(4, 3, bias=False), ax.BatchNorm2d(), ax.ReLU(), ax.MaxPool2d(2), ax.Flatten(),
        ax.Dense(3),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    data = cupy.asarray(rng.standard_normal((70, 1, 8, 8))), cupy.asarray(np.arange(70) % 3)
    params = {k: cupy.asarray(w, dtype="float64") for k, w in model.init(0, (1, 8, 8))[0].items()}
    task = {
        "loss": ax.cross_entropy,
        "optimizer": optimizer,
        "batch_size": 16,
        "epochs": 4,
        "rng": 0,
    }
    expected, _ = ax.fit(model, params, data, **task)
    found, _ = ax.fit(model, params, data, **task, capture=True)  # a warning would be an error
    for name, w in found.items():
        assert_close(w, expected[name].get(), "float64", terms=1000)
