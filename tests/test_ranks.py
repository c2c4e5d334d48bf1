"""Signals and volumes: operations of every rank against torch's, and what is done with them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import agnostic_xent as ax
from agnostic_xent import (
    AvgPool1d,
    BatchNorm1d,
    BatchNorm3d,
    Conv1d,
    Conv3d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    MaxPool1d,
    MaxPool3d,
    ReLU,
    Residual,
    Sequential,
)

MOST = {1: 40, 2: 12, 3: 7}
"""The longest axis that is drawn, by rank."""
each_mode = pytest.mark.parametrize("mode", ["portable", "auto"])


def drawn(rng, rank, least, most):
    return tuple(rng.integers(least, most + 1, rank).tolist())


def convolution(rng, rank):
    """Return arrays and options of a convolution that torch does, too."""
    window, dilation = drawn(rng, rank, 1, 4), drawn(rng, rank, 1, 2)
    options = {"stride": drawn(rng, rank, 1, 3), "padding": drawn(rng, rank, 0, 2)}
    size = [
        max(n, d * (k - 1) + 1)
        for n, k, d in zip(drawn(rng, rank, 1, MOST[rank]), window, dilation, strict=True)
    ]
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, filters = drawn(rng, 2, 1, 4)
    x = rng.standard_normal((int(rng.integers(1, 4)), groups * channels, *size))
    w = rng.standard_normal((groups * filters, channels, *window))
    b = rng.standard_normal(groups * filters) if rng.random() < 0.5 else None
    return (x, w, b), options | {"dilation": dilation, "groups": groups}


def pool(rng, rank, name):
    """Return an array, a window and options of a pool that torch does, too."""
    window = drawn(rng, rank, 1, 4)
    options = {
        "stride": drawn(rng, rank, 1, 3),
        "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in window),
        "ceil_mode": bool(rng.integers(2)),
    }
    if name == "avg":
        options["count_include_pad"] = bool(rng.integers(2))
    x = rng.standard_normal((*drawn(rng, 2, 1, 4), *drawn(rng, rank, 4, MOST[rank])))
    return (x,), (window,), options


def check(name, arrays, extra, options, dtype):
    """Compare value and gradients, in both modes, with those of torch in float64."""
    torch = pytest.importorskip("torch")
    arrays = [None if a is None else a.astype(dtype) for a in arrays]
    leaves = [
        None if a is None else torch.asarray(a.astype("float64")).requires_grad_() for a in arrays
    ]
    expected = getattr(torch.nn.functional, name)(*leaves, *extra, **options)
    dy = np.random.default_rng(0).standard_normal(tuple(expected.shape)).astype(dtype)
    expected.backward(torch.asarray(dy.astype("float64")))
    for mode in ("portable", "auto"):
        with ax.kernels(mode):
            y, pullback = getattr(ax, name).vjp(*arrays, *extra, **options)
            gradients = pullback(dy)
            assert_close(
                getattr(ax, name)(*arrays, *extra, **options), expected.detach(), dtype, 64
            )
        assert_close(y, expected.detach(), dtype, 64)
        for gradient, leaf in zip(gradients, leaves, strict=True):
            assert (gradient is None) == (leaf is None)
            if leaf is not None:
                assert gradient.dtype == dtype
                assert_close(gradient, leaf.grad, dtype, 400)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([1, 3]), st.sampled_from(["float32", "float64"]))
def test_convolutions_are_torchs(seed, rank, dtype):
    arrays, options = convolution(np.random.default_rng(seed), rank)
    check(f"conv{rank}d", arrays, (), options, dtype)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["max_pool1d", "avg_pool1d", "max_pool3d", "avg_pool3d"]),
    st.sampled_from(["float32", "float64"]),
)
def test_pools_are_torchs(seed, name, dtype):
    rank = int(name[-2])
    check(name, *pool(np.random.default_rng(seed), rank, name[:3]), dtype)


# --- one definition ------------------------------------------------------------------------------

IDLE = {  # windows along which two axes side by side do nothing: window, stride, padding
    "row": ((1, 1, 3), (1, 1, 2), (0, 0, 1)),
    "depth": ((3, 1, 1), (2, 1, 1), (1, 0, 0)),
    "point": ((1, 1, 1), 1, 0),
    "every other point": ((1, 1, 1), 2, 0),
    "plane": ((1, 3, 3), 1, ((0, 0), (1, 0), (0, 2))),
}


@pytest.mark.parametrize("name", IDLE)
def test_windows_over_some_axes_of_volumes(name):
    window, stride, padding = IDLE[name]
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape) for shape in [(2, 4, 5, 6, 7), (6, 2, *window), (6,)]]
    options = {"stride": stride, "padding": padding, "groups": 2, "activation": "relu"}
    found = {}
    for mode in ("portable", "auto"):
        with ax.kernels(mode):
            y, pullback = ax.conv3d.vjp(*arrays, **options)
            dy = np.random.default_rng(4).standard_normal(y.shape)
            found[mode] = y, *pullback(dy), ax.conv3d(*arrays, **options)
    for one, other in zip(found["portable"], found["auto"], strict=True):
        assert_close(one, other, "float64", 64)


@each_mode
def test_a_signal_is_an_image_of_one_row_and_a_volume_of_one_plane_an_image(mode):
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 3, 14)), rng.standard_normal((4, 3, 5))
    with ax.kernels(mode):
        row = ax.conv2d(x[:, :, None], w[:, :, None], stride=(1, 2), padding=(0, 2))
        plane = ax.conv3d(
            x[:, :, None, None], w[:, :, None, None], stride=(1, 1, 2), padding=(0, 0, 2)
        )
        y = ax.conv1d(x, w, stride=2, padding=2)
    assert_close(y, row[:, :, 0], "float64", 16)
    assert_close(y, plane[:, :, 0, 0], "float64", 16)


def test_the_first_maximum_of_a_volume_has_the_gradient():
    x = np.zeros((1, 1, 2, 2, 2))
    x[0, 0, 1, 0, 1] = x[0, 0, 0, 1, 1] = 1.0
    for mode in ("portable", "auto"):
        with ax.kernels(mode):
            (dx,) = ax.max_pool3d.vjp(x, 2)[1](np.ones((1, 1, 1, 1, 1)))
        assert np.flatnonzero(dx).tolist() == [3]  # row-major: depth 0 before depth 1


def test_explain_names_the_kernels():
    x, w = np.ones((2, 8, 64), "float32"), np.ones((8, 8, 3), "float32")
    assert re.fullmatch(r"conv1d: Numba, .*it takes these arguments\)", ax.explain(ax.conv1d, x, w))
    x, w = np.ones((1, 8, 4, 8, 8), "float32"), np.ones((8, 8, 3, 3, 3), "float32")
    assert "of planes" in ax.explain(ax.conv3d, x, w)
    assert "of planes" not in ax.explain(ax.conv3d, x, w[:, :, :1, :1])
    assert "portable" in ax.explain(ax.conv3d, x.astype("float16"), w.astype("float16"))


# --- activations of other kinds ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "silu", "gelu", "gelu tanh"])
def test_activations_have_limits_at_infinities_and_keep_nan(name):
    operation, _, approximate = name.partition(" ")
    options = {"approximate": approximate} if approximate else {}
    x = np.asarray([-np.inf, -1e30, np.nan, 1e30, np.inf])
    y, pullback = getattr(ax, operation).vjp(x, **options)
    (dx,) = pullback(np.ones_like(x))
    low, high = (-1, 1) if name == "tanh" else (0, np.inf)
    big = 1 if name == "tanh" else 1e30
    np.testing.assert_array_equal(y, [low, low, np.nan, big, high])
    np.testing.assert_array_equal(dx, [0, 0, np.nan, name != "tanh", name != "tanh"])


def test_gelu_is_right_relative_to_itself_far_below_zero():
    mpmath = pytest.importorskip("mpmath")
    x = np.linspace(-30, 6, 73)
    expected = [float(v * mpmath.ncdf(v)) for v in map(mpmath.mpf, x.tolist())]
    np.testing.assert_allclose(ax.gelu(x), expected, rtol=1e-12)


# --- models --------------------------------------------------------------------------------------

MODELS = {
    "signals": (
        Sequential(
            Conv1d(8, 5, stride=2, padding="same", bias=False),
            BatchNorm1d(),
            ReLU(),
            MaxPool1d(2),
            Residual(Sequential(Conv1d(8, 3, padding=1), BatchNorm1d())),
            ReLU(),
            AvgPool1d(2),
            Dropout(),
            GlobalAvgPool(),
            Dense(3),
        ),
        (2, 32),
    ),
    "volumes": (
        Sequential(
            Conv3d(4, 3, padding=1, bias=False),
            BatchNorm3d(),
            ReLU(),
            MaxPool3d((1, 2, 2)),
            Conv3d(6, (3, 1, 1)),
            ReLU(),
            Flatten(),
            Dense(3),
        ),
        (2, 4, 6, 6),
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def problem(name, samples=5):
    model, shape = MODELS[name]
    rng = np.random.default_rng(7)
    params = {
        k: np.abs(v + 0.2 * rng.standard_normal(v.shape)).astype("float32") if v.ndim == 1 else v
        for k, v in model.init(rng, shape)[0].items()
    }
    return model, params, rng.standard_normal((samples, *shape)).astype("float32")


@each_model
def test_a_relu_runs_inside_the_layer_before_it(name):
    model, params, x = problem(name)
    assert not any(isinstance(layer, ReLU) for layer in model._as_run.values())
    plain = x
    for i, layer in enumerate(model.layers):
        own = {k.partition(".")[2]: v for k, v in params.items() if k.startswith(f"{i}.")}
        plain = layer(own, plain)
    assert_close(model(params, x), plain, "float32", 64)


@each_model
def test_batch_normalization_is_folded_into_the_convolution(name):
    model, params, x = problem(name)
    folded, own = ax.fold_batch_norm(model, params)
    assert len(folded.layers) < len(model.layers)
    assert "BatchNorm" not in repr(folded)
    assert_close(folded(own, x), model(params, x), "float32", 64)


@each_model
@pytest.mark.parametrize("samples", [1, 5])
def test_compiled_models_are_planned(name, samples):
    model, params, x = problem(name, samples)
    predictor = ax.compile_predictor(model, params, MODELS[name][1])
    assert_close(predictor(x), model(params, x), "float32", 64)
    assert "layer by layer" not in ax.explain(predictor)


@each_model
def test_batch_normalization_over_ranks_is_that_of_one(name):
    from agnostic_xent.core.communication import Alone

    model, params, x = problem(name)
    together = ax.synchronize_batch_norm(model, Alone())
    y, pullback = model.vjp(params, x, rng=0)
    z, other = together.vjp(params, x, rng=0)
    assert_close(z, y, "float32", 64)
    for one, two in zip(pullback(np.ones_like(y)), other(np.ones_like(y)), strict=True):
        for key in one if isinstance(one, dict) else ():
            assert_close(two[key], one[key], "float32", 512)


def test_training_learns_which_half_of_a_signal_moves():
    rng = np.random.default_rng(9)
    y = rng.integers(0, 2, 160)
    x = 0.3 * rng.standard_normal((160, 2, 32))
    for label, signal in zip(y, x, strict=True):
        signal[:, 16 * label : 16 * label + 16] += np.sin(np.arange(16))
    model = Sequential(Conv1d(8, 5, padding=2), ReLU(), MaxPool1d(4), Flatten(), Dense(2))
    params, _ = model.init(0, (2, 32))
    params, history = ax.fit(
        model, params, (x.astype("float32"), y), loss=ax.cross_entropy,
        optimizer=ax.AdamW(0.01), epochs=8, batch_size=16, rng=0,
    )  # fmt: skip
    assert history[-1].accuracy > 0.95


def moving(samples, seed):
    """Return volumes of a spot that moves left or right, and which; one frame tells nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, samples)
    x = 0.1 * rng.standard_normal((samples, 1, 4, 6, 8))
    starts = zip(y, rng.integers(0, 8, samples), rng.integers(0, 6, samples), strict=True)
    for i, (label, column, row) in enumerate(starts):
        for t in range(4):
            x[i, 0, t, row, (column + (t if label else -t)) % 8] += 3
    return x.astype("float32"), y


def waves(samples, seed):
    """Return signals (N, 2, 48) whose two channels move together or against each other."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, samples)
    wave = np.sin(np.arange(48) / 2 + rng.uniform(0, 6, (samples, 1)))
    x = np.stack([wave, np.where(y[:, None], wave, -wave)], axis=1)
    return (x + 0.3 * rng.standard_normal(x.shape)).astype("float32"), y


@pytest.mark.parametrize(("make", "signals"), [(moving, False), (waves, True)])
def test_the_classifier_learns_signals_and_volumes(make, signals, tmp_path):
    pytest.importorskip("sklearn")
    (x, y), (new, of_new) = make(320, 1), make(80, 2)
    classifier = ax.CNNClassifier(signals=signals, epochs=20, batch_size=32, random_state=0)
    assert classifier.fit(x, y).score(new, of_new) > 0.9
    assert classifier.image_shape_ == x.shape[1:]
    rows = new.reshape(len(new), -1)
    np.testing.assert_array_equal(classifier.predict(rows), classifier.predict(new))
    ax.save_report(tmp_path / "report.html", classifier, new, of_new)
    flat = ax.CNNClassifier(
        signals=signals, image_shape=x.shape[1:], epochs=1, batch_size=80, random_state=0
    ).fit(x.reshape(len(x), -1), y)
    assert flat.image_shape_ == x.shape[1:]
    with pytest.raises(ValueError, match=r"image_shape must be \("):
        ax.CNNClassifier(signals=signals, image_shape=(2, 3)).fit(rows, of_new)


def test_what_the_classifier_takes_three_dimensions_for():
    pytest.importorskip("sklearn")
    x, y = waves(12, 3)
    with pytest.warns(UserWarning, match=r"images of 2 x 48 .*signals=True.* 2 channels of 48"):
        classifier = ax.CNNClassifier(epochs=1, random_state=0).fit(x, y)
    assert classifier.image_shape_ == (1, 2, 48)
    with pytest.warns(UserWarning, match="signals of 48 channels of 2 numbers; if time is"):
        ax.CNNClassifier(signals=True, epochs=1).fit(np.moveaxis(x, 1, -1), y)
    row = ax.CNNClassifier(signals=True, epochs=1, random_state=0).fit(x[:, 0], y)
    assert row.image_shape_ == (1, 48)
    with pytest.raises(ValueError, match=r"signals must have shape \(N, C, L\) or \(N, L\)"):
        ax.CNNClassifier(signals=True).fit(x[:, None], y)
    with pytest.raises(ValueError, match=r"X must hold images of shape \(1, 2, 48\), as fitted"):
        classifier.predict(x[:, :, :40])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv1d(3, 3).init(0, (2, 5, 5)), r"Conv1d takes samples of shape \(C, L\), got"),
        (lambda: Conv3d(3, 3).init(0, (2, 5, 5)), r"Conv3d .* \(C, D, H, W\), got \(2, 5, 5\)"),
        (lambda: BatchNorm1d().init(0, (2, 5, 5)), r"3 dimensions \(N, C, L\), got 4"),
        (lambda: BatchNorm3d().init(0, (2, 5)), r"5 dimensions \(N, C, D, H, W\), got 3"),
        (lambda: MaxPool1d(3).init(0, (2, 5, 5)), r"3 dimensions \(N, C, L\)"),
        (lambda: GlobalAvgPool().init(0, (5,)), r"3 or more dimensions"),
    ],
)
def test_samples_of_another_rank_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
