"""The tools of JAX and torch that look at, or follow, what a function computes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import VERSIONS
from samples import SAMPLES
from test_operations import first

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS

needs_jax = pytest.mark.skipif(not VERSIONS["jax"], reason="JAX is not installed")
LOGITS = np.random.default_rng(2).standard_normal((6, 5))
LABELS = np.asarray([0, 1, 2, 3, 0, 4])

# --- JAX -----------------------------------------------------------------------------------------


STRICT = """
    import jax, jax.numpy as jnp
    import numpy as np
    import agnostic_xent as ax
    from agnostic_xent.datasets import load_digits

    assert jax.config.jax_debug_nans and jax.config.jax_numpy_rank_promotion == "raise"
    def check_that_jax_looks():
        try:
            jnp.asarray(float("nan"), dtype="float32")
        except FloatingPointError:
            return
        raise SystemExit("JAX does not look for NaN")

    check_that_jax_looks()
    digits = load_digits()
    x, y = jnp.asarray(digits.train_x[:20]), jnp.asarray(digits.train_y[:20])
    model = ax.Sequential(ax.AvgPool2d(2), ax.BatchNorm2d(), ax.Flatten(), ax.Dense(10))
    params = ax.to_backend(model.init(0, (1, 8, 8))[0], jnp)
    trained, _ = ax.fit(
        model, params, (x, y), loss=ax.cross_entropy, optimizer=ax.AdamW(), epochs=1,
        batch_size=20, rng=0,
    )
    p = ax.softmax(ax.predict(model, trained, x))
    ax.brier_score(p, y), ax.calibration_bins(p, y, bins=1), ax.top_k_accuracy(p, y, 3)
    flat = jnp.reshape(x, (20, 64))
    weighted = ax.LogisticRegression(class_weight="balanced", tol=0.1)
    weighted.fit(flat, y > 4).predict_log_proba(flat)
    ax.categorical_cross_entropy.vjp(p, y), ax.nll_loss.vjp(p - 1, y, reduction="sum")
    ax.linear_cross_entropy.vjp(flat, jnp.ones((10, 64)), y, jnp.zeros(10))
    jax.grad(lambda z: ax.cross_entropy(z, y, ignore_index=0))(p)
    check_that_jax_looks()
"""


@needs_jax
def test_a_training_under_the_strict_settings_of_jax():
    pytest.importorskip("sklearn")
    settings = {"JAX_DEBUG_NANS": "1", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STRICT)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


# --- torch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.extra == ()], ids=lambda s: s.id)
def test_vmap_maps_an_operation(sample):
    torch = pytest.importorskip("torch")
    if sample.operation == "dropout":
        pytest.skip("its mask is drawn on the host")
    arrays = [None if x is None else torch.asarray(np.stack([x, x])) for x in sample.arrays]

    def value(*arrays):
        return first(OPERATIONS[sample.operation](*arrays, **sample.options))

    axes = tuple(None if x is None else 0 for x in arrays)
    expected = value(*[None if x is None else x[0] for x in arrays])
    for part in torch.func.vmap(value, axes)(*arrays):
        torch.testing.assert_close(part, expected)


def exported(torch, loss, *arrays):
    class Module(torch.nn.Module):
        def forward(self, *arrays):
            return loss(*arrays)

    return torch.export.export(Module(), arrays).module()


def traced(torch, loss, *arrays):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(loss, tracing_mode="symbolic")(*arrays)


def faked(torch, loss, *arrays):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        assert loss(*map(mode.from_tensor, arrays)).shape == ()
    assert loss(*[x.to("meta") for x in arrays]).is_meta
    return loss


TOOLS = {
    "compile": lambda torch, loss, *arrays: torch.compile(loss, backend="eager", fullgraph=True),
    "export": exported,
    "make_fx": traced,
    "fake and meta tensors": faked,
    "jacrev": lambda torch, loss, *arrays: (
        lambda z, y: loss(z - torch.func.jacrev(loss)(z, y) + torch.func.grad(loss)(z, y), y)
    ),
    "vmap": lambda torch, loss, *arrays: (
        lambda z, y: torch.mean(torch.func.vmap(lambda z, y: loss(z[None], y[None]))(z, y))
    ),
}
LOSSES = {
    "labels": lambda z, y: ax.cross_entropy(z, y),
    "a check of the divisor": lambda z, y: ax.cross_entropy(
        z, y, ignore_index=-1, on_empty="raise"
    ),
    "two classes": lambda z, y: ax.binary_cross_entropy_with_logits(
        z, z * z, weight=1 + 0 * z, normalize="weight", on_empty="raise"
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_checks_that_cannot_be_asked_are_left_out(tool, loss):
    torch = pytest.importorskip("torch")
    z, y = torch.asarray(LOGITS), torch.asarray(LABELS)
    made = TOOLS[tool](torch, LOSSES[loss], z, y)
    torch.testing.assert_close(made(z, y), LOSSES[loss](z, y))


def test_gradients_of_each_sample():
    torch = pytest.importorskip("torch")
    z, y = torch.asarray(LOGITS), torch.asarray(LABELS)
    found = torch.func.vmap(torch.func.grad(lambda z, y: ax.cross_entropy(z, y)))(z, y)
    expected = 6 * ax.cross_entropy.vjp(z, y)[1](torch.asarray(1.0, dtype=z.dtype))[0]
    torch.testing.assert_close(found, expected)


def test_a_bad_label_is_nan_where_it_cannot_be_asked():
    torch = pytest.importorskip("torch")
    z, y = torch.asarray(LOGITS), torch.asarray(LABELS + np.asarray([0, 9, 0, 0, 0, 0]))
    found = torch.func.vmap(lambda z, y: ax.cross_entropy(z, y))(z, y)
    assert torch.isnan(found).tolist() == [False, True, False, False, False, False]
