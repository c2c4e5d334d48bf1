"""A kernel that cannot be compiled or loaded leaves its work to the portable definition."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from agnostic_xent import SGD, cross_entropy, explain, kernels, max_pool2d
from agnostic_xent.core import operation
from agnostic_xent.core.conversion import to_numpy
from agnostic_xent.core.operation import NoKernels, load_kernels
from agnostic_xent.kernels.cuda.loss import cross_entropy as host
from agnostic_xent.kernels.cuda.toolchain import compiling, launching
from agnostic_xent.kernels.cuda.toolchain.device import LIBRARY, or_portably, xp


@pytest.fixture(autouse=True)
def as_if_new(monkeypatch):
    """Forget what was set aside, before and after."""
    assert load_kernels(LIBRARY) is None
    monkeypatch.setattr(operation, "SET_ASIDE", set())
    kept = [*operation.OPERATIONS.values(), *operation.ROUTINES.values()]
    for op in kept:
        monkeypatch.setattr(op, "_failures", {})
    yield
    for op in kept:
        op._decisions.clear()
        getattr(op, "_seen", {}).clear()


def failing(monkeypatch, *names):
    """Let the launch of some kernels fail, as where they are not compiled."""

    def launch(kernel, grid, args):
        if not names or kernel.function.__name__ in names:
            raise NoKernels(
                f"the kernel {kernel.function.__name__} cannot be compiled (no libnvvm)"
            )
        launch_it(kernel, grid, args)

    launch_it = launching.launch
    monkeypatch.setattr(launching, "launch", launch)


LOGITS = xp.asarray(np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32))
LABELS = xp.asarray(np.array([0, 4, 2, 2, 1, 3]))


def assert_allclose(found, expected, **tolerance):
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), **tolerance)


@pytest.mark.filterwarnings("ignore:.*runs portably:RuntimeWarning")
@pytest.mark.parametrize("names", [(), ("conclude",), ("multiply",)], ids=str)
def test_loss_and_gradient_are_those_of_the_definition(monkeypatch, names):
    with kernels("portable"):
        expected, pullback = cross_entropy.vjp(LOGITS, LABELS)
        gradient = pullback(expected * 0 + 2)[0]
    failing(monkeypatch, *names)
    (kernel, *_) = operation.OPERATIONS["cross_entropy"]._kernels[LIBRARY]
    anew = or_portably(cross_entropy, host.vjp)  # whose pullback has not run yet
    monkeypatch.setitem(vars(kernel), "vjp", anew)
    for _ in range(2):
        loss, pullback = cross_entropy.vjp(LOGITS, LABELS, wrt=(0,))
        assert_allclose(loss, expected, rtol=1e-6)
        assert_allclose(pullback(expected * 0 + 2)[0], gradient, atol=1e-7)
    assert "no libnvvm" in explain(cross_entropy, LOGITS, LABELS)


def test_one_warning_names_the_operation_and_the_reason(monkeypatch):
    failing(monkeypatch)
    images = xp.ones((1, 1, 4, 4), np.float32)
    with warnings.catch_warnings(record=True, action="always") as seen:
        cross_entropy(LOGITS, LABELS)
        cross_entropy(LOGITS, LABELS)
        max_pool2d(images, 2)
    (only,) = seen
    assert str(only.message) == (
        f"cross_entropy runs portably on {LIBRARY} arrays, which is slower: "
        "the kernel rows cannot be compiled (no libnvvm)"
    )
    assert only.filename == __file__
    assert "the kernel maxima cannot be compiled (no libnvvm)" in explain(max_pool2d, images, 2)


@pytest.mark.filterwarnings("ignore:.*runs portably:RuntimeWarning")
def test_required_kernels_are_missed(monkeypatch):
    failing(monkeypatch)
    with kernels("require"), pytest.raises(RuntimeError, match=r"would run portably.*no libnvvm"):
        cross_entropy(LOGITS, LABELS)


@pytest.mark.filterwarnings("ignore:.*runs portably:RuntimeWarning")
def test_steps_of_optimizers_are_those_of_the_definition(monkeypatch):
    params, grads = {"w": LOGITS}, {"w": LOGITS * 2}
    optimizer = SGD(0.5, momentum=0.9)
    with kernels("portable"):
        expected, _ = optimizer.update(params, grads, optimizer.init(params))
    failing(monkeypatch)
    found, _ = optimizer.update(params, grads, optimizer.init(params))
    assert_allclose(found["w"], expected["w"], rtol=0)


def test_whatever_the_compiler_raises_is_a_reason(monkeypatch):
    def fails(*key):
        raise AttributeError("module 'numpy' has no attribute 'row_stack'\nand more")

    device = SimpleNamespace(compute_capability="90")
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDevice=lambda: 0), Device=lambda number: device
    )
    monkeypatch.setattr(launching, "xp", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(compiling, "machine_code", fails)
    monkeypatch.setattr(launching, "KERNELS", [])
    kernel = launching.Kernel(test_whatever_the_compiler_raises_is_a_reason, "f4*", 32, 1)
    with pytest.raises(NoKernels, match=r"\(AttributeError: module 'numpy' .* 'row_stack'\)$"):
        kernel.loaded()
