"""A launch of a CUDA kernel up to the driver, with CuPy's own arrays over the host's memory.

No GPU is needed: what CuPy would hand to the driver is read back instead.
"""

from __future__ import annotations

import ctypes
import functools
import re
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from agnostic_xent.core.arrays import device_number
from agnostic_xent.core.checks import namespace
from agnostic_xent.core.operation import Operation, repeatable

cupy = pytest.importorskip("cupy")
pytest.importorskip("cuda.bindings.nvjitlink")

KERNELS = "agnostic_xent.kernels.cuda"
launching, optimizers, compiling, warmup, pool, loss_rows, loss_sums = (
    pytest.importorskip(f"{KERNELS}.{name}", exc_type=ImportError)
    for name in (
        "toolchain.launching", "optimizers", "toolchain.compiling", "warmup", "pool.windows",
        "loss.rows", "loss.sums",
    )
)  # fmt: skip

PARAMETERS = "f4* f8*3 i4 b1 f4 u2 f8 i8 f2 f4*"
FORMATS = "PPPPi?fHdqeP"


def hosted(x, device=0):
    """Return a CuPy array whose memory is that of a NumPy array."""
    memory = cupy.cuda.UnownedMemory(x.ctypes.data, x.nbytes, x, device)
    return cupy.ndarray(x.shape, x.dtype, memptr=cupy.cuda.MemoryPointer(memory, 0))


def launched(*args, parameters=PARAMETERS, grid=(1, 1, 1), during=lambda: None):
    """Launch, and return what the driver would read."""
    found = []

    def function(grid, block, pointers, shared):
        during()
        types = zip(FORMATS, pointers, strict=True)
        found.append((grid, block, [read(pointer.ptr, code) for code, pointer in types]))

    kernel = SimpleNamespace(
        threads=64, arguments=launching.Arguments(parameters), loaded=lambda: function, shared=None
    )
    launching.launch_on_gpu(kernel, grid, args)
    return found[0]


def read(address, code):
    """Return the number of a type at an address."""
    assert address % struct.calcsize(code) == 0  # C's alignment
    return struct.unpack(code, ctypes.string_at(address, struct.calcsize(code)))[0]


def test_arguments_are_where_the_driver_reads_them():
    x, y = np.zeros(3, np.float32), np.zeros((2, 2))
    numbers = [-7, True, np.float32(0.1), 65535, -1e300, 1 << 40, 0.5]
    grid, block, found = launched(
        hosted(x), (hosted(y), None, hosted(y[1])), *numbers, None, grid=(5, 6, 7)
    )
    assert (grid, block) == ((5, 6, 7), (64, 1, 1))
    assert found == [x.ctypes.data, y.ctypes.data, 0, y[1].ctypes.data, *numbers, 0]


@pytest.mark.parametrize(("place", "number"), [(2, 1 << 31), (5, -1), (5, 0.5), (7, 1 << 63)])
def test_a_number_that_does_not_fit_is_an_error(place, number):
    args = [None, (None,) * 3, 0, False, 0.0, 0, 0.0, 0, 0.0, None]
    launched(*args)
    args[place] = number
    with pytest.raises(struct.error):
        launched(*args)


def test_threads_do_not_mix_their_arguments():
    """Between the writing of the arguments and the launch the interpreter may turn to another."""
    found, both = [], threading.Barrier(2)
    kernel = SimpleNamespace(threads=1, arguments=launching.Arguments("i4"), shared=None)

    def function(grid, block, pointers, shared):
        threading.Event().wait(0.01)
        found.append((grid[0], read(pointers[0].ptr, "i")))

    def run(number):
        both.wait()
        for _ in range(5):
            launching.launch_on_gpu(kernel, (number, 1, 1), (number,))

    kernel.loaded = lambda: function
    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(1, 1)] * 5 + [(2, 2)] * 5


def test_the_driver_is_given_as_many_arguments_as_the_kernel_has():
    """A tuple of pointers is as many parameters, and so is every one that is not used."""
    kernel = optimizers.variants()[0]
    bounds = kernel.threads, kernel.blocks
    code = compiling.compile_for((9, 0), kernel.function, kernel.parameters, bounds)
    parameters = re.findall(r"\.param \.(\w+) .*_param_\d+", code.ptx)
    assert len(parameters) == len(launching.Arguments(kernel.parameters).pointers)


def test_a_kernel_is_loaded_once_for_each_device(monkeypatch):
    """By CuPy, as it is called: its module and device are stand-ins."""
    loaded, set_aside, device = [], [], [0]

    class Module:
        def load(self, cubin):
            loaded.append((device[0], cubin))

        def get_function(self, name):
            return SimpleNamespace(name=name, ptr=len(loaded))

    driver = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES="shared",
        CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT="carveout",
        funcGetAttribute=lambda attribute, pointer: {"shared": [0, 30 << 10, 15 << 10][pointer]}[
            attribute
        ],
        funcSetAttribute=lambda *attribute: set_aside.append(attribute),
    )
    cuda = SimpleNamespace(
        driver=driver,
        runtime=SimpleNamespace(getDevice=lambda: device[0]),
        Device=lambda number: SimpleNamespace(compute_capability=["80", "120"][number]),
        function=SimpleNamespace(Module=Module),
    )
    monkeypatch.setattr(launching, "xp", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(
        compiling,
        "machine_code",
        lambda capability, function, *key: (function.__name__, capability),
    )
    monkeypatch.setattr(launching, "KERNELS", [])
    kernel = launching.Kernel(read, "f4*", 32, 3)
    for number in (0, 1, 0, 1):
        device[0] = number
        assert kernel.loaded().name == "read"
    assert loaded == [(0, (8, 0)), (1, (12, 0))]
    assert set_aside == [(1, "carveout", 100)]  # 90 KB; 45 KB are there without asking


def test_kernels_are_compiled_ahead(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling.store.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(warmup, "modules", lambda: ["toolchain.device", "optimizers"])
    monkeypatch.setattr(warmup, "capabilities", lambda: [(9, 0)])
    ready = dict(warmup.compile_all())
    assert {name.partition("(")[0] for name in ready} == {
        "optimizers.sgd", "optimizers.sgd_replayed", "optimizers.adamw", "optimizers.adamw_replayed"
    }  # fmt: skip
    kernels = optimizers.variants()
    assert len(ready) == len(kernels) == len(list(tmp_path.rglob("*.code")))
    monkeypatch.setattr(compiling, "compile_for", None)  # they are found on disk
    for kernel in kernels:
        bounds = kernel.threads, kernel.blocks
        code = compiling.machine_code((9, 0), kernel.function, kernel.parameters, bounds)
        assert code[1].startswith(b"\x7fELF")


def test_no_kernel_is_forgotten():
    assert {module for module in warmup.modules() if warmup.variants_of(module)} > {
        "conv.tiled", "loss.rows", "optimizers", "pool.windows", "softmax.sweeps"
    }  # fmt: skip


def test_a_contract_is_asked_once_about_arrays_of_a_device():
    """And again where another device could change what it says."""
    calls = []

    def contract(x, y, *, scale=None):
        calls.append({device_number(array) for array in (x, y, scale) if array is not None})
        namespace(x=x, y=y, scale=scale)
        return repeatable(x, y, scale=scale)

    asked = Operation(contract)
    asked.definition(lambda x, y, *, scale: x)
    asked.pullback(lambda x, y, *, scale: (x, None))
    one, other = (functools.partial(hosted, np.ones(3), device=number) for number in (0, 1))
    for _ in range(3):
        assert asked(one(), one()).data.device_id == 0
        assert asked(one(), one(), scale=one()).data.device_id == 0
    assert calls == [{0}, {0}]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"y is on device .* 1> but x is on .* 0>"):
            asked(one(), other())
        with pytest.raises(ValueError, match=r"scale is on device .* 1> but x is on .* 0>"):
            asked(one(), one(), scale=other())
    calls.clear()
    assert asked(other(), other()).data.device_id == 1
    assert calls == [{1}]


def test_what_is_compiled_elsewhere_needs_no_compiler(monkeypatch, tmp_path):
    """A folder that `warmup` has filled is looked into first, whoever compiles here."""
    monkeypatch.setattr(compiling.store.config, "CACHE_DIR", str(tmp_path / "cache"))
    kernel = optimizers.variants()[0]
    key = (9, 0), kernel.function, kernel.parameters, (kernel.threads, kernel.blocks)
    compiling.compile_into(tmp_path / "carried", *key)
    carried = sorted((tmp_path / "carried").iterdir())
    monkeypatch.setattr(compiling, "compile_for", None)
    monkeypatch.setattr(compiling, "compilers", tuple)
    monkeypatch.setenv(compiling.CARRIED, str(tmp_path / "carried"))
    name, cubin = compiling.machine_code(*key)
    assert name.encode() + b"\n" + cubin in carried[0].read_bytes()
    assert len(carried) == 1
    with pytest.raises(TypeError):
        compiling.machine_code((8, 0), *key[1:])  # it is for another GPU


@pytest.mark.parametrize("damage", [b"", b"no machine code", None], ids=["empty", "other", "cut"])
def test_machine_code_that_is_not_whole_is_compiled_anew(monkeypatch, tmp_path, damage):
    monkeypatch.setattr(compiling.store.config, "CACHE_DIR", str(tmp_path))
    made = compiling.Code("name", b"\x7fELF\n1\n2", "", "")
    monkeypatch.setattr(compiling, "compile_for", lambda *key: made)
    key = (9, 0), read, "f4*", (32, 1)
    assert compiling.machine_code(*key) == ("name", made.cubin)
    (file,) = tmp_path.rglob("*.code")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] if damage is None else damage)
    assert compiling.machine_code(*key) == ("name", made.cubin)
    assert file.read_bytes() == whole


def test_constants_are_part_of_what_code_is_kept_under(monkeypatch):
    """Those of modules, of functions that make kernels, and of functions that kernels call."""
    kernels = [loss_sums.partial_sums_kernel().function, pool.variants()[0].function]
    made = [loss_rows.rows_kernel("f4", *team).function for team in loss_rows.TEAMS[:2]]
    before = [compiling.values_of(function) for function in kernels + made]
    assert len(set(before)) == 4
    monkeypatch.setattr(loss_sums, "PER_THREAD", 2)
    after = [compiling.values_of(function) for function in kernels + made]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
