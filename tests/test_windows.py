"""Windows of recordings, what they say together, and groups that are held out as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from report_case import Page

pytest.importorskip("sklearn")

from agnostic_xent import (
    CNNClassifier,
    Dense,
    Flatten,
    LogisticRegression,
    Sequential,
    recording_log_proba,
    save_report,
    to_numpy,
    windows,
)

# --- windows -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(1, 12)),
    st.lists(st.integers(0, 20), min_size=1, max_size=5),
    st.sampled_from([(), (1,), (3,)]),
)
def test_windows_are_those_of_a_loop(seed, length, step, more, channels):
    rng = np.random.default_rng(seed)
    recordings = [rng.standard_normal((*channels, length + extra)) for extra in more]
    found = windows(recordings, length, step)
    expected, numbers = [], []
    for number, x in enumerate(recordings):
        start = 0
        while start + length <= x.shape[-1]:
            expected.append(x[..., start : start + length])
            numbers.append(number)
            start += length if step is None else step
    np.testing.assert_array_equal(found.x, np.stack(expected))
    np.testing.assert_array_equal(found.recording, numbers)
    np.testing.assert_array_equal(found.person, numbers)


def test_windows_on_every_library(row):
    recordings = [np.arange(2 * n, dtype="float32").reshape(2, n) for n in (5, 9, 4)]
    people = ["Ann", "Bob", "Ann"]
    expected = windows(recordings, 4, 2, people=people)
    found = windows([row.array(x) for x in recordings], 4, 2, people=people)
    row.check(found.x, "float32")
    np.testing.assert_array_equal(to_numpy(found.x), expected.x)
    assert found.person.tolist() == ["Ann", "Bob", "Bob", "Bob", "Ann"]
    together = row.array(np.stack([x[:, :4] for x in recordings]))
    np.testing.assert_array_equal(to_numpy(windows(together, 4).x), to_numpy(together))


ONE = np.zeros((2, 9))


@pytest.mark.parametrize(
    ("recordings", "length", "options", "error", "words"),
    [
        ([], 4, {}, ValueError, "recordings must hold at least one"),
        ([ONE, ONE[:, :3]], 4, {}, ValueError, r"recordings\[1\] has 3 numbers, fewer .* length=4"),
        ([ONE, ONE[:1]], 4, {}, ValueError, r"recordings\[1\] has \(1, 9\), recordings\[0\]"),
        ([ONE[None]], 4, {}, ValueError, r"must have shape \(C, L\)"),
        ([ONE, ONE.astype("float32")], 4, {}, TypeError, "one dtype"),
        ([ONE, ONE.tolist()], 4, {}, TypeError, r"recordings\[1\] must be an array"),
        ([ONE], 0, {}, ValueError, "length must be an integer >= 1, got 0"),
        ([ONE], 4, {"step": 0}, ValueError, "step must be an integer >= 1, got 0"),
        ([ONE], 4, {"people": [1, 2]}, ValueError, r"people must have shape \(1,\)"),
    ],
)
def test_windows_refuses(recordings, length, options, error, words):
    with pytest.raises(error, match=words):
        windows(recordings, length, **options)


# --- what windows say together -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 5))
def test_log_probabilities_of_recordings(seed, count, classes):
    rng = np.random.default_rng(seed)
    scores, recording = rng.standard_normal((count, classes)), rng.integers(0, 6, count)
    log_proba = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    numbers, found = recording_log_proba(log_proba, recording)
    assert numbers.tolist() == sorted(set(recording.tolist()))
    for number, row in zip(numbers, found, strict=True):
        p = np.exp([scores[recording == number, k].mean() for k in range(classes)])
        assert_close(np.exp(row), p / p.sum(), "float64", 10)
    assert_close(recording_log_proba(scores, recording)[1], found, "float64", 10)


def test_log_probabilities_on_every_library(row):
    rng = np.random.default_rng(0)
    log_proba = np.log(rng.dirichlet([1, 1, 1], 9)).astype("float32")
    names = np.asarray(["walk", "run"])[rng.integers(0, 2, 9)]
    expected = recording_log_proba(log_proba, names)
    numbers, found = recording_log_proba(row.array(log_proba), names)
    row.check(found, "float32")
    assert numbers.tolist() == ["run", "walk"]
    assert_close(to_numpy(found), expected[1], "float32", 9)


@pytest.mark.parametrize("recording", [[0], [[0, 1]], []])
def test_log_probabilities_refuse(recording):
    with pytest.raises(ValueError, match=r"recording must have shape \(2,\)"):
        recording_log_proba(np.zeros((2, 3)), recording)


# --- groups --------------------------------------------------------------------------------------


def people(count=60, of_each=5, seed=0):
    """Return samples that tell the person, with labels at random: only another person is a test."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(count // of_each), of_each)
    x = rng.standard_normal((count // of_each, 8))[person].astype("float32")
    return x, rng.integers(0, 2, count), person


def classifiers(**options):
    steps = {"early_stopping": True, "random_state": 0} | options
    return {
        "logistic": LogisticRegression(solver="sgd", max_iter=2, **steps),
        "cnn": CNNClassifier(Sequential(Flatten(), Dense(2)), epochs=2, **steps),
    }


@pytest.mark.parametrize("name", ["logistic", "cnn"])
@pytest.mark.parametrize("named", [False, True])
def test_whole_groups_are_held_out(name, named, monkeypatch):
    from agnostic_xent.estimators import fitting

    x, y, person = people()
    parts = []
    split = fitting.HeldOut.split
    monkeypatch.setattr(
        fitting.HeldOut, "split", lambda *args: parts.append(split(*args)) or parts[-1]
    )
    groups = np.asarray([f"p{i}" for i in person]) if named else person
    model = classifiers(validation_fraction=0.25)[name].fit(x, y, groups=groups)
    ((train, others),) = parts
    assert sorted([*train, *others]) == list(range(60))
    assert not set(person[train]) & set(person[others])
    assert len(set(person[others])) == 3
    again = classifiers(validation_fraction=0.25)[name].fit(x, y, groups=groups)
    assert again.validation_loss_curve_ == model.validation_loss_curve_


@pytest.mark.parametrize("name", ["logistic", "cnn"])
def test_groups_change_nothing_where_nothing_is_held_out(name):
    x, y, person = people()
    plain = classifiers(early_stopping=False)[name].fit(x, y)
    grouped = classifiers(early_stopping=False)[name].fit(x, y, groups=person)
    np.testing.assert_array_equal(grouped.predict_proba(x), plain.predict_proba(x))


def test_all_classes_stay_in_training():
    x, _, person = people()
    y = (person == 3).astype(int) + 2 * (person == 7)  # each rare class is of one person
    for seed in range(5):
        model = classifiers(random_state=seed, validation_fraction=0.5)["logistic"]
        assert model.fit(x, y, groups=person).classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="groups must leave samples of every class"):
        model.fit(x, (person > 5).astype(int), groups=person > 5)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (np.zeros(60), "groups must be at least 2"),
        (np.arange(59), r"groups must have shape \(60,\), one for each sample, got \(59,\)"),
        (np.zeros((60, 2)), "1d"),
    ],
)
def test_groups_refused(groups, words):
    x, y, _ = people()
    with pytest.raises(ValueError, match=words):
        classifiers()["logistic"].fit(x, y, groups=groups)


def test_cross_validation_hands_groups_on():
    from sklearn import config_context
    from sklearn.model_selection import GroupKFold, cross_validate

    x, y, person = people()
    with config_context(enable_metadata_routing=True):
        model = classifiers()["logistic"].set_fit_request(groups=True)
        found = cross_validate(
            model, x, y, cv=GroupKFold(3), params={"groups": person}, return_estimator=True
        )
    assert all(len(e.validation_loss_curve_) > 0 for e in found["estimator"])


# --- the report ----------------------------------------------------------------------------------


def test_the_report_has_a_row_for_each_person(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    x, y, person = people()
    names = np.asarray(["<Ann>", "Bob", "Cy"])[person % 3]
    model = LogisticRegression().fit(x, y)
    save_report(tmp_path / "report.html", model, x, y, groups=names)
    right = model.predict(x) == y
    expected = sorted((f"{right[names == n].mean():.3f}", n, "20") for n in np.unique(names))
    rows = [row for row in Page(tmp_path / "report.html").rows if row[0] in names]
    assert rows == [[name, accuracy, count] for accuracy, name, count in expected]
    with pytest.raises(ValueError, match=r"groups must have shape \(60,\)"):
        save_report(tmp_path / "report.html", model, x, y, groups=names[1:])
