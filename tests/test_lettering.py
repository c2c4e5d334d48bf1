"""Names of classes in any script, of any length and with any character, in pictures and pages."""

from __future__ import annotations

import itertools
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from base64 import b64decode

import numpy as np
import pytest
from report_case import Page
from test_pictures import run
from test_pictures import texts as texts_of
from test_report import page as written_page

from agnostic_xent.evaluation import lettering
from agnostic_xent.evaluation.lettering import arrow, drawing, printable, shortened, width
from agnostic_xent.evaluation.pictures import NAME, STYLE, save_picture

matplotlib = pytest.importorskip("matplotlib")
font_manager = pytest.importorskip("matplotlib.font_manager")
agg = pytest.importorskip("matplotlib.backends.backend_agg")

ROUGH = {
    "a\nb": "a b",
    "  two \t words\u2028": "two words",
    "bell\a": "bell\\u0007",
    "\x1b[31mred": "\\u001b[31mred",
    "nul\0": "nul\\u0000",
    "\ud800": "\\ud800",
    "\u202eevil": "\\u202eevil",
    "$a_b$ <b>&amp;": "$a_b$ <b>&amp;",
    "猫 عربي 😀": "猫 عربي 😀",
    "می\u200cخواهم": "می\u200cخواهم",  # a joiner that Persian needs
    "": "",
}


@pytest.mark.parametrize("text", ROUGH)
def test_what_nobody_sees_is_written_as_a_number(text):
    assert printable(text) == ROUGH[text]
    assert printable(ROUGH[text]) == ROUGH[text]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("Ankle boot", 10, "Ankle boot"),
        ("Ankle boots", 10, "Ankle…oots"),
        ("class 1 of the experiment 1", 9, "clas…nt 1"),
        ("猫" * 20, 8, "猫猫…猫"),
        ("猫" * 4, 8, "猫" * 4),
        ("e\u0301" * 9, 9, "e\u0301" * 9),
        ("e\u0301" * 20, 6, "e\u0301e\u0301e\u0301…e\u0301e\u0301"),
    ],
)
def test_long_names_keep_both_ends(text, columns, expected):
    assert shortened(text, columns) == expected
    assert width(expected) <= columns


def test_an_arrow_reads_from_left_to_right():
    assert arrow("a", "b") == "a → b"
    for start, end in (("قطة", "كلب"), ("a", "כלב"), ("قطة", "b")):
        assert arrow(start, end).replace(lettering.LEFT_TO_RIGHT, "") == f"{start} → {end}"
        # the whole and the arrow stand between marks: only the words themselves are turned
        assert unicodedata.bidirectional(arrow(start, end)[0]) == "L"
        assert f"{lettering.LEFT_TO_RIGHT} → {lettering.LEFT_TO_RIGHT}" in arrow(start, end)


# --- fonts ---------------------------------------------------------------------------------------


@pytest.fixture
def own_fonts(monkeypatch):
    """Keep matplotlib's list of fonts what it was."""
    known = font_manager.fontManager
    monkeypatch.setattr(known, "ttflist", [*known.ttflist])


def made_font(path, name, characters):
    """Write a font whose characters are squares."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    glyphs = [".notdef", *(f"u{ord(c):04X}" for c in characters)]
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(c): f"u{ord(c):04X}" for c in characters})
    builder.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


def families(texts):
    with drawing(STYLE, texts):
        return matplotlib.rcParams["font.family"]


def test_fonts_that_have_the_characters_are_found(tmp_path, monkeypatch, own_fonts):
    """Also those that were installed after matplotlib made its list; broken files are passed."""
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    files = [
        str(tmp_path / "broken.ttf"),
        made_font(tmp_path / "other.ttf", "Other", "x"),
        made_font(tmp_path / "cats.ttf", "Cats", "猫犬"),
    ]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    assert "Cats" not in families(["plain"])
    assert families(["猫", "犬 and more"])[0] == "DejaVu Sans"
    assert families(["猫"])[-1] == "Cats"
    assert "Other" not in families(["猫"])
    save_picture(tmp_path / "a.png", **run(classes=("猫", "犬", "b")))


def test_the_fonts_of_the_user_come_after_the_first(tmp_path, monkeypatch, own_fonts):
    font_manager.fontManager.addfont(made_font(tmp_path / "mine.ttf", "Mine", "猫"))
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    for names in ({"font.sans-serif": ["Nowhere", "Mine"]}, {"font.family": ["Mine"]}):
        with matplotlib.rc_context(names):
            assert "Mine" in families(["猫"])
            assert families(["a"])[0] == "DejaVu Sans"
        assert "Mine" not in matplotlib.rcParams["font.family"]


def test_one_warning_tells_what_no_font_has(tmp_path, monkeypatch):
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    names = ("\U00012000", "\U00012001 with letters", "c", "d")
    expected = "no font here has \U00012000 \U00012001, so .* such as Noto"
    with pytest.warns(UserWarning, match=expected) as seen:
        save_picture(tmp_path / "a.png", **run(classes=names))
    assert len(seen) == 1
    with pytest.warns(UserWarning, match=expected) as seen:
        written_page(tmp_path, classes=names[:3])
    assert len(seen) == 1
    assert seen[0].filename == __file__.replace("test_lettering", "test_report")


# --- in pictures and pages -----------------------------------------------------------------------

HARD = ("$x_1$ \\frac{", "قطة", "<script>&amp;--", "a\n\x00\x1b\ud800b", "very_long_" * 9, "😀 é")


def test_a_picture_of_hard_names(tmp_path, monkeypatch):
    figures = []
    save = matplotlib.figure.Figure.savefig

    def spy(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", spy)
    with warnings.catch_warnings(action="error"):
        save_picture(tmp_path / "a.png", **run(classes=HARD) | {"title": "on \x00\ud800"})
    words = {text.get_text() for text in texts_of(figures[0])}
    assert words >= {shortened(printable(name), NAME) for name in HARD}
    assert "on \\u0000\\ud800: test accuracy 0.7500" in words
    renderer = agg.FigureCanvasAgg(figures[0]).get_renderer()
    boxes = {}
    for text in texts_of(figures[0]):
        box = text.get_window_extent(renderer)
        if " → " in text.get_text():
            boxes[text] = box
        if not text.get_text().isdecimal():
            assert 0 <= box.x0 < box.x1 <= 1600, text
    for one, other in itertools.combinations(boxes.values(), 2):
        assert not one.padded(-0.5).overlaps(other)


def test_a_page_of_hard_names(tmp_path):
    labels = np.arange(60) % 6
    probabilities = np.full((60, 6), 0.1)
    probabilities[np.arange(60), (labels + (np.arange(60) < 12)) % 6] = 0.5
    with warnings.catch_warnings(action="error"):
        found = written_page(
            tmp_path, classes=HARD, labels=labels, probabilities=probabilities,
            title="a\x00\ud800", settings={"name": "\x1b"},
        )  # fmt: skip
    assert isinstance(found, Page)
    assert {row[0] for row in found.rows} >= {printable(name) for name in HARD}
    assert found.words[0] == "a\\u0000\\ud800"
    assert ["name", "\\u001b"] in found.rows
    drawn = [p["src"] for p in found.pictures if p["src"].startswith("data:image/svg")]
    assert len(drawn) == 3
    for address in drawn:
        ET.fromstring(b64decode(address.partition(",")[2]))
