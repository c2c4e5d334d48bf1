"""The report: what the page says, that it needs nothing else, and how a browser shows it."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from report_case import Page, pixels

from agnostic_xent import expected_calibration_error, fit_conformal
from agnostic_xent.evaluation import page as report
from agnostic_xent.evaluation.label_issues import ranked_issues
from agnostic_xent.evaluation.layer_times import LayerTime

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")

CLASSES = ("T-shirt/top", "<b>Trouser</b>", "Pullover & vest")
CURVES = {
    "loss": {"training": [0.62, 0.38], "validation": [0.50, 0.375]},
    "accuracy": {"training": [0.77, 0.86], "validation": [0.82, 0.86]},
}
LAYERS = [
    LayerTime(
        "Conv2d(16, 3, activation='relu')", (16, 6, 6), 160, ["Numba, direct"], 0.00125, 0.002
    ),
    LayerTime("Flatten()", (576,), 0, [], 5e-6, 4e-6),
    LayerTime("cross_entropy", (), 0, ["portable (no kernel for it)"], 1e-5, 1e-5),
]
BROWSERS = (
    "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome",
    "google-chrome-stable", "chrome-headless-shell",
)  # fmt: skip


def shown(*, wrong=4, **changed):
    """Return what a classifier predicted that is wrong on its first samples, the first the most."""
    labels = np.arange(60) % 3
    predicted = np.where(np.arange(60) < wrong, (labels + 1) % 3, labels)
    confidence = np.linspace(0.99, 0.6, 60)
    probabilities = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(60), predicted] = confidence
    rng = np.random.default_rng(0)
    return {
        "title": "cnn on <toys>",
        "loss": 0.375,
        "numbers": {"parameters": "160", "epochs": "2"},
        "curves": CURVES,
        "unit": "epoch",
        "labels": labels,
        "probabilities": probabilities,
        "images": rng.random((60, 1, 6, 6), np.float32),
        "explained": lambda rows: np.eye(6)[None, None] * (1 + rows[:, None, None, None]),
        "classes": CLASSES,
        "filters": rng.standard_normal((16, 2, 3, 3), np.float32),
        "layers": LAYERS,
        "layers_note": "A training step of 64 samples.",
        "settings": {"batch size": 64},
        "versions": {"numpy": "2.4"},
    } | changed


def page(tmp_path, **settings):
    report.save_page(tmp_path / "report.html", **shown(**settings))
    return Page(tmp_path / "report.html")


# --- what it says --------------------------------------------------------------------------------


def test_numbers(tmp_path):
    found = page(tmp_path)
    error = expected_calibration_error(shown()["probabilities"], shown()["labels"], bins=10)
    summary = dict(zip(found.words[2:14:2], found.words[3:15:2], strict=True))
    assert summary == {
        "test accuracy": f"{56 / 60:.4f}",
        "test loss": "0.375",
        "calibration error": f"{float(error):.3f}",
        "test samples": "60",
        "parameters": "160",
        "epochs": "2",
    }
    assert ["batch size", "64"] in found.rows
    assert ["numpy", "2.4"] in found.rows


def test_scores_of_classes(tmp_path):
    labels = np.asarray([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    predicted = np.asarray([0, 0, 0, 1, 1, 1, 1, 0, 0, 0])
    found = page(tmp_path, labels=labels, probabilities=np.eye(3)[predicted], images=None)
    # class 0: 3 right of 6 predicted and 4 true; class 1: 3 of 4 and 6; class 2 is nowhere
    assert [CLASSES[0], "0.500", "0.750", "0.600", "4", f"{CLASSES[1]}, 1"] in found.rows
    assert [CLASSES[1], "0.750", "0.500", "0.600", "6", f"{CLASSES[0]}, 3"] in found.rows
    assert [CLASSES[2], "–", "–", "–", "0", "–"] in found.rows


def test_names_are_text_not_markup(tmp_path):
    found = page(tmp_path)
    assert found.words[0] == "cnn on <toys>"
    assert CLASSES[1] in found.words
    assert "<b>Trouser" not in found.text


def test_layers(tmp_path):
    rows = page(tmp_path).rows
    name = "Conv2d(16, 3, activation='relu')"
    assert [name, "1.250", "2.000", "Numba, direct", "16 × 6 × 6", "160"] in rows
    assert ["Flatten()", "0.005", "0.004", "–", "576", "0"] in rows
    last = ["cross_entropy", "0.010", "0.010", "portable (no kernel for it)", "scalar", "0"]
    assert last in rows


@pytest.mark.parametrize("wrong", [0, 4, 40])
def test_mistakes_are_the_most_confident_ones(tmp_path, wrong):
    settings = shown(wrong=wrong)
    order = np.random.default_rng(1).permutation(60)
    shuffled = {name: settings[name][order] for name in ("labels", "probabilities", "images")}
    found = page(tmp_path, wrong=wrong, **shuffled, filters=None)
    pictures = [p for p in found.pictures if p["alt"] == ""]
    assert len(pictures) == min(wrong, report.MISTAKES)
    for rank, picture in enumerate(pictures):
        assert pixels(picture).shape == (6, 6, 4)
        image = settings["images"][rank, 0]
        gray = pixels(picture)[..., 0].astype(float)
        assert np.corrcoef(gray.ravel(), image.ravel())[0, 1] > 0.99  # bright where it is large
        label, confidence = rank % 3, settings["probabilities"][rank].max()
        caption = [CLASSES[label], "→", CLASSES[(label + 1) % 3]]
        at = next(i for i in range(len(found.words)) if found.words[i : i + 3] == caption)
        assert re.fullmatch(r"0\.\d{3}", found.words[at + 3])
        assert f"{confidence:.3f}" in found.words
    assert ("None." in found.words) == (wrong == 0)


def test_an_explanation_is_beside_each_mistake(tmp_path):
    asked = []

    def explained(rows):
        asked.append(rows.tolist())
        maps = np.zeros((len(rows), 2, 6, 6))
        maps[:, :, 0, 0], maps[:, :, 5, 5] = 1, -1
        return maps

    found = page(tmp_path, explained=explained)
    assert asked == [[0, 1, 2, 3]]
    reasons = [p for p in found.pictures if p["alt"].startswith("What spoke for ")]
    names = [p["alt"].removeprefix("What spoke for ") for p in reasons]
    assert names == [CLASSES[(i + 1) % 3] for i in range(4)]
    for reason in reasons:
        red, _, blue = pixels(reason)[0, 0, :3].astype(int)
        assert red > blue
        red, _, blue = pixels(reason)[5, 5, :3].astype(int)
        assert red < blue
    assert "integrated gradients" in found.text
    assert "integrated gradients" not in page(tmp_path, explained=None).text
    assert page(tmp_path, explained=explained, wrong=0).pictures
    assert len(asked) == 1


@pytest.mark.parametrize("images", [True, False])
def test_labels_that_may_be_wrong(tmp_path, images):
    settings = shown(wrong=3) if images else shown(wrong=3, images=None)
    found = page(tmp_path, **settings)
    p, labels = settings["probabilities"], settings["labels"]
    rows = ranked_issues(p, labels)
    rows = rows[p[rows].argmax(axis=1) != labels[rows]]
    for i in rows:
        best = p[i].argmax()
        cells = [
            f"{i}",
            CLASSES[labels[i]],
            f"{p[i, labels[i]]:.3f}",
            CLASSES[best],
            f"{p[i, best]:.3f}",
        ]
        assert cells in found.rows
    assert len(rows) == 3
    assert ("Sample 0" in [p["alt"] for p in found.pictures]) == images


def test_prediction_sets(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 150)
    labels = np.array([rng.choice(3, p=q) for q in probabilities])
    found = page(tmp_path, labels=labels, probabilities=probabilities, images=None)
    for coverage in (0.9, 0.95):
        taken = np.zeros((150, 3), bool)
        for part in (slice(0, None, 2), slice(1, None, 2)):
            other = slice(1 - part.start, None, 2)
            sets = fit_conformal(probabilities[other], labels[other], coverage=coverage)
            taken[part] = sets(probabilities[part])
        sizes = taken.sum(axis=1)
        shares = [f"{np.mean(x):.3f}" for x in (sizes == 1, sizes == 2, sizes > 2)]
        covered = f"{taken[np.arange(150), labels].mean():.4f}"
        assert [f"{coverage:.2f}", covered, f"{sizes.mean():.2f}", *shares] in found.rows
    assert not [row for row in found.rows if row[0] == "0.99"]  # 75 samples cannot promise it
    few = page(tmp_path, labels=labels[:10], probabilities=probabilities[:10], images=None)
    assert "Prediction sets" not in few.words


def test_filters_of_colours_have_colours(tmp_path):
    filters = np.zeros((2, 3, 3, 3), np.float32)
    filters[0, :, 0, 0] = 2, 0, -2  # of a red that is not blue
    found = page(tmp_path, filters=filters)
    strong, none = (pixels(p)[..., :3] for p in found.pictures if "Filter" in p["alt"])
    np.testing.assert_allclose(strong[0, 0], [255, 127.5, 0], atol=1)
    np.testing.assert_allclose(none, 127.5, atol=1)
    assert "Weights of red, green and blue as colours" in found.text


def test_follows_the_light_or_dark_of_the_reader_but_not_on_paper(tmp_path):
    """Every colour of the page itself is one of those that the dark part changes."""
    style = page(tmp_path).text.partition("<style>")[2].partition("</style>")[0]
    light, dark = re.findall(r":root \{.*?(--.*?)\}", style)
    names = [re.findall(r"(--\w+):", part) for part in (light, dark)]
    assert names[0] == names[1]
    assert "@media screen and (prefers-color-scheme: dark)" in style
    rest = style.replace(light, "").replace(dark, "")
    assert set(re.findall(r"(?:color|background|solid):? (?!scheme)([\w#()-]+)", rest)) <= {
        "white", "var(", *(f"var({name})" for name in names[0])
    }  # fmt: skip


def test_filters_have_one_scale(tmp_path):
    filters = np.zeros((2, 1, 3, 3), np.float32)
    filters[0, 0, 0] = -2, 0, 2
    filters[1, 0, 0] = -1, 0, 1
    found = page(tmp_path, filters=filters)
    strong, weak = (pixels(p)[0].astype(int) for p in found.pictures if "Filter" in p["alt"])
    assert strong[0, 2] > strong[0, 0]  # negative is blue
    assert strong[2, 0] > strong[2, 2]  # positive is red
    assert (strong[1] == weak[1]).all()
    assert weak[2].sum() > strong[2].sum()  # half as much is paler


def test_what_is_not_there_is_left_out(tmp_path):
    found = page(tmp_path, images=None, filters=None, loss=None, curves={}, layers=[])
    assert len(found.pictures) == 2
    left_out = {"Most confident mistakes", "Filters of the first layer", "test loss", "Layers"}
    assert not left_out & set(found.words)


def test_the_page_is_the_same_each_time(tmp_path):
    assert page(tmp_path).text == page(tmp_path).text


def test_it_refers_to_nothing_else(tmp_path):
    found = page(tmp_path)
    assert {p["src"].partition(",")[0] for p in found.pictures} == {
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    }
    assert "script" not in found.text
    assert "url(" not in found.text
    assert "href" not in found.text


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(report, "picture", fail)
    with pytest.raises(OSError, match="disk full"):
        report.save_page(path, **shown())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browse():
    """Return a function that runs a headless browser which reaches no network."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium")

    def run(path, *options):
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", *options, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("width", [390, 1280])
def test_screen(tmp_path, browse, width):
    """No picture is broken, and nothing is wider than the screen."""
    page(tmp_path)
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    report += """<script>onload = () => parent.document.title = [
        innerWidth, document.documentElement.scrollWidth,
        [...document.images].filter(x => x.complete && x.naturalWidth).length,
        document.images.length, document.documentElement.scrollHeight].join(" ");</script>"""
    path = tmp_path / "screen.html"

    def framed(height):  # a window of some browsers is not as narrow as a phone
        frame = f'<iframe style="border: 0; width: {width}px; height: {height}px"'
        text = f'<body style="margin: 0">{frame} srcdoc="{html.escape(report)}"></iframe>'
        path.write_text(text, encoding="utf-8")
        return f"--window-size={max(width, 500)},{height}"

    dom = browse(path, framed(900), "--dump-dom")
    inner, needed, loaded, pictures, height = map(
        int, re.search(r"<title>([\d ]+)</title>", dom)[1].split()
    )
    assert inner == width
    assert needed <= width
    assert loaded == pictures == 3 + 3 * 4 + 16
    file = tmp_path / "screen.png"
    browse(path, framed(height), f"--screenshot={file}")
    screen = np.asarray(Image.open(file).convert("RGB")).astype(int)[:, :width]
    assert screen.shape == (height, width, 3)
    dark = (screen.sum(axis=2) < 300).any(axis=1)  # text or pictures in each row
    assert dark.mean() > 0.3
    assert (np.ptp(screen, axis=2) > 60).mean() > 0.02  # blue, orange and red of the pictures


def test_paper(tmp_path, browse):
    page(tmp_path)
    file = tmp_path / "paper.pdf"
    browse(tmp_path / "report.html", "--no-pdf-header-footer", f"--print-to-pdf={file}")
    content = file.read_bytes()
    assert content.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type ?/Page\b", content)) <= 4
