"""The CUDA kernels of SGD and AdamW against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import SGD, AdamW, kernels
from agnostic_xent.kernels.cuda import optimizers
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

OPTIMIZERS = [
    SGD(0.1),
    SGD(0.1, weight_decay=0.3),
    SGD(0.1, momentum=0.9, dampening=0.25),
    SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.3, decay_bias=False),
    AdamW(0.1),
    AdamW(0.1, betas=(0.5, 0.75), eps=0.125, weight_decay=0),
]
SHAPES = {"a": (), "b": (1,), "c": (0, 3), "d": (5, 3), "e": (2, 3, 4, 5), "bias": (257,)}
STEPS = 3

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)


def draw(shapes, seed):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}


def cast(arrays, dtype):
    return {name: x.astype(dtype) for name, x in arrays.items()}


def trained(optimizer, mode, shapes, dtype, place=lambda x: x, skip=()):
    """Return parameters and state after some steps; those of ``skip`` miss the first one."""
    params = {name: place(x) for name, x in cast(draw(shapes, 0), dtype).items()}
    state = optimizer.init(params)
    with kernels(mode):
        for step in range(STEPS):
            grads = {name: place(x) for name, x in cast(draw(shapes, step + 1), dtype).items()}
            if step == 0:
                grads = {name: x for name, x in grads.items() if name not in skip}
            params, state = optimizer.update(params, grads, state)
    return params, state


def check(optimizer, shapes, dtype="float32", **options):
    found = trained(optimizer, "require", shapes, dtype, **options)
    expected = trained(optimizer, "portable", shapes, "float64", **options)
    compare(found[0], expected[0], dtype)
    assert found[1].keys() == expected[1].keys()
    for name in found[1].keys() - {"step", "steps"}:
        compare(found[1][name], expected[1][name], dtype)


def compare(found, expected, dtype):
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert x.dtype == dtype
        assert_close(x, expected[name], dtype, terms=10 * STEPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_optimizer
def test_values(optimizer, dtype):
    check(optimizer, SHAPES, dtype)


@each_optimizer
def test_parameters_that_come_later(optimizer):
    check(optimizer, SHAPES, skip=("b", "e"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS[2:5:2], ids=str)
def test_more_parameters_than_a_launch_takes(optimizer):
    check(optimizer, {str(k): (k % 3,) for k in range(optimizers.TOGETHER + 2)})


@pytest.mark.parametrize("optimizer", OPTIMIZERS[2:5:2], ids=str)
def test_more_elements_than_a_block_takes(monkeypatch, optimizer):
    monkeypatch.setattr(optimizers, "PER_THREAD", 1)
    monkeypatch.setattr(optimizers, "BLOCK", optimizers.THREADS)
    optimizers._blocks_of.cache_clear()
    check(optimizer, {"a": (3, 173), "b": (256,), "c": (1,)})
    optimizers._blocks_of.cache_clear()


def test_a_launch_takes_all_parameters(monkeypatch):
    launches = []
    monkeypatch.setattr(optimizers, "kernel", lambda *key: lambda *args: launches.append(key))
    for optimizer in (OPTIMIZERS[2], OPTIMIZERS[4]):
        trained(optimizer, "require", SHAPES, "float32")
    assert len(launches) == 2 * STEPS


def strided(x):
    return np.repeat(x, 2, axis=0)[::2] if x.ndim else x


@pytest.mark.parametrize("place", [np.asfortranarray, strided])
@pytest.mark.parametrize("optimizer", OPTIMIZERS[2:5:2], ids=str)
def test_arrays_lie_anywhere(optimizer, place):
    check(optimizer, SHAPES, place=place)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_nan_and_infinity_and_nothing_is_written_to(optimizer):
    w = {"w": np.array([0, np.inf, np.nan, 1, 1, 1], "float32")}
    g = {"w": np.array([1, 1, 1, -np.inf, np.nan, 0], "float32")}
    for x in (w["w"], g["w"]):
        x.flags.writeable = False
    found, expected = [], []
    for mode, out in (("require", found), ("portable", expected)):
        with kernels(mode):
            out.append(optimizer.update(w, g, optimizer.init(w))[0]["w"])
    assert_close(found[0], expected[0], "float32")


def test_what_is_not_taken():
    x, y = np.zeros(3, "float32"), np.zeros(3, "float64")
    assert optimizers.takes(x, None, x, rate=0.1) is None
    assert "one dtype" in optimizers.takes(x, y)
    assert "float16" in optimizers.takes(x.astype("float16"))
    assert "byte order" in optimizers.takes(x.astype(">f4"))


# --- mistakes are caught --------------------------------------------------------------------------

MISTAKES = {
    "an element too many": ("if i < end:", "if i <= end:", 2),
    "the wrong parameter": ("grads[k]", "grads[0]", 0),
    "the wrong block": ("get(table, row + 1) +", "get(table, row) +", 0),
    "velocity of the first step": ("step if first else", "step if not first else", 2),
    "dampening": ("fresh * step", "step", 2),
    "decay": ("step += decay * old", "step += old", 1),
    "Nesterov": ("momentum * speed if nesterov", "speed if nesterov", 3),
    "square": ("c2 * slope * slope", "c1 * slope * slope", 4),
    "eps inside": ("math.sqrt(square) / root + eps", "math.sqrt(square + eps) / root", 5),
    "the first means": ("if not first:", "if first:", 4),
    "bias of the mean": ("rate / (1 - b1**t)", "rate", 4),
    "parameters past the launch": ("range(0, len(weights), TOGETHER)", "range(1)", 2),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new, number = MISTAKES[mistake]
    plant(monkeypatch, optimizers, old, new)
    with pytest.raises((AssertionError, IndexError, KeyError)):
        check(OPTIMIZERS[number], SHAPES | {str(k): (2,) for k in range(optimizers.TOGETHER)})


def test_variants_are_all_kernels():
    check(OPTIMIZERS[4], SHAPES)
    known = {(k.function.__qualname__, k.parameters) for k in optimizers.variants()}
    ran = {
        (k.function.__qualname__, k.parameters)
        for k in KERNELS
        if k.function.__module__ == optimizers.__name__
    }
    assert ran <= known
