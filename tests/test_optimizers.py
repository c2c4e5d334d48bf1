"""Optimizers against torch.optim and their formulas, on every backend."""

from __future__ import annotations

import copy
from itertools import product

import numpy as np
import pytest
from conftest import assert_close

from agnostic_xent import SGD, AdamW, constant, step_decay, to_backend
from agnostic_xent.training.proximal import Proximal

STEPS, SEED = 20, 11
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "scale": ()}

SGDS = [
    {"momentum": momentum, "nesterov": nesterov, "dampening": dampening, "weight_decay": decay}
    for momentum, nesterov, dampening, decay in product(
        (0.0, 0.9), (False, True), (0.0, 0.3), (0.0, 0.1)
    )
    if not nesterov or (momentum and not dampening)
]
ADAMWS = [{}, {"weight_decay": 0.0}, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.5}]
SGDS += [{"weight_decay": 0.1, "decay_bias": False, "momentum": 0.9}]
OPTIMIZERS = [SGD(0.1, **options) for options in SGDS] + [AdamW(0.01, **o) for o in ADAMWS]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)


def start_and_grads(dtype="float64", steps=STEPS):
    rng = np.random.default_rng(SEED)

    def draw():
        return {k: np.asarray(rng.standard_normal(s), dtype) for k, s in SHAPES.items()}

    return draw(), [draw() for _ in range(steps)]


def run(optimizer, params, grads):
    state = optimizer.init(params)
    for g in grads:
        params, state = optimizer.update(params, g, state)
    return params


def by_formula(optimizer, name, w, grads):
    """Follow the docstrings' formulas for one float64 parameter."""
    v = m = 0.0
    decay = optimizer.weight_decay
    if isinstance(optimizer, SGD) and not optimizer.decay_bias and name == "0.bias":
        decay = 0
    for t, g in enumerate(grads, start=1):
        rate = optimizer.learning_rate
        if isinstance(optimizer, AdamW):
            b1, b2 = optimizer.betas
            w = w - rate * optimizer.weight_decay * w
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            w = w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + optimizer.eps)
            continue
        g = g + decay * w
        v = g if t == 1 else optimizer.momentum * v + (1 - optimizer.dampening) * g
        if optimizer.momentum:
            g = g + optimizer.momentum * v if optimizer.nesterov else v
        w = w - rate * g
    return w


@each_optimizer
def test_every_row_follows_the_formulas(row, optimizer):
    for dtype in row.dtypes:
        params, grads = start_and_grads(dtype, steps=8)
        own = {k: row.array(x, dtype) for k, x in params.items()}
        steps = [{k: row.array(x, dtype) for k, x in g.items()} for g in grads]
        trained = row.call(lambda own, steps: run(optimizer, own, steps), own, steps)
        assert trained.keys() == params.keys()
        for name, w in trained.items():
            row.check(w, dtype)
            exact = [g[name].astype("float64") for g in grads]
            expected = by_formula(optimizer, name, params[name].astype("float64"), exact)
            assert_close(w, expected, dtype, STEPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_optimizer
@pytest.mark.parametrize("missing", [{}, {0: "scale", 3: "0.weight", 4: "0.weight", 5: "scale"}])
def test_torch_makes_the_same_steps(optimizer, dtype, missing):
    """Also where a parameter has no gradient in some steps: it keeps its own state and count."""
    torch = pytest.importorskip("torch")
    params, grads = start_and_grads(dtype)
    for step, name in missing.items():
        del grads[step][name]
    leaves = {k: x.requires_grad_() for k, x in to_backend(params, torch).items()}
    options = {k: v for k, v in vars(optimizer).items() if k != "learning_rate"}
    groups = [{"params": [leaf]} for leaf in leaves.values()]
    if not options.pop("decay_bias", True):
        groups[list(leaves).index("0.bias")]["weight_decay"] = 0
    kind = getattr(torch.optim, type(optimizer).__name__)
    theirs = kind(groups, lr=optimizer.learning_rate, **options)
    for g in grads:
        for name, leaf in leaves.items():
            leaf.grad = to_backend(g[name], torch) if name in g else None
        theirs.step()
    for name, w in run(optimizer, params, grads).items():
        assert_close(w, leaves[name].detach(), dtype, STEPS)


@each_optimizer
def test_nothing_is_written_to(optimizer):
    params, grads = start_and_grads()
    for g in (params, *grads):
        for x in g.values():
            x.flags.writeable = False
    first, state = optimizer.update(params, grads[0], optimizer.init(params))
    before = copy.deepcopy((params, grads, first, state))
    optimizer.update(first, grads[1], state)
    assert state["step"] == 1
    np.testing.assert_equal((params, grads, first, state), before)
    again, _ = optimizer.update(params, grads[0], optimizer.init(params))
    np.testing.assert_equal(again, first)


@each_optimizer
def test_a_parameter_without_gradient_stays(optimizer):
    params, grads = start_and_grads()
    del grads[0]["scale"]
    updated, _ = optimizer.update(params, grads[0], optimizer.init(params))
    assert updated.keys() == params.keys()
    assert updated["scale"] == params["scale"]
    assert (updated["0.bias"] != params["0.bias"]).all()


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_schedule_sets_the_rate_of_each_step(kind):
    params, grads = start_and_grads()
    schedule = step_decay(0.1, every=1, factor=0.5)
    optimizer, by_hand = kind(schedule), dict(params)
    state = optimizer.init(params)
    for step, g in enumerate(grads[:3]):
        assert optimizer.rate(step) == schedule(step)
        by_hand, _ = kind(0.1 * 0.5**step).update(by_hand, g, state)
        params, state = optimizer.update(params, g, state)
        np.testing.assert_equal(params, by_hand)


def test_a_proximal_step_brings_weights_nearer_to_0():
    params = {"0.weight": np.asarray([0.5, -0.5, 0.04, -0.04, 0.0]), "0.bias": np.asarray([0.5])}
    optimizer = Proximal(SGD(step_decay(0.5, every=1, factor=0.5)), 0.2)
    grads = {name: np.zeros_like(w) for name, w in params.items()}
    before, state = params, optimizer.init(params)
    params, state = optimizer.update(params, grads, state)  # by 0.1
    np.testing.assert_allclose(params["0.weight"], [0.4, -0.4, 0.0, 0.0, 0.0])
    params, state = optimizer.update(params, grads, state)  # by 0.05
    np.testing.assert_allclose(params["0.weight"], [0.35, -0.35, 0.0, 0.0, 0.0])
    assert params["0.bias"] == before["0.bias"] == 0.5
    assert state["step"] == 2


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SGD(-0.1), r"learning_rate .* -0.1"),
        (lambda: SGD("fast"), r"learning_rate .* 'fast'"),
        (lambda: SGD(float("nan")), r"learning_rate .* nan"),
        (lambda: SGD(0.1, momentum=-1), r"momentum .* -1"),
        (lambda: SGD(0.1, momentum=constant(0.9)), r"momentum .*constant\(rate=0.9\)"),
        (lambda: SGD(0.1, weight_decay=None), r"weight_decay .* None"),
        (lambda: SGD(0.1, dampening=-0.5), r"dampening .* -0.5"),
        (lambda: SGD(0.1, nesterov=True), r"nesterov needs momentum"),
        (lambda: SGD(0.1, 0.9, nesterov=True, dampening=0.1), r"nesterov .* dampening=0.1"),
        (lambda: AdamW(-1.0), r"learning_rate .* -1.0"),
        (lambda: AdamW(eps=-1e-8), r"eps .* -1e-08"),
        (lambda: AdamW(weight_decay=-0.1), r"weight_decay .* -0.1"),
        (lambda: AdamW(betas=(0.9, 1.0)), r"betas .*\(0.9, 1.0\)"),
        (lambda: AdamW(betas=(-0.1, 0.9)), r"betas .*\(-0.1, 0.9\)"),
        (lambda: AdamW(betas=(0.9,)), r"betas .*\(0.9,\)"),
        (lambda: AdamW(betas=0.9), r"betas .* 0.9"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("optimizer", [SGD(0.1), AdamW()], ids=str)
def test_a_gradient_of_no_parameter_is_an_error(optimizer):
    params, grads = start_and_grads()
    with pytest.raises(ValueError, match=r"grads has no parameter for 1.weight"):
        optimizer.update(params, grads[0] | {"1.weight": params["scale"]}, optimizer.init(params))
