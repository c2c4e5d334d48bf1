"""How networks are trained by default: standardised samples, a schedule, a word at chance."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest

import agnostic_xent as ax
from agnostic_xent import cli
from agnostic_xent.training.recipe import (
    AtChance,
    chance_loss,
    epochs_of,
    recipe_optimizer,
    some_of,
)

RNG = np.random.default_rng(0)
SHAPES = [
    (1, 1, 1),
    (1, 1, 2),
    (1, 1, 57),
    (2, 90, 1),
    (3, 2, 2),
    (1, 5, 9),
    (4, 33, 17),
    (3, 64, 64),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_convnet_takes_images_of_any_size(shape):
    model = ax.convnet(7, shape=shape)
    params, out = model.init(0, shape)
    assert out == (7,)
    assert sum(w.size for w in params.values()) < 1_000_000
    y, pullback = model.vjp(params, RNG.standard_normal((3, *shape)).astype("f4"))
    dx, grads = pullback(np.ones_like(y))
    assert dx.shape == (3, *shape)
    assert params.keys() - grads.keys() == {"0.mean", "0.std"}  # which are not trained


def test_statistics_are_by_channel_or_feature():
    x = RNG.normal(3, 5, (50, 3, 6, 4)) * np.asarray([1, 10, 0])[:, None, None]
    model = ax.Sequential(ax.Standardize(), ax.Flatten(), ax.Dense(2))
    params = ax.standardized(model, model.init(0, x.shape[1:])[0], x)
    y = ax.Standardize()({"mean": params["0.mean"], "std": params["0.std"]}, x)
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), [1, 1, 0], atol=1e-6)
    rows = x.reshape(50, -1)
    model = ax.Sequential(ax.Standardize(), ax.Dense(2))
    params = ax.standardized(model, model.init(0, rows.shape[1:])[0], rows)
    np.testing.assert_allclose(params["0.mean"], rows.mean(axis=0), rtol=1e-6)


def test_a_model_without_the_layer_is_left_alone():
    model = ax.Sequential(ax.Dense(2))
    params = model.init(0, (3,))[0]
    assert ax.standardized(model, params, np.ones((4, 3))) == params


@pytest.mark.parametrize("samples", [1, 7, 9_999, 10_000, 123_457])
def test_samples_that_are_looked_at_are_spread(samples):
    rows = some_of(samples)
    assert len(rows) == min(samples, 10_000)
    assert (rows[0], rows[-1]) == (0, samples - 1)
    assert (np.diff(rows) > 0).all()


def test_training_leaves_the_statistics_and_asks_for_no_gradient_below(monkeypatch):
    """What comes before the first trained layer is not pulled back through."""
    x, y = RNG.standard_normal((20, 1, 6, 6)).astype("f4"), np.arange(20) % 2
    model = ax.convnet(2, shape=(1, 6, 6))
    start = ax.standardized(model, model.init(0, (1, 6, 6))[0], x)
    params, _ = ax.fit(
        model, start, (x, y), loss=ax.cross_entropy, optimizer=ax.AdamW(weight_decay=0.5), epochs=2
    )
    for name in ("0.mean", "0.std"):
        assert np.array_equal(params[name], start[name])
    asked = []
    forward = ax.Conv2d.forward

    def spy(self, params, x, how):
        asked.append(how.input_grad)
        return forward(self, params, x, how)

    monkeypatch.setattr(ax.Conv2d, "forward", spy)
    model.vjp(params, x, input_grad=False)
    assert asked == [False, True, True, True]


def test_the_rate_rises_and_falls():
    rates = [recipe_optimizer(0.1, 200).rate(step) for step in range(200)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[9] or max(rates) == rates[10]
    assert rates[9] == pytest.approx(0.1, rel=0.01)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 1e-4
    assert recipe_optimizer(0.1, 1).rate(0) == pytest.approx(0.1)
    of_signals = [recipe_optimizer(0.1, 200, signals=True).rate(step) for step in range(200)]
    assert np.argmax(of_signals) == 49
    assert of_signals[50:] == rates[50:]


@pytest.mark.parametrize(
    ("steps", "epochs"), [(1, 100), (6, 100), (7, 92), (16, 40), (31, 21), (32, 20), (500, 20)]
)
def test_few_samples_are_passed_through_more_often(steps, epochs):
    assert epochs_of(steps) == epochs


def test_a_classifier_counts_steps_without_what_is_held_out():
    pytest.importorskip("sklearn")
    y = np.arange(110) % 2
    x = np.random.default_rng(0).standard_normal((110, 1, 2, 2)) + 4 * y[:, None, None, None]
    model = ax.Sequential(ax.Flatten(), ax.Dense(2))
    for held_out, epochs in ((False, 59), (True, 64)):  # 11 or 10 steps
        classifier = ax.CNNClassifier(
            model, batch_size=10, early_stopping=held_out, n_iter_no_change=100, random_state=0
        )
        assert classifier.fit(x, y).n_iter_ == epochs


# --- chance --------------------------------------------------------------------------------------


def test_chance_is_the_entropy_of_labels():
    assert chance_loss(np.asarray([5, 5])) == pytest.approx(np.log(2))
    assert chance_loss(np.asarray([9, 0, 1])) == pytest.approx(
        -0.9 * np.log(0.9) - 0.1 * np.log(0.1)
    )


@pytest.mark.parametrize(
    ("losses", "accuracy", "samples", "told"),
    [
        ([0.69] * 9, 0.5, 640, [3]),
        ([9, 0.7, 0.69, 0.6931, 0.1], 0.5, 640, [4]),  # it still fell after 3
        ([9, 0.7, 0.69, 0.686, 0.682, 0.5], 0.5, 640, []),
        ([0.69, 0.69, 0.6], 0.5, 640, []),
        ([0.69, 0.69, 0.6, 0.69, 0.69], 0.5, 640, []),  # it had left
        ([0.69] * 9, 0.7, 640, []),  # labels are learnt, though the loss does not show it yet
        ([0.69] * 9, 0.55, 640, [3]),
        ([0.69] * 9, 0.5, 128, [8]),  # 4 steps an epoch
        ([0.69] * 99, 0.5, 640, [5]),  # the rate rises that long
        ([0.69] * 2, 0.5, 640, []),
        ([0.69] * 9, 0.5, None, []),
    ],
)
def test_a_loss_that_stays_at_chance_is_told_once(losses, accuracy, samples, told):
    said: list[str] = []
    watch = AtChance(np.asarray([7, 7]), 32, said.append)
    for _ in range(2):  # a run after another
        watch.on_start(len(losses), samples)
        for i, loss in enumerate(losses, 1):
            watch.on_epoch(ax.Epoch(i, loss, accuracy, 0.1, 1.0, 1.0), {})
    assert [int(text.split()[1]) for text in said] == 2 * told
    if told:
        assert "learning rate" in said[0]


def test_rare_classes_are_chance_as_well():
    """A model that always says the frequent class is right as often as that comes."""
    said: list[str] = []
    watch = AtChance(np.asarray([95, 5]), 32, said.append)
    watch.on_start(9, 1000)
    for i in range(1, 10):
        watch.on_epoch(ax.Epoch(i, 0.2, 0.95, 0.1, 1.0, 1.0), {})
    assert len(said) == 1


def learnable(count=200):
    y = np.arange(count) % 2
    x = RNG.standard_normal((count, 1, 8, 8)) + 1.5 * y[:, None, None, None]
    return x.astype("f4"), y


def test_the_classifier_warns_where_nothing_is_learnt():
    pytest.importorskip("sklearn")
    x, y = learnable()
    dead = ax.CNNClassifier(
        ax.small_cnn(2), optimizer=ax.SGD(1e-9), epochs=6, batch_size=32, random_state=0
    )
    with pytest.warns(UserWarning, match="after 5 epochs the loss, .* is still that of chance"):
        dead.fit(0 * x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.CNNClassifier(epochs=5, batch_size=32, random_state=0).fit(x, y)


def test_the_command_line_says_so_in_a_line(tmp_path, capsys):
    x, y = learnable()
    np.savez(tmp_path / "d.npz", x=x, y=RNG.permutation(y))
    command = ["train", "--data", str(tmp_path / "d.npz"), "--epochs", "11"]
    assert cli.main([*command, "--learning-rate", "1e-9"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("after ")]
    assert len(told) == 1
    assert "is still that of chance, 0.6931" in told[0]


# --- the default classifier ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("shift", [0, 100])
def test_the_scale_of_images_does_not_matter(scale, shift):
    pytest.importorskip("sklearn")
    x, y = learnable()
    classifier = ax.CNNClassifier(epochs=4, batch_size=32, random_state=0)
    expected = classifier.fit(x, y).predict_proba(x)
    moved = (x.astype("f8") + shift) * scale
    found = classifier.fit(moved, y).predict_proba(moved)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert classifier.score(moved, y) > 0.95


def test_the_learning_rate_is_that_of_the_default_optimizer():
    pytest.importorskip("sklearn")
    x, y = learnable(64)

    def greatest(**options):
        fitted = ax.CNNClassifier(epochs=20, batch_size=8, random_state=0, **options).fit(x, y)
        return max(fitted.history_.column("learning_rate"))

    assert greatest() == pytest.approx(5e-3, rel=0.02)
    assert greatest(model=ax.small_cnn(2)) == pytest.approx(1e-3, rel=0.02)
    assert greatest(learning_rate=2e-3) == pytest.approx(2e-3, rel=0.02)
    with pytest.raises(ValueError, match="learning_rate is that of the default optimizer"):
        ax.CNNClassifier(optimizer=ax.SGD(0.1), learning_rate=0.1).fit(x, y)
    with pytest.raises(ValueError, match="learning_rate must be a finite number > 0, got 0"):
        ax.CNNClassifier(learning_rate=0).fit(x, y)


def test_torch_learns_the_same():
    pytest.importorskip("sklearn")
    torch = pytest.importorskip("torch")
    x, y = learnable(64)
    options = {"epochs": 2, "batch_size": 32, "random_state": 0}
    expected = ax.CNNClassifier(**options).fit(x, y).predict_proba(x)
    there = torch.asarray(x)
    found = ax.CNNClassifier(**options).fit(there, y).predict_proba(there)
    np.testing.assert_allclose(ax.to_numpy(found), expected, atol=1e-3)
