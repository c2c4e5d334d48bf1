"""Fits that are interrupted: what was learnt is kept, and a checkpoint goes on to the same bits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from training_case import same

pytest.importorskip("sklearn")

import agnostic_xent as ax
from agnostic_xent import Callback, CNNClassifier, LogisticRegression

MODEL = ax.Sequential(ax.Flatten(), ax.Dense(8), ax.ReLU(), ax.Dropout(0.2), ax.Dense(3))
OPTIONS = {"model": MODEL, "optimizer": ax.SGD(0.1), "batch_size": 16, "random_state": 4}


class CtrlC(Callback):
    """Presses Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch, self.finished = epoch, 0

    def on_step(self, samples):
        if self.finished == self.epoch - 1:
            raise KeyboardInterrupt

    def on_epoch(self, epoch, params):
        self.finished = epoch.epoch


def blobs(samples=80, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    return (rng.standard_normal((samples, 1, 4, 4)) + np.eye(3, 16)[y].reshape(-1, 1, 4, 4)).astype(
        "f4"
    ), np.asarray(["a", "b", "c"])[y]


def test_what_the_finished_epochs_learnt_is_kept():
    x, y = blobs()
    interrupted = CNNClassifier(epochs=9, callbacks=[CtrlC(4)], **OPTIONS)
    with pytest.warns(UserWarning, match="interrupted: fit keeps what it learnt in the first 3 of"):
        assert interrupted.fit(x, y) is interrupted
    assert interrupted.n_iter_ == len(interrupted.loss_curve_) == 3
    kept = []

    class Keeps(Callback):
        def on_epoch(self, epoch, params):
            kept.append(dict(params))

    CNNClassifier(epochs=9, callbacks=[Keeps()], **OPTIONS).fit(x, y)
    same(interrupted.params_, kept[2])
    assert set(interrupted.predict(x)) <= {"a", "b", "c"}


def test_nothing_is_kept_of_an_epoch_that_is_not_finished():
    x, y = blobs()
    fresh = CNNClassifier(epochs=9, callbacks=[CtrlC(1)], **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(x, y)
    assert not hasattr(fresh, "params_")
    fitted = CNNClassifier(epochs=1, warm_start=True, **OPTIONS).fit(x, y)
    before = fitted.params_
    with pytest.raises(KeyboardInterrupt):
        fitted.set_params(callbacks=[CtrlC(1)]).fit(x, y)
    same(fitted.params_, before)


def test_the_best_epoch_is_kept_where_it_is_looked_for():
    x, y = blobs()
    options = OPTIONS | {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 99}
    with pytest.warns(UserWarning, match="interrupted"):
        found = CNNClassifier(epochs=30, callbacks=[CtrlC(9)], **options).fit(x, y)
    whole = CNNClassifier(epochs=8, **options).fit(x, y)
    same(found.params_, whole.params_)
    assert found.validation_loss_curve_ == whole.validation_loss_curve_


def test_logistic_regression_by_steps_keeps_them_as_well(monkeypatch):
    x, y = blobs()
    from agnostic_xent.estimators import fitting

    class Pressed(fitting._Last):
        def on_epoch(self, epoch, params):
            super().on_epoch(epoch, params)
            if epoch.epoch == 2:
                raise KeyboardInterrupt

    x, options = x.reshape(len(x), -1), {"solver": "sgd", "random_state": 0}
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_Last", Pressed)
        with pytest.warns(UserWarning, match="first 2 of 20 epochs"):
            found = LogisticRegression(**options).fit(x, y)
    np.testing.assert_array_equal(
        found.coef_, LogisticRegression(max_iter=2, **options).fit(x, y).coef_
    )


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_goes_on_to_the_same_bits(weighted, tmp_path):
    x, y = blobs()
    weights = np.linspace(0.5, 2, len(y)) if weighted else None
    whole = CNNClassifier(epochs=6, **OPTIONS).fit(x, y, weights)
    part = CNNClassifier(epochs=6, checkpoint=tmp_path / "run", callbacks=[CtrlC(4)], **OPTIONS)
    with pytest.warns(UserWarning, match="interrupted"):
        part.fit(x, y, weights)
    seen = []

    class Sees(Callback):
        def on_epoch(self, epoch, params):
            seen.append(epoch.epoch)

    found = CNNClassifier(epochs=6, checkpoint=tmp_path / "run", callbacks=[Sees()], **OPTIONS)
    found.fit(x, y, weights)
    assert seen == [4, 5, 6]
    same(found.params_, whole.params_)
    assert found.loss_curve_ == whole.loss_curve_
    params, history = ax.load_checkpoint(tmp_path / "run")
    same(params, whole.params_)
    assert len(history) == found.n_iter_ == 6


def test_more_epochs_go_on_and_a_finished_run_takes_no_step(tmp_path):
    x, y = blobs()
    options = OPTIONS | {"checkpoint": tmp_path}
    CNNClassifier(epochs=2, **options).fit(x, y)
    found = CNNClassifier(epochs=5, **options).fit(x, y)
    same(found.params_, CNNClassifier(epochs=5, **options | {"checkpoint": None}).fit(x, y).params_)
    same(CNNClassifier(epochs=5, callbacks=[CtrlC(1)], **options).fit(x, y).params_, found.params_)


def test_a_checkpoint_of_other_samples_or_settings_is_refused(tmp_path):
    x, y = blobs()
    options = OPTIONS | {"checkpoint": tmp_path, "epochs": 2}
    CNNClassifier(**options).fit(x, y)
    other = x.copy()
    other[3] += 1
    for samples, labels, weights in [(other, y, None), (x, y[::-1], None), (x, y, np.arange(80.0))]:
        with pytest.raises(ValueError, match="holds a run on other samples, labels or weights"):
            CNNClassifier(**options).fit(samples, labels, weights)
    for changed, error in [
        ({"optimizer": ax.SGD(0.2)}, "of another run: its optimizer has"),
        ({"augment": [ax.Cutout(2)]}, "of another run: its model is"),
        ({"random_state": 5}, "of another run"),
        ({"epochs": 1}, "epochs must be at least the 2"),
        ({"random_state": None}, "random_state must be an integer with a checkpoint"),
        ({"early_stopping": True}, "early_stopping must be False with a checkpoint"),
    ]:
        with pytest.raises(ValueError, match=error):
            CNNClassifier(**options | changed).fit(x, y)


def test_partial_fit_leaves_the_folder_alone(tmp_path):
    x, y = blobs()
    CNNClassifier(checkpoint=tmp_path, **OPTIONS).partial_fit(x, y, classes=["a", "b", "c"])
    assert list(tmp_path.iterdir()) == []


def test_no_warning_without_an_interruption(tmp_path):
    x, y = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CNNClassifier(epochs=6, checkpoint=tmp_path, **OPTIONS).fit(x, y)
