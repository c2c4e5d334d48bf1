"""The CUDA kernels without a GPU, as machine code; and what is said where they cannot run."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from conftest import PRESENT

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS, ROUTINES
from tests.ptx.text import parse
from tests.ptx.translation import translate

TESTS = Path(__file__).parent
SOURCES = Path(ax.__file__).parent / "kernels" / "cuda"
H100, OTHERS = (9, 0), ((8, 0), (10, 0))  # A100, B200
EVERY_CAPABILITY = bool(os.environ.get("AGNOSTIC_XENT_TEST_EVERY_CAPABILITY"))
"""Whether all modules are compiled for all of them, which takes minutes; else each for two."""
REGISTERS = 65536  # of a multiprocessor
CLEAN = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"


def modules_with(pattern: str) -> list[str]:
    """Return the modules of the kernels, by dotted names, whose text has a pattern in it."""
    return sorted(
        ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for path in SOURCES.rglob("*.py")
        if re.search(pattern, path.read_text())
    )


WITH_KERNELS = modules_with(r"def variants\(\)")


def run(program: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program], env=os.environ | environment, capture_output=True, text=True
    )


def cuda(module: str = ""):
    """Return a module of the kernels; skip where they cannot be compiled, with the reason."""
    pytest.importorskip("cuda.bindings.nvjitlink")
    name = f"agnostic_xent.kernels.cuda{module and '.'}{module}"
    return pytest.importorskip(name, exc_type=ImportError)


def compiled(kernel, capability=(9, 0)):
    """Return what a kernel is compiled to; the tests of its PTX find it then."""
    from tests.ptx import compiled

    bounds = kernel.threads, kernel.blocks
    return compiled.compiled(capability, kernel.function, kernel.parameters, bounds)


@pytest.mark.gpu
def test_on_the_gpu():
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no GPU is here")
    done = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "cuda")],
        NUMBA_ENABLE_CUDASIM="0", AGNOSTIC_XENT_TEST_GPU="1", AGNOSTIC_XENT_TEST_BACKENDS="",
        PYTEST_ADDOPTS="",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert re.search(r"\d+ passed", done.stdout.splitlines()[-1])


CAPABILITIES = {
    module: (H100, *(OTHERS if EVERY_CAPABILITY else OTHERS[number % 2 :][:1]))
    for number, module in enumerate(WITH_KERNELS)
}


@pytest.mark.parametrize("module", WITH_KERNELS)
def test_machine_code(module):
    """No kernel keeps anything on a stack, and as many blocks fit as it promises."""
    kernels = cuda(module).variants()
    assert kernels
    for kernel, capability in itertools.product(kernels, CAPABILITIES[module]):
        report = compiled(kernel, capability).report
        assert CLEAN in report, f"{kernel} on {capability}: {report}"
        (registers,) = re.findall(r"Used (\d+) registers", report)
        allocated = -(-int(registers) // 8) * 8 * kernel.threads * kernel.blocks
        assert allocated <= REGISTERS, f"{kernel} on {capability}: {report}"


@pytest.mark.parametrize("capability", OTHERS)
def test_what_is_compiled_for_several_at_once_is_as_if_alone(capability):
    """What the assembler says is, of a kernel whose code differs between GPUs."""
    kernel = cuda("loss.soft_targets").variants()[0]
    from tests.ptx.compiled import code_for, compiling

    key = kernel.function, kernel.parameters, (kernel.threads, kernel.blocks)
    _, after = (code_for(c, *key) for c in (H100, capability))
    alone = compiling.compile_for(capability, *key)
    after, alone = (re.findall("Used .*|.*spill.*", code.report) for code in (after, alone))
    assert len(after) == 2
    assert after == alone


@pytest.mark.parametrize("module", WITH_KERNELS)
def test_the_executor_knows_all_instructions(module):
    for kernel in cuda(module).variants():
        llvm.parse_assembly(translate(parse(compiled(kernel).ptx))).verify()


WITHOUT_ROW_STACK = """
import numpy as np
vars(np).pop("row_stack", None)  # as NumPy 2.5 does
from agnostic_xent.kernels.cuda import optimizers
from agnostic_xent.kernels.cuda.toolchain import compiling
kernel = optimizers.variants()[0]
bounds = kernel.threads, kernel.blocks
code = compiling.compile_for((9, 0), kernel.function, kernel.parameters, bounds)
print(len(code.cubin) > 0, "row_stack" in vars(np))
"""


def test_numpy_without_row_stack():
    """Which numba-cuda 0.30 asks for, once, as its compiler loads: in a process of its own."""
    cuda()
    done = run(["-c", WITHOUT_ROW_STACK], PYTHONPATH=str(TESTS.parent))
    assert (done.stdout, done.stderr) == ("True False\n", "")


INSTRUCTIONS = {  # 16 bytes at a time, in the one read and the one write of a row
    ("loss.rows", "rows_128_16", "f4"): {r"ld\.global\.v4\.f32": 4, r"st\.global\.v4\.f32": 4},
    ("loss.rows", "rows_128_16", "f8"): {r"ld\.global\.v2\.f64": 8, r"st\.global\.v2\.f64": 8},
    ("loss.rows", "rows_128_16", "f2"): {r"ld\.global\.v4\.b32": 2, r"st\.global\.v4\.u16": 4},
}
"""Of the losses; those of the convolutions are in test_cuda_convolution.py."""


@pytest.mark.parametrize(("module", "name", "code"), INSTRUCTIONS)
def test_instructions(module, name, code):
    (kernel,) = (
        k
        for k in cuda(module).variants()
        if k.function.__qualname__ == name and k.parameters.startswith(f"{code}*")
    )
    ptx = compiled(kernel).ptx
    for instruction, least in INSTRUCTIONS[module, name, code].items():
        assert len(re.findall(instruction, ptx)) >= least, instruction


def test_every_kernel_is_among_the_variants():
    """A module that makes kernels tells which, or the checks of machine code pass it by."""
    making = modules_with(r"[^`\w]Kernel\(")
    assert {*making} - {"toolchain.launching"} == {*WITH_KERNELS}


def test_no_two_kernels_share_a_name():
    """Compiled code is kept by it."""
    kernels = [kernel for module in WITH_KERNELS for kernel in cuda(module).variants()]
    store = cuda("toolchain.compiling").store
    names = {store.file_name(k.function, k.parameters, (k.threads, k.blocks)) for k in kernels}
    assert len(names) == len(kernels)


def test_the_floors_know_every_kernel_that_is_launched(tmp_path):
    """Where the benchmark notes the launches of its problems."""
    cuda()
    done = run(
        ["-m", "benchmarks", "gpu_code", "--inner", str(tmp_path / "found.json")],
        NUMBA_ENABLE_CUDASIM="1", PYTHONPATH=str(TESTS.parent),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    launched = {tuple(launch) for p in found["problems"] for launch in p["launches"]}
    known = {
        (module, k.function.__qualname__, k.parameters)
        for module in WITH_KERNELS
        for k in cuda(module).variants()
    }
    assert launched <= known
    assert all(p["bytes"] > 0 and p["operations"] > 0 for p in found["problems"])
    ran = {p["problem"].partition(" ")[0].rstrip(",") for p in found["problems"]}
    registered = {name for name, op in OPERATIONS.items() if op._kernels.get("cupy")}
    assert registered <= ran


def test_value_and_pullback_run_on_the_device_of_the_arrays(monkeypatch):
    device = cuda("toolchain.device")
    entered = []

    class Somewhere:
        """An array, and the device where it lies."""

        device = property(lambda self: self)

        def __enter__(self):
            entered.append(self)

        def __exit__(self, *error):
            entered.pop()

    x, dy = Somewhere(), Somewhere()

    @device.on_its_device
    def vjp(w, lists, *, wrt):
        assert entered == [x]

        def pullback(dy):
            assert entered == [dy]
            return (w,)

        return x, pullback

    monkeypatch.setattr(device, "DEVICES", 2)
    monkeypatch.setattr(device, "is_array", lambda a: isinstance(a, Somewhere))
    value, pullback = vjp(None, [None, x], wrt=frozenset())
    assert (value, pullback(dy)) == (x, (None,))
    assert entered == []


def test_a_single_device_is_not_looked_for(monkeypatch):
    device = cuda("toolchain.device")
    monkeypatch.setattr(device, "DEVICES", 1)
    assert device.on_its_device(abs)(-2) == 2


def test_every_operation_is_registered_so():
    cuda()
    for operation in (OPERATIONS | ROUTINES).values():
        for kernel in operation._kernels.get("cupy", ()):
            assert kernel.name == "CUDA"
            assert kernel.value.__qualname__ == kernel.value.__wrapped__.__qualname__


def test_the_page_names_kernels_that_there_are():
    cuda()
    page = (TESTS.parent / "docs" / "gpu.md").read_text()
    rows = re.findall(r"^\| (.*?) \| kernels", page, re.M)
    listed = set(re.findall(r"`(\w+)`", " ".join(rows)))
    registered = {name for name, op in OPERATIONS.items() if op._kernels.get("cupy")}
    assert listed - {"SGD", "AdamW"} <= registered
    assert {"conv2d", "cross_entropy"} <= listed


# --- where they cannot run -----------------------------------------------------------------------

MISSING = """
import sys, types
import numpy as np
import agnostic_xent as ax
from agnostic_xent.core.operation import KERNEL_PACKAGES

def library(hip=False, capability="90"):
    runtime = types.SimpleNamespace(is_hip=hip, getDeviceCount=lambda: 1, CUDARuntimeError=OSError)
    device = types.SimpleNamespace(id=0, compute_capability=capability)
    cuda = types.SimpleNamespace(runtime=runtime, Device=lambda number: device)
    return types.SimpleNamespace(cuda=cuda, ndarray=type("ndarray", (), {}))

sys.modules["numba_cuda"] = types.SimpleNamespace(__spec__="a specification")
sys.modules["cupy"] = library()
MISSING
KERNEL_PACKAGES["numpy"] = KERNEL_PACKAGES["cupy"]  # NumPy's arrays stand for those on a GPU
print(ax.explain(ax.relu, np.ones(1)))
print(ax.relu(np.asarray([-1.0, 2.0])).tolist())
"""
REASONS = {
    'sys.modules["numba_cuda"] = None': "the kernels need numba-cuda, which is not installed",
    'sys.modules["cupy"] = None': "the kernels need CuPy, which cannot be imported",
    'sys.modules["cupy"] = library(hip=True)': "this CuPy is built for ROCm",
    'sys.modules["cupy"] = library(capability="75")': "need compute capability 8.0, ",
}


@pytest.mark.parametrize("missing", REASONS)
def test_without_kernels_calls_run_portably_and_say_why(missing):
    done = run(["-c", MISSING.replace("\nMISSING\n", f"\n{missing}\n")], NUMBA_ENABLE_CUDASIM="0")
    assert done.returncode == 0, done.stderr
    explained, value = done.stdout.splitlines()
    assert explained.startswith("relu: portable (")
    assert REASONS[missing] in explained
    assert value == "[0.0, 2.0]"


ENTRIES = """
import cupy, numpy
import agnostic_xent as ax
from agnostic_xent.core.conversion import backend

for enter in (lambda: backend("cupy"), lambda: ax.to_backend(numpy.ones(1), cupy)):
    try:
        enter()
    except OSError as error:
        print(error)
print(ax.info()["backends"]["cupy"])
"""


def test_cupy_without_a_gpu_says_so_at_every_entry():
    """With the real CuPy, of which nothing is imitated."""
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.is_available():
        pytest.skip("a GPU is here")
    done = run(["-c", ENTRIES])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for command in ("train", "warmup"):
        done = run(["-m", "agnostic_xent", command, "--backend", "cupy"])
        assert done.returncode == 2
        lines += done.stderr.splitlines()
    assert len(lines) == 5
    assert all("there is no GPU that it can use (cudaError" in line for line in lines)


def test_what_needs_a_gpu_is_counted_as_skipped():
    """Also where a run names its rows, as that of CI does."""
    if any(pytest.mark.gpu in row.marks for row in PRESENT):
        pytest.skip("a GPU is here")
    tests = ["-k", "no_float", str(TESTS / "test_arrays.py")]
    done = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        AGNOSTIC_XENT_TEST_BACKENDS="numpy", PYTEST_ADDOPTS="",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = re.findall(r"need a GPU: 0 passed, 0 failed, (\d+) skipped", done.stdout)
    assert len(found) == 1
    assert int(found[0]) > 0


# --- the command for a GPU -----------------------------------------------------------------------


def run_gpu_sh(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(TESTS.parent / "ci" / "gpu.sh"), *arguments]
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_rehearsal_of_the_command_for_a_gpu(tmp_path):
    pytest.importorskip("numba_cuda")
    pytest.importorskip("greenlet")
    done = run_gpu_sh("--rehearse", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("rehearsal: all passed")
    assert sorted(os.listdir(tmp_path)) == [
        "gpu_rehearsal.json", "gpu_rehearsal.md", "logs.tar.gz", "summary.txt"
    ]  # fmt: skip
    written = json.loads((tmp_path / "gpu_rehearsal.json").read_text())
    assert {"ceilings", "losses", "convolutions", "steps", "memory"} < written.keys()
    assert written["steps"][0]["captured"].keys() == {"on the GPU", "host"}
    assert "no number here says anything" in (tmp_path / "gpu_rehearsal.md").read_text()


def test_parts_of_the_command_for_a_gpu(tmp_path):
    pytest.importorskip("numba_cuda")
    done = run_gpu_sh("--rehearse", "--only", "machine", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall("== (\\w+): status", (tmp_path / "summary.txt").read_text()) == ["machine"]


def test_the_command_for_a_gpu_says_that_there_is_none(tmp_path):
    if any(pytest.mark.gpu in row.marks for row in PRESENT):
        pytest.skip("a GPU is here")
    done = run_gpu_sh(str(tmp_path))
    assert done.returncode == 1
    assert re.match("FAILED: .*(no GPU|not installed).*; --rehearse needs no GPU", done.stderr)
    assert not any(tmp_path.iterdir())
