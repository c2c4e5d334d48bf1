"""Classifiers of signals and volumes: stored samples, checkpoints, several ranks, export."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from ranks import on_ranks

pytest.importorskip("sklearn")

import agnostic_xent as ax
from agnostic_xent import CNNClassifier, export_onnx

SHAPES = {"signals": (3, 20), "one channel": (20,), "volumes": (2, 3, 6, 5)}
CHANGES = {"signals": "sensors", "one channel": None, "volumes": None}
OPTIONS = {"epochs": 8, "batch_size": 16, "random_state": 0}


def samples(kind, dtype="float32"):
    """Return samples of two classes, the second one louder at the end."""
    rng, y = np.random.default_rng(1), np.arange(48) % 2
    x = rng.standard_normal((48, *SHAPES[kind]))
    x[y == 1, ..., 3:] *= 2
    return x.astype(dtype), np.asarray(["quiet", "loud"])[y]


def classifier(kind, **options):
    return CNNClassifier(signals=kind != "volumes", augment=CHANGES[kind], **OPTIONS | options)


@pytest.fixture(scope="module")
def fitted():
    return {kind: classifier(kind).fit(*samples(kind)) for kind in SHAPES}


@pytest.mark.parametrize("kind", SHAPES)
def test_stored_samples_are_taken_by_batches(fitted, tmp_path, kind):
    dask_array = pytest.importorskip("dask.array")
    x, y = samples(kind)
    np.save(tmp_path / "x.npy", x)
    expected = fitted[kind].predict_proba(x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = classifier(kind).fit(mapped, y)
    assert type(found.predict_proba(mapped)) is np.ndarray
    assert_close(found.predict_proba(mapped), expected, "float32", 1000)
    lazy = dask_array.from_array(x, chunks=(10, *x.shape[1:]))
    assert_close(fitted[kind].predict_proba(lazy).compute(), expected, "float32", 64)
    found = classifier(kind).fit(lazy, y)  # block by block, so in another order
    assert_close(found.predict_proba(lazy).compute(), found.predict_proba(x), "float32", 64)
    assert found.score(x, y) == fitted[kind].score(x, y) == 1


class Interrupts(ax.Callback):
    """Ctrl-C after an epoch."""

    def on_epoch(self, epoch, params):
        if epoch.epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", SHAPES)
def test_a_checkpoint_goes_on_to_the_same_bits(fitted, tmp_path, kind):
    x, y = samples(kind)
    with pytest.warns(UserWarning, match="interrupted"):
        classifier(kind, checkpoint=tmp_path, callbacks=[Interrupts()]).fit(x, y)
    found = classifier(kind, checkpoint=tmp_path).fit(x, y)
    assert found.n_iter_ == 8
    for name, w in fitted[kind].params_.items():
        np.testing.assert_array_equal(found.params_[name], w)


def fit_all(communicator):
    """Fit each kind in float64; return probabilities and losses."""
    found = {}
    for kind in ("signals", "volumes"):
        model = classifier(kind, epochs=2, communicator=communicator)
        x, y = samples(kind, "float64")
        found[kind] = model.fit(x, y).predict_proba(x), model.loss_curve_
    return found


def test_ranks_fit_what_one_process_does():
    alone = fit_all(None)
    for found in on_ranks(2, fit_all):
        for kind, (probabilities, losses) in alone.items():
            np.testing.assert_allclose(found[kind][0], probabilities, atol=1e-9, err_msg=kind)
            np.testing.assert_allclose(found[kind][1], losses, rtol=1e-9, err_msg=kind)


@pytest.mark.parametrize("kind", SHAPES)
def test_onnx_says_what_the_classifier_says(fitted, tmp_path, kind):
    pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    x, _ = samples(kind)
    export_onnx(fitted[kind], tmp_path / "model.onnx")
    evaluator = reference.ReferenceEvaluator(str(tmp_path / "model.onnx"))
    shaped = x.reshape(-1, *fitted[kind].image_shape_)
    (found,) = evaluator.run(None, {"input": shaped})
    assert_close(found, fitted[kind].predict_proba(x), "float32", 1000)


@pytest.mark.parametrize("kind", SHAPES)
def test_explanations_have_the_shape_of_samples(fitted, kind):
    x = samples(kind)[0][:5]
    shape = fitted[kind].image_shape_
    places = (5, *shape[1:])
    model = fitted[kind]
    assert model.attributions(x, steps=4).shape == (5, *shape)
    assert model.attributions(x, method="occlusion", window=3, stride=3).shape == places
    assert model.attributions(x, method="grad_cam").shape == places


@pytest.mark.parametrize("kind", SHAPES)
def test_levels_and_rows_are_the_same_samples(kind):
    x, y = samples(kind)
    levels = np.clip(np.abs(x) * 60, 0, 255).astype("uint8")
    model = classifier(kind).fit(levels, y)
    expected = model.predict_proba(levels)
    rows = levels.reshape(48, -1)
    shape = model.image_shape_
    again = classifier(kind, image_shape=shape).fit(rows, y)
    np.testing.assert_array_equal(again.predict_proba(rows), expected)
    np.testing.assert_allclose(model.predict_proba(levels.astype("float32")), expected, rtol=1e-6)
