"""The picture of a run: what it shows, that it is written whole, and that nothing overlaps."""

import itertools
import struct
import subprocess
import sys

import numpy as np
import pytest

from agnostic_xent.evaluation import pictures
from agnostic_xent.training.loop import Epoch, History

figure = pytest.importorskip("matplotlib.figure")
agg = pytest.importorskip("matplotlib.backends.backend_agg")

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "$\\alpha", "Sneaker")
HISTORY = History(
    [
        Epoch(1, 0.62, 0.77, 0.05, 5.0, 2000.0, 0.50, 0.82),
        Epoch(2, 0.38, 0.86, 0.01, 5.0, 2000.0, 0.38, 0.86),
    ]
)


def run(*, count=80, wrong=20, images=True, history=HISTORY, classes=CLASSES):
    """Return what a classifier predicted that is wrong on its first samples, the first the most."""
    labels = np.arange(count) % len(classes)
    predicted = np.where(np.arange(count) < wrong, (labels + 1) % len(classes), labels)
    confidence = np.linspace(0.99, 0.6, count)
    probabilities = np.full((count, len(classes)), 1.0) * (1 - confidence[:, None])
    probabilities /= len(classes) - 1
    probabilities[np.arange(count), predicted] = confidence
    shape = (count, 1, 6, 6)
    return {
        "history": history,
        "labels": labels,
        "probabilities": probabilities,
        "images": np.random.default_rng(0).random(shape, np.float32) if images else None,
        "classes": classes,
        "title": "cnn on toys",
    }


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that are written."""
    figures = []
    savefig = figure.Figure.savefig

    def spy(self, *args, **kwargs):
        figures.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(figure.Figure, "savefig", spy)
    return figures


def texts(drawing):
    found = drawing.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_visible())
    return [text for text in found if text.get_text().strip()]


def words(drawing):
    return [text.get_text() for text in texts(drawing)]


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND"
    return struct.unpack(">2I", content[16:24])


def test_png_is_1600_wide_and_lower_without_images(tmp_path):
    pictures.save_picture(tmp_path / "a.png", **run())
    pictures.save_picture(tmp_path / "b.png", **run(images=False))
    (width, height), (narrow, low) = png_size(tmp_path / "a.png"), png_size(tmp_path / "b.png")
    assert width == narrow == 1600
    assert low < height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_title_has_the_accuracy(tmp_path, drawn):
    pictures.save_picture(tmp_path / "a.png", **run(count=80, wrong=20))
    assert "cnn on toys: test accuracy 0.7500" in words(drawn[0])


def test_curves_are_the_history(tmp_path, drawn):
    pictures.save_picture(tmp_path / "a.png", **run())
    loss, accuracy = drawn[0].axes[:2]
    for ax in (loss, accuracy):  # the epoch of the least validation loss
        assert list(ax.lines[0].get_xdata()) == [2, 2]
    lines = [tuple(line.get_ydata()) for ax in (loss, accuracy) for line in ax.lines[1:]]
    assert sorted(lines) == sorted([(0.62, 0.38), (0.50, 0.38), (0.77, 0.86), (0.82, 0.86)])
    assert {"training 0.38", "validation 0.38", "training 0.8600"} <= set(words(drawn[0]))


def test_no_validation_no_second_curve(tmp_path, drawn):
    pictures.save_picture(
        tmp_path / "a.png", **run(history=History([Epoch(1, 0.5, 0.8, 0.1, 1, 9)]))
    )
    assert [len(ax.lines) for ax in drawn[0].axes[:2]] == [1, 1]


def test_confusion_counts_have_true_classes_in_rows(tmp_path, drawn):
    settings = run(classes=("no", "yes"), count=10, wrong=0, images=False)
    settings["labels"] = np.asarray([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    hits = np.asarray([1, 1, 0, 0, 0, 0, 0, 1, 1, 0])
    settings["probabilities"] = np.eye(2)[hits]
    pictures.save_picture(tmp_path / "a.png", **settings)
    matrix = drawn[0].axes[2]
    counts = {text.get_position(): text.get_text() for text in matrix.texts}
    assert counts == {(0, 0): "5", (1, 0): "2", (0, 1): "1", (1, 1): "2"}  # (column, row)
    assert (matrix.get_ylabel(), matrix.get_xlabel()) == ("true", "predicted")


@pytest.mark.parametrize("wrong", [0, 3, 20])
def test_mistakes_are_the_most_confident_ones(tmp_path, drawn, wrong):
    settings = run(wrong=wrong)
    order = np.random.default_rng(1).permutation(80)
    for name in ("labels", "probabilities", "images"):
        settings[name] = settings[name][order]
    pictures.save_picture(tmp_path / "a.png", **settings)
    shown = [ax for ax in drawn[0].axes[3:] if ax.images]
    assert len(shown) == min(wrong, 16)
    for rank, ax in enumerate(shown):
        row = int(np.flatnonzero(order == rank)[0])
        label = rank % len(CLASSES)
        names = f"{CLASSES[label]} → {CLASSES[(label + 1) % len(CLASSES)]}"
        assert ax.get_title() == f"{names}\n{settings['probabilities'][row].max():.3f}"
        np.testing.assert_array_equal(ax.images[0].get_array(), settings["images"][row, 0])
    assert ("No mistakes" in words(drawn[0])) == (wrong == 0)


@pytest.mark.parametrize("images", [True, False])
def test_texts_lie_inside_and_apart(tmp_path, drawn, images):
    pictures.save_picture(tmp_path / "a.png", **run(images=images))
    renderer = agg.FigureCanvasAgg(drawn[0]).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(drawn[0])]
    for text, box in boxes:
        if not text.isdecimal():  # matplotlib keeps ticks outside the axes that it never draws
            assert 0 <= box.x0 < box.x1 <= 1600, text
            assert 0 <= box.y0 < box.y1 <= drawn[0].bbox.height, text
    boxes = [(text, box) for text, box in boxes if text not in CLASSES]  # slanted: boxes overlap
    assert len(boxes) > 20
    for (one, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.padded(-0.5).overlaps(other_box), (one, other)


def test_diverged_run_is_drawn(tmp_path):
    nan = float("nan")
    settings = run(history=History([Epoch(1, nan, 0.1, 0.1, 1.0, 9.0, nan, 0.1)]))
    settings["probabilities"] = np.full_like(settings["probabilities"], nan)
    pictures.save_picture(tmp_path / "a.png", **settings)
    assert png_size(tmp_path / "a.png")[0] == 1600


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(self, *args, **kwargs):
        args[0].write(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(figure.Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        pictures.save_picture(path, **run())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_users_settings_are_kept_and_pyplot_is_not_loaded(tmp_path):
    code = (
        "import sys, matplotlib, numpy as np\n"
        "from agnostic_xent.evaluation.pictures import save_picture\n"
        "from agnostic_xent.training.loop import Epoch, History\n"
        "matplotlib.rcParams['font.size'] = 7.5\n"
        "save_picture(sys.argv[1], history=History([Epoch(1, 0.5, 0.8, 0.1, 1.0, 9.0)]),\n"
        "    labels=np.asarray([0, 1]), probabilities=np.eye(2), images=None,\n"
        "    classes=('a', 'b'), title='t')\n"
        "print(matplotlib.rcParams['font.size'], 'matplotlib.pyplot' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7.5", "False"]


def test_reliability_is_accuracy_over_confidence(tmp_path, drawn):
    settings = run(classes=("no", "yes"), count=4, wrong=0, images=False)
    settings["labels"] = np.asarray([0, 0, 1, 1])
    settings["probabilities"] = np.asarray([[0.95, 0.05], [0.62, 0.38], [0.66, 0.34], [0.03, 0.97]])
    pictures.save_picture(tmp_path / "a.png", **settings)
    upper, lower = drawn[0].axes[3:5]
    _, curve = upper.lines
    np.testing.assert_allclose(curve.get_xdata(), [0.64, 0.96])
    assert curve.get_ydata().tolist() == [0.5, 1.0]
    assert [bar.get_height() for bar in lower.patches] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert upper.get_title(loc="left") == "Reliability (error 0.090)"
