"""Pictures of samples: images, curves of signals, rows of slices, and what spoke for a class."""

import base64
import re

import numpy as np
import pytest
from cli_case import toy_signals
from cli_case import toys as toys
from report_case import Page, pixels

from agnostic_xent import CNNClassifier, cli, save_report
from agnostic_xent.evaluation import sample_pictures
from agnostic_xent.evaluation.sample_pictures import HEIGHT, SLICES, WIDTH, picture, reason

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def shown(found):
    """Return the pixels of a picture, (H, W, 3)."""
    return pixels({"src": found})[:, :, :3].astype(int)


def curves(found):
    """Return the points of the curves of a picture, one array (points, 2) a channel."""
    text = base64.b64decode(found.removeprefix("data:image/svg+xml;base64,")).decode()
    lines = re.findall(r'points="([^"]*)"', text)
    return [np.asarray([point.split(",") for point in line.split()], float) for line in lines]


@pytest.mark.parametrize(("channels", "length"), [(1, 1), (2, 7), (6, 200), (9, 301), (3, 1000)])
def test_a_signal_has_a_curve_for_each_channel(channels, length):
    x = np.random.default_rng(length).standard_normal((channels, length))
    found = curves(picture(x))
    step = -(-length // 300)
    assert [len(points) for points in found] == [len(range(0, length, step))] * channels
    all_points = np.concatenate(found)
    assert all_points.min() >= 0
    assert (all_points[:, 0] <= WIDTH).all()
    assert (all_points[:, 1] <= HEIGHT).all()
    for points, numbers in zip(found, x, strict=True):  # one scale, upwards
        expected = 2 + (x.max() - numbers[::step]) / (np.ptp(x) or 1) * (HEIGHT - 4)
        np.testing.assert_allclose(points[:, 1], expected, atol=0.06)
        assert (np.diff(points[:, 0]) > 0).all()


def test_a_signal_that_does_not_change_is_a_line():
    (points,) = curves(picture(np.full((1, 5), 3.0, "f4")))
    assert points[:, 1].tolist() == [2] * 5


@pytest.mark.parametrize("depth", [1, 4, 6, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_volume_is_a_row_of_slices(depth, channels):
    x = np.random.default_rng(depth).random((channels, depth, 5, 4))
    found = shown(picture(x))
    count = min(depth, SLICES)
    assert found.shape == (5, count * 5 - 1, 3)
    chosen = [0, *(round(i * (depth - 1) / (count - 1)) for i in range(1, count))]
    numbers = x[:, chosen] if channels == 3 else x[:1, chosen].repeat(3, axis=0)
    low, high = numbers.min(), numbers.max()
    for place in range(count):
        expected = np.moveaxis(numbers[:, place] - low, 0, -1) / (high - low) * 255
        slice_ = found[:, 5 * place : 5 * place + 4]
        np.testing.assert_allclose(slice_, expected, atol=2)  # a level of 256, cut off


def test_what_spoke_lies_where_the_sample_does():
    signal = np.zeros((2, 60))
    signal[0, 10], signal[1, 50] = 1, -1
    found = shown(reason(signal))
    assert found.shape == (24, 60, 3)  # as high as the curves
    red, blue = found[:, :, 0] - found[:, :, 2], found[:, :, 2] - found[:, :, 0]
    assert {*zip(*np.nonzero(red > 60), strict=True)} == {(row, 10) for row in range(12)}
    assert {*zip(*np.nonzero(blue > 60), strict=True)} == {(row, 50) for row in range(12, 24)}
    volume = np.zeros((2, 3, 4, 5))
    volume[:, 1, 2, 3], volume[0, 2, 0, 0] = 0.5, -1
    found = shown(reason(volume))
    assert found.shape == (4, 17, 3)
    assert found[2, 6 + 3, 0] > found[2, 6 + 3, 2] + 60
    assert found[0, 12, 2] > found[0, 12, 0] + 60


def test_what_is_drawn_is_what_is_shown():
    from matplotlib.figure import Figure

    rng, axes = np.random.default_rng(0), Figure().subplots(1, 2)
    signal, volume = rng.random((2, 7)), rng.random((1, 3, 4, 5))
    sample_pictures.draw(axes[0], signal)
    np.testing.assert_array_equal([line.get_ydata() for line in axes[0].lines], signal)
    sample_pictures.draw(axes[1], volume)
    np.testing.assert_array_equal(axes[1].images[0].get_array()[:, 6:11], volume[0, 1])


@pytest.mark.parametrize("shape", [(3, 24), (1, 4, 8, 8)])
def test_the_report_of_a_classifier_shows_its_samples(tmp_path, shape):
    rng, y = np.random.default_rng(1), np.arange(16) % 2  # which nobody can tell
    x = rng.standard_normal((16, *shape)).astype("f4")
    model = CNNClassifier(signals=len(shape) == 2, epochs=1, random_state=0).fit(x, y)
    wrong = y[::-1] if model.score(x, y) == 1 else y
    save_report(tmp_path / "report.html", model, x, wrong)
    found = Page(tmp_path / "report.html")
    mistakes = [p["src"] for p in found.pictures if p["alt"] == ""]
    assert mistakes
    assert {*mistakes} <= {picture(sample) for sample in x}
    assert len([p for p in found.pictures if p["alt"].startswith("What spoke")]) == len(mistakes)
    filters = [p for p in found.pictures if p["alt"].startswith("Filter ")]
    weights = model.params_["1.weight"]
    assert len(filters) == min(64, len(weights))
    assert pixels(filters[0]).shape[:2] == (weights[0, ..., 0].size, weights.shape[-1])


def test_the_report_of_signals_tells_of_recordings_and_people(toys, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["train", "signals", "--epochs", "1", "--out", str(run)]) == 0
    told = capsys.readouterr().out.splitlines()
    found = Page(run / "report.html")
    at = found.words.index("accuracy of recordings")
    assert told[0] == f"accuracy of recordings: {found.words[at + 1]}"
    people = {row[0]: row[2] for row in found.rows if row[:1] in (["Ann"], ["Bob"])}
    assert people == {"Ann": "8", "Bob": "12"}
    known = {picture(sample) for sample in toy_signals().test_x}
    assert {p["src"] for p in found.pictures if p["alt"] == ""} <= known
    assert (run / "report.png").exists()
