"""Library, device and dtype: checks of arguments, and conversion."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import agnostic_xent as ax
from agnostic_xent.core.arrays import is_traced, library
from agnostic_xent.core.checks import generator, namespace
from agnostic_xent.core.conversion import backend


def test_to_numpy_and_back(row):
    values = np.arange(6.0).reshape(2, 3)
    for dtype in row.dtypes:
        x = row.array(values, dtype)
        back = ax.to_numpy(x)
        assert type(back) in (np.ndarray, np.memmap)
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, values)
        moved = ax.to_backend({"a": {"b": x}}, row.xp, row.place())["a"]["b"]
        row.check(moved, dtype)
        np.testing.assert_array_equal(ax.to_numpy(moved), values)


def test_to_backend_shares_no_memory(row):
    source = np.zeros(3, dtype="float32")
    moved = ax.to_backend(source, row.xp, row.place())
    source[:] = 1
    assert ax.to_numpy(moved).tolist() == [0, 0, 0]


def test_to_backend_takes_a_library_by_its_own_module():
    torch = pytest.importorskip("torch")
    moved = ax.to_backend(np.ones(2, dtype="float32"), torch)
    assert isinstance(moved, torch.Tensor)
    moved.requires_grad_()
    assert ax.to_numpy(moved).tolist() == [1, 1]


def test_to_backend_does_not_lose_digits_silently():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(TypeError, match="jax_enable_x64"):
            ax.to_backend(np.ones(2), jax.numpy)
    finally:
        jax.config.update("jax_enable_x64", True)  # as conftest.py has set it


@pytest.mark.parametrize("bad", [[1.0], 1.0, "x", None.__class__])
def test_what_is_no_array_is_named(bad):
    with pytest.raises(TypeError, match=r"x must be an array .*got"):
        ax.relu(bad)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_what_is_no_float_is_named(row, dtype):
    x = row.array(np.ones(2, dtype=dtype))
    with pytest.raises(TypeError, match=rf"x must have a real floating dtype.*got .*{dtype}"):
        ax.relu(x)


def test_mixed_libraries_are_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"w is an array of torch but x is one of numpy.*to_backend"
    ):
        ax.dense(np.ones((1, 2)), torch.ones((3, 2), dtype=torch.float64))


def test_mixed_devices_are_named():
    strict = pytest.importorskip("array_api_strict")
    x = strict.ones((1, 2), device=strict.Device("device1"))
    with pytest.raises(ValueError, match=r"w is on device .*CPU.* but x is on .*device1"):
        ax.dense(x, strict.ones((3, 2)))


def test_mixed_dtypes_are_named():
    with pytest.raises(TypeError, match="w has dtype float64 but x has float32"):
        ax.dense(np.ones((1, 2), dtype="float32"), np.ones((3, 2)))


def test_library_of_subclasses(tmp_path):
    class Mine(np.ndarray):
        pass

    file = np.memmap(tmp_path / "x", dtype="float32", mode="w+", shape=(2,))
    assert library(file) == library(np.ones(2).view(Mine)) == "numpy"


def test_tracers_are_known():
    jax = pytest.importorskip("jax")
    seen = []

    def look(x):
        seen.append((is_traced(x), library(x)))
        return x

    look(jax.jit(look)(jax.numpy.ones(2)))
    assert seen == [(True, "jax"), (False, "jax")]


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(ValueError, match="backend must be one of numpy, cupy, torch, jax"):
        backend("tensorflow")


def test_a_missing_backend_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch installs it"):
        backend("torch")


def test_cupy_without_a_gpu_says_so(monkeypatch):
    def count():
        raise RuntimeError("cudaErrorNoDevice")

    runtime = types.SimpleNamespace(getDeviceCount=count)
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for ask in (lambda: backend("cupy"), lambda: ax.to_backend({"w": np.ones(1)}, cupy)):
        with pytest.raises(OSError, match=r"there is no GPU that it can use \(cudaErrorNoDevice"):
            ask()


@pytest.mark.parametrize("bad", ["seed", -1, 1.5, object()])
def test_a_wrong_rng_is_an_error(bad):
    with pytest.raises(TypeError, match="rng must be an integer >= 0"):
        generator(bad)


def test_namespace_passes_over_none():
    assert namespace(x=np.ones(1), b=None) is backend("numpy")


def imported_by(program: str) -> set[str]:
    code = f"{program}\nimport sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split()) & {
        "numpy", "cupy", "torch", "jax", "dask", "numba", "scipy", "sklearn", "matplotlib",
    }  # fmt: skip


def test_importing_the_package_loads_no_array_library():
    assert imported_by("import agnostic_xent") == set()
    assert imported_by("import numpy, agnostic_xent") == {"numpy"}


def test_an_operation_loads_only_the_library_of_its_arrays():
    torch_free = imported_by(
        "import numpy, agnostic_xent as ax; ax.relu(numpy.ones(2)); "
        "ax.cross_entropy(numpy.ones((2, 3)), numpy.asarray([0, 1]))"
    )
    assert torch_free <= {"numpy", "numba", "scipy"}  # Numba looks for SciPy's BLAS
