"""The CPU kernels of SGD and AdamW: the bits of the portable definitions, in one pass."""

from __future__ import annotations

import numpy as np
import pytest
from test_optimizers import OPTIMIZERS

from agnostic_xent import SGD, AdamW, kernels

numba = pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.simd.elements import FEW  # noqa: E402

SEED, STEPS = 7, 3
SHAPES = {"0": (), "1": (1,), "2": (5, 3), "3": (2, 3, 4, 5), "4": (1031,), "5": (0, 3)}
BIG = {"big": (FEW + 12345,), "edge": (FEW,)}

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(rng, shapes, dtype):
    return {k: np.asarray(rng.standard_normal(s), dtype) for k, s in shapes.items()}


def run(optimizer, mode, shapes, dtype, change=lambda arrays, step: arrays):
    """Return parameters and state after a few steps; ``change`` spoils what goes in."""
    rng = np.random.default_rng(SEED)
    params = change(draw(rng, shapes, dtype), 0)
    state = optimizer.init(params)
    with kernels(mode):
        for step in range(STEPS):
            grads = change(draw(rng, shapes, dtype), step + 1)
            params, state = optimizer.update(params, grads, state)
    return params, state


def agree(optimizer, shapes, dtype, change=lambda arrays, step: arrays):
    found = run(optimizer, "require", shapes, dtype, change)
    np.testing.assert_equal(found, run(optimizer, "portable", shapes, dtype, change))
    assert {x.dtype for x in found[0].values()} == {np.dtype(dtype)}


@each_dtype
@each_optimizer
def test_shapes(optimizer, dtype):
    agree(optimizer, SHAPES, dtype)


@each_dtype
@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, 0.9), AdamW()], ids=str)
def test_on_all_threads(optimizer, dtype):
    agree(optimizer, BIG, dtype)


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), AdamW()], ids=str)
def test_the_same_bits_for_any_number_of_threads(optimizer):
    found, threads = [], numba.get_num_threads()
    try:
        for n in {1, min(2, threads), threads}:
            numba.set_num_threads(n)
            found.append(run(optimizer, "require", BIG, "float32")[0]["big"].tobytes())
    finally:
        numba.set_num_threads(threads)
    assert len(set(found)) == 1


def transposed(arrays, step):
    return {k: np.asarray(x.T, order="F").T if x.ndim > 1 else x for k, x in arrays.items()}


def strided(arrays, step):
    return {k: np.repeat(x, 2, axis=0)[::2] if x.ndim else x for k, x in arrays.items()}


def backwards(arrays, step):
    return {k: x[::-1] if x.ndim else x for k, x in arrays.items()}


def readonly(arrays, step):
    for x in arrays.values():
        x.flags.writeable = False
    return arrays


def sometimes_missing(arrays, step):
    return {k: x for k, x in arrays.items() if k != "2" or step != 2}


def late(arrays, step):
    """Give one parameter its first gradient when others have their second."""
    return {k: x for k, x in arrays.items() if k != "3" or step != 1}


def special(arrays, step):
    x = arrays["4"]
    x[step : 9 * step : 3] = np.inf
    x[step + 100 :: 97] = -np.inf
    x[step + 200 :: 89] = np.nan
    x[step + 300 :: 7] = 0
    x[step + 301 :: 7] = -0.0
    x[step + 302 :: 7] = np.finfo(x.dtype).max
    x[step + 303 :: 7] = np.finfo(x.dtype).smallest_subnormal
    return arrays


@pytest.mark.parametrize(
    "change",
    [transposed, strided, backwards, readonly, sometimes_missing, late, special],
    ids=lambda change: change.__name__,
)
@each_optimizer
def test_arrays_as_they_come(optimizer, change):
    agree(optimizer, SHAPES, "float32", change)


@each_optimizer
def test_what_comes_out_is_new(optimizer):
    rng = np.random.default_rng(SEED)
    params, grads = draw(rng, SHAPES | BIG, "float32"), draw(rng, SHAPES | BIG, "float32")
    state, given = optimizer.init(params), [*params.values(), *grads.values()]
    before = [x.copy() for x in given]
    for _ in range(2):
        params, state = optimizer.update(params, grads, state)
        made = [*params.values()]
        for part in state.values():
            made += part.values() if isinstance(part, dict) else []
        made = [x for x in made if isinstance(x, np.ndarray)]
        for i, x in enumerate(made):
            assert not any(np.shares_memory(x, other) for other in given + made[:i])
        given += made
        before += [x.copy() for x in made]
    for x, kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(x, kept)


class Own(np.ndarray):
    pass


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), AdamW()], ids=str)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.astype("float16"), "float32 and float64 in native byte order, not <f2"),
        (lambda x: x.astype(">f4"), "native byte order, not >f4"),
        (lambda x: x.view(Own), "numpy.ndarray, not Own"),
    ],
)
def test_what_is_declined(optimizer, change, reason):
    params = {"w": change(np.ones(3, "float32"))}
    with kernels("require"), pytest.raises(RuntimeError, match=reason):
        optimizer.update(params, params, optimizer.init(params))
    updated, _ = optimizer.update(params, params, optimizer.init(params))
    assert (updated["w"] < 1).all()


def test_parameters_of_two_dtypes_run_portably():
    params = {"a": np.ones(3, "float32"), "b": np.ones(3)}
    updated, _ = SGD(0.5).update(params, params, SGD(0.5).init(params))
    assert {k: str(x.dtype) for k, x in updated.items()} == {"a": "float32", "b": "float64"}
    assert updated["b"].tolist() == [0.5] * 3


def test_no_gradients_at_all():
    params = {"w": np.ones(3, "float32")}
    for optimizer in (SGD(0.1, 0.9), AdamW()):
        updated, state = optimizer.update(params, {}, optimizer.init(params))
        assert updated["w"] is params["w"]
        assert state["step"] == 1
