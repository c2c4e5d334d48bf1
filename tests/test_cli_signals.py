"""Signals and volumes on the command line: windows, recordings, who is held out, what is kept."""

import numpy as np
import pytest
from cli_case import no_report as no_report
from cli_case import one_error_line, toy_signals
from cli_case import toys as toys

import agnostic_xent as ax
from agnostic_xent import CNNClassifier, cli, load_classifier, save_classifier
from agnostic_xent.datasets.dataset import split_by_group

LENGTH = 24


def waves(rng, label, length=40, channels=2):
    """Return a recording of slow or of fast waves."""
    phase = rng.random((channels, 1)) * 6 + np.arange(length) * (0.3 + 0.6 * label)
    return (np.sin(phase) + 0.2 * rng.standard_normal((channels, length))).astype("f4")


@pytest.fixture
def recorded(tmp_path):
    """Return a folder of two classes, of five people each, whose recordings differ in length."""
    rng, folder = np.random.default_rng(0), tmp_path / "walks"
    for label, name in enumerate(("slow", "fast")):
        for person in ("Ann", "Bob", "Cid", "Dan", "Eva"):
            (folder / name / person).mkdir(parents=True)
            for i in range(2):
                x = waves(rng, label, length=40 + 7 * i)
                if i:
                    table = folder / name / person / "1.csv"
                    np.savetxt(table, x.T, delimiter=",", header="x,y", comments="")
                else:
                    np.save(folder / name / person / "0.npy", x)
    return folder


def without_loss(printed):
    """Return the lines of an evaluation that a training prints too."""
    return [line for line in printed.splitlines() if not line.startswith("test loss: ")]


def trained(tmp_path, capsys, *arguments):
    """Return the folder of a model, the lines of its training, and what it said was decided."""
    run = tmp_path / "run"
    given = ["--epochs", "8", "--learning-rate", "0.05", "--out", str(run)]
    assert cli.main(["train", "signals", *given, *arguments]) == 0
    out, err = capsys.readouterr()
    return run, out.splitlines(), err.splitlines()[0]


def rows(text):
    return [line.split(",") for line in text.splitlines()]


# --- data of the package -------------------------------------------------------------------------


def test_people_of_the_watch_are_in_one_part():
    data, scale = cli.data.load("signals", "watch")
    assert (data.train_x.shape[1:], len(data.train_x) + len(data.test_x)) == ((6, 200), 2229)
    assert (len(np.unique(data.test_person)), len(np.unique(data.test_recording))) == (2, 28)
    assert set(data.train_y) == set(data.test_y) == set(range(7))
    assert scale.divisor == 1
    again = cli.data.load("signals", "watch")[0]
    assert np.array_equal(again.test_x, data.test_x)


@pytest.mark.usefixtures("toys", "no_report")
def test_a_model_of_signals_is_kept_and_used(tmp_path, capsys):
    run, out, _ = trained(tmp_path, capsys)
    assert out[0].startswith("accuracy of recordings: ")
    assert float(out[0].split()[-1]) > 0.9
    assert cli.main(["evaluate", str(run)]) == 0
    assert without_loss(capsys.readouterr().out) == out
    data = toy_signals()
    np.save(tmp_path / "windows.npy", data.test_x)
    assert cli.main(["predict", str(run), str(tmp_path / "windows.npy")]) == 0
    head, *predicted = rows(capsys.readouterr().out)
    assert (head, len(predicted)) == (["sample", "class", "slow", "fast"], 20)
    right = [
        row[1] == data.classes[label] for row, label in zip(predicted, data.test_y, strict=True)
    ]
    assert f"test accuracy: {np.mean(right):.4f}" == out[-1]
    found = load_classifier(run)
    assert (found.signals, found.model, found.image_shape_) == (True, None, (2, LENGTH))
    ours = found.predict_proba(data.test_x)[:, [1, 0]]
    np.testing.assert_allclose(ours, [[float(p) for p in row[2:]] for row in predicted], atol=2e-6)


@pytest.mark.usefixtures("toys", "no_report")
def test_signals_start_from_signals_alone(tmp_path, capsys):
    run, _, _ = trained(tmp_path, capsys)
    assert cli.main(["train", "signals", "--start", str(run), "--freeze", "--epochs", "1"]) == 0
    capsys.readouterr()
    assert cli.main(["train", "cnn", "--start", str(run)]) == 2
    assert one_error_line(capsys).startswith("argument --start: is for cnn or signals and")


@pytest.mark.usefixtures("toys", "no_report")
def test_onnx_of_signals(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    run, _, _ = trained(tmp_path, capsys, "--epochs", "1")
    assert cli.main(["export", str(run), str(tmp_path / "model.onnx")]) == 0
    (given,) = onnx.load(tmp_path / "model.onnx").graph.input
    assert [side.dim_value for side in given.type.tensor_type.shape.dim][1:] == [2, LENGTH]


# --- recordings of one's own ---------------------------------------------------------------------


@pytest.mark.usefixtures("no_report")
def test_recordings_in_folders(recorded, tmp_path, capsys):
    run, out, decided = trained(tmp_path, capsys, "--data", str(recorded), "--window", "16")
    assert "walks: 64 samples to train on and 16 to test on (windows of 4 recordings, " in decided
    assert ", all of the groups " in decided
    assert "; 2 classes: fast, slow; 2 channels of 16 numbers, from " in decided
    assert cli.main(["evaluate", str(run)]) == 0  # the same people are held out
    assert without_loss(capsys.readouterr().out) == out
    assert cli.main(["evaluate", str(run), "--data", str(recorded)]) == 0
    assert float(capsys.readouterr().out.splitlines()[0].split()[-1]) > 0.9
    assert cli.main(["predict", str(run), str(recorded / "slow")]) == 0
    _, *predicted = rows(capsys.readouterr().out)
    names = [f"{person}/{i}" for person in ("Ann", "Bob", "Cid", "Dan", "Eva") for i in "01"]
    assert [row[0].rpartition(".")[0] for row in predicted] == names
    x = np.load(recorded / "slow" / "Bob" / "0.npy")
    model = load_classifier(run)
    windows = np.stack([x[:, start : start + 16] for start in range(0, 25, 8)])
    mean = model.predict_log_proba(windows).mean(axis=0)
    p = np.exp(mean - np.logaddexp(*mean))
    np.testing.assert_allclose(p, [float(value) for value in predicted[2][2:]], rtol=1e-4)
    assert cli.main(["predict", str(run), str(recorded / "slow" / "Bob" / "0.npy")]) == 0
    assert rows(capsys.readouterr().out)[1][1:] == predicted[2][1:]


def test_without_people_whole_recordings_are_held_out(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("slow", "fast"):
        (tmp_path / name).mkdir()
        for i in range(5):
            np.save(tmp_path / name / f"{i}.npy", waves(rng, name == "fast", length=50 + i)[0])
    data, _ = cli.data.load("signals", str(tmp_path))
    assert (data.train_x.shape, data.test_x.shape) == ((8, 1, 50), (2, 1, 50))  # the shortest
    assert (data.test_recording.tolist(), data.test_person) == ([0, 1], None)


def test_folders_of_parts_are_taken(tmp_path):
    rng = np.random.default_rng(2)
    for part, count in (("train", 3), ("test", 1)):
        for label, name in enumerate("ab"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                np.save(tmp_path / part / name / f"{i}.npy", waves(rng, label))
    data, _ = cli.data.load("signals", str(tmp_path), window=10)
    assert (len(data.train_x), len(data.test_x)) == (6 * 7, 2 * 7)


BAD_RECORDINGS = {
    "run/9.npy: a recording must have shape (C, L) or (L,), got (2, 3, 4)": np.zeros((2, 3, 4)),
    "run/9.npy: a recording of 40 channels of 2 numbers: save x.T": np.zeros((40, 2)),
    "run/9.npy: it must have 2 channels of at least 12 numbers, got 3 of 40": np.zeros((3, 40)),
    "run/9.npy: it must have 2 channels of at least 12 numbers, got 2 of 11": np.zeros((2, 11)),
    "run/9.npy: it must be of finite numbers, but sample 7 has nan": np.where(
        np.arange(40) == 7, np.nan, np.zeros((2, 40))
    ),
    "run/9.npy: it must be of numbers, got dtype <U1": np.full((2, 40), "a"),
}


@pytest.mark.parametrize("words", BAD_RECORDINGS)
def test_a_recording_that_does_not_fit_is_an_error(tmp_path, capsys, words):
    for name in ("run", "walk"):
        (tmp_path / name).mkdir()
        for i in range(3):
            np.save(tmp_path / name / f"{i}.npy", np.ones((2, 40)))
    np.save(tmp_path / "run" / "9.npy", BAD_RECORDINGS[words])
    assert cli.main(["train", "signals", "--data", str(tmp_path), "--window", "12"]) == 2
    assert words in one_error_line(capsys)


def test_errors_of_signals(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for arguments, words in {
        ("signals", "--data", "missing"): "argument --data: must be watch, a folder of recordings",
        ("signals", "--data", str(tmp_path)): "must hold a folder of recordings for each class",
        ("signals", "--window", "9"): "argument --window: is for signals in a folder of recordings",
        ("cnn", "--window", "9"): "argument --window: is for signals in a folder of recordings",
        ("logistic", "--augment"): "argument --augment: is for cnn and signals, not for logistic",
    }.items():
        assert cli.main(["train", *arguments]) == 2
        assert words in one_error_line(capsys)


# --- arrays --------------------------------------------------------------------------------------


def test_more_channels_than_numbers_are_asked_about(tmp_path):
    np.savez(tmp_path / "all.npz", x=np.zeros((20, 12, 3)), y=np.arange(20) % 2)
    said = cli.data.decided(*cli.data.load("signals", str(tmp_path / "all.npz")), pictures=False)
    assert "; 12 channels of 3 numbers, from 0 to 0; is time their first axis? Then np." in said


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("channels", [0, 3])
def test_windows_in_a_file_with_their_people(tmp_path, capsys, channels):
    rng, y = np.random.default_rng(3), np.arange(60) % 2
    x = np.stack([waves(rng, label, LENGTH, 3) for label in y])
    people = np.asarray(["Ann", "Bob", "Cid", "Dan", "Eva"])[np.arange(60) // 12]
    np.savez(tmp_path / "all.npz", x=x if channels else x[:, 0], y=y, people=people)
    more = ["--augment"] if channels else []
    run, out, decided = trained(tmp_path, capsys, "--data", str(tmp_path / "all.npz"), *more)
    assert "48 samples to train on and 12 to test on" in decided
    assert " to test on (all of the groups " in decided
    assert "is time their first axis?" not in decided
    assert len(out) == 1
    assert cli.main(["evaluate", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == out[0]
    assert load_classifier(run).augment == ("sensors" if channels else None)


def test_rotations_need_three_axes(toys, capsys):
    assert cli.main(["train", "signals", "--augment"]) == 2
    assert one_error_line(capsys) == (
        "argument --augment: three-axis sensors have 3, 6, ... channels, but samples have 2"
    )


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_in_one_part_and_all_classes_are_trained(seed):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(7, size=90), rng.integers(3, size=90)
    train, test = split_by_group(groups, labels, 0.3, seed)
    assert sorted([*train, *test]) == [*range(90)]
    assert not {*groups[train]} & {*groups[test]}
    assert len({*groups[test]}) == 2
    assert {*labels[train]} == {*labels}
    with pytest.raises(ValueError, match="one of at least 2 groups is held out, but all are of 4"):
        split_by_group(np.full(3, 4), labels[:3], 0.3, seed)
    with pytest.raises(ValueError, match="none left every class to train on"):
        split_by_group(np.arange(4), np.arange(4), 0.3, seed)


@pytest.mark.usefixtures("no_report")
def test_volumes_are_for_cnn(tmp_path, capsys):
    rng, y = np.random.default_rng(4), np.arange(40) % 2
    x = (rng.random((40, 1, 3, 8, 8)) * 100 + 150 * y[:, None, None, None, None]).astype("u1")
    np.savez(tmp_path / "all.npz", x=x, y=y)
    run, given = str(tmp_path / "run"), ["--data", str(tmp_path / "all.npz"), "--epochs", "8"]
    assert cli.main(["train", "cnn", *given, "--learning-rate", "0.05", "--out", run]) == 0
    out, err = capsys.readouterr()
    assert "samples of shape (1, 3, 8, 8), numbers from 0 to 249, divided by 255" in err
    assert cli.main(["evaluate", run]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == out.rstrip("\n")
    found = load_classifier(run)
    assert found.score(x, y.astype(str)) > 0.9
    assert cli.main(["train", "cnn", *given, "--augment"]) == 2
    assert "argument --augment: images have shape (C, H, W), but samples have (1, 3, 8, 8)" in (
        capsys.readouterr().err
    )


# --- classifiers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(LENGTH,), (3, LENGTH), (1, 3, 6, 6)])
def test_classifiers_of_all_ranks_are_kept(tmp_path, capsys, shape):
    rng, y = np.random.default_rng(5), np.arange(20) % 2
    x = rng.standard_normal((20, *shape)).astype("f4")
    model = CNNClassifier(signals=len(shape) < 3, epochs=1, random_state=0).fit(x, y)
    save_classifier(tmp_path, model)
    assert '"network_layers": null' in (tmp_path / "run.json").read_text()
    again = load_classifier(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    np.save(tmp_path / "x.npy", x)
    assert cli.main(["predict", str(tmp_path), str(tmp_path / "x.npy")]) == 0
    assert len(rows(capsys.readouterr().out)) == 21


def test_rotations_come_before_the_statistics():
    turn = ax.RandomRotation3d(25)
    model = ax.signal_cnn(2)
    changed = ax.training.recipe.augmented(model, (ax.Jitter(0.1), turn))
    names = [*changed.children()]
    assert names[:3] == ["rotation", "0", "augmentation"]
    assert changed.init(0, (3, 20))[0].keys() == model.init(0, (3, 20))[0].keys()


@pytest.mark.parametrize(
    ("augment", "words"),
    [("images", r"images have shape \(C, H, W\), but"), ("sensors", "3, 6, ... channels, but")],
)
def test_changes_that_do_not_fit_are_an_error(augment, words):
    x = np.zeros((4, 2, LENGTH), "f4")
    with pytest.raises(ValueError, match=words):
        CNNClassifier(signals=True, augment=augment).fit(x, [0, 1, 0, 1])
