"""Classifiers in folders, shared with the command line; and in ONNX files of their own."""

from __future__ import annotations

import csv
import functools
import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from cli_case import keep_model, one_error_line
from cli_case import no_report as no_report
from cli_case import toys as toys
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from training_case import same

import agnostic_xent as ax
from agnostic_xent import CNNClassifier, LogisticRegression, cli, load_classifier, save_classifier
from agnostic_xent.core.conversion import backend
from agnostic_xent.network.description import described, layer_of

OWN = ax.Sequential(
    ax.Standardize(),
    ax.RandomFlip(),
    ax.Conv2d(3, (3, 2), padding=((0, 1), (1, 0)), bias=False),
    ax.BatchNorm2d(eps=1e-3),
    ax.ReLU(),
    ax.Residual(ax.Sequential(ax.Conv2d(3, 3, padding="same")), activation="relu"),
    ax.AvgPool2d(2, ceil_mode=True),
    ax.Flatten(),
    ax.Dropout(0.1),
    ax.Dense(3),
)


GENERALIZED = functools.partial(ax.generalized_cross_entropy, q=0.5)


def images(dtype="u1", labels=("cat", "dog", "eel"), samples=60):
    rng = np.random.default_rng(0)
    y = np.arange(samples) % len(labels)
    x = rng.integers(0, 100, (samples, 1, 6, 6)) + (40 * y)[:, None, None, None]
    x = x.astype("u1") if dtype == "u1" else (x / 255).astype(dtype)
    return x, np.asarray(labels)[y]


def cnn(**options):
    return CNNClassifier(epochs=2, batch_size=20, random_state=0, **options)


CASES = {
    "levels": lambda: (cnn(), *images()),
    "shares, another loss": lambda: (cnn(loss=GENERALIZED), *images("f4")),
    "float64 and two classes": lambda: (cnn(loss=ax.focal_loss), *images("f8", (True, False))),
    "own model": lambda: (cnn(model=OWN, learning_rate=0.01), *images("u1", (3, 5, 7))),
    "rows as images": lambda: (cnn(image_shape=(6, 6)), *rows("f4", (1.0, 2.0))),
    "logistic": lambda: (LogisticRegression(C=2.0), *rows("f8", ("ham", "spam"))),
    "logistic by steps": lambda: (
        LogisticRegression(solver="sgd", max_iter=3, random_state=1), *rows("f4", (2, 4, 6)),
    ),
}  # fmt: skip


def rows(dtype, labels):
    x, y = images(dtype, labels)
    return x.reshape(len(x), -1), y


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    """Return a fitted classifier, its folder, samples and labels."""
    classifier, x, y = CASES[request.param]()
    folder = tmp_path_factory.mktemp("saved") / "run"
    save_classifier(folder, classifier.fit(x, y))
    return classifier, folder, x, y


def test_what_is_loaded_is_what_was_saved(saved):
    classifier, folder, x, y = saved
    found = load_classifier(folder)
    assert type(found) is type(classifier)
    for method in ("predict_proba", "predict", "decision_function"):
        np.testing.assert_array_equal(getattr(found, method)(x), getattr(classifier, method)(x))
    assert found.predict(x).dtype == classifier.predict(x).dtype
    assert found.classes_.tolist() == classifier.classes_.tolist()
    assert found.loss_curve_ == classifier.loss_curve_
    assert found.history_ == classifier.history_
    assert found.n_iter_ == classifier.n_iter_
    assert repr(found.get_params()) == repr(classifier.get_params())
    assert found.set_params(random_state=0).fit(x, y).score(x, y) > 0


def test_the_command_line_predicts_the_same(saved, tmp_path):
    classifier, folder, x, _ = saved
    given = x.reshape(-1, *getattr(classifier, "image_shape_", x.shape[1:]))
    np.save(tmp_path / "x.npy", given)
    out = tmp_path / "p.csv"
    assert cli.main(["predict", str(folder), str(tmp_path / "x.npy"), "--out", str(out)]) == 0
    with open(out, encoding="utf-8") as file:
        header, *found = csv.reader(file)
    assert header[2:] == [str(label) for label in classifier.classes_.tolist()]
    expected = classifier.predict_proba(x)
    np.testing.assert_allclose(np.asarray(found)[:, 2:].astype(float), expected, atol=2e-4)
    assert [row[1] for row in found] == [header[2:][i] for i in expected.argmax(axis=1)]


@pytest.mark.usefixtures("no_report")
def test_the_command_line_evaluates_the_same(saved, tmp_path, capsys):
    classifier, folder, x, y = saved
    given = x.reshape(-1, *getattr(classifier, "image_shape_", x.shape[1:]))
    labels = np.asarray([str(label) for label in y.tolist()])
    np.savez(tmp_path / "d.npz", x=given, y=labels)
    assert cli.main(["evaluate", str(folder)]) == 2
    assert one_error_line(capsys).startswith("argument --data: is needed")
    assert cli.main(["evaluate", str(folder), "--data", str(tmp_path / "d.npz")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"test accuracy: {classifier.score(x, y):.4f}"


def test_onnx_has_classes_and_what_is_done_before(saved, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    classifier, _, x, _ = saved
    x = x.reshape(-1, *getattr(classifier, "image_shape_", x.shape[1:]))
    dtype = "f4"
    if isinstance(classifier, CNNClassifier) and x.dtype == "f8":
        with pytest.warns(UserWarning, match="does not compute Conv in float64"):
            ax.export_onnx(classifier, tmp_path / "m.onnx")
        return
    dtype = "f8" if x.dtype == "f8" else "f4"
    ax.export_onnx(classifier, tmp_path / "m.onnx")
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    (found,) = session.run(["probabilities"], {"input": x.astype(dtype)})
    np.testing.assert_allclose(found, classifier.predict_proba(x.reshape(
        saved[2].shape)), atol=1e-5)  # fmt: skip
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == classifier.classes_.tolist()


def test_an_exported_folder_has_classes_and_what_is_done_before(saved, tmp_path, capsys):
    """From the command line the input is as the files of the training, float32."""
    runtime = pytest.importorskip("onnxruntime")
    classifier, folder, x, _ = saved
    file = tmp_path / "m.onnx"
    assert cli.main(["export", str(folder), str(file), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    session = runtime.InferenceSession(str(file))
    given = x.reshape(-1, *results["input_shape"]).astype("f4")
    (found,) = session.run(["probabilities"], {"input": given})
    np.testing.assert_allclose(found, classifier.predict_proba(x), atol=1e-5)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == results["classes"] == classifier.classes_.tolist()
    assert notes["input"] == results["input"] == f"numbers from {x.min():g} to {x.max():g}"


def test_a_report_is_written_also_without_epochs(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    x, y = rows("f8", ("ham", "spam"))
    save_classifier(tmp_path / "run", LogisticRegression().fit(x, y))
    np.savez(tmp_path / "d.npz", x=x, y=y)
    command = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "d.npz")]
    assert cli.main(command) == 0
    assert "iterations" in (tmp_path / "run" / "report.html").read_text("utf-8")


# --- folders of the command line -----------------------------------------------------------------


@pytest.mark.usefixtures("toys", "no_report")
@pytest.mark.parametrize("model", ["cnn", "logistic"])
def test_what_the_command_line_trains_loads_as_a_classifier(model, tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["train", model, "--epochs", "2", "--out", str(folder)]) == 0
    accuracy = capsys.readouterr().out.split()[-1]
    found = load_classifier(folder)
    data = cli.data.load_fashion_mnist() if model == "cnn" else cli.data.load_spambase()
    labels = np.asarray(data.classes)[data.test_y]
    assert f"{found.score(data.test_x, labels):.4f}" == accuracy
    assert found.predict(data.test_x[:1])[0] in data.classes


@pytest.mark.parametrize("classes", [("day", "night"), ("night", "day"), ("c", "a", "b")])
@pytest.mark.parametrize("model", ["cnn", "logistic"])
def test_classes_are_put_in_order(model, classes, tmp_path):
    """The command line has them in the order of its data."""
    rng = np.random.default_rng(0)
    shape = (1, 6, 6) if model == "cnn" else (5,)
    folder = keep_model(tmp_path / "run", model, shape, classes)
    path = folder / "model.safetensors"
    params = {k: rng.random(w.shape, "f4") for k, w in ax.load_params(path).items()}
    ax.save_params(path, params)
    x = rng.standard_normal((7, *shape)).astype("f4")
    network = cli.saved.read(folder)[0].network()
    expected = cli.recipes.probabilities(network(params, x))
    found = load_classifier(folder)
    assert found.classes_.tolist() == sorted(classes)
    given = [classes.index(name) for name in found.classes_]
    np.testing.assert_allclose(found.predict_proba(x), expected[:, given], rtol=2e-6, atol=1e-7)


def test_a_model_of_a_table_takes_tables(tmp_path):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    kinds = np.asarray(["red", "blue"])[rng.integers(0, 2, 60)]
    size = rng.standard_normal(60) + 2 * (kinds == "red")
    frame = pandas.DataFrame({"size": size, "kind": kinds, "label": np.where(size > 1, "x", "y")})
    frame.to_csv(tmp_path / "t.csv", index=False)
    folder = tmp_path / "run"
    command = ["train", "logistic", "--data", str(tmp_path / "t.csv"), "--out", str(folder)]
    assert cli.main([*command, "--epochs", "9"]) == 0
    found = load_classifier(folder)
    assert found.score(frame.drop(columns="label"), frame["label"]) > 0.9


def test_another_library_saves_and_gets_back(tmp_path):
    pytest.importorskip("torch")
    x, y = images("f4")
    torch = backend("torch")
    there = cnn().fit(torch.asarray(x), y)
    save_classifier(tmp_path, there)
    assert cli.saved.read(tmp_path)[0].backend == "torch"
    back = ax.to_backend(load_classifier(tmp_path), torch)
    same({"p": back.predict_proba(torch.asarray(x))}, {"p": there.predict_proba(torch.asarray(x))})


# --- what is refused -----------------------------------------------------------------------------


class Mine(ax.ReLU):
    """A layer of another package."""


def test_refusals(tmp_path):
    x, y = images()
    for classifier, error in [
        (cnn(), "not fitted"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "got Pipeline"),
        (
            cnn(model=ax.Sequential(ax.Flatten(), ax.Dense(3), Mine())).fit(x, y),
            "Mine is no layer of agnostic_xent",
        ),
    ]:
        with pytest.raises((TypeError, ValueError), match=error):
            save_classifier(tmp_path / "run", classifier)
        assert not (tmp_path / "run").exists()
    several = cnn().fit(x, np.stack([y == "cat", y == "dog"], axis=1))
    for call in (
        lambda: save_classifier(tmp_path / "run", several),
        lambda: ax.export_onnx(several, tmp_path / "m.onnx"),
    ):
        with pytest.raises(TypeError, match="several labels a sample"):
            call()
    for call, error in [
        (lambda: ax.export_onnx(cnn(), "m.onnx"), "not fitted"),
        (lambda: ax.export_onnx(StandardScaler(), "m.onnx"), "got StandardScaler"),
        (lambda: ax.export_onnx(OWN, {}), "needs params, path and input_shape"),
    ]:
        with pytest.raises((TypeError, ValueError), match=error):
            call()


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run["network_layers"].update(layer="Dense"),
        lambda run: run["network_layers"]["layers"][2].update(layer="exec"),
        lambda run: run["network_layers"]["layers"][2].update(filters=-1),
        lambda run: run["network_layers"]["layers"].pop(),
        lambda run: run["estimator"].update(labels=[1, 2]),
        lambda run: run["estimator"].update(labels=[7, 5, 3]),
        lambda run: run["estimator"].update(labels=None),
        lambda run: run["estimator"].update(dtype="no"),
        lambda run: run["estimator"].update(params=3),
        lambda run: run.update(estimator=[3]),
        lambda run: run.update(scale=run["scale"] | {"divisor": 1023}),
    ],
    ids=range(11),
)
def test_damage_is_told(damage, tmp_path):
    save_classifier(tmp_path, cnn(model=OWN).fit(*images("u1", (3, 5, 7))))
    run = json.loads((tmp_path / "run.json").read_text())
    damage(run)
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"run\.json|holds no classifier"):
        load_classifier(tmp_path)


def test_layers_are_described_and_made_again():
    for layer in (OWN, ax.resnet(8), ax.convnet(4, shape=(3, 9, 9)), ax.lenet()):
        assert layer_of(json.loads(json.dumps(described(layer)))) == layer
