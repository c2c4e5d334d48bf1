"""Numbers go through one door: of any library where a number is meant, and nothing else."""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest

import agnostic_xent as ax
from agnostic_xent.core.checks import integer, number

X, Y = np.asarray([[0.0], [1.0]] * 8, "f4"), np.asarray([0, 1] * 8)
MODEL = ax.Sequential(ax.Dense(2))
PARAMS, _ = MODEL.init(0, (1,))
LOGITS = np.ones((2, 3), "f4")


def fit(optimizer, **options):
    options = {"epochs": 2, "batch_size": 4} | options
    return ax.fit(
        MODEL, PARAMS, (X, Y), loss=ax.cross_entropy, optimizer=optimizer, rng=0, **options
    )


def logistic(**options):
    options = {"max_iter": 3, "solver": "sgd", "random_state": 0} | options
    return ax.LogisticRegression(**options).fit(X, Y).coef_


def losses(**options):
    return ax.cross_entropy(LOGITS, Y[:2], **options)


def same(found, expected):
    """Return whether two results are equal, dtypes included."""
    if isinstance(expected, tuple) and isinstance(expected[0], dict):
        found, expected = found[0], expected[0]
        return all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    return repr(found) == repr(expected)


INTEGERS = {
    "units": (lambda n: ax.Dense(n), 2),
    "filters": (lambda n: ax.Conv2d(n, 3), 2),
    "groups": (lambda n: ax.Conv2d(2, 3, groups=n), 2),
    "window": (lambda n: ax.max_pool2d(np.ones((1, 1, 4, 4)), n), 2),
    "small_cnn": (lambda n: ax.small_cnn(n), 3),
    "resnet": (lambda n: ax.resnet(8, n), 3),
    "patience": (lambda n: vars(ax.EarlyStopping(n)), 3),
    "cosine": (lambda n: ax.cosine(0.1, steps=n), 9),
    "warmup": (lambda n: ax.warmup(ax.constant(0.1), steps=n), 9),
    "every": (lambda n: ax.step_decay(0.1, every=n), 9),
    "epochs": (lambda n: fit(ax.SGD(0.1), epochs=n), 2),
    "batch_size": (lambda n: fit(ax.SGD(0.1), batch_size=n), 4),
    "predict": (lambda n: ax.predict(MODEL, PARAMS, X, batch_size=n), 4),
    "evaluate": (
        lambda n: ax.evaluate(MODEL, PARAMS, (X, Y), loss=ax.cross_entropy, batch_size=n), 4,
    ),
    "max_iter": (lambda n: logistic(max_iter=n), 3),
    "logistic batch_size": (lambda n: logistic(batch_size=n), 4),
    "conv2d groups": (
        lambda n: ax.conv2d(np.ones((1, 2, 3, 3), "f4"), np.ones((2, 1, 3, 3), "f4"), groups=n), 2,
    ),
    "memory": (lambda n: ax.linear_cross_entropy(X, LOGITS[:, :1], Y, memory=n), 64),
    "k": (lambda n: ax.top_k_accuracy(LOGITS, Y[:2], k=n), 2),
    "bins": (lambda n: ax.expected_calibration_error(LOGITS / 3, Y[:2], bins=n), 4),
}  # fmt: skip
NUMBERS = {
    "SGD": (lambda v: fit(ax.SGD(v)), 0.125),
    "momentum": (lambda v: fit(ax.SGD(0.1, momentum=v)), 0.125),
    "weight_decay": (lambda v: fit(ax.SGD(0.1, weight_decay=v)), 0.125),
    "AdamW": (lambda v: fit(ax.AdamW(v)), 0.125),
    "AdamW weight_decay": (lambda v: fit(ax.AdamW(weight_decay=v)), 0.125),
    "betas": (lambda v: fit(ax.AdamW(betas=(v, v))), 0.5),
    "a schedule's answer": (lambda v: fit(ax.SGD(lambda step: v)), 0.125),
    "constant": (lambda v: fit(ax.SGD(ax.constant(v))), 0.125),
    "step_decay": (lambda v: fit(ax.SGD(ax.step_decay(v, every=2, factor=v))), 0.125),
    "cosine": (lambda v: fit(ax.SGD(ax.cosine(v, steps=4, final=v))), 0.125),
    "min_delta": (lambda v: vars(ax.EarlyStopping(1, min_delta=v)), 0.125),
    "C": (lambda v: logistic(C=v), 0.5),
    "C of lbfgs": (lambda v: logistic(C=v, solver="lbfgs", max_iter=50), 0.5),
    "tol": (lambda v: logistic(tol=v, solver="lbfgs", max_iter=50), 0.125),
    "learning_rate": (lambda v: logistic(learning_rate=v), 0.125),
    "label_smoothing": (lambda v: losses(label_smoothing=v), 0.125),
    "temperature": (lambda v: losses(temperature=v), 0.5),
    "normalize": (lambda v: losses(normalize=v), 0.5),
    "z_loss": (lambda v: losses(z_loss=v), 0.125),
    "softcap": (lambda v: losses(softcap=v), 0.5),
    "gamma": (lambda v: ax.focal_loss(LOGITS, Y[:2], gamma=v), 0.5),
    "q": (lambda v: ax.generalized_cross_entropy(LOGITS, Y[:2], q=v), 0.5),
    "mixing": (lambda v: ax.jensen_shannon_divergence(LOGITS, Y[:2], mixing=v), 0.25),
    "kl_divergence": (lambda v: ax.kl_divergence(LOGITS, LOGITS * 2, temperature=v), 0.5),
    "norm": (lambda v: fit(ax.ClipByNorm(ax.SGD(0.1), norm=v)), 0.125),
    "decay": (lambda v: fit(ax.MovingAverage(ax.SGD(0.1), v)), 0.5),
    "factors": (lambda v: fit(ax.LayerRates(ax.SGD(0.1), {"0": v})), 0.5),
    "binary normalize": (
        lambda v: ax.binary_cross_entropy_with_logits(LOGITS, LOGITS, normalize=v), 0.5,
    ),
    "dropout": (lambda v: ax.dropout(LOGITS, rate=v, rng=0), 0.5),
    "batch_norm": (lambda v: batch_norm(momentum=v, eps=v), 0.125),
}  # fmt: skip


def batch_norm(**options):
    one = np.ones(2, "f4")
    x = np.linspace(0, 1, 24, dtype="f4").reshape(3, 2, 2, 2)
    return ax.batch_norm(x, one, one, one, one, train=True, **options)[1]


def of_library(name, value):
    return importlib.import_module(name).asarray(value)


KINDS = {
    "numpy.float32": np.float32,
    "numpy.float64": np.float64,
    "numpy 0-d": np.asarray,
    "jax 0-d": functools.partial(of_library, "jax.numpy"),
    "torch 0-d": functools.partial(of_library, "torch"),
}
WHOLE = {"numpy.int64": np.int64, "numpy.uint8": np.uint8, "numpy 0-d": np.asarray}


@pytest.mark.parametrize("mode", ["auto", "portable"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", NUMBERS)
def test_a_number_of_any_library_is_the_number(place, kind, mode):
    pytest.importorskip(kind.split()[0].partition(".")[0])
    call, value = NUMBERS[place]
    with ax.kernels(mode):
        assert same(call(KINDS[kind](value)), call(value))


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("place", INTEGERS)
def test_an_integer_of_numpy_is_the_integer(place, kind):
    call, value = INTEGERS[place]
    assert same(call(WHOLE[kind](value)), call(value))


@pytest.mark.parametrize("value", [True, "2", None, 2.0, np.float32(2), [2], np.asarray([2, 3]), 0])
@pytest.mark.parametrize("place", INTEGERS)
def test_what_is_no_integer_is_refused(place, value):
    if value is None and place == "max_iter":
        value = "nothing"
    with pytest.raises((ValueError, TypeError), match="must be"):
        INTEGERS[place][0](value)


@pytest.mark.parametrize(
    "value", [True, np.asarray(True), "0.1", [0.1], np.asarray([0.1]), float("nan"), -1.0, 1j]
)
@pytest.mark.parametrize("place", sorted(NUMBERS.keys() - {"learning_rate"}))
def test_what_is_no_number_is_refused(place, value):
    if value == -1.0 and place in ("constant", "step_decay", "cosine", "a schedule's answer"):
        value = "nothing"
    with pytest.raises((ValueError, TypeError), match="must be"):
        NUMBERS[place][0](value)


@pytest.mark.parametrize("rate", [np.float32(0.1), np.int64(1), np.asarray(0.1)])
def test_what_a_schedule_answers_is_written_to_files(rate, tmp_path):
    pytest.importorskip("safetensors")
    log = ax.JsonLines(tmp_path / "log.jsonl")
    _, history = fit(ax.SGD(lambda step: rate), callbacks=[log], checkpoint=tmp_path / "run")
    assert f'"learning_rate": {float(rate)}' in history.to_json()
    assert "learning_rate" in (tmp_path / "log.jsonl").read_text()


def test_messages_name_what_is_accepted():
    for call, message in (
        (lambda: integer("k", 9, most=4), "k must be an integer >= 1 and <= 4, got 9"),
        (lambda: integer("k", 1.5), "k must be an integer >= 1, got 1.5"),
        (lambda: number("rate", 1, "[0, 1)"), r"rate must be in \[0, 1\), got 1"),
        (lambda: number("rate", "x", "(0, inf)"), "rate must be a finite number > 0, got 'x'"),
        (lambda: number("rate", -1, "[0, inf)"), "rate must be a finite number >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert type(integer("k", np.int64(3))) is int
    assert type(number("rate", np.float32(0.5), "[0, 1]")) is float


def test_a_grid_of_numpy_numbers_is_searched():
    search = pytest.importorskip("sklearn.model_selection").GridSearchCV
    grid = {"C": np.logspace(-1, 1, 3), "max_iter": np.arange(2, 4)}
    found = search(ax.LogisticRegression(solver="sgd", random_state=0), grid, cv=2).fit(X, Y)
    assert found.best_estimator_.coef_.dtype == np.float32
